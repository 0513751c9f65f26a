package sequencer

import (
	"context"
	"errors"
	"fmt"

	"github.com/pipe-roll/piperoll/log"
)

// resolve finds out what became of a place that is taken: the same request
// gets the same result; another event is a fork; the same events, but not as
// one request, are [ErrRetry]. It waits for the commit of what is in flight, so
// nobody is told of an entry that a crash could undo.
func (s *Sequencer) resolve(ctx context.Context, req Request, d *duplicate) (Result, error) {
	if d.pending != nil {
		select {
		case <-d.pending.Done():
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
		if err := d.pending.Err(); err != nil {
			s.Latch(err)
			return Result{}, s.ReadOnly()
		}
	}
	if err := s.c.Index.Wait(ctx, d.head.Index+1); err != nil {
		return Result{}, fmt.Errorf("wait for the index: %w", err)
	}
	if d.head.Owner != req.By {
		return Result{}, &HeadError{d.head, fmt.Errorf("%w: %q", log.ErrOwner, d.head.Name)}
	}
	retry := func(e log.Event) error {
		return &HeadError{d.head, fmt.Errorf("%w: seq %d of %q", ErrRetry, e.Seq, e.Stream)}
	}
	result := Result{Duplicate: true}
	for i, e := range req.Events {
		index, entry, bytes, err := s.find(e)
		switch {
		case errors.Is(err, errNowhere) && e.Seq > d.head.Seq:
			return Result{}, retry(e) // it goes on behind what was committed
		case err != nil && !errors.Is(err, errNowhere):
			return Result{}, err
		case err != nil, entry.Event.Hash() != e.Hash():
			return Result{}, &HeadError{d.head, fmt.Errorf("%w: seq %d of %q", log.ErrFork, e.Seq, e.Stream)}
		case i == 0:
			result.First = index
		}
		result.Entries = append(result.Entries, entry)
		result.Bytes = append(result.Bytes, bytes)
	}
	// A tail signature names the first and the last seq that it covers: where it
	// is the same, so is the request. Where it is another, the submitter rebuilds
	// other entries, and a receipt over these would convict an honest log.
	last := len(req.Events) - 1
	if have := result.Entries[last].Sig; have == nil || req.Sig == nil || *have != *req.Sig {
		return Result{}, retry(req.Events[last])
	}
	return result, nil
}

var errNowhere = errors.New("no entry there")

// find reads the durable entry that has e's place.
func (s *Sequencer) find(e log.Event) (uint64, log.Entry, []byte, error) {
	index, ok, err := s.c.Index.ByPlace(e.Stream, e.Seq)
	if err != nil {
		return 0, log.Entry{}, nil, fmt.Errorf("look up seq %d of %q: %w", e.Seq, e.Stream, err)
	}
	if !ok {
		return 0, log.Entry{}, nil, errNowhere
	}
	found, err := s.c.Journal.Entries(index, 1, log.EntryMaxBytes)
	if err != nil {
		return 0, log.Entry{}, nil, fmt.Errorf("read entry %d: %w", index, err)
	}
	entry, err := log.ParseEntry(found[0])
	if err != nil {
		return 0, log.Entry{}, nil, fmt.Errorf("read entry %d: %w", index, err)
	}
	return index, entry, found[0], nil
}
