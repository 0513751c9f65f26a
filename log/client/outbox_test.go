package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log/client"
	"github.com/pipe-roll/piperoll/log/disk"
)

// outboxConfig is that of a client in a hurry, with an outbox.
func (f *fakeLog) outboxConfig(dir string) client.Config {
	cfg := f.config()
	cfg.Outbox = &client.OutboxConfig{Dir: dir, BatchAge: 5 * time.Millisecond}
	return cfg
}

// openOutbox starts a service that has an outbox.
func openOutbox(t testing.TB, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A service that is stopped and started again goes on where it was, and the log
// has one whole history.
func TestOutboxOverRestarts(t *testing.T) {
	f := newFake(t)
	dir := filepath.Join(t.TempDir(), "outbox")
	const runs = 5
	for run := range runs {
		c := openOutbox(t, f.outboxConfig(dir))
		m, s := open(t, c)
		if got, want := s.End().Last, uint64(1+20*run); got != want || m.Resumed() != (run > 0) {
			t.Fatalf("run %d: the stream is at %d, want %d; resumed %v", run, got, want, m.Resumed())
		}
		if err := s.Put(t.Context(), events(15)...); err != nil {
			t.Fatal(err)
		}
		if placed, err := s.Append(t.Context(), events(5)...); err != nil || len(placed) != 5 {
			t.Fatalf("Append = %d, %v", len(placed), err)
		}
		if run == runs-1 {
			if err := errors.Join(m.Close(t.Context()), c.Wait(t.Context())); err != nil {
				t.Fatal(err)
			}
			if c.Pending() != 0 || s.Unacknowledged() != 0 {
				t.Errorf("%d pending, %d unacknowledged", c.Pending(), s.Unacknowledged())
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), events(1)...); err == nil {
			t.Error("a closed client takes events")
		}
	}
	f.check(t, "crm-2026/customers", append(append([]string{"stream.open"}, times(20*runs, "migration.load")...), "stream.close")...)
	f.check(t, "crm-2026/control", "stream.open", "migration.open", "migration.close")
	f.checkAccount(t, "crm-2026")

	// It is closed for good, and the next run knows.
	c := openOutbox(t, f.outboxConfig(dir))
	m, err := c.OpenMigration(t.Context(), "crm-2026", client.MigrationConfig{Streams: []string{"customers"}})
	if err != nil || !m.Closed() {
		t.Fatalf("OpenMigration = %v, want it closed", err)
	}
	if _, err := m.OpenStream(t.Context(), "customers"); !errors.Is(err, client.ErrClosed) {
		t.Errorf("OpenStream of a closed migration = %v", err)
	}
	if err := errors.Join(m.Close(t.Context()), c.Wait(t.Context())); err != nil {
		t.Error(err)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*.outbox")); err != nil || len(files) != 1 {
		t.Errorf("files are %v, %v", files, err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "lock")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v; want it for its owner alone", path, info.Mode(), err)
		}
	}
}

