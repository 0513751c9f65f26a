package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// errStale means that an answer is about a request that has to be sent again anyway.
var errStale = errors.New("the log lost events before these: they are sent again after those")

// read reads the spool from the beginning and hands events to their chains. It
// begins again when a log has lost what was read already.
func (o *outbox) read(ctx context.Context) {
	var at place
	for {
		o.mu.Lock()
		// A full window whose chains all need more to be read would stay full.
		for ctx.Err() == nil && o.err == nil && !o.again && o.window >= windowBytes && o.active > 0 {
			o.changed.Wait()
		}
		stop := ctx.Err() != nil || o.err != nil
		if o.again {
			at, o.again = place{}, false
		}
		written := o.written
		o.mu.Unlock()
		if stop {
			return
		}
		records, segment, next, ok, err := o.spool.next(at)
		if err != nil {
			o.fail(err)
			return
		}
		at = next
		o.mu.Lock()
		for _, r := range records {
			o.take(ctx, segment, r)
		}
		for !ok && ctx.Err() == nil && o.err == nil && !o.again && o.written == written {
			o.changed.Wait()
		}
		o.mu.Unlock()
	}
}

// take queues an event that is not acknowledged, once. The caller holds mu.
func (o *outbox) take(ctx context.Context, segment uint64, r record) {
	if r.kind == recordCut || r.kind == recordBreak {
		if ch := o.chains[r.stream]; ch != nil {
			ch.cut(cut{r.seq, r.kind == recordBreak})
			o.changed.Broadcast()
		}
		return
	}
	if r.kind != recordEvent {
		return
	}
	ch := o.chains[r.made.event.Stream]
	if ch == nil {
		return // settled, with its migration
	}
	seq := r.made.event.Seq
	if n := len(ch.spans); n == 0 || seq > ch.spans[n-1].last {
		ch.span(segment, seq)
	}
	if seq != ch.read+1 {
		return
	}
	ch.read = seq
	if len(ch.queue) == 0 {
		ch.due = time.Now().Add(o.cfg.BatchAge)
	}
	q := queued{r.made, r.made.bytes()}
	ch.queue = append(ch.queue, q)
	o.window += q.bytes
	if !ch.sending {
		ch.sending = true
		o.active++
		o.running.Go(func() { o.send(ctx, ch) })
	}
	o.changed.Broadcast()
}

// send sends a chain's requests, one after the other, until nothing is queued.
func (o *outbox) send(ctx context.Context, ch *chain) {
	for {
		b, s, mark := o.request(ctx, ch)
		if b == nil {
			return
		}
		// From here on a crash may not know whether the log has the request: it must stay the same.
		if mark {
			if err := o.spool.write(record{kind: recordCut, stream: ch.name, seq: b.last().event.Seq}); err != nil {
				o.fail(err)
				continue
			}
		}
		b.seal(o.client, b.events[0].event.Seq)
		o.submit(ctx, ch, s, b)
	}
}

// request waits for the next request of a chain: its events, where the stream is
// before it, and whether its cut has to be written. Without one, the chain has
// nothing to send, or the outbox stops.
func (o *outbox) request(ctx context.Context, ch *chain) (b *batch, s *Stream, mark bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		if len(ch.queue) == 0 || ctx.Err() != nil || o.err != nil {
			ch.sending = false
			o.stick(ch, false)
			o.active--
			o.drop(ch)
			return nil, nil, false
		}
		n, mark, stuck := o.next(ch)
		if n > 0 {
			stuck = !o.ready(ch, ch.queue[n-1])
		}
		o.stick(ch, stuck)
		if n > 0 && !stuck && time.Until(ch.rest) <= 0 && o.roomFor(ch, n) {
			b := &batch{epoch: ch.epoch, resent: ch.queue[0].event.Seq <= ch.acked}
			for _, q := range ch.queue[:n] {
				b.add(q.made, int(^uint(0)>>1))
			}
			if mark {
				ch.cut(cut{seq: b.last().event.Seq})
			}
			return b, o.stream(ch), mark
		}
		o.pause(ch)
	}
}

// stick counts the chains that wait for more to be read, or for others.
func (o *outbox) stick(ch *chain, stuck bool) {
	if ch.stuck == stuck {
		return
	}
	ch.stuck = stuck
	if stuck {
		o.active--
	} else {
		o.active++
	}
	o.changed.Broadcast()
}

// roomFor says whether the next n events can be pending. Those that were have their room.
func (o *outbox) roomFor(ch *chain, n int) bool {
	return ch.void[ch.queue[n-1].event.Seq] != nil || o.client.roomFor(n)
}

// pause waits for a change, until the first queued event is old enough, or the rest over.
func (o *outbox) pause(ch *chain) {
	for _, at := range []time.Time{ch.due, ch.rest} {
		if d := time.Until(at); d > 0 {
			defer time.AfterFunc(d, o.wakeAll).Stop()
		}
	}
	o.changed.Wait()
}

// stream is where the log is with a chain, for a request after it.
func (o *outbox) stream(ch *chain) *Stream {
	at := ch.at()
	s := &Stream{client: o.client, state: log.NewStream(o.client.origin, ch.name), receipt: at.receipt}
	s.state.Seq, s.state.Tail, s.state.Hash, s.state.Index = at.seq, at.seq, at.hash, at.index
	return s
}

