package crashfs

import (
	"errors"

	"github.com/pipe-roll/piperoll/log/disk"
)

// A Liar is a file system that says it did what it did not. It stands for a bug in whoever writes through it: one who
// forgets a sync writes the same as one whose syncs do nothing.
type Liar struct {
	disk.FS
	NoSync    bool // syncs of files do nothing
	NoSyncDir bool // nor do those of folders
	NoError   bool // syncs of files that fail are said to have succeeded
	// NoDirError does so for folders: as the kernel would have it, which finds nothing left to write when it is asked
	// again.
	NoDirError bool
}

// Over returns the liar on top of another file system.
func (l Liar) Over(f disk.FS) disk.FS {
	l.FS = f
	return l
}

// Open implements disk.FS.
func (l Liar) Open(name string) (disk.File, error) { return l.file(l.FS.Open(name)) }

// Create implements disk.FS.
func (l Liar) Create(name string) (disk.File, error) { return l.file(l.FS.Create(name)) }

func (l Liar) file(f disk.File, err error) (disk.File, error) {
	if err != nil {
		return nil, err
	}
	return lyingFile{f, l}, nil
}

// SyncDir implements disk.FS.
func (l Liar) SyncDir(name string) error {
	if l.NoSyncDir {
		return nil
	}
	err := l.FS.SyncDir(name)
	if l.NoDirError && !errors.Is(err, ErrCrashed) {
		return nil
	}
	return err
}

type lyingFile struct {
	disk.File
	liar Liar
}

func (f lyingFile) Sync() error {
	if f.liar.NoSync {
		return nil
	}
	err := f.File.Sync()
	if f.liar.NoError && !errors.Is(err, ErrCrashed) {
		return nil
	}
	return err
}
