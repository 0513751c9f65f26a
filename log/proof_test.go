package log

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// A tree keeps the stored hashes of x/mod's tlog: an implementation of proofs
// that shares nothing with the one that the package verifies with.
type tree struct{ stored []Hash }

func newTree(leaves []Hash) *tree {
	t := &tree{}
	for i, leaf := range leaves {
		hashes, err := tlog.StoredHashesForRecordHash(int64(i), leaf, t)
		if err != nil {
			panic(err)
		}
		t.stored = append(t.stored, hashes...)
	}
	return t
}

func (t *tree) ReadHashes(indexes []int64) ([]Hash, error) {
	var hashes []Hash
	for _, i := range indexes {
		hashes = append(hashes, t.stored[i])
	}
	return hashes, nil
}

func (t *tree) root(size uint64) Hash {
	h, err := tlog.TreeHash(int64(size), t)
	if err != nil {
		panic(err)
	}
	return h
}

func (t *tree) head(size uint64) Head { return Head{size, t.root(size)} }

// node gives a node by level and index in its level.
func (t *tree) node(level uint, index uint64) Hash {
	return t.stored[tlog.StoredHashIndex(int(level), int64(index))]
}

func (t *tree) rangeProof(begin, end, size uint64) (path []Hash) {
	for _, id := range RangeNodes(begin, end, size) {
		path = append(path, t.node(id.Level, id.Index))
	}
	return path
}

// testLeaves are leaf hashes that differ.
func testLeaves(n int) (leaves []Hash) {
	for i := range n {
		leaves = append(leaves, LeafHash(fmt.Appendf(nil, "leaf %d", i)))
	}
	return leaves
}

func TestVectorsOfProofs(t *testing.T) {
	type file struct {
		Good      []vector
		BadChecks []vector `json:"bad_checks"`
	}
	var inclusion, consistency, ranges file
	vectors(t, "inclusion", &inclusion)
	for _, v := range inclusion.Good {
		p, err := ParseInclusionProof(v.bytes(t))
		head := Head{v.Size, hashOf(t, v.Root)}
		if err != nil || p.Index != v.Index || CheckInclusion(head, p.Index, hashOf(t, v.Leaf), p.Path) != nil {
			t.Errorf("inclusion %s: %v, %v", v.Name, err, CheckInclusion(head, p.Index, hashOf(t, v.Leaf), p.Path))
		}
	}
	for _, v := range inclusion.BadChecks {
		if err := CheckInclusion(Head{v.Size, hashOf(t, v.Root)}, v.Index, hashOf(t, v.Leaf), hashesOf(t, v.Path)); !errors.Is(err, ErrProof) {
			t.Errorf("inclusion %s: %v, want %v", v.Name, err, ErrProof)
		}
	}
	vectors(t, "consistency", &consistency)
	check := func(v vector, path []Hash) error {
		return CheckConsistency(Head{v.Old, hashOf(t, v.OldRoot)}, Head{v.New, hashOf(t, v.NewRoot)}, path)
	}
	for _, v := range consistency.Good {
		p, err := ParseConsistencyProof(v.bytes(t))
		if err != nil || p.Old != v.Old || p.New != v.New || check(v, p.Path) != nil {
			t.Errorf("consistency %s: %v, %v", v.Name, err, check(v, p.Path))
		}
	}
	for _, v := range consistency.BadChecks {
		if err := check(v, hashesOf(t, v.Path)); !errors.Is(err, ErrProof) {
			t.Errorf("consistency %s: %v, want %v", v.Name, err, ErrProof)
		}
	}
	vectors(t, "range", &ranges)
	for _, v := range ranges.Good {
		p, err := ParseRangeProof(v.bytes(t))
		got := CheckRange(Head{p.Size, hashOf(t, v.Root)}, p.Begin, hashesOf(t, v.Leaves), p.Path)
		if err != nil || p.Begin != v.Begin || p.Size != v.Size || got != nil {
			t.Errorf("range %s: %v, %v", v.Name, err, got)
		}
	}
	for _, v := range ranges.BadChecks {
		if err := CheckRange(Head{v.Size, hashOf(t, v.Root)}, v.Begin, hashesOf(t, v.Leaves), hashesOf(t, v.Path)); !errors.Is(err, ErrProof) {
			t.Errorf("range %s: %v, want %v", v.Name, err, ErrProof)
		}
	}
}

