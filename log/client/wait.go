package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// How often a checkpoint is asked for: soon at first, since a log can publish
// ten times a second, and then at the pace of most.
const (
	pollMin = 50 * time.Millisecond
	pollMax = time.Second
)

// A pending is an acknowledged request whose entries are not proven yet. The
// hashes are what the receipt is over: both are needed to convict the log.
type pending struct {
	first   uint64
	leaves  []log.Hash
	by      uint64 // Unix milliseconds: published until then, says the receipt
	receipt []byte
}

func (p pending) end() uint64 { return p.first + uint64(len(p.leaves)) }

// A seen is a checkpoint that was checked.
type seen struct {
	log.Head
	note []byte // nil if there is none yet
}

func (c *Client) acknowledged(p pending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = append(c.pending, p)
	c.pendingEvents += len(p.leaves)
}

// Pending is how many acknowledged events have no proof yet.
func (c *Client) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pendingEvents
}

// Checkpoint is the newest one that was checked, a signed note; nil if there is
// none. A service that keeps it for [Config] is safe from a log that forks
// between its runs.
func (c *Client) Checkpoint() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.seen.note)
}

// Wait returns when everything that was acknowledged before the call is under a
// published checkpoint, and is proven to be: each inclusion proof is checked with
// a leaf hash that the client computed, and each checkpoint extends the one
// before. It fails with [ErrOverdue] when the log does not publish in time.
func (c *Client) Wait(ctx context.Context) error {
	c.mu.Lock()
	var end uint64
	for _, p := range c.pending {
		end = max(end, p.end())
	}
	c.mu.Unlock()
	if err := c.usable(); err != nil || end == 0 {
		return err
	}
	if err := c.settle(ctx, end); err != nil {
		return fmt.Errorf("wait for proofs: %w", err)
	}
	return nil
}

// room waits until n more events can be pending. Streams that come at once
// may each find room: the bound is exceeded by a request each.
func (c *Client) room(ctx context.Context, n int) error {
	for {
		c.mu.Lock()
		full := len(c.pending) > 0 && c.pendingEvents+n > c.cfg.PendingEvents
		var end uint64
		if full {
			end = c.pending[0].end()
		}
		c.mu.Unlock()
		if !full {
			return nil
		}
		if err := c.settle(ctx, end); err != nil {
			return fmt.Errorf("wait for proofs of earlier events: %w", err)
		}
	}
}

// settle waits for a checkpoint of at least size, and proves everything that
// it covers.
func (c *Client) settle(ctx context.Context, size uint64) error {
	release, err := c.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	at, err := c.published(ctx, size)
	if err != nil {
		return err
	}
	c.mu.Lock()
	all := slices.Clone(c.pending)
	c.mu.Unlock()
	proven := make(map[uint64]bool, len(all)) // by first index
	defer c.settled(proven)
	for _, p := range all {
		if p.end() > at.Size {
			continue
		}
		if err := c.prove(ctx, at, p); err != nil {
			return err
		}
		proven[p.first] = true
	}
	return nil
}

// settled drops what is proven, all at once: there can be a request for each event.
func (c *Client) settled(proven map[uint64]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = slices.DeleteFunc(c.pending, func(p pending) bool {
		if proven[p.first] {
			c.pendingEvents -= len(p.leaves)
		}
		return proven[p.first]
	})
}

