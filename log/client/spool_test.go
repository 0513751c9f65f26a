package client

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// testSpool opens a spool as an outbox of this principal does.
func testSpool(t *testing.T, dir string) (*spool, error) {
	t.Helper()
	empty := &ledger{Origin: "log.example.com/test", Principal: "crm", Streams: map[string]*log.Stream{}, Migrations: map[string]*ledgerMigration{}}
	return openSpool(disk.OS(), dir, segmentMaxBytes, empty, func(uint64, record) error { return nil })
}

// testEvents makes the first three events of a stream.
func testEvents(t *testing.T, name string) (records []record) {
	t.Helper()
	c := &Client{origin: "log.example.com/test", cfg: Config{Principal: "crm", Now: time.Now}}
	open := log.StreamOpen{Keys: []log.PublicKey{{4: 1}}, Mode: log.ModeSigned, Owner: "crm"}
	state := log.NewStream(c.origin, "m/"+name)
	state.Migration = "m"
	for _, e := range []Event{{Kind: streamOpen, Payload: open.Marshal()}, {Kind: "x.one"}, {Kind: "x.two"}} {
		m, err := c.make(&state, e)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, record{kind: recordEvent, made: m})
	}
	return records
}

// A group that would not replay never reaches the disk: the spool stops, and what was
// written before is there for the next process.
func TestSpoolWritesNothingThatItCouldNotRead(t *testing.T) {
	a, b := testEvents(t, "a"), testEvents(t, "b")
	for name, bad := range map[string][]record{
		"opened twice": {a[0]}, "an event left out": {b[0], b[2]}, "an event twice": {b[0], b[1], b[1]}, "never opened": {b[1]},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := testSpool(t, dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.write(a...); err != nil {
				t.Fatal(err)
			}
			if err := s.write(bad...); !errors.Is(err, log.ErrFork) && !errors.Is(err, log.ErrGap) {
				t.Fatalf("write = %v", err)
			}
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
			if s, err = testSpool(t, dir); err != nil {
				t.Fatal(err)
			}
			if state, found, err := s.stream("m/a"); err != nil || !found || state.Seq != 3 {
				t.Errorf("stream is at %d, %v, %v", state.Seq, found, err)
			}
			if err := s.close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// An outbox of two segments that another version of the SDK wrote is opened: what its
// snapshots say more does not matter, and what they say else does.
func TestSpoolOfAnotherVersion(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(snapshot map[string]any)
		opens  bool
	}{
		"more fields":    {func(s map[string]any) { s["Later"] = []string{"a"} }, true},
		"another stream": {func(s map[string]any) { s["Streams"].(map[string]any)["m/a"].(map[string]any)["Seq"] = 2 }, false},
		"no streams":     {func(s map[string]any) { s["Streams"] = map[string]any{} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := testSpool(t, dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.write(testEvents(t, "a")...); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.begin(2), s.close()); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, segmentName(2))
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			records, err := parseRecords(data[groupHeaderBytes:])
			if err != nil {
				t.Fatal(err)
			}
			var snapshot map[string]any
			if err := json.Unmarshal(records[0].bytes, &snapshot); err != nil {
				t.Fatal(err)
			}
			tc.change(snapshot)
			if records[0].bytes, err = json.Marshal(snapshot); err != nil { // its fields are in another order, too
				t.Fatal(err)
			}
			group := records[0].append(make([]byte, groupHeaderBytes))
			putGroup(group, 2, 0)
			if err := os.WriteFile(path, group, 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err = testSpool(t, dir); (err == nil) != tc.opens {
				t.Fatalf("open = %v", err)
			}
			if err == nil {
				if err := s.close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
