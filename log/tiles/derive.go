package tiles

import (
	"context"
	"fmt"

	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/tlog"
)

// derive computes a full tile of level 1 or more from what is below it, and proves it: from entries, or from tiles, for
// a tile of level 2 stands over 16 million entries.
func (c *Check) derive(ctx context.Context, id log.TileID) ([]byte, error) {
	want, err := c.above(ctx, id)
	if err != nil {
		return nil, err
	}
	hashes := make([]log.Hash, log.TileWidth)
	for i := range hashes {
		child := log.TileID{Level: id.Level - 1, Index: id.Index*log.TileWidth + uint64(i), Width: log.TileWidth}
		if hashes[i], err = c.rootBelow(child); err != nil {
			return nil, err
		}
	}
	if fold(hashes) != want {
		return nil, fmt.Errorf("derive %s: %w: what is below does not give it", id.Path(), ErrDamaged)
	}
	data := marshalTile(hashes)
	if c.t.compare(id, data) != nil {
		return data, c.heal(ctx, id, data, fmt.Errorf("%s: %w", id.Path(), ErrDamaged))
	}
	return data, nil
}

// rootBelow computes the root of a full tile from its entries, if it is of level 0, else from its file.
func (c *Check) rootBelow(id log.TileID) (log.Hash, error) {
	if id.Level > 0 {
		data, err := c.t.readFull(id)
		if err == nil {
			err = c.c.Pace(len(data))
		}
		if err != nil {
			return log.Hash{}, err
		}
		return rootOf(id, data)
	}
	leaves := make([]log.Hash, 0, log.TileWidth)
	first := id.Index * log.TileWidth
	for len(leaves) < log.TileWidth {
		entries, err := c.t.entries(first+uint64(len(leaves)), first+log.TileWidth)
		if err == nil {
			err = c.paceAll(entries)
		}
		if err != nil {
			return log.Hash{}, err
		}
		for _, entry := range entries {
			leaves = append(leaves, tlog.RecordHash(entry))
		}
	}
	return fold(leaves), nil
}

// paceAll tells of entries that were read.
func (c *Check) paceAll(entries [][]byte) error {
	bytes := 0
	for _, entry := range entries {
		bytes += len(entry)
	}
	return c.c.Pace(bytes)
}
