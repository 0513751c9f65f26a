package reader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/tlog"
)

// A memLog is a log made by another library, x/mod's, in memory.
type memLog struct {
	entries [][]byte
	stored  []tlog.Hash

	mu     sync.Mutex
	served map[string]int                     // requests by path
	twist  func(path string, b []byte) []byte // what is wrong with the answers; nil for nothing
	err    error
}

func (m *memLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		out[i] = m.stored[index]
	}
	return out, nil
}

func newMemLog(t testing.TB, size int) *memLog {
	t.Helper()
	m := &memLog{served: map[string]int{}}
	for n := range size {
		entry := fmt.Appendf(nil, "entry %d", n)
		hashes, err := tlog.StoredHashes(int64(n), entry, m)
		if err != nil {
			t.Fatal(err)
		}
		m.entries, m.stored = append(m.entries, entry), append(m.stored, hashes...)
	}
	return m
}

func (m *memLog) head(t testing.TB, size int) log.Head {
	t.Helper()
	root, err := tlog.TreeHash(int64(size), m)
	if err != nil {
		t.Fatal(err)
	}
	return log.Head{Size: uint64(size), Root: root}
}

// make gives the bytes of a tile or bundle of the whole log.
func (m *memLog) make(id log.TileID) ([]byte, error) {
	if id.IsBundle() {
		var b []byte
		first := int(id.Index) * log.TileWidth
		if first+id.Width > len(m.entries) {
			return nil, fs.ErrNotExist
		}
		for _, e := range m.entries[first : first+id.Width] {
			b = log.AppendBundle(b, e)
		}
		return b, nil
	}
	if (id.Index*log.TileWidth+uint64(id.Width))<<(8*id.Level) > uint64(len(m.entries)) {
		return nil, fs.ErrNotExist
	}
	return tlog.ReadTileData(tlog.Tile{H: 8, L: id.Level, N: int64(id.Index), W: id.Width}, m)
}

func (m *memLog) Tile(_ context.Context, id log.TileID) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.served[id.Path()]++
	b, err := m.make(id)
	if m.err != nil {
		return nil, m.err
	}
	if m.twist != nil {
		b = m.twist(id.Path(), b)
	}
	return b, err
}

var sizes = []int{1, 2, 255, 256, 257, 513, 65_536 + 300}

func TestProofsLeadToTheRootAtEverySize(t *testing.T) {
	m := newMemLog(t, sizes[len(sizes)-1])
	r := New(m, 1024)
	for _, size := range sizes {
		head := m.head(t, size)
		root, err := r.Root(t.Context(), uint64(size))
		if err != nil || root != head.Root {
			t.Errorf("Root(%d) = %v, %v, want %v", size, root, err, head.Root)
		}
		for _, i := range []int{0, 1, size / 2, size - 2, size - 1} {
			if i < 0 || i >= size {
				continue
			}
			path, err := r.Inclusion(t.Context(), head, uint64(i))
			if err != nil {
				t.Errorf("Inclusion(%d, %d): %v", size, i, err)
				continue
			}
			want, err := tlog.ProveRecord(int64(size), int64(i), m)
			if err != nil || len(want) != len(path) {
				t.Errorf("Inclusion(%d, %d) has %d hashes, want %d", size, i, len(path), len(want))
			}
		}
		for _, old := range sizes {
			if old > size {
				continue
			}
			path, err := r.Extends(t.Context(), m.head(t, old), head)
			if err != nil {
				t.Errorf("Extends(%d, %d) = %v, %v", old, size, path, err)
			}
		}
		begin, end := size/3, min(size, size/3+300)
		path, err := r.Range(t.Context(), uint64(size), uint64(begin), uint64(end))
		if err != nil {
			t.Fatal(err)
		}
		var leaves []log.Hash
		for _, e := range m.entries[begin:end] {
			leaves = append(leaves, log.LeafHash(e))
		}
		if err := log.CheckRange(head, uint64(begin), leaves, path); err != nil {
			t.Errorf("Range(%d, %d, %d): %v", size, begin, end, err)
		}
	}
	if root, err := r.Root(t.Context(), 0); err != nil || root != log.EmptyHead().Root {
		t.Errorf("Root(0) = %v, %v", root, err)
	}
	if path, err := r.Consistency(t.Context(), 0, 7); err != nil || len(path) != 0 {
		t.Errorf("Consistency(0, 7) = %v, %v", path, err)
	}
}

