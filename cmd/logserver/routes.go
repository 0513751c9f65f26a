package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/log/tiles"
	"golang.org/x/time/rate"
)

// A site serves one log over HTTP.
type site struct {
	ledger  *ledger
	limits  Limits
	logger  *slog.Logger
	metrics *metrics
	trail   *trail

	mu    sync.Mutex
	rates map[string]*rate.Limiter // by principal; bounded by ratesMax
}

// ratesMax bounds the principals whose rate is remembered.
const ratesMax = 10_000

// A route is a method and a path, and what serves them. They are all in docs/api/openapi.yaml.
type route struct {
	method, path string
	handler      http.Handler
}

// table is the whole API of a log: every path, and what one must be allowed to do to use it.
func (s *site) table() []route {
	static := s.ledger.tree.Handler(s.staticOptions())
	return []route{
		{"GET", "/checkpoint", static},
		{"GET", "/checkpoint/signed", static},
		{"GET", "/checkpoint/{size}", static},
		{"GET", "/tile/{path...}", static},

		{"POST", "/v1/events", s.allow(s.submit, permAppend, permAppendUnsigned)}, // which one is for the body to say
		{"GET", "/v1/events", s.allow(s.search, permRead)},
		{"GET", "/v1/events/{hash}", s.allow(s.eventByHash, permRead)},
		{"GET", "/v1/entries/{index}", s.allow(s.entryByIndex, permRead)},
		{"GET", "/v1/payloads/{index}", s.allow(s.payload, permPayloadRead)},
		{"DELETE", "/v1/payloads/{index}", s.allow(s.erase, permPayloadErase)},
		{"GET", "/v1/proofs/inclusion/{index}", s.allow(s.inclusion, permRead)},
		{"GET", "/v1/proofs/inclusion/{index}/{size}", s.allow(s.inclusion, permRead)},
		{"GET", "/v1/proofs/consistency/{from}/{to}", s.allow(s.consistency, permRead)},
		{"GET", "/v1/proofs/range/{begin}/{end}", s.allow(s.rangeProof, permRead)},
		{"GET", "/v1/proofs/range/{begin}/{end}/{size}", s.allow(s.rangeProof, permRead)},
		{"GET", "/v1/streams/{stream...}", s.allow(s.streamHead, permRead)},
		{"POST", "/v1/access/tokens", s.allow(s.createToken, permAdmin)},
		{"DELETE", "/v1/access/tokens/{id}", s.allow(s.revokeToken, permAdmin)},
		{"POST", "/v1/keys", s.allow(s.registerKey, permAdmin)},
		{"DELETE", "/v1/keys/{id}", s.allow(s.revokeKey, permAdmin)},
	}
}

// routes serves the table of the log, and more.
func (s *site) routes(more ...route) http.Handler {
	mux := http.NewServeMux()
	for _, route := range append(s.table(), more...) {
		mux.Handle(route.method+" "+route.path, route.handler)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		allowed := methodsOf(mux, r)
		if len(allowed) == 0 {
			s.fail(w, r, fmt.Errorf("%w: no resource %s", errNotFound, r.URL.Path))
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		s.fail(w, r, fmt.Errorf("%w: %s takes %s", errMethod, r.URL.Path, strings.Join(allowed, ", ")))
	})
	return s.watch(mux)
}

// methodsOf says with which methods the path of a request would find a route.
func methodsOf(mux *http.ServeMux, r *http.Request) (methods []string) {
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
		other := r.WithContext(r.Context())
		other.Method = method
		if _, pattern := mux.Handler(other); pattern != "/" {
			methods = append(methods, method)
		}
	}
	return methods
}

// An answering response writer knows what it answered.
type answering struct {
	http.ResponseWriter
	status int // 0 until there is one
}

func (a *answering) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answering) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// watch counts and times what h answers, and answers for it if it panics.
func (s *site) watch(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		a := &answering{ResponseWriter: w}
		defer func() {
			cut := recover()
			if cut != nil && cut != http.ErrAbortHandler {
				p := s.note(r, fmt.Errorf("panic: %v\n%s", cut, debug.Stack()))
				if a.status == 0 {
					s.write(a, r, p)
					cut = nil
				}
			}
			s.metrics.served(r.Pattern, a.status, time.Since(start))
			if cut != nil {
				panic(http.ErrAbortHandler) // the answer has begun: the client must see that it has no end
			}
		}()
		h.ServeHTTP(a, r)
	})
}

type handler func(w http.ResponseWriter, r *http.Request, by principal) error

// allow runs h for principals that have one of the permissions, within their rate and the time for a request, and
// turns its error into a response.
func (s *site) allow(h handler, oneOf ...permission) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), s.limits.RequestTimeout)
		defer cancel()
		err := s.attend(w, r.WithContext(ctx), h, oneOf)
		if err == nil {
			return
		}
		// Also a client that has closed only its half of the connection ends the context, and waits for an answer.
		if cause := ctx.Err(); cause != nil && errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", errTimeout, err)
		}
		s.fail(w, r, err)
	})
}

// attend looks at permissions before the handler reads a body, and logs what it refuses to a principal.
func (s *site) attend(w http.ResponseWriter, r *http.Request, h handler, oneOf []permission) error {
	by, err := s.ledger.access.authenticate(r.Header.Get("Authorization"))
	if err != nil {
		return err
	}
	if err := s.withinRate(by.name); err != nil {
		return err
	}
	if err = by.may(oneOf...); err == nil {
		err = h(w, r, by)
	}
	if err != nil {
		s.refuse(r, by, err)
	}
	return err
}

// loggedProblems are the refusals that become entries of their own: authenticated 403 and forks. Others are counted:
// whoever can reach the server could fill the log with them.
var loggedProblems = []string{"forbidden", "owner", "key", "fork"}

// refusalWait bounds how long an answer waits for the entry of its refusal.
const refusalWait = 5 * time.Second

// refuse logs a refusal, if it is of a kind that is. The answer comes after the entry is durable: who was refused can
// look for it. An entry that fails does not change the answer; it is counted into the next.
func (s *site) refuse(r *http.Request, by principal, err error) {
	reason := problemOf(err).name()
	if !slices.Contains(loggedProblems, reason) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), refusalWait)
	defer cancel()
	s.trail.refused(ctx, by, refusalKey{by: by.name, reason: reason, route: routeName(r)}, bodyText(r))
}

// routeName names a route in an entry: method and pattern, as a name.
func routeName(r *http.Request) string {
	method, path, ok := strings.Cut(r.Pattern, " ")
	if !ok { // of the static handler's own paths, which are for GET and HEAD
		method, path = http.MethodGet, r.Pattern
	}
	return strings.ToLower(method) + ":" + strings.NewReplacer("{", "", "}", "").Replace(path)
}

func (s *site) staticOptions() tiles.HandlerOptions {
	o := tiles.HandlerOptions{Problem: func(w http.ResponseWriter, r *http.Request, err error) {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: the log has no such resource, or not yet", errNotFound)
		}
		s.fail(w, r, err)
	}}
	if !s.ledger.c.PublicEntries {
		o.Entries = s.guardEntries
	}
	return o
}

// guardEntries lets entry bundles be read by those with log:read, if they are
// not public: they hold who did what.
func (s *site) guardEntries(h http.Handler) http.Handler {
	return s.allow(func(w http.ResponseWriter, r *http.Request, by principal) error {
		s.trail.read(by)
		h.ServeHTTP(w, r)
		return nil
	}, permRead)
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
