package measure

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// A Bench is one line of the table.
type Bench struct {
	Name  string
	Goals Goals
	Run   func(ctx context.Context, e Env) (Figures, error)
}

func (b Bench) isRaw() bool { return strings.HasPrefix(b.Name, "raw ") }

// A Set is benches that are compared: each round runs all of them, one after
// the other, and the next round in the opposite order, so that what one leaves
// to the disk to clean up is not always paid by the same other one.
type Set struct {
	Rounds  int
	Benches []Bench
}

// Alone is a set of one bench, which is compared with nothing.
func Alone(rounds int, name string, g Goals, run func(context.Context, Env) (Figures, error)) Set {
	return Set{rounds, []Bench{{name, g, run}}}
}

// A Line is what the rounds of a bench measured.
type Line struct {
	Bench  Bench
	Rounds Rounds
}

// run measures the benches that match, and the raw one that they are compared with.
func (s Set) run(ctx context.Context, e Env, match *regexp.Regexp) ([]Line, error) {
	chosen := slices.ContainsFunc(s.Benches, func(b Bench) bool { return match.MatchString(b.Name) })
	var lines []Line
	for _, b := range s.Benches {
		if chosen && (b.isRaw() || match.MatchString(b.Name)) {
			lines = append(lines, Line{Bench: b})
		}
	}
	for n := range s.Rounds {
		order := make([]*Line, len(lines))
		for i := range lines {
			order[i] = &lines[i]
		}
		if n%2 == 1 {
			slices.Reverse(order)
		}
		for _, l := range order {
			f, err := once(ctx, e, l.Bench)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", l.Bench.Name, n+1, err)
			}
			l.Rounds = append(l.Rounds, f)
		}
		for _, l := range lines {
			if lines[0].Bench.isRaw() && !l.Bench.isRaw() {
				l.Rounds[n].compare(lines[0].Rounds[n])
			}
		}
	}
	return lines, nil
}

// once runs a bench in a folder of its own, which stays until the end, if the
// disk has room: a file system that has just removed many files is slow to make
// new ones (ext4 passes over inodes freed in the last five minutes, one by one),
// and tells the disk of all the room that was freed.
func once(ctx context.Context, e Env, b Bench) (Figures, error) {
	dir, err := os.MkdirTemp(e.Dir, "round")
	if err != nil {
		return nil, err
	}
	e.Dir = dir
	before := readUsage()
	f, err := b.Run(ctx, e)
	if err != nil {
		return nil, err
	}
	f[Foreign] = readUsage().since(before).foreign()
	if !e.keep {
		err = os.RemoveAll(e.Dir)
	}
	settle() // or the next bench pays for what this one left unwritten
	return f, err
}
