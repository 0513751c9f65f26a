package tiles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/reader"
	"golang.org/x/mod/sumdb/tlog"
)

// ErrDamaged means that a tile that must be there is missing or not what was signed.
var ErrDamaged = errors.New("tile is damaged or missing")

// Tile returns a tile or bundle of any width up to the signed size, with or without a file of that width: fs.ErrNotExist
// beyond, ErrDamaged if the file is not what was signed. Nobody changes what it returns. It implements
// reader.TileFetcher.
func (t *Tree) Tile(_ context.Context, id log.TileID) ([]byte, error) {
	v := t.current()
	have := v.head.Size >> (max(id.Level, 0) * log.TileHeight)
	index, width := have/log.TileWidth, int(have%log.TileWidth)
	switch {
	case id.Width < 1 || id.Width > log.TileWidth || id.Level < -1, id.Index > index, id.Index == index && id.Width > width:
		return nil, fmt.Errorf("%s in a tree of size %d: %w", id.Path(), v.head.Size, fs.ErrNotExist)
	case id.Index == index:
		return v.edge.data(id), nil
	}
	full := id
	full.Width = log.TileWidth
	data, err := t.full(v, full)
	if err != nil {
		return nil, err
	}
	if id.Width == log.TileWidth {
		return data, nil
	}
	return reader.Cut(data, id)
}

// full returns a full tile or bundle that was proven when it was read: whoever caches it for a year under its path must
// not get what the disk has changed.
func (t *Tree) full(v view, id log.TileID) ([]byte, error) {
	if data, ok := t.cache.Get(id); ok {
		return data, nil
	}
	data, err := t.readFull(id)
	if err != nil {
		return nil, err
	}
	got, err := rootOf(id, data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", id.Path(), ErrDamaged, err)
	}
	want, err := t.above(v, id)
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", id.Path(), err)
	}
	if got != want {
		return nil, fmt.Errorf("read %s: %w: its root is not the hash above it", id.Path(), ErrDamaged)
	}
	t.cache.Put(id, data, len(data))
	return data, nil
}

// above returns the hash that the next level has of a full tile or bundle: from the edge of v, which is in memory and
// was signed, or from a full tile, which is proven in the same way.
func (t *Tree) above(v view, id log.TileID) (log.Hash, error) {
	up := log.TileID{Level: max(id.Level, 0) + 1, Index: id.Index / log.TileWidth, Width: log.TileWidth}
	at := int(id.Index % log.TileWidth)
	if up.Index == v.head.Size>>(up.Level*log.TileHeight)/log.TileWidth {
		return v.edge.levels[up.Level][at], nil
	}
	data, err := t.full(v, up)
	if err != nil {
		return log.Hash{}, err
	}
	return log.Hash(data[at*tlog.HashSize:]), nil
}

// rootOf hashes a full tile, or the entries of a full bundle, into one hash.
func rootOf(id log.TileID, data []byte) (log.Hash, error) {
	if !id.IsBundle() {
		hashes, err := log.ParseTile(data, log.TileWidth)
		if err != nil {
			return log.Hash{}, err
		}
		return fold(hashes), nil
	}
	entries, err := log.ParseBundle(data, log.TileWidth)
	if err != nil {
		return log.Hash{}, err
	}
	leaves := make([]log.Hash, len(entries))
	for i, entry := range entries {
		leaves[i] = tlog.RecordHash(entry)
	}
	return fold(leaves), nil
}

// readFull reads the file of a full tile or bundle, and checks its shape.
func (t *Tree) readFull(id log.TileID) ([]byte, error) {
	maxBytes := int64(log.TileMaxBytes)
	if id.IsBundle() {
		maxBytes = log.BundleMaxBytes
	}
	data, err := disk.ReadFile(t.c.FS, filepath.Join(t.c.Dir, filepath.FromSlash(id.Path())), maxBytes)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, disk.ErrTooLarge) {
		// Not wrapped: for a caller, a tile of the tree that has no file is not one beyond the tree.
		return nil, fmt.Errorf("read %s: %w: %v", id.Path(), ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	if id.IsBundle() {
		_, err = log.ParseBundle(data, id.Width)
	} else {
		_, err = log.ParseTile(data, id.Width)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", id.Path(), ErrDamaged, err)
	}
	return data, nil
}
