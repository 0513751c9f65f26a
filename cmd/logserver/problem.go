package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/index"
	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/pipe-roll/piperoll/log/sequencer"
)

// Errors of HTTP that have no other home.
var (
	errNotFound   = errors.New("not found")
	errMethod     = errors.New("method not allowed")
	errRate       = errors.New("too many requests")
	errOverloaded = errors.New("the server is busy")
	errTimeout    = errors.New("the request ended before its answer")
)

// A problem is an error as HTTP shows it (RFC 9457).
type problem struct {
	Type   string    `json:"type"`
	Title  string    `json:"title"`
	Status int       `json:"status"`
	Detail string    `json:"detail"`         // what was wrong
	Hint   string    `json:"hint,omitempty"` // what to do
	Head   *headJSON `json:"head,omitempty"` // of the stream, for 409

	retryAfter int // seconds
}

const problemPrefix = "urn:piperoll:problem:"

func (p problem) name() string { return strings.TrimPrefix(p.Type, problemPrefix) }

// A kind is a sort of problem.
type kind struct {
	err        error
	name       string
	status     int
	retryAfter int // seconds
	hint       string
}

// What several kinds of problems ask for.
const (
	hintLater  = "send the same request again after the time in Retry-After"
	hintUnsure = "it may or may not be in the log: send the same request again; a signed one is not stored twice"
	hintLess   = "send less in one request"
	hintFormat = "mend the request; its format is in log/FORMAT.md and /openapi.yaml"
)

// kinds is the one map from errors to HTTP. The first that matches counts.
var kinds = []kind{
	{errUnauthenticated, "unauthenticated", http.StatusUnauthorized, 0, "send a valid token; logserver token makes one"},
	{errForbidden, "forbidden", http.StatusForbidden, 0, "it will be refused again: ask the log's administrator who may do this"},
	{errRate, "rate", http.StatusTooManyRequests, 1, hintLater},
	{errOverloaded, "overloaded", http.StatusServiceUnavailable, 1, hintLater},
	{sequencer.ErrBusy, "overloaded", http.StatusServiceUnavailable, 1, hintLater},
	{journal.ErrStale, "overloaded", http.StatusServiceUnavailable, 1, hintLater},
	{sequencer.ErrReadOnly, "read-only", http.StatusServiceUnavailable, 30, hintUnsure + "; if this lasts, its operator has to look"},
	{journal.ErrStopped, "read-only", http.StatusServiceUnavailable, 30, hintUnsure + "; if this lasts, its operator has to look"},
	{errTimeout, "timeout", http.StatusServiceUnavailable, 1, hintUnsure + ", and keep the connection open until its answer"},
	{errTooLarge, "too-large", http.StatusRequestEntityTooLarge, 0, hintLess},
	{journal.ErrTooLarge, "too-large", http.StatusRequestEntityTooLarge, 0, hintLess},
	{errMediaType, "media-type", http.StatusUnsupportedMediaType, 0, "send application/json, or application/x-ndjson for several events, not compressed"},
	{errMethod, "method", http.StatusMethodNotAllowed, 0, "use a method that the header Allow names"},
	{errNotYet, "not-found", http.StatusNotFound, 1, "ask again after the next publication"},
	{errNotFound, "not-found", http.StatusNotFound, 0, "see /openapi.yaml for the paths, and the checkpoint for the size of the log"},
	{journal.ErrErased, "gone", http.StatusGone, 0, "nobody can bring it back; the entry payload.erased says who erased it, and why"},
	{journal.ErrNoKey, "key-missing", http.StatusGone, 0, "the log was restored without its folder journal/keys: its operator may have it in another backup"},
	{journal.ErrNoPayload, "not-found", http.StatusNotFound, 0, "the entry itself has all that there is"},
	{log.ErrOwner, "owner", http.StatusForbidden, 0, "append to a stream of your own"},
	{log.ErrKey, "key", http.StatusForbidden, 0, "sign with a key that is registered for you and not revoked; logserver key add registers one"},
	{log.ErrKeyTaken, "exists", http.StatusConflict, 0, "nothing is to be done if it is registered for you; else make another key"},
	{log.ErrKeyUnknown, "not-found", http.StatusNotFound, 0, "see the entries key.registered and key.revoked"},
	{log.ErrFork, "fork", http.StatusConflict, 0, "go on from the head only if you made it yourself; if not, keep this answer as evidence"},
	{log.ErrGap, "gap", http.StatusConflict, 0, "send the events that follow the head, in order"},
	{sequencer.ErrRetry, "gap", http.StatusConflict, 0, "send the same requests as before, not the same events in others"},
	{log.ErrClosed, "closed", http.StatusConflict, 0, "open another stream"},
	{log.ErrOpen, "gap", http.StatusConflict, 0, "begin a stream with stream.open, once"},
	{log.ErrMigration, "migration", http.StatusConflict, 0, "see log/FORMAT.md, section 6"},
	{log.ErrCommitment, "commitment", http.StatusBadRequest, 0, "commit to payload as its RFC 8785 bytes, to payload_b64 as decoded, with the salt that you send"},
	{sequencer.ErrClock, "clock", http.StatusBadRequest, 0, "set the clock of the machine that made the event"},
	{log.ErrTail, "signature", http.StatusBadRequest, 0, "sign the last event of the request with a key of its stream (log/FORMAT.md, section 3)"},
	{log.ErrSignature, "signature", http.StatusBadRequest, 0, "sign exactly the text of log/FORMAT.md, section 3, with the key that sig names"},
	{log.ErrVersion, "version", http.StatusBadRequest, 0, "send version 1"},
	{index.ErrQuery, "malformed", http.StatusBadRequest, 0, hintFormat},
	{log.ErrMalformed, "malformed", http.StatusBadRequest, 0, hintFormat},
}

// problemOf turns an error into a problem. What is ours, and not the client's, keeps its text to our log.
func problemOf(err error) problem {
	for _, k := range kinds {
		if !errors.Is(err, k.err) {
			continue
		}
		p := problem{
			Type: problemPrefix + k.name, Title: k.err.Error(), Status: k.status,
			Detail: err.Error(), Hint: k.hint, retryAfter: k.retryAfter,
		}
		if k.status >= http.StatusInternalServerError {
			p.Detail = p.Title
		}
		var head *sequencer.HeadError
		if k.status == http.StatusConflict && errors.As(err, &head) {
			p.Head = headOf(head.Head)
		}
		return p
	}
	return problem{
		Type: problemPrefix + "internal", Title: "internal error", Status: http.StatusInternalServerError,
		Detail: "the server could not do it, and has logged why", Hint: hintUnsure,
	}
}

// fail answers with a problem. It always answers: an answer that nobody writes is a 200, and that means "in the log".
func (s *site) fail(w http.ResponseWriter, r *http.Request, err error) {
	s.write(w, r, s.note(r, err))
}

// note counts and logs a problem.
func (s *site) note(r *http.Request, err error) problem {
	p := problemOf(err)
	s.metrics.refused(p.Type)
	s.trail.count(p)
	if p.Status == http.StatusInternalServerError {
		s.logger.ErrorContext(r.Context(), "request failed", "route", r.Pattern, "err", err)
	} else {
		s.logger.DebugContext(r.Context(), "request refused", "route", r.Pattern, "err", err)
	}
	return p
}

func (s *site) write(w http.ResponseWriter, r *http.Request, p problem) {
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
