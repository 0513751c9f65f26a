package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/pipe-roll/piperoll/log"
)

// Kinds that only the SDK submits: what they say has to agree with what it keeps.
const (
	streamOpen     = "stream.open"
	streamClose    = "stream.close"
	migrationOpen  = "migration.open"
	migrationClose = "migration.close"
)

// A Stream is one chain of events, open. Calls on one stream wait for each
// other; different streams go in parallel.
type Stream struct {
	client  *Client
	control bool // of a migration of this client

	mu      sync.Mutex // held while a request of the stream is under way
	state   log.Stream // after the last acknowledged event
	receipt []byte     // of the last acknowledged request
	flight  *batch     // sent, and neither acknowledged nor refused
	dropped *batch     // the last that was refused since, and so dropped; what refused it may have been a proxy
	older   bool       // others were dropped before that one
	ended   bool
	broken  error  // why the chain cannot go on
	claimed bool   // in an outbox
	resumed bool   // from an outbox, and not handed out yet
	cut     uint64 // last event that an outbox has cut, as far as this process knows
}

func (m *Migration) newStream(name string) *Stream {
	full := m.name + "/" + name
	s := &Stream{client: m.client, control: m.owned && name == controlStream, state: log.NewStream(m.client.origin, full)}
	s.state.Migration = m.name
	return s
}

// Name is the stream's full name, MIGRATION/NAME.
func (s *Stream) Name() string { return s.state.Name }

// End is where the stream ends so far: its last acknowledged event.
func (s *Stream) End() log.StreamEnd {
	s.mu.Lock()
	defer s.mu.Unlock()
	return log.StreamEnd{Hash: s.state.Hash, Last: s.state.Seq, Stream: s.state.Name}
}