func TestManyProofsFetchEachTileOnce(t *testing.T) {
	m := newMemLog(t, 5000)
	r, head := New(m, 1024), m.head(t, 5000)
	for i := range uint64(5000) {
		if _, err := r.Inclusion(t.Context(), head, i); err != nil {
			t.Fatal(err)
		}
	}
	for path, n := range m.served {
		if n != 1 {
			t.Errorf("%s was fetched %d times", path, n)
		}
	}
}

func TestEntriesComeInOrderAndProven(t *testing.T) {
	m := newMemLog(t, 1000)
	r, head := New(m, 0), m.head(t, 900)
	for _, c := range [][2]uint64{{0, 900}, {255, 257}, {300, 301}, {899, 900}, {5, 5}} {
		next := c[0]
		err := r.Entries(t.Context(), head, c[0], c[1], func(i uint64, entry []byte) error {
			if i != next || !bytes.Equal(entry, m.entries[i]) {
				t.Errorf("entry %d is %q", i, entry)
			}
			next++
			return nil
		})
		if err != nil || next != c[1] {
			t.Errorf("Entries(%d, %d) ends at %d, %v", c[0], c[1], next, err)
		}
	}
	stop := errors.New("enough")
	if err := r.Entries(t.Context(), head, 0, 900, func(uint64, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Entries = %v, want the callee's error", err)
	}
	// The memory is the callee's: appending to one entry does not reach the next.
	first := true
	if err := r.Entries(t.Context(), head, 0, 2, func(i uint64, entry []byte) error {
		if first {
			_ = append(entry, "XXXXXXXX"...)
			first = false
		} else if !bytes.Equal(entry, m.entries[1]) {
			t.Errorf("entry 1 became %q", entry)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestOutsideTheTreeThereIsNothing(t *testing.T) {
	m := newMemLog(t, 300)
	r, head := New(m, 16), m.head(t, 300)
	nothing := func(uint64, []byte) error { return nil }
	for name, f := range map[string]func() error{
		"Inclusion":     func() error { _, err := r.Inclusion(t.Context(), head, 300); return err },
		"Consistency":   func() error { _, err := r.Consistency(t.Context(), 300, 299); return err },
		"Extends":       func() error { _, err := r.Extends(t.Context(), head, m.head(t, 299)); return err },
		"Range end":     func() error { _, err := r.Range(t.Context(), 300, 0, 301); return err },
		"Range order":   func() error { _, err := r.Range(t.Context(), 300, 5, 4); return err },
		"Entries end":   func() error { return r.Entries(t.Context(), head, 0, 301, nothing) },
		"Entries order": func() error { return r.Entries(t.Context(), head, 5, 4, nothing) },
	} {
		if err := f(); !errors.Is(err, log.ErrProof) {
			t.Errorf("%s = %v, want ErrProof", name, err)
		}
	}
	for name, f := range map[string]func() error{
		"Root":        func() error { _, err := r.Root(t.Context(), 1000); return err },
		"Inclusion":   func() error { _, err := r.Inclusion(t.Context(), log.Head{Size: 1000}, 700); return err },
		"Consistency": func() error { _, err := r.Consistency(t.Context(), 500, 1000); return err },
		"Range":       func() error { _, err := r.Range(t.Context(), 1000, 1, 999); return err },
		"Entries":     func() error { return r.Entries(t.Context(), log.Head{Size: 1000}, 600, 700, nothing) },
	} {
		if err := f(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s beyond what the log has = %v, want not-exist", name, err)
		}
	}
}

func TestAWrongTileIsCaughtAndFetchedOnceMore(t *testing.T) {
	flip := func(only string, times int) func(string, []byte) []byte {
		return func(path string, b []byte) []byte {
			if !strings.HasPrefix(path, only) || times == 0 || len(b) == 0 {
				return b
			}
			times--
			b = bytes.Clone(b)
			b[len(b)/2] ^= 1
			return b
		}
	}
	for _, only := range []string{"tile/0/", "tile/1/", "tile/entries/"} {
		for _, times := range []int{1, 1 << 30} {
			m := newMemLog(t, 70_000)
			head := m.head(t, 70_000)
			r := New(m, 1024)
			m.twist = flip(only, times)
			var err error
			if only == "tile/entries/" {
				err = r.Entries(t.Context(), head, 256, 512, func(i uint64, e []byte) error {
					if !bytes.Equal(e, m.entries[i]) {
						t.Errorf("entry %d is handed out as %q", i, e)
					}
					return nil
				})
			} else {
				_, err = r.Inclusion(t.Context(), head, 300)
			}
			if times == 1 && err != nil {
				t.Errorf("%s wrong once: %v", only, err)
			}
			if times > 1 && !errors.Is(err, log.ErrProof) {
				t.Errorf("%s wrong for ever: %v, want ErrProof", only, err)
			}
			// A log that is mended is read again, from the same reader.
			m.twist = nil
			if _, err := r.Inclusion(t.Context(), head, 300); err != nil {
				t.Errorf("%s mended: %v", only, err)
			}
		}
	}
}

func TestMalformedAnswersAreNoProof(t *testing.T) {
	m := newMemLog(t, 600)
	head := m.head(t, 600)
	for name, twist := range map[string]func(string, []byte) []byte{
		"short": func(_ string, b []byte) []byte { return b[:len(b)-1] },
		"long":  func(_ string, b []byte) []byte { return append(bytes.Clone(b), 0) },
		"empty": func(string, []byte) []byte { return nil },
	} {
		m.twist = twist
		if _, err := New(m, 16).Inclusion(t.Context(), head, 3); !errors.Is(err, log.ErrProof) {
			t.Errorf("%s tile: %v, want ErrProof", name, err)
		}
		if err := New(m, 16).Entries(t.Context(), head, 0, 3, func(uint64, []byte) error { return nil }); !errors.Is(err, log.ErrProof) {
			t.Errorf("%s bundle: %v, want ErrProof", name, err)
		}
	}
	m.twist, m.err = nil, errors.New("disk on fire")
	if _, err := New(m, 16).Inclusion(t.Context(), head, 3); !errors.Is(err, m.err) {
		t.Errorf("Inclusion = %v, want the fetcher's error", err)
	}
}

// serve answers like a log that keeps only full tiles once they exist.
func (m *memLog) serve(t *testing.T, keepPartials bool) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/log/")
		if strings.HasPrefix(path, "checkpoint") {
			_, _ = fmt.Fprintf(w, "%s %s", path, r.Header.Get("Authorization"))
			return
		}
		id, err := log.ParseTilePath(path)
		if err != nil {
			http.Error(w, "bad path", http.StatusTeapot)
			return
		}
		full := id
		full.Width = log.TileWidth
		if _, err := m.make(full); !keepPartials && id.Width != log.TileWidth && err == nil {
			http.NotFound(w, r)
			return
		}
		b, err := m.Tile(r.Context(), id)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestARemoteLogIsReadOverHTTP(t *testing.T) {
	m := newMemLog(t, 700)
	for _, keep := range []bool{true, false} {
		remote := HTTP(m.serve(t, keep).URL+"/log/", "secret", http.DefaultClient)
		r := New(remote, 64)
		for _, size := range []int{200, 300, 700} { // sizes whose partial tiles may be gone
			head := m.head(t, size)
			if _, err := r.Inclusion(t.Context(), head, uint64(size-1)); err != nil {
				t.Error(err)
			}
			if err := New(remote, 64).Entries(t.Context(), head, 0, uint64(size), func(uint64, []byte) error { return nil }); err != nil {
				t.Error(err)
			}
		}
		for want, f := range map[string]func(context.Context) ([]byte, error){
			"checkpoint": remote.Checkpoint, "checkpoint/signed": remote.SignedCheckpoint,
			"checkpoint/5": func(ctx context.Context) ([]byte, error) { return remote.CheckpointAt(ctx, 5) },
		} {
			if b, err := f(t.Context()); err != nil || string(b) != want+" Bearer secret" {
				t.Errorf("%s = %q, %v", want, b, err)
			}
		}
	}
}

func TestARemoteLogIsNotTrusted(t *testing.T) {
	answer := func(code int, body string) *Remote {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		}))
		t.Cleanup(s.Close)
		return HTTP(s.URL, "", http.DefaultClient)
	}
	if _, err := answer(200, strings.Repeat("x", log.NoteMaxBytes+1)).Checkpoint(t.Context()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an endless checkpoint: %v", err)
	}
	if _, err := answer(200, strings.Repeat("x", log.TileMaxBytes+1)).Tile(t.Context(), log.TileID{Width: 256}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an endless tile: %v", err)
	}
	var status *StatusError
	_, err := answer(503, "").Tile(t.Context(), log.TileID{Width: 5})
	if !errors.As(err, &status) || status.Code != 503 || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "503") {
		t.Errorf("an unavailable log: %v", err)
	}
	if _, err := answer(404, "").Tile(t.Context(), log.TileID{Width: 5}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing tile: %v", err)
	}
	if _, err := HTTP("http://127.0.0.1:1", "", http.DefaultClient).Checkpoint(t.Context()); err == nil {
		t.Error("a log that is not there is read")
	}
	if _, err := HTTP("://", "", http.DefaultClient).Checkpoint(t.Context()); err == nil {
		t.Error("a prefix that is no URL is read")
	}
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("x"))
	}))
	defer cut.Close()
	if _, err := HTTP(cut.URL, "", http.DefaultClient).Checkpoint(t.Context()); err == nil {
		t.Error("an answer that is cut short is taken")
	}
}

