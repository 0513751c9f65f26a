package main

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/pipe-roll/piperoll/log/disk"
)

// A shortFS is the machine's file system, when the process has no more file descriptors for one open of a file.
type shortFS struct {
	disk.FS
	of   atomic.Value // string, part of the file's name
	left atomic.Int32 // opens that fail still
}

func (f *shortFS) Open(name string) (disk.File, error) {
	if of, _ := f.of.Load().(string); of != "" && strings.Contains(name, of) && f.left.Add(-1) >= 0 {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EMFILE}
	}
	return f.FS.Open(name)
}

// A flood of connections takes all file descriptors: what a scrub cannot open for that is not damaged. It is held up,
// and finds nothing when it looks again.
func TestAScrubThatCannotOpenFilesForAMomentFindsNoDamage(t *testing.T) {
	r, _, _ := aged(t)
	short := &shortFS{FS: disk.OS()}
	r.fs = short
	l := r.open()
	for _, of := range []string{
		"journal/journal", "journal/segments/", "journal/keys/", "journal/large/", "journal/tables/",
		"state/checkpoints/", "tiles/tile/0/000", "tiles/tile/entries/001",
	} {
		short.of.Store(of)
		short.left.Store(1)
		found, err := l.scrub(t.Context())
		if short.left.Load() > 0 {
			t.Errorf("%s: was not opened", of)
		}
		if len(found) > 0 || !errors.Is(err, syscall.EMFILE) {
			t.Errorf("%s: found %v, %v, want no damage and that the scrub was held up", of, found, err)
		}
		if found, err := l.scrub(t.Context()); len(found) > 0 || err != nil {
			t.Fatalf("%s: the next scrub finds %v, %v", of, found, err)
		}
	}
	must(t, l.close())
}
