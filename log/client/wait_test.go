package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
)

// Wait polls until the log publishes, also when there is nothing at first and
// the network fails in between.
func TestWaitPolls(t *testing.T) {
	f := newFake(nil)
	var polls atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/checkpoint" {
			switch polls.Add(1) {
			case 1:
				http.NotFound(w, r)
				return
			case 2:
				panic(http.ErrAbortHandler)
			case 3:
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
		}
		if strings.HasPrefix(r.URL.Path, "/tile/") {
			switch polls.Add(1) {
			case 5:
				http.NotFound(w, r)
				return
			case 6:
				panic(http.ErrAbortHandler)
			case 7:
				w.WriteHeader(http.StatusBadGateway)
				return
			}
		}
		f.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	f.url = srv.URL
	c := f.client(t)
	if err := c.Wait(t.Context()); err != nil || polls.Load() != 0 {
		t.Errorf("Wait for nothing = %v, %d requests", err, polls.Load())
	}
	if c.Checkpoint() != nil {
		t.Error("there is a checkpoint before the first")
	}
	open(t, c)
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := polls.Load(); got < 8 {
		t.Errorf("%d requests, want all faults met", got)
	}
}

// Faults that waiting does not mend are returned.
func TestWaitFails(t *testing.T) {
	f := newFake(nil)
	status := http.StatusOK
	path := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path != "" && strings.HasPrefix(r.URL.Path, path) {
			w.WriteHeader(status)
			return
		}
		f.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	f.url = srv.URL
	c := f.client(t)
	_, s := open(t, c)
	for _, tc := range []struct {
		path   string
		status int
		want   string
	}{
		{"/checkpoint", http.StatusForbidden, "refused with status 403"},
		{"/checkpoint", http.StatusBadGateway, "gave up after 4 attempts"},
		{"/tile/", http.StatusForbidden, "status 403"},
		{"/tile/", http.StatusNotFound, "gave up after 4 attempts"},
	} {
		path, status = tc.path, tc.status
		if err := c.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) || c.Evidence() != nil {
			t.Errorf("%s with %d: Wait = %v, want %q", tc.path, tc.status, err, tc.want)
		}
	}
	path = ""
	if err := c.Wait(t.Context()); err != nil || c.Pending() != 0 {
		t.Errorf("Wait = %v, %d pending", err, c.Pending())
	}
	// A tile that cannot be had keeps two checkpoints from being compared: no evidence, and nothing is believed.
	if _, err := s.Append(t.Context(), events(300)...); err != nil {
		t.Fatal(err)
	}
	before := c.Checkpoint()
	path, status = "/tile/", http.StatusForbidden
	if err := c.Wait(t.Context()); err == nil || c.Evidence() != nil || string(c.Checkpoint()) != string(before) {
		t.Errorf("Wait = %v, want an error and the old checkpoint", err)
	}
}

// A log that had a checkpoint has one: what answers 404 then is not the log, and is not waited for.
func TestNoCheckpointAnyMore(t *testing.T) {
	f := newFake(nil)
	var gone atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gone.Load() && r.URL.Path == "/checkpoint" {
			http.NotFound(w, r)
			return
		}
		f.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	f.url = srv.URL
	c := f.client(t)
	_, s := open(t, c)
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), events(1)...); err != nil {
		t.Fatal(err)
	}
	gone.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Wait(ctx); !errors.Is(err, client.ErrAnswer) || !strings.Contains(err.Error(), "gave up after 4 attempts") || c.Evidence() != nil {
		t.Errorf("Wait = %v, want it to give up", err)
	}
	gone.Store(false)
	if err := c.Wait(t.Context()); err != nil || c.Pending() != 0 {
		t.Errorf("Wait = %v, %d pending", err, c.Pending())
	}
}

// A request for each event, and a log that publishes late: what that costs grows
// as the events do, not as their square, which would be half a minute here.
func TestManyPending(t *testing.T) {
	n := 150_000
	if testing.Short() {
		n = 10_000
	}
	prove := func(n int) time.Duration {
		f := newFake(t)
		c := f.client(t)
		for i := range n {
			entry := strconv.AppendInt(nil, int64(i), 10)
			c.Acknowledged(f.append(entry), log.LeafHash(entry))
		}
		start := time.Now()
		if err := c.Wait(t.Context()); err != nil || c.Pending() != 0 {
			t.Errorf("Wait = %v, %d pending", err, c.Pending())
		}
		return time.Since(start)
	}
	// The machine may be busy with other things: a tenth of the work says how much.
	few, many := prove(n/10), prove(n)
	if many > 20*time.Second && many > 30*few {
		t.Errorf("%d requests took %v to prove, a tenth of them %v", n, many, few)
	}
}

