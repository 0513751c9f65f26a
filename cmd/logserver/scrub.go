package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/index"
	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/pipe-roll/piperoll/log/tiles"
)

// A part is a piece of a log that is checked in one go. The parts of a cycle
// follow from one another, so that one can be taken up again where it was left.
type part struct {
	Name string `json:"name"`
	N    uint64 `json:"n"`
}

// The parts of a log, in the order in which they are checked.
const (
	partJournal     = "journal"     // a segment, with the payloads, tiles and bundles of its entries
	partCheckpoints = "checkpoints" // a file of the checkpoint store
	partRest        = "rest"        // right edge, anchor, recovery point, keys
)

// firstPart is where a cycle begins.
var firstPart = part{Name: partJournal}

func (p part) String() string { return p.Name + "/" + strconv.FormatUint(p.N, 10) }

// A finding is something on disk that is not what was written.
type finding struct {
	part  part
	err   error
	truth bool // it concerns what was acknowledged or signed. Else it grows back
	// healed: it has grown back.
	healed bool
}

// A scrub reads all that a log has, as the system gives it (what is in its page cache is not asked of the disk again),
// and hashes it: records with
// their chain of CRCs, payloads with their keys and commitments, entries
// against tiles and bundles, these against each other and the signed root,
// published checkpoints, anchor, keys. fsck and the scrubber are made of it.
// The log may be served meanwhile. It is not safe for concurrent use.
type scrub struct {
	l     *ledger
	heal  bool                                   // what is derived and damaged is written again
	pace  func(bytes int) error                  // may wait
	found func(finding)                          // told of each
	entry func(journal.Checked, log.Entry) error // more to be done with each entry; nil for nothing
	gone  func(context.Context, uint64) error    // says whether a payload may be gone; nil if nobody asks
	tree  *tiles.Check
	at    part
	held  error // for what the part must be checked again
}

// scrub checks the whole log now, as fast as it goes, and heals what is derived.
func (l *ledger) scrub(ctx context.Context) (all []finding, err error) {
	s := l.newScrub(func(f finding) { all = append(all, f) })
	for at, done := firstPart, false; !done && err == nil; {
		at, done, err = s.check(ctx, at)
	}
	return all, err
}

// newScrub makes a scrub that heals.
func (l *ledger) newScrub(found func(finding)) *scrub {
	s := &scrub{l: l, heal: true, pace: func(int) error { return nil }, found: found}
	s.gone = s.orderedGone
	return s
}

// check checks one part, and gives the next one, or done. Its error means that it could not be done; what is wrong
// with the log goes to found.
func (s *scrub) check(ctx context.Context, at part) (next part, done bool, err error) {
	if s.tree == nil {
		s.tree = s.l.tree.NewCheck(tiles.CheckConfig{
			Heal: s.heal, Keep: s.l.keepDamaged, Pace: func(n int) error { return s.pace(n) },
			Found: func(p tiles.Problem) { s.report(p.Err, !p.Derived, p.Healed) },
		})
	}
	s.at, s.held = at, nil
	next = part{at.Name, at.N + 1}
	switch at.Name {
	case partJournal:
		segments := s.l.journal.Segments() // a restored journal may have fewer than where the last cycle was
		if at.N < segments {
			err = s.segment(ctx, at.N)
		}
		if next.N >= segments {
			next = part{partCheckpoints, 0}
		}
	case partCheckpoints:
		var more bool
		if more, err = s.tree.Checkpoints(ctx, int(at.N)); !more {
			next = part{partRest, 0}
		}
	default:
		err, done = s.rest(ctx), true
	}
	var errno syscall.Errno
	if ctx.Err() == nil && errors.As(err, &errno) {
		s.report(err, true, false) // what cannot be read is damaged
		err = nil
	}
	return next, done, errors.Join(err, s.held)
}

// passing says whether an error is the machine's of this moment, and says nothing about what is on disk.
func passing(err error) bool {
	return slices.ContainsFunc([]syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINTR, syscall.EAGAIN, syscall.ENOSPC, syscall.EDQUOT,
	}, func(errno syscall.Errno) bool { return errors.Is(err, errno) })
}

