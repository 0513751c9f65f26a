// Package crashfs is a simulated file system for tests: what was not synced is lost, torn or garbled in a crash, names
// that were not synced come and go, any call fails on request. Given the same seed and the same calls it does the same.
//
// Its model of a crash: each 512-byte sector of each unsynced write is kept, lost, or replaced by noise (only the bytes
// that were written: a sector keeps what a write left alone); of the unsynced changes of names in a directory a prefix
// is kept, for each directory on its own. A sync that fails marks the pages clean: they stay readable, but never reach
// the medium.
//
// Only tests import it.
package crashfs

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/pipe-roll/piperoll/log/disk"
)

const sectorBytes = 512

// ErrCrashed is what every call returns after the crash.
var ErrCrashed = errors.New("the machine has crashed")

// Fault is a way for a call to fail.
type Fault int

// Faults. Lasting ones fail all later calls: EIO any, the others those that need space.
const (
	EIO        Fault = iota // the call fails; of a write or sync any part may have happened
	ENOSPC                  // no space
	ShortWrite              // half of a write happens
)

// FS is the file system. It implements disk.FS.
type FS struct {
	mu      sync.Mutex
	rng     *rand.Rand
	live    map[string]*node // what calls see
	durable map[string]*node // what a crash leaves for certain
	pending []*change        // of names, in order
	locks   map[string]bool
	failed  map[string]error // directories whose sync has failed, until the process is restarted

	ops, calls int // changes; calls of any kind
	crashAt    int
	crashed    bool
	failAt     int
	fault      Fault
	lasting    bool
	onOp       func(op int)
}

// node is a file or a folder. Its bytes may be shared with other crash states, and are copied before a change.
type node struct {
	dir     bool
	live    []byte
	medium  []byte
	pending []write
	shared  bool // medium is shared
	own     bool // live is not shared
	failed  int  // syncs that failed
}

// write is an unsynced write, or (data nil) an unsynced change of size.
type write struct {
	off  int64
	data []byte
}

// change is an unsynced change of names: from is empty for a new file, to is empty for a removed one.
type change struct {
	from, to string
	node     *node
}

// New returns an empty file system.
func New(seed uint64) *FS {
	return &FS{
		rng:     rand.New(rand.NewPCG(seed, 1)),
		live:    map[string]*node{".": {dir: true}, "/": {dir: true}},
		durable: map[string]*node{".": {dir: true}, "/": {dir: true}},
		locks:   map[string]bool{},
		failed:  map[string]error{},
	}
}

// CrashAt makes the nth change from now (1 is the next) the last: it may or may not have happened, and it and all later
// calls return ErrCrashed.
func (f *FS) CrashAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashAt = f.ops + n
}

// FailAt makes the nth call from now (1 is the next) fail.
func (f *FS) FailAt(n int, fault Fault, lasting bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt, f.fault, f.lasting = f.calls+n, fault, lasting
}

// OnOp sets a function that is called in the middle of every change, when it is not durable yet.
func (f *FS) OnOp(do func(op int)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onOp = do
}

// Ops returns the number of changes so far.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// Calls returns the number of calls so far.
func (f *FS) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Files returns the contents of all files, as calls see them.
func (f *FS) Files() map[string][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	files := map[string][]byte{}
	for name, n := range f.live {
		if !n.dir {
			files[name] = slices.Clone(n.live)
		}
	}
	return files
}

// Flip inverts bits of one byte of a file, on the medium and in memory.
func (f *FS) Flip(name string, off int64, mask byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.live[filepath.Clean(name)]
	n.live, n.medium = slices.Clone(n.live), slices.Clone(n.medium)
	n.own, n.shared = true, false
	n.live[off] ^= mask
	if off < int64(len(n.medium)) {
		n.medium[off] ^= mask
	}
}

// begin counts a call and decides whether it fails. allocates: the call needs space.
func (f *FS) begin(allocates bool) (fails bool, err error) {
	f.calls++
	if f.crashed {
		return true, ErrCrashed
	}
	if f.failAt == 0 || f.calls < f.failAt || f.calls > f.failAt && (!f.lasting || f.fault != EIO && !allocates) {
		return false, nil
	}
	switch f.fault {
	case ENOSPC:
		return true, syscall.ENOSPC
	case ShortWrite:
		return true, io.ErrShortWrite
	}
	return true, syscall.EIO
}

