package client

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/pipe-roll/piperoll/log/disk"
)

// rewind takes a chain back to one of its ends: what was acknowledged after it is
// read and sent again, in the same requests. Their receipts are kept to compare. The caller holds mu.
func (o *outbox) rewind(ch *chain, to int) {
	ch.epoch++
	ch.ends = ch.ends[:to+1]
	for _, q := range ch.queue {
		o.window -= q.bytes
	}
	ch.queue = nil
	ch.read, o.again = ch.at().seq, true
	ch.hurry = max(ch.hurry, ch.read+1)
	if ch.void == nil {
		ch.void = map[uint64]*pending{}
	}
	for _, p := range o.client.forget(ch.name, ch.read) {
		ch.void[p.last] = p
	}
	o.changed.Broadcast()
}

// lost is a rewind after a loss. A log that loses things again and again is given time.
func (o *outbox) lost(ch *chain, to int) {
	o.rewind(ch, to)
	ch.losses++
	ch.rest = time.Now().Add(o.client.pause(ch.losses, nil))
}

// lostAndFound is the evidence of two receipts for the same events: the log had lost
// what the first was over.
func lostAndFound(was, again *pending) *Evidence {
	return &Evidence{
		Claim: ClaimLost, Detail: fmt.Sprintf("events of %q up to seq %d were acknowledged at index %d, lost, and acknowledged again at %d",
			was.stream, was.last, was.first, again.first),
		Files: append(was.files(), File{"receipt-again", again.receipt}, File{"leaves-again", again.files()[1].Data}),
	}
}

// conflict says what becomes of a request whose stream is elsewhere, says the log.
// See [Stream.conflict]; here the outbox still has what a log may have lost.
func (o *outbox) conflict(s *Stream, b *batch, r *Refused) error {
	h := r.head
	switch {
	case h.is(s.state.Seq, s.state.Hash):
		return r // it is where it was, and refuses for another reason
	case h.in(b):
		return fmt.Errorf("%w: the log has events of the request, and: %s", ErrAnswer, r)
	}
	o.mu.Lock()
	ch := o.chains[s.state.Name]
	stale := ch.epoch != b.epoch
	base := ch.ends[0]
	i := slices.IndexFunc(ch.ends, func(e end) bool { return h.is(e.seq, e.hash) })
	o.mu.Unlock()
	switch {
	case stale:
		return errStale
	case i < 0 && h.Seq < base.seq:
		// A conflict is not signed. If it is true, the checkpoints show it: they are asked for first from now on.
		b.resent = true
		return fmt.Errorf("%w: stream %q is at seq %d, and seq %d was under a checkpoint: %s", ErrAnswer, s.state.Name, h.Seq, base.seq, r)
	case i < 0:
		return fmt.Errorf("%w: it is at seq %d: was the outbox restored from a copy, or has somebody else its key and token? %w", ErrAhead, h.Seq, r)
	}
	o.mu.Lock()
	if ch.epoch != b.epoch {
		o.mu.Unlock()
		return errStale
	}
	o.lost(ch, i)
	o.mu.Unlock()
	o.client.cfg.Logger.Warn("sends acknowledged events again: the log says that it lost them", "stream", ch.name, "seq", h.Seq, "acknowledged", s.state.Seq)
	return errStale
}

// consistent says whether the log's checkpoint extends what is known of it: a log
// that was restored to an older state, or to another, gets nothing again.
func (o *outbox) consistent(ctx context.Context) error {
	release, err := o.client.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	at, err := o.client.refresh(ctx)
	if err != nil {
		return err
	}
	if o.client.served < at.Size {
		return fmt.Errorf("%w: it shows a checkpoint of size %d, after one of size %d, and has lost acknowledged events", ErrAnswer, o.client.served, at.Size)
	}
	return nil
}

// missing takes back a request that is not where its receipt says. The checkpoint
// that shows it is one that extends all before.
func (o *outbox) missing(p *pending, e *Evidence) {
	o.keep(e)
	o.mu.Lock()
	defer o.mu.Unlock()
	ch := o.chains[p.stream]
	if ch == nil {
		return
	}
	if i := slices.IndexFunc(ch.ends, func(e end) bool { return e.seq == p.last }); i > 0 {
		o.lost(ch, i-1)
	}
}

// keep saves evidence that the outbox goes on after, and tells it.
func (o *outbox) keep(e *Evidence) {
	dir, err := o.save(e)
	o.client.cfg.Logger.Error("caught the log", "claim", e.Claim, "detail", e.Detail, "evidence", dir, "err", err)
	o.client.remember(e)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.untold = e
	if err != nil {
		o.untold = errors.Join(e, fmt.Errorf("save evidence: %w", err))
	}
	o.changed.Broadcast()
}

// save saves evidence in the outbox's directory. The file claim is written last: what has
// none is not whole.
func (o *outbox) save(e *Evidence) (dir string, err error) {
	const most = 100 // of a log that goes on like that, nobody needs more
	n := o.saved.Add(1)
	if n > most {
		return "", nil
	}
	dir = filepath.Join(o.cfg.Dir, fmt.Sprintf("evidence-%d-%03d", o.client.cfg.Now().UnixMilli(), n))
	err = o.cfg.FS.MkdirAll(dir)
	for _, f := range append(slices.Clone(e.Files), File{"claim", []byte(string(e.Claim) + "\n" + e.Detail + "\n")}) {
		if err == nil {
			err = disk.WriteFile(o.cfg.FS, filepath.Join(dir, "new"), filepath.Join(dir, f.Name), f.Data)
		}
	}
	if err == nil {
		err = o.cfg.FS.SyncDir(o.cfg.Dir)
	}
	return dir, err
}