// report tells of damage. What was not read for reasons of the moment is none, whoever calls it so: else a flood that
// takes all file descriptors would make a good log read-only.
func (s *scrub) report(err error, truth, healed bool) {
	if passing(err) {
		s.held = err
		return
	}
	s.found(finding{part: s.at, err: err, truth: truth, healed: healed})
}

// segment checks a segment of the journal and what its entries lead to.
func (s *scrub) segment(ctx context.Context, number uint64) error {
	err := s.l.journal.CheckSegment(ctx, number, journal.CheckConfig{
		Heal: s.heal, Keep: s.l.keepDamaged, Pace: s.pace,
		Each: func(r journal.Checked) error { return s.record(ctx, r) },
		Found: func(damage error, healed bool) {
			s.report(damage, !errors.Is(damage, journal.ErrTable) && !errors.Is(damage, journal.ErrPadding), healed)
		},
	})
	if err != nil {
		return fmt.Errorf("check %v: %w", s.at, err)
	}
	return nil
}

// record checks one record as it is on disk.
func (s *scrub) record(ctx context.Context, r journal.Checked) error {
	if err := s.tree.Add(ctx, r.Index, r.Entry); err != nil {
		return err
	}
	e, err := log.ParseEntry(r.Entry)
	if err != nil {
		s.report(fmt.Errorf("entry %d: %w", r.Index, err), true, false)
		return nil
	}
	if err := s.payload(ctx, r, e); err != nil {
		s.report(fmt.Errorf("entry %d: %w", r.Index, err), true, false)
	}
	if s.entry == nil {
		return nil
	}
	return s.entry(r, e)
}

// payload holds the payload of a record to what its entry commits to.
func (s *scrub) payload(ctx context.Context, r journal.Checked, e log.Entry) error {
	switch {
	case e.Event.Payload == nil && r.State == journal.PayloadNone:
		return nil
	case e.Event.Payload == nil:
		return errors.New("there is a payload, and the entry commits to none")
	case r.State == journal.PayloadErased && s.gone != nil:
		return s.gone(ctx, r.Index)
	case r.State == journal.PayloadErased, r.State == journal.PayloadNoKey && log.Erasable(e.Event.Kind):
		return nil // gone; or the log was restored without its keys
	case r.Payload != nil:
		return e.Event.Payload.Check(*r.Payload)
	case r.State == journal.PayloadSealed, r.State == journal.PayloadOpen:
		return nil // damaged, which the journal has reported
	}
	return errors.New("the entry commits to a payload, and there is none")
}

// orderedGone says why a payload must not be gone: no entry orders its erasure.
// That entry is durable before anything is destroyed.
func (s *scrub) orderedGone(ctx context.Context, i uint64) error {
	if err := s.l.index.Wait(ctx, s.l.journal.Size()); err != nil {
		return nil // the log stops, or the index is broken, which is no news
	}
	orders := log.Object{Name: strconv.FormatUint(i, 10), Role: "entry"}
	q := index.Query{Kind: "payload.erased", Object: orders.Name, Limit: 100}
	for {
		hits, next, more, err := s.l.index.Search(ctx, q, s.l.entry)
		if err != nil {
			return nil
		}
		for _, hit := range hits {
			if e, err := s.l.entry(hit); err != nil || slices.Contains(e.Event.Objects, orders) {
				return nil
			}
		}
		if !more {
			return errors.New("its payload is gone, and no payload.erased says so")
		}
		q.After = next
	}
}

// rest checks what is small.
func (s *scrub) rest(ctx context.Context) error {
	if err := s.tree.Finish(ctx); err != nil {
		return err
	}
	c := s.l.c
	for _, k := range []struct {
		file string
		have keyPair
	}{{c.CheckpointKey, s.l.checkpoints}, {c.ReceiptKey, s.l.receipts}} {
		key, err := readKey(k.file, k.have.Name())
		if err == nil && key.vkey != k.have.vkey {
			err = fmt.Errorf("signing key %s is another than the one in use", k.file)
		}
		if err != nil {
			// The log goes on with what it has in memory: stopping now would only lose that as well.
			s.report(fmt.Errorf("%w: put the file back before the next start", err), false, false)
		}
	}
	return nil
}
