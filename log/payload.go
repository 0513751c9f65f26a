package log

import (
	"crypto/ed25519"
	"fmt"
	"slices"
)

// JSONType is the payload type of the structural payloads below.
const JSONType = "application/json"

// CheckPayload says whether payload is one that e, if it commits to any, may
// commit to: what FORMAT.md section 5 says of the kinds there, anything for all
// others. A log that took another could never be folded.
func CheckPayload(e Event, payload []byte) error {
	parse := parserOf(e.Kind)
	if parse == nil || e.Payload == nil {
		return nil
	}
	if e.Payload.Type != JSONType {
		return fmt.Errorf("%w payload of %s: type %q, want %s", ErrMalformed, e.Kind, e.Payload.Type, JSONType)
	}
	return parse(payload)
}

// parserOf gives the parser of a kind's payloads, nil for kinds that fix none.
func parserOf(kind string) func([]byte) error {
	switch kind {
	case serverOpen:
		return checks(ParseLogOpen)
	case "stream.open":
		return checks(ParseStreamOpen)
	case "migration.open":
		return checks(ParseMigrationOpen)
	case "migration.close":
		return checks(ParseMigrationClose)
	case "key.registered":
		return checks(ParseKeyRegistered)
	case "key.revoked":
		return checks(ParseKeyRevoked)
	case "access.token.created":
		return checks(ParseTokenCreated)
	case "access.token.revoked":
		return checks(ParseTokenRevoked)
	case serverErased:
		return checks(ParsePayloadErased)
	case serverRefused:
		return checks(ParseRefused)
	}
	return nil
}

func checks[T any](parse func([]byte) (T, error)) func([]byte) error {
	return func(payload []byte) error {
		_, err := parse(payload)
		return err
	}
}

// A LogOpen is the payload of entry 0: the log's own statement of its keys.
// An auditor compares it with the keys that came by another channel.
type LogOpen struct {
	Keys      []LogKey // sorted by purpose
	Origin    string
	PromiseMS uint64   // a receipt's By is its Received plus this
	Semantics []string // versions of the folds, such as "fold-1"
}

// A LogKey is a key of the log with its one purpose.
type LogKey struct{ Purpose, VKey string }

// Purposes of the log's keys.
const (
	PurposeCheckpoint = "checkpoint"
	PurposeReceipt    = "receipt"
)

// Marshal gives the canonical bytes (RFC 8785).
func (o LogOpen) Marshal() []byte {
	b := []byte(`{"keys":[`)
	for i, k := range o.Keys {
		b = comma(b, i)
		b = appendStr(b, `{"purpose":`, k.Purpose)
		b = append(appendStr(b, `,"vkey":`, k.VKey), '}')
	}
	b = appendStr(b, `],"origin":`, o.Origin)
	b = appendNum(b, `,"promise_ms":`, o.PromiseMS)
	b = append(b, `,"semantics":[`...)
	for i, v := range o.Semantics {
		b = appendStr(comma(b, i), "", v)
	}
	return append(b, `],"v":1}`...)
}

// ParseLogOpen parses what Marshal returns.
func ParseLogOpen(text []byte) (LogOpen, error) {
	var o LogOpen
	s := newScanner("log.open payload", text)
	s.lit(`{"keys":`)
	s.list(16, func() {
		var k LogKey
		s.lit(`{"purpose":`)
		k.Purpose = s.str("a purpose", func(t string) bool { return t == PurposeCheckpoint || t == PurposeReceipt })
		s.lit(`,"vkey":`)
		k.VKey = s.visible(2048)
		s.lit(`}`)
		o.Keys = append(o.Keys, k)
	})
	s.lit(`,"origin":`)
	o.Origin = s.name()
	s.lit(`,"promise_ms":`)
	o.PromiseMS = s.num()
	s.lit(`,"semantics":`)
	s.list(64, func() { o.Semantics = append(o.Semantics, s.name()) })
	s.lit(`,"v":`)
	s.version()
	s.lit(`}`)
	return o, s.end()
}

// A StreamOpen is the payload of stream.open, a stream's first event.
type StreamOpen struct {
	Keys  []PublicKey // that may sign tails; none if log-kept
	Mode  string      // ModeSigned or ModeLogKept
	Owner string      // the only principal that may append
}

// Modes of a stream.
const (
	ModeSigned  = "signed"   // the owner chains and signs: the log cannot add to it
	ModeLogKept = "log-kept" // the log chains: nobody but the log attests it
)

