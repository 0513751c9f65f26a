package measure

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// three gives a bench three rounds with these p99 and ratios.
func three(g Goals, p99s, ratios [3]float64) Line {
	l := Line{Bench: Bench{Name: "engine", Goals: g}}
	for i := range p99s {
		l.Rounds = append(l.Rounds, Figures{P99: p99s[i], P99OfRaw: ratios[i]})
	}
	return l
}

// TestVerdicts: one bad round neither hides a goal that was met nor saves one that was not.
func TestVerdicts(t *testing.T) {
	both := Goals{P99.Below(10), P99OfRaw.AtMost(3)}
	for _, tc := range []struct {
		l    Line
		want string
	}{
		{three(both, [3]float64{7, 158, 9}, [3]float64{1, 13.7, 3}), met},
		{three(both, [3]float64{7, 158, 10}, [3]float64{1, 13.7, 2}), missed},
		{three(both, [3]float64{7, 8, 9}, [3]float64{1, 3.1, 5.2}), missed},
		{three(Goals{P99OfRaw.AtLeast(.5)}, [3]float64{}, [3]float64{.76, .52, .25}), met},
		{three(nil, [3]float64{1, 2, 3}, [3]float64{}), ""},
	} {
		if got := tc.l.verdict(); got != tc.want {
			t.Errorf("verdict of %v under %v = %q, want %q", tc.l.Rounds, tc.l.Bench.Goals, got, tc.want)
		}
	}
	l := three(both, [3]float64{7, 158, 9}, [3]float64{1, 13.7, 3})
	if got, want := l.Rounds.String(), "p99 9.00 [7.00 to 158.00] ms, p99/raw 3.00 [1.00 to 13.70]"; got != want {
		t.Errorf("rounds = %q, want %q", got, want)
	}
	if got, want := both.String(), "p99 < 10 ms, p99/raw <= 3"; got != want {
		t.Errorf("goals = %q, want %q", got, want)
	}
	if got := l.Rounds[:2].Median(P99); got != 82.5 {
		t.Errorf("median of two rounds = %v, want 82.5", got)
	}
}

// TestRounds: what is compared runs in the same round as raw, in turning order,
// each in an empty folder; and raw runs even if nobody asked for it.
func TestRounds(t *testing.T) {
	var ran []string
	fake := func(name string, latency float64) Bench {
		return Bench{Name: name, Run: func(_ context.Context, e Env) (Figures, error) {
			ran = append(ran, name)
			if files, err := os.ReadDir(e.Dir); err != nil || len(files) > 0 {
				t.Errorf("%s runs in a folder with %v, %v", name, files, err)
			}
			return Figures{P99: latency}, os.WriteFile(filepath.Join(e.Dir, "left"), nil, 0o600)
		}}
	}
	s := Set{3, []Bench{fake("raw group commit", 2), fake("engine", 5), fake("other", 1)}}
	lines, err := s.run(t.Context(), Env{Dir: t.TempDir()}, regexp.MustCompile("^engine"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"raw group commit", "engine", "engine", "raw group commit", "raw group commit", "engine"}
	if !slices.Equal(ran, want) {
		t.Errorf("ran %q, want %q", ran, want)
	}
	if got := lines[1].Rounds.of(P99OfRaw); !slices.Equal(got, []float64{2.5, 2.5, 2.5}) {
		t.Errorf("engine's p99 of raw = %v, want 2.5 three times", got)
	}
	if lines, err := s.run(t.Context(), Env{Dir: t.TempDir()}, regexp.MustCompile("HTTP")); err != nil || len(lines) > 0 {
		t.Errorf("a set that nobody asked for = %v, %v, want nothing", lines, err)
	}
	broken := Bench{Name: "broken", Run: func(context.Context, Env) (Figures, error) { return nil, errors.New("no disk") }}
	if _, err := (Set{1, []Bench{broken}}).run(t.Context(), Env{Dir: t.TempDir()}, regexp.MustCompile("")); err == nil || !strings.Contains(err.Error(), "broken, round 1: no disk") {
		t.Errorf("a bench that fails = %v, want its name and its round", err)
	}
}

// TestStrict: a goal that is missed is said in the table, and fails the run only if asked to.
func TestStrict(t *testing.T) {
	slow := func(context.Context, Env) (Figures, error) { return Figures{P99: 12}, nil }
	all := []Set{Alone(1, "slow", Goals{P99.Below(10)}, slow), Alone(1, "fast", Goals{P99.Below(20)}, slow)}
	var out strings.Builder
	o := Options{match: regexp.MustCompile("")}
	if _, err := o.measure(t.Context(), &out, Env{Dir: t.TempDir()}, all); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| slow | 1 | p99 12.00 ms", "| p99 < 10 ms | missed |", "| p99 < 20 ms | met |", "Foreign work took"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("table = %s, want %q in it", &out, want)
		}
	}
	o.Strict = true
	_, err := o.measure(t.Context(), &out, Env{Dir: t.TempDir()}, all)
	if err == nil || err.Error() != "goals missed: slow" {
		t.Errorf("strict = %v, want the name of the one that was missed", err)
	}
}

// TestQuantities: whatever a bench measures is printed once, a bench's own quantities too.
func TestQuantities(t *testing.T) {
	own := Quantity{"restart", "%.1f", "s"}
	f := Latencies([]time.Duration{3 * time.Millisecond, time.Millisecond})
	f.compare(Figures{P99: 1})
	f[Rate], f[Foreign], f[own] = 1, 1, 1
	f.compare(Figures{Rate: 2})
	if f[P50] != 3 || f[P99OfRaw] != 3 || f[RateOfRaw] != .5 {
		t.Errorf("figures = %v", f)
	}
	printed := Rounds{f, f}.String()
	for q, v := range f {
		if strings.Count(", "+printed, ", "+q.Name+" ") != 1 || math.IsNaN(v) {
			t.Errorf("%s = %v is not in %q once", q.Name, v, printed)
		}
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

func TestNoDiskIsRefused(t *testing.T) {
	if fileSystem("/dev/shm") != "tmpfs" {
		t.Log("NOT RUN: there is no tmpfs here")
		return
	}
	_, err := ParseOptions([]string{"-dir", "/dev/shm"})
	if err == nil || !strings.Contains(err.Error(), "a sync costs nothing") || ExitCode(err) != 2 {
		t.Errorf("bench on a tmpfs = %v, want a refusal that says why", err)
	}
}

// Scripts can tell a missed goal from a bench that did not run.
func TestExitCodes(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-flag"}, {"word"}} {
		if _, err := ParseOptions(args); ExitCode(err) != 2 {
			t.Errorf("bench %q = %v, exit %d, want 2", args, err, ExitCode(err))
		}
	}
	o, err := ParseOptions([]string{"-dir", filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(string) ([]Set, error) { return nil, nil }
	if _, err := o.Run(t.Context(), t.Output(), nothing); ExitCode(err) != 6 {
		t.Errorf("a bench without a folder = %v, exit %d, want 6", err, ExitCode(err))
	}
	if got := ExitCode(fmt.Errorf("%w: engine", ErrMissed)); got != 1 || ExitCode(nil) != 0 {
		t.Errorf("a missed goal exits %d, want 1, and none exits %d, want 0", got, ExitCode(nil))
	}
}
