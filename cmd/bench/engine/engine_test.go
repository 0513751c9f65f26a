package engine

import (
	"math"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// TestNameSaysTheBytes holds the table's line to the bytes of the entries that are made.
func TestNameSaysTheBytes(t *testing.T) {
	r := request(12, &log.Payload{Bytes: make([]byte, payloadBytes)})
	now := r.Events[0].Time
	entry := log.Entry{Event: r.Events[0], Log: log.Part{Attested: log.AttestedByLog, Auth: r.Auth, By: r.By, Received: now, AsOf: 1}}
	entry.Event.Log, entry.Event.Seq = Origin, 1000
	if got := len(entry.Marshal()); math.Abs(float64(got-payloadEntryBytes)) > payloadEntryBytes/20 {
		t.Errorf("an entry with payload has %d bytes, the table says %d", got, payloadEntryBytes)
	}
}
