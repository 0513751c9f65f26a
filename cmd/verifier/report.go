package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pipe-roll/piperoll/log"
)

// A report is the outcome of verify. Its JSON is canonical (RFC 8785): two
// auditors who saw the same can compare reports byte by byte.
type report struct {
	Checkpoint *reportCheckpoint `json:"checkpoint,omitempty"` // none if it could not be opened
	Checks     []reportCheck     `json:"checks"`
	Exit       int               `json:"exit"`
	Levels     map[string]string `json:"levels"`
	Result     string            `json:"result"`
	Witnesses  []reportWitness   `json:"witnesses"`
	V          int               `json:"v"`

	pairs []level
}

type reportCheckpoint struct {
	Origin string `json:"origin"`
	Root   string `json:"root"`
	Size   uint64 `json:"size"`
}

type reportCheck struct {
	Count   uint64   `json:"count"` // of reasons; at most 20 are kept
	ID      string   `json:"id"`
	Reasons []string `json:"reasons"`
	Status  string   `json:"status"`
	Summary string   `json:"summary"`
}

type reportWitness struct {
	Name string `json:"name"`
	Time uint64 `json:"time"` // POSIX seconds; 0 makes no claim
}

// A level is one of the five statements of a report.
type level struct {
	name, prefix string
	status       log.Status
	checks       []log.Check
}

// levels sums the checks up: a level is as good as the weakest of its checks,
// asides apart. A level without a check was not checked.
func levels(all []log.Check) []level {
	out := []level{
		{name: "Integrity", prefix: "integrity."},
		{name: "Authenticity", prefix: "authentic."},
		{name: "Completeness", prefix: "complete."},
		{name: "Time", prefix: "time."},
		{name: "Semantics", prefix: "semantics."},
	}
	for i := range out {
		l := &out[i]
		l.status = log.NotChecked
		counted := 0
		for _, c := range all {
			if !strings.HasPrefix(c.ID, l.prefix) {
				continue
			}
			l.checks = append(l.checks, c)
			if aside(c.ID) && c.Status != log.Fail {
				continue
			}
			if counted++; counted == 1 || c.Status < l.status {
				l.status = c.Status
			}
		}
	}
	return out
}

// report decides: what was found, in five levels, and the exit code.
func (v *verification) report() *report {
	all := v.f.All()
	r := &report{Checks: []reportCheck{}, Levels: make(map[string]string), Witnesses: []reportWitness{}, V: 1, pairs: levels(all)}
	if c := v.opened.Checkpoint; c.Origin != "" {
		r.Checkpoint = &reportCheckpoint{c.Origin, c.Root.String(), c.Size}
	}
	for _, c := range all {
		r.Checks = append(r.Checks, reportCheck{c.Count, c.ID, append([]string{}, c.Reasons...), c.Status.String(), c.Summary})
	}
	for _, w := range v.opened.Cosigned {
		r.Witnesses = append(r.Witnesses, reportWitness{w.Witness, w.Time})
	}
	for _, l := range r.pairs {
		r.Levels[strings.ToLower(l.name)] = l.status.String()
	}
	switch {
	case v.unsupported && !slices.ContainsFunc(all, certain):
		r.Exit, r.Result = exitVersion, "the log has entries of a version that this verifier does not know"
		if v.f.Failed() {
			r.Result += "; what failed may come of them"
		}
	case v.f.Failed():
		r.Exit, r.Result = exitFailed, "FAILED: tampered with, or something is omitted; keep the files, they are the evidence"
	case v.policy == nil:
		r.Exit, r.Result = exitNotEstablished, "self-consistent, and no more: bring a -policy with the log's keys, from another channel"
	case r.pairs[0].status != log.Pass:
		r.Exit, r.Result = exitNotEstablished, "intact as far as seen; trust is not established: see what was NOT CHECKED under Integrity"
	default:
		r.Exit, r.Result = exitOK, "the policy is met, and nothing failed"+notChecked(r.pairs)
	}
	return r
}

// notChecked names the levels that are no PASS: exit 0 is not to be taken for more than it says.
func notChecked(all []level) string {
	var names []string
	for _, l := range all {
		if l.status == log.NotChecked {
			names = append(names, l.name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "; NOT CHECKED: " + strings.Join(names, ", ")
}

// certain says whether a check has failed whatever the entries say that could
// not be read. One that nobody folds leaves a gap in its stream and in the
// history of keys; it does not make a fork, nor break a receipt, nor a stream
// without a gap.
func certain(c log.Check) bool {
	switch c.ID {
	case "authentic.keys", "authentic.signature", "integrity.as-of", "integrity.chain", "integrity.migration":
		return c.Certain
	}
	return c.Status == log.Fail && !strings.HasPrefix(c.ID, "complete.")
}

func (r *report) write(out io.Writer, asJSON bool) error {
	if asJSON {
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if text, err = log.Canonical(text); err != nil {
			return err
		}
		_, err = out.Write(append(text, '\n'))
		return err
	}
	var b strings.Builder
	if c := r.Checkpoint; c != nil {
		fmt.Fprintf(&b, "checkpoint of %s, size %d, root %s\n\n", c.Origin, c.Size, c.Root)
	}
	for _, l := range r.pairs {
		fmt.Fprintf(&b, "%-13s %s\n", l.name, l.status)
		for _, c := range l.checks {
			writeCheck(&b, c)
		}
	}
	fmt.Fprintf(&b, "\n%s (exit %d)\n", r.Result, r.Exit)
	_, err := io.WriteString(out, b.String())
	return err
}

func writeCheck(b *strings.Builder, c log.Check) {
	lines := c.Reasons
	if c.Summary != "" && c.Status != log.Fail {
		lines = append([]string{c.Summary}, lines...)
	}
	for i, line := range lines {
		status, id := "", ""
		if i == 0 {
			status, id = c.Status.String(), c.ID
		}
		// What is printed comes from hostile files: one line, no control characters.
		fmt.Fprintf(b, "  %-11s %-22s %s\n", status, id, printable(line))
	}
	if kept := uint64(len(c.Reasons)); c.Count > kept {
		fmt.Fprintf(b, "  %-11s %-22s and %d more\n", "", "", c.Count-kept)
	}
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' {
			return ';'
		}
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
