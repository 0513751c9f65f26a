package client_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// caught says whether err is evidence of the claim, and whether nothing goes on after it.
func caught(t *testing.T, c *client.Client, err error, claim client.Claim) *client.Evidence {
	t.Helper()
	var e *client.Evidence
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want evidence of %s", err, claim)
	}
	if e.Claim != claim || e.Detail == "" || len(e.Files) == 0 {
		t.Errorf("evidence is %q, %q with %d files, want %q", e.Claim, e.Detail, len(e.Files), claim)
	}
	if c.Evidence() != e {
		t.Error("the client does not keep the evidence")
	}
	if _, err := c.OpenMigration(t.Context(), "another", client.MigrationConfig{}); !errors.As(err, new(*client.Evidence)) {
		t.Errorf("after evidence OpenMigration = %v", err)
	}
	if err := c.Wait(t.Context()); !errors.As(err, new(*client.Evidence)) {
		t.Errorf("after evidence Wait = %v", err)
	}
	if _, err := c.Proof(t.Context(), client.Placed{Index: 1 << 40}); !errors.As(err, new(*client.Evidence)) {
		t.Errorf("after evidence Proof = %v", err)
	}
	return e
}

// A log that acknowledges something else than what was sent.
func TestFalseReceipts(t *testing.T) {
	for name, lie := range map[string]func(f *fakeLog){
		"other leaves":      func(f *fakeLog) { f.receipt = func(r *log.Receipt) note.Signer { r.Leaves[3] ^= 1; return nil } },
		"another index":     func(f *fakeLog) { f.receipt = func(r *log.Receipt) note.Signer { r.First++; return nil } },
		"fewer entries":     func(f *fakeLog) { f.receipt = func(r *log.Receipt) note.Signer { r.Count--; return nil } },
		"another time":      func(f *fakeLog) { f.receipt = func(r *log.Receipt) note.Signer { r.Received--; return nil } },
		"by another":        func(f *fakeLog) { f.part = func(_ int, p *log.Part) { p.By = "mallory" } },
		"made by the log":   func(f *fakeLog) { f.part = func(_ int, p *log.Part) { p.Attested = "log" } },
		"decided in future": func(f *fakeLog) { f.part = func(_ int, p *log.Part) { p.AsOf = 1 << 30 } },
		"decided before": func(f *fakeLog) {
			f.part = func(i int, p *log.Part) { p.AsOf = uint64(1 - i) }
		},
		"two times": func(f *fakeLog) {
			f.part = func(i int, p *log.Part) { p.Received += uint64(i); p.SkewMS += int64(i) }
		},
		"wrong skew": func(f *fakeLog) { f.part = func(_ int, p *log.Part) { p.SkewMS++ } },
		"a place before": func(f *fakeLog) {
			f.after = func(_ int, w http.ResponseWriter, status int, body []byte) bool {
				var a map[string]any
				if err := json.Unmarshal(body, &a); err != nil {
					panic(err)
				}
				text := strings.Replace(string(body), `"index":4`, `"index":1`, 1)
				w.WriteHeader(status)
				_, _ = w.Write([]byte(text))
				return true
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c := f.client(t)
			m, s := open(t, c)
			f.with(func() { lie(f) })
			placed, err := s.Append(t.Context(), events(2)...)
			if len(placed) != 0 {
				t.Errorf("%d placed", len(placed))
			}
			e := caught(t, c, err, client.ClaimReceipt)
			if _, err := s.Append(t.Context(), events(1)...); !errors.As(err, new(*client.Evidence)) {
				t.Errorf("after evidence Append = %v", err)
			}
			if err := m.Close(t.Context()); !errors.As(err, new(*client.Evidence)) {
				t.Errorf("after evidence Close = %v", err)
			}
			checkSaved(t, e)
		})
	}
}

