package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
	"github.com/pipe-roll/piperoll/log/reader"
	"golang.org/x/mod/sumdb/note"
)

// childConfig makes this test binary the migration service that the file tells of.
var childConfig = flag.String("outbox-child", "", "be the service that is killed, as `file` says")

// A service is what its process has to know. It keeps what calls accepted in a file.
type service struct {
	URL, Token, LogKey, ReceiptKey string
	Key                            []byte
	Dir                            string // of the outbox, and of the files that say what was accepted
	Rows                           int
}

// TestOutboxChild is the process that TestOutboxKilled kills.
func TestOutboxChild(t *testing.T) {
	if *childConfig == "" {
		return // nothing to show by itself: TestOutboxKilled runs it, and looks at what it did
	}
	text, err := os.ReadFile(*childConfig)
	if err != nil {
		t.Fatal(err)
	}
	var s service
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	if err := s.run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (s *service) run(ctx context.Context) (err error) {
	c, err := client.New(client.Config{
		URL: s.URL, Token: s.Token, LogKey: s.LogKey, ReceiptKey: s.ReceiptKey, Principal: principal, Key: s.Key,
		BatchEvents: 20, Attempts: 3, BackoffMin: 20 * time.Millisecond, BackoffMax: 200 * time.Millisecond,
		Outbox: &client.OutboxConfig{Dir: filepath.Join(s.Dir, "outbox"), BatchAge: 2 * time.Millisecond},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	m, err := c.OpenMigration(ctx, "crm-2026", client.MigrationConfig{Streams: []string{"customers", "orders"}})
	if err != nil {
		return err
	}
	if m.Closed() {
		return c.Wait(ctx)
	}
	for _, name := range []string{"customers", "orders"} {
		st, err := m.OpenStream(ctx, name)
		if err != nil {
			return err
		}
		if err := s.move(ctx, st); err != nil {
			return err
		}
	}
	return errors.Join(m.Close(ctx), c.Wait(ctx))
}

// move logs the rows that are not in the stream yet.
func (s *service) move(ctx context.Context, st *client.Stream) error {
	path := filepath.Join(s.Dir, "accepted-"+filepath.Base(st.Name()))
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	done := int(st.End().Last) - 1
	if accepted, _ := strconv.Atoi(string(text)); done < accepted {
		return fmt.Errorf("LOST: %s has %d rows, and took %d", st.Name(), done, accepted)
	}
	for done < s.Rows {
		var some []client.Event
		for i := range min(7, s.Rows-done) {
			some = append(some, client.Event{
				Kind: "migration.load", Objects: []log.Object{{Name: "row-" + strconv.Itoa(done+i), Role: "target"}}, Payload: []byte(`{"amount":1}`),
			})
		}
		if done%3 == 0 {
			_, err = st.Append(ctx, some...)
			for errors.Is(err, client.ErrUnacknowledged) { // the server is down
				_, err = st.Flush(ctx)
			}
		} else {
			err = st.Put(ctx, some...)
		}
		if err != nil {
			return err
		}
		done += len(some)
		if err := os.WriteFile(path, []byte(strconv.Itoa(done)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// A migration service and its log, both real processes, both killed again and again:
// at the end the log has every row once, in order, in a complete migration.
func TestOutboxKilled(t *testing.T) { testOutboxKilled(t, 12, 400) }

// TestOutboxKilledNightly is TestOutboxKilled with more kills.
func TestOutboxKilledNightly(t *testing.T) { testOutboxKilled(t, 300, 8000) }

func testOutboxKilled(t *testing.T, kills, rows int) {
	s := newServer(t)
	s.fixListen(t)
	dir := t.TempDir()
	text, err := json.Marshal(service{s.cfg.URL, s.cfg.Token, s.cfg.LogKey, s.cfg.ReceiptKey, s.cfg.Key, dir, rows})
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "service.json")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	killed, midway := 0, 0
	for run := 0; ; run++ {
		var out bytes.Buffer
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOutboxChild$", "-outbox-child="+config)
		child.Stdout, child.Stderr = &out, &out
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- child.Wait() }()
		if killed < kills {
			time.Sleep(time.Duration(20+rand.IntN(150)) * time.Millisecond)
			if run%3 == 2 {
				s.stop(t, syscall.SIGKILL)
				s.start(t)
			}
			if err := child.Process.Kill(); err == nil {
				killed++
			}
			if _, err := os.Stat(filepath.Join(dir, "accepted-customers")); err == nil {
				midway++
			}
		}
		err := <-ended
		if strings.Contains(out.String(), "LOST") {
			t.Fatalf("run %d: %s", run, &out)
		}
		if err == nil {
			t.Logf("done after %d kills of the service, %d of them with rows on their way", killed, midway)
			break
		}
		if killed == kills && err.Error() != "signal: killed" {
			t.Fatalf("run %d: %v\n%s", run, err, &out)
		}
	}
	s.checkRows(t, rows)
}

// checkRows reads the whole log, as anyone can, and looks for the rows.
func (s *realServer) checkRows(t *testing.T, rows int) {
	t.Helper()
	logKey, err := note.NewVerifier(s.cfg.LogKey)
	if err != nil {
		t.Fatal(err)
	}
	auditor := strings.TrimSpace(s.run(t, "token", "-config", filepath.Join(s.dir, "config.yaml"), "-principal", "auditor", "-role", "auditor"))
	remote := reader.HTTP(s.cfg.URL, auditor, http.DefaultClient)
	c, err := client.New(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	// A migration of its own waits until everything before it is published.
	if err := move(t.Context(), c, "check", 4); err != nil {
		t.Fatal(err)
	}
	cp, err := log.OpenCheckpoint(c.Checkpoint(), logKey)
	if err != nil {
		t.Fatal(err)
	}
	heads, seen := map[string]log.Stream{}, map[string]int{}
	var closed *log.Event
	err = reader.New(remote, 64).Entries(t.Context(), cp.Head, 0, cp.Size, func(index uint64, text []byte) error {
		e, err := log.ParseEntry(text)
		if err != nil || e.Event.Migration != "crm-2026" {
			return err
		}
		h, ok := heads[e.Event.Stream]
		if !ok {
			h = log.NewStream(origin, e.Event.Stream)
		}
		if err := h.Check(e.Event, principal); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		h.Advance(e.Event, e.Event.Hash(), index, nil, false)
		heads[h.Name] = h
		switch e.Event.Kind {
		case "migration.load":
			if want := "row-" + strconv.Itoa(seen[h.Name]); e.Event.Objects[0].Name != want {
				return fmt.Errorf("entry %d is %s, want %s", index, e.Event.Objects[0].Name, want)
			}
			seen[h.Name]++
		case "migration.close":
			closed = &e.Event
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen["crm-2026/customers"] != rows || seen["crm-2026/orders"] != rows || closed == nil || len(heads) != 3 {
		t.Errorf("the log has %v rows of %d in %d streams, closed %v", seen, rows, len(heads), closed != nil)
	}
}
