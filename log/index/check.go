package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/cockroachdb/pebble/v2"
)

// A Check compares an index with the order that it should have followed: what
// fsck does. It folds the order into a fresh index and compares all keys.
type Check struct {
	x        *Index
	snapshot *pebble.Snapshot
	cursor   uint64
	scratch  string
	fresh    *Index
}

// A Difference is a key on which the index and the order disagree.
type Difference struct {
	Key   string // in words
	Fault string // what is wrong with the index
}

// NewCheck begins to check the entries followed by now. The index goes on
// working; its Close waits for that of the check. scratch is a directory that
// the check makes and removes; it grows as large as the index.
func (x *Index) NewCheck(scratch string) (*Check, error) {
	if err := x.enter(); err != nil {
		return nil, err
	}
	fresh, err := openScratch(scratch, x.origin)
	if err != nil {
		x.leave()
		return nil, fmt.Errorf("check index: %w", err)
	}
	c := &Check{x: x, scratch: scratch, fresh: fresh}
	// Between two calls of Apply: the snapshot and the cursor belong together.
	x.writer.Lock()
	defer x.writer.Unlock()
	c.snapshot, c.cursor = x.db.NewSnapshot(), x.Cursor()
	return c, nil
}

func openScratch(dir, origin string) (*Index, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return Open(Config{Dir: dir, Origin: origin, Logger: slog.New(slog.DiscardHandler)})
}

// Apply takes the next entries of the order, from index 0 on; see
// [Index.Apply]. Those that the index had not followed are ignored.
func (c *Check) Apply(items []Item) error {
	for len(items) > 0 && items[len(items)-1].Index >= c.cursor {
		items = items[:len(items)-1]
	}
	return c.fresh.Apply(items)
}

// Compare calls each with all differences, at most limit, and gives the number
// of keys compared. It is for when the whole order went through Apply.
func (c *Check) Compare(ctx context.Context, limit int, each func(Difference)) (keys uint64, err error) {
	if got := c.fresh.Cursor(); got < c.cursor {
		each(Difference{"cursor", fmt.Sprintf("%d entries followed, but there are %d", c.cursor, got)})
		return 0, nil
	}
	have, err := c.snapshot.NewIter(nil)
	if err != nil {
		return 0, c.x.judge(err)
	}
	want, err := c.fresh.db.NewIter(nil)
	if err != nil {
		return 0, errors.Join(err, have.Close())
	}
	keys, err = compareKeys(ctx, have, want, limit, each)
	return keys, errors.Join(c.x.judge(err), have.Close(), want.Close())
}

// compareKeys merges two iterators.
func compareKeys(ctx context.Context, have, want *pebble.Iterator, limit int, each func(Difference)) (keys uint64, err error) {
	h, w := have.First(), want.First()
	for found := 0; (h || w) && found < limit; keys++ {
		if err := ctx.Err(); err != nil {
			return keys, err
		}
		order := 0
		switch {
		case !w:
			order = -1
		case !h:
			order = 1
		default:
			order = bytes.Compare(have.Key(), want.Key())
		}
		switch {
		case order < 0:
			each(Difference{describe(have.Key()), "is not in the order"})
			found++
		case order > 0:
			each(Difference{describe(want.Key()), "is missing"})
			found++
		case !bytes.Equal(have.Value(), want.Value()):
			each(Difference{describe(have.Key()), "differs"})
			found++
		}
		if order <= 0 {
			h = have.Next()
		}
		if order >= 0 {
			w = want.Next()
		}
	}
	return keys, errors.Join(have.Error(), want.Error())
}

// Close removes the scratch directory.
func (c *Check) Close() error {
	defer c.x.leave()
	return errors.Join(c.snapshot.Close(), c.fresh.Close(), os.RemoveAll(c.scratch))
}

// describe says what a key is about.
func describe(key []byte) string {
	names := map[byte]string{
		classVersion: "version", classCursor: "cursor", classHash: "event", classSecond: "second",
		classStream: "state of stream", classMigration: "state of migration", classPlace: "places in stream",
		classControl: "control entries", classKind: "entries of kind", classInMig: "entries of migration",
		classInStream: "entries of stream", classActor: "entries of actor", classBy: "entries by", classObject: "entries about",
	}
	if len(key) == 0 || names[key[0]] == "" {
		return fmt.Sprintf("unknown key %x", key)
	}
	what, rest := names[key[0]], key[1:]
	switch key[0] {
	case classVersion, classCursor:
		return what
	case classHash, classSecond:
		return fmt.Sprintf("%s %x", what, rest)
	case classStream, classMigration:
		return fmt.Sprintf("%s %q", what, rest)
	}
	name, at, ok := bytes.Cut(rest, []byte{0})
	if !ok || len(at) != 8 {
		return fmt.Sprintf("%s: malformed key %x", what, key)
	}
	return fmt.Sprintf("%s %q in window %d", what, name, binary.BigEndian.Uint64(at))
}
