package client_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
	"github.com/pipe-roll/piperoll/witness"
)

// rollback is what a log is after it was restored from a copy that was made when it
// had that size. The caller holds mu.
func (f *fakeLog) rollback(size uint64) {
	all := f.entries[:size]
	f.entries, f.hashes = nil, nil
	f.streams, f.migrations = map[string]*log.Stream{}, map[string]*log.Migration{}
	f.published = min(f.published, size)
	for body, place := range f.retries {
		if place[0]+place[1] > size {
			delete(f.retries, body)
		}
	}
	for i, text := range all {
		index := f.append(text)
		entry, err := log.ParseEntry(text)
		if err != nil {
			continue // entry 0 stands for log.open
		}
		e := entry.Event
		s, m := f.streams[e.Stream], f.migrations[e.Migration]
		if s == nil {
			n := log.NewStream(origin, e.Stream)
			s = &n
		}
		if m == nil {
			m = &log.Migration{Name: e.Migration}
		}
		var open *log.StreamOpen
		var opened *log.MigrationOpen
		switch e.Kind {
		case "stream.open":
			o, err := log.ParseStreamOpen(f.payloads[uint64(i)].Bytes)
			if err != nil {
				panic(err)
			}
			open = &o
		case "migration.open":
			o, err := log.ParseMigrationOpen(f.payloads[uint64(i)].Bytes)
			if err != nil {
				panic(err)
			}
			opened = &o
		}
		s.Advance(e, e.Hash(), index, open, entry.Sig != nil)
		m.Advance(e, principal, opened)
		f.streams[e.Stream], f.migrations[e.Migration] = s, m
	}
}

// evidence reads what an outbox saved, by claim.
func evidence(t *testing.T, dir string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	dirs, err := filepath.Glob(filepath.Join(dir, "evidence-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		text, err := os.ReadFile(filepath.Join(d, "claim"))
		if errors.Is(err, os.ErrNotExist) {
			continue // not whole yet
		}
		if err != nil {
			t.Fatal(err)
		}
		claim, _, _ := strings.Cut(string(text), "\n")
		files, err := os.ReadDir(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			found[claim] = append(found[claim], f.Name())
		}
	}
	return found
}

// eventually waits for what other goroutines do.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen in time", what)
		}
	}
}

// lossy starts a service with an outbox whose first events are settled, and more
// acknowledged, when the log is about to lose these.
func lossy(t *testing.T, f *fakeLog, dir string, resubmit time.Duration) (*client.Client, *client.Migration, *client.Stream, uint64) {
	t.Helper()
	cfg := f.outboxConfig(dir)
	cfg.Outbox.Resubmit = resubmit
	c := openOutbox(t, cfg)
	m, s := open(t, c)
	if _, err := s.Append(t.Context(), events(10)...); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	var size uint64
	f.with(func() { f.held, size = true, uint64(len(f.entries)) })
	for range 3 {
		if _, err := s.Append(t.Context(), events(4)...); err != nil {
			t.Fatal(err)
		}
	}
	return c, m, s, size
}

// A log that is restored from a copy has lost what it acknowledged since. The outbox
// has it, sends it again, and keeps the receipts that were broken.
func TestOutboxAfterTheLogWasRestored(t *testing.T) {
	for name, tc := range map[string]struct {
		resubmit time.Duration
		lost     func(f *fakeLog, size uint64) // how it comes out
		claim    string
		file     string
	}{
		"the next request does not fit": {0, func(f *fakeLog, size uint64) {
			f.rollback(size + 4) // in the middle of what was acknowledged
		}, "lost", "receipt-again"},
		"nothing more is sent": {20 * time.Millisecond, func(f *fakeLog, size uint64) {
			f.rollback(size)
			f.append([]byte("of somebody else")) // so that the receipts are others
		}, "lost", "receipt-again"},
		"somebody else has the places": {0, func(f *fakeLog, size uint64) {
			f.rollback(size)
			for range 20 {
				f.append([]byte("of somebody else"))
			}
			f.held = false
		}, "entry", "receipt"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			dir := filepath.Join(t.TempDir(), "outbox")
			c, m, s, size := lossy(t, f, dir, tc.resubmit)
			f.with(func() { tc.lost(f, size) })
			if tc.resubmit == 0 && tc.claim == "lost" {
				if _, err := s.Append(t.Context(), events(1)...); err != nil {
					t.Fatal(err)
				}
			} else {
				eventually(t, "the second submission", func() bool { return evidence(t, dir)[tc.claim] != nil })
			}
			f.with(func() { f.held = false })
			if err := m.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			var e *client.Evidence
			if err := c.Wait(t.Context()); !errors.As(err, &e) {
				t.Errorf("Wait = %v, want the evidence told", err)
			}
			eventually(t, "all of it", func() bool { return c.Wait(t.Context()) == nil })
			if got := strings.Join(evidence(t, dir)[tc.claim], " "); !strings.Contains(got, tc.file) || c.Evidence() == nil {
				t.Errorf("evidence %v and %v, want it kept and the client going on", got, c.Evidence())
			}
			f.checkOurs(t, "crm-2026/customers", int(s.End().Last))
		})
	}
}

