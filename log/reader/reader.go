// Package reader fetches tiles and entry bundles, checks them, and makes proofs from them.
//
// It reads any log in the layout of c2sp.org/tlog-tiles: over HTTP, from a directory, or from the tree of this
// process. It believes nothing that it fetched: where the caller gives a head, whatever is returned has been proven
// under its root. A tile that turns out wrong is forgotten and fetched once more.
//
// It leaves out checkpoints' signatures, which are the caller's to verify before a head is a head, and retries of
// failed requests, which are the caller's too.
package reader

import (
	"context"
	"errors"
	"fmt"

	"github.com/pipe-roll/piperoll/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"
)

// A TileFetcher gets tiles and entry bundles from somewhere.
type TileFetcher interface {
	// Tile returns the bytes of the tile or bundle id; fs.ErrNotExist if the log has none. The caller does not
	// change them and does not trust them.
	Tile(ctx context.Context, id log.TileID) ([]byte, error)
}

// A Reader makes proofs from a log's tiles. It is safe for concurrent use.
type Reader struct {
	from  TileFetcher
	tiles *Cache[place, *tile]
}

// A place is a tile's, whatever its width.
type place struct {
	level int
	index uint64
}

// A tile is a parsed tile with the nodes above its hashes: nodes[k][i] is the hash over the 2^k hashes from i·2^k on.
// They are computed once, since a proof asks for one of each row and proofs come in thousands from the same tiles.
type tile struct {
	width int
	nodes [log.TileHeight][]log.Hash
}

// New returns a reader that keeps up to cacheTiles parsed tiles of 16 KiB each; at least 16, the tiles of one proof.
func New(from TileFetcher, cacheTiles int) *Reader {
	return &Reader{from: from, tiles: NewCache[place, *tile](max(cacheTiles, 16))}
}

// Forget drops everything that is cached. Whoever finds wrong what [Reader.Consistency], [Reader.Range] or
// [Reader.Root] returned, which have no root to check it against, calls it before asking again.
func (r *Reader) Forget() { r.tiles.Clear() }

// Inclusion returns the path of the entry at index, checked under head. It returns log.ErrProof if the tiles do not
// lead to head's root, also when fetched again.
func (r *Reader) Inclusion(ctx context.Context, head log.Head, index uint64) ([]log.Hash, error) {
	nodes, err := proof.Inclusion(index, head.Size)
	if err != nil {
		return nil, fmt.Errorf("prove inclusion of entry %d: %w: %w", index, log.ErrProof, err)
	}
	return twice(r, func() ([]log.Hash, error) {
		leaf, err := r.node(ctx, head.Size, compact.NodeID{Index: index})
		if err != nil {
			return nil, fmt.Errorf("prove inclusion of entry %d: %w", index, err)
		}
		path, err := r.path(ctx, head.Size, nodes)
		if err != nil {
			return nil, fmt.Errorf("prove inclusion of entry %d: %w", index, err)
		}
		return path, log.CheckInclusion(head, index, leaf, path)
	})
}

// Extends returns the consistency proof from old to next, checked: log.ErrProof means that, by these tiles, next does
// not extend old.
func (r *Reader) Extends(ctx context.Context, old, next log.Head) ([]log.Hash, error) {
	return twice(r, func() ([]log.Hash, error) {
		path, err := r.Consistency(ctx, old.Size, next.Size)
		if err != nil {
			return nil, err
		}
		return path, log.CheckConsistency(old, next, path)
	})
}

// Consistency returns the consistency proof between two sizes of the log. There is no root to check it against.
func (r *Reader) Consistency(ctx context.Context, old, next uint64) ([]log.Hash, error) {
	if old > next {
		return nil, fmt.Errorf("prove consistency: %w: old size %d above new size %d", log.ErrProof, old, next)
	}
	if old == 0 || old == next {
		return nil, nil
	}
	nodes, err := proof.Consistency(old, next)
	if err != nil {
		return nil, fmt.Errorf("prove consistency of sizes %d and %d: %w", old, next, err)
	}
	path, err := r.path(ctx, next, nodes)
	if err != nil {
		return nil, fmt.Errorf("prove consistency of sizes %d and %d: %w", old, next, err)
	}
	return path, nil
}

// Range returns the hashes around the range [begin, end) in the tree of the given size, in the order of
// log.RangeNodes. There is no root to check them against.
func (r *Reader) Range(ctx context.Context, size, begin, end uint64) ([]log.Hash, error) {
	if begin > end || end > size {
		return nil, fmt.Errorf("prove range: %w: [%d, %d) is outside a tree of size %d", log.ErrProof, begin, end, size)
	}
	path, err := r.hashes(ctx, size, log.RangeNodes(begin, end, size))
	if err != nil {
		return nil, fmt.Errorf("prove range [%d, %d): %w", begin, end, err)
	}
	return path, nil
}

