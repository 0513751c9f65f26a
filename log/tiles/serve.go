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
)

// ErrDamaged means that a tile that must be there is missing or not what it should be.
var ErrDamaged = errors.New("tile is damaged or missing")

// Tile returns a tile or bundle of any width up to the signed size, with or without a file of that width: fs.ErrNotExist
// beyond, ErrDamaged if the file cannot be right. It does not check hashes; who needs to be sure of them uses a
// reader. Nobody changes what it returns. It implements reader.TileFetcher.
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
	data, ok := t.cache.Get(full)
	if !ok {
		var err error
		if data, err = t.readFull(full); err != nil {
			return nil, err
		}
		t.cache.Put(full, data, len(data))
	}
	if id.Width == log.TileWidth {
		return data, nil
	}
	return reader.Cut(data, id)
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
