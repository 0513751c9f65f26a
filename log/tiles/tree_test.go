package tiles

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
	"github.com/pipe-roll/piperoll/log/reader"
)

// A log grows through the sizes where tiles, bundles and levels get full, and is whole after each, and after a restart.
func TestALogIsWholeAtEverySize(t *testing.T) {
	w := newWorld(t)
	c := w.config(crashfs.New(1))
	must(t, Create(c))
	s, err := w.open(c)
	must(t, err)
	w.check(s.tree)
	for _, size := range []uint64{1, 2, 255, 256, 257, 511, 512, 513, 1000, 8192, 8193} {
		must(t, s.all(int(size-s.tree.Head().Size)))
		w.check(s.tree)
		must(t, s.tree.Close())
		if s, err = w.open(c); err != nil {
			t.Fatalf("open at size %d: %v", size, err)
		}
		if got := s.tree.Head().Size; got != size {
			t.Errorf("opened at size %d, want %d", got, size)
		}
		w.check(s.tree)
	}
}

// 65,536 entries fill a tile of level 1; a real file system, and a start that reads the edge from full tiles.
func TestALargeLogOnARealDisk(t *testing.T) {
	w := newWorld(t)
	c := w.config(disk.OS())
	dir := t.TempDir()
	c.Dir, c.StateDir, c.AnchorDir = filepath.Join(dir, "served"), filepath.Join(dir, "state"), filepath.Join(dir, "elsewhere", "anchor")
	w.build(c, 65535, 1, 1, 4463)
	s, err := w.open(c)
	must(t, err)
	w.check(s.tree)
	if got := s.tree.Stats(); got.Signed != 70000 || got.Published != 70000 || got.Recovery != 70000 || got.Healed != 0 || got.Failed {
		t.Errorf("Stats() = %+v, want everything at 70000, nothing healed", got)
	}
	// Another server of static files serves the same: a reader of the directory finds all that the checkpoint needs.
	d := reader.Dir(c.Dir)
	msg, err := d.Checkpoint(t.Context())
	must(t, err)
	cp, err := log.OpenCheckpoint(msg, w.verifier)
	must(t, err)
	r := reader.New(d, 0)
	if root, err := r.Root(t.Context(), cp.Size); err != nil || root != cp.Root {
		t.Errorf("root from the directory: %v, %v, want %v", root, err, cp.Root)
	}
	if err := r.Entries(t.Context(), cp.Head, 69000, 70000, func(uint64, []byte) error { return nil }); err != nil {
		t.Errorf("entries from the directory: %v", err)
	}
	if _, err := Open(c); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("a second tree on the directory: %v, want ErrLocked", err)
	}
	shared := c
	shared.StateDir = filepath.Join(dir, "state2")
	must(t, c.FS.MkdirAll(shared.StateDir))
	if _, err := Open(shared); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("a second tree on the anchor: %v, want ErrLocked", err)
	}
	must(t, s.tree.Close())
}

// Callers wait for signed and published checkpoints while the tree runs, and everything durable is published when it
// is told to stop.
func TestRunSignsEachRoundAndPublishesOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.config(crashfs.New(1))
		must(t, Create(c))
		tree, err := Open(c)
		must(t, err)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tree.Run(ctx) }()
		synctest.Wait()
		began := time.Now()
		w.src.add(300)
		if _, err := tree.WaitSigned(ctx, 300); err != nil || time.Since(began) > 100*time.Millisecond {
			t.Errorf("signed after %v, %v, want within two rounds", time.Since(began), err)
		}
		if behind := tree.Stats().Behind; tree.Stats().Published == 300 && behind != 0 {
			t.Errorf("published, and %v behind", behind)
		}
		msg, err := tree.WaitPublished(ctx, 300)
		if err != nil || time.Since(began) > 1100*time.Millisecond {
			t.Errorf("published after %v, %v, want within 1.1 s", time.Since(began), err)
		}
		if at, err := tree.PublishedAt(300); err != nil || string(at) != string(msg) {
			t.Errorf("PublishedAt(300) = %q, %v", at, err)
		}
		if _, err := tree.PublishedAt(299); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("PublishedAt(299): %v, want ErrNotExist", err)
		}
		time.Sleep(time.Hour)
		stats := tree.Stats()
		if stats.Publications < 6 || stats.Rounds != 1 || stats.Recovery != 300 || stats.Behind != 0 {
			t.Errorf("after an idle hour: %+v, want a publication every 10 minutes, one round, recovery point at 300", stats)
		}
		if !tree.anchor.twin {
			t.Error("an idle log has its anchor in one slot only")
		}
		late, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := tree.WaitSigned(late, 301); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for more than there is: %v", err)
		}
		// Told to stop in the same moment in which the last entries get durable.
		w.src.add(20000)
		stop()
		must(t, <-done)
		if stats := tree.Stats(); stats.Published != 20300 || stats.Recovery != 20300 || stats.Backlog != 0 {
			t.Errorf("stopped with %+v, want everything at 20300", stats)
		}
		if _, err := tree.WaitPublished(t.Context(), 20301); !errors.Is(err, ErrStopped) {
			t.Errorf("waiting on a stopped tree: %v, want ErrStopped", err)
		}
		if err := tree.Run(t.Context()); !errors.Is(err, errRunning) {
			t.Errorf("a second Run: %v", err)
		}
		w.check(tree)
		must(t, tree.Close())
		s, err := w.open(c)
		must(t, err)
		w.check(s.tree)
	})
}

