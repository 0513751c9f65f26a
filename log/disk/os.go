package disk

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// OS returns the operating system's file system.
func OS() FS {
	return &osFS{handles: map[string]*os.File{}, failed: map[string]error{}}
}

// osFS keeps a handle of each directory from before the first change that is not synced yet. Linux reports a
// write-back error once to each handle that was open when it happened; a handle opened only to sync could miss it.
type osFS struct {
	mu      sync.Mutex
	handles map[string]*os.File // guarded by mu: directories with changes not yet synced
	failed  map[string]error    // guarded by mu: directories whose sync has failed
}

// watch opens the directory of name before a change in it.
func (o *osFS) watch(name string) error {
	dir := filepath.Dir(name)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.handles[dir] != nil {
		return nil
	}
	h, err := os.Open(dir)
	if err != nil {
		return err
	}
	o.handles[dir] = h
	return nil
}

func (o *osFS) Open(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (o *osFS) Create(name string) (File, error) {
	if err := o.watch(name); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (o *osFS) Rename(oldName, newName string) error {
	if err := errors.Join(o.watch(oldName), o.watch(newName)); err != nil {
		return err
	}
	return os.Rename(oldName, newName)
}

func (o *osFS) Remove(name string) error {
	if err := o.watch(name); err != nil {
		return err
	}
	if err := os.Remove(name); err != nil {
		return err
	}
	return o.unwatch(name)
}

// unwatch closes the handle of a directory that is gone: nobody will sync it.
func (o *osFS) unwatch(name string) error {
	name = filepath.Clean(name)
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.handles[name]
	if h == nil {
		return nil
	}
	delete(o.handles, name)
	return h.Close()
}

func (o *osFS) MkdirAll(name string) error {
	return os.MkdirAll(name, 0o700)
}

func (o *osFS) SyncDir(name string) error {
	name = filepath.Clean(name)
	o.mu.Lock()
	h, failed := o.handles[name], o.failed[name]
	delete(o.handles, name)
	o.mu.Unlock()
	if failed != nil {
		return failed
	}
	var err error
	if h == nil {
		if h, err = os.Open(name); err != nil {
			return err
		}
	}
	if err = errors.Join(h.Sync(), h.Close()); err != nil {
		o.mu.Lock()
		o.failed[name] = err
		o.mu.Unlock()
	}
	return err
}

func (o *osFS) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

func (o *osFS) Size(name string) (int64, error) {
	info, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (o *osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// osFile is a file of the operating system.
type osFile struct{ *os.File }

func (f osFile) Sync() error      { return syncData(f.File) }
func (f osFile) WriteBack() error { return writeBack(f.File) }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
