package tiles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// life takes a log through sizes around a full bundle, publishing each.
func life(w *world, c Config) error {
	s, err := w.open(c)
	if err != nil {
		return err
	}
	for _, n := range []int{3, 252, 2, 300} {
		if err := s.all(n); err != nil {
			return err
		}
	}
	return s.tree.Close()
}

// TestCrashes loses power at each change of a life, then again at a change of the recovery, and wants the log back:
// nothing refused without cause, no fork (the signer watches), everything proven.
func TestCrashes(t *testing.T) {
	points := 0
	for n := 1; ; n++ {
		reached := false
		for seed := range uint64(3) {
			w := newWorld(t)
			fsys := crashfs.New(seed)
			must(t, Create(w.config(fsys)))
			before := fsys.Ops()
			fsys.CrashAt(n)
			err := life(w, w.config(fsys))
			reached = reached || errors.Is(err, crashfs.ErrCrashed)
			if err != nil && !errors.Is(err, crashfs.ErrCrashed) {
				t.Fatalf("crash at %d after %d changes: %v", n, before, err)
			}
			again := fsys.After(seed + 100)
			again.CrashAt(1 + (n*7+int(seed))%40)
			if s, err := w.open(w.config(again)); err == nil {
				_ = s.all(5)
			} else if !errors.Is(err, crashfs.ErrCrashed) {
				t.Fatalf("crash at %d, seed %d: refused without cause: %v", n, seed, err)
			}
			last := again.After(seed + 200)
			s, err := w.open(w.config(last))
			if err != nil {
				t.Fatalf("crash at %d, seed %d, and again in recovery: refused without cause: %v", n, seed, err)
			}
			must(t, s.all(260))
			w.check(s.tree)
			must(t, s.tree.Close())
			points += 2
		}
		if !reached {
			break
		}
	}
	t.Logf("%d crash points, each with a second crash in recovery", points)
}

// TestFaults makes each call of a life fail, in each way, once or for good: the tree latches or is unharmed, and the
// next start finds a log that is whole.
func TestFaults(t *testing.T) {
	tried := 0
	for fault := crashfs.EIO; fault <= crashfs.ShortWrite; fault++ {
		for _, lasting := range []bool{false, true} {
			for n := 1; ; n++ {
				w := newWorld(t)
				fsys := crashfs.New(uint64(n))
				must(t, Create(w.config(fsys)))
				calls := fsys.Calls()
				fsys.FailAt(n, fault, lasting)
				err := life(w, w.config(fsys))
				end := fsys.Calls() - calls
				next := fsys.After(uint64(n))
				s, oerr := w.open(w.config(next))
				if oerr != nil {
					t.Fatalf("call %d, fault %d, lasting %v: life ended with %v, and the next start refuses: %v", n, fault, lasting, err, oerr)
				}
				must(t, s.all(10))
				w.check(s.tree)
				must(t, s.tree.Close())
				tried++
				if n > end {
					break
				}
			}
		}
	}
	t.Logf("%d faults", tried)
}

// sample gives offsets of a file to damage: all of a small one, some of a large one.
func sample(size int) []int64 {
	var at []int64
	step := max(1, size/150)
	for off := 0; off < size; off += step {
		at = append(at, int64(off))
	}
	return at
}

// TestFlips damages every file of a log: it refuses, heals, or reports the damage when it is checked; it never signs
// another history, nor serves what is not proven.
func TestFlips(t *testing.T) {
	w := newWorld(t)
	base := crashfs.New(1)
	w.build(w.config(base), 300, 5)
	refused, healed, reported := 0, 0, 0
	for name, data := range base.After(1).Files() {
		for _, off := range sample(len(data)) {
			fsys := base.After(1)
			fsys.Flip(name, off, 0x10)
			s, err := w.open(w.config(fsys))
			if err != nil {
				if !errors.Is(err, ErrRefused) {
					t.Fatalf("%s byte %d: %v, want a refusal", name, off, err)
				}
				refused++
				continue
			}
			if err := s.tree.Check(t.Context(), func(uint64, uint64) {}); errors.Is(err, ErrProblems) {
				reported++
			} else if err != nil {
				t.Fatalf("%s byte %d: check: %v", name, off, err)
			} else {
				healed++
				w.check(s.tree)
			}
			must(t, s.tree.Close())
		}
	}
	t.Logf("%d refused, %d healed or without meaning, %d reported by a check", refused, healed, reported)
	if refused == 0 || reported+healed == 0 {
		t.Error("the damage was not felt")
	}
}

