package tiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// publisher publishes the newest signed head once per Publish while there are new ones, and once per Idle otherwise.
// It goes by the monotonic clock alone. When signing has ended it publishes once more.
func (t *Tree) publisher(ctx context.Context, signed <-chan struct{}) error {
	tick := time.NewTicker(t.c.Publish)
	defer tick.Stop()
	last := time.Now()
	for {
		if t.unpublished() || time.Since(last) >= t.c.Idle {
			ok, err := t.publish(ctx)
			if err != nil {
				return t.fail(err)
			}
			if ok {
				last = time.Now()
			}
		}
		select {
		case <-t.failed:
			return t.Err()
		case <-signed:
			return t.publishLast(ctx)
		case <-tick.C:
		}
	}
}

func (t *Tree) publishLast(ctx context.Context) error {
	if err := t.Err(); err != nil || !t.unpublished() {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.c.StopTimeout)
	defer cancel()
	if _, err := t.publish(ctx); err != nil {
		return t.fail(err)
	}
	return nil
}

func (t *Tree) unpublished() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.published.msg == nil || t.published.size != t.view.head.Size
}

// publish publishes the newest signed head, in this order:
//
//	partial tiles written as files -> cosigned -> stored durably -> served -> file Dir/checkpoint -> old partial tiles removed
//
// A checkpoint that anyone has seen is in the store, so it is served again after a crash. Without the cosignatures
// nothing is published: ok is false, which is no failure of the tree.
func (t *Tree) publish(ctx context.Context) (ok bool, err error) {
	began := time.Now()
	v := t.current()
	if err := t.writePartials(v); err != nil {
		return false, err
	}
	msg, err := t.cosign(ctx, v)
	if err != nil {
		t.count(func(s *Stats) { s.Unpublished++ })
		t.c.Logger.Warn("published nothing without cosignatures", "origin", t.c.Origin, "size", v.head.Size, "err", err)
		return false, nil
	}
	if err := t.keep(v.head.Size, msg); err != nil {
		return false, err
	}
	t.update(func() {
		t.published = checkpoint{v.head.Size, msg}
		t.behind = began
		if t.view.head.Size == v.head.Size {
			t.behind = time.Time{}
		}
		t.stats.Publications++
		t.stats.PublishTime += time.Since(began)
	})
	if err := t.writer.replace("checkpoint", msg); err != nil {
		return false, err
	}
	return true, t.retire()
}

// cosign returns the checkpoint that is to be published. What comes back is checked: whoever asks the witnesses must
// not be able to publish anything that we did not sign.
func (t *Tree) cosign(ctx context.Context, v view) ([]byte, error) {
	if t.c.Cosign == nil {
		return v.signed, nil
	}
	msg, err := t.c.Cosign(ctx, v.signed)
	if err != nil {
		return nil, err
	}
	cp, err := log.OpenCheckpoint(msg, t.c.Verifier)
	if err != nil {
		return nil, fmt.Errorf("check cosigned checkpoint: %w", err)
	}
	if cp.Head != v.head {
		return nil, fmt.Errorf("check cosigned checkpoint: size %d came back for size %d", cp.Size, v.head.Size)
	}
	return msg, nil
}

// keep stores a checkpoint, unless it is the newest one to the byte.
func (t *Tree) keep(size uint64, msg []byte) error {
	t.storeMu.Lock()
	defer t.storeMu.Unlock()
	if newest, ok := t.store.newest(); ok && bytes.Equal(newest.note, msg) {
		return nil
	}
	return t.store.append(size, msg)
}

// writePartials writes the partial tiles of v that an earlier publication has not written.
func (t *Tree) writePartials(v view) error {
	var there []log.TileID
	if n := len(t.attempted); n > 0 {
		if t.attempted[n-1] == v.head.Size {
			return nil
		}
		there = partialsOf(t.attempted[n-1])
	}
	t.attempted = append(t.attempted, v.head.Size)
	for _, id := range v.edge.partials() {
		if slices.Contains(there, id) {
			continue
		}
		if err := t.writer.replace(id.Path(), v.edge.data(id)); err != nil {
			return err
		}
	}
	return nil
}

// retire removes the partial tiles of all but the newest KeepPartials sizes.
func (t *Tree) retire() error {
	for len(t.attempted) > t.c.KeepPartials {
		// A wider tile comes later, never again the same: the next size tells which are still wanted.
		old, wanted := partialsOf(t.attempted[0]), partialsOf(t.attempted[1])
		t.attempted = t.attempted[1:]
		for _, id := range old {
			if slices.Contains(wanted, id) {
				continue
			}
			if err := t.writer.remove(id.Path()); err != nil {
				return err
			}
			if !slices.ContainsFunc(wanted, func(w log.TileID) bool { return w.Level == id.Level && w.Index == id.Index }) {
				if err := t.writer.removeDir(path.Dir(id.Path()), nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// sweepDirsMax bounds the directories that a start looks into for forgotten partial tiles.
const sweepDirsMax = 4096

// adoptPartials takes over the partial tiles of the checkpoints published last. It writes again what a crash has lost
// or torn, and removes those of sizes that were never published.
func (t *Tree) adoptPartials() error {
	keep := map[string]bool{}
	records := t.store.last
	for _, r := range records[max(0, len(records)-t.c.KeepPartials):] {
		if n := len(t.attempted); n > 0 && t.attempted[n-1] == r.size {
			continue
		}
		t.attempted = append(t.attempted, r.size)
		for _, id := range partialsOf(r.size) {
			if keep[id.Path()] {
				continue
			}
			keep[id.Path()] = true
			if err := t.healPartial(id); err != nil {
				return err
			}
		}
	}
	if err := t.writer.replace("checkpoint", t.published.msg); err != nil {
		return err
	}
	return t.sweepPartials(keep)
}

func (t *Tree) healPartial(id log.TileID) error {
	data, err := t.Tile(context.Background(), id)
	if err != nil {
		return err
	}
	f, _, err := t.writer.heal(id.Path(), data)
	if err != nil {
		return err
	}
	return f.Close()
}

// sweepPartials removes partial tiles that are not to be kept from where a crash can have left any: between the
// published and the signed size.
func (t *Tree) sweepPartials(keep map[string]bool) error {
	for level := -1; level < levelsMax; level++ {
		shift := (max(level, 0) + 1) * log.TileHeight
		last := t.anchor.last.Size >> shift
		first := t.published.size >> shift
		if last-first >= sweepDirsMax {
			first = last - sweepDirsMax + 1
		}
		for n := first; n <= last; n++ {
			id := log.TileID{Level: level, Index: n, Width: 1}
			if err := t.writer.removeDir(path.Dir(id.Path()), keep); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove removes a file, if it is there.
func (w *writer) remove(path string) error {
	if err := w.fs.Remove(filepath.Join(w.dir, filepath.FromSlash(path))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// removeDir removes the files of a directory but those to keep, and the directory if it is empty then.
func (w *writer) removeDir(dir string, keep map[string]bool) error {
	names, err := w.fs.ReadDir(filepath.Join(w.dir, filepath.FromSlash(dir)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	left := 0
	for _, name := range names {
		if file := path.Join(dir, name); keep[file] {
			left++
		} else if err := w.remove(file); err != nil {
			return err
		}
	}
	if left > 0 {
		return nil
	}
	w.forget(filepath.Join(w.dir, filepath.FromSlash(dir)))
	return w.remove(dir)
}
