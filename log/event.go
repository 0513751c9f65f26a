package log

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
)

// An Event is what a submitter says happened. It holds no personal data:
// people are opaque ids, and what may name a person is in the payload.
type Event struct {
	Actor     string   // who acted: a principal, or an opaque person "p:<32 hex>"
	Kind      string   // see [ClassOf]
	Log       string   // origin of the log it is meant for: no other takes it
	Migration string   // that the stream belongs to
	Objects   []Object // what it is about
	Payload   *Ref     // nil if there is none
	Prev      Hash     // EventHash of Seq-1, or [StreamStart]
	Seq       uint64   // place in the stream, from 1
	Stream    string   // MIGRATION/NAME
	Time      uint64   // Unix milliseconds, by the submitter's clock
}

// An Object is something an event is about, in a role such as "source".
type Object struct{ Name, Role string }

// A Ref commits to a payload without revealing it.
type Ref struct {
	Commitment Hash
	Type       string // media type
}

// scheme names the one way to commit that exists so far.
const scheme = "whole-1"

// Marshal gives the canonical bytes (RFC 8785).
func (e Event) Marshal() []byte {
	b := make([]byte, 0, 640)
	b = appendStr(b, `{"actor":`, e.Actor)
	b = appendStr(b, `,"kind":`, e.Kind)
	b = appendStr(b, `,"log":`, e.Log)
	b = appendStr(b, `,"migration":`, e.Migration)
	b = append(b, `,"objects":[`...)
	for i, o := range e.Objects {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendStr(b, `{"name":`, o.Name)
		b = append(appendStr(b, `,"role":`, o.Role), '}')
	}
	b = append(b, ']')
	if e.Payload != nil {
		b = appendRaw(b, `,"payload":{"commitment":`, e.Payload.Commitment[:])
		b = appendStr(b, `,"scheme":`, scheme)
		b = append(appendStr(b, `,"type":`, e.Payload.Type), '}')
	}
	b = appendRaw(b, `,"prev":`, e.Prev[:])
	b = appendNum(b, `,"seq":`, e.Seq)
	b = appendStr(b, `,"stream":`, e.Stream)
	b = appendNum(b, `,"time":`, e.Time)
	return append(b, `,"v":1}`...)
}

// ParseEvent parses a canonical event. It accepts exactly what Marshal of a
// valid event returns; other versions are [ErrVersion].
func ParseEvent(text []byte) (Event, error) {
	if len(text) > EventMaxBytes {
		return Event{}, fmt.Errorf("%w event: %d bytes, at most %d", ErrMalformed, len(text), EventMaxBytes)
	}
	s := newScanner("event", text)
	e := s.event()
	if err := s.end(); err != nil {
		return Event{}, err
	}
	return e, e.Validate()
}

func (s *scanner) event() (e Event) {
	s.lit(`{"actor":`)
	e.Actor = s.name()
	s.lit(`,"kind":`)
	e.Kind = s.kind()
	s.lit(`,"log":`)
	e.Log = s.name()
	s.lit(`,"migration":`)
	e.Migration = s.name()
	s.lit(`,"objects":`)
	e.Objects = s.objects()
	if s.has(`,"payload":{"commitment":`) {
		e.Payload = &Ref{Commitment: s.hash()}
		s.lit(`,"scheme":"` + scheme + `","type":`)
		e.Payload.Type = s.str("a media type", ValidType)
		s.lit(`}`)
	}
	s.lit(`,"prev":`)
	e.Prev = s.hash()
	s.lit(`,"seq":`)
	e.Seq = s.num()
	s.lit(`,"stream":`)
	e.Stream = s.name()
	s.lit(`,"time":`)
	e.Time = s.num()
	s.lit(`,"v":`)
	s.version()
	s.lit(`}`)
	return e
}

func (s *scanner) objects() (objects []Object) {
	s.list(ObjectsMax, func() {
		var o Object
		s.lit(`{"name":`)
		o.Name = s.name()
		s.lit(`,"role":`)
		o.Role = s.name()
		s.lit(`}`)
		objects = append(objects, o)
	})
	return objects
}

