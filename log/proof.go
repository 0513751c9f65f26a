package log

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// proofMaxHashes bounds every proof: a path in a tree of 2^53 entries has at
// most 53 hashes, a range has two such edges.
const proofMaxHashes = 106

// CheckInclusion checks that leaf is at index in the tree (RFC 6962 section 2.1.1).
func CheckInclusion(head Head, index uint64, leaf Hash, path []Hash) error {
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, head.Size, leaf[:], slicesOf(path), head.Root[:]); err != nil {
		return fmt.Errorf("%w: entry %d in tree of size %d: %w", ErrProof, index, head.Size, err)
	}
	return nil
}

// CheckConsistency checks that the tree next extends the tree old: the first
// old.Size entries are the same (RFC 6962 section 2.1.2).
func CheckConsistency(old, next Head, path []Hash) error {
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, old.Size, next.Size, slicesOf(path), old.Root[:], next.Root[:]); err != nil {
		return fmt.Errorf("%w: tree of size %d extends tree of size %d: %w", ErrProof, next.Size, old.Size, err)
	}
	// The library takes any old root for size 0: nothing is extended.
	if old.Size == 0 && old.Root != emptyRoot {
		return fmt.Errorf("%w: size 0 with a root other than SHA-256 of nothing", ErrProof)
	}
	return nil
}

// RangeNodes gives the nodes that a range proof of [begin, end) in a tree of
// the given size consists of: those that cover [0, begin), then those that
// cover [end, size), from left to right, as level and index of each.
func RangeNodes(begin, end, size uint64) []compact.NodeID {
	return compact.RangeNodes(end, size, compact.RangeNodes(0, begin, nil))
}

