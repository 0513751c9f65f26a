package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A quantity is something that a round measures once.
type quantity struct {
	name   string
	format string // of a value
	unit   string
}

var (
	p50       = quantity{"p50", "%.1f", "ms"}
	p99       = quantity{"p99", "%.1f", "ms"}
	slowest   = quantity{"max", "%.0f", "ms"}
	p99OfRaw  = quantity{"p99/raw", "%.2f", ""}
	rate      = quantity{"rate", "%.0f", "/s"}
	rateOfRaw = quantity{"rate/raw", "%.2f", ""}
	took      = quantity{"took", "%.1f", "s"}
	acked     = quantity{"all acknowledged after", "%.1f", "s"}
	foreign   = quantity{"foreign CPU", "%.2f", "cores"}
)

// quantities in the order of printing.
var quantities = []quantity{p50, p99, slowest, p99OfRaw, rate, rateOfRaw, took, acked, foreign}

// figures are what one round measured.
type figures map[quantity]float64

// latencies of the answers in a round.
type latencies []time.Duration

// figures sorts the latencies.
func (l latencies) figures() figures {
	slices.Sort(l)
	return figures{p50: ms(l.at(.5)), p99: ms(l.at(.99)), slowest: ms(l.at(1))}
}

func (l latencies) at(q float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[min(len(l)-1, int(q*float64(len(l))))]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// compare adds what f is of raw, which was measured in the same round: the
// rate of what was saturated, else the p99.
func (f figures) compare(raw figures) {
	if raw[rate] > 0 {
		f[rateOfRaw] = f[rate] / raw[rate]
	} else {
		f[p99OfRaw] = f[p99] / raw[p99]
	}
}

// rounds are the figures of all rounds of a bench.
type rounds []figures

// of returns a quantity of all rounds, ascending.
func (r rounds) of(q quantity) []float64 {
	var all []float64
	for _, f := range r {
		if v, ok := f[q]; ok {
			all = append(all, v)
		}
	}
	slices.Sort(all)
	return all
}

// median of an even number of rounds is between the two in the middle.
func (r rounds) median(q quantity) float64 {
	all := r.of(q)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// String gives each quantity's median with its extremes.
func (r rounds) String() string {
	var all []string
	for _, q := range quantities {
		if v := r.of(q); len(v) > 0 {
			text := fmt.Sprintf("%s "+q.format+" ["+q.format+" to "+q.format+"] %s", q.name, r.median(q), v[0], v[len(v)-1], q.unit)
			all = append(all, strings.TrimSpace(text))
		}
	}
	return strings.Join(all, ", ")
}

// A goal is a limit to a quantity's median.
type goal struct {
	quantity quantity
	relation string // "<", "<=" or ">="
	limit    float64
}

type goals []goal

func (g goals) String() string {
	all := make([]string, len(g))
	for i, goal := range g {
		all[i] = strings.TrimSpace(fmt.Sprintf("%s %s %v %s", goal.quantity.name, goal.relation, goal.limit, goal.quantity.unit))
	}
	return strings.Join(all, ", ")
}

// verdict judges the medians; it is empty where there is no goal.
func (l line) verdict() string {
	if len(l.bench.goals) == 0 {
		return ""
	}
	for _, g := range l.bench.goals {
		if !g.met(l.rounds.median(g.quantity)) {
			return missed
		}
	}
	return met
}

const (
	met    = "met"
	missed = "missed"
)

func (g goal) met(v float64) bool {
	switch g.relation {
	case "<":
		return v < g.limit
	case "<=":
		return v <= g.limit
	case ">=":
		return v >= g.limit
	}
	panic("bench: goal with relation " + g.relation)
}
