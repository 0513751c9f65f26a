package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// A trail records what was refused and what was read. Repeats are counted and
// become one entry per window, so that nobody can flood the log through it.
type trail struct {
	ledger *ledger
	logger *slog.Logger

	mu       sync.Mutex
	refusals map[refusalKey]*refusal
	reads    map[whoReads]uint64
	dropped  uint64 // that no longer fitted: counted, in the next summary
}

type refusalKey struct{ by, auth, reason, route string }

// A refusal is what a window counts after its first entry.
type refusal struct {
	count uint64
	body  []byte // of the last one, for its commitment; bounded by refusalBodyMax
}

type whoReads struct{ by, auth string }

const (
	trailWindow    = time.Minute
	trailMax       = 10_000 // keys in a window
	refusalBodyMax = 64 << 10
)

func newTrail(l *ledger, logger *slog.Logger) *trail {
	return &trail{ledger: l, logger: logger, refusals: make(map[refusalKey]*refusal), reads: make(map[whoReads]uint64)}
}

// loggedProblems are the refusals that become entries: authenticated 403 and
// forks. Malformed input, 413, 429 and 5xx are metrics only: whoever can reach
// the server could fill the log with them.
var loggedProblems = []string{"forbidden", "owner", "key", "fork"}

// refuse logs a refusal, if it is of a kind that is, and gives the error back.
func (s *site) refuse(r *http.Request, by principal, body []byte, err error) error {
	reason := strings.TrimPrefix(problemOf(err).Type, "urn:piperoll:problem:")
	if !slices.Contains(loggedProblems, reason) {
		return err
	}
	key := refusalKey{by: by.name, auth: by.auth, reason: reason, route: routeName(r)}
	// The answer does not wait for this entry: nothing was allowed that would need it.
	if e, ok := s.trail.refused(key, body); ok {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 5*time.Second)
		defer cancel()
		if _, rerr := s.ledger.record(ctx, e); rerr != nil {
			s.logger.WarnContext(ctx, "refusal was not logged", "reason", reason, "err", rerr)
		}
	}
	return err
}

// routeName names a route in an entry: method and pattern, as a name.
func routeName(r *http.Request) string {
	method, path, _ := strings.Cut(r.Pattern, " ")
	return strings.ToLower(method) + ":" + strings.NewReplacer("{", "", "}", "").Replace(path)
}

// refused counts a refusal. The first of a window is an entry at once.
func (t *trail) refused(key refusalKey, body []byte) (serverEvent, bool) {
	body = slices.Clone(body[:min(len(body), refusalBodyMax)])
	t.mu.Lock()
	defer t.mu.Unlock()
	if seen := t.refusals[key]; seen != nil {
		seen.count++
		seen.body = body
		return serverEvent{}, false
	}
	if len(t.refusals) >= trailMax {
		t.dropped++
		return serverEvent{}, false
	}
	t.refusals[key] = &refusal{}
	return key.event(1, body), true
}

func (k refusalKey) event(count uint64, body []byte) serverEvent {
	salt := newPayload(body)
	request := log.Commit(*salt, "application/octet-stream")
	p := log.Refused{Count: count, Reason: k.reason, Request: request, Route: k.route, Salt: salt.Salt}
	return serverEvent{
		kind: "log.refused", stream: streamRefusals, by: k.by, auth: k.auth,
		objects: []log.Object{{Name: k.reason, Role: "reason"}, {Name: k.route, Role: "route"}},
		payload: p.Marshal(),
	}
}

// read counts a read of entries: one access.summary per principal and window.
func (t *trail) read(by principal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := whoReads{by.name, by.auth}
	if _, ok := t.reads[k]; !ok && len(t.reads) >= trailMax {
		t.dropped++
		return
	}
	t.reads[k]++
}

// readPayload records that a principal reads a payload. The payload is given
// out only after this entry is durable.
func (t *trail) readPayload(ctx context.Context, by principal, index uint64) error {
	_, err := t.ledger.record(ctx, serverEvent{
		kind: "access.read", stream: streamReads, by: by.name, auth: by.auth,
		objects: []log.Object{{Name: strconv.FormatUint(index, 10), Role: "payload"}},
	})
	if err != nil {
		return fmt.Errorf("record the access before allowing it: %w", err)
	}
	return nil
}

// run writes what a window counted, until ctx is done; then once more.
func (t *trail) run(ctx context.Context) error {
	tick := time.NewTicker(trailWindow)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			t.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			t.flush(last)
			return nil
		}
	}
}

// flush writes the counts of a window as entries and begins a new one.
func (t *trail) flush(ctx context.Context) {
	t.mu.Lock()
	refusals, reads, dropped := t.refusals, t.reads, t.dropped
	t.refusals, t.reads, t.dropped = make(map[refusalKey]*refusal), make(map[whoReads]uint64), 0
	t.mu.Unlock()

	var events []serverEvent
	for k, v := range refusals {
		if v.count > 0 {
			events = append(events, k.event(v.count, v.body))
		}
	}
	for k, n := range reads {
		events = append(events, serverEvent{
			kind: "access.summary", stream: streamReads, by: k.by, auth: k.auth,
			objects: []log.Object{{Name: strconv.FormatUint(n, 10), Role: "reads"}},
		})
	}
	if dropped > 0 {
		events = append(events, serverEvent{
			kind: "log.refused.summary", stream: streamRefusals, by: "log", auth: "log",
			objects: []log.Object{{Name: strconv.FormatUint(dropped, 10), Role: "uncounted"}},
		})
	}
	var errs []error
	for _, e := range events {
		_, err := t.ledger.record(ctx, e)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		t.logger.WarnContext(ctx, "trail was not logged in full", "events", len(events), "err", err)
	}
}
