// Package log defines the formats of the transparency log and checks them.
//
// A log is a list of entries that only grows. An [Entry] holds an [Event], made,
// chained and signed by its submitter, and what the log adds: who sent it, when,
// and what was decided. The bytes of an event's payload stay outside the tree,
// bound to it by a salted commitment, so that they can be erased.
// A [Checkpoint] sums the log up; a [Receipt] promises that entries are in it;
// inclusion, consistency and range proofs show what is.
//
// The package does no I/O, starts no goroutine, reads no clock and logs nothing,
// so that a verifier can be built from it alone. It trusts no input: every
// parser accepts exactly the bytes that its type's String or Marshal returns.
// The machinery is in the subfolders.
//
// Formats: FORMAT.md beside this file; c2sp.org/tlog-checkpoint,
// c2sp.org/tlog-tiles, c2sp.org/tlog-proof; RFC 6962 section 2; RFC 8785.
package log

import (
	"errors"

	"golang.org/x/mod/sumdb/tlog"
)

// A Hash is a SHA-256 hash: of an event, a leaf, or a node of the tree.
type Hash = tlog.Hash

// Limits of the format. A reader refuses more before it reads it.
const (
	EventMaxBytes   = 16 << 10  // canonical event
	EntryMaxBytes   = 1<<16 - 1 // entry; the length field of c2sp.org/tlog-tiles has 16 bits
	PayloadMaxBytes = 4 << 20   // payload of an event
	LineageMaxBytes = 32 << 20  // payload of an OpenLineage event
	ObjectsMax      = 64        // objects that an event names
	StreamsMax      = 10_000    // streams that a migration lists
	NameMaxBytes    = 128       // a name
	NoteMaxBytes    = 128 << 10 // a signed note, with cosignatures
	maxInt          = 1<<53 - 1 // largest integer of I-JSON, RFC 7493 section 2.2
)

// Errors that callers branch on.
var (
	// ErrMalformed is wrapped by every parser: the bytes are not of that format.
	ErrMalformed = errors.New("malformed")
	// ErrVersion means a well-formed text of a version that this code does not know.
	ErrVersion = errors.New("unsupported version")
	// ErrSignature means that a signature does not verify under the key it names.
	ErrSignature = errors.New("signature does not verify")
	// ErrProof means that a Merkle proof does not lead to the root.
	ErrProof = errors.New("proof does not lead to the root")
)

// A Record is what the log keeps at one index.
type Record struct {
	Entry   []byte   // canonical entry, at most EntryMaxBytes: the leaf of the tree
	Payload *Payload // nil if the event commits to none, or it is withheld
}

// A Payload is what an event's commitment stands for.
type Payload struct {
	Salt  [32]byte
	Bytes []byte
	// Lasting: the folds need it, so it is never erased ([Erasable]), and must not be lost with the keys that erasable
	// ones are sealed under.
	Lasting bool
}

// A Head is the state of the tree: how many entries, and their root. Unsigned.
type Head struct {
	Size uint64
	Root Hash
}