// Marshal gives the canonical bytes (RFC 8785).
func (o StreamOpen) Marshal() []byte {
	b := []byte(`{"keys":[`)
	for i, k := range o.Keys {
		b = appendRaw(comma(b, i), `{"alg":"`+algEd25519+`","key":`, k[:])
		b = append(b, '}')
	}
	b = appendStr(b, `],"mode":`, o.Mode)
	b = appendStr(b, `,"owner":`, o.Owner)
	return append(b, `,"v":1}`...)
}

// ParseStreamOpen parses what Marshal of a valid StreamOpen returns.
func ParseStreamOpen(text []byte) (StreamOpen, error) {
	var o StreamOpen
	s := newScanner("stream.open payload", text)
	s.lit(`{"keys":`)
	s.list(16, func() {
		var k PublicKey
		s.lit(`{"alg":"` + algEd25519 + `","key":`)
		s.raw(k[:])
		s.lit(`}`)
		o.Keys = append(o.Keys, k)
	})
	s.lit(`,"mode":`)
	o.Mode = s.name()
	s.lit(`,"owner":`)
	o.Owner = s.name()
	s.lit(`,"v":`)
	s.version()
	s.lit(`}`)
	if err := s.end(); err != nil {
		return StreamOpen{}, err
	}
	for _, k := range o.Keys {
		if err := k.Check(); err != nil {
			return StreamOpen{}, fmt.Errorf("stream.open payload: %w", err)
		}
	}
	switch {
	case o.Mode == ModeSigned && len(o.Keys) > 0, o.Mode == ModeLogKept && len(o.Keys) == 0:
		return o, nil
	}
	return StreamOpen{}, fmt.Errorf("%w stream.open payload: mode %q with %d keys: want %q with keys or %q without", ErrMalformed, o.Mode, len(o.Keys), ModeSigned, ModeLogKept)
}

// A MigrationOpen is the payload of migration.open: the streams to expect.
type MigrationOpen struct{ Streams []StreamOwner } // sorted by stream, no repeats

// A StreamOwner says who owns a stream.
type StreamOwner struct{ Owner, Stream string }

// Marshal gives the canonical bytes (RFC 8785).
func (o MigrationOpen) Marshal() []byte {
	b := []byte(`{"streams":[`)
	for i, st := range o.Streams {
		b = appendStr(comma(b, i), `{"owner":`, st.Owner)
		b = append(appendStr(b, `,"stream":`, st.Stream), '}')
	}
	return append(b, `],"v":1}`...)
}

// ParseMigrationOpen parses what Marshal of a sorted MigrationOpen returns.
func ParseMigrationOpen(text []byte) (MigrationOpen, error) {
	var o MigrationOpen
	s := newScanner("migration.open payload", text)
	s.lit(`{"streams":`)
	s.list(StreamsMax, func() {
		var st StreamOwner
		s.lit(`{"owner":`)
		st.Owner = s.name()
		s.lit(`,"stream":`)
		st.Stream = s.name()
		s.lit(`}`)
		o.Streams = append(o.Streams, st)
	})
	s.lit(`,"v":`)
	s.version()
	s.lit(`}`)
	if err := s.end(); err != nil {
		return MigrationOpen{}, err
	}
	return o, sortedNames("migration.open", o.Streams, func(st StreamOwner) string { return st.Stream })
}

// A MigrationClose is the payload of migration.close: the whole account. A
// migration is complete if these streams, to these ends, are all at hand.
type MigrationClose struct{ Streams []StreamEnd } // sorted by stream, no repeats

// A StreamEnd is where a stream ends.
type StreamEnd struct {
	Hash   Hash   // EventHash of the last event
	Last   uint64 // its seq
	Stream string
}

// Marshal gives the canonical bytes (RFC 8785).
func (c MigrationClose) Marshal() []byte {
	b := []byte(`{"streams":[`)
	for i, st := range c.Streams {
		b = appendRaw(comma(b, i), `{"hash":`, st.Hash[:])
		b = appendNum(b, `,"last":`, st.Last)
		b = append(appendStr(b, `,"stream":`, st.Stream), '}')
	}
	return append(b, `],"v":1}`...)
}