// TestMissingAndOldFiles deletes, empties and rolls back each file.
func TestMissingAndOldFiles(t *testing.T) {
	w := newWorld(t)
	base := crashfs.New(1)
	w.build(w.config(base), 300, 5)
	old := base.After(1).Files()
	w.grow(w.config(base), 400)
	for name, data := range base.After(1).Files() {
		for what, damage := range map[string]func(fsys *crashfs.FS){
			"deleted": func(fsys *crashfs.FS) { must(t, fsys.Remove(name)) },
			"emptied": func(fsys *crashfs.FS) { put(t, fsys, name, nil) },
			"halved":  func(fsys *crashfs.FS) { put(t, fsys, name, data[:len(data)/2]) },
			"longer":  func(fsys *crashfs.FS) { put(t, fsys, name, append(data[:len(data):len(data)], 'x')) },
			"older": func(fsys *crashfs.FS) {
				if b, ok := old[name]; ok {
					put(t, fsys, name, b)
				}
			},
		} {
			fsys := base.After(1)
			damage(fsys)
			w.published = 0 // a store that was rolled back alone shows an older checkpoint until the next is published
			s, err := w.open(w.config(fsys))
			switch {
			case err == nil:
				if err := s.tree.Check(t.Context(), func(uint64, uint64) {}); err != nil && !errors.Is(err, ErrProblems) {
					t.Errorf("%s %s: check: %v", name, what, err)
				}
				must(t, s.tree.Close())
			case !errors.Is(err, ErrRefused) && what != "longer":
				t.Errorf("%s %s: %v, want a refusal", name, what, err)
			}
		}
	}
	for _, dir := range []string{"anchor/anchor"} {
		fsys := base.After(1)
		put(t, fsys, dir, old[dir])
		var r *Refusal
		if _, err := w.open(w.config(fsys)); !errors.As(err, &r) || r.Check == "" || r.Found == "" || r.Do == "" {
			t.Errorf("an older %s: %v, want a refusal that says what to do", dir, err)
		}
	}
}

func TestRebuildDerivesTilesAgain(t *testing.T) {
	w := newWorld(t)
	fsys := crashfs.New(1)
	w.build(w.config(fsys), 600)
	fsys = fsys.After(1)
	fsys.Flip("log/tiles/tile/0/000", 40, 1)
	fsys.Flip("log/tiles/tile/entries/001", 4, 1)
	c := w.config(fsys)
	if _, err := w.open(c); !errors.Is(err, ErrRefused) {
		t.Fatalf("a damaged tile: %v, want a refusal", err)
	}
	c.Rebuild = true
	w.grow(c, 10)
	c.Rebuild = false
	s, err := w.open(c)
	must(t, err)
	w.check(s.tree)
}

func TestASourceThatShrinksOrLiesIsRefused(t *testing.T) {
	broken := errors.New("source is broken")
	for name, change := range map[string]func(*memSource){
		"shrinks":       func(m *memSource) { m.hide(250) },
		"lies":          func(m *memSource) { m.lie = 300 },
		"lies long ago": func(m *memSource) { m.lie = 3 },
		"fails":         func(m *memSource) { m.fault(broken) },
	} {
		w := newWorld(t)
		fsys := crashfs.New(1)
		w.build(w.config(fsys), 300)
		change(w.src)
		s, err := w.open(w.config(fsys))
		if name == "lies long ago" {
			// Below the recovery point the tiles are the witness: the check finds it.
			if err == nil {
				err = s.tree.Check(t.Context(), func(uint64, uint64) {})
			}
			if !errors.Is(err, ErrProblems) && !errors.Is(err, ErrRefused) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, ErrRefused) && !errors.Is(err, broken) {
			t.Errorf("a source that %s: %v, want a refusal", name, err)
		}
	}
}

func TestRunLatchesWhenSomethingFails(t *testing.T) {
	broken := errors.New("broken")
	for name, damage := range map[string]func(*world, *crashfs.FS){
		"source": func(w *world, _ *crashfs.FS) { w.src.fault(broken) },
		"signer": func(w *world, _ *crashfs.FS) { w.mu.Lock(); w.broken = broken; w.mu.Unlock() },
		"disk":   func(_ *world, f *crashfs.FS) { f.FailAt(1, crashfs.EIO, true) },
		"shrink": func(w *world, _ *crashfs.FS) { w.src.hide(2) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			fsys := crashfs.New(1)
			c := w.config(fsys)
			c.Round, c.Publish, c.Idle = time.Millisecond, 2*time.Millisecond, 20*time.Millisecond
			must(t, Create(c))
			tree, err := Open(c)
			must(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			running, stop := context.WithCancel(ctx)
			defer stop()
			ended := make(chan error, 1)
			go func() { ended <- tree.Run(running) }()
			w.src.add(300)
			_, err = tree.WaitPublished(ctx, 300)
			must(t, err)
			damage(w, fsys)
			w.src.add(300)
			if name == "shrink" {
				stop() // nothing new is heard of that source: the tree looks at it when it stops
			}
			select {
			case <-tree.Failed():
				if tree.Err() == nil {
					t.Error("a failed tree says no reason")
				}
			case <-ctx.Done():
				t.Fatal("the tree goes on")
			}
			// Readers are served, and nothing new is signed.
			if _, err := tree.WaitSigned(ctx, 600); err == nil {
				t.Error("a failed tree signs on")
			}
			if err := <-ended; err == nil {
				t.Error("Run ends without an error")
			}
			if _, err := tree.Tile(ctx, log.TileID{Width: 256}); err != nil && name != "disk" {
				t.Errorf("a failed tree does not serve: %v", err)
			}
			_ = tree.Close() // it may repeat what failed
		})
	}
}

