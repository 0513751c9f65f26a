package client

import (
	"context"
	"errors"
	"slices"
	"time"
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
	done := map[*chain]int{} // requests
	for _, p := range proven {
		ch := o.chains[p.stream]
		if ch == nil || done[ch]+1 >= len(ch.ends) || ch.ends[done[ch]+1].seq != p.last {
			continue // it was acknowledged again meanwhile
		}
		from := ch.ends[done[ch]].seq
		done[ch]++
		for _, s := range ch.spans {
			if to := min(s.last, p.last); to > from {
				counts[s.segment] += int(to - from)
				from = to
			}
		}
	}
	for ch, n := range done {
		last := ch.ends[n].seq
		ch.ends = slices.Delete(ch.ends, 0, n)
		i, _ := ch.cutFrom(last + 1)
		ch.cuts = slices.Delete(ch.cuts, 0, i)
		ch.spans = slices.DeleteFunc(ch.spans, func(s span) bool { return s.last <= last })
		ch.losses, ch.probes = 0, 0
	}
	o.spool.enqueue(&write{records: []record{{kind: recordCheckpoint, bytes: checkpoint}}, settled: counts})
	for ch := range done {
		o.drop(ch)
	}
	o.changed.Broadcast()
}

// settled says whether nothing of the chain is left to do.
func (ch *chain) settled() bool { return ch.ends[0].seq == ch.last }

// drop forgets a chain that has nothing left to do, now or later. The caller holds mu.
func (o *outbox) drop(ch *chain) {
	if ch.settled() && !ch.sending && o.spool.ended(ch.name) {
		delete(o.chains, ch.name)
	}
}

// resubmit asks a log that acknowledged and does not publish whether it still has the
// events: it sends the last request of a stream again. A log that has it gives the same
// receipt, and has all before it; another says where the stream is.
func (o *outbox) resubmit() {
	const doublings = 10
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, ch := range o.chains {
		at, wait := ch.at(), o.cfg.Resubmit<<min(ch.probes, doublings)
		if len(ch.ends) < 2 || at.seq < ch.probed || time.Since(at.when) < wait {
			continue
		}
		o.client.cfg.Logger.Warn("sent acknowledged events again: they are not published", "stream", ch.name, "seq", at.seq, "waited", wait)
		ch.probes++
		ch.probed = at.seq
		o.rewind(ch, len(ch.ends)-2)
	}
}

// settleAll waits until everything that was put before the call is settled.
func (o *outbox) settleAll(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	type mark struct {
		last     uint64
		troubles int
	}
	want := map[*chain]mark{}
	for _, ch := range o.chains {
		if !ch.settled() {
			want[ch] = mark{ch.last, ch.troubles}
			ch.hurry = ch.last
		}
	}
	o.changed.Broadcast()
	for {
		var trouble error
		for ch, mark := range want {
			switch {
			case ch.ends[0].seq >= mark.last:
				delete(want, ch)
			case ch.troubles != mark.troubles:
				trouble = ch.trouble
			}
		}
		if err := o.untold; err != nil {
			o.untold = nil
			return err
		}
		if len(want) == 0 {
			return nil
		}
		if trouble != nil {
			return trouble
		}
		if err := o.wait(ctx); err != nil {
			return err
		}
	}
}
