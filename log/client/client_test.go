package client_test

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
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
	"golang.org/x/mod/sumdb/note"
)

// open opens a migration with one stream.
func open(t testing.TB, c *client.Client) (*client.Migration, *client.Stream) {
	t.Helper()
	m, err := c.OpenMigration(t.Context(), "crm-2026", client.MigrationConfig{Streams: []string{"customers"}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.OpenStream(t.Context(), "customers")
	if err != nil {
		t.Fatal(err)
	}
	return m, s
}

// A whole migration: streams in parallel, every entry proven, and an account
// that an auditor would accept.
func TestMigration(t *testing.T) {
	f := newFake(t)
	c := f.client(t)
	names := []string{"customers", "orders", "invoices"}
	m, err := c.OpenMigration(t.Context(), "crm-2026", client.MigrationConfig{Streams: names})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Control().Append(t.Context(), client.Event{Kind: "migration.start"}); err != nil {
		t.Fatal(err)
	}
	const n = 250
	var mu sync.Mutex
	var all []client.Placed
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			s, err := m.OpenStream(t.Context(), name)
			if err != nil {
				t.Error(err)
				return
			}
			placed, err := s.Append(t.Context(), events(n)...)
			if err != nil || len(placed) != n {
				t.Errorf("Append to %s: %d placed, %v", name, len(placed), err)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, placed...)
		})
	}
	wg.Wait()
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.Pending(); got != 0 {
		t.Errorf("after Wait %d events are pending", got)
	}
	logKey, err := note.NewVerifier(f.vkey)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		f.checkPlaced(t, p)
		proof, err := c.Proof(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		cp, err := log.OpenCheckpoint(proof.Checkpoint, logKey)
		if err != nil {
			t.Fatal(err)
		}
		if err := log.CheckInclusion(cp.Head, proof.Index, log.LeafHash(p.Entry), proof.Path); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		f.check(t, "crm-2026/"+name, slices.Concat([]string{"stream.open"}, times(n, "migration.load"), []string{"stream.close"})...)
	}
	f.check(t, "crm-2026/control", "stream.open", "migration.open", "migration.start", "migration.close")
	f.checkAccount(t, "crm-2026")
}

// checkPlaced says whether what the client returned is what the log holds.
func (f *fakeLog) checkPlaced(t *testing.T, p client.Placed) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !bytes.Equal(p.Entry, f.entries[p.Index]) {
		t.Errorf("entry %d is %s, the log has %s", p.Index, p.Entry, f.entries[p.Index])
	}
	if p.Leaf != log.LeafHash(p.Entry) {
		t.Errorf("entry %d: wrong leaf hash", p.Index)
	}
	e, err := log.ParseEntry(p.Entry)
	if err != nil || e.Event.Hash() != p.Hash {
		t.Errorf("entry %d: hash %s, %v", p.Index, p.Hash, err)
	}
	if want, ok := f.payloads[p.Index]; ok != (p.Payload != nil) || ok && (want.Salt != p.Payload.Salt || !bytes.Equal(want.Bytes, p.Payload.Bytes)) {
		t.Errorf("entry %d: payload %v, the log has %v", p.Index, p.Payload, want)
	}
}

