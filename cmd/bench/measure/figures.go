package measure

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Quantity is something that a round measures once.
type Quantity struct {
	Name   string
	Format string // of a value
	Unit   string
}

// What every load is measured by.
var (
	P50       = Quantity{"p50", "%.2f", "ms"}
	P99       = Quantity{"p99", "%.2f", "ms"}
	Slowest   = Quantity{"max", "%.0f", "ms"}
	P99OfRaw  = Quantity{"p99/raw", "%.2f", ""}
	Rate      = Quantity{"rate", "%.0f", "/s"}
	RateOfRaw = Quantity{"rate/raw", "%.2f", ""}
	Foreign   = Quantity{"foreign CPU", "%.2f", "cores"}
)

// Figures are what one round measured.
type Figures map[Quantity]float64

// latencies of the answers in a round.
type latencies []time.Duration

// Latencies gives the figures of the answers in a round, and sorts them.
func Latencies(all []time.Duration) Figures {
	l := latencies(all)
	slices.Sort(l)
	return Figures{P50: ms(l.at(.5)), P99: ms(l.at(.99)), Slowest: ms(l.at(1))}
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
func (f Figures) compare(raw Figures) {
	if raw[Rate] > 0 {
		f[RateOfRaw] = f[Rate] / raw[Rate]
	} else {
		f[P99OfRaw] = f[P99] / raw[P99]
	}
}

// Rounds are the figures of all rounds of a bench.
type Rounds []Figures

// of returns a quantity of all rounds, ascending.
func (r Rounds) of(q Quantity) []float64 {
	var all []float64
	for _, f := range r {
		if v, ok := f[q]; ok {
			all = append(all, v)
		}
	}
	slices.Sort(all)
	return all
}

// Median of an even number of rounds is between the two in the middle.
func (r Rounds) Median(q Quantity) float64 {
	all := r.of(q)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// String gives each quantity's median with its extremes: those of every load
// first, then a bench's own by their names.
func (r Rounds) String() string {
	first := []Quantity{P50, P99, Slowest, P99OfRaw, Rate, RateOfRaw}
	var own []Quantity
	for _, f := range r {
		for q := range f {
			if q != Foreign && !slices.Contains(first, q) && !slices.Contains(own, q) {
				own = append(own, q)
			}
		}
	}
	slices.SortFunc(own, func(a, b Quantity) int { return strings.Compare(a.Name, b.Name) })
	var all []string
	for _, q := range slices.Concat(first, own, []Quantity{Foreign}) {
		if v := r.of(q); len(v) > 0 {
			if len(v) == 1 {
				all = append(all, strings.TrimSpace(fmt.Sprintf("%s "+q.Format+" %s", q.Name, v[0], q.Unit)))
				continue
			}
			text := fmt.Sprintf("%s "+q.Format+" ["+q.Format+" to "+q.Format+"] %s", q.Name, r.Median(q), v[0], v[len(v)-1], q.Unit)
			all = append(all, strings.TrimSpace(text))
		}
	}
	return strings.Join(all, ", ")
}

// A Goal is a limit to a quantity's median.
type Goal struct {
	quantity Quantity
	relation string
	limit    float64
}

// Below is the goal of staying below a limit.
func (q Quantity) Below(limit float64) Goal { return Goal{q, "<", limit} }

// AtMost is the goal of a limit that may be reached.
func (q Quantity) AtMost(limit float64) Goal { return Goal{q, "<=", limit} }

// AtLeast is the goal of reaching a limit.
func (q Quantity) AtLeast(limit float64) Goal { return Goal{q, ">=", limit} }

// Goals have all to be met.
type Goals []Goal

func (g Goals) String() string {
	all := make([]string, len(g))
	for i, goal := range g {
		all[i] = strings.TrimSpace(fmt.Sprintf("%s %s %v %s", goal.quantity.Name, goal.relation, goal.limit, goal.quantity.Unit))
	}
	return strings.Join(all, ", ")
}

// verdict judges the medians; it is empty where there is no goal.
func (l Line) verdict() string {
	if len(l.Bench.Goals) == 0 {
		return ""
	}
	for _, g := range l.Bench.Goals {
		if !g.met(l.Rounds.Median(g.quantity)) {
			return missed
		}
	}
	return met
}

const (
	met    = "met"
	missed = "missed"
)

func (g Goal) met(v float64) bool {
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
