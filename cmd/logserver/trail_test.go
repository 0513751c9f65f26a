package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/sequencer"
)

// A recorder is a log that keeps what a trail writes, or refuses it, or is slow to sync it.
type recorder struct {
	logged lockedBuffer

	mu      sync.Mutex
	entries []string      // guarded by mu: kind, by, and objects or count
	fail    error         // guarded by mu
	syncing chan struct{} // guarded by mu: if not nil, what is placed gets durable when it is closed
}

func (c *recorder) failWith(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = err
}

// hold makes syncs take until release is called.
func (c *recorder) hold() (release func()) {
	held := make(chan struct{})
	hold := func(s chan struct{}) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.syncing = s
	}
	hold(held)
	return func() { hold(nil); close(held) }
}

func (c *recorder) record(ctx context.Context, e serverEvent) (sequencer.Result, error) {
	syncing, err := c.place(ctx, e)
	if err != nil || syncing == nil {
		return sequencer.Result{}, err
	}
	select {
	case <-syncing:
		return sequencer.Result{}, nil
	case <-ctx.Done():
		return sequencer.Result{}, ctx.Err() // and the entry is on its way all the same
	}
}

func (c *recorder) place(ctx context.Context, e serverEvent) (syncing chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(ctx.Err(), c.fail); err != nil {
		return nil, err
	}
	event, _ := e.event()
	event.Log, event.Seq = testOrigin, 1
	if err := event.Validate(); err != nil || log.ClassOf(e.kind) != log.Server {
		return nil, fmt.Errorf("not a server's event: %s, %w", e.kind, err)
	}
	text := e.kind + " " + e.by
	for _, o := range e.objects {
		text += " " + o.Role + "=" + o.Name
	}
	if e.kind == "log.refused" {
		p, err := log.ParseRefused(e.payload)
		if err != nil {
			return nil, err
		}
		text += fmt.Sprint(" count=", p.Count)
	}
	c.entries = append(c.entries, text)
	return c.syncing, nil
}

// wrote gives the entries since it was asked last, sorted.
func (c *recorder) wrote() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Sorted(slices.Values(c.entries))
	c.entries = nil
	return all
}

// trailOf runs a trail in a bubble of its own; stop ends it.
func trailOf(t *testing.T, story func(c *recorder, tr *trail, stop func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &recorder{}
		tr := newTrail(c.record, slog.New(slog.NewTextHandler(&c.logged, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tr.run(ctx) }()
		time.Sleep(time.Second) // windows end between the seconds of the story
		story(c, tr, func() {
			cancel()
			must(t, <-done)
		})
	})
}

func nextWindow() {
	time.Sleep(trailWindow)
	synctest.Wait()
}

var (
	crmByKey  = refusalKey{by: "crm", reason: "key", route: "post:/v1/events"}
	crmEntry  = "log.refused crm reason=key route=post:/v1/events count=%d"
	crmPerson = principal{name: "crm", auth: "token:a", role: "migration-service"}
)

func wantEntries(t *testing.T, when string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: entries %q, want %q", when, got, want)
	}
}

func TestAWindowOfRefusalsIsTwoEntries(t *testing.T) {
	trailOf(t, func(c *recorder, tr *trail, stop func()) {
		for range 5 {
			tr.refused(t.Context(), crmPerson, crmByKey, []byte("{}"))
		}
		other := crmPerson
		other.auth = "token:b" // another token is not another principal
		tr.refused(t.Context(), other, crmByKey, nil)
		wantEntries(t, "at once", c.wrote(), fmt.Sprintf(crmEntry, 1))
		nextWindow()
		wantEntries(t, "after a window", c.wrote(), fmt.Sprintf(crmEntry, 5))
		nextWindow()
		wantEntries(t, "after a quiet window", c.wrote())
		tr.refused(t.Context(), crmPerson, crmByKey, nil)
		wantEntries(t, "in a new window", c.wrote(), fmt.Sprintf(crmEntry, 1))
		stop()
		wantEntries(t, "at the end", c.wrote())
	})
}

func TestRefusalsWithoutAnEntryAreInASummary(t *testing.T) {
	trailOf(t, func(c *recorder, tr *trail, stop func()) {
		for name, status := range map[string]int{
			"unauthenticated": 401, "malformed": 400, "too-large": 413, "rate": 429, "read-only": 503, "internal": 500,
			"not-found": 404, "gone": 410, "gap": 409, "forbidden": 403, "fork": 409, // these are none, or have entries
		} {
			tr.count(problem{Type: problemPrefix + name, Status: status})
			tr.count(problem{Type: problemPrefix + name, Status: status})
		}
		nextWindow()
		wantEntries(t, "after a window", c.wrote(), "log.refused.summary log internal=2 malformed=2 rate=2 read-only=2 too-large=2 unauthenticated=2")
		stop()
		wantEntries(t, "at the end", c.wrote())
	})
}

