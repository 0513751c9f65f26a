package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/pipe-roll/piperoll/log/disk"
)

// settle looks at checkpoints while there are acknowledged events, checks their
// inclusion, and lets the spool forget them.
func (o *outbox) settle(ctx context.Context) {
	c := o.client
	pause := pollMin
	for failed := 0; ; {
		o.mu.Lock()
		for ctx.Err() == nil && o.err == nil && c.Pending() == 0 {
			o.changed.Wait()
		}
		stop := ctx.Err() != nil || o.err != nil
		o.mu.Unlock()
		if stop {
			return
		}
		before := c.Pending()
		err := o.look(ctx)
		var evidence *Evidence
		switch {
		case errors.As(err, &evidence):
			o.fail(err)
			return
		case err != nil:
			failed++
			pause = c.pause(failed, err)
			c.cfg.Logger.Warn("failed an attempt", "deed", "settle events", "attempt", failed, "pause", pause, "err", err)
		case c.Pending() < before:
			failed, pause = 0, pollMin
		default:
			failed, pause = 0, min(2*pause, pollMax)
		}
		o.resubmit()
		if sleep(ctx, pause) != nil {
			return
		}
	}
}

// look fetches the checkpoint, and proves what it covers if the policy accepts it.
func (o *outbox) look(ctx context.Context) error {
	release, err := o.client.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	at, err := o.client.refresh(ctx)
	if err != nil || !o.client.accepts(at) {
		return err
	}
	return o.client.proveAll(ctx, at)
}

// settled lets go of requests that are proven under a checkpoint.
func (o *outbox) settled(proven []*pending, checkpoint []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	counts := map[uint64]int{}
	for _, p := range proven {
		ch := o.chains[p.stream]
		if ch == nil || len(ch.ends) < 2 || ch.ends[1].seq != p.last {
			continue // it was acknowledged again meanwhile
		}
		from := ch.ends[0].seq
		for _, s := range ch.spans {
			if to := min(s.last, p.last); to > from {
				counts[s.segment] += int(to - from)
				from = to
			}
		}
		ch.ends = slices.Delete(ch.ends, 0, 1)
		ch.cuts = slices.DeleteFunc(ch.cuts, func(seq uint64) bool { return seq <= p.last })
		ch.spans = slices.DeleteFunc(ch.spans, func(s span) bool { return s.last <= p.last })
		ch.losses = 0
	}
	o.spool.enqueue(&write{records: []record{{kind: recordCheckpoint, bytes: checkpoint}}, settled: counts})
	for _, p := range proven {
		if ch := o.chains[p.stream]; ch != nil && ch.settled() {
			o.drop(ch.migration)
		}
	}
	o.changed.Broadcast()
}

// settled says whether nothing of the chain is left to do.
func (ch *chain) settled() bool { return ch.ends[0].seq == ch.last }

// drop forgets the chains of a migration that is closed and settled.
func (o *outbox) drop(migration string) {
	if !o.spool.migrationClosed(migration) {
		return
	}
	for _, ch := range o.chains {
		if ch.migration == migration && !ch.settled() {
			return
		}
	}
	for name, ch := range o.chains {
		if ch.migration == migration && !ch.sending {
			delete(o.chains, name)
		}
	}
}

// resubmit sends again what was acknowledged too long ago and is not published. A log
// that has it gives the same receipt.
func (o *outbox) resubmit() {
	late := o.client.late(o.client.cfg.Now().Add(-o.cfg.Resubmit))
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range late {
		ch := o.chains[p.stream]
		if ch == nil {
			continue
		}
		if i := slices.IndexFunc(ch.ends, func(e end) bool { return e.seq == p.last }); i > 0 {
			o.client.cfg.Logger.Warn("sent acknowledged events again: they are not published", "stream", p.stream, "seq", p.last)
			ch.void = append(ch.void, o.rewind(ch, i-1)...)
		}
	}
}