// checkOurs says whether a stream is in the log once, whole and chained.
func (f *fakeLog) checkOurs(t *testing.T, stream string, want int) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	prev, n := log.StreamStart(origin, stream), 0
	for _, text := range f.entries {
		e, err := log.ParseEntry(text)
		if err != nil || e.Event.Stream != stream {
			continue
		}
		if n++; e.Event.Prev != prev || e.Event.Seq != uint64(n) {
			t.Errorf("%s: event %d has seq %d and does not follow", stream, n, e.Event.Seq)
		}
		prev = e.Event.Hash()
	}
	if n != want {
		t.Errorf("%s has %d events in the log, want %d", stream, n, want)
	}
}

// A log that has lost what was final gets nothing more: it is caught, and the
// outbox keeps what it has.
func TestOutboxCatchesALogThatLostWhatWasFinal(t *testing.T) {
	f := newFake(t)
	dir := filepath.Join(t.TempDir(), "outbox")
	c, _, s, size := lossy(t, f, dir, 0)
	f.with(func() { f.rollback(size - 3) })
	if _, err := s.Append(t.Context(), events(1)...); !errors.Is(err, client.ErrUnacknowledged) || c.Evidence() != nil {
		t.Fatalf("Append = %v, evidence %v, want the event kept and nobody accused by what is not signed", err, c.Evidence())
	}
	f.with(func() { // it goes on as another log: two signed histories
		for range 20 {
			f.append([]byte("of somebody else"))
		}
		f.held = false
	})
	var e *client.Evidence
	eventually(t, "the evidence", func() bool { e = c.Evidence(); return e != nil })
	if e.Claim != client.ClaimFork {
		t.Errorf("evidence %v", e)
	}
	if got := s.Unacknowledged(); got != 1 {
		t.Errorf("%d are unacknowledged, want 1", got)
	}
	if err := s.Put(t.Context(), events(1)...); !errors.As(err, &e) {
		t.Errorf("Put = %v, want the evidence", err)
	}
	if err := c.Wait(t.Context()); !errors.As(err, &e) {
		t.Errorf("Wait = %v, want the evidence", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	// The next process finds it all: nothing was given to that log, or forgotten.
	f.with(func() { f.held = true })
	c = openOutbox(t, f.outboxConfig(dir))
	_, s = open(t, c)
	if got := s.End().Last; got != 1+10+12+1 {
		t.Errorf("the stream is at %d", got)
	}
}

// A log that shows an older checkpoint than it did is not the one that is known, or
// not all of it: what it lost is not sent again.
func TestOutboxTrustsNoOlderLog(t *testing.T) {
	// Not shorter: a request that has asked for the checkpoint just before the log is restored may still be sent.
	for _, resubmit := range []time.Duration{time.Hour, 500 * time.Millisecond} {
		testOutboxTrustsNoOlderLog(t, resubmit)
	}
}

func testOutboxTrustsNoOlderLog(t *testing.T, resubmit time.Duration) {
	f := newFake(t)
	dir := filepath.Join(t.TempDir(), "outbox")
	cfg := f.outboxConfig(dir)
	policy, _ := witnessed(t, f)
	cfg.Policy = policy
	cfg.Outbox.Resubmit = resubmit
	c := openOutbox(t, cfg)
	_, s := open(t, c)
	if _, err := s.Append(t.Context(), events(4)...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a checkpoint", func() bool { return c.Checkpoint() != nil })
	var size uint64
	f.with(func() { size = uint64(len(f.entries)) })
	if _, err := s.Append(t.Context(), events(4)...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a newer checkpoint", func() bool { return strings.Contains(string(c.Checkpoint()), fmt.Sprintf("%s\n%d\n", origin, size+4)) })
	f.with(func() { f.rollback(size) })
	if resubmit < time.Hour {
		time.Sleep(3 * resubmit)
		f.checkOurs(t, s.Name(), 5)
	}
	if _, err := s.Append(t.Context(), events(1)...); !errors.Is(err, client.ErrUnacknowledged) || !strings.Contains(err.Error(), "shows a checkpoint of size") {
		t.Errorf("Append = %v, want the older checkpoint named", err)
	}
	f.checkOurs(t, s.Name(), 5)
	// It goes on as another log: two histories.
	f.with(func() {
		for range 9 {
			f.append([]byte("of somebody else"))
		}
	})
	eventually(t, "the evidence", func() bool { return c.Evidence() != nil })
	if e := c.Evidence(); e.Claim != client.ClaimFork {
		t.Errorf("evidence %v", e)
	}
	f.checkOurs(t, s.Name(), 5)
}

// witnessed gives a policy with one witness, and lets it cosign what the log publishes.
func witnessed(t *testing.T, f *fakeLog) (policy *witness.Policy, cosign func()) {
	t.Helper()
	const name, typ = "witness.example.com", "\x04"
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256([]byte(name + "\n" + typ + string(public)))
	vkey := fmt.Sprintf("%s+%x+%s", name, id[:4], base64.StdEncoding.EncodeToString([]byte(typ+string(public))))
	p, err := witness.ParsePolicy([]byte("log " + f.vkey + "\nwitness w " + vkey + "\nquorum w\n"))
	if err != nil {
		t.Fatal(err)
	}
	return &p, func() {
		f.with(func() {
			f.cosign = func(text string) string {
				const seconds = 1_700_000_000
				sig := ed25519.Sign(private, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", seconds, text))
				raw := append(binary.BigEndian.AppendUint64(id[:4:4], seconds), sig...)
				return "— " + name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
			}
		})
	}
}

// Where the policy asks for witnesses, what the log alone has signed is not final:
// the outbox keeps it, also over a restart, until they have cosigned.
func TestOutboxWaitsForTheQuorum(t *testing.T) {
	f := newFake(t)
	policy, cosign := witnessed(t, f)
	cfg := f.outboxConfig(filepath.Join(t.TempDir(), "outbox"))
	cfg.Policy = policy
	for run := range 2 {
		c := openOutbox(t, cfg)
		m, s := open(t, c)
		if run == 0 {
			if _, err := s.Append(t.Context(), events(4)...); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a checkpoint", func() bool { return c.Checkpoint() != nil })
		}
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := c.Wait(short); !errors.Is(err, context.DeadlineExceeded) || c.Pending() != 7 {
			t.Fatalf("run %d: Wait = %v with %d pending, want all 7 to wait for the witness", run, err, c.Pending())
		}
		if run == 1 {
			cosign()
			if err := errors.Join(c.Wait(t.Context()), m.Close(t.Context()), c.Wait(t.Context())); err != nil || c.Pending() != 0 {
				t.Errorf("Wait = %v with %d pending", err, c.Pending())
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	f.checkAccount(t, "crm-2026")
	// A client without an outbox waits for them too.
	cfg.Outbox = nil
	c := openOutbox(t, cfg)
	if _, err := c.OpenMigration(t.Context(), "crm-2027", client.MigrationConfig{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	f.with(func() { f.cosign = nil })
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.OpenMigration(t.Context(), "crm-2028", client.MigrationConfig{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait without the witness = %v", err)
	}
}