// Appending waits when too much has no proof yet, and goes on when it has.
func TestBackPressure(t *testing.T) {
	f := newFake(t)
	cfg := f.config()
	cfg.BatchEvents, cfg.PendingEvents = 10, 50
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, s := open(t, c)
	f.with(func() { f.held = true })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	placed, err := s.Append(ctx, events(100)...)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrUnacknowledged) {
		t.Errorf("Append = %v, want the deadline and nothing in doubt", err)
	}
	if got := c.Pending(); got > 50 || len(placed) != 40 {
		t.Errorf("%d pending and %d placed, want at most 50 and 40", got, len(placed))
	}
	// Whoever waits for its turn gives up in time as well.
	if _, err := c.Proof(ctx, placed[0]); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Proof = %v", err)
	}
	f.with(func() { f.held = false })
	more, err := s.Append(t.Context(), events(100)[len(placed):]...)
	if err != nil || len(more) != 60 {
		t.Fatalf("Append = %d placed, %v", len(more), err)
	}
	if got := c.Pending(); got > 50 {
		t.Errorf("%d pending, want at most 50", got)
	}
	if err := c.Wait(t.Context()); err != nil || c.Pending() != 0 {
		t.Errorf("Wait = %v, %d pending", err, c.Pending())
	}
}

// While one goroutine waits for a checkpoint, another one's turn can be given up.
func TestWaitForTurn(t *testing.T) {
	f := newFake(t)
	c := f.client(t)
	open(t, c)
	f.with(func() { f.held = true })
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { first <- c.Wait(ctx) }()
	short, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	if err := c.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second Wait = %v, want its deadline", err)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("first Wait = %v, want it canceled", err)
	}
}

// direct calls a handler without a network, so that time can be the test's.
type direct struct{ http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	defer func() { _ = r.Body.Close() }()
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	resp := w.Result()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	return resp, nil
}

// The pauses: what the log asks for, else doubling up to a bound.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(nil)
		f.url = "http://log.example.com"
		cfg := f.config()
		cfg.HTTP, cfg.AllowPlainHTTP = &http.Client{Transport: direct{f}}, true
		cfg.BackoffMin, cfg.BackoffMax, cfg.Attempts = 100*time.Millisecond, 2*time.Second, 8
		c, err := client.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, s := open(t, c)
		took := func(fails int, retryAfter string) time.Duration {
			first := f.requests + 1
			f.before = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n >= first+fails {
					return false
				}
				if retryAfter != "" {
					w.Header().Set("Retry-After", retryAfter)
				}
				f.problem(w, 429, "rate", "too many", nil)
				return true
			}
			start := time.Now()
			if _, err := s.Append(t.Context(), events(1)...); err != nil {
				t.Fatal(err)
			}
			return time.Since(start)
		}
		// 100, 200, 400, 800, 1600, 2000 and 2000 ms, of which half is random.
		if got := took(7, ""); got < 3550*time.Millisecond || got > 7100*time.Millisecond {
			t.Errorf("seven failures took %v", got)
		}
		if got := took(1, "30"); got < 30*time.Second || got > 31*time.Second {
			t.Errorf("with Retry-After 30 it took %v", got)
		}
		if got := took(1, "86400"); got < 2*time.Minute || got > 2*time.Minute+time.Second {
			t.Errorf("with Retry-After of a day it took %v, want the bound", got)
		}
		if got := took(1, "soon"); got > time.Second {
			t.Errorf("with a senseless Retry-After it took %v", got)
		}
		// Giving up in a pause leaves the batch in flight.
		f.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "60")
			f.problem(w, 503, "read-only", "the log is read-only", nil)
			return true
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := s.Append(ctx, events(1)...); !errors.Is(err, context.DeadlineExceeded) || s.Unacknowledged() != 1 {
			t.Errorf("Append = %v, want the deadline, with the batch kept", err)
		}
	})
}
