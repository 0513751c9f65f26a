package log

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Sizes of c2sp.org/tlog-tiles.
const (
	TileHeight     = 8                               // levels of the tree in a tile
	TileWidth      = 1 << TileHeight                 // hashes in a full tile, entries in a full bundle
	TileMaxBytes   = TileWidth * tlog.HashSize       // full tile
	BundleMaxBytes = TileWidth * (2 + EntryMaxBytes) // fullest bundle
	tileMaxLevel   = 63                              // by the spec; a tree of 2^53 needs 6
	tileMaxIndex   = uint64(1)<<(53-TileHeight) - 1  // of level 0
	entriesLevel   = "entries"                       // in paths, instead of a level
	tilePrefix     = "tile/"                         // of every path below
	partialInfix   = ".p/"                           // before a partial tile's width
	digitsPerGroup = 3                               // of an index in a path
	groupBase      = 1000                            // 10^digitsPerGroup
	entriesAsLevel = -1                              // level of an entry bundle in a TileID
)

// A TileID names a tile or an entry bundle.
type TileID struct {
	Level int    // 0 to 63, or -1 for an entry bundle
	Index uint64 // place in its level
	Width int    // 1 to 256 hashes or entries; 256 is full
}

// BundleID names the entry bundle at index with width entries.
func BundleID(index uint64, width int) TileID { return TileID{entriesAsLevel, index, width} }

// IsBundle says whether t is an entry bundle.
func (t TileID) IsBundle() bool { return t.Level == entriesAsLevel }

// Path gives the tile's path below the log's prefix: tile/L/N[.p/W] or
// tile/entries/N[.p/W], with N in groups of three digits (c2sp.org/tlog-tiles).
func (t TileID) Path() string {
	level := entriesLevel
	if !t.IsBundle() {
		level = strconv.Itoa(t.Level)
	}
	n := t.Index
	path := fmt.Sprintf("%03d", n%groupBase)
	for n >= groupBase {
		n /= groupBase
		path = fmt.Sprintf("x%03d/%s", n%groupBase, path)
	}
	path = tilePrefix + level + "/" + path
	if t.Width != TileWidth {
		path += partialInfix + strconv.Itoa(t.Width)
	}
	return path
}

// ParseTilePath parses what Path returns, and nothing else.
func ParseTilePath(path string) (TileID, error) {
	malformed := fmt.Errorf("%w tile path %q: want tile/L/N or tile/L/N.p/W as in c2sp.org/tlog-tiles", ErrMalformed, path)
	if len(path) > 128 {
		return TileID{}, fmt.Errorf("%w tile path of %d bytes", ErrMalformed, len(path))
	}
	rest, ok := strings.CutPrefix(path, tilePrefix)
	if !ok {
		return TileID{}, malformed
	}
	level, rest, _ := strings.Cut(rest, "/")
	t := TileID{Level: entriesAsLevel, Width: TileWidth}
	if level != entriesLevel {
		l, err := strconv.ParseUint(level, 10, 8)
		if err != nil || l > tileMaxLevel {
			return TileID{}, malformed
		}
		t.Level = int(l)
	}
	if number, width, partial := strings.Cut(rest, partialInfix); partial {
		w, err := strconv.ParseUint(width, 10, 8)
		if err != nil || w == 0 {
			return TileID{}, malformed
		}
		t.Width, rest = int(w), number
	}
	for group := range strings.SplitSeq(rest, "/") {
		n, err := strconv.ParseUint(strings.TrimPrefix(group, "x"), 10, 16)
		if err != nil || t.Index > tileMaxIndex {
			return TileID{}, malformed
		}
		t.Index = t.Index*groupBase + n
	}
	if t.Index > tileMaxIndex || t.Path() != path {
		return TileID{}, malformed
	}
	return t, nil
}

// TileWidthAt gives the width of the partial tile at the right edge of a level
// in a tree of the given size; 0 means there is none.
func TileWidthAt(level int, size uint64) int {
	return int(size >> (level * TileHeight) % TileWidth)
}

// AppendBundle appends an entry to an entry bundle: two bytes of length, big
// endian, and the bytes (c2sp.org/tlog-tiles). The entry has at most EntryMaxBytes.
func AppendBundle(bundle, entry []byte) []byte {
	if len(entry) > EntryMaxBytes {
		panic("log: entry too long for a bundle")
	}
	return append(binary.BigEndian.AppendUint16(bundle, uint16(len(entry))), entry...)
}

// ParseBundle splits an entry bundle of width entries. The entries share its memory.
func ParseBundle(bundle []byte, width int) ([][]byte, error) {
	if width < 1 || width > TileWidth {
		return nil, fmt.Errorf("%w entry bundle: width %d, want 1 to %d", ErrMalformed, width, TileWidth)
	}
	entries := make([][]byte, 0, width)
	rest := bundle
	for range width {
		if len(rest) < 2 {
			return nil, fmt.Errorf("%w entry bundle: entry %d of %d is missing", ErrMalformed, len(entries), width)
		}
		n := int(binary.BigEndian.Uint16(rest))
		if len(rest) < 2+n {
			return nil, fmt.Errorf("%w entry bundle: entry %d is cut short", ErrMalformed, len(entries))
		}
		entries = append(entries, rest[2:2+n:2+n])
		rest = rest[2+n:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w entry bundle: %d bytes after entry %d", ErrMalformed, len(rest), width-1)
	}
	return entries, nil
}

// ParseTile splits a tile of width hashes.
func ParseTile(tile []byte, width int) ([]Hash, error) {
	if len(tile) != width*tlog.HashSize {
		return nil, fmt.Errorf("%w tile: %d bytes, want %d hashes", ErrMalformed, len(tile), width)
	}
	hashes := make([]Hash, width)
	for i := range hashes {
		hashes[i] = Hash(tile[i*tlog.HashSize:])
	}
	return hashes, nil
}