// A receipt that the log's key did not sign says nothing about the log: whoever is
// on the way can have made it.
func TestReceiptsOfNobody(t *testing.T) {
	other, _ := newSigner(log.ReceiptKeyName(origin))
	for name, lie := range map[string]func(f *fakeLog){
		"another key":          func(f *fakeLog) { f.receipt = func(*log.Receipt) note.Signer { return other } },
		"the checkpoint's key": func(f *fakeLog) { f.receipt = func(*log.Receipt) note.Signer { return f.signer } },
		"another log":          func(f *fakeLog) { f.receipt = func(r *log.Receipt) note.Signer { r.Origin = "elsewhere"; return nil } },
		"and another sender": func(f *fakeLog) {
			f.receipt = func(*log.Receipt) note.Signer { return other }
			f.part = func(_ int, p *log.Part) { p.By = "mallory" }
		},
	} {
		f := newFake(t)
		c := f.client(t)
		_, s := open(t, c)
		f.with(func() { lie(f) })
		if placed, err := s.Append(t.Context(), events(2)...); !errors.Is(err, client.ErrAnswer) || !errors.Is(err, client.ErrUnacknowledged) || len(placed) != 0 {
			t.Errorf("%s: Append = %d placed, %v, want ErrAnswer", name, len(placed), err)
		}
		if c.Evidence() != nil || s.Unacknowledged() != 2 {
			t.Errorf("%s: %d unacknowledged, evidence %v", name, s.Unacknowledged(), c.Evidence())
		}
		f.with(func() { f.receipt, f.part = nil, nil })
		placed, err := s.Flush(t.Context())
		if name == "and another sender" { // what the log then signs is evidence
			_ = caught(t, c, err, client.ClaimReceipt)
		} else if err != nil || len(placed) != 2 {
			t.Errorf("%s: Flush = %d placed, %v", name, len(placed), err)
		}
	}
}

// checkSaved says whether evidence survives on disk.
func checkSaved(t *testing.T, e *client.Evidence) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "evidence")
	if err := e.Save(dir); err != nil {
		t.Fatal(err)
	}
	for _, f := range e.Files {
		got, err := os.ReadFile(filepath.Join(dir, f.Name))
		if err != nil || string(got) != string(f.Data) {
			t.Errorf("saved %s: %v", f.Name, err)
		}
	}
	claim, err := os.ReadFile(filepath.Join(dir, "claim"))
	if err != nil || string(claim) != string(e.Claim)+"\n"+e.Detail+"\n" {
		t.Errorf("saved claim %q, %v", claim, err)
	}
	if err := e.Save(dir); !errors.Is(err, os.ErrExist) {
		t.Errorf("Save over other evidence = %v", err)
	}
	// What fails leaves nothing, and can be done again.
	bad := client.Evidence{Claim: e.Claim, Detail: e.Detail, Files: []client.File{{Name: "no/folder"}}}
	if err := bad.Save(dir + "2"); err == nil {
		t.Error("Save did not tell that a file was not written")
	}
	if names, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(names) != 1 {
		t.Errorf("beside the evidence there is %v, %v", names, err)
	}
	if err := e.Save(dir + "2"); err != nil {
		t.Errorf("Save after a failure = %v", err)
	}
}

// A 409 with a head: what the owner did not compute is not adopted.
func TestHeads(t *testing.T) {
	conflict := func(f *fakeLog, change func(head *log.Stream)) {
		f.with(func() {
			f.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				head := *f.streams["crm-2026/customers"]
				change(&head)
				f.problem(w, 409, "fork", "another event has this place", &head)
				return true
			}
		})
	}
	for name, change := range map[string]func(head *log.Stream){
		"one more event":   func(h *log.Stream) { h.Seq++; h.Hash[0] ^= 1 },
		"many more events": func(h *log.Stream) { h.Seq += 1000; h.Hash[0] ^= 1 },
		"another event":    func(h *log.Stream) { h.Hash[0] ^= 1 },
		"lost events":      func(h *log.Stream) { h.Seq--; h.Hash[0] ^= 1 },
		"lost the stream":  func(h *log.Stream) { h.Seq, h.Hash = 0, log.StreamStart(origin, h.Name) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c := f.client(t)
			_, s := open(t, c)
			placed, err := s.Append(t.Context(), events(2)...)
			if err != nil {
				t.Fatal(err)
			}
			conflict(f, change)
			_, err = s.Append(t.Context(), events(1)...)
			e := caught(t, c, err, client.ClaimHead)
			last := e.Files[len(e.Files)-1]
			if last.Name != "receipt" || string(last.Data) != string(placed[0].Receipt) {
				t.Errorf("evidence lacks the last receipt: %s", last.Name)
			}
		})
	}
	// Heads that contradict nothing: the owner's own, or of a stream that another run opened.
	f := newFake(t)
	c := f.client(t)
	_, s := open(t, c)
	conflict(f, func(*log.Stream) {})
	var r *client.Refused
	if _, err := s.Append(t.Context(), events(1)...); !errors.As(err, &r) || r.Status != 409 {
		t.Errorf("Append = %v, want a plain refusal", err)
	}
	f.with(func() { f.before = nil })
	again := f.client(t)
	if _, err := again.OpenMigration(t.Context(), "crm-2026", client.MigrationConfig{}); !errors.As(err, &r) || r.Status != 409 {
		t.Errorf("opening a migration again = %v, want a plain refusal", err)
	}
	if _, err := again.JoinMigration("crm-2026").OpenStream(t.Context(), "customers"); !errors.As(err, &r) || r.Status != 409 {
		t.Errorf("opening a stream again = %v, want a plain refusal", err)
	}
	if e := again.Evidence(); e != nil {
		t.Errorf("a second run is no evidence: %v", e)
	}
}

