package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/witness"
)

const verifyHelp = `DIR holds a checkpoint, entries, their inclusion proofs under it, and payloads:

  checkpoint, events/INDEX.json, proofs/INDEX.tlog-proof,
  payloads/INDEX.payload and .salt, consistency/OLD.proof, receipts/INDEX.receipt

Anything else in it is refused. Flags:

  -policy FILE      c2sp.org/tlog-policy: keys of the log and of witnesses, and the quorum.
                    Without it the directory is at best self-consistent (exit 3)
  -submitters FILE  lines "PRINCIPAL VKEY": keys of submitters, from them and not from the log.
                    Without it all signatures rest on the log operator's word
  -pin FILE         the checkpoint of your last audit; this one has to extend it. The file
                    is made by the first audit that ends with exit 0, and moved on by each
  -migration NAME   must be in DIR, and complete; can be repeated. So must every migration
                    of which DIR has an event of its own kinds. Of streams with nothing
                    but customers' kinds (x.*) nobody can say it: NOT CHECKED
  -json             a canonical report (RFC 8785) with stable check ids

Examples:

  verifier verify -policy policy.txt -submitters keys.txt -pin my.pin out/
  verifier verify -policy policy.txt -migration crm-2024 -json out/ > report.json
`

// A verification is one run of verify.
type verification struct {
	s      *streams
	policy *witness.Policy // nil if the auditor brought none
	pin    string          // "" if none
	audit  log.AuditConfig
	f      *log.Findings
	d      *directory

	note        []byte // the directory's checkpoint, exactly
	opened      witness.Opened
	unsupported bool // an entry in the log is of a version that we do not know
	pins        *pins
}

func runVerify(s *streams, args []string) error {
	v := &verification{s: s, f: log.NewFindings()}
	f := flags("verify")
	policy := f.String("policy", "", "")
	submitters := f.String("submitters", "", "")
	f.StringVar(&v.pin, "pin", "", "")
	f.Var((*repeated)(&v.audit.Migrations), "migration", "")
	asJSON := f.Bool("json", false, "")
	if err := parse(f, args, 1); err != nil {
		return err
	}
	if err := v.bring(*policy, *submitters); err != nil {
		return err
	}
	if err := v.run(f.Arg(0)); err != nil {
		return err
	}
	r := v.report()
	// The report comes first: a pin that moved would be the memory of an audit that nobody saw.
	if err := r.write(s.out, *asJSON); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if r.Exit == exitOK && v.pins != nil {
		if err := v.pins.keep(v.opened.Checkpoint, v.note); err != nil {
			return fmt.Errorf("write pin file %s, after the report: the checkpoint is not remembered: %w", v.pin, err)
		}
	}
	if r.Exit != exitOK {
		return &codedError{r.Exit, errReported}
	}
	return nil
}

// bring reads what the auditor brings.
func (v *verification) bring(policy, submitters string) error {
	if policy != "" {
		p, err := readPolicy(policy)
		if err != nil {
			return err
		}
		v.policy = &p
	}
	if submitters != "" {
		text, err := readFile(submitters, log.SubmittersMaxBytes)
		if err != nil {
			return err
		}
		keys, err := log.ParseSubmitters(text)
		if err != nil {
			return usagef("submitters %s: %w", submitters, err)
		}
		v.audit.Submitters = &keys
	}
	if v.pin == "" {
		return nil
	}
	if v.policy == nil {
		return usagef("-pin without -policy: only what a policy accepts is worth pinning")
	}
	var err error
	v.pins, err = readPins(v.pin)
	return err
}

// run examines the directory: first the checkpoint, since all else hangs on it.
func (v *verification) run(dir string) error {
	var err error
	if v.d, err = openDirectory(dir, v.f); err != nil {
		return err
	}
	defer v.d.close()
	v.d.checkNames(v.f)
	if !v.d.has(log.ExportCheckpoint, 0) {
		return nil
	}
	if v.note, err = v.d.read(log.ExportCheckpoint, 0); err != nil {
		return err
	}
	if !v.checkpoint() {
		return nil
	}
	if err := v.entries(); err != nil {
		return err
	}
	if err := v.pinned(); err != nil {
		return err
	}
	return v.consistency()
}

// checkpoint opens the checkpoint, and says whether there is one to go on with.
func (v *verification) checkpoint() bool {
	if v.policy == nil {
		c, err := unverified(v.note)
		if err != nil {
			v.f.Fail("integrity.checkpoint", "%v", err)
			return false
		}
		v.opened.Checkpoint = c
		v.f.Skip("integrity.checkpoint", "no policy: who signed the checkpoint was not checked; anybody can make a directory that agrees with itself")
		return true
	}
	o, err := v.policy.Open(v.note)
	switch {
	case errors.Is(err, witness.ErrQuorum):
		// Witnesses that are down are no tampering; and a fork that the log
		// alone has signed is still a fork.
		v.f.Skip("integrity.checkpoint", "signed by the log's key that the policy lists, but %v: %s", err, quorumHint)
	case err != nil:
		v.f.Fail("integrity.checkpoint", "%v", err)
		return false
	default:
		v.f.Pass("integrity.checkpoint", "signed by the log's key that the policy lists; quorum %q with %d cosignatures", v.policy.Quorum, len(o.Cosigned))
	}
	v.opened = o
	v.audit.LogKeys = logKeys(*v.policy, o.Checkpoint.Origin)
	return true
}

const quorumHint = "nothing shows that others saw the same; ask for the checkpoint with more cosignatures"

