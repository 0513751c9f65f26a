package tiles

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
	"github.com/pipe-roll/piperoll/log/reader"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const testOrigin = "test.example/log"

// A world is what outlives a tree and its process: the key, the durable entries, and everything that anybody has ever
// seen signed or published.
type world struct {
	t        testing.TB
	signer   note.Signer
	verifier note.Verifier
	src      *memSource

	mu        sync.Mutex
	roots     map[uint64]log.Hash // guarded by mu: of signed sizes
	largest   uint64              // guarded by mu: signed
	published uint64              // guarded by mu: largest published
	broken    error               // guarded by mu: makes the signer fail
}

func newWorld(t testing.TB) *world {
	skey, vkey, err := note.GenerateKey(rand.Reader, testOrigin)
	must(t, err)
	w := &world{t: t, src: newSource(), roots: map[uint64]log.Hash{}}
	w.signer, err = note.NewSigner(skey)
	must(t, err)
	w.verifier, err = note.NewVerifier(vkey)
	must(t, err)
	return w
}

// Name, KeyHash and Sign make the world the signer: it remembers each head and fails the test at a fork or a step back.
func (w *world) Name() string    { return w.signer.Name() }
func (w *world) KeyHash() uint32 { return w.signer.KeyHash() }

func (w *world) Sign(msg []byte) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return nil, w.broken
	}
	cp, err := log.ParseCheckpoint(string(msg))
	if err != nil {
		w.t.Errorf("signed what is no checkpoint: %q", msg)
		return nil, err
	}
	if root, ok := w.roots[cp.Size]; ok && root != cp.Root {
		w.t.Errorf("FORK: two roots signed for size %d", cp.Size)
	}
	if want := w.src.rootAt(w.t, cp.Size); want != cp.Root {
		w.t.Errorf("signed root %v for size %d, the entries give %v", cp.Root, cp.Size, want)
	}
	if cp.Size < w.largest {
		w.t.Errorf("signed size %d after %d", cp.Size, w.largest)
	}
	w.roots[cp.Size], w.largest = cp.Root, cp.Size
	return w.signer.Sign(msg)
}

func (w *world) config(fsys disk.FS) Config {
	return Config{Dir: "log/tiles", StateDir: "log/state", AnchorDir: "anchor", FS: fsys, Origin: testOrigin, Signer: w, Verifier: w.verifier, Source: w.src}
}

// see notes what a client sees as published.
func (w *world) see(tree *Tree) {
	msg := tree.Published()
	if msg == nil {
		return
	}
	cp, err := log.OpenCheckpoint(msg, w.verifier)
	if err != nil {
		w.t.Errorf("published checkpoint: %v", err)
		return
	}
	if cp.Size < w.published {
		w.t.Errorf("published size %d, clients have seen %d", cp.Size, w.published)
	}
	w.published = cp.Size
}

// check checks the whole tree: head, root, and every entry through a reader that believes nothing.
func (w *world) check(tree *Tree) {
	w.t.Helper()
	ctx := context.Background()
	head := tree.Head()
	if want := w.src.rootAt(w.t, head.Size); head.Root != want {
		w.t.Errorf("Head() = %v, the entries give root %v", head, want)
	}
	if cp, err := log.OpenCheckpoint(tree.Signed(), w.verifier); err != nil || cp.Head != head {
		w.t.Errorf("Signed() = %v, %v, want a checkpoint of %v", cp, err, head)
	}
	n := uint64(0)
	r := reader.New(tree, 64)
	err := r.Entries(ctx, head, 0, head.Size, func(index uint64, entry []byte) error {
		if want := w.src.at(index); string(entry) != string(want) || index != n {
			return fmt.Errorf("entry %d is %q, want entry %d: %q", index, entry, n, want)
		}
		n++
		return nil
	})
	if err != nil || n != head.Size {
		w.t.Errorf("read %d of %d entries: %v", n, head.Size, err)
	}
	for _, index := range []uint64{0, head.Size / 3, head.Size - 1} {
		if head.Size > 0 {
			if _, err := r.Inclusion(ctx, head, index); err != nil {
				w.t.Errorf("Inclusion(%d): %v", index, err)
			}
		}
	}
	if err := tree.Check(ctx, func(uint64, uint64) {}); err != nil {
		w.t.Errorf("Check: %v", err)
	}
	w.see(tree)
}

// steps drives a tree without goroutines, so that a crash comes at the same place each time.
type steps struct {
	w    *world
	tree *Tree
	owed debt
}

