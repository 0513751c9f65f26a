package tiles

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/pipe-roll/piperoll/log/disk"
)

// A writer puts files into the served tree in one step each: written under tmp, then renamed, so that whoever reads
// the tree sees whole files only. It does not sync.
type writer struct {
	fs       disk.FS
	dir, tmp string

	mu   sync.Mutex
	n    uint64          // guarded by mu: names under tmp
	made map[string]bool // guarded by mu: directories known to exist
}

func newWriter(c Config) *writer {
	return &writer{fs: c.FS, dir: c.Dir, tmp: c.tmpDir(), made: map[string]bool{}}
}

// write puts data at path and returns the open file: the handle that wrote is the one that must sync.
func (w *writer) write(path string, data []byte) (disk.File, error) {
	name := filepath.Join(w.dir, filepath.FromSlash(path))
	tmp, err := w.prepare(filepath.Dir(name))
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	f, err := w.fs.Create(tmp)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	if _, err = f.WriteAt(data, 0); err == nil {
		err = w.fs.Rename(tmp, name)
	}
	if err != nil {
		// The left-over under tmp goes at the next start.
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	return f, nil
}

// replace is write for files that are never synced.
func (w *writer) replace(path string, data []byte) error {
	f, err := w.write(path, data)
	if err != nil {
		return err
	}
	return f.Close()
}

func (w *writer) prepare(dir string) (tmp string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	tmp = filepath.Join(w.tmp, strconv.FormatUint(w.n, 10))
	if w.made[dir] {
		return tmp, nil
	}
	if err := w.fs.MkdirAll(dir); err != nil {
		return "", err
	}
	w.made[dir] = true
	return tmp, nil
}

// heal opens the file at path for a sync. If it does not hold data, it is written again.
func (w *writer) heal(path string, data []byte) (f disk.File, healed bool, err error) {
	f, err = w.fs.Open(filepath.Join(w.dir, filepath.FromSlash(path)))
	if errors.Is(err, fs.ErrNotExist) {
		f, err = w.write(path, data)
		return f, true, err
	}
	if err != nil {
		return nil, false, fmt.Errorf("open %s: %w", path, err)
	}
	if holds(f, data) {
		return f, false, nil
	}
	if err := f.Close(); err != nil {
		return nil, false, fmt.Errorf("close %s: %w", path, err)
	}
	f, err = w.write(path, data)
	return f, true, err
}

func holds(f disk.File, data []byte) bool {
	size, err := f.Size()
	if err != nil || size != int64(len(data)) {
		return false
	}
	got := make([]byte, len(data))
	n, _ := f.ReadAt(got, 0)
	return n == len(data) && bytes.Equal(got, data)
}

// forget takes note that dir is gone.
func (w *writer) forget(dir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.made, dir)
}

// sweep removes what an earlier process left under tmp.
func (w *writer) sweep() error {
	names, err := w.fs.ReadDir(w.tmp)
	if err != nil {
		return fmt.Errorf("sweep %s: %w", w.tmp, err)
	}
	for _, name := range names {
		if err := w.fs.Remove(filepath.Join(w.tmp, name)); err != nil {
			return fmt.Errorf("sweep %s: %w", w.tmp, err)
		}
	}
	return nil
}