// ParseObjects parses the canonical JSON of an event's objects.
func ParseObjects(text []byte) ([]Object, error) {
	s := newScanner("objects", text)
	objects := s.objects()
	return objects, s.end()
}

// Validate reports everything that keeps the event from being well-formed.
// Whether it fits its stream is for [Stream.Check].
func (e Event) Validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w event: "+format, append([]any{ErrMalformed}, args...)...))
	}
	for _, n := range []struct{ field, value string }{
		{"actor", e.Actor}, {"log", e.Log}, {"migration", e.Migration}, {"stream", e.Stream},
	} {
		if !ValidName(n.value) {
			bad("%s %q is not a name (1 to %d of A-Z a-z 0-9 . _ : / -)", n.field, n.value, NameMaxBytes)
		}
	}
	if ClassOf(e.Kind) == Unregistered {
		bad("kind %q is not registered; customers' own kinds begin with \"x.\"", e.Kind)
	}
	if len(e.Objects) > ObjectsMax {
		bad("%d objects, at most %d", len(e.Objects), ObjectsMax)
	}
	for _, o := range e.Objects {
		if !ValidName(o.Name) || !ValidName(o.Role) {
			bad("object %q in role %q: not names", o.Name, o.Role)
		}
	}
	if e.Payload != nil && !ValidType(e.Payload.Type) {
		bad("payload type %q is not a media type in lower case without parameters", e.Payload.Type)
	} else if e.Payload != nil && e.Payload.Type != JSONType && parserOf(e.Kind) != nil {
		bad("payload of %s has type %q, want %s", e.Kind, e.Payload.Type, JSONType)
	}
	if e.Seq < 1 || e.Seq > maxInt || e.Time > maxInt {
		bad("seq %d or time %d is outside its range", e.Seq, e.Time)
	}
	if err := checkStreamName(e.Stream, e.Migration); err != nil {
		errs = append(errs, err)
	}
	if server := ClassOf(e.Kind) == Server; server != (e.Migration == serverMigration) {
		bad("kind %q in migration %q: the log's own events, and only they, are in %q", e.Kind, e.Migration, serverMigration)
	}
	return errors.Join(errs...)
}

// Hash is the event's id: SHA-256("piperoll/event/v1\n" || canonical event).
func (e Event) Hash() Hash { return EventHash(e.Marshal()) }

// EventHash is [Event.Hash] for a caller that has the canonical event already.
func EventHash(canonical []byte) Hash {
	h := sha256.New()
	h.Write([]byte("piperoll/event/v1\n"))
	h.Write(canonical)
	return Hash(h.Sum(nil))
}

// StreamStart is the Prev of a stream's first event. It binds the stream to
// the log and its name, so that no chain can be moved to another.
func StreamStart(origin, stream string) Hash {
	return sha256.Sum256([]byte("piperoll/stream/v1\n" + origin + "\n" + stream))
}

// Commit commits to a payload: HMAC-SHA-256 with the salt as key over
// "piperoll/commit/v1\n" type "\n" bytes. Without the salt the commitment
// reveals nothing, not even to a guesser who knows all likely payloads.
func Commit(p Payload, mediaType string) Hash {
	m := NewCommit(p.Salt, mediaType)
	m.Write(p.Bytes)
	return Hash(m.Sum(nil))
}

// NewCommit is [Commit] for a payload that need not be in memory: its bytes are
// written to the hash, whose sum is the commitment.
func NewCommit(salt [32]byte, mediaType string) hash.Hash {
	m := hmac.New(sha256.New, salt[:])
	m.Write([]byte("piperoll/commit/v1\n" + mediaType + "\n"))
	return m
}

// ErrCommitment means that a payload is not the one that an event commits to.
var ErrCommitment = errors.New("payload is not the one committed to")

// Check says whether p is the payload that r commits to.
func (r Ref) Check(p Payload) error {
	got := Commit(p, r.Type)
	if !hmac.Equal(got[:], r.Commitment[:]) {
		return fmt.Errorf("%w: %d bytes of type %q", ErrCommitment, len(p.Bytes), r.Type)
	}
	return nil
}