// checkAccount says whether the migration is complete.
func (f *fakeLog) checkAccount(t *testing.T, name string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	var streams []log.Stream
	for _, s := range f.streams {
		streams = append(streams, *s)
	}
	m := f.migrations[name]
	payload := f.payloads[f.streams[m.Control].Index]
	end, err := log.ParseMigrationClose(payload.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.CheckAccount(end, streams); err != nil {
		t.Error(err)
	}
}

// Batches are cut by count and by bytes, and their order is that of the caller.
func TestBatches(t *testing.T) {
	f := newFake(t)
	cfg := f.config()
	cfg.BatchEvents, cfg.BatchBytes = 7, 10_000
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, s := open(t, c)
	before := f.requests
	if _, err := s.Append(t.Context(), events(15)...); err != nil {
		t.Fatal(err)
	}
	if got := f.requests - before; got != 3 {
		t.Errorf("15 events in batches of 7 took %d requests, want 3", got)
	}
	big := bytes.Repeat([]byte("x"), 6000)
	before = f.requests
	var many []client.Event
	for range 4 {
		many = append(many, client.Event{Kind: "x.file", Type: "text/plain", Payload: big})
	}
	if _, err := s.Append(t.Context(), many...); err != nil {
		t.Fatal(err)
	}
	if got := f.requests - before; got != 4 {
		t.Errorf("4 events of 6,000 bytes in requests of 10,000 took %d requests, want 4", got)
	}
	if placed, err := s.Append(t.Context()); err != nil || len(placed) != 0 {
		t.Errorf("Append of nothing: %d placed, %v", len(placed), err)
	}
	f.check(t, "crm-2026/customers", slices.Concat([]string{"stream.open"}, times(15, "migration.load"), times(4, "x.file"))...)
}

func TestPayloads(t *testing.T) {
	f := newFake(t)
	_, s := open(t, f.client(t))
	at := time.UnixMilli(1_700_000_000_123)
	placed, err := s.Append(
		t.Context(),
		client.Event{Kind: "x.json", Payload: []byte(` {"b": 1.0, "a": "é"} `), Time: at, Actor: "p:0123456789abcdef0123456789abcdef"},
		client.Event{Kind: "x.raw", Type: "application/vnd.openlineage+json", Payload: []byte(`{ "as": "sent" }`)},
		client.Event{Kind: "x.empty", Type: "text/plain", Payload: []byte{}},
		client.Event{Kind: "x.none"},
	)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{`{"a":"é","b":1}`, `{ "as": "sent" }`, ``} {
		f.checkPlaced(t, placed[i])
		if got := string(placed[i].Payload.Bytes); got != want {
			t.Errorf("payload %d is %q, want %q", i, got, want)
		}
	}
	if placed[3].Payload != nil {
		t.Errorf("an event without a payload has %v", placed[3].Payload)
	}
	e, err := log.ParseEntry(placed[0].Entry)
	if err != nil || e.Event.Time != uint64(at.UnixMilli()) || e.Event.Actor != "p:0123456789abcdef0123456789abcdef" {
		t.Errorf("entry %s, %v: want the event's own time and actor", placed[0].Entry, err)
	}
	for _, tc := range []struct {
		event client.Event
		want  string
	}{
		{client.Event{Kind: "x.json", Payload: []byte(`{"a":1,"a":2}`)}, "duplicate"},
		{client.Event{Kind: "x.json", Payload: []byte(`{"a":12345678901234567890}`)}, "2^53-1"},
		{client.Event{Kind: "x.big", Type: "text/plain", Payload: make([]byte, log.PayloadMaxBytes+1)}, "at most"},
		{client.Event{Kind: "x.type", Type: "Text/Plain", Payload: []byte("x")}, "media type"},
		{client.Event{Kind: "x.old", Time: time.Unix(-1, 0)}, "before 1970"},
		{client.Event{Kind: "nonsense.kind"}, "not registered"},
		{client.Event{Kind: "key.registered"}, "the log's own events"},
		{client.Event{Kind: "x.actor", Actor: "no name"}, "not a name"},
		{client.Event{Kind: "x.objects", Objects: make([]log.Object, log.ObjectsMax+1)}, "objects, at most"},
		{client.Event{Kind: "x.long", Objects: slices.Repeat([]log.Object{{Name: strings.Repeat("n", 128), Role: strings.Repeat("r", 128)}}, 64)}, "move data into the payload"},
		{client.Event{Kind: "stream.close"}, "functions that open and close"},
		{client.Event{Kind: "migration.close"}, "functions that open and close"},
	} {
		placed, err := s.Append(t.Context(), client.Event{Kind: "x.first"}, tc.event)
		if err == nil || !strings.Contains(err.Error(), tc.want) || len(placed) != 0 {
			t.Errorf("Append(%s) = %d placed, %v, want none and %q", tc.event.Kind, len(placed), err, tc.want)
		}
	}
	f.check(t, "crm-2026/customers", "stream.open", "x.json", "x.raw", "x.empty", "x.none")
}

// Whatever fails on the way, the events are in the log once, in their order, and
// the caller sees nothing of it.
func TestRetries(t *testing.T) {
	type hook = func(w http.ResponseWriter, r *http.Request) bool
	abort := func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
	status := func(code int) hook {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(code)
			return true
		}
	}
	say := func(text string) hook {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write([]byte(text))
			return true
		}
	}
	slow := func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	}
	for name, fault := range map[string]hook{
		"reset": abort, "rate": status(429), "overloaded": status(503), "storage": status(507), "internal": status(500), "gateway": status(502),
		"a page":      say("<html>welcome to the guest network</html>"),
		"empty":       say(""),
		"other JSON":  say(`{"count":1,"index":5,"log":[]}`),
		"bad part":    say(`{"count":5,"index":5,"log":[{},{},{},{},{}]}`),
		"too large":   say(strings.Repeat(" ", 1<<20)),
		"cut short":   say(`{"count":5,"index":7,"log":[{"as_of"`),
		"no answer":   slow,
		"wrong count": say(`{"count":4,"index":5,"log":[{},{},{},{},{}]}`),
	} {
		for _, committed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/committed=%t", name, committed), func(t *testing.T) {
				f := newFake(t)
				cfg := f.config()
				cfg.Timeout = 100 * time.Millisecond
				c, err := client.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				m, s := open(t, c)
				f.with(func() {
					faulty := f.requests + 1
					if committed {
						var req *http.Request
						f.before = func(_ int, _ http.ResponseWriter, r *http.Request) bool { req = r; return false }
						f.after = func(n int, w http.ResponseWriter, _ int, _ []byte) bool { return n <= faulty && fault(w, req) }
					} else {
						f.before = func(n int, w http.ResponseWriter, r *http.Request) bool { return n <= faulty && fault(w, r) }
					}
				})
				placed, err := s.Append(t.Context(), events(5)...)
				if err != nil || len(placed) != 5 {
					t.Fatalf("Append = %d placed, %v", len(placed), err)
				}
				if err := m.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := c.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				f.check(t, "crm-2026/customers", slices.Concat([]string{"stream.open"}, times(5, "migration.load"), []string{"stream.close"})...)
			})
		}
	}
}

