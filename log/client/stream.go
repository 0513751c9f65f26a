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
	broken  error // why the chain cannot go on
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == nil {
		open := log.StreamOpen{Keys: []log.PublicKey{s.client.key}, Mode: log.ModeSigned, Owner: s.client.cfg.Principal}
		first := Event{Kind: streamOpen, Type: log.JSONType, Payload: open.Marshal()}
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
func (s *Stream) Append(ctx context.Context, events ...Event) ([]Placed, error) {
	for i, e := range events {
		switch e.Kind {
		case streamOpen, streamClose, migrationOpen, migrationClose:
			return nil, fmt.Errorf("append to %q: event %d: %s is logged by the functions that open and close", s.state.Name, i, e.Kind)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	placed, err := s.flush(ctx)
	if err == nil {
		var more []Placed
		more, err = s.append(ctx, events)
		placed = append(placed, more...)
	}
	if err != nil {
		return placed, fmt.Errorf("append to %q: %w", s.state.Name, err)
	}
	return placed, nil
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
// that has them gives the same receipt. Without such events it does nothing.
func (s *Stream) Flush(ctx context.Context) ([]Placed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	placed, err := s.flush(ctx)
	if err != nil {
		return placed, fmt.Errorf("flush %q: %w", s.state.Name, err)
	}
	return placed, nil
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
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.flush(ctx)
	if err == nil && !s.ended {
		_, err = s.append(ctx, []Event{last})
	}
	if err != nil {
		return fmt.Errorf("close %q: %w", s.state.Name, err)
	}
	return nil
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
