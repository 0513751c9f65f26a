package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A badDisk refuses to write some files, with any error.
type badDisk struct {
	mem  *vfs.MemFS
	part atomic.Value // string in the names of files that cannot be written; "" is none
	err  syscall.Errno
}

func newBadDisk(err syscall.Errno) *badDisk {
	d := &badDisk{mem: vfs.NewCrashableMem(), err: err}
	d.turn("")
	return d
}

// turn makes files with part in their names unwritable, and the disk full for
// whoever asks.
func (d *badDisk) turn(part string) {
	room := uint64(1 << 30)
	if part != "" {
		room = 4096
	}
	d.part.Store(part)
	d.mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: room, TotalBytes: 1 << 40, UsedBytes: 1 << 40})
}

// next gives what the next process finds: all that was written, on a disk that is well, and locked by nobody. An index
// whose manifest failed keeps its lock until its process ends.
func (d *badDisk) next() *badDisk {
	mem := d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	next := &badDisk{mem: mem, err: d.err}
	next.turn("")
	return next
}

func (d *badDisk) fs() vfs.FS {
	return errorfs.Wrap(d.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if part := d.part.Load().(string); part != "" && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.Contains(op.Path, part) {
			return d.err
		}
		return nil
	}))
}

// A disk fills up while an index is written out: it waits, answers, follows no
// further, and goes on when there is room. No part of it needs a restart.
func TestFullDiskIsWaitedFor(t *testing.T) {
	for _, part := range []string{".sst", "MANIFEST-"} {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			d, o := newBadDisk(syscall.ENOSPC), randomOrder(41, 2000)
			x := openOn(t, d.fs(), "index")
			followSome(t, x, o, 1000, 100)
			d.turn(part)
			written, err := x.db.AsyncFlush()
			if err != nil {
				t.Fatal(err)
			}
			waitUntil(t, x.full.Load)
			if err := x.CatchUp(t.Context(), o); !errors.Is(err, ErrStalled) {
				t.Errorf("CatchUp on a full disk = %v, want ErrStalled", err)
			}
			checkAgainst(t, x, o)
			time.Sleep(2 * retryPause)
			if !x.full.Load() {
				t.Error("the disk is full, and the index went on")
			}
			d.turn("")
			<-written
			waitUntil(t, func() bool { return !x.full.Load() })
			if err := x.CatchUp(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			checkAgainst(t, x, o)
			closeIndex(t, x)
			x = openOn(t, d.fs(), "index")
			if x.Cursor() != o.Size() {
				t.Errorf("Cursor() = %d after Close, want %d", x.Cursor(), o.Size())
			}
			closeIndex(t, x)
		})
	}
}

func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("waited for a minute")
		}
	}
}

// An index is closed while it waits for room. That takes no longer than
// without, and with room again it opens.
func TestCloseOnFullDisk(t *testing.T) {
	for _, part := range []string{".sst", "MANIFEST-"} {
		for _, waits := range []bool{true, false} {
			t.Run(part, func(t *testing.T) {
				t.Parallel()
				d, o := newBadDisk(syscall.ENOSPC), randomOrder(42, 2000)
				x := openOn(t, d.fs(), "index")
				followSome(t, x, o, 500, 100)
				if err := x.db.Flush(); err != nil {
					t.Fatal(err)
				}
				followSome(t, x, o, 500, 100)
				d.turn(part)
				if waits {
					if _, err := x.db.AsyncFlush(); err != nil {
						t.Fatal(err)
					}
					waitUntil(t, x.full.Load)
				}
				began := time.Now()
				_ = x.Close() // what could not be written may be told
				if took := time.Since(began); took > writeOutMax/2 {
					t.Errorf("Close on a full disk took %v", took)
				}
				x = openOn(t, d.next().fs(), "index")
				if x.Cursor() != 500 {
					t.Errorf("Cursor() = %d, want the 500 that were written out", x.Cursor())
				}
				if err := x.CatchUp(t.Context(), o); err != nil {
					t.Fatal(err)
				}
				checkAgainst(t, x, o)
				checkWhole(t, x, o)
				closeIndex(t, x)
			})
		}
	}
}

