package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A checkpoint in the configuration is usually an old one: it does not make the outbox
// forget the one under which it let go of events. A log has to extend both.
func TestOutboxRemembersItsLog(t *testing.T) {
	for name, tc := range map[string]struct {
		other bool // the configured checkpoint is of another log of the same key
		lost  bool
		claim client.Claim
	}{
		"the log has all":       {},
		"it lost what it had":   {lost: true, claim: client.ClaimFork},
		"it never was that one": {other: true, claim: client.ClaimFork},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			cfg := f.outboxConfig(filepath.Join(t.TempDir(), "outbox"))
			c := openOutbox(t, cfg)
			m, s := open(t, c)
			if err := c.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			cfg.Checkpoint = c.Checkpoint()
			var size uint64
			f.with(func() { size = uint64(len(f.entries)) })
			if _, err := s.Append(t.Context(), events(8)...); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(m.Close(t.Context()), c.Wait(t.Context()), c.Close()); err != nil {
				t.Fatal(err)
			}
			if tc.other {
				other := newFake(nil)
				other.signer, other.key = f.signer, f.key
				for range 2 {
					other.append([]byte("elsewhere"))
				}
				w := httptest.NewRecorder()
				other.serveCheckpoint(w)
				cfg.Checkpoint = w.Body.Bytes()
			}
			if tc.lost {
				f.with(func() {
					f.rollback(size)
					for range 20 {
						f.append([]byte("of somebody else"))
					}
				})
			}
			c = openOutbox(t, cfg)
			if got := f.size(t, c.Checkpoint()); got != size+10 {
				t.Errorf("it begins with a checkpoint of size %d, want %d", got, size+10)
			}
			_, err := c.OpenMigration(t.Context(), "crm-2027", client.MigrationConfig{})
			if err = errors.Join(err, c.Wait(t.Context())); tc.claim == "" {
				if err != nil || c.Evidence() != nil {
					t.Errorf("Wait = %v, evidence %v", err, c.Evidence())
				}
				return
			}
			_ = caught(t, c, err, tc.claim)
		})
	}
}

