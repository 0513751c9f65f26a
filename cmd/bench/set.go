package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// A bench is one line of the table.
type bench struct {
	name  string
	goals goals
	run   func(ctx context.Context, e env) (figures, error)
}

func (b bench) isRaw() bool { return strings.HasPrefix(b.name, "raw ") }

// A set is benches that are compared: each round runs all of them, one after
// the other, and the next round in the opposite order, so that what one leaves
// to the disk to clean up is not always paid by the same other one.
type set struct {
	rounds  int
	benches []bench
}

func alone(rounds int, name string, g goals, run func(context.Context, env) (figures, error)) set {
	return set{rounds, []bench{{name, g, run}}}
}

// A line is what the rounds of a bench measured.
type line struct {
	bench  bench
	rounds rounds
}

// run measures the benches that match, and the raw one that they are compared with.
func (s set) run(ctx context.Context, e env, match *regexp.Regexp) ([]line, error) {
	chosen := slices.ContainsFunc(s.benches, func(b bench) bool { return match.MatchString(b.name) })
	var lines []line
	for _, b := range s.benches {
		if chosen && (b.isRaw() || match.MatchString(b.name)) {
			lines = append(lines, line{bench: b})
		}
	}
	for n := range s.rounds {
		order := make([]*line, len(lines))
		for i := range lines {
			order[i] = &lines[i]
		}
		if n%2 == 1 {
			slices.Reverse(order)
		}
		for _, l := range order {
			f, err := once(ctx, e, l.bench)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", l.bench.name, n+1, err)
			}
			l.rounds = append(l.rounds, f)
		}
		for _, l := range lines {
			if lines[0].bench.isRaw() && !l.bench.isRaw() {
				l.rounds[n].compare(lines[0].rounds[n])
			}
		}
	}
	return lines, nil
}

// once runs a bench in a folder of its own, which stays until the end, if the
// disk has room: a file system that has just removed many files is slow to make
// new ones (ext4 passes over inodes freed in the last five minutes, one by one),
// and tells the disk of all the room that was freed.
func once(ctx context.Context, e env, b bench) (figures, error) {
	dir, err := os.MkdirTemp(e.dir, "round")
	if err != nil {
		return nil, err
	}
	e.dir = dir
	before := readUsage()
	f, err := b.run(ctx, e)
	if err != nil {
		return nil, err
	}
	f[foreign] = readUsage().since(before).foreign()
	if !e.keep {
		err = os.RemoveAll(e.dir)
	}
	settle() // or the next bench pays for what this one left unwritten
	return f, err
}
