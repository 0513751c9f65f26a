package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/pipe-roll/piperoll/log/sequencer"
	"github.com/pipe-roll/piperoll/log/tiles"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

// A site serves one log over HTTP.
type site struct {
	ledger  *ledger
	limits  Limits
	logger  *slog.Logger
	metrics *metrics
	bodies  *semaphore.Weighted // bytes of bodies, shared by all logs
	trail   *trail

	mu    sync.Mutex
	rates map[string]*rate.Limiter // by principal; bounded by ratesMax
}

// ratesMax bounds the principals whose rate is remembered.
const ratesMax = 10_000

// routes is the whole API of a log: every path, and what one must be allowed
// to do to use it. A permission of "" is for everyone with a token whose
// handler decides by itself.
func (s *site) routes() http.Handler {
	mux := http.NewServeMux()
	static := s.ledger.tree.Handler(s.staticOptions())
	mux.Handle("GET /checkpoint", static)
	mux.Handle("GET /checkpoint/", static)
	mux.Handle("GET /tile/", static)

	mux.Handle("POST /v1/events", s.allow("", s.submit))
	mux.Handle("GET /v1/events", s.allow(permRead, s.search))
	mux.Handle("GET /v1/events/{hash}", s.allow(permRead, s.eventByHash))
	mux.Handle("GET /v1/entries/{index}", s.allow(permRead, s.entryByIndex))
	mux.Handle("GET /v1/payloads/{index}", s.allow(permPayloadRead, s.payload))
	mux.Handle("DELETE /v1/payloads/{index}", s.allow(permPayloadErase, s.erase))
	mux.Handle("GET /v1/proofs/inclusion/{index}", s.allow(permRead, s.inclusion))
	mux.Handle("GET /v1/proofs/inclusion/{index}/{size}", s.allow(permRead, s.inclusion))
	mux.Handle("GET /v1/proofs/consistency/{from}/{to}", s.allow(permRead, s.consistency))
	mux.Handle("GET /v1/proofs/range/{begin}/{end}", s.allow(permRead, s.rangeProof))
	mux.Handle("GET /v1/proofs/range/{begin}/{end}/{size}", s.allow(permRead, s.rangeProof))
	mux.Handle("GET /v1/streams/{stream...}", s.allow(permRead, s.streamHead))
	mux.Handle("POST /v1/access/tokens", s.allow(permAdmin, s.createToken))
	mux.Handle("DELETE /v1/access/tokens/{id}", s.allow(permAdmin, s.revokeToken))
	mux.Handle("POST /v1/keys", s.allow(permAdmin, s.registerKey))
	mux.Handle("DELETE /v1/keys/{id}", s.allow(permAdmin, s.revokeKey))
	mux.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, fmt.Errorf("%w: no resource %s %s; see /openapi.yaml", errNotFound, r.Method, r.URL.Path))
	}))
	return mux
}

type handler func(w http.ResponseWriter, r *http.Request, by principal) error

// allow runs h for principals that have the permission, within their rate,
// and turns its error into a response.
func (s *site) allow(need permission, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		by, err := s.ledger.access.authenticate(r.Header.Get("Authorization"))
		if err == nil {
			err = s.withinRate(by.name)
		}
		if err == nil && need != "" {
			if err = by.may(need); err != nil {
				err = s.refuse(r, by, nil, err)
			}
		}
		if err == nil {
			err = h(w, r, by)
		}
		if err != nil {
			s.fail(w, r, err)
		}
		s.metrics.served(r.Pattern, time.Since(start))
	})
}

func (s *site) staticOptions() tiles.HandlerOptions {
	if s.ledger.c.PublicEntries {
		return tiles.HandlerOptions{}
	}
	return tiles.HandlerOptions{Entries: s.guardEntries}
}

// guardEntries lets entry bundles be read by those with log:read, if they are
// not public: they hold who did what.
func (s *site) guardEntries(h http.Handler) http.Handler {
	return s.allow(permRead, func(w http.ResponseWriter, r *http.Request, by principal) error {
		s.trail.read(by)
		h.ServeHTTP(w, r)
		return nil
	})
}

func (s *site) withinRate(name string) error {
	if s.limits.RequestsPerSecond == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.rates[name]
	if l == nil {
		if len(s.rates) >= ratesMax {
			clear(s.rates) // everyone begins with a full bucket: bounded beats exact
		}
		l = rate.NewLimiter(rate.Limit(s.limits.RequestsPerSecond), max(1, s.limits.Burst))
		s.rates[name] = l
	}
	if !l.Allow() {
		return fmt.Errorf("%w: %q may send %g requests a second", errRate, name, s.limits.RequestsPerSecond)
	}
	return nil
}

// Errors of HTTP that have no other home.
var (
	errNotFound   = errors.New("not found")
	errRate       = errors.New("too many requests")
	errOverloaded = errors.New("the server is busy")
)

// A problem is an error as HTTP shows it (RFC 9457).
type problem struct {
	Type   string    `json:"type"`
	Title  string    `json:"title"`
	Status int       `json:"status"`
	Detail string    `json:"detail"`
	Head   *headJSON `json:"head,omitempty"` // of the stream, for 409

	retryAfter int // seconds
}