// A log that is away for long: what was sent is kept and goes first.
func TestUnacknowledged(t *testing.T) {
	for _, committed := range []bool{false, true} {
		f := newFake(t)
		c := f.client(t)
		m, s := open(t, c)
		down := func(w http.ResponseWriter) bool {
			f.problem(w, 503, "read-only", "the log is read-only", nil)
			return true
		}
		f.with(func() {
			if committed {
				f.after = func(_ int, w http.ResponseWriter, _ int, _ []byte) bool { return down(w) }
			} else {
				f.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool { return down(w) }
			}
		})
		placed, err := s.Append(t.Context(), events(3)...)
		var r *client.Refused
		if !errors.Is(err, client.ErrUnacknowledged) || !errors.As(err, &r) || r.Status != 503 || len(placed) != 0 {
			t.Fatalf("Append = %d placed, %v, want ErrUnacknowledged with the refusal", len(placed), err)
		}
		if got := s.Unacknowledged(); got != 3 {
			t.Errorf("%d are unacknowledged, want 3", got)
		}
		if err := m.Close(t.Context()); !errors.Is(err, client.ErrUnacknowledged) {
			t.Errorf("Close = %v, want ErrUnacknowledged", err)
		}
		if _, err := s.Flush(t.Context()); !errors.Is(err, client.ErrUnacknowledged) {
			t.Errorf("Flush = %v, want ErrUnacknowledged", err)
		}
		f.with(func() { f.before, f.after = nil, nil })
		placed, err = s.Append(t.Context(), client.Event{Kind: "x.next"})
		if err != nil || len(placed) != 4 || s.Unacknowledged() != 0 {
			t.Fatalf("Append = %d placed, %v, want the three and the next", len(placed), err)
		}
		for _, p := range placed {
			f.checkPlaced(t, p)
		}
		if more, err := s.Flush(t.Context()); err != nil || len(more) != 0 {
			t.Errorf("Flush of nothing = %d placed, %v", len(more), err)
		}
		if err := errors.Join(m.Close(t.Context()), c.Wait(t.Context())); err != nil {
			t.Error(err)
		}
		f.check(t, "crm-2026/customers", "stream.open", "migration.load", "migration.load", "migration.load", "x.next", "stream.close")
	}
}

// A caller that gives up while a request is under way.
func TestCancel(t *testing.T) {
	f := newFake(t)
	_, s := open(t, f.client(t))
	ctx, cancel := context.WithCancel(t.Context())
	f.with(func() {
		f.after = func(_ int, _ http.ResponseWriter, _ int, _ []byte) bool {
			cancel()
			panic(http.ErrAbortHandler)
		}
	})
	_, err := s.Append(ctx, events(2)...)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, client.ErrUnacknowledged) {
		t.Fatalf("Append = %v, want it canceled and unacknowledged", err)
	}
	f.with(func() { f.after = nil })
	placed, err := s.Flush(t.Context())
	if err != nil || len(placed) != 2 {
		t.Fatalf("Flush = %d placed, %v", len(placed), err)
	}
	f.check(t, "crm-2026/customers", "stream.open", "migration.load", "migration.load")
}

