package crashfs

import (
	"io"
	"slices"
	"syscall"
)

// file is an open file. Closing it changes nothing.
type file struct {
	fs   *FS
	node *node
	seen int // failed syncs of the node that this handle was told of
}

func (f *file) Close() error { return nil }

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if fails, err := f.fs.begin(false); fails {
		return 0, err
	}
	if off >= int64(len(f.node.live)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.live[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	fails, failed := f.fs.begin(off+int64(len(b)) > int64(len(f.node.live)))
	if f.fs.crashed {
		return 0, ErrCrashed
	}
	if fails && f.fs.fault == ENOSPC {
		return 0, failed
	}
	n := len(b)
	if fails {
		n /= 2
	}
	f.node.change(write{off, append(make([]byte, 0, n), b[:n]...)})
	if err := f.fs.op(); err != nil {
		return 0, err
	}
	return n, failed
}

// WriteBack changes nothing: what was written may be on the medium or not, as before. One that fails has forgotten
// some of it, like a sync.
func (f *file) WriteBack() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	fails, failed := f.fs.begin(false)
	if f.fs.crashed {
		return ErrCrashed
	}
	if err := f.fs.op(); err != nil || !fails {
		return err
	}
	f.flush(true)
	return failed
}

func (f *file) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if fails, err := f.fs.begin(false); fails {
		return err
	}
	f.node.change(write{off: size})
	return f.fs.op()
}

func (f *file) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if fails, err := f.fs.begin(false); fails {
		return 0, err
	}
	return int64(len(f.node.live)), nil
}

// Sync makes pending writes durable. One that fails has made some so, and forgets the others.
func (f *file) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	fails, failed := f.fs.begin(false)
	if f.fs.crashed {
		return ErrCrashed
	}
	if err := f.fs.op(); err != nil {
		return err
	}
	f.flush(fails)
	if !fails && f.seen < f.node.failed {
		// Somebody else's sync failed, and took what this handle had written with it.
		f.seen, failed = f.node.failed, syscall.EIO
	}
	return failed
}

// flush puts pending writes on the medium; where it fails, some of them. The caller holds the lock.
func (f *file) flush(fails bool) {
	n := f.node
	if fails {
		n.failed++
		f.seen = n.failed
	}
	if len(n.pending) == 0 {
		return
	}
	if n.shared {
		n.medium, n.shared = slices.Clone(n.medium), false
	}
	for _, w := range n.pending {
		if !fails || f.fs.rng.IntN(2) == 0 {
			n.medium = w.apply(n.medium)
		}
	}
	n.pending = nil
}

func (n *node) change(w write) {
	if !n.own {
		n.live, n.own = slices.Clone(n.live), true
	}
	n.live = w.apply(n.live)
	n.pending = append(n.pending, w)
}