// kinds is the one map from errors to HTTP. The first that matches counts.
var kinds = []struct {
	err        error
	name       string
	status     int
	retryAfter int
}{
	{errUnauthenticated, "unauthenticated", http.StatusUnauthorized, 0},
	{errForbidden, "forbidden", http.StatusForbidden, 0},
	{errRate, "rate", http.StatusTooManyRequests, 1},
	{errOverloaded, "overloaded", http.StatusServiceUnavailable, 1},
	{sequencer.ErrBusy, "overloaded", http.StatusServiceUnavailable, 1},
	{sequencer.ErrReadOnly, "read-only", http.StatusServiceUnavailable, 30},
	{journal.ErrStopped, "read-only", http.StatusServiceUnavailable, 30},
	{errTooLarge, "too-large", http.StatusRequestEntityTooLarge, 0},
	{errMediaType, "media-type", http.StatusUnsupportedMediaType, 0},
	{errNotYet, "not-found", http.StatusNotFound, 1},
	{errNotFound, "not-found", http.StatusNotFound, 0},
	{journal.ErrErased, "gone", http.StatusGone, 0},
	{journal.ErrNoPayload, "not-found", http.StatusNotFound, 0},
	{log.ErrOwner, "owner", http.StatusForbidden, 0},
	{log.ErrKey, "key", http.StatusForbidden, 0},
	{log.ErrFork, "fork", http.StatusConflict, 0},
	{log.ErrGap, "gap", http.StatusConflict, 0},
	{sequencer.ErrRetry, "gap", http.StatusConflict, 0},
	{log.ErrClosed, "closed", http.StatusConflict, 0},
	{log.ErrOpen, "gap", http.StatusConflict, 0},
	{log.ErrMigration, "migration", http.StatusConflict, 0},
	{log.ErrCommitment, "commitment", http.StatusBadRequest, 0},
	{sequencer.ErrClock, "clock", http.StatusBadRequest, 0},
	{log.ErrTail, "signature", http.StatusBadRequest, 0},
	{log.ErrSignature, "signature", http.StatusBadRequest, 0},
	{log.ErrVersion, "version", http.StatusBadRequest, 0},
	{log.ErrMalformed, "malformed", http.StatusBadRequest, 0},
}

// problemOf turns an error into a problem. What is not in the map is ours:
// its text stays in our log.
func problemOf(err error) problem {
	for _, k := range kinds {
		if !errors.Is(err, k.err) {
			continue
		}
		p := problem{
			Type: "urn:piperoll:problem:" + k.name, Title: k.err.Error(), Status: k.status,
			Detail: err.Error(), retryAfter: k.retryAfter,
		}
		var head *sequencer.HeadError
		if k.status == http.StatusConflict && errors.As(err, &head) {
			p.Head = headOf(head.Head)
		}
		return p
	}
	return problem{
		Type: "urn:piperoll:problem:internal", Title: "internal error", Status: http.StatusInternalServerError,
		Detail: "the server could not do it, and has logged why; nothing was committed",
	}
}

// fail answers with a problem.
func (s *site) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		s.logger.InfoContext(r.Context(), "request abandoned", "route", r.Pattern)
		return
	}
	p := problemOf(err)
	s.metrics.refused(p.Type)
	if p.Status == http.StatusInternalServerError {
		s.logger.ErrorContext(r.Context(), "request failed", "route", r.Pattern, "err", err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	if p.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="piperoll"`)
	}
	w.WriteHeader(p.Status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		s.logger.DebugContext(r.Context(), "answer was cut short", "err", err)
	}
}

// rawJSON is JSON that is written as it is.
type rawJSON = json.RawMessage

func writeJSON(w http.ResponseWriter, code int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, err = w.Write(append(b, '\n'))
	return ignoreWrite(err)
}

// ignoreWrite drops the error of an answer that the client did not wait for:
// the header is out, and nothing is left to be said to it.
func ignoreWrite(error) error { return nil }

// limitBodies bounds every body, and the bytes of all bodies together.
func limitBodies(h http.Handler, limits Limits, bodies *semaphore.Weighted, fail func(http.ResponseWriter, *http.Request, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := r.ContentLength
		switch {
		case n == 0:
			h.ServeHTTP(w, r)
			return
		case n > limits.BodyBytes:
			fail(w, r, fmt.Errorf("%w: body of %d bytes, at most %d", errTooLarge, n, limits.BodyBytes))
			return
		case n < 0:
			n = limits.BodyBytes // chunked: it may become that much
		}
		if !bodies.TryAcquire(n) {
			fail(w, r, fmt.Errorf("%w: too many bodies at once", errOverloaded))
			return
		}
		defer bodies.Release(n)
		r.Body = http.MaxBytesReader(w, r.Body, limits.BodyBytes)
		h.ServeHTTP(w, r)
	})
}

// readBody reads a body that limitBodies has bounded.
func readBody(r *http.Request) ([]byte, error) {
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return nil, fmt.Errorf("%w: Content-Encoding %q; send it as it is", errMediaType, enc)
	}
	b := make([]byte, 0, max(512, r.ContentLength))
	for {
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		var tooLarge *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			return b, nil
		case errors.As(err, &tooLarge):
			return nil, fmt.Errorf("%w: body of more than %d bytes", errTooLarge, tooLarge.Limit)
		case err != nil:
			return nil, fmt.Errorf("%w body: it was cut short: %w", log.ErrMalformed, err)
		}
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
}

// waitMax bounds Prefer: wait.
const waitMax = 30 * time.Second

// preferredWait reads "Prefer: wait=SECONDS" (RFC 7240); 0 if there is none.
func preferredWait(r *http.Request) time.Duration {
	for _, v := range r.Header.Values("Prefer") {
		for pref := range strings.SplitSeq(v, ",") {
			text, ok := strings.CutPrefix(strings.TrimSpace(pref), "wait=")
			if n, err := strconv.Atoi(text); ok && err == nil && n > 0 {
				return min(time.Duration(n)*time.Second, waitMax)
			}
		}
	}
	return 0
}