func TestTheClockAndTheLocksAreChecked(t *testing.T) {
	w := newWorld(t)
	fsys := crashfs.New(1)
	c := w.config(fsys)
	w.build(c, 10)
	early := c
	early.Now = func() time.Time { return time.Now().Add(-time.Hour) }
	var r *Refusal
	if _, err := Open(early); !errors.As(err, &r) || r.Check != "clock" {
		t.Errorf("a clock before the anchor: %v", err)
	}
	tree, err := Open(c)
	must(t, err)
	if _, err := Open(c); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("a second handle: %v, want locked", err)
	}
	must(t, tree.Close())
	if err := Create(c); !errors.Is(err, ErrExists) {
		t.Errorf("Create over a log: %v, want exists", err)
	}
	// What an interrupted Create left is something, too.
	half := crashfs.New(2)
	half.FailAt(12, crashfs.EIO, true)
	if err := Create(w.config(half)); err == nil {
		t.Error("Create on a broken disk succeeds")
	}
	for n := 1; n < 60; n++ {
		broken := crashfs.New(3)
		broken.FailAt(n, crashfs.ENOSPC, true)
		_ = Create(w.config(broken))
	}
	anchor, err := ReadAnchor(c)
	if err != nil || anchor.Size != 10 {
		t.Errorf("ReadAnchor = %+v, %v", anchor, err)
	}
	must(t, fsys.Remove("anchor/anchor"))
	if _, err := ReadAnchor(c); !errors.Is(err, ErrRefused) {
		t.Errorf("ReadAnchor without an anchor: %v", err)
	}
	put(t, fsys, "anchor/anchor", []byte("nonsense"))
	if _, err := ReadAnchor(c); !errors.Is(err, ErrRefused) {
		t.Errorf("ReadAnchor of nonsense: %v", err)
	}
}

func TestAConfigurationReportsAllThatIsWrong(t *testing.T) {
	_, err := Open(Config{Round: -1, KeepPartials: -1, Origin: "two words"})
	for _, want := range []string{"Dir", "FS", "Origin", "Signer", "Verifier", "Source", "durations", "KeepPartials"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("configuration error %v does not name %s", err, want)
		}
	}
	if err := Create(Config{}); err == nil {
		t.Error("Create with nothing succeeds")
	}
}