// A refusal leaves nothing behind, and the stream goes on.
func TestRefused(t *testing.T) {
	f := newFake(t)
	_, s := open(t, f.client(t))
	for _, status := range []int{301, 400, 401, 403, 404, 409, 413, 415, 422} {
		f.with(func() {
			f.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Location", "https://elsewhere.example.com/")
				f.problem(w, status, "forbidden", "you may not", nil)
				return true
			}
		})
		placed, err := s.Append(t.Context(), events(2)...)
		var r *client.Refused
		if !errors.As(err, &r) || r.Status != status || errors.Is(err, client.ErrUnacknowledged) || len(placed) != 0 {
			t.Fatalf("status %d: Append = %d placed, %v", status, len(placed), err)
		}
		if r.Type != "urn:piperoll:problem:forbidden" || r.Detail != "you may not" || !strings.Contains(err.Error(), "do it right") {
			t.Errorf("status %d: refused as %+v", status, r)
		}
		if got := s.Unacknowledged(); got != 0 {
			t.Errorf("status %d: %d are kept", status, got)
		}
	}
	f.with(func() { f.before = nil })
	if _, err := s.Append(t.Context(), client.Event{Kind: "x.after"}); err != nil {
		t.Fatal(err)
	}
	f.check(t, "crm-2026/customers", "stream.open", "x.after")
}

// After an attempt that may have been applied, a refusal says nothing about it: a
// token that ran out must not make the client forget events that the log has.
func TestRefusedAfterDoubt(t *testing.T) {
	f := newFake(t)
	_, s := open(t, f.client(t))
	f.with(func() {
		first := f.requests + 1
		f.before = func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n > first {
				f.problem(w, 401, "unauthenticated", "token has expired", nil)
			}
			return n > first
		}
		f.after = func(int, http.ResponseWriter, int, []byte) bool { panic(http.ErrAbortHandler) }
	})
	_, err := s.Append(t.Context(), events(2)...)
	var r *client.Refused
	if !errors.As(err, &r) || r.Status != 401 || !errors.Is(err, client.ErrUnacknowledged) || s.Unacknowledged() != 2 {
		t.Fatalf("Append = %v, want refused and unacknowledged", err)
	}
	f.with(func() { f.before, f.after = nil, nil })
	if placed, err := s.Append(t.Context(), client.Event{Kind: "x.next"}); err != nil || len(placed) != 3 {
		t.Fatalf("Append = %d placed, %v", len(placed), err)
	}
	f.check(t, "crm-2026/customers", "stream.open", "migration.load", "migration.load", "x.next")

	// A conflict that names the head before the batch says that it was never applied.
	f.with(func() {
		first := f.requests + 1
		f.before = func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n == first {
				panic(http.ErrAbortHandler)
			}
			f.problem(w, 409, "closed", "stream is closed", f.streams["crm-2026/customers"])
			return true
		}
	})
	_, err = s.Append(t.Context(), events(1)...)
	if !errors.As(err, &r) || r.Status != 409 || errors.Is(err, client.ErrUnacknowledged) || s.Unacknowledged() != 0 {
		t.Fatalf("Append = %v, want refused and nothing kept", err)
	}
}

// Without a connection nothing was sent, so a later refusal is final.
func TestNoConnection(t *testing.T) {
	f := newFake(t)
	_, s := open(t, f.client(t))
	cfg := f.config()
	cfg.URL = "http://127.0.0.1:1"
	cfg.Attempts = 2
	var logged bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.OpenMigration(t.Context(), "crm-2027", client.MigrationConfig{})
	if !errors.Is(err, client.ErrUnacknowledged) || !strings.Contains(err.Error(), "after 2 attempts") {
		t.Errorf("OpenMigration = %v, want it unacknowledged after 2 attempts", err)
	}
	if !strings.Contains(logged.String(), "failed an attempt") {
		t.Errorf("logged %q, want the attempt", logged.String())
	}
	if _, err := s.Append(t.Context(), events(1)...); err != nil {
		t.Error(err)
	}
}

// What a policy refuses in the middle of a request ends the stream for this SDK.
func TestNotProcessed(t *testing.T) {
	f := newFake(t)
	_, s := open(t, f.client(t))
	f.with(func() {
		f.after = func(_ int, w http.ResponseWriter, _ int, _ []byte) bool {
			// As if the second of three had been refused: one entry, unsigned, and its receipt.
			n := uint64(len(f.entries)) - 3
			e, err := log.ParseEntry(f.entries[n])
			if err != nil {
				panic(err)
			}
			e.Sig = nil
			f.rewrite(n, e.Marshal())
			text := string(f.answer([2]uint64{n, 1}))
			_, _ = w.Write([]byte(strings.Replace(text, "{", `{"not_processed":2,`, 1)))
			return true
		}
	})
	placed, err := s.Append(t.Context(), events(3)...)
	if err == nil || len(placed) != 1 || !strings.Contains(err.Error(), "refused the next by policy") {
		t.Fatalf("Append = %d placed, %v", len(placed), err)
	}
	if got := s.End(); got.Last != 2 || got.Hash != placed[0].Hash {
		t.Errorf("the stream ends at %+v, want at the event that was taken", got)
	}
	if _, err := s.Append(t.Context(), events(1)...); err == nil {
		t.Error("the stream goes on after a refusal whose entry it does not know")
	}
}
