package tiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/reader"
	"golang.org/x/mod/sumdb/tlog"
)

// A Problem is something that a [Check] found wrong.
type Problem struct {
	Err error
	// Derived: what was signed and what was acknowledged are not touched by it, and it grows back from the entries.
	Derived bool
	Healed  bool // it has grown back
}

// A CheckConfig says how to check a tree. Fields may be nil.
type CheckConfig struct {
	// Heal writes again what is derived and damaged, once it is proven under the signed head.
	Heal bool
	// Keep is told of a damaged file before it is written again, and may keep a copy. Its error keeps it from that.
	Keep func(file string) error
	// Pace is told how many bytes were read, and may wait. Its error ends the check.
	Pace func(bytes int) error
	// Found is told of each problem.
	Found func(Problem)
}

// A Check compares the files of a tree with its entries and with the head that was signed. It needs nothing that it
// has checked before, so one can begin anywhere, and the tree may run meanwhile. It is not safe for concurrent use.
//
// Whatever it compares is proven: 256 entries give a bundle, a tile and its root, and that root must be the one that
// leads to the signed head. So it tells entries that were changed from tiles that were.
type Check struct {
	t *Tree
	c CheckConfig
	v view

	next   uint64     // index of the entry that continues the chunk
	bundle []byte     // of the entries of the chunk so far
	leaves []log.Hash // of them
}

// NewCheck begins a check.
func (t *Tree) NewCheck(c CheckConfig) *Check {
	if c.Pace == nil {
		c.Pace = func(int) error { return nil }
	}
	if c.Keep == nil {
		c.Keep = func(string) error { return nil }
	}
	if c.Found == nil {
		c.Found = func(Problem) {}
	}
	return &Check{t: t, c: c, v: t.current()}
}

// Add takes an entry as it is on the disk. Entries come in order; after a gap those before it are read from the source
// if they are needed. Those that are not signed yet are left for the next check.
func (c *Check) Add(ctx context.Context, index uint64, entry []byte) error {
	if index != c.next {
		c.bundle, c.leaves, c.next = c.bundle[:0], c.leaves[:0], index/log.TileWidth*log.TileWidth
		if err := c.fill(ctx, index); err != nil {
			// Damage there is known to whoever reads the entries; a pace that ended is told by the next one.
			c.next = index + 1
			return ctx.Err()
		}
	}
	return c.add(ctx, entry)
}

