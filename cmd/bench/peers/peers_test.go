package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/cmd/bench/measure"
)

// TestReport: a peer is taken at its best in each quantity and held against the
// worse of our two lines, and where it wins the report says so.
func TestReport(t *testing.T) {
	contests := []contest{
		{"1,000/s", []measure.Quantity{measure.P50, measure.P99}, []contender{
			{piperollLog, "entries", nil},
			{piperollLog, "events", nil},
			{tesseraLog, "quick", nil},
			{tesseraLog, "steady", nil},
			{trillianLog, "queued", nil},
		}},
		{"64 writers", []measure.Quantity{measure.Rate}, []contender{
			{piperollLog, "entries", nil}, {piperollLog, "events", nil}, {tesseraLog, "quick", nil},
		}},
	}
	measured := [][]measure.Figures{
		{
			{measure.P50: 1, measure.P99: 2},
			{measure.P50: 2, measure.P99: 4},
			{measure.P50: 6, measure.P99: 40},
			{measure.P50: 9, measure.P99: 12},
			{measure.P50: 1.5, measure.P99: 50},
		},
		{{measure.Rate: 900}, {measure.Rate: 500}, {measure.Rate: 100}},
	}
	var lines [][]measure.Line
	for i, c := range contests {
		var of []measure.Line
		for j, who := range c.contenders {
			of = append(of, measure.Line{Bench: measure.Bench{Name: c.bench(who)}, Rounds: measure.Rounds{measured[i][j]}})
		}
		lines = append(lines, of)
	}
	var out strings.Builder
	behind := report(&out, contests, lines)
	for _, want := range []string{
		"| 1,000/s, p50 | 1.00 ms | 2.00 ms | 6.00 ms, quick: 3.0 times | 1.50 ms, queued: 0.8 times |",
		"| 1,000/s, p99 | 2.00 ms | 4.00 ms | 12.00 ms, steady: 3.0 times | 50.00 ms, queued: 12.5 times |",
		"| 64 writers, rate | 900 /s | 500 /s | 100 /s, quick: 5.0 times | - |",
		"It is not ahead here:\n\n- 1,000/s, p50: Trillian (queued) has 1.50 ms, events 2.00\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("report = %s, want %q in it", &out, want)
		}
	}
	if len(behind) != 1 {
		t.Errorf("behind = %q, want one place", behind)
	}
	out.Reset()
	if behind := report(&out, contests[1:], lines[1:]); len(behind) != 0 || !strings.Contains(out.String(), "ahead everywhere") {
		t.Errorf("report without a place behind = %s, %q", &out, behind)
	}
}

// TestAllPeersNightly puts every log in every setting under every load for a
// second: each has in the end what it has acknowledged.
func TestAllPeersNightly(t *testing.T) {
	if _, err := exec.LookPath(mariaBinary); err != nil {
		t.Skip("NOT RUN: ", err)
	}
	var out strings.Builder
	err := run(t.Context(), &out, []string{"-rounds", "1", "-seconds", "1", "-dir", t.TempDir()})
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
}