// An acknowledged entry that is not there when it is published: what is saved
// convicts the log, in the hands of an auditor with the real verifier.
func TestDroppedEntry(t *testing.T) {
	verifier := filepath.Join(t.TempDir(), "verifier.exe")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", verifier, "../../cmd/verifier").CombinedOutput(); err != nil {
		t.Fatalf("build the verifier: %v\n%s", err, out)
	}
	drop := func(t *testing.T, f *fakeLog, s *client.Stream, n int) client.Placed {
		placed, err := s.Append(t.Context(), events(n)...)
		if err != nil {
			t.Fatal(err)
		}
		at := placed[n/3]
		f.with(func() { f.rewrite(at.Index, []byte("nothing happened")) })
		return at
	}
	entry := []string{"-logged", "in-the-log.entry", "receipt", "in-the-log.tlog-proof"}
	for name, tc := range map[string]struct {
		events   int
		withheld bool
		find     func(t *testing.T, c *client.Client, at client.Placed) error
		args     []string
		code     int
		want     string
	}{
		"found by Wait": {
			300, false, func(t *testing.T, c *client.Client, _ client.Placed) error { return c.Wait(t.Context()) },
			append([]string{"-leaves", "leaves"}, entry...), 1, "CONVICTED",
		},
		"found by Proof": {
			1, false, func(t *testing.T, c *client.Client, at client.Placed) error {
				_, err := c.Proof(t.Context(), at)
				return err
			},
			append([]string{"-entry", "entry.json"}, entry...), 1, "CONVICTED",
		},
		"the other entry is withheld": {
			3, true, func(t *testing.T, c *client.Client, _ client.Placed) error { return c.Wait(t.Context()) },
			[]string{"-leaves", "leaves", "receipt", "in-the-log.tlog-proof"},
			1, "it convicts the log only together with the entry that it is of",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.withheld = tc.withheld
			c := f.client(t)
			_, s := open(t, c)
			at := drop(t, f, s, tc.events)
			e := caught(t, c, tc.find(t, c, at), client.ClaimEntry)
			if strings.Contains(e.Detail, "is not at hand") != tc.withheld {
				t.Errorf("the evidence says %q", e.Detail)
			}
			dir := filepath.Join(t.TempDir(), "evidence")
			if err := e.Save(dir); err != nil {
				t.Fatal(err)
			}
			policy := "log " + f.vkey + "\nlog " + f.receiptVKey + "\nquorum none\n"
			if err := os.WriteFile(filepath.Join(dir, "policy"), []byte(policy), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), verifier, append([]string{"receipt", "-policy", "policy"}, tc.args...)...)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err == nil || cmd.ProcessState.ExitCode() != tc.code || !strings.Contains(string(out), tc.want) {
				t.Errorf("verifier receipt = %v, want %q:\n%s", err, tc.want, out)
			}
		})
	}
}