// rewind takes a chain back to one of its ends: what was acknowledged after it is
// read and sent again, in the same requests. It gives their receipts. The caller holds mu.
func (o *outbox) rewind(ch *chain, to int) []*pending {
	ch.epoch++
	ch.losses++
	ch.ends = ch.ends[:to+1]
	for _, q := range ch.queue {
		o.window -= q.bytes
	}
	ch.queue = nil
	ch.read, o.again = ch.at().seq, true
	ch.hurry = max(ch.hurry, ch.read+1)
	o.changed.Broadcast()
	return o.client.forget(ch.name, ch.read)
}

// acknowledgedAgain keeps evidence if a log that is asked again for a receipt gives
// another: it had lost what the first was over. The caller holds mu.
func (o *outbox) acknowledgedAgain(ch *chain, p pending) {
	i := slices.IndexFunc(ch.void, func(v *pending) bool { return v.last == p.last })
	if i < 0 {
		return
	}
	was := ch.void[i]
	ch.void = slices.Delete(ch.void, i, i+1)
	if bytes.Equal(was.receipt, p.receipt) {
		return
	}
	o.keep(&Evidence{
		Claim: ClaimLost, Detail: fmt.Sprintf("events of %q up to seq %d were acknowledged at index %d, lost, and acknowledged again at %d", p.stream, p.last, was.first, p.first),
		Files: append(was.files(), File{"receipt-again", p.receipt}, File{"leaves-again", p.files()[1].Data}),
	})
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
		e := b.against(ClaimHead, fmt.Sprintf("stream %q is at seq %d; seq %d was under a checkpoint", s.state.Name, h.Seq, base.seq), r.raw)
		e.Files = append(e.Files, File{"checkpoint", o.client.Checkpoint()})
		return o.client.convict(e)
	case i < 0:
		return fmt.Errorf("%w: it is at seq %d: was the outbox restored from a copy, or has somebody else its key and token? %w", ErrAhead, h.Seq, r)
	}
	o.mu.Lock()
	if ch.epoch != b.epoch {
		o.mu.Unlock()
		return errStale
	}
	lost := o.rewind(ch, i)
	o.mu.Unlock()
	e := b.against(ClaimLost, fmt.Sprintf("stream %q is at seq %d, and seq %d was acknowledged; the events are sent again if its checkpoint extends those before", ch.name, h.Seq, s.state.Seq), r.raw)
	for i, p := range lost[:min(len(lost), 100)] {
		for _, f := range p.files() {
			e.Files = append(e.Files, File{fmt.Sprintf("%s-%d", f.Name, i+1), f.Data})
		}
	}
	o.keep(e)
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
		o.rewind(ch, i-1)
	}
}

// settleAll waits until everything that was put before the call is settled.
func (o *outbox) settleAll(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	want := map[*chain]uint64{}
	for _, ch := range o.chains {
		if !ch.settled() {
			want[ch] = ch.last
			ch.hurry = ch.last
		}
	}
	o.changed.Broadcast()
	for troubles := o.troubles; ; {
		for ch, last := range want {
			if ch.ends[0].seq >= last {
				delete(want, ch)
			}
		}
		if len(want) == 0 {
			return nil
		}
		if o.troubles != troubles {
			return o.trouble
		}
		if err := o.wait(ctx); err != nil {
			return err
		}
	}
}

// keep saves evidence in the outbox's directory. The file claim is written last: what has
// none is not whole.
func (o *outbox) keep(e *Evidence) {
	const most = 100 // of a log that goes on like that, nobody needs more
	n := o.saved.Add(1)
	if n > most {
		return
	}
	dir := filepath.Join(o.cfg.Dir, fmt.Sprintf("evidence-%d-%03d", o.client.cfg.Now().UnixMilli(), n))
	err := o.cfg.FS.MkdirAll(dir)
	for _, f := range append(slices.Clone(e.Files), File{"claim", []byte(string(e.Claim) + "\n" + e.Detail + "\n")}) {
		if err == nil {
			err = disk.WriteFile(o.cfg.FS, filepath.Join(dir, "new"), filepath.Join(dir, f.Name), f.Data)
		}
	}
	if err == nil {
		err = o.cfg.FS.SyncDir(o.cfg.Dir)
	}
	o.client.cfg.Logger.Error("caught the log", "claim", e.Claim, "detail", e.Detail, "evidence", dir, "err", err)
}