// Two processes that share an outbox would give two events one place.
func TestOutboxIsLocked(t *testing.T) {
	f := newFake(t)
	cfg := f.outboxConfig(t.TempDir())
	c := openOutbox(t, cfg)
	if _, err := client.New(cfg); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("New = %v, want ErrLocked", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	openOutbox(t, cfg)
}

// An outbox is of one log, principal and key: elsewhere its events mean nothing.
func TestOutboxOfAnother(t *testing.T) {
	f := newFake(t)
	cfg := f.outboxConfig(t.TempDir())
	c := openOutbox(t, cfg)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	other := cfg
	var err error
	if other.Key, err = client.NewKey(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.New(other); err == nil || !strings.Contains(err.Error(), "an outbox of its own") {
		t.Errorf("New with another key = %v", err)
	}
	openOutbox(t, cfg) // the lock was given back
}

// While the log is away, nothing is lost and memory holds a window of what is kept;
// a full outbox says so, or makes its callers wait.
func TestOutboxWhileTheLogIsAway(t *testing.T) {
	f := newFake(t)
	away := func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		f.problem(w, 503, "read-only", "the log is read-only", nil)
		return true
	}
	f.with(func() { f.before = away })
	cfg := f.outboxConfig(filepath.Join(t.TempDir(), "outbox"))
	cfg.Outbox.MaxBytes, cfg.Outbox.FailWhenFull = 1<<20, true
	c := openOutbox(t, cfg)
	_, s := open(t, c)
	large := client.Event{Kind: "migration.load", Payload: []byte(`"` + strings.Repeat("x", 50_000) + `"`)}
	n := 0
	for {
		err := s.Put(t.Context(), large)
		if errors.Is(err, client.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n < 15 || n > 21 {
		t.Errorf("an outbox of 1 MiB took %d events of 50 kB", n)
	}
	if got := s.Unacknowledged(); got != n+1 {
		t.Errorf("%d unacknowledged, want %d", got, n+1)
	}
	if _, err := s.Append(t.Context(), client.Event{Kind: "x.note"}); !errors.Is(err, client.ErrUnacknowledged) && !errors.Is(err, client.ErrFull) {
		t.Errorf("Append = %v", err)
	}
	if err := c.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("Wait = %v, want what is wrong", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	// The next process waits for room instead, and gets it when the log is back.
	cfg.Outbox.FailWhenFull = false
	c = openOutbox(t, cfg)
	m, s := open(t, c)
	last := s.End().Last
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for short.Err() == nil {
		if err := s.Put(short, large); err == nil {
			n++
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	f.with(func() { f.before = nil })
	for range 50 {
		if err := s.Put(t.Context(), large); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(m.Close(t.Context()), c.Wait(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := s.End().Last; got < last+50 {
		t.Errorf("the stream ends at %d", got)
	}
	f.checkAccount(t, "crm-2026")
}

// Many streams at once, each with its own small events: one chain each, and requests
// of many events.
func TestOutboxBatches(t *testing.T) {
	f := newFake(t)
	cfg := f.outboxConfig(t.TempDir())
	cfg.BatchEvents, cfg.Outbox.BatchAge = 50, 100*time.Millisecond
	c := openOutbox(t, cfg)
	var names []string
	for i := range 8 {
		names = append(names, fmt.Sprintf("table-%d", i))
	}
	m, err := c.OpenMigration(t.Context(), "crm-2026", client.MigrationConfig{Streams: names})
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			s, err := m.OpenStream(t.Context(), name)
			for i := 0; err == nil && i < n; i++ {
				err = s.Put(t.Context(), events(1)...)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(m.Close(t.Context()), c.Wait(t.Context())); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f.check(t, "crm-2026/"+name, append(append([]string{"stream.open"}, times(n, "migration.load")...), "stream.close")...)
	}
	f.checkAccount(t, "crm-2026")
	if f.requests > len(names)*n/4 {
		t.Errorf("%d requests for %d events", f.requests, len(names)*n)
	}
}

// What the log refuses stays in the outbox, and is sent when the log allows it.
func TestOutboxKeepsWhatIsRefused(t *testing.T) {
	f := newFake(t)
	cfg := f.outboxConfig(t.TempDir())
	c := openOutbox(t, cfg)
	m, s := open(t, c)
	if _, err := s.Append(t.Context(), events(1)...); err != nil {
		t.Fatal(err)
	}
	f.with(func() {
		f.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			f.problem(w, 403, "forbidden", "no more", nil)
			return true
		}
	})
	_, err := s.Append(t.Context(), events(3)...)
	var r *client.Refused
	if !errors.As(err, &r) || r.Status != 403 || !errors.Is(err, client.ErrUnacknowledged) {
		t.Errorf("Append = %v, want the refusal, with the events kept", err)
	}
	f.with(func() { f.before = nil })
	if placed, err := s.Flush(t.Context()); err != nil || len(placed) > 3 {
		t.Errorf("Flush = %d, %v", len(placed), err)
	}
	if err := errors.Join(m.Close(t.Context()), c.Wait(t.Context())); err != nil {
		t.Fatal(err)
	}
	f.check(t, "crm-2026/customers", "stream.open", "migration.load", "migration.load", "migration.load", "migration.load", "stream.close")
	f.checkAccount(t, "crm-2026")
}

// A backlog that somebody hurries is sent in requests that a log takes, also by a process
// that finds it; and what may have been sent is never cut otherwise, whatever its limits are.
func TestOutboxSendsABacklogInParts(t *testing.T) {
	for name, restart := range map[string]bool{"by one process": false, "by the next": true} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			const most = 20
			away := true
			f.with(func() {
				f.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
					switch {
					case bytes.Count(f.body, []byte("\n")) > most:
						f.problem(w, 413, "too-large", "too many events", nil)
					case away:
						f.problem(w, 503, "read-only", "the log is read-only", nil)
					default:
						return false
					}
					return true
				}
			})
			cfg := f.outboxConfig(filepath.Join(t.TempDir(), "outbox"))
			cfg.BatchEvents = most
			c := openOutbox(t, cfg)
			_, s := open(t, c)
			for range 20 {
				if err := s.Put(t.Context(), events(10)...); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if restart {
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				cfg.BatchEvents = most / 2
				c = openOutbox(t, cfg)
			}
			f.with(func() { away = false })
			eventually(t, "all of it", func() bool { return c.Wait(t.Context()) == nil })
			f.check(t, s.Name(), append(append([]string{"stream.open"}, times(200, "migration.load")...), "stream.close")...)
		})
	}
}

// What was sent and not answered is sent again as it was, by a process with other limits.
func TestOutboxNeverCutsARequestAnew(t *testing.T) {
	f := newFake(t)
	cfg := f.outboxConfig(filepath.Join(t.TempDir(), "outbox"))
	cfg.BatchEvents, cfg.Outbox.BatchAge = 20, time.Hour
	c := openOutbox(t, cfg)
	_, s := open(t, c)
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	taken := false
	f.with(func() {
		f.after = func(_ int, w http.ResponseWriter, _ int, _ []byte) bool {
			taken = true
			f.problem(w, 503, "read-only", "the answer was lost", nil)
			return true
		}
	})
	if err := s.Put(t.Context(), events(15)...); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), events(2)...); !errors.Is(err, client.ErrUnacknowledged) {
		t.Fatalf("Append = %v", err)
	}
	if err := c.Close(); err != nil || !taken {
		t.Fatal(err, taken)
	}
	f.with(func() { f.after = nil })
	cfg.BatchEvents = 4
	c = openOutbox(t, cfg)
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.check(t, s.Name(), append([]string{"stream.open"}, times(17, "migration.load")...)...)
}

// Two workers of one process that want the same stream: one has it, the other gets an
// error as often as it asks, and what the first puts is readable for the next process.
func TestOutboxStreamOfTwoWorkers(t *testing.T) {
	f := newFake(t)
	cfg := f.outboxConfig(filepath.Join(t.TempDir(), "outbox"))
	c := openOutbox(t, cfg)
	m, s := open(t, c)
	for range 3 {
		for _, name := range []string{"customers", "control"} {
			if s, err := c.JoinMigration("crm-2026").OpenStream(t.Context(), name); err == nil || s != nil {
				t.Fatalf("a second OpenStream(%q) = %v, %v", name, s, err)
			}
		}
		if _, err := c.OpenMigration(t.Context(), "crm-2026", client.MigrationConfig{Streams: []string{"customers"}}); err == nil {
			t.Fatal("a second OpenMigration")
		}
	}
	second := c.JoinMigration("crm-2026")
	for range 2 { // of one worker that tries again
		if s, err := second.OpenStream(t.Context(), "customers"); err == nil || s != nil {
			t.Fatalf("a second OpenStream = %v, %v", s, err)
		}
	}
	// Another worker joined before the migration was opened here: it keeps the control stream.
	if _, err := c.JoinMigration("crm-2027").OpenStream(t.Context(), "control"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.OpenMigration(t.Context(), "crm-2027", client.MigrationConfig{}); err == nil {
			t.Fatal("OpenMigration took a control stream that somebody has")
		}
	}
	if _, err := c.JoinMigration("crm-2027").OpenStream(t.Context(), "control"); err == nil {
		t.Error("OpenMigration gave back a control stream that it did not have")
	}
	if _, err := s.Append(t.Context(), events(2)...); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Close(t.Context()), c.Close()); err != nil {
		t.Fatal(err)
	}
	c = openOutbox(t, cfg)
	if _, err := c.OpenMigration(t.Context(), "crm-2026", client.MigrationConfig{Streams: []string{"customers"}}); err != nil {
		t.Error(err)
	}
}

// Who waits is not told of the trouble of streams that came later, and an outbox has
// nothing to do for streams that have ended, also of a migration that is not its own.
func TestOutboxWaitsForWhatWasPut(t *testing.T) {
	f := newFake(t)
	c := openOutbox(t, f.outboxConfig(t.TempDir()))
	_, s := open(t, c)
	f.with(func() { f.held = true })
	if _, err := s.Append(t.Context(), events(1)...); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- c.Wait(t.Context()) }()
	time.Sleep(50 * time.Millisecond)
	f.with(func() {
		f.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			f.problem(w, 403, "forbidden", "not this one", nil)
			return true
		}
	})
	joined := c.JoinMigration("crm-2026")
	later, err := joined.OpenStream(t.Context(), "later")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := later.Append(t.Context(), events(1)...); !errors.Is(err, client.ErrUnacknowledged) {
		t.Fatalf("Append = %v", err)
	}
	f.with(func() { f.before, f.held = nil, false })
	if err := <-done; err != nil {
		t.Errorf("Wait = %v, of a stream that came later", err)
	}
	eventually(t, "the rest", func() bool { return c.Wait(t.Context()) == nil })
	if err := errors.Join(later.Close(t.Context()), s.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of two streams", func() bool { return c.Wait(t.Context()) == nil && c.Chains() == 1 })
}