// Every inclusion and consistency proof that tlog makes is accepted, at its
// place only.
func TestProofsOfOtherMaker(t *testing.T) {
	const most = 65
	leaves := testLeaves(most)
	tr := newTree(leaves)
	for size := uint64(1); size <= most; size++ {
		head := tr.head(size)
		for i := range size {
			path, err := tlog.ProveRecord(int64(size), int64(i), tr)
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckInclusion(head, i, leaves[i], path); err != nil {
				t.Errorf("CheckInclusion(%d of %d) = %v", i, size, err)
			}
			if err := CheckInclusion(head, i, leaves[(i+1)%most], path); !errors.Is(err, ErrProof) {
				t.Errorf("CheckInclusion(%d of %d) of another leaf = %v, want %v", i, size, err, ErrProof)
			}
			old := i + 1
			consistency, err := tlog.ProveTree(int64(size), int64(old), tr)
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckConsistency(tr.head(old), head, consistency); err != nil {
				t.Errorf("CheckConsistency(%d, %d) = %v", old, size, err)
			}
			if err := CheckConsistency(Head{old, leaves[i]}, head, consistency); !errors.Is(err, ErrProof) && old > 1 {
				t.Errorf("CheckConsistency(%d, %d) from another root = %v, want %v", old, size, err, ErrProof)
			}
		}
		if err := CheckConsistency(EmptyHead(), head, nil); err != nil {
			t.Errorf("CheckConsistency(0, %d) = %v", size, err)
		}
		if err := CheckConsistency(Head{0, leaves[0]}, head, nil); !errors.Is(err, ErrProof) {
			t.Errorf("CheckConsistency(0, %d) from another root = %v, want %v", size, err, ErrProof)
		}
	}
}

// All ranges of all small trees: accepted with all their leaves, refused with
// one less, one more, or one swapped.
func TestRangesOfSmallTrees(t *testing.T) {
	const most = 65
	leaves := testLeaves(most + 1)
	tr := newTree(leaves)
	for size := uint64(1); size <= most; size++ {
		head := tr.head(size)
		for begin := range size {
			for end := begin + 1; end <= size; end++ {
				path := tr.rangeProof(begin, end, size)
				if err := CheckRange(head, begin, leaves[begin:end], path); err != nil {
					t.Fatalf("CheckRange([%d, %d) of %d) = %v", begin, end, size, err)
				}
				text := RangeProof{"o", begin, end, size, path}.Marshal()
				if p, err := ParseRangeProof(text); err != nil || p.End != end {
					t.Fatalf("ParseRangeProof(%q) = %v", text, err)
				}
				for what, bad := range map[string][]Hash{
					"one less": leaves[begin : end-1], "one more": leaves[begin : end+1], "shifted": leaves[begin+1 : end+1],
				} {
					if err := CheckRange(head, begin, bad, path); !errors.Is(err, ErrProof) {
						t.Fatalf("CheckRange([%d, %d) of %d), %s = %v, want %v", begin, end, size, what, err, ErrProof)
					}
				}
			}
		}
	}
}

// A virtual tree has the same leaf everywhere, so that each complete subtree of
// a height has one root and a tree of 2^40 entries costs 40 hashes.
type virtual struct{ level [54]Hash }

func newVirtual() *virtual {
	v := &virtual{}
	v.level[0] = LeafHash([]byte("the same everywhere"))
	for i := 1; i < len(v.level); i++ {
		v.level[i] = tlog.NodeHash(v.level[i-1], v.level[i-1])
	}
	return v
}

func (v *virtual) ReadHashes(indexes []int64) (hashes []Hash, err error) {
	for _, i := range indexes {
		level, _ := tlog.SplitStoredHashIndex(i)
		hashes = append(hashes, v.level[level])
	}
	return hashes, nil
}

func (v *virtual) head(t *rapid.T, size uint64) Head {
	root, err := tlog.TreeHash(int64(size), v)
	if err != nil {
		t.Fatal(err)
	}
	return Head{size, root}
}