// Unacknowledged is how many events were sent and neither acknowledged nor
// refused: what [Stream.Flush] will send again.
func (s *Stream) Unacknowledged() int {
	if o := s.client.outbox; o != nil {
		return o.unacknowledged(s.Name())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == nil {
		return 0
	}
	return len(s.flight.events)
}

// start opens the stream: stream.open, and more, in one request. If that was
// sent already, it is sent again as it was.
func (s *Stream) start(ctx context.Context, more ...Event) error {
	open := log.StreamOpen{Keys: []log.PublicKey{s.client.key}, Mode: log.ModeSigned, Owner: s.client.cfg.Principal}
	first := Event{Kind: streamOpen, Type: log.JSONType, Payload: open.Marshal()}
	if s.client.outbox != nil {
		_, err := s.put(ctx, append([]Event{first}, more...), true)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == nil {
		_, err := s.append(ctx, append([]Event{first}, more...))
		return err
	}
	_, err := s.flush(ctx)
	return err
}

// Append logs events, in their order, and returns when all are acknowledged:
// durable, with a receipt that was checked. It sends them in as many requests as
// [Config] says, and waits while too many acknowledged events have no proof yet.
//
// What is returned is in the log also if there is an error. The next
// [Stream.Unacknowledged] events are then kept, with [ErrUnacknowledged], and
// sent again by Flush, or first thing by the next Append, which returns them
// first. The rest was not taken. After a [*Refused] without [ErrUnacknowledged]
// nothing of that request is in the log and nothing is kept; the stream can go on.
// If something is in the log after all, the next request finds out: see [ClaimRefused].
//
// With an outbox the events are durable in it before anything is sent, all of them or,
// with an error that is not [ErrUnacknowledged], none. With ErrUnacknowledged they
// are sent again until the log has them, by this process or the next: appending them
// once more would log them twice.
func (s *Stream) Append(ctx context.Context, events ...Event) ([]Placed, error) {
	if err := s.checkKinds(events); err != nil {
		return nil, err
	}
	if o := s.client.outbox; o != nil {
		w, err := s.put(ctx, events, true)
		if err != nil || w == nil {
			return nil, s.failed("append to", err)
		}
		placed, err := o.await(ctx, s.Name(), w)
		return placed, s.failed("append to", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	placed, err := s.flush(ctx)
	if err == nil {
		var more []Placed
		more, err = s.append(ctx, events)
		placed = append(placed, more...)
	}
	return placed, s.failed("append to", err)
}

// Put hands events to the outbox, and returns when they are durable in it: all of
// them, or none if there is an error. They are sent with others of the stream that come
// within [OutboxConfig.BatchAge]. What becomes of them, [Client.Wait] says.
func (s *Stream) Put(ctx context.Context, events ...Event) error {
	if err := s.checkKinds(events); err != nil {
		return err
	}
	if s.client.outbox == nil {
		return fmt.Errorf("put into %q: the client has no outbox: see Config.Outbox", s.state.Name)
	}
	_, err := s.put(ctx, events, false)
	return s.failed("put into", err)
}

func (s *Stream) checkKinds(events []Event) error {
	for i, e := range events {
		switch e.Kind {
		case streamOpen, streamClose, migrationOpen, migrationClose:
			return fmt.Errorf("append to %q: event %d: %s is logged by the functions that open and close", s.state.Name, i, e.Kind)
		}
	}
	return nil
}

func (s *Stream) failed(deed string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %q: %w", deed, s.state.Name, err)
	}
	return nil
}

// put makes events durable in the outbox. Urgent ones are cut into requests at once,
// so that they need no write of their own before they are sent; the waiter waits for them.
// Where the requests before them end is the sender's to say: it may be sending one.
func (s *Stream) put(ctx context.Context, events []Event, urgent bool) (*waiter, error) {
	o := s.client.outbox
	if len(events) == 0 {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	after := s.state
	var records []record
	var inBatch, batchBytes int
	var total int64
	if urgent && s.cut != after.Seq {
		records = append(records, record{kind: recordBreak, stream: s.state.Name, seq: after.Seq})
	}
	for i, e := range events {
		m, err := s.client.make(&after, e)
		if err != nil {
			return nil, fmt.Errorf("event %d, kind %q: %w", i, e.Kind, err)
		}
		n := m.bytes()
		if urgent && inBatch > 0 && (inBatch == s.client.cfg.BatchEvents || batchBytes+n > s.client.cfg.BatchBytes) {
			records = append(records, record{kind: recordCut, stream: s.state.Name, seq: m.event.Seq - 1})
			inBatch, batchBytes = 0, 0
		}
		inBatch, batchBytes, total = inBatch+1, batchBytes+n, total+int64(n)
		records = append(records, record{kind: recordEvent, made: m})
	}
	if urgent {
		records = append(records, record{kind: recordCut, stream: s.state.Name, seq: after.Seq})
	}
	if err := o.reserve(ctx, total); err != nil {
		return nil, err
	}
	w, wait, err := o.put(s, records, urgent)
	if err != nil {
		o.release(total)
		return nil, err
	}
	if urgent {
		s.cut = after.Seq
	}
	s.state = after
	kind := events[len(events)-1].Kind
	s.ended = kind == streamClose || kind == migrationClose
	return wait, o.finish(w, total)
}

func (s *Stream) append(ctx context.Context, events []Event) ([]Placed, error) {
	var placed []Placed
	for len(events) > 0 {
		if err := s.usable(); err != nil {
			return placed, err
		}
		b, err := s.batch(events)
		if err != nil {
			return placed, err
		}
		if err := s.client.room(ctx, len(b.events)); err != nil {
			return placed, err
		}
		s.flight = b
		more, err := s.flush(ctx)
		placed = append(placed, more...)
		if err != nil {
			return placed, err
		}
		events = events[len(b.events):]
	}
	return placed, nil
}

// Flush sends again what was sent and not acknowledged, the same bytes: a log
// that has them gives the same receipt. Without such events it does nothing. With an
// outbox it waits until all that was put is acknowledged.
func (s *Stream) Flush(ctx context.Context) ([]Placed, error) {
	if o := s.client.outbox; o != nil {
		placed, err := o.flush(ctx, s.Name())
		return placed, s.failed("flush", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	placed, err := s.flush(ctx)
	return placed, s.failed("flush", err)
}

// Close ends the stream with stream.close. The control stream is ended by
// [Migration.Close]. Closing twice is no error.
func (s *Stream) Close(ctx context.Context) error {
	if s.control {
		return fmt.Errorf("close %q: closing the migration ends its control stream", s.state.Name)
	}
	return s.finish(ctx, Event{Kind: streamClose})
}

// finish logs the last event, unless that has been done.
func (s *Stream) finish(ctx context.Context, last Event) error {
	if s.client.outbox != nil {
		if s.isEnded() {
			return nil
		}
		_, err := s.put(ctx, []Event{last}, true)
		return s.failed("close", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.flush(ctx)
	if err == nil && !s.ended {
		_, err = s.append(ctx, []Event{last})
	}
	return s.failed("close", err)
}

func (s *Stream) isEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

func (s *Stream) usable() error {
	switch {
	case s.broken != nil:
		return s.broken
	case s.ended:
		return fmt.Errorf("stream is %w", ErrClosed)
	}
	return s.client.usable()
}

// flush sends the batch in flight until it is known what became of it.
func (s *Stream) flush(ctx context.Context) ([]Placed, error) {
	if err := s.client.usable(); err != nil || s.flight == nil {
		return nil, err
	}
	b := s.flight
	placed, err := s.submit(ctx, b)
	var refused *Refused
	var evidence *Evidence
	switch {
	case err == nil:
		s.flight = nil
		return placed, s.advance(b, placed)
	case errors.As(err, &evidence):
		return nil, err
	case errors.As(err, &refused) && !refused.again() && !b.unsure:
		b.refused = refused
		s.older = s.older || s.dropped != nil
		s.flight, s.dropped = nil, b
		return nil, err
	}
	return nil, fmt.Errorf("%w: %d of %q: %w", ErrUnacknowledged, len(b.events), s.state.Name, err)
}

// advance moves the stream over a batch's placed events.
func (s *Stream) advance(b *batch, placed []Placed) error {
	last := len(placed) - 1
	s.dropped, s.older = nil, false // these have the seq that it would have
	s.receipt = placed[last].Receipt
	if len(placed) < len(b.events) {
		// A rule refused an event: it took its place in the chain, and the answer does not say
		// what entry says so. Going on from there comes with the rules.
		s.broken = fmt.Errorf("stream cannot go on: the log took %d events of a request and refused the next by policy", len(placed))
		s.state.Seq, s.state.Hash, s.state.Index = b.events[last].event.Seq, placed[last].Hash, placed[last].Index
		return s.broken
	}
	s.state = b.after
	s.state.Index = placed[last].Index
	kind := b.events[last].event.Kind
	s.ended = kind == streamClose || kind == migrationClose
	return nil
}