func TestADirectoryIsReadLikeALog(t *testing.T) {
	m := newMemLog(t, 600)
	dir := t.TempDir()
	write := func(path string, b []byte) {
		t.Helper()
		file := filepath.Join(dir, filepath.FromSlash(path))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []log.TileID{
		{Index: 0, Width: 256},
		{Index: 1, Width: 256},
		{Index: 2, Width: 88},
		{Level: 1, Width: 1},
		{Level: 1, Width: 2},
		log.BundleID(0, 256), log.BundleID(1, 256), log.BundleID(2, 88),
	} {
		b, err := m.make(id)
		if err != nil {
			t.Fatal(err)
		}
		write(id.Path(), b)
	}
	write("checkpoint", []byte("hello"))
	d := Dir(dir)
	if b, err := d.Checkpoint(t.Context()); err != nil || string(b) != "hello" {
		t.Errorf("checkpoint = %q, %v", b, err)
	}
	r := New(d, 16)
	for _, size := range []int{300, 600} {
		if err := r.Entries(t.Context(), m.head(t, size), 0, uint64(size), func(uint64, []byte) error { return nil }); err != nil {
			t.Errorf("size %d: %v", size, err)
		}
	}
	if _, err := d.Tile(t.Context(), log.TileID{Index: 9, Width: 256}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing tile: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "tile", "0", "007"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Tile(t.Context(), log.TileID{Index: 7, Width: 256}); err == nil {
		t.Error("a folder is read as a tile")
	}
}

func TestCutWantsEnough(t *testing.T) {
	bundle := log.AppendBundle(log.AppendBundle(nil, []byte("one")), []byte("two"))
	if b, err := Cut(bundle, log.BundleID(0, 1)); err != nil || len(b) != 5 {
		t.Errorf("Cut = %q, %v", b, err)
	}
	for _, c := range []struct {
		data []byte
		id   log.TileID
	}{
		{bundle, log.BundleID(0, 3)}, {bundle[:len(bundle)-1], log.BundleID(0, 2)}, {make([]byte, 63), log.TileID{Width: 2}},
	} {
		if _, err := Cut(c.data, c.id); !errors.Is(err, log.ErrMalformed) {
			t.Errorf("Cut(%d bytes, %s) = %v, want malformed", len(c.data), c.id.Path(), err)
		}
	}
}

func TestACacheKeepsWhatWasUsedLast(t *testing.T) {
	c := NewCache[string, int](3)
	for i, key := range []string{"a", "b", "c"} {
		c.Put(key, i, 1)
	}
	c.Get("a")
	c.Put("d", 3, 1)
	if _, ok := c.Get("b"); ok {
		t.Error("what was not used for longest is kept")
	}
	if v, ok := c.Get("a"); !ok || v != 0 {
		t.Error("what was used last is gone")
	}
	c.Put("a", 9, 2)
	if v, _ := c.Get("a"); v != 9 {
		t.Errorf("a = %d, want the value put last", v)
	}
	c.Put("huge", 1, 4)
	if _, ok := c.Get("huge"); ok {
		t.Error("an item above the bound is kept")
	}
	c.Clear()
	if _, ok := c.Get("a"); ok {
		t.Error("a cleared cache keeps something")
	}
}

func BenchmarkInclusionWarm(b *testing.B) {
	m := newMemLog(b, 70_000)
	r, head := New(m, 1024), m.head(b, 70_000)
	i := uint64(0)
	for b.Loop() {
		if _, err := r.Inclusion(b.Context(), head, i%70_000); err != nil {
			b.Fatal(err)
		}
		i += 7919
	}
}