func TestReadsAreOneEntryPerPrincipalAndMinuteAndOnePerHourForFollowers(t *testing.T) {
	trailOf(t, func(c *recorder, tr *trail, stop func()) {
		read := func(name, token, role string) { tr.read(principal{name: name, auth: token, role: role}) }
		for range 60 {
			read("ann", "token:1", "auditor")
			read("ann", "token:2", "auditor")
			read("mon", "token:3", "monitor")
			read("wit", "token:4", "witness")
			nextWindow()
		}
		want := slices.Repeat([]string{"access.summary ann reads=2"}, 60)
		wantEntries(t, "after an hour", c.wrote(), append(want, "access.summary mon reads=60", "access.summary wit reads=60")...)
		read("mon", "token:3", "monitor")
		nextWindow()
		wantEntries(t, "a minute later", c.wrote())
		stop()
		wantEntries(t, "at the end", c.wrote(), "access.summary mon reads=1")
	})
}

func TestCountsStayUntilTheirEntriesAreDurable(t *testing.T) {
	trailOf(t, func(c *recorder, tr *trail, stop func()) {
		c.failWith(sequencer.ErrBusy)
		tr.refused(t.Context(), crmPerson, crmByKey, nil) // the first one, too
		tr.refused(t.Context(), crmPerson, crmByKey, nil)
		tr.read(crmPerson)
		tr.read(principal{name: "mon", role: "monitor"})
		tr.count(problem{Type: problemPrefix + "rate", Status: http.StatusTooManyRequests})
		nextWindow()
		tr.refused(t.Context(), crmPerson, crmByKey, nil)
		tr.read(crmPerson)
		nextWindow()
		wantEntries(t, "while the log is busy", c.wrote())
		c.failWith(nil)
		nextWindow()
		wantEntries(t, "when it is not", c.wrote(), "access.summary crm reads=2", fmt.Sprintf(crmEntry, 3), "log.refused.summary log rate=1")
		c.failWith(sequencer.ErrReadOnly)
		tr.read(crmPerson)
		stop()
		if text := c.logged.String(); !strings.Contains(text, "trail was lost") || !strings.Contains(text, "requests=2") {
			t.Errorf("two reads were lost at the end, and the server's log says %q", text)
		}
	})
}

func TestAnEntryOnItsWayToTheDiskIsNotCountedAgain(t *testing.T) {
	trailOf(t, func(c *recorder, tr *trail, stop func()) {
		release := c.hold()
		ctx, cancel := context.WithTimeout(context.Background(), refusalWait)
		defer cancel()
		tr.refused(ctx, crmPerson, crmByKey, nil)
		release()
		nextWindow()
		wantEntries(t, "of a refusal whose answer did not wait", c.wrote(), fmt.Sprintf(crmEntry, 1))

		tr.read(principal{name: "ann"})
		tr.read(principal{name: "bob"})
		release = c.hold()
		nextWindow()
		time.Sleep(trailMost)
		release()
		nextWindow()
		wantEntries(t, "of reads while the disk was slow", c.wrote(), "access.summary ann reads=1", "access.summary bob reads=1")
		stop()
		wantEntries(t, "at the end", c.wrote())
	})
}

func TestAStopCutsNoEntryOff(t *testing.T) {
	trailOf(t, func(c *recorder, tr *trail, stop func()) {
		tr.read(crmPerson)
		release := c.hold()
		nextWindow()
		go func() { time.Sleep(time.Second); release() }()
		stop()
		wantEntries(t, "at the end", c.wrote(), "access.summary crm reads=1")
	})
}

func TestTheTrailIsBoundedAndSaysWhatItDidNotCount(t *testing.T) {
	trailOf(t, func(c *recorder, tr *trail, stop func()) {
		for i := range trailMax + 7 {
			tr.read(principal{name: fmt.Sprint("p", i)})
		}
		nextWindow()
		if got := c.wrote(); len(got) != trailMax+1 || got[len(got)-1] != "log.refused.summary log uncounted=7" {
			t.Errorf("%d entries, the last is %q", len(got), got[len(got)-1])
		}
		stop()
	})
}

func TestARefusalCommitsToTheWholeRequest(t *testing.T) {
	var payload []byte
	tr := newTrail(func(_ context.Context, e serverEvent) (sequencer.Result, error) {
		payload = e.payload
		return sequencer.Result{}, nil
	}, slog.New(slog.DiscardHandler))
	request := bytes.Repeat([]byte("x"), 1<<20)
	tr.refused(t.Context(), crmPerson, crmByKey, request)
	p, err := log.ParseRefused(payload)
	must(t, err)
	if p.Request != log.Commit(log.Payload{Salt: p.Salt, Bytes: request}, "application/octet-stream") {
		t.Error("the commitment is not to the request's body")
	}
}