func TestTheStaticGETsHaveTheirTypesAndCaching(t *testing.T) {
	w := newWorld(t)
	c := w.config(crashfs.New(1))
	must(t, Create(c))
	s, err := w.open(c)
	must(t, err)
	unpublished := httptest.NewServer(s.tree.Handler(HandlerOptions{}))
	defer unpublished.Close()
	must(t, s.all(300))
	must(t, s.all(300))
	w.src.add(7)
	must(t, s.round()) // signed, not published
	guarded := 0
	problems := 0
	servers := map[string]*httptest.Server{
		"open": unpublished,
		"guarded": httptest.NewServer(s.tree.Handler(HandlerOptions{
			Entries: func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { guarded++; h.ServeHTTP(w, r) })
			},
			Problem: func(w http.ResponseWriter, _ *http.Request, _ error) { problems++; w.WriteHeader(http.StatusNotFound) },
		})),
	}
	defer servers["guarded"].Close()
	do := func(server, method, path string, header ...string) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, servers[server].URL+path, nil)
		must(t, err)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		b, err := io.ReadAll(resp.Body)
		must(t, errors.Join(err, resp.Body.Close()))
		return resp, b
	}
	for path, want := range map[string]struct {
		status int
		kind   string
		bytes  int
	}{
		"/checkpoint":             {200, "text/plain; charset=utf-8", -1},
		"/checkpoint/signed":      {200, "text/plain; charset=utf-8", -1},
		"/checkpoint/300":         {200, "text/plain; charset=utf-8", -1},
		"/checkpoint/301":         {404, "application/problem+json", -1},
		"/checkpoint/0300":        {404, "application/problem+json", -1},
		"/tile/0/000":             {200, "application/octet-stream", 8192},
		"/tile/0/001":             {200, "application/octet-stream", 8192},
		"/tile/0/002.p/88":        {200, "application/octet-stream", 88 * 32},
		"/tile/0/002.p/95":        {200, "application/octet-stream", 95 * 32}, // of the signed size
		"/tile/0/002.p/96":        {404, "application/problem+json", -1},
		"/tile/1/000.p/2":         {200, "application/octet-stream", 64},
		"/tile/entries/000":       {200, "application/octet-stream", -1},
		"/tile/entries/002.p/1":   {200, "application/octet-stream", -1},
		"/tile/entries/003":       {404, "application/problem+json", -1},
		"/tile/64/000":            {404, "application/problem+json", -1},
		"/tile/0/0":               {404, "application/problem+json", -1},
		"/tile/0/000.p/0":         {404, "application/problem+json", -1},
		"/tile/../state/recovery": {404, "", -1},
		"/nothing":                {404, "", -1},
	} {
		resp, b := do("open", http.MethodGet, path)
		if resp.StatusCode != want.status || want.kind != "" && resp.Header.Get("Content-Type") != want.kind || want.bytes >= 0 && len(b) != want.bytes {
			t.Errorf("GET %s = %d, %s, %d bytes; want %+v", path, resp.StatusCode, resp.Header.Get("Content-Type"), len(b), want)
		}
		if want.status == 200 && resp.Header.Get("Cache-Control") == "" {
			t.Errorf("GET %s says nothing of caching", path)
		}
	}
	first, _ := do("open", http.MethodGet, "/checkpoint")
	if again, _ := do("open", http.MethodGet, "/checkpoint", "If-None-Match", first.Header.Get("ETag")); first.Header.Get("ETag") == "" || again.StatusCode != http.StatusNotModified {
		t.Errorf("GET /checkpoint with its ETag %q = %d", first.Header.Get("ETag"), again.StatusCode)
	}
	if head, b := do("open", http.MethodHead, "/tile/0/000"); head.StatusCode != 200 || len(b) != 0 || head.ContentLength != 8192 {
		t.Errorf("HEAD = %d, %d bytes, length %d", head.StatusCode, len(b), head.ContentLength)
	}
	if post, _ := do("open", http.MethodPost, "/checkpoint"); post.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST /checkpoint = %d", post.StatusCode)
	}
	if resp, _ := do("guarded", http.MethodGet, "/tile/entries/000"); guarded != 1 || !strings.HasPrefix(resp.Header.Get("Cache-Control"), "private") {
		t.Errorf("a guarded bundle: guarded %d times, caching %q", guarded, resp.Header.Get("Cache-Control"))
	}
	if do("guarded", http.MethodGet, "/tile/0/000"); guarded != 1 {
		t.Error("a tile of hashes is guarded")
	}
	if do("guarded", http.MethodGet, "/tile/0/999"); problems != 1 {
		t.Error("the server's own problem is not used")
	}
	must(t, s.tree.Close())
}

func TestAnEmptyLogHasNoPublishedCheckpointUnlessIdle(t *testing.T) {
	w := newWorld(t)
	c := w.config(crashfs.New(1))
	must(t, Create(c))
	s, err := w.open(c)
	must(t, err)
	server := httptest.NewServer(s.tree.Handler(HandlerOptions{}))
	defer server.Close()
	resp, err := http.Get(server.URL + "/checkpoint") //nolint:noctx // a test's
	must(t, err)
	must(t, resp.Body.Close())
	if (resp.StatusCode == 200) != (s.tree.Published() != nil) {
		t.Errorf("GET /checkpoint = %d, Published() = %q", resp.StatusCode, s.tree.Published())
	}
	must(t, s.tree.Close())
}

func TestOldCheckpointsAreKeptOverManySegments(t *testing.T) {
	w := newWorld(t)
	fsys := crashfs.New(1)
	c := w.config(fsys)
	must(t, Create(c))
	s, err := w.open(c)
	must(t, err)
	for range 40 {
		must(t, s.all(3))
	}
	must(t, s.tree.Close())
	s, err = w.open(c)
	must(t, err)
	for n := uint64(3); n <= 120; n += 3 {
		msg, err := s.tree.PublishedAt(n)
		if err != nil {
			t.Fatalf("PublishedAt(%d): %v", n, err)
		}
		if cp, err := log.OpenCheckpoint(msg, w.verifier); err != nil || cp.Size != n {
			t.Errorf("PublishedAt(%d) = %v, %v", n, cp, err)
		}
	}
	if _, err := s.tree.PublishedAt(4); err == nil {
		t.Error("a size that was never published has a checkpoint")
	}
	if got := fmt.Sprint(s.tree.Stats()); got == "" {
		t.Error("no statistics")
	}
	must(t, s.tree.Close())
}