func (w *world) open(c Config) (*steps, error) {
	tree, err := Open(c)
	if err != nil {
		return nil, err
	}
	w.see(tree)
	return &steps{w: w, tree: tree, owed: debt{}}, nil
}

// round signs what the source has.
func (s *steps) round() error {
	if err := s.tree.work(); err != nil {
		return s.tree.fail(err)
	}
	return nil
}

func (s *steps) publish() error {
	ok, err := s.tree.publish(context.Background())
	if err != nil {
		return s.tree.fail(err)
	}
	if !ok {
		return errors.New("not published")
	}
	s.w.see(s.tree)
	return nil
}

// sync pays all that the trickle owes.
func (s *steps) sync() error {
	for len(s.tree.queue) > 0 {
		if _, err := s.tree.pay(&s.owed, <-s.tree.queue); err != nil {
			return s.tree.fail(err)
		}
	}
	return s.tree.settle(&s.owed)
}

// all appends n entries and takes them all the way.
func (s *steps) all(n int) error {
	s.w.src.add(n)
	if err := s.round(); err != nil {
		return err
	}
	if err := s.publish(); err != nil {
		return err
	}
	return s.sync()
}

// build makes a log, takes it through the sizes and closes it.
func (w *world) build(c Config, adds ...int) {
	w.t.Helper()
	must(w.t, Create(c))
	w.grow(c, adds...)
}

func (w *world) grow(c Config, adds ...int) {
	w.t.Helper()
	s, err := w.open(c)
	must(w.t, err)
	for _, n := range adds {
		must(w.t, s.all(n))
	}
	must(w.t, s.tree.Close())
}

// memSource is a durable order of entries in memory.
type memSource struct {
	mu      sync.Mutex
	entries [][]byte
	hashes  []tlog.Hash // stored hashes of x/mod: an independent computation of the tree
	change  chan struct{}
	err     error
	cut     uint64 // hides entries from here on, if not 0
	lie     uint64 // entry that reads differently, plus 1
}

func newSource() *memSource { return &memSource{change: make(chan struct{})} }

func (m *memSource) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		i := len(m.entries)
		entry := fmt.Appendf(nil, "entry %d", i)
		stored, err := tlog.StoredHashes(int64(i), entry, tlog.HashReaderFunc(m.read))
		if err != nil {
			panic(err)
		}
		m.entries, m.hashes = append(m.entries, entry), append(m.hashes, stored...)
	}
	close(m.change)
	m.change = make(chan struct{})
}

func (m *memSource) read(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = m.hashes[x]
	}
	return out, nil
}

func (m *memSource) rootAt(t testing.TB, size uint64) log.Hash {
	m.mu.Lock()
	defer m.mu.Unlock()
	root, err := tlog.TreeHash(int64(size), tlog.HashReaderFunc(m.read))
	must(t, err)
	return root
}

func (m *memSource) at(index uint64) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.entries[index]
}

// hide makes the source shrink to size; 0 shows all again.
func (m *memSource) hide(size uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = size
}

func (m *memSource) size() uint64 {
	if m.cut > 0 {
		return m.cut
	}
	return uint64(len(m.entries))
}

func (m *memSource) Size() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.size()
}

func (m *memSource) Wait(ctx context.Context, size uint64) error {
	for {
		m.mu.Lock()
		have, change, err := m.size(), m.change, m.err
		m.mu.Unlock()
		if err != nil {
			return err
		}
		if have >= size {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-change:
		}
	}
}

func (m *memSource) Entries(from uint64, limit, maxBytes int) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, m.err
	}
	var out [][]byte
	for i := from; i < m.size() && len(out) < limit && maxBytes > 0; i++ {
		entry := m.entries[i]
		if m.lie == i+1 {
			entry = []byte("a lie")
		}
		out, maxBytes = append(out, entry), maxBytes-len(entry)
	}
	return out, nil
}

// fault makes the source fail.
func (m *memSource) fault(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
	close(m.change)
	m.change = make(chan struct{})
}

// put replaces a file, durably.
func put(t testing.TB, fsys disk.FS, name string, data []byte) {
	t.Helper()
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = fsys.Create(name)
	}
	must(t, err)
	must(t, f.Truncate(0))
	_, err = f.WriteAt(data, 0)
	must(t, err)
	must(t, errors.Join(f.Sync(), f.Close()))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	_ Source             = (*memSource)(nil)
	_ disk.FS            = (*crashfs.FS)(nil)
	_ reader.TileFetcher = (*Tree)(nil)
	_                    = time.Second
)