// While witnesses are away the log goes on signing, publishes nothing, says for how long, and catches up.
func TestNothingIsPublishedWithoutCosignatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.config(crashfs.New(1))
		answer := func(signed []byte) ([]byte, error) { return signed, nil }
		c.Cosign = func(_ context.Context, signed []byte) ([]byte, error) { return answer(signed) }
		must(t, Create(c))
		tree, err := Open(c)
		must(t, err)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tree.Run(ctx) }()
		w.src.add(10)
		first, err := tree.WaitPublished(ctx, 10)
		must(t, err)
		for name, bad := range map[string]func([]byte) ([]byte, error){
			"no quorum":       func([]byte) ([]byte, error) { return nil, errors.New("no quorum") },
			"an old one":      func([]byte) ([]byte, error) { return first, nil },
			"not ours at all": func([]byte) ([]byte, error) { return []byte("hello"), nil },
		} {
			answer = bad
			size := tree.Head().Size + 300
			w.src.add(300)
			_, err := tree.WaitSigned(ctx, size)
			must(t, err)
			time.Sleep(3 * time.Minute)
			if s := tree.Stats(); s.Published != 10 || s.Unpublished == 0 || s.Behind < 2*time.Minute || s.Failed {
				t.Errorf("%s: %+v, want nothing published and the time it takes", name, s)
			}
		}
		answer = func(signed []byte) ([]byte, error) { return signed, nil }
		_, err = tree.WaitPublished(ctx, 910)
		must(t, err)
		if s := tree.Stats(); s.Behind != 0 {
			t.Errorf("published, and still %v behind", s.Behind)
		}
		w.check(tree)
		stop()
		must(t, <-done)
	})
}

// Partial tiles of the newest checkpoints are files; older ones, and their directories, go.
func TestOldPartialTilesAreRemoved(t *testing.T) {
	w := newWorld(t)
	fsys := crashfs.New(1)
	c := w.config(fsys)
	c.KeepPartials = 3
	w.build(c, 100, 1, 1, 1, 1)
	s, err := w.open(c)
	must(t, err)
	for range 10 {
		must(t, s.all(200))
	}
	w.check(s.tree)
	partials := 0
	for name := range fsys.Files() {
		if id, err := log.ParseTilePath(name[len("log/"):][min(6, len(name)-4):]); err == nil && id.Width < log.TileWidth {
			partials++
		}
	}
	want := map[string]bool{}
	for _, size := range []uint64{2104, 1904, 1704} {
		for _, id := range partialsOf(size) {
			want[id.Path()] = true
		}
	}
	if partials != len(want) {
		t.Errorf("%d partial tiles are files, want %d", partials, len(want))
	}
	if names, err := fsys.ReadDir("log/tiles/tile/0"); err != nil || len(names) != 8+3 {
		t.Errorf("tile/0 holds %v, %v, want 8 full tiles and 3 directories", names, err)
	}
	// A crash between files and store leaves partial tiles that nobody published.
	w.src.add(500)
	must(t, s.round())
	must(t, s.tree.writePartials(s.tree.current()))
	must(t, s.tree.Close())
	s, err = w.open(c)
	must(t, err)
	if _, err := fsys.Size("log/tiles/tile/0/010.p/44"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a partial tile of an unpublished size stays: %v", err)
	}
	w.check(s.tree)
}

// Tile serves every width up to the signed size, whatever is a file.
func TestTilesOfAnyWidth(t *testing.T) {
	w := newWorld(t)
	c := w.config(crashfs.New(1))
	w.build(c, 700)
	s, err := w.open(c)
	must(t, err)
	for level, counts := range map[int]uint64{-1: 700, 0: 700, 1: 2} {
		for index := range uint64(4) {
			for width := range log.TileWidth + 2 {
				id := log.TileID{Level: level, Index: index, Width: width}
				data, err := s.tree.Tile(t.Context(), id)
				exists := width > 0 && width <= log.TileWidth && index*log.TileWidth+uint64(width) <= counts
				if exists != (err == nil) || err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("Tile(%v): %v, exists: %v", id, err, exists)
				}
				if !exists {
					continue
				}
				if id.IsBundle() {
					entries, err := log.ParseBundle(data, width)
					must(t, err)
					if last := entries[width-1]; string(last) != string(w.src.at(index*log.TileWidth+uint64(width)-1)) {
						t.Fatalf("Tile(%v) ends with %q", id, last)
					}
				} else if len(data) != width*32 {
					t.Fatalf("Tile(%v) has %d bytes", id, len(data))
				}
			}
		}
	}
	for _, id := range []log.TileID{{Level: 2, Index: 0, Width: 1}, {Level: 63, Index: 0, Width: 1}, {Level: -2, Index: 0, Width: 1}, {Level: 0, Index: 1 << 60, Width: 1}} {
		if _, err := s.tree.Tile(t.Context(), id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Tile(%v): %v, want ErrNotExist", id, err)
		}
	}
}

func TestTheBacklogIsWhatIsWrittenAndNotSynced(t *testing.T) {
	w := newWorld(t)
	c := w.config(crashfs.New(1))
	must(t, Create(c))
	s, err := w.open(c)
	must(t, err)
	want := func(when string, n int) {
		t.Helper()
		if got := s.tree.Stats().Backlog; got != n {
			t.Errorf("%s: backlog %d, want %d", when, got, n)
		}
	}
	w.src.add(300)
	must(t, s.round())
	want("a full tile and its bundle are written", 2)
	for len(s.tree.queue) > 0 {
		_, err := s.tree.pay(&s.owed, <-s.tree.queue)
		must(t, err)
	}
	want("they are off the queue", 2)
	must(t, s.sync())
	want("they are synced", 0)
	must(t, s.tree.Close())
}
