package client

import (
	"errors"
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

// A group that would not replay never reaches the disk: the spool stops, and what was
// written before is there for the next process.
func TestSpoolWritesNothingThatItCouldNotRead(t *testing.T) {
	c := &Client{origin: "log.example.com/test", cfg: Config{Principal: "crm", Now: time.Now}}
	key := log.PublicKey{4: 1}
	open := log.StreamOpen{Keys: []log.PublicKey{key}, Mode: log.ModeSigned, Owner: "crm"}
	stream := func(name string) (records []record) {
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
	a, b := stream("a"), stream("b")
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
