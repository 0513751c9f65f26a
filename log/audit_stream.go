package log

import (
	"maps"
	"slices"
)

// An auditStream is a stream as far as its entries are at hand.
type auditStream struct {
	Stream
	tailLost bool   // events before the next tail are missing, so what it covers is not known
	gap      bool   // events are missing, here or before
	pending  uint64 // events since the last tail
}

func (a *Audit) streamOf(name string) *auditStream {
	s := a.streams[name]
	if s == nil {
		s = &auditStream{Stream: NewStream(a.c.Origin, name)}
		a.streams[name] = s
	}
	return s
}

// stream moves a stream over an entry: chain first, then who signed it.
func (a *Audit) stream(x Exhibit, open *StreamOpen) {
	e, by := x.Entry.Event, x.Entry.Log.By
	s := a.streamOf(e.Stream)
	a.skipTo(s, e.Migration, e.Seq, e.Prev)
	if err := s.Check(e, by); err != nil {
		a.failStream(s, "integrity.chain", "entry %d: %v", x.Index, err)
		if e.Seq <= s.Seq {
			return
		}
	}
	if open != nil && open.Owner != by {
		a.failStream(s, "integrity.chain", "entry %d: stream %q is opened by %q for %q", x.Index, e.Stream, by, open.Owner)
	}
	hash := e.Hash()
	ended := a.attest(s, x, hash, open)
	s.Advance(e, hash, x.Index, open, ended)
	if e.Kind == serverRefused && x.Entry.Log.Attested == AttestedByLog {
		a.refused(e, x.Index)
	}
}

// failStream is Fail for what the entries of a stream show. One that could not
// be read leaves a gap in it; without any, there is none that could excuse them.
func (a *Audit) failStream(s *auditStream, id, format string, args ...any) {
	if s.gap {
		a.f.Fail(id, format, args...)
	} else {
		a.f.FailCertainly(id, format, args...)
	}
}

// skipTo moves a stream over events that are missing before seq.
func (a *Audit) skipTo(s *auditStream, migration string, seq uint64, prev Hash) {
	if seq <= s.Seq+1 {
		return
	}
	if migration == serverMigration {
		a.f.Skip("complete.log", "stream %q of the log itself: seq %d to %d are not at hand", s.Name, s.Seq+1, seq-1)
	} else {
		a.f.Fail("complete.stream", "stream %q: seq %d to %d are missing", s.Name, s.Seq+1, seq-1)
	}
	a.unknown += s.pending
	s.pending = 0
	if s.Migration == "" {
		s.Migration = migration
	}
	s.Seq, s.Hash, s.tailLost, s.gap = seq-1, prev, true, true
}

// refused moves the stream whose event was refused: it took its seq.
func (a *Audit) refused(e Event, index uint64) {
	r, took := RefusalOf(e)
	s := a.streams[r.Stream]
	if !took || s == nil {
		return // it took nothing, or its stream is not at hand
	}
	if s.Closed {
		a.f.Fail("integrity.chain", "stream %q is closed, and seq %d was refused", r.Stream, r.Seq)
		return
	}
	if r.Seq != s.Seq+1 {
		a.f.Fail("integrity.chain", "stream %q is at seq %d, and seq %d was refused", r.Stream, s.Seq, r.Seq)
		return
	}
	// The refused event is not at hand, so no later tail reaches those before it.
	a.unknown += s.pending
	s.pending = 0
	s.Refuse(r.Seq, r.Hash, index)
	s.tailLost = false // a refusal ends a request too
	a.f.Skip("complete.stream", "entry %d: seq %d of stream %q was refused: the log alone says so, and what was refused is not at hand", index, r.Seq, r.Stream)
	if m := a.migrations[s.Migration]; m != nil {
		m.refused++
	}
}

// attest says who vouches for an event, and whether it ended a request.
func (a *Audit) attest(s *auditStream, x Exhibit, hash Hash, open *StreamOpen) (ended bool) {
	mode, byLog := s.Mode, x.Entry.Log.Attested == AttestedByLog
	if open != nil {
		mode = open.Mode
	}
	switch {
	case x.Entry.Event.Migration == serverMigration:
		a.ownCount++
		return true
	case mode == ModeLogKept:
		if !byLog || x.Entry.Sig != nil {
			a.failStream(s, "authentic.signature", "entry %d: stream %q is kept by the log, but the entry does not say so", x.Index, s.Name)
		}
		a.logKept++
		return true
	case mode == ModeSigned && byLog:
		a.failStream(s, "authentic.signature", "entry %d: the log itself added to stream %q, which is signed", x.Index, s.Name)
		return true
	case x.Entry.Sig == nil:
		s.pending++
		if byLog { // and the mode is not known
			a.logKept++
			s.pending--
		}
		return byLog
	}
	covered := s.pending + 1
	s.pending = 0
	if mode == "" || s.tailLost {
		a.unknown += covered
		s.tailLost = false
		return true
	}
	a.tail(s, x, hash, open, covered)
	return true
}

