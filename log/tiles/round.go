package tiles

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"
)

// What a round takes at most; what is left comes in the next, at once.
const (
	readEntries  = 1024
	readBytes    = 4 << 20
	roundEntries = 8 * readEntries
)

var errRunning = errors.New("a tree is run once")

// Run integrates, signs and publishes until ctx is done, then once more all that is durable. It returns nil when it
// was stopped, and what failed when the tree failed; the source has to stay open until then.
func (t *Tree) Run(ctx context.Context) error {
	if t.started.Swap(true) {
		return errRunning
	}
	// A loop that fails stops the others, which tell this from a stop by the latch.
	g, ctx := errgroup.WithContext(ctx)
	signed := make(chan struct{})
	g.Go(func() error { defer close(signed); defer close(t.queue); return t.rounds(ctx) })
	g.Go(func() error { return t.publisher(ctx, signed) })
	g.Go(t.trickle)
	err := g.Wait()
	t.update(func() { t.stopped = true })
	return err
}

// rounds runs a round as soon as there is something to integrate, but not sooner than Round after the last began.
// When ctx is done it goes on without pauses until all that is durable is signed.
func (t *Tree) rounds(ctx context.Context) error {
	for {
		began := time.Now()
		if err := t.awaitWork(ctx); err != nil {
			return t.fail(err)
		}
		if err := t.Err(); err != nil {
			return err
		}
		if size := t.c.Source.Size(); ctx.Err() != nil && size == t.b.size {
			if err := t.anchor.settle(); err != nil {
				return t.fail(fmt.Errorf("settle anchor: %w", err))
			}
			return nil
		}
		pause := time.NewTimer(t.c.Round - time.Since(began))
		select {
		case <-ctx.Done():
		case <-pause.C:
		case <-t.failed:
			return t.Err()
		}
		if err := t.work(); err != nil {
			return t.fail(err)
		}
	}
}

// awaitWork waits for new entries. After a moment without any it writes the anchor into its other slot.
func (t *Tree) awaitWork(ctx context.Context) error {
	for limit := t.c.Publish; ctx.Err() == nil; limit = t.c.Idle {
		moment, cancel := context.WithTimeout(ctx, limit)
		err := t.c.Source.Wait(moment, t.b.size+1)
		late := moment.Err() != nil
		cancel()
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case !late:
			return fmt.Errorf("wait for entries: %w", err)
		}
		if err := t.anchor.settle(); err != nil {
			return fmt.Errorf("settle anchor: %w", err)
		}
	}
	return nil
}

// work runs rounds until the source has no more.
func (t *Tree) work() error {
	for size := t.c.Source.Size(); t.b.size != size; {
		if size < t.b.size {
			return &Refusal{Check: "entries", Found: fmt.Sprintf("there are %d, but a tree of %d was signed", size, t.b.size), Do: doNewest}
		}
		if err := t.round(min(size, t.b.size+roundEntries)); err != nil {
			return err
		}
	}
	return nil
}

// round takes the log from its head to the given size, in this order:
//
//	integrated -> full tiles and bundles written as files -> new root checked twice -> anchor durable -> signed -> served
//
// The files are not synced here: the trickle syncs them later and then moves the recovery point. A crash before
// "anchor durable" leaves files that the next start derives again, the same or more of them. After it, the same head
// is signed again, with the same text. No signature leaves the process before: another root for a size that somebody
// has seen signed would be a fork, which nothing can take back.
func (t *Tree) round(size uint64) error {
	if err := t.Err(); err != nil {
		return err
	}
	began := time.Now()
	// The tree that grows is the one that was signed, and nothing in it changed since.
	before, err := t.b.checkedHead()
	if err != nil {
		return err
	}
	if before != t.anchor.last.Head {
		return fmt.Errorf("%w: it is not the tree that was signed", errTwins)
	}
	if err := t.integrate(t.b, size); err != nil {
		return err
	}
	next, err := t.b.checkedHead()
	if err != nil {
		return err
	}
	syncing := time.Now()
	if err := t.swapAnchor(next); err != nil {
		return fmt.Errorf("make anchor of size %d durable: %w", size, err)
	}
	synced := time.Now()
	signed, err := t.sign(next)
	if err != nil {
		return err
	}
	t.update(func() {
		t.view = view{next, t.b.edge, signed}
		if t.behind.IsZero() {
			t.behind = time.Now()
		}
		t.stats.Rounds++
		t.stats.RoundTime += time.Since(began)
		t.stats.AnchorTime += synced.Sub(syncing)
	})
	return t.enqueue(dirty{point: &next})
}

func (t *Tree) swapAnchor(next log.Head) error {
	old := t.anchor.last
	now := t.c.Now().Truncate(time.Millisecond)
	if now.Before(old.Time) {
		now = old.Time
	}
	return t.anchor.swap(old, Anchor{next, now})
}

// sign signs the head that the anchor holds, durably, and no other.
func (t *Tree) sign(head log.Head) ([]byte, error) {
	if head != t.anchor.last.Head {
		panic("tiles: sign called before the anchor is durable")
	}
	text := log.Checkpoint{Origin: t.c.Origin, Head: head}.String()
	msg, err := note.Sign(&note.Note{Text: text}, t.c.Signer)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint of size %d: %w", head.Size, err)
	}
	if cp, err := log.OpenCheckpoint(msg, t.c.Verifier); err != nil || cp.Head != head {
		return nil, errors.Join(fmt.Errorf("sign checkpoint of size %d: the signature does not verify under the log's key", head.Size), err)
	}
	return msg, nil
}

// writeFull writes a full tile or bundle and leaves its sync to the trickle.
func (t *Tree) writeFull(id log.TileID, data []byte) error {
	f, err := t.writer.write(id.Path(), data)
	if err != nil {
		return err
	}
	t.count(func(s *Stats) { s.Files++ })
	return t.enqueue(dirty{file: f, path: id.Path(), bytes: len(data)})
}