// Tiles that do not give the signed root prove nothing, against the log neither:
// they are unsigned, and a cache can have wrong ones.
func TestFalseTiles(t *testing.T) {
	f := newFake(t)
	c := f.client(t)
	_, s := open(t, c)
	spoil := func(_ tlog.Tile, data []byte) []byte {
		data[5] ^= 1
		return data
	}
	placed, err := s.Append(t.Context(), events(3)...)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first time there is no checkpoint yet, then there is one to extend
		f.with(func() { f.tile = spoil })
		if err := c.Wait(t.Context()); !errors.Is(err, log.ErrProof) || !errors.Is(err, client.ErrAnswer) {
			t.Errorf("Wait = %v, want ErrProof", err)
		}
		if e := c.Evidence(); e != nil || c.Pending() == 0 {
			t.Fatalf("%d pending, and evidence %v", c.Pending(), e)
		}
		f.with(func() { f.tile = nil })
		if err := c.Wait(t.Context()); err != nil || c.Pending() != 0 {
			t.Fatalf("Wait = %v, %d pending", err, c.Pending())
		}
		if placed, err = s.Append(t.Context(), events(300)...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Proof(t.Context(), placed[0]); err != nil {
		t.Error(err)
	}
}

// Two checkpoints of one key that no one log can have.
func TestFork(t *testing.T) {
	for name, fork := range map[string]func(f *fakeLog, s *client.Stream) error{
		"of one size": func(f *fakeLog, _ *client.Stream) error {
			f.checkpoint = func(c *log.Checkpoint) note.Signer { c.Root[0] ^= 1; return nil }
			return nil
		},
		"of a larger size": func(f *fakeLog, s *client.Stream) error {
			_, err := s.Append(t.Context(), events(5)...)
			f.with(func() { f.rewrite(1, []byte("another beginning")) })
			return err
		},
		"of a smaller size": func(f *fakeLog, _ *client.Stream) error {
			f.checkpoint = func(c *log.Checkpoint) note.Signer {
				c.Head = f.head(c.Size - 1)
				c.Root[0] ^= 1
				return nil
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c := f.client(t)
			_, s := open(t, c)
			if err := c.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := c.Checkpoint()
			if err := fork(f, s); err != nil {
				t.Fatal(err)
			}
			_, err := c.Proof(t.Context(), client.Placed{Index: 1 << 40})
			e := caught(t, c, err, client.ClaimFork)
			if a, b := string(e.Files[0].Data), string(e.Files[1].Data); a != string(before) && b != string(before) || a == b {
				t.Errorf("the evidence is not the two checkpoints:\n%s\n%s", a, b)
			}
		})
	}
}

// A service that kept its last checkpoint finds a log that forked while it was away.
func TestForkBetweenRuns(t *testing.T) {
	f := newFake(t)
	c := f.client(t)
	_, s := open(t, c)
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg := f.config()
	cfg.Checkpoint = c.Checkpoint()
	if _, err := s.Append(t.Context(), events(5)...); err != nil {
		t.Fatal(err)
	}
	for _, forked := range []bool{false, true} {
		if forked {
			f.with(func() { f.rewrite(2, []byte("another beginning")) })
		}
		c, err := client.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Proof(t.Context(), client.Placed{Index: 1 << 40})
		if forked {
			_ = caught(t, c, err, client.ClaimFork)
		} else if !errors.Is(err, client.ErrNotPublished) {
			t.Errorf("Proof = %v, want ErrNotPublished", err)
		}
	}
}

// What a cache or a young log answers is no evidence.
func TestStaleCheckpoint(t *testing.T) {
	f := newFake(t)
	c := f.client(t)
	_, s := open(t, c)
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	placed, err := s.Append(t.Context(), events(2)...)
	if err != nil {
		t.Fatal(err)
	}
	polls := 0
	f.with(func() {
		f.checkpoint = func(cp *log.Checkpoint) note.Signer {
			if polls++; polls < 3 {
				cp.Head = f.head(2) // older than what the client has seen
			}
			return nil
		}
	})
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if polls != 3 {
		t.Errorf("asked %d times, want 3", polls)
	}
	if _, err := c.Proof(t.Context(), placed[0]); err != nil {
		t.Error(err)
	}
}

func TestCheckpointOfAnotherKey(t *testing.T) {
	f := newFake(t)
	c := f.client(t)
	open(t, c)
	other, _ := newSigner(origin)
	f.with(func() { f.checkpoint = func(*log.Checkpoint) note.Signer { return other } })
	if err := c.Wait(t.Context()); !errors.Is(err, log.ErrSignature) || !errors.Is(err, client.ErrAnswer) {
		t.Errorf("Wait = %v, want ErrSignature", err)
	}
	if e := c.Evidence(); e != nil {
		t.Errorf("a note that the log did not sign is no evidence against it: %v", e)
	}
	f.with(func() { f.checkpoint = nil })
	if err := c.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOverdue(t *testing.T) {
	f := newFake(t)
	cfg := f.config()
	late := time.Duration(0)
	cfg.Now = func() time.Time { return time.Now().Add(late) }
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.with(func() { f.held = true })
	open(t, c)
	late = 2 * promiseMS * time.Millisecond
	if err := c.Wait(t.Context()); !errors.Is(err, client.ErrOverdue) {
		t.Errorf("Wait = %v, want ErrOverdue", err)
	}
	f.with(func() { f.held = false })
	if err := c.Wait(t.Context()); err != nil || c.Pending() != 0 {
		t.Errorf("Wait = %v with %d pending: late is better than never", err, c.Pending())
	}
}
