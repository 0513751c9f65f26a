package log

import (
	"encoding/json"
	"errors"
	"fmt"
)

// A Stream is the state of one chain of events after the last one: a fold over
// the entries of that stream. The sequencer and the verifier run the same code.
// Its JSON is for caches; it is not a signed format.
type Stream struct {
	Name      string
	Migration string
	Owner     string
	Mode      string
	Keys      []PublicKey // that may sign tails
	Seq       uint64      // of the last event, or of the last refusal that took a seq; 0 before the first
	Hash      Hash        // its EventHash
	Tail      uint64      // the last seq that ended a request: see [Stream.TailFirst]
	Index     uint64      // of the last entry
	Closed    bool
}

// Reasons why an event does not fit its stream. They are for the submitter:
// each wraps a text that says what to do.
var (
	ErrFork   = errors.New("another event has this place in the stream")
	ErrGap    = errors.New("event does not follow the stream's head")
	ErrOwner  = errors.New("stream belongs to another principal")
	ErrClosed = errors.New("stream is closed")
	ErrTail   = errors.New("tail signature is missing or not acceptable")
	ErrOpen   = errors.New("stream is not open, or opened twice")
)

// NewStream is the state of a stream before its first event.
func NewStream(origin, name string) Stream {
	return Stream{Name: name, Hash: StreamStart(origin, name)}
}

// Check says whether e, sent by the principal by, is the next event.
func (s *Stream) Check(e Event, by string) error {
	switch {
	case e.Stream != s.Name:
		panic("log: event of another stream")
	case s.Owner != "" && by != s.Owner && e.Migration != serverMigration:
		return fmt.Errorf("%w: %q", ErrOwner, s.Name)
	case s.Migration != "" && e.Migration != s.Migration:
		// By its name crm/x/a could be of crm or of crm/x: its opening decided.
		return fmt.Errorf("%w: stream %q belongs to migration %q", ErrMigration, s.Name, s.Migration)
	case e.Seq <= s.Seq:
		return fmt.Errorf("%w: %q is at seq %d, the event has seq %d", ErrFork, s.Name, s.Seq, e.Seq)
	case e.Seq != s.Seq+1:
		return fmt.Errorf("%w: %q is at seq %d, the event has seq %d", ErrGap, s.Name, s.Seq, e.Seq)
	case e.Prev != s.Hash:
		return fmt.Errorf("%w: prev of seq %d in %q is not the hash of seq %d", ErrFork, e.Seq, s.Name, s.Seq)
	case s.Closed:
		return fmt.Errorf("%w: %q", ErrClosed, s.Name)
	case (e.Kind == "stream.open") != (e.Seq == 1) && e.Migration != serverMigration:
		return fmt.Errorf("%w: seq 1 of %q, and no other, is stream.open", ErrOpen, s.Name)
	}
	return nil
}

// Advance moves the stream over e, placed at index: an event that passed Check.
// open is the payload of a stream.open, else nil; tail says that the event
// ended a request (it carries a tail signature, or the log attested it).
func (s *Stream) Advance(e Event, hash Hash, index uint64, open *StreamOpen, tail bool) {
	s.Migration = e.Migration
	s.Seq, s.Hash, s.Index = e.Seq, hash, index
	if open != nil {
		s.Owner, s.Mode, s.Keys = open.Owner, open.Mode, open.Keys
	}
	if tail {
		s.Tail = e.Seq
	}
	if e.Kind == "stream.close" {
		s.Closed = true
	}
}

// Refuse moves the stream over a refused event that took its seq: the next
// event's Prev is that event's hash. The log.refused is placed at index.
func (s *Stream) Refuse(seq uint64, hash Hash, index uint64) {
	s.Seq, s.Hash, s.Tail, s.Index = seq, hash, seq, index
}

// TailFirst is the first seq that the next tail signature covers: the one
// after the last seq that ended a request, by a tail or by a refusal.
func (s *Stream) TailFirst() uint64 { return s.Tail + 1 }

// CheckTail checks the signature of a request's last event. keys are those of
// the stream; for its stream.open, those that the payload lists. Whether the
// key is registered is for the [Keyring].
func (s *Stream) CheckTail(origin string, keys []PublicKey, first uint64, last Event, hash Hash, sig *Sig) error {
	if sig == nil {
		return fmt.Errorf("%w: %q is signed by its owner: the last event of each request carries sig", ErrTail, s.Name)
	}
	for _, k := range keys {
		if k.ID() != sig.Key {
			continue
		}
		if err := sig.Verify(k, TailText(origin, last.Stream, first, last.Seq, hash)); err != nil {
			return fmt.Errorf("%w: seq %d to %d of %q: %w", ErrTail, first, last.Seq, last.Stream, err)
		}
		return nil
	}
	return fmt.Errorf("%w: key %s is not one of stream %q", ErrTail, sig.Key, last.Stream)
}

// MarshalStream and UnmarshalStream are for caches of the state.
func MarshalStream(s Stream) ([]byte, error) { return json.Marshal(s) }

// UnmarshalStream reads what MarshalStream wrote.
func UnmarshalStream(b []byte) (s Stream, err error) {
	err = json.Unmarshal(b, &s)
	return s, err
}

// A Keyring is the fold over key.registered and key.revoked.
type Keyring struct {
	// Partial says that key entries may be missing before the next one. A key
	// that it names and that was not seen is then no error: what the entry says
	// of its own key still counts.
	Partial bool
	// Brought are keys that are known without the log: one of them can vouch for
	// another though its own registration was not seen.
	Brought Submitters
	keys    map[Hash]*KeyState
}

