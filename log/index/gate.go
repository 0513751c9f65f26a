package index

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A gate is the file system that Pebble sees. Once the disk has refused the manifest it lets nothing more through: Pebble
// would flush the same table again, and a manifest that lists it twice ends the process of the next who opens it. And
// where a directory cannot be synced it stops the index, where Pebble would panic in the background.
type gate struct {
	vfs.FS
	x *Index
}

// shut returns an error if nothing may be written any more.
func (g gate) shut() error {
	if g.x.halted.Load() {
		return fmt.Errorf("%w: nothing more is written", ErrFailed)
	}
	return nil
}

func (g gate) Unwrap() vfs.FS { return g.FS }

func (g gate) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := g.shut(); err != nil {
		return nil, err
	}
	f, err := g.FS.Create(name, category)
	if err != nil {
		return nil, err
	}
	return gateFile{f, g}, nil
}

func (g gate) Rename(oldName, newName string) error {
	if err := g.shut(); err != nil {
		return err
	}
	return g.FS.Rename(oldName, newName)
}

func (g gate) Remove(name string) error {
	if err := g.shut(); err != nil {
		return err
	}
	return g.FS.Remove(name)
}

func (g gate) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return gateDir{f, g}, nil
}

// gateFile is a file that is written.
type gateFile struct {
	vfs.File
	gate gate
}

func (f gateFile) Write(b []byte) (int, error) {
	if err := f.gate.shut(); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

func (f gateFile) Sync() error {
	if err := f.gate.shut(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f gateFile) SyncData() error {
	if err := f.gate.shut(); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f gateFile) SyncTo(length int64) (bool, error) {
	if err := f.gate.shut(); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}

// gateDir is a directory. Whoever syncs it hears of no error: the index has stopped instead.
type gateDir struct {
	vfs.File
	gate gate
}

func (f gateDir) Sync() error {
	if f.gate.shut() != nil {
		return nil
	}
	if err := f.File.Sync(); err != nil {
		f.gate.x.fail(fmt.Errorf("sync directory of index: %w", err))
	}
	return nil
}