// size is that of a checkpoint.
func (f *fakeLog) size(t *testing.T, msg []byte) uint64 {
	t.Helper()
	v, err := note.NewVerifier(f.vkey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := log.OpenCheckpoint(msg, v)
	if err != nil {
		t.Fatal(err)
	}
	return c.Size
}

// A log that acknowledges one thing and publishes another, whatever is sent again: who
// waits is told, it is asked less and less often, and the client has the evidence.
func TestOutboxTellsOfABrokenPromise(t *testing.T) {
	f := newFake(t)
	dir := filepath.Join(t.TempDir(), "outbox")
	cfg := f.outboxConfig(dir)
	cfg.BackoffMin, cfg.BackoffMax = 200*time.Millisecond, time.Minute
	c := openOutbox(t, cfg)
	_, s := open(t, c)
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.with(func() {
		f.held = true
		first := map[string][]byte{}
		f.part = func(int, *log.Part) {}
		f.after = func(_ int, w http.ResponseWriter, _ int, answer []byte) bool {
			if was := first[string(f.body)]; was != nil {
				answer = was
			}
			first[string(f.body)] = answer
			_, _ = w.Write(answer)
			return true
		}
	})
	placed, err := s.Append(t.Context(), events(3)...)
	if err != nil {
		t.Fatal(err)
	}
	requests := f.requests
	f.with(func() {
		f.rewrite(placed[1].Index, []byte("nothing happened"))
		f.held = false
	})
	var e *client.Evidence
	if err := c.Wait(t.Context()); !errors.As(err, &e) || e.Claim != client.ClaimEntry || c.Evidence() == nil || c.Evidence().Claim != client.ClaimEntry {
		t.Errorf("Wait = %v and the evidence is %v, want the entry that was dropped", err, c.Evidence())
	}
	time.Sleep(time.Second)
	f.with(func() {
		if n := f.requests - requests; n == 0 || n > 5 {
			t.Errorf("%d requests in about a second", n)
		}
	})
	if evidence(t, dir)["entry"] == nil {
		t.Error("nothing was saved")
	}
}

// A log that acknowledges and does not publish, for lack of a quorum perhaps, is asked
// ever less often whether it still has the events, and the outbox does not grow by that.
func TestOutboxWithoutAQuorumKeepsItsSize(t *testing.T) {
	f := newFake(t)
	dir := filepath.Join(t.TempDir(), "outbox")
	cfg := f.outboxConfig(dir)
	policy, cosign := witnessed(t, f)
	cfg.Policy, cfg.Outbox.Resubmit = policy, 10*time.Millisecond
	c := openOutbox(t, cfg)
	_, s := open(t, c)
	for range 50 {
		if _, err := s.Append(t.Context(), events(1)...); err != nil {
			t.Fatal(err)
		}
	}
	size := func() (n int64) {
		files, err := filepath.Glob(filepath.Join(dir, "*.outbox"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			info, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			n += info.Size()
		}
		return n
	}
	eventually(t, "the last write", func() bool { was := size(); time.Sleep(50 * time.Millisecond); return size() == was })
	before, requests := size(), 0
	f.with(func() { requests = f.requests })
	time.Sleep(time.Second)
	f.with(func() { requests = f.requests - requests })
	if after := size(); after != before || requests == 0 || requests > 20 {
		t.Errorf("%d bytes grew to %d, with %d requests", before, after, requests)
	}
	cosign()
	if err := c.Wait(t.Context()); err != nil || c.Pending() != 0 || c.Evidence() != nil {
		t.Errorf("Wait = %v with %d pending, evidence %v", err, c.Pending(), c.Evidence())
	}
}

// Whoever is on the way can change what is not signed, or invent it. An honest log is
// not accused by that, and when it stops all that was put is in the log.
func TestOutboxAccusesNobodyForAProxy(t *testing.T) {
	receipts := map[string]string{}
	for name, lie := range map[string]func(f *fakeLog, w http.ResponseWriter, answer []byte){
		"another decision": func(_ *fakeLog, w http.ResponseWriter, answer []byte) {
			_, _ = w.Write([]byte(strings.Replace(string(answer), `"as_of":0`, `"as_of":1`, 1)))
		},
		"an older receipt": func(f *fakeLog, w http.ResponseWriter, answer []byte) {
			var a map[string]any
			if err := json.Unmarshal(answer, &a); err != nil {
				panic(err)
			}
			if receipts[f.url] == "" {
				receipts[f.url], _ = a["receipt"].(string)
			}
			a["receipt"] = receipts[f.url]
			text, err := json.Marshal(a)
			if err != nil {
				panic(err)
			}
			_, _ = w.Write(text)
		},
		"a stream that is new": func(f *fakeLog, w http.ResponseWriter, _ []byte) {
			head := log.NewStream(origin, "crm-2026/customers")
			f.problem(w, 409, "fork", "another event has this place", &head)
		},
		"a stream that is before": func(f *fakeLog, w http.ResponseWriter, _ []byte) {
			head := log.NewStream(origin, "crm-2026/customers")
			for _, text := range f.entries {
				if e, err := log.ParseEntry(text); err == nil && e.Event.Stream == head.Name && e.Event.Seq < 11 {
					head.Seq, head.Hash = e.Event.Seq, e.Event.Hash()
				}
			}
			f.problem(w, 409, "fork", "another event has this place", &head)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			dir := filepath.Join(t.TempDir(), "outbox")
			cfg := f.outboxConfig(dir)
			cfg.BatchEvents = 2
			c := openOutbox(t, cfg)
			m, s := open(t, c)
			if _, err := s.Append(t.Context(), events(2)...); err != nil {
				t.Fatal(err)
			}
			if err := c.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.with(func() { f.held = true })
			for range 5 {
				if _, err := s.Append(t.Context(), events(2)...); err != nil {
					t.Fatal(err)
				}
			}
			lies := 0
			f.with(func() {
				f.after = func(_ int, w http.ResponseWriter, _ int, answer []byte) bool {
					lies++
					lie(f, w, answer)
					return true
				}
			})
			if err := s.Put(t.Context(), events(6)...); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a number of lies", func() (done bool) { f.with(func() { done = lies > 5 }); return done })
			f.with(func() { f.after, f.held = nil, false })
			if err := m.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all of it", func() bool { return c.Wait(t.Context()) == nil })
			if c.Evidence() != nil || len(evidence(t, dir)) != 0 {
				t.Errorf("evidence %v, saved %v", c.Evidence(), evidence(t, dir))
			}
			f.checkOurs(t, s.Name(), int(s.End().Last))
		})
	}
}

// A checkpoint that the policy accepted counts, also if the tiles were not to be had with
// it, and a cache with fewer cosignatures answers since.
func TestOutboxKeepsTheAcceptedCheckpoint(t *testing.T) {
	f := newFake(t)
	policy, cosign := witnessed(t, f)
	cfg := f.outboxConfig(filepath.Join(t.TempDir(), "outbox"))
	cfg.Policy = policy
	cosign()
	f.with(func() {
		f.held = true
		f.tile = func(_ tlog.Tile, data []byte) []byte { data[5] ^= 1; return data }
	})
	c := openOutbox(t, cfg)
	_, s := open(t, c)
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.with(func() { f.held = false })
	eventually(t, "a checkpoint of all", func() bool { return c.Checkpoint() != nil && f.size(t, c.Checkpoint()) == 4 })
	polls := 0
	f.with(func() {
		f.cosign = nil
		f.checkpoint = func(*log.Checkpoint) note.Signer { polls++; return nil }
	})
	eventually(t, "other answers", func() (done bool) { f.with(func() { done = polls > 3 }); return done })
	f.with(func() { f.tile = nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Wait(ctx); err != nil {
		t.Errorf("Wait = %v", err)
	}
}
