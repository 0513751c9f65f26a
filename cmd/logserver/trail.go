package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/sequencer"
)

// A trail records what was refused and what was read. Repeats are counted and
// become one entry per window, so that nobody can flood the log through it.
// A count leaves the trail when its entry is durable, not before, or when it
// cannot be known whether it is; then the server's log says so.
type trail struct {
	record func(context.Context, serverEvent) (sequencer.Result, error) // durable when it returns
	logger *slog.Logger

	mu        sync.Mutex
	refusals  map[refusalKey]refusal // guarded by mu, as all below
	reads     map[whoReads]reads
	problems  map[string]uint64 // by name: refusals that are not entries of their own
	uncounted uint64            // refusals and reads whose key did not fit any more
}

type refusalKey struct{ by, reason, route string }

// A refusal is what a window counts after its first entry, with the request of the last one.
type refusal struct {
	count   uint64
	auth    string
	request log.Hash // commitment
	salt    [32]byte // of request
}

type whoReads struct {
	by      string
	follows bool
}

type reads struct {
	count uint64
	auth  string // of the last one
}

const (
	trailWindow   = time.Minute
	followWindows = 60              // of those who follow the log all day, one entry for so many windows
	trailMax      = 10_000          // keys in a window
	trailMost     = 5 * time.Second // to write a window: for so long it can hold up a stop
)

// followerRoles read everything, always.
var followerRoles = []string{"witness", "monitor"}

func newTrail(record func(context.Context, serverEvent) (sequencer.Result, error), logger *slog.Logger) *trail {
	return &trail{
		record: record, logger: logger,
		refusals: make(map[refusalKey]refusal), reads: make(map[whoReads]reads), problems: make(map[string]uint64),
	}
}

// refused logs a refusal with a commitment to what was read of the request's
// body. The first of a window is an entry, durable when refused returns; those
// after it are counted, and so is a first one whose entry failed for certain.
func (t *trail) refused(ctx context.Context, by principal, key refusalKey, body []byte) {
	p := newPayload(body)
	one := refusal{count: 1, auth: by.auth, request: log.Commit(*p, "application/octet-stream"), salt: p.Salt}
	if t.isFirst(key) {
		_, err := t.record(ctx, key.event(one))
		switch {
		case err == nil:
			return
		case unsure(ctx, err):
			t.logger.WarnContext(ctx, "refusal may be logged or not, and is not counted", "reason", key.reason, "err", err)
			return
		}
		t.logger.WarnContext(ctx, "refusal was not logged, and is counted", "reason", key.reason, "err", err)
	}
	t.addRefusal(key, one)
}

// unsure says that the wait for an entry ended before its outcome was known. It may be in the log: counted again, it
// could be there twice.
func unsure(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, ctx.Err())
}

func (t *trail) isFirst(key refusalKey) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, seen := t.refusals[key]; seen || len(t.refusals) >= trailMax {
		return false
	}
	t.refusals[key] = refusal{}
	return true
}

func (t *trail) addRefusal(key refusalKey, more refusal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, ok := t.refusals[key]
	if !ok && len(t.refusals) >= trailMax {
		t.uncounted += more.count
		return
	}
	more.count += old.count
	t.refusals[key] = more
}

func (k refusalKey) event(v refusal) serverEvent {
	p := log.Refused{Count: v.count, Reason: k.reason, Request: v.request, Route: k.route, Salt: v.salt}
	return serverEvent{
		kind: "log.refused", stream: streamRefusals, by: k.by, auth: v.auth,
		objects: []log.Object{{Name: k.reason, Role: "reason"}, {Name: k.route, Role: "route"}},
		payload: p.Marshal(),
	}
}

// count counts a problem for the summary of those that are no entries of their
// own: who is not authenticated, malformed or too large requests, too many,
// and what was our fault.
func (t *trail) count(p problem) {
	switch p.Status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusTooManyRequests:
	default:
		if p.Status < http.StatusInternalServerError {
			return
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.problems[p.name()]++
}

// read counts a read of entries.
func (t *trail) read(by principal) {
	t.addReads(whoReads{by.name, slices.Contains(followerRoles, by.role)}, reads{1, by.auth})
}

func (t *trail) addReads(k whoReads, more reads) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, ok := t.reads[k]
	if !ok && len(t.reads) >= trailMax {
		t.uncounted += more.count
		return
	}
	more.count += old.count
	t.reads[k] = more
}