// tail checks a tail signature, which covers that many events.
func (a *Audit) tail(s *auditStream, x Exhibit, hash Hash, open *StreamOpen, covered uint64) {
	keys, owner := s.Keys, s.Owner
	if open != nil {
		keys, owner = open.Keys, open.Owner
	}
	if err := s.CheckTail(a.c.Origin, keys, s.TailFirst(), x.Entry.Event, hash, x.Entry.Sig); err != nil {
		a.failStream(s, "authentic.signature", "entry %d: %v", x.Index, err)
		return
	}
	key := x.Entry.Sig.Key
	_, known := a.keys.Lookup(key)
	if err := a.keys.Valid(key, owner, x.Index); err != nil && (known || a.historyGap == "") {
		a.f.Fail("authentic.keys", "entry %d: tail of stream %q: %v", x.Index, s.Name, err)
		return
	}
	a.use[key] = append(a.use[key], keyUse{owner, x.Index})
	switch vouched, seen := a.vouched(owner, key); {
	case vouched || a.c.Submitters == nil:
		a.signed += covered
	case seen:
		a.f.Fail("authentic.keys", "entry %d: tail of stream %q: key %s is not one that the submitters file lists for %q, and none of those vouches for it", x.Index, s.Name, key, owner)
	default:
		a.unknown += covered
		a.f.Skip("authentic.keys", "entry %d: tail of stream %q: whether a key that the submitters file lists for %q vouches for key %s is not known: %s", x.Index, s.Name, owner, key, a.historyGap)
	}
}

// A keyUse is a tail that a key signed for the owner of a stream.
type keyUse struct {
	owner string
	index uint64
}

// vouched says whether the auditor lists key for owner, or a key that vouches
// for it: each from the listed one on was the owner's when it signed the next
// (the keyring has checked that), and each next one proved its possession. seen
// says that no registration is missing that could say otherwise.
// Source: FORMAT.md section 6.
func (a *Audit) vouched(owner string, key Hash) (yes, seen bool) {
	for !a.keys.Brought.Has(owner, key) {
		state, ok := a.keys.Lookup(key)
		switch {
		case !ok || state.Principal == "": // its registration was not seen
			return false, false
		case !state.Proven || state.Previous == nil:
			return false, true
		case state.Unchecked:
			return false, false
		}
		key = *state.Previous
	}
	return true, true
}

// vouchedKeys counts the keys that signed and are vouched for.
func (a *Audit) vouchedKeys() (n int) {
	for key, uses := range a.use {
		if yes, _ := a.vouched(uses[0].owner, key); yes {
			n++
		}
	}
	return n
}

func (a *Audit) finishStreams() {
	for _, name := range slices.Sorted(maps.Keys(a.streams)) {
		s := a.streams[name]
		switch {
		case s.pending == 0:
		case s.Mode == ModeSigned && !s.tailLost:
			a.f.Fail("authentic.signature", "stream %q: no tail signature covers seq %d to %d", name, s.Seq-s.pending+1, s.Seq)
		default:
			a.unknown += s.pending
		}
	}
	a.f.Pass("integrity.chain", "%d entries in %d streams, each chained to the one before", a.entries, len(a.streams))
	a.f.Pass("complete.stream", "no stream has a gap")
	a.f.Pass("authentic.unsigned", "no submitted event rests on the log's word alone")
	switch {
	case a.c.Submitters == nil:
		a.f.Skip("authentic.keys", "no submitters file: whose keys they are is attested by the log operator")
	case len(a.use) == 0:
		a.f.Skip("authentic.keys", "no tail that can be checked is at hand: no key was seen to sign")
	default:
		a.f.Pass("authentic.keys", "%d keys that signed are listed in the submitters file, or descend from one that is", a.vouchedKeys())
	}
	switch {
	case a.signed == 0:
		a.f.Skip("authentic.signature", "no event is covered by a signature that could be checked")
	case a.c.Submitters == nil:
		a.f.Skip("authentic.signature", "attested by the log operator: tail signatures cover %d events, under keys that only the log names; bring -submitters", a.signed)
	default:
		a.f.Pass("authentic.signature", "%d events are covered by valid tail signatures", a.signed)
	}
	if a.logKept > 0 {
		a.f.Skip("authentic.unsigned", "%d submitted events are attested by the log operator alone (streams kept by the log)", a.logKept)
	}
	if a.unknown > 0 {
		a.f.Skip("authentic.unsigned", "%d events: the chain from them to a tail that can be checked is not at hand", a.unknown)
	}
	if a.ownCount > 0 {
		a.f.Skip("authentic.own", "%d entries were made by the log itself, and rest on its word", a.ownCount)
		a.f.Skip("complete.log", "streams of the log itself say nothing of where they end")
	}
}