// CheckRange checks that leaves are all the leaves from begin on, without a
// gap, in the tree: with the hashes of [RangeNodes] around them they give the root.
func CheckRange(head Head, begin uint64, leaves, path []Hash) error {
	end := begin + uint64(len(leaves))
	if end < begin || end > head.Size || len(leaves) == 0 {
		return fmt.Errorf("%w: range [%d, %d) is empty or outside a tree of size %d", ErrProof, begin, end, head.Size)
	}
	ids := RangeNodes(begin, end, head.Size)
	if len(path) != len(ids) {
		return fmt.Errorf("%w: range [%d, %d) in tree of size %d: %d hashes, want %d", ErrProof, begin, end, head.Size, len(path), len(ids))
	}
	left := len(compact.RangeNodes(0, begin, nil))
	f := compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	tree, err := f.NewRange(0, begin, slicesOf(path[:left]))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	for i := range leaves {
		if err := tree.Append(leaves[i][:], nil); err != nil {
			return fmt.Errorf("%w: %w", ErrProof, err)
		}
	}
	right, err := f.NewRange(end, head.Size, slicesOf(path[left:]))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	if err := tree.AppendRange(right, nil); err != nil {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	root, err := tree.GetRootHash(nil)
	if err != nil || Hash(root) != head.Root {
		return errors.Join(fmt.Errorf("%w: range [%d, %d) in tree of size %d", ErrProof, begin, end, head.Size), err)
	}
	return nil
}

func slicesOf(hashes []Hash) [][]byte {
	out := make([][]byte, len(hashes))
	for i := range hashes {
		out[i] = hashes[i][:]
	}
	return out
}

// An InclusionProof shows offline that an entry is in the log
// (c2sp.org/tlog-proof). The entry is not in it: whoever checks has to hash
// the entry at hand.
type InclusionProof struct {
	Index      uint64
	Path       []Hash // the leaf's sibling first
	Checkpoint []byte // signed note, verbatim
}

const inclusionHeader = "c2sp.org/tlog-proof@v1\n"

// Marshal gives the text of the proof.
func (p InclusionProof) Marshal() []byte {
	b := fmt.Appendf(nil, inclusionHeader+"index %d\n", p.Index)
	b = append(appendHashes(b, p.Path), '\n')
	return append(b, p.Checkpoint...)
}

// ParseInclusionProof parses what Marshal returns. It checks the shape only;
// the checkpoint is opaque here. The optional extra line of the spec, which
// nothing authenticates, is refused.
func ParseInclusionProof(text []byte) (InclusionProof, error) {
	var p InclusionProof
	if len(text) > NoteMaxBytes+8192 {
		return p, fmt.Errorf("%w tlog-proof: %d bytes", ErrMalformed, len(text))
	}
	head, checkpoint, ok := strings.Cut(string(text), "\n\n")
	if !ok || checkpoint == "" {
		return p, fmt.Errorf("%w tlog-proof: no empty line before a checkpoint", ErrMalformed)
	}
	s := lines{what: "tlog-proof", rest: head + "\n"}
	s.lit(inclusionHeader)
	p.Index = s.num("index ")
	p.Path = s.hashes()
	p.Checkpoint = []byte(checkpoint)
	return p, s.end()
}

// A ConsistencyProof shows that one tree of a log extends another. The roots
// come from checkpoints.
type ConsistencyProof struct {
	Origin   string
	Old, New uint64 // sizes
	Path     []Hash
}

const consistencyHeader = "piperoll/consistency-proof/v1\n"

// Marshal gives the text of the proof.
func (p ConsistencyProof) Marshal() []byte {
	b := fmt.Appendf(nil, consistencyHeader+"log %s\nold %d\nnew %d\n", p.Origin, p.Old, p.New)
	return appendHashes(b, p.Path)
}

// ParseConsistencyProof parses what Marshal returns.
func ParseConsistencyProof(text []byte) (ConsistencyProof, error) {
	var p ConsistencyProof
	s := lines{what: "consistency proof", rest: string(text)}
	s.lit(consistencyHeader)
	p.Origin = s.origin()
	p.Old = s.num("old ")
	p.New = s.num("new ")
	p.Path = s.hashes()
	if err := s.end(); err != nil {
		return ConsistencyProof{}, err
	}
	if p.Old > p.New {
		return ConsistencyProof{}, fmt.Errorf("%w consistency proof: old size %d above new size %d", ErrMalformed, p.Old, p.New)
	}
	return p, nil
}

// A RangeProof shows that leaves are all those of a range of indexes.
type RangeProof struct {
	Origin           string
	Begin, End, Size uint64
	Path             []Hash // see [RangeNodes]
}

const rangeHeader = "piperoll/range-proof/v1\n"

// Marshal gives the text of the proof.
func (p RangeProof) Marshal() []byte {
	b := fmt.Appendf(nil, rangeHeader+"log %s\nbegin %d\nend %d\nsize %d\n", p.Origin, p.Begin, p.End, p.Size)
	return appendHashes(b, p.Path)
}

// ParseRangeProof parses what Marshal returns.
func ParseRangeProof(text []byte) (RangeProof, error) {
	var p RangeProof
	s := lines{what: "range proof", rest: string(text)}
	s.lit(rangeHeader)
	p.Origin = s.origin()
	p.Begin = s.num("begin ")
	p.End = s.num("end ")
	p.Size = s.num("size ")
	p.Path = s.hashes()
	if err := s.end(); err != nil {
		return RangeProof{}, err
	}
	if p.Begin >= p.End || p.End > p.Size || len(p.Path) != len(RangeNodes(p.Begin, p.End, p.Size)) {
		return RangeProof{}, fmt.Errorf("%w range proof: %d hashes for [%d, %d) in size %d", ErrMalformed, len(p.Path), p.Begin, p.End, p.Size)
	}
	return p, nil
}

func appendHashes(b []byte, hashes []Hash) []byte {
	for i := range hashes {
		b = append(b64.AppendEncode(b, hashes[i][:]), '\n')
	}
	return b
}

// hashes reads the rest as one hash a line.
func (p *lines) hashes() (hashes []Hash) {
	for p.err == nil && p.rest != "" {
		if len(hashes) == proofMaxHashes {
			p.fail("at most " + strconv.Itoa(proofMaxHashes) + " hashes")
			return nil
		}
		hashes = append(hashes, p.hash(""))
	}
	return hashes
}

func (p *lines) origin() string {
	origin := p.field("log ")
	if !ValidName(origin) {
		p.fail("log ")
	}
	return origin
}
