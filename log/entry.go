package log

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// An Entry is a leaf of the tree: an event and what the log adds to it.
type Entry struct {
	Event Event
	Log   Part
	Sig   *Sig // on the last event of a request in a signed stream, else nil
}

// A Part is what the log adds to an event.
type Part struct {
	AsOf     uint64   // index of the last control entry before this one; 0 for entry 0
	Attested string   // "log" if the log itself made the event, else ""
	Auth     string   // how By was established, such as "token:4f2a91c0"
	Blind    [16]byte // random, so that the leaf hash reveals nothing
	By       string   // the authenticated principal
	Received uint64   // Unix milliseconds, never less than the entry before
	SkewMS   int64    // Received - Event.Time: how late it came; negative is early
}

// AttestedByLog is the value of Part.Attested for events that the log made.
const AttestedByLog = "log"

// Marshal gives the canonical bytes (RFC 8785): the leaf.
func (e Entry) Marshal() []byte { return e.MarshalWith(e.Event.Marshal()) }

// MarshalWith is Marshal for a caller that has the canonical event already.
func (e Entry) MarshalWith(event []byte) []byte {
	b := make([]byte, 0, len(event)+512)
	b = append(append(b, `{"event":`...), event...)
	b = e.Log.append(append(b, `,"log":`...))
	if e.Sig != nil {
		b = e.Sig.append(append(b, `,"sig":`...))
	}
	return append(b, `,"v":1}`...)
}

// Marshal gives the canonical bytes of the part alone, as answers carry it.
func (p Part) Marshal() []byte { return p.append(nil) }

func (p Part) append(b []byte) []byte {
	b = appendNum(b, `{"as_of":`, p.AsOf)
	if p.Attested != "" {
		b = appendStr(b, `,"attested":`, p.Attested)
	}
	b = appendStr(b, `,"auth":`, p.Auth)
	b = appendRaw(b, `,"blind":`, p.Blind[:])
	b = appendStr(b, `,"by":`, p.By)
	b = appendNum(b, `,"received":`, p.Received)
	return fmt.Appendf(b, `,"skew_ms":%d}`, p.SkewMS)
}

func (s *scanner) part() (p Part) {
	s.lit(`{"as_of":`)
	p.AsOf = s.num()
	if s.has(`,"attested":"` + AttestedByLog + `"`) {
		p.Attested = AttestedByLog
	}
	s.lit(`,"auth":`)
	p.Auth = s.name()
	s.lit(`,"blind":`)
	s.raw(p.Blind[:])
	s.lit(`,"by":`)
	p.By = s.name()
	s.lit(`,"received":`)
	p.Received = s.num()
	s.lit(`,"skew_ms":`)
	p.SkewMS = s.signed()
	s.lit(`}`)
	return p
}

// ParsePart parses what [Part.Marshal] returns.
func ParsePart(text []byte) (Part, error) {
	s := newScanner("log part", text)
	p := s.part()
	return p, s.end()
}

// ParseEntry parses a canonical entry. It accepts exactly what Marshal of a
// valid entry returns; other versions are [ErrVersion].
func ParseEntry(text []byte) (Entry, error) {
	if len(text) > EntryMaxBytes {
		return Entry{}, fmt.Errorf("%w entry: %d bytes, at most %d", ErrMalformed, len(text), EntryMaxBytes)
	}
	s := newScanner("entry", text)
	var e Entry
	s.lit(`{"event":`)
	begin := s.at
	e.Event = s.event()
	eventBytes := s.at - begin
	s.lit(`,"log":`)
	e.Log = s.part()
	if s.has(`,"sig":`) {
		sig := s.sig()
		e.Sig = &sig
	}
	s.lit(`,"v":`)
	s.version()
	s.lit(`}`)
	if err := s.end(); err != nil {
		return Entry{}, err
	}
	if eventBytes > EventMaxBytes {
		return Entry{}, fmt.Errorf("%w entry: event of %d bytes, at most %d", ErrMalformed, eventBytes, EventMaxBytes)
	}
	return e, e.Validate()
}

// Validate reports everything that keeps the entry from being well-formed.
func (e Entry) Validate() error {
	errs := []error{e.Event.Validate()}
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w entry: "+format, append([]any{ErrMalformed}, args...)...))
	}
	if !ValidName(e.Log.By) || !ValidName(e.Log.Auth) {
		bad("by %q or auth %q is not a name", e.Log.By, e.Log.Auth)
	}
	if e.Log.Attested != "" && e.Log.Attested != AttestedByLog {
		bad("attested %q, want none or %q", e.Log.Attested, AttestedByLog)
	}
	if e.Log.AsOf > maxInt || e.Log.Received > maxInt {
		bad("as_of %d or received %d is outside its range", e.Log.AsOf, e.Log.Received)
	}
	if want := int64(e.Log.Received) - int64(e.Event.Time); e.Log.SkewMS != want {
		bad("skew_ms is %d, but received - time is %d", e.Log.SkewMS, want)
	}
	if ClassOf(e.Event.Kind) == Server && e.Log.Attested == "" {
		bad("kind %q is made by the log, but the entry is not attested by it", e.Event.Kind)
	}
	return errors.Join(errs...)
}

// LeafHash is the RFC 6962 leaf hash of an entry's bytes: SHA-256(0x00 || entry).
func LeafHash(entry []byte) Hash { return tlog.RecordHash(entry) }