func TestProofsOfHugeTrees(t *testing.T) {
	v := newVirtual()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Uint64Range(1, 1<<40).Draw(t, "size")
		index := rapid.Uint64Range(0, size-1).Draw(t, "index")
		head := v.head(t, size)
		path, err := tlog.ProveRecord(int64(size), int64(index), v)
		if err != nil || CheckInclusion(head, index, v.level[0], path) != nil {
			t.Fatalf("CheckInclusion(%d of %d) = %v, %v", index, size, err, CheckInclusion(head, index, v.level[0], path))
		}
		p := InclusionProof{index, path, []byte("checkpoint\n")}
		if back, err := ParseInclusionProof(p.Marshal()); err != nil || back.Index != index || len(back.Path) != len(path) {
			t.Fatalf("ParseInclusionProof of %d of %d = %v", index, size, err)
		}
		extends, err := tlog.ProveTree(int64(size), int64(index+1), v)
		if err != nil || CheckConsistency(v.head(t, index+1), head, extends) != nil {
			t.Fatalf("CheckConsistency(%d, %d) = %v, %v", index+1, size, err, CheckConsistency(v.head(t, index+1), head, extends))
		}
		leaves := make([]Hash, min(size-index, rapid.Uint64Range(1, 600).Draw(t, "count")))
		for i := range leaves {
			leaves[i] = v.level[0]
		}
		path = nil
		for _, id := range RangeNodes(index, index+uint64(len(leaves)), size) {
			path = append(path, v.level[id.Level])
		}
		if err := CheckRange(head, index, leaves, path); err != nil || len(path) > proofMaxHashes {
			t.Fatalf("CheckRange(%d from %d of %d) with %d hashes = %v", len(leaves), index, size, len(path), err)
		}
		leaves[rapid.IntRange(0, len(leaves)-1).Draw(t, "at")][0] ^= 1
		if err := CheckRange(head, index, leaves, path); !errors.Is(err, ErrProof) {
			t.Fatalf("CheckRange with a changed leaf = %v, want %v", err, ErrProof)
		}
	})
}

// A range whose end overflows proves nothing, and must not stop the program.
func TestRangeBeyondIntegers(t *testing.T) {
	leaves := testLeaves(2)
	for _, begin := range []uint64{1<<64 - 1, 1<<64 - 2, 1 << 63, 2} {
		if err := CheckRange(Head{Size: 2}, begin, leaves, nil); !errors.Is(err, ErrProof) {
			t.Errorf("CheckRange from %d = %v, want %v", begin, err, ErrProof)
		}
	}
}

func TestTilePathsAroundGroupEdges(t *testing.T) {
	seen := make(map[string]TileID)
	for _, edge := range []uint64{1000, 1000 * 1000, 1000 * 1000 * 1000, 1000 * 1000 * 1000 * 1000, 1 << 45} {
		for n := edge - 300; n < edge+300 && n < 1<<45; n++ {
			for _, id := range []TileID{{0, n, TileWidth}, {5, n, int(n%255) + 1}, BundleID(n, TileWidth), BundleID(n, 1)} {
				path := id.Path()
				if got, err := ParseTilePath(path); err != nil || got != id || got.IsBundle() != (id.Level < 0) {
					t.Fatalf("ParseTilePath(%q) = %v, %v, want %v", path, got, err, id)
				}
				if other, ok := seen[path]; ok && other != id {
					t.Fatalf("%v and %v share path %q", id, other, path)
				}
				seen[path] = id
			}
		}
	}
}

func TestBundlesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 1, TileWidth).Draw(t, "entries")
		var bundle []byte
		for _, e := range entries {
			bundle = AppendBundle(bundle, e)
		}
		got, err := ParseBundle(bundle, len(entries))
		if err != nil || len(got) != len(entries) {
			t.Fatalf("ParseBundle of %d entries = %d, %v", len(entries), len(got), err)
		}
		var again []byte
		for _, e := range got {
			again = AppendBundle(again, e)
		}
		if string(again) != string(bundle) {
			t.Fatal("the entries that were read make another bundle")
		}
		cut := rapid.IntRange(0, len(bundle)-1).Draw(t, "cut")
		if _, err := ParseBundle(bundle[:cut], len(entries)); !errors.Is(err, ErrMalformed) {
			t.Fatalf("ParseBundle cut at %d = %v, want %v", cut, err, ErrMalformed)
		}
	})
}

// What is too long for a bundle is our own mistake: the sequencer has refused it.
func TestTooLongEntryInBundle(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("AppendBundle of 65536 bytes did not panic")
		}
	}()
	AppendBundle(nil, make([]byte, EntryMaxBytes+1))
}

func TestTiles(t *testing.T) {
	leaves := testLeaves(3)
	var tile []byte
	for _, h := range leaves {
		tile = append(tile, h[:]...)
	}
	got, err := ParseTile(tile, 3)
	if err != nil || len(got) != 3 || got[2] != leaves[2] {
		t.Errorf("ParseTile = %v, %v, want %v", got, err, leaves)
	}
	for _, width := range []int{0, 2, 4, TileWidth} {
		if _, err := ParseTile(tile, width); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseTile of width %d = %v, want %v", width, err, ErrMalformed)
		}
	}
	// The example of c2sp.org/tlog-tiles.
	for level, want := range []int{112, 17, 1, 0} {
		if got := TileWidthAt(level, 70_000); got != want {
			t.Errorf("TileWidthAt(%d, 70000) = %d, want %d", level, got, want)
		}
	}
}
