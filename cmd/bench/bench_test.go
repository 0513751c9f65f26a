package main

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/cmd/bench/measure"
)

// TestNamesSayTheBytes holds the lines of the table to the bytes of the events that are sent.
func TestNamesSayTheBytes(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var body struct{ Event, Payload json.RawMessage }
	lines := strings.Split(string(requests("svc12", "m12/s", key, 1, 100)[1]), "\n")
	if err := json.Unmarshal([]byte(lines[0]), &body); err != nil {
		t.Fatal(err)
	}
	about := func(what string, got, want int) {
		if math.Abs(float64(got-want)) > float64(want)/20 {
			t.Errorf("%s has %d bytes, the table says %d", what, got, want)
		}
	}
	about("an event over HTTP", len(body.Event), httpEventBytes)
	about("its payload", len(body.Payload), httpPayloadBytes)
}

// TestEveryBenchRunsNightly runs the whole table once, one second each.
func TestEveryBenchRunsNightly(t *testing.T) {
	var out strings.Builder
	err := run(t.Context(), &out, []string{"-dir", t.TempDir(), "-rounds", "1", "-seconds", "1", "-events", "50000"})
	if errors.Is(err, measure.ErrUsage) {
		t.Skip("NOT RUN: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
}
