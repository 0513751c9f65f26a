package tiles

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/pipe-roll/piperoll/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"
)

// levelsMax is how many levels of tiles a tree of 2^53 entries has.
const levelsMax = 7

// An edge is the right edge of a tree: what its partial tiles and its partial bundle hold. A copy of an edge stays
// valid while the original grows: growing writes only behind the ends of the slices that the copy has, and what is
// full is replaced, not reused.
type edge struct {
	size   uint64
	levels [levelsMax][]log.Hash // fewer than 256 hashes each
	bundle []byte
	ends   []int // in bundle, one for each entry
}

// root folds the edge into the tree's root.
func (e *edge) root() log.Hash {
	if e.size == 0 {
		return log.EmptyHead().Root
	}
	ids := compact.RangeNodes(0, e.size, nil)
	var root log.Hash
	for i := len(ids) - 1; i >= 0; i-- {
		level, k := ids[i].Level/log.TileHeight, ids[i].Level%log.TileHeight
		first := ids[i].Index << k % log.TileWidth
		h := fold(e.levels[level][first : first+1<<k])
		if i == len(ids)-1 {
			root = h
			continue
		}
		root = tlog.NodeHash(h, root)
	}
	return root
}

func (e *edge) head() log.Head { return log.Head{Size: e.size, Root: e.root()} }

// partials lists the partial tiles and the partial bundle of the edge.
func (e *edge) partials() []log.TileID { return partialsOf(e.size) }

func partialsOf(size uint64) []log.TileID {
	var ids []log.TileID
	for level := range levelsMax {
		if width := log.TileWidthAt(level, size); width > 0 {
			ids = append(ids, log.TileID{Level: level, Index: size >> (level * log.TileHeight) / log.TileWidth, Width: width})
		}
	}
	if width := log.TileWidthAt(0, size); width > 0 {
		ids = append(ids, log.BundleID(size/log.TileWidth, width))
	}
	return ids
}

// data gives the bytes of a tile or bundle at the edge, at most as wide as the edge.
func (e *edge) data(id log.TileID) []byte {
	if id.IsBundle() {
		return e.bundle[:e.ends[id.Width-1]:e.ends[id.Width-1]]
	}
	return marshalTile(e.levels[id.Level][:id.Width])
}

func marshalTile(hashes []log.Hash) []byte {
	b := make([]byte, 0, len(hashes)*tlog.HashSize)
	for i := range hashes {
		b = append(b, hashes[i][:]...)
	}
	return b
}

// fold hashes 2^k hashes into the root over them.
func fold(hashes []log.Hash) log.Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	half := len(hashes) / 2
	return tlog.NodeHash(fold(hashes[:half]), fold(hashes[half:]))
}

// A builder grows an edge. Beside it grows its twin, another form of the same tree, from hashes that are computed
// anew from the bytes that will be served. A head is believed when both give its root: a bit that flips in memory, in
// a bundle, a tile or a hash, shows before it is signed.
type builder struct {
	edge
	twin *compact.Range
	full func(id log.TileID, data []byte) error // takes each tile and bundle that got full
}

func newBuilder(e edge, full func(id log.TileID, data []byte) error) (*builder, error) {
	f := &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	var nodes [][]byte
	for _, id := range compact.RangeNodes(0, e.size, nil) {
		first := id.Index << (id.Level % log.TileHeight) % log.TileWidth
		h := fold(e.levels[id.Level/log.TileHeight][first : first+1<<(id.Level%log.TileHeight)])
		nodes = append(nodes, h[:])
	}
	twin, err := f.NewRange(0, e.size, nodes)
	if err != nil {
		return nil, fmt.Errorf("start from size %d: %w", e.size, err)
	}
	return &builder{edge: e, twin: twin, full: full}, nil
}

// add integrates one entry.
func (b *builder) add(entry []byte) error {
	start := len(b.bundle)
	b.bundle = log.AppendBundle(b.bundle, entry)
	b.ends = append(b.ends, len(b.bundle))
	again := tlog.RecordHash(b.bundle[start+2:])
	if err := b.twin.Append(again[:], nil); err != nil {
		return fmt.Errorf("integrate entry %d: %w", b.size, err)
	}
	index := b.size
	b.size++
	h := tlog.RecordHash(entry)
	for level := range levelsMax {
		b.levels[level] = append(b.levels[level], h)
		if len(b.levels[level]) < log.TileWidth {
			break
		}
		tile := b.levels[level]
		b.levels[level] = make([]log.Hash, 0, log.TileWidth)
		if level == 0 {
			if err := b.fullBundle(index / log.TileWidth); err != nil {
				return err
			}
		}
		n := index >> ((level + 1) * log.TileHeight)
		if err := b.full(log.TileID{Level: level, Index: n, Width: log.TileWidth}, marshalTile(tile)); err != nil {
			return err
		}
		h = fold(tile)
	}
	return nil
}

func (b *builder) fullBundle(index uint64) error {
	data := b.bundle
	// The next bundle is likely as large as this one.
	b.bundle, b.ends = make([]byte, 0, len(data)), make([]int, 0, log.TileWidth)
	return b.full(log.BundleID(index, log.TileWidth), data)
}

var errTwins = errors.New("two computations of the root differ: memory or code is faulty")

// checkedHead returns the head on which edge and twin agree.
func (b *builder) checkedHead() (log.Head, error) {
	head := b.head()
	if b.twin.End() != b.size {
		return head, errTwins
	}
	root, err := b.twin.GetRootHash(nil)
	if err != nil {
		return head, fmt.Errorf("compute root of size %d: %w", b.size, err)
	}
	if b.size > 0 && !bytes.Equal(root, head.Root[:]) {
		return head, errTwins
	}
	return head, nil
}
