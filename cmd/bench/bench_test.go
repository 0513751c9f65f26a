package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// three gives a bench three rounds with these p99 and ratios.
func three(g goals, p99s, ratios [3]float64) line {
	l := line{bench: bench{name: "engine", goals: g}}
	for i := range p99s {
		l.rounds = append(l.rounds, figures{p99: p99s[i], p99OfRaw: ratios[i]})
	}
	return l
}

// TestVerdicts: one bad round neither hides a goal that was met nor saves one that was not.
func TestVerdicts(t *testing.T) {
	both := goals{{p99, "<", 10}, {p99OfRaw, "<=", 3}}
	for _, tc := range []struct {
		l    line
		want string
	}{
		{three(both, [3]float64{7, 158, 9}, [3]float64{1, 13.7, 3}), met},
		{three(both, [3]float64{7, 158, 10}, [3]float64{1, 13.7, 2}), missed},
		{three(both, [3]float64{7, 8, 9}, [3]float64{1, 3.1, 5.2}), missed},
		{three(goals{{p99OfRaw, ">=", .5}}, [3]float64{}, [3]float64{.76, .52, .25}), met},
		{three(nil, [3]float64{1, 2, 3}, [3]float64{}), ""},
	} {
		if got := tc.l.verdict(); got != tc.want {
			t.Errorf("verdict of %v under %v = %q, want %q", tc.l.rounds, tc.l.bench.goals, got, tc.want)
		}
	}
	l := three(both, [3]float64{7, 158, 9}, [3]float64{1, 13.7, 3})
	if got, want := l.rounds.String(), "p99 9.0 [7.0 to 158.0] ms, p99/raw 3.00 [1.00 to 13.70]"; got != want {
		t.Errorf("rounds = %q, want %q", got, want)
	}
	if got, want := both.String(), "p99 < 10 ms, p99/raw <= 3"; got != want {
		t.Errorf("goals = %q, want %q", got, want)
	}
	if got := l.rounds[:2].median(p99); got != 82.5 {
		t.Errorf("median of two rounds = %v, want 82.5", got)
	}
}

// TestRounds: what is compared runs in the same round as raw, in turning order,
// each in an empty folder; and raw runs even if nobody asked for it.
func TestRounds(t *testing.T) {
	var ran []string
	fake := func(name string, latency float64) bench {
		return bench{name: name, run: func(_ context.Context, e env) (figures, error) {
			ran = append(ran, name)
			if files, err := os.ReadDir(e.dir); err != nil || len(files) > 0 {
				t.Errorf("%s runs in a folder with %v, %v", name, files, err)
			}
			return figures{p99: latency}, os.WriteFile(filepath.Join(e.dir, "left"), nil, 0o600)
		}}
	}
	s := set{3, []bench{fake("raw group commit", 2), fake("engine", 5), fake("other", 1)}}
	lines, err := s.run(t.Context(), env{dir: t.TempDir()}, regexp.MustCompile("^engine"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"raw group commit", "engine", "engine", "raw group commit", "raw group commit", "engine"}
	if !slices.Equal(ran, want) {
		t.Errorf("ran %q, want %q", ran, want)
	}
	if got := lines[1].rounds.of(p99OfRaw); !slices.Equal(got, []float64{2.5, 2.5, 2.5}) {
		t.Errorf("engine's p99 of raw = %v, want 2.5 three times", got)
	}
	if lines, err := s.run(t.Context(), env{dir: t.TempDir()}, regexp.MustCompile("HTTP")); err != nil || len(lines) > 0 {
		t.Errorf("a set that nobody asked for = %v, %v, want nothing", lines, err)
	}
	broken := bench{name: "broken", run: func(context.Context, env) (figures, error) { return nil, errors.New("no disk") }}
	if _, err := (set{1, []bench{broken}}).run(t.Context(), env{dir: t.TempDir()}, regexp.MustCompile("")); err == nil || !strings.Contains(err.Error(), "broken, round 1: no disk") {
		t.Errorf("a bench that fails = %v, want its name and its round", err)
	}
}

// TestStrict: a goal that is missed is said in the table, and fails the run only if asked to.
func TestStrict(t *testing.T) {
	slow := func(context.Context, env) (figures, error) { return figures{p99: 12}, nil }
	all := []set{alone(1, "slow", goals{{p99, "<", 10}}, slow), alone(1, "fast", goals{{p99, "<", 20}}, slow)}
	var out strings.Builder
	if err := measure(t.Context(), &out, env{dir: t.TempDir()}, all, regexp.MustCompile(""), false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| slow | 1 | p99 12.0 [12.0 to 12.0] ms", "| p99 < 10 ms | missed |", "| p99 < 20 ms | met |", "Foreign work took"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("table = %s, want %q in it", &out, want)
		}
	}
	err := measure(t.Context(), &out, env{dir: t.TempDir()}, all, regexp.MustCompile(""), true)
	if err == nil || err.Error() != "goals missed: slow" {
		t.Errorf("strict = %v, want the name of the one that was missed", err)
	}
}

