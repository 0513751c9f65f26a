// Package crashfs is a simulated file system for tests: what was not synced is lost, torn or garbled in a crash, names
// that were not synced come and go, any call fails on request. Given the same seed and the same calls it does the same.
//
// Its model of a crash: each 512-byte sector of each unsynced write is kept, lost, or replaced by noise, but is old or
// new where the write left part of it alone, or changed nothing; of the unsynced changes of names in a directory a prefix is kept, for each
// directory on its own. A sync that fails marks the pages clean: they stay readable, but never reach the medium.
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

// Faults. One that hits a call once hits it whatever it is; a lasting one fails from then on what it would in earnest.
const (
	EIO        Fault = iota // any call; of a write or sync any part may have happened
	ENOSPC                  // what needs space; nothing of it happens
	EMFILE                  // what opens a file or folder
	EROFS                   // what changes anything: the system has remounted the disk read-only
	ShortWrite              // what needs space; half of a write happens
)

// Faults returns all of them.
func Faults() []Fault { return []Fault{EIO, ENOSPC, EMFILE, EROFS, ShortWrite} }

func (f Fault) String() string {
	return [...]string{"EIO", "ENOSPC", "EMFILE", "EROFS", "short write"}[f]
}

func (f Fault) err() error {
	return [...]error{syscall.EIO, syscall.ENOSPC, syscall.EMFILE, syscall.EROFS, io.ErrShortWrite}[f]
}

// fails tells whether a lasting fault fails a call with these needs.
func (f Fault) fails(needs need) bool {
	return f == EIO || needs&[...]need{0, space, descriptor, change, space}[f] != 0
}

// need is what a call needs of the disk.
type need uint8

const (
	descriptor need = 1 << iota
	change
	space
)

// failure is a fault that waits for its call.
type failure struct {
	at      int
	fault   Fault
	lasting bool
}

// FS is the file system. It implements disk.FS.
type FS struct {
	mu       sync.Mutex
	rng      *rand.Rand
	live     map[string]*node // what calls see
	durable  map[string]*node // what a crash leaves for certain
	pending  []*naming        // of names, in order
	locks    map[string]bool
	unsynced map[string]error // directories whose sync has failed, until the process is restarted

	ops, calls int // changes; calls of any kind
	crashAt    int
	crashed    bool
	failures   []failure
	failed     int    // calls
	fault      Fault  // of the last call that failed
	changed    string // what the last change was of
	onOp       func(op int, name string)
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

// naming is an unsynced change of names: from is empty for a new file, to is empty for a removed one.
type naming struct {
	from, to string
	node     *node
}

// New returns an empty file system.
func New(seed uint64) *FS {
	return &FS{
		rng:      rand.New(rand.NewPCG(seed, 1)),
		live:     map[string]*node{".": {dir: true}, "/": {dir: true}},
		durable:  map[string]*node{".": {dir: true}, "/": {dir: true}},
		locks:    map[string]bool{},
		unsynced: map[string]error{},
	}
}

// CrashAt makes the nth change from now (1 is the next) the last: it may or may not have happened, and it and all later
// calls return ErrCrashed.
func (f *FS) CrashAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashAt = f.ops + n
}

// FailAt makes the nth call from now (1 is the next) fail, besides those that fail already.
func (f *FS) FailAt(n int, fault Fault, lasting bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures = append(f.failures, failure{f.calls + n, fault, lasting})
}

// Heal makes no call fail from now on, unless it is a sync of a folder whose sync has failed.
func (f *FS) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures = nil
}

// Failed returns how many calls have failed as FailAt wanted.
func (f *FS) Failed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// Crashed tells whether the crash has come that CrashAt wanted.
func (f *FS) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed
}

// Changed returns the name of what was changed last: after a crash, in the middle of what it came.
func (f *FS) Changed() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// OnOp sets a function that is called in the middle of every change, when it is not durable yet, with the name of what
// is changed.
func (f *FS) OnOp(do func(op int, name string)) {
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

// begin counts a call and decides whether it fails.
func (f *FS) begin(needs need) (fails bool, err error) {
	f.calls++
	if f.crashed {
		return true, ErrCrashed
	}
	for _, failing := range f.failures {
		if f.calls == failing.at || f.calls > failing.at && failing.lasting && failing.fault.fails(needs) {
			f.failed++
			f.fault = failing.fault
			return true, failing.fault.err()
		}
	}
	return false, nil
}

// op ends a change of name that is in the books but not durable. The caller holds mu, which is given up for the hook.
func (f *FS) op(name string) error {
	f.ops++
	f.changed = name
	if f.onOp != nil {
		do, n := f.onOp, f.ops
		f.mu.Unlock()
		do(n, name)
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
	if fails, err := f.begin(descriptor); fails {
		return nil, err
	}
	n, err := f.find("open", filepath.Clean(name))
	if err != nil {
		return nil, err
	}
	return &file{f, n, filepath.Clean(name), n.failed}, nil
}

// Create implements disk.FS.
func (f *FS) Create(name string) (disk.File, error) {
	name = filepath.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if fails, err := f.begin(descriptor | change | space); fails {
		return nil, err
	}
	if f.live[name] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	if _, err := f.find("create", filepath.Dir(name)); err != nil {
		return nil, err
	}
	n := &node{}
	f.change(&naming{to: name, node: n})
	return &file{f, n, name, 0}, f.op(name)
}

func (f *FS) change(c *naming) {
	c.apply(f.live)
	f.pending = append(f.pending, c)
}

// Rename implements disk.FS.
func (f *FS) Rename(oldName, newName string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fails, err := f.begin(change); fails {
		return err
	}
	n, err := f.find("rename", filepath.Clean(oldName))
	if err != nil {
		return err
	}
	f.change(&naming{filepath.Clean(oldName), filepath.Clean(newName), n})
	return f.op(filepath.Clean(newName))
}

// Remove implements disk.FS.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fails, err := f.begin(change); fails {
		return err
	}
	n, err := f.find("remove", filepath.Clean(name))
	if err != nil {
		return err
	}
	f.change(&naming{from: filepath.Clean(name), node: n})
	return f.op(filepath.Clean(name))
}

// MkdirAll implements disk.FS.
func (f *FS) MkdirAll(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fails, err := f.begin(change | space); fails {
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
		f.change(&naming{to: dir, node: &node{dir: true}})
	}
	return f.op(filepath.Clean(name))
}

// SyncDir implements disk.FS.
func (f *FS) SyncDir(name string) error {
	name = filepath.Clean(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	fails, failed := f.begin(descriptor | change)
	if f.crashed {
		return ErrCrashed
	}
	if err := f.unsynced[name]; err != nil {
		return err
	}
	if _, err := f.find("sync", name); err != nil {
		return err
	}
	if fails {
		f.unsynced[name] = failed
	}
	if err := f.op(name); err != nil {
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
	if fails, err := f.begin(descriptor); fails {
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
	if fails, err := f.begin(0); fails {
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
	if fails, err := f.begin(descriptor); fails {
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