// On a full disk no index can be opened or made, whatever it is that cannot be
// written. That is no damage: what is there is there when there is room again.
func TestOpenOnFullDisk(t *testing.T) {
	o := randomOrder(43, 300)
	for _, c := range []struct {
		kept, known bool // is there an index, does the system tell how much room there is
		part        string
	}{
		{true, true, "MANIFEST-"},
		{true, true, "marker"},
		{true, false, ".dbtmp"}, // options are written there first
		{false, true, "MANIFEST-"},
		{false, false, "MANIFEST-"},
		{false, false, "marker"},
		{false, false, ".dbtmp"},
		{false, false, "index"},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			kept, part := c.kept, c.part
			d := newBadDisk(syscall.ENOSPC)
			want := uint64(0)
			if kept {
				x := openOn(t, d.fs(), "index")
				if err := x.CatchUp(t.Context(), o); err != nil {
					t.Fatal(err)
				}
				closeIndex(t, x)
				want = o.Size()
			}
			before := tablesOf(t, d.mem)
			d.turn(part)
			if !c.known {
				d.mem.TestingSetDiskUsage(vfs.DiskUsage{})
			}
			c := testConfig(t, "index")
			c.fs = d.fs()
			if _, err := Open(c); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Open with no room for %s = %v, want ENOSPC", part, err)
			}
			if after := tablesOf(t, d.mem); !slices.Equal(after, before) {
				t.Errorf("Open with no room for %s removed files: %v, before %v", part, after, before)
			}
			d.turn("")
			x := openOn(t, d.fs(), "index")
			if x.Cursor() != want {
				t.Errorf("Cursor() = %d after %s could not be written, want %d", x.Cursor(), part, want)
			}
			if err := x.CatchUp(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			checkAgainst(t, x, o)
			closeIndex(t, x)
		})
	}
}

func tablesOf(t *testing.T, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.List("index")
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		names = nil // not made yet
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".sst") })
	slices.Sort(names)
	return names
}

// The disk fails under the manifest: the index stops and says why, everywhere.
// The process goes on; the next one opens what is there.
func TestManifestFails(t *testing.T) {
	d, o := newBadDisk(syscall.EIO), randomOrder(44, 1500)
	x := openOn(t, d.fs(), "index")
	followSome(t, x, o, 500, 100)
	if err := x.db.Flush(); err != nil {
		t.Fatal(err)
	}
	followSome(t, x, o, 500, 100)
	waited, followed := make(chan error), make(chan error)
	go func() { waited <- x.Wait(t.Context(), 1<<40) }()
	quiet := newOrder()
	quiet.items, quiet.texts = o.items[:1000], o.texts[:1000]
	go func() { followed <- x.Follow(t.Context(), quiet) }()
	d.turn("MANIFEST-")
	if _, err := x.db.AsyncFlush(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
		t.Errorf("Wait = %v, want ErrFailed and EIO", err)
	}
	quiet.push(o.items[1000], o.texts[1000])
	if err := <-followed; !errors.Is(err, ErrFailed) {
		t.Errorf("Follow = %v, want ErrFailed", err)
	}
	for name, err := range everyCall(t, x, o) {
		if !errors.Is(err, ErrFailed) {
			t.Errorf("%s = %v, want ErrFailed", name, err)
		}
	}
	_ = x.Close() // it may repeat the error
	x = openOn(t, d.next().fs(), "index")
	if x.Cursor() != 500 {
		t.Errorf("Cursor() = %d, want the 500 that were written out", x.Cursor())
	}
	if err := x.CatchUp(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	checkAgainst(t, x, o)
	checkWhole(t, x, o)
	closeIndex(t, x)
}
