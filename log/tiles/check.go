package tiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// problemsMax bounds what Check reports.
const problemsMax = 1000

// ErrProblems is wrapped by what Check returns when it found something wrong.
var ErrProblems = errors.New("the tree's files are not what the entries give")

// A checker re-derives the tree beside the tree.
type checker struct {
	t        *Tree
	problems []error
	more     int
}

func (c *checker) report(format string, args ...any) {
	if len(c.problems) < problemsMax {
		c.problems = append(c.problems, fmt.Errorf(format, args...))
		return
	}
	c.more++
}

// Check derives every full tile and bundle up to the signed size again from the source and compares them with the
// files, every published checkpoint with the root at its size, and the recovery point. It reads all entries once, and
// calls progress from time to time with how many it has done. It returns everything wrong it found, up to 1000
// problems, wrapping ErrProblems; plain errors when it could not finish. The tree may run meanwhile.
func (t *Tree) Check(ctx context.Context, progress func(done, total uint64)) error {
	c := &checker{t: t}
	head := t.Head()
	b, err := newBuilder(edge{}, c.compare)
	if err != nil {
		return err
	}
	t.storeMu.Lock()
	s := t.store.snapshot()
	t.storeMu.Unlock()
	published := c.checkpoints(s)
	next, more := published()
	for {
		for more && next.size <= b.size {
			c.checkpoint(next, b)
			next, more = published()
		}
		progress(b.size, head.Size)
		if b.size == head.Size {
			break
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("check tree: %w", err)
		}
		// Up to the next checkpoint, the next full tile, or the end.
		upTo := min(head.Size, (b.size/log.TileWidth+16)*log.TileWidth)
		if more {
			upTo = min(upTo, next.size)
		}
		if err := t.integrate(b, upTo); err != nil {
			return fmt.Errorf("check tree: %w", err)
		}
	}
	if more {
		c.report("checkpoint of size %d is beyond the signed size %d", next.size, head.Size)
	}
	if got := b.head(); got != head {
		c.report("the entries give root %v at size %d, signed is %v", got.Root, got.Size, head.Root)
	}
	if c.more > 0 {
		c.problems = append(c.problems, fmt.Errorf("and %d more", c.more))
	}
	if len(c.problems) > 0 {
		return fmt.Errorf("check tree: %w: %w", ErrProblems, errors.Join(c.problems...))
	}
	return nil
}

// compare compares a full tile or bundle with its file.
func (c *checker) compare(id log.TileID, want []byte) error {
	got, err := disk.ReadFile(c.t.c.FS, filepath.Join(c.t.c.Dir, filepath.FromSlash(id.Path())), int64(len(want)))
	switch {
	case err != nil:
		c.report("%s: %w", id.Path(), err)
	case !bytes.Equal(got, want):
		c.report("%s: differs from what the entries give", id.Path())
	}
	return nil
}

// checkpoints returns the stored checkpoints one by one.
func (c *checker) checkpoints(s *store) func() (record, bool) {
	var records []record
	segments := s.segments
	return func() (record, bool) {
		for len(records) == 0 && len(segments) > 0 {
			var err error
			if records, err = s.records(segments[0]); err != nil {
				c.report("checkpoint store: %w", err)
			}
			segments = segments[1:]
		}
		if len(records) == 0 {
			return record{}, false
		}
		r := records[0]
		records = records[1:]
		return r, true
	}
}

// checkpoint checks a stored checkpoint when b has its size, and the partial tiles that are files of it.
func (c *checker) checkpoint(r record, b *builder) {
	cp, err := log.OpenCheckpoint(r.note, c.t.c.Verifier)
	switch {
	case err != nil:
		c.report("checkpoint of size %d: %w", r.size, err)
		return
	case cp.Size != r.size || r.size != b.size:
		c.report("checkpoint of size %d is stored as size %d, at size %d", cp.Size, r.size, b.size)
		return
	case cp.Head != b.head():
		c.report("checkpoint of size %d: its root is not what the entries give", r.size)
	}
	for _, id := range b.partials() {
		want := b.data(id)
		got, err := disk.ReadFile(c.t.c.FS, filepath.Join(c.t.c.Dir, filepath.FromSlash(id.Path())), int64(len(want)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed in time, or not needed: Tile cuts it
		}
		if err != nil {
			c.report("%s: %w", id.Path(), err)
		} else if !bytes.Equal(got, want) {
			c.report("%s: differs from what the entries give", id.Path())
		}
	}
}