// next says how many queued events the next request has, 0 if that is not known
// yet, and whether its cut is not written yet. stuck says that it is known, and not all are read.
func (o *outbox) next(ch *chain) (n int, mark, stuck bool) {
	first := ch.queue[0].event.Seq
	most := uint64(o.client.cfg.BatchEvents)
	if i, _ := ch.cutFrom(first); i < len(ch.cuts) {
		run := ch.cuts[i].seq - first + 1
		if !ch.cuts[i].open {
			if run > uint64(len(ch.queue)) {
				return 0, false, true
			}
			return int(run), false, false
		}
		most = min(most, run)
	}
	full, bytes := false, 0
	for _, q := range ch.queue {
		full = uint64(n) == most || n > 0 && bytes+q.bytes > o.client.cfg.BatchBytes
		if full {
			break
		}
		bytes += q.bytes
		n++
	}
	full = full || uint64(n) == most || o.window >= windowBytes
	if !full && first > ch.hurry && time.Now().Before(ch.due) {
		return 0, false, false
	}
	return n, true, false
}

// ready says whether what a request needs is in the log: its migration's opening
// for a stream that opens, and everything else of the migration for its closing.
func (o *outbox) ready(ch *chain, last queued) bool {
	e := last.event
	control := o.chains[e.Migration+"/"+controlStream]
	if first := ch.queue[0].event; first.Seq == 1 && control != nil && control != ch {
		return control.at().seq >= 2
	}
	if e.Kind != migrationClose {
		return true
	}
	for _, other := range o.chains {
		if other != ch && other.migration == e.Migration && other.at().seq < other.last {
			return false
		}
	}
	return true
}

// submit sends a request until it is acknowledged, or has to be made anew.
func (o *outbox) submit(ctx context.Context, ch *chain, s *Stream, b *batch) {
	for attempt := 1; ; attempt++ {
		err := o.try(ctx, s, b)
		var evidence *Evidence
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, errStale):
			return
		case errors.As(err, &evidence):
			o.fail(err)
			return
		}
		c := o.client
		c.cfg.Logger.Warn("failed an attempt", "deed", "submit", "stream", ch.name, "attempt", attempt, "err", err)
		pause := c.pause(attempt, err)
		if refused := !again(err); refused || attempt >= c.cfg.Attempts {
			// Somebody has to look at it. Meanwhile it is tried at leisure: what is refused
			// now may be allowed, and the events are not to be lost.
			o.report(ch, fmt.Errorf("send %d events of %q: %w", len(b.events), ch.name, err))
			pause = c.pause(1000, err)
		}
		if sleep(ctx, pause) != nil {
			return
		}
		o.mu.Lock()
		stale := ch.epoch != b.epoch || o.err != nil
		o.mu.Unlock()
		if stale {
			return
		}
	}
}

// try sends a request once. One that a log has lost goes to no other log than the one that
// is known, nor to an older state of it.
func (o *outbox) try(ctx context.Context, s *Stream, b *batch) error {
	if b.resent {
		if err := o.consistent(ctx); err != nil {
			return err
		}
	}
	_, err := s.attempt(ctx, b)
	return err
}

// report tells who waits that something is wrong with a chain, or with one that
// theirs waits for.
func (o *outbox) report(ch *chain, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, other := range o.chains {
		if other == ch || other.stuck && other.migration == ch.migration {
			other.troubles++
			other.trouble = err
			other.tell(err)
		}
	}
	o.changed.Broadcast()
}

// acknowledged notes that the log has a request, with a receipt that was checked.
func (o *outbox) acknowledged(b *batch, p pending, placed []Placed) error {
	if len(placed) < len(b.events) {
		return &Refused{Title: fmt.Sprintf("the log took %d events of a request and refused the next by policy", len(placed))}
	}
	if o.cfg.Keep != nil {
		if err := o.cfg.Keep(placed); err != nil {
			return fmt.Errorf("keep %d acknowledged events: %w", len(placed), err)
		}
	}
	last := b.last()
	p.stream, p.last = last.event.Stream, last.event.Seq
	lost, err := o.note(b, p, placed)
	if lost != nil {
		o.keep(lost)
	}
	return err
}

// note notes an acknowledgement. If the log gave another receipt before, it gives both.
func (o *outbox) note(b *batch, p pending, placed []Placed) (lost *Evidence, err error) {
	last := b.last()
	o.mu.Lock()
	defer o.mu.Unlock()
	ch := o.chains[p.stream]
	if ch.epoch != b.epoch {
		return nil, errStale
	}
	was := ch.void[p.last]
	delete(ch.void, p.last)
	if was == nil || !bytes.Equal(was.receipt, p.receipt) {
		// Before it is pending: what settles it is written after it.
		o.spool.enqueue(&write{records: []record{{
			kind: recordAck, stream: p.stream, seq: p.last, hash: last.hash, first: p.first, by: p.by, leaves: p.leaves, bytes: p.receipt,
		}}})
		if was != nil {
			lost = lostAndFound(was, &p)
		}
	}
	ch.ends = append(ch.ends, end{p.last, last.hash, p.end() - 1, p.receipt, time.Now(), nil})
	ch.acked = max(ch.acked, p.last)
	for _, q := range ch.queue[:len(b.events)] {
		o.window -= q.bytes
	}
	ch.queue = slices.Delete(ch.queue, 0, len(b.events))
	ch.due = time.Now().Add(o.cfg.BatchAge)
	o.client.pend(p)
	ch.deliver(b.events[0].event.Seq, placed)
	o.changed.Broadcast()
	return lost, nil
}

// deliver gives placed events to those who wait for them.
func (ch *chain) deliver(first uint64, placed []Placed) {
	for _, w := range ch.waiters {
		for i, p := range placed {
			if seq := first + uint64(i); seq >= w.first && seq <= w.last {
				w.placed[seq-w.first] = p
				w.got = max(w.got, int(seq-w.first)+1)
			}
		}
	}
	ch.waiters = slices.DeleteFunc(ch.waiters, func(w *waiter) bool {
		done := w.got == len(w.placed)
		if done {
			close(w.done)
		}
		return done
	})
}
