package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/pipe-roll/piperoll/cmd/bench/measure"
)

// A result is a median of one log in one setting.
type result struct {
	contender
	value float64
}

// better says whether r is better than other in a quantity.
func (r result) better(q measure.Quantity, other result) bool {
	if q == measure.Rate {
		return r.value > other.value
	}
	return r.value < other.value
}

// ahead is how many times better r is than other.
func (r result) ahead(q measure.Quantity, other result) float64 {
	if q == measure.Rate {
		return r.value / other.value
	}
	return other.value / r.value
}

// report prints how the logs compare, and returns where this one is behind.
//
// A peer is given the best of its settings for each quantity by itself, and is
// compared with the worse of our two lines.
func report(out io.Writer, contests []contest, lines [][]measure.Line) (behind []string) {
	text := "\n| load | Piperoll, entries | Piperoll, events | Tessera, best setting | Trillian, best mode |\n|---|---|---|---|---|\n"
	for i, c := range contests {
		for _, q := range c.compared {
			all := c.results(q, lines[i])
			if len(all[piperollLog]) != 2 {
				continue // not all of it was asked for
			}
			ours := all[piperollLog][0]
			if ours.better(q, all[piperollLog][1]) {
				ours = all[piperollLog][1]
			}
			text += "| " + c.name + ", " + q.Name
			for _, r := range all[piperollLog] {
				text += fmt.Sprintf(" | "+q.Format+" %s", r.value, q.Unit)
			}
			for _, log := range []string{tesseraLog, trillianLog} {
				theirs, ok := best(q, all[log])
				if !ok {
					text += " | -"
					continue
				}
				text += fmt.Sprintf(" | "+q.Format+" %s, %s: %.1f times", theirs.value, q.Unit, theirs.setting, ours.ahead(q, theirs))
				if !ours.better(q, theirs) {
					behind = append(behind, fmt.Sprintf("%s, %s: %s (%s) has "+q.Format+" %s, %s "+q.Format, c.name, q.Name,
						log, theirs.setting, theirs.value, q.Unit, ours.setting, ours.value))
				}
			}
			text += " |\n"
		}
	}
	_, _ = io.WriteString(out, text+verdict(behind)) // for people
	return behind
}

// results gives the median of each contender that was measured, by its log.
func (c contest) results(q measure.Quantity, lines []measure.Line) map[string][]result {
	all := map[string][]result{}
	for _, l := range lines {
		for _, of := range c.contenders {
			if l.Bench.Name == c.bench(of) {
				all[of.log] = append(all[of.log], result{of, l.Rounds.Median(q)})
			}
		}
	}
	return all
}

func best(q measure.Quantity, all []result) (b result, ok bool) {
	for i, r := range all {
		if i == 0 || r.better(q, b) {
			b = r
		}
	}
	return b, len(all) > 0
}

func verdict(behind []string) string {
	if len(behind) == 0 {
		return "\nTimes: by how much the worse of Piperoll's two lines is ahead. It is ahead everywhere.\n"
	}
	return "\nTimes: by how much the worse of Piperoll's two lines is ahead. It is not ahead here:\n\n- " + strings.Join(behind, "\n- ") + "\n"
}