// TestQuantities: whatever a bench may measure is printed.
func TestQuantities(t *testing.T) {
	f := maps.Clone(latencies{3 * time.Millisecond, time.Millisecond}.figures())
	f.compare(figures{p99: 1})
	f[rate], f[foreign], f[took], f[acked] = 1, 1, 1, 1
	f.compare(figures{rate: 2})
	for q, v := range f {
		if !slices.Contains(quantities, q) || math.IsNaN(v) {
			t.Errorf("%s = %v is not printed", q.name, v)
		}
	}
	if f[p50] != 3 || f[p99OfRaw] != 3 || f[rateOfRaw] != .5 {
		t.Errorf("figures = %v", f)
	}
}

// TestForeignWork: what others did is what is left of the cores' work without ours.
func TestForeignWork(t *testing.T) {
	at := time.Now()
	before := usage{at: at, busy: time.Second, own: time.Second, steal: 0, all: 10 * time.Second}
	after := usage{at: at.Add(10 * time.Second), busy: 16 * time.Second, own: 11 * time.Second, steal: 2 * time.Second, all: 30 * time.Second}
	if u := after.since(before); u.foreign() != .5 || u.stolen() != 10 {
		t.Errorf("foreign, stolen = %v, %v, want 0.5 cores, 10 %%", u.foreign(), u.stolen())
	}
	if u := (usage{}).since(usage{}); u.foreign() != 0 || u.stolen() != 0 {
		t.Errorf("foreign, stolen of no time = %v, %v, want none", u.foreign(), u.stolen())
	}
}

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
	r := request(12, &log.Payload{Bytes: body.Payload})
	now := r.Events[0].Time
	entry := log.Entry{Event: r.Events[0], Log: log.Part{Attested: log.AttestedByLog, Auth: r.Auth, By: r.By, Received: now, AsOf: 1}}
	entry.Event.Log, entry.Event.Seq = benchOrigin, 1000
	about("an entry with payload", len(entry.Marshal()), payloadEntryBytes)
}

func TestNoDiskIsRefused(t *testing.T) {
	if fileSystem("/dev/shm") != "tmpfs" {
		t.Log("NOT RUN: there is no tmpfs here")
		return
	}
	err := run(t.Context(), t.Output(), []string{"-dir", "/dev/shm"})
	if err == nil || !strings.Contains(err.Error(), "a sync costs nothing") || exitCode(err) != 2 {
		t.Errorf("bench on a tmpfs = %v, want a refusal that says why", err)
	}
}

// Scripts can tell a missed goal from a bench that did not run.
func TestExitCodes(t *testing.T) {
	for want, args := range map[int][]string{
		2: {"-rounds", "0"},
		6: {"-dir", filepath.Join(t.TempDir(), "none")},
	} {
		if err := run(t.Context(), t.Output(), args); exitCode(err) != want {
			t.Errorf("bench %q = %v, exit %d, want %d", args, err, exitCode(err), want)
		}
	}
	if err := run(t.Context(), t.Output(), []string{"-flag"}); exitCode(err) != 2 {
		t.Errorf("an unknown flag = %v, exit %d, want 2", err, exitCode(err))
	}
	if got := exitCode(fmt.Errorf("%w: engine", errMissed)); got != 1 {
		t.Errorf("a missed goal exits %d, want 1", got)
	}
}

// TestEveryBenchRunsNightly runs the whole table once, one second each.
func TestEveryBenchRunsNightly(t *testing.T) {
	if fileSystem(t.TempDir()) == "tmpfs" {
		t.Skip("NOT RUN: the folder for temporary files is on a tmpfs")
	}
	var out strings.Builder
	if err := run(t.Context(), &out, []string{"-dir", t.TempDir(), "-rounds", "1", "-seconds", "1"}); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
}