// ParseMigrationClose parses what Marshal of a sorted MigrationClose returns.
func ParseMigrationClose(text []byte) (MigrationClose, error) {
	var c MigrationClose
	s := newScanner("migration.close payload", text)
	s.lit(`{"streams":`)
	s.list(StreamsMax, func() {
		var st StreamEnd
		s.lit(`{"hash":`)
		st.Hash = s.hash()
		s.lit(`,"last":`)
		st.Last = s.num()
		s.lit(`,"stream":`)
		st.Stream = s.name()
		s.lit(`}`)
		c.Streams = append(c.Streams, st)
	})
	s.lit(`,"v":`)
	s.version()
	s.lit(`}`)
	if err := s.end(); err != nil {
		return MigrationClose{}, err
	}
	return c, sortedNames("migration.close", c.Streams, func(st StreamEnd) string { return st.Stream })
}

// A KeyRegistered is the payload of key.registered.
type KeyRegistered struct {
	Key       PublicKey
	Previous  *Sig // by the principal's previous key over [SuccessionText], if there is one
	Principal string
	Proof     *[ed25519.SignatureSize]byte // by Key over [PossessionText]; nil if first use has to prove it
}

// Marshal gives the canonical bytes (RFC 8785).
func (k KeyRegistered) Marshal() []byte {
	b := appendRaw([]byte(`{"alg":"`+algEd25519+`"`), `,"key":`, k.Key[:])
	if k.Previous != nil {
		b = k.Previous.append(append(b, `,"previous":`...))
	}
	b = appendStr(b, `,"principal":`, k.Principal)
	if k.Proof != nil {
		b = appendRaw(b, `,"proof":`, k.Proof[:])
	}
	return append(b, `,"v":1}`...)
}

// ParseKeyRegistered parses what Marshal returns. It does not verify signatures.
func ParseKeyRegistered(text []byte) (KeyRegistered, error) {
	var k KeyRegistered
	s := newScanner("key.registered payload", text)
	s.lit(`{"alg":"` + algEd25519 + `","key":`)
	s.raw(k.Key[:])
	if s.has(`,"previous":`) {
		g := s.sig()
		k.Previous = &g
	}
	s.lit(`,"principal":`)
	k.Principal = s.name()
	if s.has(`,"proof":`) {
		k.Proof = new([ed25519.SignatureSize]byte)
		s.raw(k.Proof[:])
	}
	s.lit(`,"v":`)
	s.version()
	s.lit(`}`)
	if err := s.end(); err != nil {
		return KeyRegistered{}, err
	}
	if err := k.Key.Check(); err != nil {
		return KeyRegistered{}, fmt.Errorf("key.registered payload: %w", err)
	}
	return k, nil
}

// A KeyRevoked is the payload of key.revoked.
type KeyRevoked struct {
	CompromisedSince *uint64 // index from which signatures are doubtful; nil if never
	Key              Hash    // [PublicKey.ID]
}

// Marshal gives the canonical bytes (RFC 8785).
func (k KeyRevoked) Marshal() []byte {
	b := []byte(`{`)
	if k.CompromisedSince != nil {
		b = append(appendNum(b, `"compromised_since":`, *k.CompromisedSince), ',')
	}
	return append(appendRaw(b, `"key":`, k.Key[:]), `,"v":1}`...)
}

// ParseKeyRevoked parses what Marshal returns.
func ParseKeyRevoked(text []byte) (KeyRevoked, error) {
	var k KeyRevoked
	s := newScanner("key.revoked payload", text)
	s.lit(`{`)
	if s.has(`"compromised_since":`) {
		n := s.num()
		k.CompromisedSince = &n
		s.lit(`,`)
	}
	s.lit(`"key":`)
	k.Key = s.hash()
	s.lit(`,"v":`)
	s.version()
	s.lit(`}`)
	return k, s.end()
}

// A TokenCreated is the payload of access.token.created.
type TokenCreated struct {
	ExpiresMS   uint64   // Unix milliseconds; the token is refused from then on
	Hash        Hash     // SHA-256 of the token
	ID          string   // names the token in entries' auth
	Permissions []string // beyond those of the role, sorted
	Principal   string
	Role        string
}

// Marshal gives the canonical bytes (RFC 8785).
func (t TokenCreated) Marshal() []byte {
	b := appendNum(nil, `{"expires":`, t.ExpiresMS)
	b = appendRaw(b, `,"hash":`, t.Hash[:])
	b = appendStr(b, `,"id":`, t.ID)
	b = append(b, `,"permissions":[`...)
	for i, p := range t.Permissions {
		b = appendStr(comma(b, i), "", p)
	}
	b = appendStr(b, `],"principal":`, t.Principal)
	b = appendStr(b, `,"role":`, t.Role)
	return append(b, `,"v":1}`...)
}

