package witness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"github.com/pipe-roll/piperoll/log"
)

// ErrQuorum means that a checkpoint, signed by its log, lacks cosignatures
// that the policy asks for.
var ErrQuorum = errors.New("quorum of cosignatures is not met")

// An Opened is a checkpoint that a policy accepts, and why.
type Opened struct {
	Checkpoint log.Checkpoint
	Log        Key           // that signed it
	Cosigned   []Cosignature // verified, in the order of the policy's witnesses
	Time       uint64        // POSIX seconds by which a quorum had seen it; 0 if the quorum claims none
	Unknown    int           // signature lines by keys that the policy does not list: nobody checked them
}

// A Cosignature is a witness's verified signature.
type Cosignature struct {
	Witness string
	Time    uint64 // POSIX seconds; 0 makes no claim
}

// Open verifies a checkpoint's note under the policy and parses it. Errors:
// [log.ErrSignature] if no listed log has signed it or a listed key's signature
// is bad, [log.ErrMalformed], [ErrQuorum]. With the last comes what OpenLog
// gives: what a log alone has signed can still convict it.
func (p Policy) Open(msg []byte) (Opened, error) {
	o, err := p.OpenLog(msg)
	if err != nil {
		return Opened{}, err
	}
	seconds, ok := p.quorumTime(o.Cosigned)
	if !ok {
		return o, fmt.Errorf("%w: %s of size %d has %d cosignatures of the policy's %d witnesses; quorum is %q",
			ErrQuorum, o.Checkpoint.Origin, o.Checkpoint.Size, len(o.Cosigned), len(p.Witnesses), p.Quorum)
	}
	o.Time = seconds
	return o, nil
}

// OpenLog is Open without the quorum: what the log has signed, and who has
// cosigned it. A caller that accepts it trusts the log alone.
func (p Policy) OpenLog(msg []byte) (Opened, error) {
	// All listed keys are tried at once: a bad signature of any refuses the note.
	known := p.known()
	n, err := log.OpenNote("checkpoint", msg, known)
	if err != nil {
		return Opened{}, err
	}
	o := Opened{Unknown: len(n.UnverifiedSigs)}
	c, err := log.ParseCheckpoint(n.Text)
	if err != nil {
		return Opened{}, err
	}
	o.Checkpoint = c
	times := make(map[keyID]uint64)
	for _, s := range n.Sigs {
		id := keyID{s.Name, s.Hash}
		times[id] = signedAt(known[id].typ, s)
	}
	signed := false
	for _, l := range p.Logs {
		_, receipts := p.receiptOf(l)
		if _, ok := times[idOf(l.Key)]; ok && !receipts && l.Key.name == c.Origin {
			o.Log, signed = l.Key, true
		}
	}
	if !signed {
		return Opened{}, fmt.Errorf("%w: checkpoint of %q: no log of that name in the policy has signed it", log.ErrSignature, c.Origin)
	}
	for _, w := range p.Witnesses {
		if t, ok := times[idOf(w.Key)]; ok {
			o.Cosigned = append(o.Cosigned, Cosignature{w.Name, t})
		}
	}
	return o, nil
}

// signedAt gives the timestamp of a verified signature; 0 for type 0x01, which has none.
func signedAt(typ KeyType, s note.Signature) uint64 {
	const idBytes = 4
	raw, err := b64.DecodeString(s.Base64)
	if typ == Ed25519 || err != nil {
		return 0
	}
	return binary.BigEndian.Uint64(raw[idBytes:])
}

// A keyID is what a signature line says of its key.
type keyID struct {
	name string
	hash uint32
}

func idOf(k Key) keyID { return keyID{k.name, k.KeyHash()} }

// knownKeys finds the policy's keys. A log and a witness may be one key.
type knownKeys map[keyID]Key

func (p Policy) known() knownKeys {
	known := make(knownKeys)
	for _, l := range p.Logs {
		known[idOf(l.Key)] = l.Key
	}
	for _, w := range p.Witnesses {
		known[idOf(w.Key)] = w.Key
	}
	return known
}

// Verifier is of the note.Verifiers interface.
func (k knownKeys) Verifier(name string, hash uint32) (note.Verifier, error) {
	key, ok := k[keyID{name, hash}]
	if !ok {
		return nil, &note.UnknownVerifierError{Name: name, KeyHash: hash}
	}
	return key, nil
}

// QuorumAfter says whether those of the cosignatures that were made later than
// a time in Unix milliseconds satisfy the quorum without the others, and when
// the last of the needed ones was made. One without a time may be as old as
// the log, and counts for nothing; with quorum none, nobody said anything.
func (p Policy) QuorumAfter(cosigned []Cosignature, ms uint64) (seconds uint64, ok bool) {
	later := slices.DeleteFunc(slices.Clone(cosigned), func(c Cosignature) bool { return c.Time*1000 <= ms })
	if p.Quorum == none {
		return 0, false
	}
	return p.quorumTime(later)
}

// quorumTime says whether the quorum is satisfied, and since when: the time at
// which the last signature was made that it needs. One early or false clock
// does not move it, as the earliest time would.
func (p Policy) quorumTime(cosigned []Cosignature) (seconds uint64, ok bool) {
	if p.Quorum == none {
		return 0, true
	}
	const never = math.MaxUint64 // signed, without a claim of time
	since := make(map[string]uint64)
	for _, c := range cosigned {
		since[c.Witness] = c.Time
		if c.Time == 0 {
			since[c.Witness] = never
		}
	}
	for _, g := range p.Groups {
		var times []uint64
		for _, m := range g.Members {
			if t, ok := since[m]; ok {
				times = append(times, t)
			}
		}
		if len(times) >= g.K {
			slices.Sort(times)
			since[g.Name] = times[g.K-1]
		}
	}
	seconds, ok = since[p.Quorum]
	if seconds == never {
		seconds = 0
	}
	return seconds, ok
}
