package tiles

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/pipe-roll/piperoll/log"
)

// HandlerOptions adapt the handler to the server around it.
type HandlerOptions struct {
	// Entries wraps what serves /tile/entries/..., to let only some read them; nil: everybody may, and caches may
	// keep them.
	Entries func(http.Handler) http.Handler
	// Problem answers a request that failed: err is ErrMethod, fs.ErrNotExist, or says why the resource cannot be
	// read. If nil, the answer is a plain problem+json (RFC 9457).
	Problem func(w http.ResponseWriter, r *http.Request, err error)
}

// ErrMethod means that a request was neither GET nor HEAD.
var ErrMethod = errors.New("only GET and HEAD")

// What caches may do. A tile or bundle never changes under its path. A checkpoint does all the time, and asking with
// its ETag is cheap; an old one may still get cosignatures.
const (
	cacheTile       = "public, max-age=31536000, immutable"
	cacheEntries    = "private, max-age=31536000, immutable"
	cacheCheckpoint = "no-cache"
	cacheOld        = "public, max-age=5"
	cacheProblem    = "no-store"

	typeCheckpoint = "text/plain; charset=utf-8"
	typeTile       = "application/octet-stream"
	typeProblem    = "application/problem+json"
)

// Handler serves GET and HEAD of the log's static resources (c2sp.org/tlog-tiles), with paths below the log's prefix:
// /checkpoint, /checkpoint/signed, /checkpoint/SIZE, /tile/L/N[.p/W] and /tile/entries/N[.p/W].
func (t *Tree) Handler(o HandlerOptions) http.Handler {
	if o.Problem == nil {
		o.Problem = plainProblem
	}
	entriesCache := cacheTile
	entries := func(h http.Handler) http.Handler { return h }
	if o.Entries != nil {
		entriesCache, entries = cacheEntries, o.Entries
	}
	mux := http.NewServeMux()
	mux.Handle("/checkpoint", t.checkpoint(o, cacheCheckpoint, func(*http.Request) ([]byte, error) { return t.Published(), nil }))
	mux.Handle("/checkpoint/signed", t.checkpoint(o, cacheCheckpoint, func(*http.Request) ([]byte, error) { return t.Signed(), nil }))
	mux.Handle("/checkpoint/{size}", t.checkpoint(o, cacheOld, func(r *http.Request) ([]byte, error) {
		text := r.PathValue("size")
		size, err := strconv.ParseUint(text, 10, 53)
		if err != nil || strconv.FormatUint(size, 10) != text {
			return nil, fs.ErrNotExist
		}
		return t.PublishedAt(size)
	}))
	mux.Handle("/tile/entries/", entries(t.tile(o, entriesCache)))
	mux.Handle("/tile/", t.tile(o, cacheTile))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, o, nil, fs.ErrNotExist)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			o.Problem(w, r, ErrMethod)
			return
		}
		// The mux would redirect to a cleaned path; a static resource has one spelling.
		if r.URL.RawPath != "" || strings.Contains(r.URL.Path, "//") || strings.Contains(r.URL.Path, "/.") {
			answer(w, r, o, nil, fs.ErrNotExist)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (t *Tree) checkpoint(o HandlerOptions, cache string, get func(*http.Request) ([]byte, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		msg, err := get(r)
		if err == nil && msg == nil {
			err = fs.ErrNotExist
		}
		if err == nil {
			sum := sha256.Sum256(msg)
			tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
			w.Header().Set("ETag", tag)
			w.Header().Set("Cache-Control", cache)
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			w.Header().Set("Content-Type", typeCheckpoint)
		}
		answer(w, r, o, msg, err)
	})
}

func (t *Tree) tile(o HandlerOptions, cache string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := log.ParseTilePath(strings.TrimPrefix(r.URL.Path, "/"))
		var data []byte
		if err != nil {
			err = fs.ErrNotExist
		} else if data, err = t.Tile(r.Context(), id); err == nil {
			w.Header().Set("Cache-Control", cache)
			w.Header().Set("Content-Type", typeTile)
		}
		answer(w, r, o, data, err)
	})
}

// answer writes data, or what err means.
func answer(w http.ResponseWriter, r *http.Request, o HandlerOptions, data []byte, err error) {
	if err != nil {
		w.Header().Set("Cache-Control", cacheProblem) // what is missing now may come in a moment
		o.Problem(w, r, err)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		// Whoever went away does not get the rest; there is nobody to tell.
		_, _ = w.Write(data)
	}
}

func plainProblem(w http.ResponseWriter, _ *http.Request, err error) {
	status, detail := http.StatusInternalServerError, "the resource cannot be read; the operator's fsck tells more"
	switch {
	case errors.Is(err, ErrMethod):
		status, detail = http.StatusMethodNotAllowed, err.Error()
	case errors.Is(err, fs.ErrNotExist):
		status, detail = http.StatusNotFound, "the log has no such resource, or not yet: see its checkpoint for its size"
	}
	w.Header().Set("Content-Type", typeProblem)
	w.WriteHeader(status)
	body, err := json.Marshal(map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail})
	if err != nil {
		panic("tiles: problem does not marshal: " + err.Error())
	}
	_, _ = w.Write(body)
}
