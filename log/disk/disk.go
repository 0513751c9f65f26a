// Package disk is the small file system interface through which the log's machinery writes, and its implementation on
// the operating system.
//
// It exists so that a simulated file system can stand in its place: crashfs loses, tears and reorders what was not
// synced, and fails any call on request. It therefore offers only what has a clear meaning in a crash: positioned
// reads and writes, sync of a file, sync of a directory, atomic rename, an exclusive lock.
//
// It trusts the kernel to keep what a successful sync reported, and nothing else. After a sync that failed, what is on
// the medium is unknown and cannot be asked for again (the pages count as clean), so no caller may just retry one. Who
// goes on writes every byte again before the next sync, best to a new file; a directory is not synced again at all.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
)

// ErrLocked is returned by FS.Lock when another holder, in this process or another, has the lock.
var ErrLocked = errors.New("locked by another holder")

// ErrTooLarge is returned by ReadFile when a file is larger than the caller allows.
var ErrTooLarge = errors.New("file is larger than allowed")

// FS is a file system. Names are paths in the manner of path/filepath. All methods may be called concurrently.
type FS interface {
	// Open opens an existing file for reading and writing. fs.ErrNotExist if there is none.
	Open(name string) (File, error)
	// Create makes a new empty file, readable by its owner alone. fs.ErrExist if the name is taken. The file's name
	// is durable only after SyncDir of its directory.
	Create(name string) (File, error)
	// Rename replaces newName by oldName in one step. Durable only after SyncDir of the parents.
	Rename(oldName, newName string) error
	// Remove removes a file. Durable only after SyncDir of its directory.
	Remove(name string) error
	// MkdirAll makes a directory and its parents. Durable only after SyncDir of each parent.
	MkdirAll(name string) error
	// SyncDir makes the names in a directory durable. Once it has failed for a directory it fails for ever.
	SyncDir(name string) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(name string) ([]string, error)
	// Size returns a file's size in bytes. fs.ErrNotExist if there is none.
	Size(name string) (int64, error)
	// Lock takes an exclusive lock on the file name, made if needed, and returns ErrLocked at once if it is held.
	// Closing releases it; so does the end of the process.
	Lock(name string) (io.Closer, error)
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Sync makes everything written so far durable, and the size.
	Sync() error
	// WriteBack makes the system write out what was written so far, so that a later Sync has little left to do, and
	// returns when that is done. It promises nothing: what it wrote can be lost until Sync. An error is one that Sync
	// would have met, and will not report again: it counts as a failed sync.
	WriteBack() error
	// Truncate sets the size in bytes. Durable after Sync.
	Truncate(size int64) error
	// Size returns the size in bytes.
	Size() (int64, error)
	io.Closer
}

// ReadFile returns the bytes of a file of at most maxBytes, ErrTooLarge if it has more.
func ReadFile(fsys FS, name string, maxBytes int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := readAll(f, maxBytes)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

func readAll(f File, maxBytes int64) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > maxBytes {
		return nil, ErrTooLarge
	}
	data := make([]byte, size)
	// A reader may report io.EOF together with the last byte.
	if n, err := f.ReadAt(data, 0); err != nil && (!errors.Is(err, io.EOF) || n < len(data)) {
		return nil, err
	}
	return data, nil
}

// WriteFile replaces name by data, durably and in one step: whoever opens name, also after a crash, finds the old
// bytes or the new ones. tmp is a name in the same directory that nobody else uses; what is there is removed.
//
// The order of durable steps: tmp written, tmp synced, renamed, directory synced.
func WriteFile(fsys FS, tmp, name string, data []byte) error {
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove left-over %s: %w", tmp, err)
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	// The handle that wrote is the handle that syncs: one opened later would not see an error that writing back met.
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		// On a full disk it would hold what others need more.
		return fmt.Errorf("write %s: %w", tmp, errors.Join(err, fsys.Remove(tmp)))
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := fsys.SyncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("sync directory of %s: %w", name, err)
	}
	return nil
}