// hold makes the caller the one that looks at checkpoints.
func (c *Client) hold(ctx context.Context) (release func(), err error) {
	select {
	case c.settling <- struct{}{}:
		return func() { <-c.settling }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// published polls for a checkpoint of at least size.
func (c *Client) published(ctx context.Context, size uint64) (seen, error) {
	for pause := pollMin; ; pause = min(2*pause, pollMax) {
		var at seen
		err := c.retry(ctx, "fetch checkpoint", func() error {
			var err error
			at, err = c.refresh(ctx)
			return err
		})
		if err != nil || at.Size >= size {
			return at, err
		}
		if by := c.promised(at.Size); by != 0 && c.cfg.Now().UnixMilli() > int64(by) {
			return at, fmt.Errorf("%w: checkpoint of size %d", ErrOverdue, at.Size)
		}
		if err := sleep(ctx, pause); err != nil {
			return at, err
		}
	}
}

// promised is the earliest time until which the log promised to publish more
// than size entries, in Unix milliseconds; 0 if it did not.
func (c *Client) promised(size uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var by uint64
	for _, p := range c.pending {
		if p.end() > size && (by == 0 || p.by < by) {
			by = p.by
		}
	}
	return by
}

// refresh fetches the checkpoint, checks that it is of the same log as the last
// one, and gives the larger of the two: a cache may still have an older one.
func (c *Client) refresh(ctx context.Context) (seen, error) {
	if err := c.usable(); err != nil {
		return seen{}, err
	}
	r, err := c.do(ctx, http.MethodGet, "/checkpoint", nil, log.NoteMaxBytes)
	if err != nil {
		return seen{}, err
	}
	c.mu.Lock()
	last := c.seen
	c.mu.Unlock()
	if r.status == http.StatusNotFound && last.note == nil {
		return seen{Head: log.EmptyHead()}, nil // nothing is published yet
	}
	if r.status == http.StatusNotFound {
		return seen{}, fmt.Errorf("%w: no checkpoint, where there was one of size %d: is that still the log's URL?", ErrAnswer, last.Size)
	}
	if r.status != http.StatusOK {
		return seen{}, refusal(r)
	}
	cp, err := log.OpenCheckpoint(r.body, c.logKey)
	if err != nil {
		return seen{}, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	next := seen{cp.Head, r.body}
	if last.note != nil {
		older, newer := last, next
		if next.Size < last.Size {
			older, newer = next, last
		}
		if err := c.consistent(ctx, older, newer); err != nil {
			return seen{}, err
		}
		next = newer
	}
	c.mu.Lock()
	c.seen = next
	c.mu.Unlock()
	return next, nil
}

// consistent checks that newer extends older. The log's tiles are unsigned, and a
// cache may have wrong ones: what they say counts once it leads to newer's root.
func (c *Client) consistent(ctx context.Context, older, newer seen) error {
	if older.Head == newer.Head || older.Size == 0 {
		return nil
	}
	if older.Size == newer.Size {
		return c.convict(c.fork(older, newer, nil, "two roots at one size"))
	}
	_, err := c.tree.Extends(ctx, older.Head, newer.Head)
	if !errors.Is(err, log.ErrProof) {
		return err
	}
	path, pathErr := c.tree.Consistency(ctx, older.Size, newer.Size)
	root, rootErr := c.tree.Root(ctx, older.Size)
	if pathErr == nil && rootErr == nil && root != older.Root && log.CheckConsistency(log.Head{Size: older.Size, Root: root}, newer.Head, path) == nil {
		return c.convict(c.fork(older, newer, path, fmt.Sprintf("newer has root %s at the older size", root)))
	}
	return errors.Join(fmt.Errorf("%w: tiles that do not lead to the root of size %d: %w", ErrAnswer, newer.Size, err), pathErr, rootErr)
}

// fork is the evidence of two checkpoints that no one log can have. The path leads
// to the root of newer, and from another tree than that of older.
func (c *Client) fork(older, newer seen, path []log.Hash, how string) *Evidence {
	proof := log.ConsistencyProof{Origin: c.origin, Old: older.Size, New: newer.Size, Path: path}
	return &Evidence{Claim: ClaimFork, Detail: fmt.Sprintf("checkpoints of sizes %d and %d: %s", older.Size, newer.Size, how), Files: []File{
		{"older.checkpoint", older.note}, {"newer.checkpoint", newer.note}, {"consistency.proof", proof.Marshal()},
	}}
}

// prove checks that the entries of a request are under the checkpoint.
func (c *Client) prove(ctx context.Context, at seen, p pending) error {
	for i, leaf := range p.leaves {
		if _, err := c.inclusion(ctx, at, p.first+uint64(i), leaf, p.files); err != nil {
			return err
		}
	}
	return nil
}

// inclusion gives the checked path of a leaf. of are the files that show what was
// promised there.
func (c *Client) inclusion(ctx context.Context, at seen, index uint64, leaf log.Hash, of func() []File) ([]log.Hash, error) {
	var path []log.Hash
	err := c.retry(ctx, "fetch inclusion proof", func() error {
		var err error
		path, err = c.tree.Inclusion(ctx, at.Head, index)
		if errors.Is(err, log.ErrProof) {
			// Tiles are unsigned: these say nothing about the log, and others may come.
			return fmt.Errorf("%w: tiles that do not lead to the root of size %d: %w", ErrAnswer, at.Size, err)
		}
		if err != nil {
			return err
		}
		// The path leads to the root from what the log has there. If that is no leaf of ours, it is another.
		if err := log.CheckInclusion(at.Head, index, leaf, path); err != nil {
			return c.convict(c.missing(ctx, at, index, path, of, err))
		}
		return nil
	})
	return path, err
}

// files show what the log promised: the receipt, and the hashes that it is over.
func (p pending) files() []File {
	var leaves []byte
	for _, h := range p.leaves {
		leaves = append(leaves, h.String()+"\n"...)
	}
	return []File{{"receipt", p.receipt}, {"leaves", leaves}}
}

// missing is the evidence that an acknowledged entry is not under a checkpoint: a
// proof convicts only with the entry that it is of, so that is fetched.
func (c *Client) missing(ctx context.Context, at seen, index uint64, path []log.Hash, of func() []File, cause error) *Evidence {
	proof := log.InclusionProof{Index: index, Path: path, Checkpoint: at.note}
	e := &Evidence{Claim: ClaimEntry, Detail: fmt.Sprintf("acknowledged entry %d: %v", index, cause), Files: append([]File{
		{"checkpoint", at.note}, {"in-the-log.tlog-proof", proof.Marshal()},
	}, of()...)}
	err := c.tree.Entries(ctx, at.Head, index, index+1, func(_ uint64, entry []byte) error {
		e.Files = append(e.Files, File{"in-the-log.entry", entry})
		return nil
	})
	if err != nil {
		e.Detail += fmt.Sprintf("; what the log has there instead is not at hand, and is needed with the proof: %v", err)
	}
	return e
}

// Proof gives the proof that an entry is under the newest checkpoint that the
// client has checked. It fails with [ErrNotPublished] if that one does not
// cover it, and neither does the log's newest.
func (c *Client) Proof(ctx context.Context, p Placed) (log.InclusionProof, error) {
	release, err := c.hold(ctx)
	if err != nil {
		return log.InclusionProof{}, err
	}
	defer release()
	c.mu.Lock()
	at := c.seen
	c.mu.Unlock()
	if at.Size <= p.Index {
		if at, err = c.refresh(ctx); err != nil {
			return log.InclusionProof{}, fmt.Errorf("prove entry %d: %w", p.Index, err)
		}
	}
	if at.Size <= p.Index {
		return log.InclusionProof{}, fmt.Errorf("prove entry %d: %w: size %d", p.Index, ErrNotPublished, at.Size)
	}
	path, err := c.inclusion(ctx, at, p.Index, p.Leaf, func() []File { return []File{{"receipt", p.Receipt}, {"entry.json", p.Entry}} })
	if err != nil {
		return log.InclusionProof{}, fmt.Errorf("prove entry %d: %w", p.Index, err)
	}
	return log.InclusionProof{Index: p.Index, Path: path, Checkpoint: at.note}, nil
}
