package log

import (
	"fmt"
	"slices"
	"strings"
)

// A Status is what an examination found of one check.
type Status int

// The states of a check, the weakest statement first. Nothing is a pass
// because nobody looked.
const (
	Fail Status = iota
	NotChecked
	Pass
)

func (s Status) String() string {
	return [...]string{"FAIL", "NOT CHECKED", "PASS"}[s]
}

// findingsMax bounds the reasons that are kept for one check: a hostile input
// can have millions of faults, and a reader needs the first few.
const findingsMax = 20

// A Check is one thing that was examined.
type Check struct {
	ID      string // stable, such as "integrity.proof"
	Status  Status
	Summary string   // what was found in order, "" if nothing
	Reasons []string // why it failed or was not checked: the first 20
	Count   uint64   // of the reasons, kept or not
	Certain bool     // it failed, and no entry that could not be read can excuse all of it
}

// Findings collects the outcome of an examination, by check.
type Findings struct {
	checks map[string]*Check
}

// NewFindings is an examination that has found nothing yet.
func NewFindings() *Findings { return &Findings{checks: make(map[string]*Check)} }

// Pass says that a check passed, unless something else was or is said of it.
func (f *Findings) Pass(id, format string, args ...any) {
	f.check(id).Summary = fmt.Sprintf(format, args...)
}

// Skip says why a check, or a part of it, was not done.
func (f *Findings) Skip(id, format string, args ...any) { f.add(NotChecked, id, format, args) }

// Fail says what is wrong. It outranks everything else said of the check.
func (f *Findings) Fail(id, format string, args ...any) { f.add(Fail, id, format, args) }

// FailCertainly is Fail, for what no entry that could not be read can excuse.
func (f *Findings) FailCertainly(id, format string, args ...any) {
	f.add(Fail, id, format, args)
	f.check(id).Certain = true
}

func (f *Findings) add(status Status, id, format string, args []any) {
	c := f.check(id)
	if status < c.Status {
		// What was only not checked is no reason for the failure.
		c.Status, c.Reasons, c.Count = status, nil, 0
	}
	if status > c.Status {
		return
	}
	c.Count++
	if len(c.Reasons) < findingsMax {
		c.Reasons = append(c.Reasons, fmt.Sprintf(format, args...))
	}
}

func (f *Findings) check(id string) *Check {
	c := f.checks[id]
	if c == nil {
		c = &Check{ID: id, Status: Pass}
		f.checks[id] = c
	}
	return c
}

// All gives the checks, sorted by ID.
func (f *Findings) All() []Check {
	all := make([]Check, 0, len(f.checks))
	for _, c := range f.checks {
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b Check) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Failed says whether a check failed.
func (f *Findings) Failed() bool {
	for _, c := range f.checks {
		if c.Status == Fail {
			return true
		}
	}
	return false
}
