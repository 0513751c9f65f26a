package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
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

// A start that is cut short while it looks again at what was damaged forgets none of it.
func TestAStartThatIsCutShortForgetsNoDamage(t *testing.T) {
	r, _, segment := aged(t)
	l := r.open()
	r.damage(segmentFile(segment), 40000)
	r.damage("data/journal/journal", 30)
	if err := l.scrubs.cycle(t.Context()); err != nil || len(l.scrubs.state.Damaged) != 2 {
		t.Fatalf("damaged are %v, %v, want two parts", l.scrubs.state.Damaged, err)
	}
	l.scrubs.state.Damaged = append(l.scrubs.state.Damaged, part{partCheckpoints, 0}) // and is good now
	l.scrubs.save()
	again := newScrubber(l)
	ctx, cut := context.WithCancel(t.Context())
	cut()
	if err := again.recheck(ctx); err == nil {
		t.Fatal("it was not cut short")
	}
	if kept := newScrubber(l).state.Damaged; len(kept) != 3 {
		t.Errorf("it forgot all but %v", kept)
	}
	again = newScrubber(l)
	must(t, again.recheck(t.Context()))
	if kept := newScrubber(l).state.Damaged; len(kept) != 2 {
		t.Errorf("damaged are %v, want those two that still are", kept)
	}
	must(t, l.close())
}

// A page in the operator's browser cannot make the server scrub.
func TestNoPageInABrowserBeginsAScrub(t *testing.T) {
	r := newLog(t, nil)
	file := filepath.Join(r.dir, "admin.addr")
	await(t, "the admin listener", func() bool { _, err := os.Stat(file); return err == nil })
	r.url = "http://" + strings.TrimSpace(string(read(t, file)))
	req := must2(http.NewRequestWithContext(t.Context(), "POST", r.url+"/scrub", nil))
	req.Header.Set("Origin", "http://evil.example")
	resp := must2(http.DefaultClient.Do(req))
	must(t, resp.Body.Close())
	if resp.StatusCode != 403 {
		t.Errorf("a page's request gets %d", resp.StatusCode)
	}
}
