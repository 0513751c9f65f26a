package crashfs

import (
	"io"
	"slices"
)

// file is an open file. Closing it changes nothing.
type file struct {
	fs   *FS
	node *node
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
	fails, failed := f.fs.begin(true)
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
	n := f.node
	if len(n.pending) == 0 {
		return failed
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
	return failed
}

func (n *node) change(w write) {
	if !n.own {
		n.live, n.own = slices.Clone(n.live), true
	}
	n.live = w.apply(n.live)
	n.pending = append(n.pending, w)
}