// fill reads the entries of a chunk in front of index.
func (c *Check) fill(ctx context.Context, index uint64) error {
	for c.next < index {
		entries, err := c.t.entries(c.next, index)
		if err == nil {
			err = c.paceAll(entries)
		}
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if err := c.add(ctx, entry); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Check) add(ctx context.Context, entry []byte) error {
	if uint64(len(c.leaves)) == c.next%log.TileWidth { // else its chunk began in a gap
		c.bundle = log.AppendBundle(c.bundle, entry)
		c.leaves = append(c.leaves, tlog.RecordHash(entry))
	}
	c.next++
	if c.next%log.TileWidth != 0 {
		return nil
	}
	err := error(nil)
	if len(c.leaves) == log.TileWidth {
		err = c.chunk(ctx, c.next/log.TileWidth-1)
	}
	c.bundle, c.leaves = c.bundle[:0], c.leaves[:0]
	return err
}

// chunk checks the n-th 256 entries, their tile and their bundle, and the tiles above that end with them.
func (c *Check) chunk(ctx context.Context, n uint64) error {
	if c.v.head.Size < (n+1)*log.TileWidth {
		if c.v = c.t.current(); c.v.head.Size < (n+1)*log.TileWidth {
			return nil // not signed yet
		}
	}
	id := log.TileID{Level: 0, Index: n, Width: log.TileWidth}
	want, err := c.above(ctx, id)
	if err != nil {
		return c.report(ctx, Problem{Err: fmt.Errorf("prove %s: %w", id.Path(), err), Derived: true})
	}
	if fold(c.leaves) != want {
		return c.report(ctx, Problem{Err: fmt.Errorf("entries %d to %d are not those that were signed", n*log.TileWidth, (n+1)*log.TileWidth-1)})
	}
	if err := c.compare(ctx, id, marshalTile(c.leaves)); err != nil {
		return err
	}
	if err := c.compare(ctx, log.BundleID(n, log.TileWidth), c.bundle); err != nil {
		return err
	}
	for id.Level++; (n+1)>>(id.Level*log.TileHeight)<<(id.Level*log.TileHeight) == n+1; id.Level++ {
		id.Index = (n+1)>>(id.Level*log.TileHeight) - 1
		if err := c.parent(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// compare compares a full tile or bundle with its file.
func (c *Check) compare(ctx context.Context, id log.TileID, want []byte) error {
	if err := c.c.Pace(len(want)); err != nil {
		return err
	}
	if err := c.t.compare(id, want); err != nil {
		return c.heal(ctx, id, want, err)
	}
	return nil
}

// compare says how the file of a tile or bundle differs from what it should be.
func (t *Tree) compare(id log.TileID, want []byte) error {
	got, err := disk.ReadFile(t.c.FS, filepath.Join(t.c.Dir, filepath.FromSlash(id.Path())), int64(len(want)))
	if err != nil {
		return fmt.Errorf("%s: %w", id.Path(), err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s: differs from what the entries give", id.Path())
	}
	return nil
}

// heal reports a full tile or bundle, and writes what it should be, which is proven, if that is wanted. It is durable
// when heal returns: nothing will derive it again below the recovery point.
func (c *Check) heal(ctx context.Context, id log.TileID, want []byte, found error) error {
	p := Problem{Err: found, Derived: true}
	if c.c.Heal && ctx.Err() == nil && c.t.Err() == nil {
		err := c.c.Keep(filepath.Join(c.t.c.Dir, filepath.FromSlash(id.Path())))
		if err == nil {
			err = c.t.restore(id.Path(), want)
		}
		if err != nil {
			// Not wrapped: that there is no room, say, is not why the file was found to be damaged.
			p.Err = fmt.Errorf("%w; and it was not written again: %v", p.Err, err)
		} else {
			p.Healed = true
		}
	}
	return c.report(ctx, p)
}

// restore writes a file of the tree again, durably. A sync that fails stops the tree, as everywhere.
func (t *Tree) restore(path string, data []byte) error {
	f, _, err := t.writer.heal(path, data)
	if err != nil {
		return err
	}
	err = errors.Join(f.Sync(), f.Close())
	if err == nil {
		err = t.c.FS.SyncDir(filepath.Dir(filepath.Join(t.c.Dir, filepath.FromSlash(path))))
	}
	if err != nil {
		return t.fail(fmt.Errorf("sync %s: %w", path, err))
	}
	return nil
}

// above returns the hash that the level above has of a full tile, proven under the signed head. A tile above that is
// damaged is derived again first.
func (c *Check) above(ctx context.Context, id log.TileID) (log.Hash, error) {
	h, err := c.t.above(c.v, id)
	if !errors.Is(err, ErrDamaged) {
		return h, err
	}
	up := log.TileID{Level: id.Level + 1, Index: id.Index / log.TileWidth, Width: log.TileWidth}
	data, err := c.derive(ctx, up)
	if err != nil {
		return h, err
	}
	return log.Hash(data[id.Index%log.TileWidth*tlog.HashSize:]), nil
}

// parent checks the file of a full tile whose last entry has just been checked.
func (c *Check) parent(ctx context.Context, id log.TileID) error {
	if err := c.c.Pace(log.TileMaxBytes); err != nil {
		return err
	}
	want, err := c.above(ctx, id)
	if err != nil {
		return c.report(ctx, Problem{Err: fmt.Errorf("prove %s: %w", id.Path(), err), Derived: true})
	}
	data, found := c.t.readFull(id)
	if found == nil {
		got, err := rootOf(id, data)
		if err == nil && got == want {
			return nil
		}
		found = fmt.Errorf("%s: its root is not the hash above it", id.Path())
	}
	if data, err = c.derive(ctx, id); err != nil {
		return c.report(ctx, Problem{Err: fmt.Errorf("%w; and it was not derived again: %w", found, err), Derived: true})
	}
	return c.heal(ctx, id, data, found)
}

// report tells of a problem, unless all that went wrong is that the check is to end.
func (c *Check) report(ctx context.Context, p Problem) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.c.Found(p)
	return nil
}

// Checkpoints checks the n-th file of stored checkpoints: each is signed by the log, and of this tree. It returns false
// if there are not so many files.
func (c *Check) Checkpoints(ctx context.Context, n int) (bool, error) {
	c.t.storeMu.Lock()
	s := c.t.store.snapshot()
	var records []record
	var err error
	if n < len(s.segments) {
		records, err = s.whole(n) // under the lock: no record is half there
	}
	c.t.storeMu.Unlock()
	if n >= len(s.segments) {
		return false, nil
	}
	if err != nil {
		if err := c.report(ctx, Problem{Err: err}); err != nil {
			return true, err
		}
	}
	tree := reader.New(c.t, 0)
	for _, r := range records {
		// A signature and a root cost about as much time as so many bytes.
		if err := c.c.Pace(len(r.note) + checkpointBytes); err != nil {
			return true, err
		}
		if err := c.checkpoint(ctx, tree, r); err != nil {
			return true, err
		}
	}
	return true, nil
}

const checkpointBytes = 4 << 10

func (c *Check) checkpoint(ctx context.Context, tree *reader.Reader, r record) error {
	cp, err := log.OpenCheckpoint(r.note, c.t.c.Verifier)
	if err != nil {
		return c.report(ctx, Problem{Err: fmt.Errorf("checkpoint of size %d: %w", r.size, err)})
	}
	signed := c.t.Head().Size // after it was read: a store is never ahead of what is signed
	if cp.Size != r.size || r.size > signed {
		return c.report(ctx, Problem{Err: fmt.Errorf("checkpoint of size %d is stored as size %d, signed is %d", cp.Size, r.size, signed)})
	}
	root, err := tree.Root(ctx, r.size)
	if err != nil {
		return c.report(ctx, Problem{Err: fmt.Errorf("prove checkpoint of size %d: %w", r.size, err), Derived: true})
	}
	if root != cp.Root {
		return c.report(ctx, Problem{Err: fmt.Errorf("checkpoint of size %d: its root is not what the entries give", r.size)})
	}
	return nil
}

// Finish checks the right edge against the entries added last, partial tiles, anchor, recovery point, and the
// published file.
func (c *Check) Finish(ctx context.Context) error {
	v := c.t.current()
	if v.edge.head() != v.head {
		if err := c.report(ctx, Problem{Err: fmt.Errorf("the edge in memory does not give the signed root of size %d: check the memory", v.head.Size)}); err != nil {
			return err
		}
	}
	first := c.next - uint64(len(c.leaves))
	if len(c.leaves) > 0 && first == v.head.Size/log.TileWidth*log.TileWidth {
		for i, leaf := range c.leaves[:min(uint64(len(c.leaves)), v.head.Size-first)] {
			if leaf == v.edge.levels[0][i] {
				continue
			}
			if err := c.report(ctx, Problem{Err: fmt.Errorf("entry %d is not the one that was signed", first+uint64(i))}); err != nil {
				return err
			}
		}
	}
	for _, check := range []func(context.Context) error{c.slots, c.served, c.partials} {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// slots checks anchor and recovery point.
func (c *Check) slots(ctx context.Context) error {
	head, recovered := c.t.Head(), c.t.Stats().Recovery
	err := c.settled(ctx, func() error { return c.t.anchor.sound(head) })
	if err != nil {
		if err := c.report(ctx, Problem{Err: fmt.Errorf("anchor: %w", err)}); err != nil {
			return err
		}
	}
	err = c.settled(ctx, func() error { return c.t.recovery.sound(log.Head{Size: recovered}) })
	if err != nil {
		return c.report(ctx, Problem{Err: fmt.Errorf("recovery point: %w; its next move writes it again", err), Derived: true})
	}
	return nil
}

// served checks the file Dir/checkpoint, which the next publication writes again.
func (c *Check) served(ctx context.Context) error {
	err := c.settled(ctx, func() error {
		want := c.t.Published()
		if want == nil {
			return nil
		}
		got, err := disk.ReadFile(c.t.c.FS, filepath.Join(c.t.c.Dir, "checkpoint"), log.NoteMaxBytes)
		if err == nil && !bytes.Equal(got, want) {
			err = errors.New("differs from what is published")
		}
		return err
	})
	if err != nil {
		return c.report(ctx, Problem{Err: fmt.Errorf("file checkpoint: %w; the next publication writes it again", err), Derived: true})
	}
	return nil
}

// partials checks the partial tiles of the checkpoints published last, as far as they are files: any is cut from a
// wider one for who asks.
func (c *Check) partials(ctx context.Context) error {
	c.t.storeMu.Lock()
	last := c.t.store.last
	c.t.storeMu.Unlock()
	seen := map[string]bool{}
	for _, r := range last {
		for _, id := range partialsOf(r.size) {
			if seen[id.Path()] {
				continue
			}
			seen[id.Path()] = true
			want, err := c.t.Tile(ctx, id)
			if err != nil {
				if err := c.report(ctx, Problem{Err: err, Derived: true}); err != nil {
					return err
				}
				continue
			}
			if err := c.t.compare(id, want); err == nil || errors.Is(err, fs.ErrNotExist) {
				continue // removed in time
			} else if err := c.heal(ctx, id, want, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// settled asks again for a moment before it believes that something is wrong that is written just now.
func (c *Check) settled(ctx context.Context, wrong func() error) error {
	var err error
	for range settleTries {
		if err = wrong(); err == nil {
			return nil
		}
		if !sleep(ctx, settlePause) {
			break
		}
	}
	return err
}

const (
	settleTries = 5
	settlePause = 100 * time.Millisecond
)

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// ErrProblems is wrapped by what Tree.Check returns when it found something wrong.
var ErrProblems = errors.New("the tree's files are not what the entries give")

// problemsMax bounds what Tree.Check reports.
const problemsMax = 1000

// Check does all checks of [NewCheck] with the entries of the source, and heals nothing. It returns everything wrong
// that it found, up to 1000 problems, wrapping ErrProblems; plain errors when it could not finish.
func (t *Tree) Check(ctx context.Context) error {
	var problems []error
	c := t.NewCheck(CheckConfig{Found: func(p Problem) {
		if len(problems) < problemsMax {
			problems = append(problems, p.Err)
		}
	}})
	if err := c.all(ctx); err != nil {
		return fmt.Errorf("check tree: %w", err)
	}
	if len(problems) > 0 {
		return fmt.Errorf("check tree: %w: %w", ErrProblems, errors.Join(problems...))
	}
	return nil
}

func (c *Check) all(ctx context.Context) error {
	for size := c.t.Head().Size; c.next < size; {
		if err := c.fill(ctx, min(size, c.next+readEntries)); err != nil {
			return err
		}
	}
	for n, more := 0, true; more; n++ {
		var err error
		if more, err = c.Checkpoints(ctx, n); err != nil {
			return err
		}
	}
	return c.Finish(ctx)
}
