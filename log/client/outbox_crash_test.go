package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// A mover is a migration service on a machine that crashes: it moves rows, one event
// each, and knows how far it is by its stream alone.
type mover struct {
	log      *fakeLog
	rows     int // that there are
	accepted int // by the outbox, in calls that returned nil
}

// padding makes segments fill, so that some begin and some are removed.
var padding = strings.Repeat("x", 30_000)

func row(i int) client.Event {
	return client.Event{Kind: "migration.load", Payload: fmt.Appendf(nil, `{"pad":"%s","row":%d}`, padding[:i%3*15_000], i)}
}

// run moves what is left to move, in one life of the service.
func (m *mover) run(ctx context.Context, fs *crashfs.FS) (err error) {
	cfg := m.log.outboxConfig("outbox")
	cfg.URL, cfg.HTTP, cfg.AllowPlainHTTP = "http://log.example.com", &http.Client{Transport: direct{m.log}}, true
	cfg.Outbox.FS, cfg.Outbox.MaxBytes = fs, 1<<20
	cfg.BatchEvents = 4
	c, err := client.New(cfg)
	if err != nil {
		return err
	}
	defer func() {
		// A dead process closes nothing; here its goroutines have to end.
		if closed := c.Close(); err == nil {
			err = closed
		}
	}()
	mig, err := c.OpenMigration(ctx, "crm-2026", client.MigrationConfig{Streams: []string{"customers"}})
	if err != nil {
		return err
	}
	if mig.Closed() {
		return c.Wait(ctx)
	}
	s, err := mig.OpenStream(ctx, "customers")
	if err != nil {
		return err
	}
	done := int(s.End().Last) - 1
	if done < m.accepted {
		return fmt.Errorf("%w: the outbox has %d rows, and took %d", errLost, done, m.accepted)
	}
	for done < m.rows {
		n := min(3, m.rows-done)
		var some []client.Event
		for i := range n {
			some = append(some, row(done+i))
		}
		if done%2 == 0 {
			err = s.Put(ctx, some...)
		} else {
			_, err = s.Append(ctx, some...)
		}
		if err != nil {
			return err
		}
		done += n
		m.accepted = done
	}
	return errors.Join(mig.Close(ctx), c.Wait(ctx))
}

var errLost = errors.New("lost")

// check says whether the log has every row once, in order.
func (m *mover) check(t *testing.T) {
	t.Helper()
	f := m.log
	var rows []int
	for index, text := range f.entries {
		e, err := log.ParseEntry(text)
		if err != nil || e.Event.Kind != "migration.load" {
			continue
		}
		var p struct{ Row int }
		if err := json.Unmarshal(f.payloads[uint64(index)].Bytes, &p); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, p.Row)
	}
	for i, r := range rows {
		if r != i {
			t.Fatalf("row %d of the log is %d: %v", i, r, rows)
		}
	}
	if len(rows) != m.rows {
		t.Fatalf("the log has %d rows, want %d", len(rows), m.rows)
	}
	f.checkOurs(t, "crm-2026/customers", m.rows+2)
	f.checkAccount(t, "crm-2026")
}

// finish lets the service live until it is done; nothing fails any more.
func (m *mover) finish(t *testing.T, fs *crashfs.FS, how string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if err := m.run(ctx, fs); err != nil {
		t.Fatalf("%s: the last life: %v", how, err)
	}
	m.check(t)
}

const crashRows = 40

// Every crash point of a whole migration, with a second crash while the outbox is
// opened or goes on: what a call took is in the log once, in its place.
func TestOutboxCrashes(t *testing.T) {
	seeds := uint64(2)
	if testing.Short() {
		seeds = 1
	}
	testOutboxCrashes(t, seeds)
}

// TestOutboxCrashesNightly is TestOutboxCrashes with more that a crash can leave.
func TestOutboxCrashesNightly(t *testing.T) { testOutboxCrashes(t, 150) }

func testOutboxCrashes(t *testing.T, seeds uint64) {
	points := 0
	for seed := range seeds {
		for at := 1; crashAt(t, at, seed*1_000_003+uint64(at)) && !t.Failed(); at++ {
			points++
		}
	}
	t.Logf("%d crash points, each with a second crash", points)
	if points < 50*int(seeds) {
		t.Errorf("%d crash points: the service hardly wrote anything", points)
	}
}

// crashAt says whether the service came as far as that change.
func crashAt(t *testing.T, at int, seed uint64) (crashed bool) {
	synctest.Test(t, func(t *testing.T) {
		m := &mover{log: newFake(nil), rows: crashRows}
		fs := crashfs.New(seed)
		fs.CrashAt(at)
		err := m.run(t.Context(), fs)
		if crashed = err != nil; !crashed {
			m.check(t)
			return
		}
		if errors.Is(err, errLost) {
			t.Fatalf("crash at %d, seed %d: %v", at, seed, err)
		}
		fs = fs.After(seed)
		fs.CrashAt(1 + int(seed%29))
		if err := m.run(t.Context(), fs); errors.Is(err, errLost) {
			t.Fatalf("crash at %d, seed %d, and again: %v", at, seed, err)
		}
		m.finish(t, fs.After(seed+1), fmt.Sprintf("crash at %d, seed %d", at, seed))
	})
	return crashed
}

// Calls to the file system fail, once or from then on: the service notices, and the
// next process, on the same machine or after a power cut, has everything.
func TestOutboxDiskFaults(t *testing.T) {
	step := 9
	if testing.Short() {
		step = 51
	}
	testOutboxDiskFaults(t, step)
}

// TestOutboxDiskFaultsNightly lets every call fail.
func TestOutboxDiskFaultsNightly(t *testing.T) { testOutboxDiskFaults(t, 1) }

func testOutboxDiskFaults(t *testing.T, step int) {
	for fault, name := range map[crashfs.Fault]string{crashfs.EIO: "EIO", crashfs.ENOSPC: "ENOSPC", crashfs.ShortWrite: "short write"} {
		for at := 1; failAt(t, at, fault, name, at/step%2 == 0) && !t.Failed(); at += step {
			if step == 1 {
				failAt(t, at, fault, name, at%2 == 1)
			}
		}
	}
}

// failAt says whether the service came as far as that call.
func failAt(t *testing.T, at int, fault crashfs.Fault, name string, lasting bool) (failed bool) {
	synctest.Test(t, func(t *testing.T) {
		m := &mover{log: newFake(nil), rows: crashRows}
		fs := crashfs.New(uint64(at))
		fs.FailAt(at, fault, lasting)
		err := m.run(t.Context(), fs)
		if errors.Is(err, errLost) {
			t.Fatalf("%s at call %d: %v", name, at, err)
		}
		if failed = fs.Calls() >= at; !failed {
			m.check(t)
			return
		}
		if at%2 == 0 {
			fs = fs.Restart(uint64(at))
		} else {
			fs = fs.After(uint64(at))
		}
		m.finish(t, fs, fmt.Sprintf("%s at call %d", name, at))
	})
	return failed
}
