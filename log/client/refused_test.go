package client_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
)

// refuseNext makes a proxy of the log: it passes the next request on, or keeps it,
// and answers with a refusal of its own.
func refuseNext(f *fakeLog, status int, passed bool) {
	f.with(func() {
		next := f.requests + 1
		refuse := func(n int, w http.ResponseWriter) bool {
			if n == next {
				http.Error(w, "<html>not through here", status)
			}
			return n == next
		}
		f.before, f.after = nil, nil
		if passed {
			f.after = func(n int, w http.ResponseWriter, _ int, _ []byte) bool { return refuse(n, w) }
		} else {
			f.before = func(n int, w http.ResponseWriter, _ *http.Request) bool { return refuse(n, w) }
		}
	})
}

// appendRefused appends an event, and wants it refused.
func appendRefused(t *testing.T, s *client.Stream, kind string, status int) {
	t.Helper()
	var r *client.Refused
	if _, err := s.Append(t.Context(), client.Event{Kind: kind}); !errors.As(err, &r) || r.Status != status || errors.Is(err, client.ErrUnacknowledged) {
		t.Fatalf("Append = %v, want it refused with %d", err, status)
	}
}

// A proxy refuses what the log took. The next request finds out, and what it says
// is what happened: not that the log made an event up.
func TestRefusedAndLogged(t *testing.T) {
	for _, status := range []int{403, 413} {
		f := newFake(t)
		c := f.client(t)
		_, s := open(t, c)
		placed, err := s.Append(t.Context(), events(1)...)
		if err != nil {
			t.Fatal(err)
		}
		refuseNext(f, status, true)
		appendRefused(t, s, "x.refused", status)
		_, err = s.Append(t.Context(), client.Event{Kind: "x.next"})
		e := caught(t, c, err, client.ClaimRefused)
		files := map[string]string{}
		for _, file := range e.Files {
			files[file.Name] = string(file.Data)
		}
		for name, want := range map[string]string{
			"refused.ndjson": `"kind":"x.refused"`, "refusal": "not through here",
			"request.ndjson": `"kind":"x.next"`, "answer.json": `"seq":3`, "receipt": string(placed[0].Receipt),
		} {
			if !strings.Contains(files[name], want) {
				t.Errorf("%s is %q, want %q in it", name, files[name], want)
			}
		}
		checkSaved(t, e)
	}
}

// What the proxy kept back is not in the log, and the stream goes on.
func TestRefusedAndNotLogged(t *testing.T) {
	f := newFake(t)
	_, s := open(t, f.client(t))
	for range 2 {
		refuseNext(f, 403, false)
		appendRefused(t, s, "x.refused", 403)
	}
	if _, err := s.Append(t.Context(), client.Event{Kind: "x.next"}); err != nil {
		t.Fatal(err)
	}
	f.check(t, "crm-2026/customers", "stream.open", "x.next")
}

// After several refusals it cannot be said which one of them was none, and nobody
// is accused; of what was acknowledged it can.
func TestRefusedTwiceAndLogged(t *testing.T) {
	f := newFake(t)
	c := f.client(t)
	_, s := open(t, c)
	refuseNext(f, 403, true)
	appendRefused(t, s, "x.refused", 403)
	refuseNext(f, 403, false)
	appendRefused(t, s, "x.again", 403)
	appendRefused(t, s, "x.next", 409)
	if e := c.Evidence(); e != nil {
		t.Fatalf("evidence %v", e)
	}
	f.with(func() {
		f.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			head := log.NewStream(origin, "crm-2026/customers")
			f.problem(w, 409, "fork", "another event has this place", &head)
			return true
		}
	})
	_, err := s.Append(t.Context(), client.Event{Kind: "x.next"})
	_ = caught(t, c, err, client.ClaimHead)
}

// A conflict that names the request's own events is no refusal: they are there.
func TestConflictWithItself(t *testing.T) {
	f := newFake(t)
	_, s := open(t, f.client(t))
	f.with(func() {
		first := f.requests + 1
		f.after = func(n int, w http.ResponseWriter, _ int, _ []byte) bool {
			if n == first {
				f.problem(w, 409, "gap", "events were committed in another request", f.streams["crm-2026/customers"])
			}
			return n == first
		}
	})
	if placed, err := s.Append(t.Context(), events(2)...); err != nil || len(placed) != 2 {
		t.Fatalf("Append = %d placed, %v", len(placed), err)
	}
	// As long as it stays so nothing is forgotten.
	f.with(func() {
		f.after = func(_ int, w http.ResponseWriter, _ int, _ []byte) bool {
			f.problem(w, 409, "gap", "events were committed in another request", f.streams["crm-2026/customers"])
			return true
		}
	})
	if _, err := s.Append(t.Context(), events(1)...); !errors.Is(err, client.ErrUnacknowledged) || s.Unacknowledged() != 1 {
		t.Errorf("Append = %v, want the event kept", err)
	}
	f.with(func() { f.after = nil })
	if placed, err := s.Flush(t.Context()); err != nil || len(placed) != 1 {
		t.Errorf("Flush = %d placed, %v", len(placed), err)
	}
	f.check(t, "crm-2026/customers", "stream.open", "migration.load", "migration.load", "migration.load")
}