// run writes what each window counted, until ctx is done; then all that there
// is. The end of ctx cuts no entry off that is on its way to the disk.
func (t *trail) run(ctx context.Context) error {
	tick := time.NewTicker(trailWindow)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
			if left, err := t.flush(ctx, n%followWindows == 0); err != nil {
				t.logger.WarnContext(ctx, "trail was not logged, and is kept for the next window", "requests", left, "err", err)
			}
		case <-ctx.Done():
			if left, err := t.flush(ctx, true); err != nil {
				t.logger.ErrorContext(ctx, "trail was lost", "requests", left, "err", err)
			}
			return nil
		}
	}
}

// A summary is the entry of some counts, and the way back for them.
type summary struct {
	event    serverEvent
	requests uint64
	back     func()
}

// flush writes the counts of a window as entries and begins a new one, within
// trailMost. With the first error it stops, and everything not written is
// counted again; it returns for how many requests that stands.
func (t *trail) flush(ctx context.Context, followers bool) (left uint64, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), trailMost)
	defer cancel()
	for _, s := range t.take(followers) {
		if err == nil {
			if _, err = t.record(ctx, s.event); err != nil && unsure(ctx, err) {
				t.logger.WarnContext(ctx, "part of the trail may be logged or not, and is not counted again", "requests", s.requests, "err", err)
				continue
			}
		}
		if err != nil {
			left += s.requests
			s.back()
		}
	}
	return left, err
}

// take begins a new window. Followers' reads stay, unless they are due.
func (t *trail) take(followers bool) []summary {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []summary
	for k, v := range t.refusals {
		if v.count > 0 {
			all = append(all, summary{k.event(v), v.count, func() { t.addRefusal(k, v) }})
		}
	}
	clear(t.refusals)
	for k, v := range t.reads {
		if k.follows && !followers {
			continue
		}
		all = append(all, summary{k.event(v), v.count, func() { t.addReads(k, v) }})
		delete(t.reads, k)
	}
	if len(t.problems) > 0 || t.uncounted > 0 {
		all = append(all, t.takeProblems())
	}
	return all
}

func (k whoReads) event(v reads) serverEvent {
	return serverEvent{
		kind: "access.summary", stream: streamReads, by: k.by, auth: v.auth,
		objects: []log.Object{{Name: strconv.FormatUint(v.count, 10), Role: "reads"}},
	}
}

func (t *trail) takeProblems() summary {
	problems, uncounted := t.problems, t.uncounted
	t.problems, t.uncounted = make(map[string]uint64), 0
	s := summary{requests: uncounted}
	s.event = serverEvent{kind: "log.refused.summary", stream: streamRefusals, by: "log", auth: "log"}
	add := func(role string, count uint64) {
		s.event.objects = append(s.event.objects, log.Object{Name: strconv.FormatUint(count, 10), Role: role})
	}
	for _, name := range slices.Sorted(maps.Keys(problems)) {
		add(name, problems[name])
		s.requests += problems[name]
	}
	if uncounted > 0 {
		add("uncounted", uncounted)
	}
	s.back = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.uncounted += uncounted
		for name, n := range problems {
			t.problems[name] += n
		}
	}
	return s
}

// readPayload records that a principal reads a payload, if it still may. The
// payload is given out only after this entry is durable.
func (l *ledger) readPayload(ctx context.Context, by principal, index uint64) error {
	_, err := l.recordFor(ctx, by, permPayloadRead, serverEvent{
		kind: "access.read", stream: streamReads,
		objects: []log.Object{{Name: strconv.FormatUint(index, 10), Role: "payload"}},
	})
	if err != nil {
		return fmt.Errorf("record the access before allowing it: %w", err)
	}
	return nil
}
