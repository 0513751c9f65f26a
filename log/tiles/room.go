package tiles

import (
	"errors"
	"syscall"
	"time"

	"github.com/pipe-roll/piperoll/log/disk"
)

// A full disk is not a failure of the tree: no file was there before, none was synced, and the same will be written once
// there is room. So rounds and publications wait where they are.

// roomPause is the time between two tries.
const roomPause = 200 * time.Millisecond

// write puts a file into the served tree, when there is room for it.
func (t *Tree) write(path string, data []byte) (f disk.File, err error) {
	err = t.whenRoom(func() error {
		f, err = t.writer.write(path, data)
		return err
	})
	return f, err
}

// replace is write for files that are never synced.
func (t *Tree) replace(path string, data []byte) error {
	return t.whenRoom(func() error { return t.writer.replace(path, data) })
}

// whenRoom does something again until it fails for another reason than a full disk, or the tree has failed or was
// stopped for as long as its last publication may take.
func (t *Tree) whenRoom(do func() error) error {
	err := do()
	for waited := false; errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT); err = do() {
		if !waited {
			t.c.Logger.Error("tree waits for room on the disk", "origin", t.c.Origin, "err", err)
			t.count(func(s *Stats) { s.NoSpace++ })
			waited = true
		}
		t.c.NoSpace()
		select {
		case <-t.failed:
			return err
		case <-t.overdue:
			return err
		case <-time.After(roomPause):
		}
	}
	return err
}
