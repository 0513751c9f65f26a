package tiles

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// A tile that the disk has changed keeps its shape. Caches would keep it for a year, long after the repair.
func TestWhatTheDiskHasChangedIsNotServed(t *testing.T) {
	w := newWorld(t)
	fsys := crashfs.New(1)
	c := w.config(fsys)
	c.CacheBytes = 1 // every tile is read again
	w.build(c, 256*256+600)
	s, err := w.open(c)
	must(t, err)
	var damage error
	handler := s.tree.Handler(HandlerOptions{Problem: func(w http.ResponseWriter, _ *http.Request, err error) {
		damage = err
		w.WriteHeader(http.StatusInternalServerError)
	}})
	get := func(path string) *httptest.ResponseRecorder {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return answer
	}
	files := fsys.Files()
	for damaged, paths := range map[string][]string{
		"tile/0/003":       {"/tile/0/003", "/tile/0/003.p/7"},
		"tile/0/257":       {"/tile/0/257"}, // its root is in the edge
		"tile/entries/004": {"/tile/entries/004", "/tile/entries/004.p/1"},
		"tile/1/000":       {"/tile/1/000", "/tile/0/009", "/tile/entries/009"}, // what hangs from it cannot be proven
	} {
		name := "log/tiles/" + damaged
		last := int64(len(files[name]) - 1)
		fsys.Flip(name, last, 1)
		for _, path := range paths {
			damage = nil
			got := get(path)
			if got.Code != 500 || !errors.Is(damage, ErrDamaged) || !strings.Contains(damage.Error(), damaged) || got.Body.Len() > 0 {
				t.Errorf("%s is damaged: GET %s = %d, %d bytes, %v", damaged, path, got.Code, got.Body.Len(), damage)
			}
			if cache := got.Header().Get("Cache-Control"); cache != "no-store" {
				t.Errorf("%s is damaged: caches are told %q of %s", damaged, cache, path)
			}
		}
		fsys.Flip(name, last, 1) // repaired
		for _, path := range paths {
			if got := get(path); got.Code != 200 {
				t.Errorf("GET %s = %d after the repair, %v", path, got.Code, damage)
			}
		}
	}
	if get("/tile/0/999"); !errors.Is(damage, fs.ErrNotExist) {
		t.Errorf("a tile beyond the log: %v, want ErrNotExist", damage)
	}
	must(t, s.tree.Close())
}

// The start cuts the partial tiles of published checkpoints from full ones.
func TestAStartSaysThatATileIsDamagedAndWhatToDo(t *testing.T) {
	w := newWorld(t)
	fsys := crashfs.New(1)
	w.build(w.config(fsys), 250, 600)
	fsys.Flip("log/tiles/tile/entries/000", 5, 1)
	var r *Refusal
	if _, err := w.open(w.config(fsys)); !errors.As(err, &r) || r.Check != "tiles" || !errors.Is(err, ErrDamaged) {
		t.Errorf("open = %v, want a refusal that names the tiles", err)
	}
	c := w.config(fsys)
	c.Rebuild = true
	s, err := w.open(c)
	must(t, err)
	if _, err := s.tree.Tile(t.Context(), log.BundleID(0, log.TileWidth)); err != nil {
		t.Errorf("after a rebuild: %v", err)
	}
	must(t, s.tree.Close())
}