// Root computes the root of the tree of the given size. There is no other root to check it against.
func (r *Reader) Root(ctx context.Context, size uint64) (log.Hash, error) {
	if size == 0 {
		return log.EmptyHead().Root, nil
	}
	hashes, err := r.hashes(ctx, size, compact.RangeNodes(0, size, nil))
	if err != nil {
		return log.Hash{}, fmt.Errorf("compute root of size %d: %w", size, err)
	}
	root := hashes[len(hashes)-1]
	for i := len(hashes) - 2; i >= 0; i-- {
		root = tlog.NodeHash(hashes[i], root)
	}
	return root, nil
}

// Entries calls each for the entries from begin up to end, in order, each proven to be at its index under head before
// it is handed out. The entry's memory is the callee's. An error of each ends it and is returned.
func (r *Reader) Entries(ctx context.Context, head log.Head, begin, end uint64, each func(index uint64, entry []byte) error) error {
	if begin > end || end > head.Size {
		return fmt.Errorf("read entries: %w: [%d, %d) is outside a tree of size %d", log.ErrProof, begin, end, head.Size)
	}
	for index := begin; index < end; {
		first := index / log.TileWidth * log.TileWidth
		entries, err := twice(r, func() ([][]byte, error) { return r.bundle(ctx, head, first) })
		if err != nil {
			return fmt.Errorf("read entries from %d: %w", first, err)
		}
		for ; index < end && index < first+uint64(len(entries)); index++ {
			if err := each(index, entries[index-first]); err != nil {
				return err
			}
		}
	}
	return nil
}

// bundle fetches the bundle that starts at index first and proves all of it. A full one is proven by the nodes around
// it, so that reading a log from end to end never fetches the lowest tiles.
func (r *Reader) bundle(ctx context.Context, head log.Head, first uint64) ([][]byte, error) {
	width := int(min(log.TileWidth, head.Size-first))
	data, err := r.from.Tile(ctx, log.BundleID(first/log.TileWidth, width))
	if err != nil {
		return nil, err
	}
	entries, err := log.ParseBundle(data, width)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", log.ErrProof, err)
	}
	leaves := make([]log.Hash, width)
	for i, entry := range entries {
		leaves[i] = tlog.RecordHash(entry)
	}
	path, err := r.Range(ctx, head.Size, first, first+uint64(width))
	if err != nil {
		return nil, err
	}
	return entries, log.CheckRange(head, first, leaves, path)
}

// twice tries again from fresh tiles when a proof fails: the cache may hold a tile that was wrong when it was fetched,
// or one of another branch of a log that has been caught and repaired.
func twice[T any](r *Reader, try func() ([]T, error)) ([]T, error) {
	out, err := try()
	if errors.Is(err, log.ErrProof) {
		r.Forget()
		out, err = try()
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// path fetches the nodes of a proof and folds those that have to be.
func (r *Reader) path(ctx context.Context, size uint64, nodes proof.Nodes) ([]log.Hash, error) {
	hashes, err := r.hashes(ctx, size, nodes.IDs)
	if err != nil {
		return nil, err
	}
	parts := make([][]byte, len(hashes))
	for i := range hashes {
		parts[i] = hashes[i][:]
	}
	folded, err := nodes.Rehash(parts, rfc6962.DefaultHasher.HashChildren)
	if err != nil {
		return nil, err
	}
	path := make([]log.Hash, len(folded))
	for i := range folded {
		path[i] = log.Hash(folded[i])
	}
	return path, nil
}

func (r *Reader) hashes(ctx context.Context, size uint64, ids []compact.NodeID) ([]log.Hash, error) {
	hashes := make([]log.Hash, len(ids))
	for i, id := range ids {
		h, err := r.node(ctx, size, id)
		if err != nil {
			return nil, err
		}
		hashes[i] = h
	}
	return hashes, nil
}

// node returns the hash of a complete subtree of the tree of the given size.
func (r *Reader) node(ctx context.Context, size uint64, id compact.NodeID) (log.Hash, error) {
	level, k := int(id.Level/log.TileHeight), id.Level%log.TileHeight
	first := id.Index << k // in its level
	at := place{level, first / log.TileWidth}
	need := int(first%log.TileWidth) + 1<<k
	if t, ok := r.tiles.Get(at); ok && t.width >= need {
		return t.nodes[k][first%log.TileWidth>>k], nil
	}
	width := int(min(log.TileWidth, size>>(level*log.TileHeight)-at.index*log.TileWidth))
	data, err := r.from.Tile(ctx, log.TileID{Level: level, Index: at.index, Width: width})
	if err != nil {
		return log.Hash{}, err
	}
	hashes, err := log.ParseTile(data, width)
	if err != nil {
		return log.Hash{}, fmt.Errorf("%w: %w", log.ErrProof, err)
	}
	t := newTile(hashes)
	r.tiles.Put(at, t, 1)
	return t.nodes[k][first%log.TileWidth>>k], nil
}

func newTile(hashes []log.Hash) *tile {
	t := &tile{width: len(hashes)}
	t.nodes[0] = hashes
	for k := 1; k < log.TileHeight; k++ {
		below := t.nodes[k-1]
		t.nodes[k] = make([]log.Hash, len(below)/2)
		for i := range t.nodes[k] {
			t.nodes[k][i] = tlog.NodeHash(below[2*i], below[2*i+1])
		}
	}
	return t
}
