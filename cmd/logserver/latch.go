package main

import (
	"errors"

	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/pipe-roll/piperoll/log/sequencer"
)

// A latched log takes no entries until a restart, whose checks look at what it
// was latched for. Whoever asks is told the cause in words that anyone may
// read: the error has file names in it, and stays in our log.
type latched struct {
	cause string
	err   error
}

func (l *latched) Error() string { return l.cause + ": " + l.err.Error() }
func (l *latched) Unwrap() error { return l.err }

// Causes, for problems, /readyz and metrics. A log that only stops has none.
const (
	latchedJournal   = "journal"
	latchedTree      = "tree"
	latchedIndex     = "index"
	latchedScrub     = "scrub"
	latchedSequencer = "sequencer"
)

// latchCauses says what each cause means.
var latchCauses = map[string]string{
	latchedJournal:   "a write to the journal failed",
	latchedTree:      "the tree could not be continued or published",
	latchedIndex:     "the index does not follow, or does not answer",
	latchedScrub:     "damage was found on its disk",
	latchedSequencer: "its order in memory is not that on the disk",
}

// latch makes the log read-only until a restart.
func (l *ledger) latch(cause string, err error) { l.seq.Latch(&latched{cause, err}) }

// latchCause gives the cause for which a log is read-only, none if it is not or only stops.
func latchCause(readOnly error) string {
	var l *latched
	switch {
	case readOnly == nil, errors.Is(readOnly, sequencer.ErrStopping):
		return ""
	case errors.As(readOnly, &l):
		return l.cause
	case errors.Is(readOnly, journal.ErrStopped):
		return latchedJournal
	}
	return latchedSequencer
}

// readOnlyDetail says why a log is read-only, behind that it is.
func readOnlyDetail(err error) string {
	var l *latched
	if errors.As(err, &l) {
		return ": " + latchCauses[l.cause] + " (" + l.cause + ")"
	}
	return ""
}
