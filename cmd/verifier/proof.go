package main

import (
	"errors"
	"fmt"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/witness"
)

const proofHelp = `PROOF is a c2sp.org/tlog-proof. It does not hold the entry: that is the exact
file given with -entry. Exit 0 means that a log of the policy has this entry at
this index, under a checkpoint with the policy's quorum; without the quorum it
is exit 3. It does not mean that the log has nothing else.

Example:

  verifier proof -policy policy.txt -entry 000000000042.json 000000000042.tlog-proof
`

func runProof(s *streams, args []string) error {
	f := flags("proof")
	policyFile := f.String("policy", "", "")
	entryFile := f.String("entry", "", "")
	if err := parse(f, args, 1); err != nil {
		return err
	}
	if *entryFile == "" {
		return usagef("no -entry: a proof does not hold the entry that it is of")
	}
	policy, err := readPolicy(*policyFile)
	if err != nil {
		return err
	}
	text, err := readFile(*entryFile, log.EntryMaxBytes)
	if err != nil {
		return err
	}
	proof, err := readFile(f.Arg(0), log.ExportFile{Kind: log.ExportProof}.MaxBytes())
	if err != nil {
		return err
	}
	p, err := log.ParseInclusionProof(proof)
	if err != nil {
		return failed(err)
	}
	o, quorum := policy.Open(p.Checkpoint)
	if quorum != nil && !errors.Is(quorum, witness.ErrQuorum) {
		return failed(quorum)
	}
	c := o.Checkpoint
	if err := log.CheckInclusion(c.Head, p.Index, log.LeafHash(text), p.Path); err != nil {
		return failed(err)
	}
	entry, err := log.ParseEntry(text)
	switch {
	case errors.Is(err, log.ErrVersion):
		return err
	case err != nil:
		return failed(fmt.Errorf("the log has taken what is no entry: %w", err))
	case entry.Event.Log != c.Origin:
		return failed(fmt.Errorf("the entry was made for log %q: replayed", entry.Event.Log))
	}
	if quorum != nil {
		return notEstablished("the log has signed that entry %d is in it, but %w: %s", p.Index, quorum, quorumHint)
	}
	seen := "only the log's own clock: the policy asks for no quorum that claims a time"
	if o.Time > 0 {
		seen = "a quorum of witnesses had seen it by " + utc(o.Time)
	}
	e := entry.Event
	_, err = fmt.Fprintf(s.out, "checkpoint  PASS         %s, size %d, %d cosignatures, quorum %q\n"+
		"inclusion   PASS         entry %d, event %s\n"+
		"                         %s, seq %d of %s, by %s, received %s by the log's clock\n"+
		"signature   NOT CHECKED  needs the chain up to a tail: verifier verify\n"+
		"time        %s\n",
		c.Origin, c.Size, len(o.Cosigned), policy.Quorum, p.Index, e.Hash(), e.Kind, e.Seq, e.Stream, entry.Log.By, utc(entry.Log.Received/1000), seen)
	return err
}