// logKeys are the keys that the policy lists for origin.
func logKeys(p witness.Policy, origin string) (keys []log.LogKey) {
	for _, l := range p.Logs {
		if l.Key.Name() == origin {
			keys = append(keys, log.LogKey{Purpose: log.PurposeCheckpoint, VKey: l.Key.String()})
		}
	}
	for _, k := range p.ReceiptKeys(origin) {
		keys = append(keys, log.LogKey{Purpose: log.PurposeReceipt, VKey: k.String()})
	}
	return keys
}

// unverified reads a checkpoint that no key vouches for: good for nothing but
// to compare files with each other.
func unverified(note []byte) (log.Checkpoint, error) {
	if err := log.CheckNote(note); err != nil {
		return log.Checkpoint{}, err
	}
	return log.ParseCheckpoint(string(note[:bytes.LastIndex(note, []byte("\n\n"))+1]))
}

// entries examines the entries one by one, and then what they are together.
func (v *verification) entries() error {
	v.audit.Origin = v.opened.Checkpoint.Origin
	v.audit.Has = func(index uint64) bool { return v.d.has(log.ExportEvent, index) }
	audit := log.NewAudit(v.audit, v.f)
	receipts := newReceipts(v, audit)
	indexes := v.d.numbers[log.ExportEvent]
	said := newProgress(v.s.err, len(indexes))
	proven, unknown := 0, kinds{counts: make(map[string]uint64)}
	l := newLoader(v.d, v.note, v.opened.Checkpoint.Head)
	err := l.loadAll(indexes, func(x *loaded) error {
		said.step()
		if x.exhibit != nil && log.Structural(x.exhibit.Entry.Event.Kind) {
			if err := l.payload(x); err != nil {
				return err
			}
		}
		for _, b := range x.faults {
			v.f.Fail(b.check, "%s", b.text)
		}
		if x.unsupported != nil {
			v.unsupported = true
			v.f.Skip("integrity.entry", "entry %d: %v: get a newer verifier", x.index, x.unsupported)
		}
		if x.proven {
			proven++
		}
		if x.exhibit != nil {
			unknown.add(x.exhibit.Entry.Event.Kind)
			if err := audit.Add(*x.exhibit); err != nil {
				return err
			}
		}
		return receipts.step(x)
	})
	if err != nil {
		return err
	}
	v.f.Pass("integrity.proof", "%d entries are in the tree of size %d", proven, v.opened.Checkpoint.Size)
	v.f.Pass("integrity.entry", "%d entries are canonical", len(indexes))
	v.f.Pass("integrity.payload", "every payload at hand is the one that its event commits to")
	unknown.finish(v.f)
	audit.Finish()
	v.unsupported = v.unsupported || audit.Unsupported()
	if err := receipts.finish(); err != nil {
		return err
	}
	v.time(audit.Received())
	v.f.Skip("semantics.rules", "verdicts and decisions are not evaluated again")
	return nil
}

// time says since when the entries exist, by clocks that are not the log's.
func (v *verification) time(receivedMS uint64) {
	seconds := v.opened.Time
	if seconds == 0 {
		reason := "no quorum says when it saw the checkpoint"
		if v.policy == nil || v.policy.Quorum == "none" {
			reason = "no witness's time: the policy asks for no quorum"
		}
		v.f.Skip("time.quorum", "only the log's own clock: %s", reason)
		return
	}
	v.f.Pass("time.quorum", "a quorum of witnesses had seen the checkpoint by %s", utc(seconds))
	// Witnesses and log may differ as far as a log and its submitters may.
	const slackMS = 5 * 60 * 1000
	if receivedMS/1000 > seconds+slackMS/1000 {
		v.f.Fail("time.clock", "the last entry was received at %s by the log's clock, after the witnesses had seen it", utc(receivedMS/1000))
	}
}

func utc(seconds uint64) string {
	const most = 1<<53 - 1 // a hostile time must print too
	return time.Unix(int64(min(seconds, most)), 0).UTC().Format(time.RFC3339)
}

// consistency reads every consistency proof: a file that nobody reads could say
// anything. One that no pin calls for is read, and no more: half of what it
// speaks of is not at hand.
func (v *verification) consistency() error {
	for _, old := range v.d.numbers[log.ExportConsistency] {
		_, err := v.consistencyProof(old)
		switch {
		case errors.Is(err, log.ErrMalformed):
			v.f.Fail("integrity.consistency", "%v", err)
		case err != nil:
			return err
		case v.pins == nil || v.pins.used != old || v.pins.used == 0:
			v.f.Skip("integrity.consistency", "consistency/%d.proof: no pinned checkpoint of that size to check it with", old)
		}
	}
	return nil
}

// consistencyProof reads the proof from size old. [log.ErrMalformed] if it is
// not what its name says.
func (v *verification) consistencyProof(old uint64) (log.ConsistencyProof, error) {
	text, err := v.d.read(log.ExportConsistency, old)
	if err != nil {
		return log.ConsistencyProof{}, err
	}
	p, err := log.ParseConsistencyProof(text)
	if err != nil {
		return p, fmt.Errorf("consistency/%d.proof: %w", old, err)
	}
	c := v.opened.Checkpoint
	if p.Origin != c.Origin || p.Old != old || p.New != c.Size && p.Old != c.Size {
		return p, fmt.Errorf("consistency/%d.proof: %w: it leads from size %d to %d of %q, the checkpoint is of size %d of %q", old, log.ErrMalformed, p.Old, p.New, p.Origin, c.Size, c.Origin)
	}
	return p, nil
}
