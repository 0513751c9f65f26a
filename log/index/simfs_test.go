package index

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pipe-roll/piperoll/log/disk"
)

// A simFS lets Pebble write to a simulated disk, the one that journal and tiles are crashed on.
type simFS struct{ disk.FS }

func (s simFS) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name)
	if errors.Is(err, fs.ErrExist) {
		if err = s.FS.Remove(name); err == nil {
			f, err = s.FS.Create(name)
		}
	}
	return s.file(name, f, err)
}

func (s simFS) Open(name string, options ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.Open(name)
	file, err := s.file(name, f, err)
	if err != nil {
		return nil, err
	}
	for _, o := range options {
		o.Apply(file)
	}
	return file, nil
}

func (s simFS) file(name string, f disk.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &simFile{File: f, name: name}, nil
}

func (s simFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, options ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.Open(name, options...)
	if errors.Is(err, fs.ErrNotExist) {
		return s.Create(name, c)
	}
	return f, err
}

func (s simFS) OpenDir(name string) (vfs.File, error) {
	if _, err := s.FS.Size(name); err != nil {
		return nil, err
	}
	return simDir{&simFile{name: name}, s.FS}, nil
}

func (s simFS) MkdirAll(name string, _ os.FileMode) error { return s.FS.MkdirAll(name) }
func (s simFS) List(name string) ([]string, error)        { return s.FS.ReadDir(name) }

func (s simFS) Stat(name string) (vfs.FileInfo, error) {
	size, err := s.FS.Size(name)
	return simInfo{filepath.Base(name), size}, err
}

func (s simFS) Link(string, string) error { return errors.ErrUnsupported }
func (s simFS) RemoveAll(string) error    { return errors.ErrUnsupported }

func (s simFS) ReuseForWrite(string, string, vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, errors.ErrUnsupported
}

func (s simFS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{}, vfs.ErrUnsupported
}

func (s simFS) PathBase(path string) string    { return filepath.Base(path) }
func (s simFS) PathJoin(elem ...string) string { return filepath.Join(elem...) }
func (s simFS) PathDir(path string) string     { return filepath.Dir(path) }
func (s simFS) Unwrap() vfs.FS                 { return nil }

// simFile is an open file: read or written from its beginning on.
type simFile struct {
	disk.File
	name string
	off  int64
}

func (f *simFile) Read(b []byte) (int, error) {
	n, err := f.ReadAt(b, f.off)
	f.off += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *simFile) Write(b []byte) (int, error) {
	n, err := f.WriteAt(b, f.off)
	f.off += int64(n)
	return n, err
}

func (f *simFile) Stat() (vfs.FileInfo, error) {
	size, err := f.Size()
	return simInfo{filepath.Base(f.name), size}, err
}

func (f *simFile) SyncData() error              { return f.Sync() }
func (f *simFile) SyncTo(int64) (bool, error)   { return false, f.WriteBack() }
func (f *simFile) Preallocate(_, _ int64) error { return nil }
func (f *simFile) Prefetch(_, _ int64) error    { return nil }
func (f *simFile) Fd() uintptr                  { return vfs.InvalidFd }

// simDir is an open directory.
type simDir struct {
	*simFile
	fs disk.FS
}

func (d simDir) Sync() error  { return d.fs.SyncDir(d.name) }
func (d simDir) Close() error { return nil }

type simInfo struct {
	name string
	size int64
}

func (i simInfo) Name() string           { return i.name }
func (i simInfo) Size() int64            { return i.size }
func (i simInfo) Mode() fs.FileMode      { return 0o600 }
func (i simInfo) ModTime() time.Time     { return time.Time{} }
func (i simInfo) IsDir() bool            { return false }
func (i simInfo) Sys() any               { return nil }
func (i simInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
