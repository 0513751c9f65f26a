package index

import (
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A gate is the file system that Pebble sees. Once the disk has refused the manifest, the list of tables, Pebble's own
// state is halfway to a version that never was. What it does then ends the process, at once or later: it puts back
// counters of tables that are not there, or flushes a table again, so that the manifest lists it twice and the next who
// opens it panics. So its work in the background never hears of that error: it stops where it is, with the lock of the
// manifest, and whoever else writes stops too. Reading needs neither. The next process opens what a crash would have left.
type gate struct {
	vfs.FS
	x *Index
}

// shut stops whoever would write after the disk has refused the manifest. Open, which ends with that error, gets one.
func (g gate) shut() error {
	if !g.x.halted() {
		return nil
	}
	g.x.freeze()
	return fmt.Errorf("%w: nothing more is written", ErrFailed)
}

// refuse halts the index if a file that has failed is part of the manifest.
func (g gate) refuse(name string, err error) error {
	base := g.FS.PathBase(name)
	if err == nil || !strings.HasPrefix(base, "MANIFEST-") && !strings.HasPrefix(base, "marker.") {
		return err
	}
	g.x.fail(err)
	g.x.freeze()
	return err
}

// freeze does not return in the background.
func (x *Index) freeze() {
	if x.running.Load() {
		select {}
	}
}

func (g gate) Unwrap() vfs.FS { return g.FS }

func (g gate) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := g.shut(); err != nil {
		return nil, err
	}
	f, err := g.FS.Create(name, category)
	if err != nil {
		return nil, g.refuse(name, err)
	}
	return gateFile{f, g, name}, nil
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
	name string
}

func (f gateFile) Write(b []byte) (int, error) {
	if err := f.gate.shut(); err != nil {
		return 0, err
	}
	n, err := f.File.Write(b)
	return n, f.gate.refuse(f.name, err)
}

func (f gateFile) Sync() error {
	if err := f.gate.shut(); err != nil {
		return err
	}
	return f.gate.refuse(f.name, f.File.Sync())
}

func (f gateFile) SyncData() error {
	if err := f.gate.shut(); err != nil {
		return err
	}
	return f.gate.refuse(f.name, f.File.SyncData())
}

func (f gateFile) SyncTo(length int64) (bool, error) {
	if err := f.gate.shut(); err != nil {
		return false, err
	}
	full, err := f.File.SyncTo(length)
	return full, f.gate.refuse(f.name, err)
}

// gateDir is a directory. Pebble panics where it cannot sync one, so it does not hear of that: the index has stopped.
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
		f.gate.x.freeze()
	}
	return nil
}