// A KeyState is what the log says of one key.
type KeyState struct {
	Key              PublicKey
	Principal        string
	Registered       uint64  // index from which tails may use it
	Revoked          *uint64 // index from which they may not
	CompromisedSince *uint64 // index from which they are doubtful
	Proven           bool    // possession was proven at registration
	Previous         *Hash   // the key that vouched for it at registration; nil if none did
	Unchecked        bool    // Previous is not known, so that its signature was not checked
}

// Apply folds one entry with its payload bytes. Entries of other kinds are
// ignored, and so are those that the log did not attest itself: nobody
// registers a key by submitting an event. An entry that gives an error changes
// nothing: whoever folds goes on without it.
func (r *Keyring) Apply(index uint64, e Entry, payload []byte) error {
	id, state, err := r.change(index, e, payload)
	if err != nil || state == nil {
		return err
	}
	if r.keys == nil {
		r.keys = make(map[Hash]*KeyState)
	}
	r.keys[id] = state
	return nil
}

// Check gives the error that Apply would, and changes nothing.
func (r *Keyring) Check(index uint64, e Entry, payload []byte) error {
	_, _, err := r.change(index, e, payload)
	return err
}

// change gives the key that the entry is about, and its state after it; nil if
// it is about none.
func (r *Keyring) change(index uint64, e Entry, payload []byte) (Hash, *KeyState, error) {
	if e.Log.Attested != AttestedByLog || e.Event.Migration != serverMigration {
		return Hash{}, nil, nil
	}
	switch e.Event.Kind {
	case "key.registered":
		k, err := ParseKeyRegistered(payload)
		if err == nil {
			err = r.CheckRegistration(e.Event.Log, k)
		}
		if err != nil {
			return Hash{}, nil, fmt.Errorf("entry %d: %w", index, err)
		}
		state := &KeyState{Key: k.Key, Principal: k.Principal, Registered: index, Proven: k.Proof != nil}
		if k.Previous != nil {
			state.Previous, state.Unchecked = &k.Previous.Key, r.previous(k) == nil
		}
		return k.Key.ID(), state, nil
	case "key.revoked":
		k, err := ParseKeyRevoked(payload)
		if err != nil {
			return Hash{}, nil, fmt.Errorf("entry %d: %w", index, err)
		}
		state, ok := r.Lookup(k.Key)
		if !ok && !r.Partial || state.Revoked != nil {
			return Hash{}, nil, fmt.Errorf("entry %d: %w: %s cannot be revoked", index, ErrKeyUnknown, k.Key)
		}
		state.Revoked, state.CompromisedSince = &index, k.CompromisedSince
		return k.Key, &state, nil
	}
	return Hash{}, nil, nil
}

// CheckRegistration says whether k may be registered: a usable key, new to the
// log, whose signatures verify where it has them.
func (r *Keyring) CheckRegistration(origin string, k KeyRegistered) error {
	if err := k.Key.Check(); err != nil {
		return err
	}
	if r.keys[k.Key.ID()] != nil {
		return fmt.Errorf("%w: %s", ErrKeyTaken, k.Key.ID())
	}
	if k.Proof != nil {
		if err := (Sig{k.Key.ID(), *k.Proof}).Verify(k.Key, PossessionText(origin, k.Principal, k.Key)); err != nil {
			return fmt.Errorf("proof of possession: %w", err)
		}
	}
	if k.Previous != nil {
		old := r.previous(k)
		if old == nil && r.Partial {
			return nil
		}
		if old == nil || old.Principal != k.Principal || old.Revoked != nil {
			return fmt.Errorf("%w: previous key %s is not a valid key of %q", ErrKey, k.Previous.Key, k.Principal)
		}
		if err := k.Previous.Verify(old.Key, SuccessionText(origin, k.Principal, k.Key)); err != nil {
			return fmt.Errorf("signature of the previous key: %w", err)
		}
	}
	return nil
}

// previous is the state of the key that vouches for k, nil if that is not known.
func (r *Keyring) previous(k KeyRegistered) *KeyState {
	if old := r.keys[k.Previous.Key]; old != nil || !r.Partial {
		return old
	}
	if !r.Brought.Has(k.Principal, k.Previous.Key) {
		return nil
	}
	return &KeyState{Key: r.Brought.keys[k.Previous.Key].key, Principal: k.Principal}
}

// Valid says whether principal may use the key for a tail at index:
// registered before it, not revoked up to it.
func (r *Keyring) Valid(key Hash, principal string, index uint64) error {
	k := r.keys[key]
	switch {
	case k == nil || k.Registered > index:
		return fmt.Errorf("%w: key %s is not registered", ErrKey, key)
	case k.Principal != principal && k.Principal != "": // "" if its registration was not seen
		return fmt.Errorf("%w: key %s belongs to another principal", ErrKey, key)
	case k.Revoked != nil && *k.Revoked <= index:
		return fmt.Errorf("%w: key %s is revoked since entry %d", ErrKey, key, *k.Revoked)
	}
	return nil
}

// Lookup gives the state of a key, and whether there is one.
func (r *Keyring) Lookup(key Hash) (KeyState, bool) {
	k := r.keys[key]
	if k == nil {
		return KeyState{}, false
	}
	return *k, true
}