// ParseTokenCreated parses what Marshal returns.
func ParseTokenCreated(text []byte) (TokenCreated, error) {
	var t TokenCreated
	s := newScanner("access.token.created payload", text)
	s.lit(`{"expires":`)
	t.ExpiresMS = s.num()
	s.lit(`,"hash":`)
	t.Hash = s.hash()
	s.lit(`,"id":`)
	t.ID = s.name()
	s.lit(`,"permissions":`)
	s.list(64, func() { t.Permissions = append(t.Permissions, s.name()) })
	s.lit(`,"principal":`)
	t.Principal = s.name()
	s.lit(`,"role":`)
	t.Role = s.name()
	s.lit(`,"v":`)
	s.version()
	s.lit(`}`)
	return t, s.end()
}

// A TokenRevoked is the payload of access.token.revoked.
type TokenRevoked struct{ ID string }

// Marshal gives the canonical bytes (RFC 8785).
func (t TokenRevoked) Marshal() []byte { return append(appendStr(nil, `{"id":`, t.ID), `,"v":1}`...) }

// ParseTokenRevoked parses what Marshal returns.
func ParseTokenRevoked(text []byte) (TokenRevoked, error) {
	var t TokenRevoked
	s := newScanner("access.token.revoked payload", text)
	s.lit(`{"id":`)
	t.ID = s.name()
	s.lit(`,"v":`)
	s.version()
	s.lit(`}`)
	return t, s.end()
}

// A PayloadErased is the payload of payload.erased.
type PayloadErased struct {
	Authority string // under which it was decided, such as "gdpr:art17:case-81"
	Index     uint64 // of the entry whose payload and salt are gone
}

// Marshal gives the canonical bytes (RFC 8785).
func (p PayloadErased) Marshal() []byte {
	b := appendStr(nil, `{"authority":`, p.Authority)
	return append(appendNum(b, `,"index":`, p.Index), `,"v":1}`...)
}

// ParsePayloadErased parses what Marshal returns.
func ParsePayloadErased(text []byte) (PayloadErased, error) {
	var p PayloadErased
	s := newScanner("payload.erased payload", text)
	s.lit(`{"authority":`)
	p.Authority = s.name()
	s.lit(`,"index":`)
	p.Index = s.num()
	s.lit(`,"v":`)
	s.version()
	s.lit(`}`)
	return p, s.end()
}

// A Refused is the payload of log.refused: that something was refused, without
// its text.
type Refused struct {
	Count   uint64   // repeats in a window become one entry
	Reason  string   // of a closed set
	Request Hash     // [Commit] of the request's body as application/octet-stream
	Route   string   // what was asked
	Salt    [32]byte // of Request
}

// Marshal gives the canonical bytes (RFC 8785).
func (r Refused) Marshal() []byte {
	b := appendNum(nil, `{"count":`, r.Count)
	b = appendStr(b, `,"reason":`, r.Reason)
	b = appendRaw(b, `,"request":`, r.Request[:])
	b = appendStr(b, `,"route":`, r.Route)
	return append(appendRaw(b, `,"salt":`, r.Salt[:]), `,"v":1}`...)
}

// ParseRefused parses what Marshal returns.
func ParseRefused(text []byte) (Refused, error) {
	var r Refused
	s := newScanner("log.refused payload", text)
	s.lit(`{"count":`)
	r.Count = s.num()
	s.lit(`,"reason":`)
	r.Reason = s.name()
	s.lit(`,"request":`)
	r.Request = s.hash()
	s.lit(`,"route":`)
	r.Route = s.name()
	s.lit(`,"salt":`)
	s.raw(r.Salt[:])
	s.lit(`,"v":`)
	s.version()
	s.lit(`}`)
	return r, s.end()
}

func comma(b []byte, i int) []byte {
	if i > 0 {
		return append(b, ',')
	}
	return b
}

// sortedNames wants names in strictly ascending order: one spelling of a set.
func sortedNames[T any](what string, items []T, name func(T) string) error {
	if !slices.IsSortedFunc(items, func(a, b T) int {
		// a is the later one. Equal names have to come out as out of order too.
		if name(a) <= name(b) {
			return -1
		}
		return 1
	}) {
		return fmt.Errorf("%w %s payload: streams are not in ascending order without repeats", ErrMalformed, what)
	}
	return nil
}