// op ends a change that is in the books but not durable. The caller holds mu, which is given up for the hook.
func (f *FS) op() error {
	f.ops++
	if f.onOp != nil {
		do, n := f.onOp, f.ops
		f.mu.Unlock()
		do(n)
		f.mu.Lock()
	}
	if f.crashAt > 0 && f.ops >= f.crashAt {
		f.crashed = true
		return ErrCrashed
	}
	return nil
}

func (f *FS) find(op, name string) (*node, error) {
	if n := f.live[name]; n != nil {
		return n, nil
	}
	return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// Open implements disk.FS.
func (f *FS) Open(name string) (disk.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fails, err := f.begin(false); fails {
		return nil, err
	}
	n, err := f.find("open", filepath.Clean(name))
	if err != nil {
		return nil, err
	}
	return &file{f, n, n.failed}, nil
}

// Create implements disk.FS.
func (f *FS) Create(name string) (disk.File, error) {
	name = filepath.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if fails, err := f.begin(true); fails {
		return nil, err
	}
	if f.live[name] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	if _, err := f.find("create", filepath.Dir(name)); err != nil {
		return nil, err
	}
	n := &node{}
	f.change(&change{to: name, node: n})
	return &file{f, n, 0}, f.op()
}

func (f *FS) change(c *change) {
	c.apply(f.live)
	f.pending = append(f.pending, c)
}

// Rename implements disk.FS.
func (f *FS) Rename(oldName, newName string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fails, err := f.begin(false); fails {
		return err
	}
	n, err := f.find("rename", filepath.Clean(oldName))
	if err != nil {
		return err
	}
	f.change(&change{filepath.Clean(oldName), filepath.Clean(newName), n})
	return f.op()
}

// Remove implements disk.FS.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fails, err := f.begin(false); fails {
		return err
	}
	n, err := f.find("remove", filepath.Clean(name))
	if err != nil {
		return err
	}
	f.change(&change{from: filepath.Clean(name), node: n})
	return f.op()
}

// MkdirAll implements disk.FS.
func (f *FS) MkdirAll(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fails, err := f.begin(true); fails {
		return err
	}
	var missing []string
	for dir := filepath.Clean(name); f.live[dir] == nil; dir = filepath.Dir(dir) {
		missing = append(missing, dir)
	}
	if len(missing) == 0 {
		return nil
	}
	for _, dir := range slices.Backward(missing) {
		f.change(&change{to: dir, node: &node{dir: true}})
	}
	return f.op()
}

// SyncDir implements disk.FS.
func (f *FS) SyncDir(name string) error {
	name = filepath.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	fails, failed := f.begin(false)
	if f.crashed {
		return ErrCrashed
	}
	if err := f.failed[name]; err != nil {
		return err
	}
	if _, err := f.find("sync", name); err != nil {
		return err
	}
	if fails {
		f.failed[name] = failed
	}
	if err := f.op(); err != nil {
		return err
	}
	rest := f.pending[:0:0]
	for _, c := range f.pending {
		switch {
		case !slices.Contains(c.dirs(), name), fails && f.rng.IntN(2) == 0:
			rest = append(rest, c)
		default:
			c.apply(f.durable)
		}
	}
	f.pending = rest
	return failed
}

// ReadDir implements disk.FS.
func (f *FS) ReadDir(name string) ([]string, error) {
	name = filepath.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if fails, err := f.begin(false); fails {
		return nil, err
	}
	if _, err := f.find("read", name); err != nil {
		return nil, err
	}
	var names []string
	for path := range f.live {
		if filepath.Dir(path) == name && path != name {
			names = append(names, strings.TrimPrefix(filepath.Base(path), "/"))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Size implements disk.FS.
func (f *FS) Size(name string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fails, err := f.begin(false); fails {
		return 0, err
	}
	n, err := f.find("size", filepath.Clean(name))
	if err != nil {
		return 0, err
	}
	return int64(len(n.live)), nil
}

// Lock implements disk.FS. A lock does not survive a crash or restart, nor is its file in the books.
func (f *FS) Lock(name string) (io.Closer, error) {
	name = filepath.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if fails, err := f.begin(false); fails {
		return nil, err
	}
	if _, err := f.find("lock", filepath.Dir(name)); err != nil {
		return nil, err
	}
	if f.locks[name] {
		return nil, disk.ErrLocked
	}
	f.locks[name] = true
	return &lock{f, name}, nil
}

type lock struct {
	fs   *FS
	name string
}

func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.locks, l.name)
	return nil
}
