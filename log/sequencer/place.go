package sequencer

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// errFatal marks errors after which the state in memory cannot be trusted.
var errFatal = errors.New("fatal")

// A duplicate is a request whose first event has a place that is taken. Maybe
// it is the same request again: that is found out outside the one goroutine.
type duplicate struct {
	head    log.Stream
	pending Pending // of the stream's last request; nil if it is durable
}

func (d *duplicate) Error() string {
	return fmt.Sprintf("place in stream %q is taken, its head is seq %d", d.head.Name, d.head.Seq)
}

// A HeadError is a request that does not fit its stream, with the head that a
// submitter compares with its own.
type HeadError struct {
	Head log.Stream
	Err  error
}

func (e *HeadError) Error() string { return e.Err.Error() }
func (e *HeadError) Unwrap() error { return e.Err }

// state is what only Run touches.
type state struct {
	c            *Config
	next         uint64 // index of the next entry
	lastControl  uint64
	lastReceived uint64 // Unix milliseconds
	startMS      uint64 // wall clock when Elapsed was 0
	streams      map[string]*streamState
	migrations   map[string]*migrationState
}

type streamState struct {
	log.Stream
	pending Pending // of the last request placed
}

type migrationState struct {
	log.Migration
	index uint64 // of the last entry that changed it
}

func newState(c *Config) state {
	return state{
		c: c, next: c.Next, lastControl: c.LastControl, lastReceived: c.LastReceived,
		startMS:    uint64(c.Now().Add(-c.Elapsed()).UnixMilli()),
		streams:    make(map[string]*streamState),
		migrations: make(map[string]*migrationState),
	}
}

// A plan is a request being placed: copies of the states that it changes, which
// become the states when the journal has taken it.
type plan struct {
	req       Request
	received  uint64
	stream    log.Stream
	migration log.Migration
	result    Result
	control   uint64 // last control entry within the request so far
}

// place gives a request its place: every check first, then the journal, then
// the states. A request that fails has changed nothing. prepared becomes nil
// when it is used up or given up.
func (s *state) place(req Request, prepared *Prepared) (*placed, error) {
	received, err := s.clock()
	if err != nil {
		return nil, err
	}
	if req.AsOf != s.lastControl && req.Authorize != nil {
		if err := req.Authorize(); err != nil {
			return nil, err
		}
	}
	st, err := s.stream(req.Events[0].Stream)
	if err != nil {
		return nil, err
	}
	mg, err := s.migration(req.Events[0].Migration)
	if err != nil {
		return nil, err
	}
	if st.Owner != "" && st.Owner != req.By {
		return nil, &HeadError{st.Stream, fmt.Errorf("%w: %q", log.ErrOwner, st.Name)}
	}
	if o := req.Opening; o != nil && st.Seq == 0 {
		req.Events = append([]log.Event{o.Event}, req.Events...)
		req.Payloads = append([]*log.Payload{o.Payload}, req.Payloads...)
	}
	p := &plan{req: req, received: received, stream: st.Stream, migration: mg.Migration, control: s.lastControl}
	if !req.ByLog && req.Events[0].Seq <= st.Seq {
		return nil, &duplicate{head: st.Stream, pending: st.pending}
	}
	if err := s.checkTail(p); err != nil {
		return nil, &HeadError{st.Stream, err}
	}
	for i := range req.Events {
		if err := s.add(p, i); err != nil {
			return nil, &HeadError{st.Stream, err}
		}
	}
	if err := s.checkControl(p); err != nil {
		return nil, err
	}
	pending, err := s.enqueue(p, prepared)
	if err != nil {
		return nil, err
	}
	if pending.First() != s.next {
		return nil, fmt.Errorf("%w: the journal placed a request at %d, the sequencer at %d", errFatal, pending.First(), s.next)
	}
	return s.commit(p, st, mg, pending)
}

// enqueue hands a plan to the journal. What was prepared does not serve if it
// waited for too long; it gives its room back before the next takes some.
func (s *state) enqueue(p *plan, prepared *Prepared) (Pending, error) {
	if *prepared != nil {
		pending, err := s.c.Journal.Place(*prepared, p.result.Bytes)
		if err == nil {
			*prepared = nil
		}
		if !errors.Is(err, ErrStale) {
			return pending, err
		}
		s.c.Journal.Discard(*prepared)
		*prepared = nil
	}
	length := 0
	for _, b := range p.result.Bytes {
		length += len(b)
	}
	again, err := s.c.Journal.Prepare(p.req.Payloads, length)
	if err != nil {
		return nil, err
	}
	pending, err := s.c.Journal.Place(again, p.result.Bytes)
	if err != nil {
		s.c.Journal.Discard(again)
		return nil, err
	}
	return pending, nil
}

// commit moves the states over a request that the journal has taken.
func (s *state) commit(p *plan, st *streamState, mg *migrationState, pending Pending) (*placed, error) {
	p.result.First, p.result.Payloads = s.next, p.req.Payloads
	st.Stream, st.pending = p.stream, pending
	mg.Migration = p.migration
	s.lastReceived = p.received
	for i, e := range p.result.Entries {
		index := s.next + uint64(i)
		mg.index = index
		if !log.Control(e.Event.Kind) {
			continue
		}
		s.lastControl = index
		if err := s.c.Control.Apply(index, e, payloadBytes(p.req.Payloads[i])); err != nil {
			return nil, fmt.Errorf("%w: apply control entry %d: %w", errFatal, index, err)
		}
	}
	s.next += uint64(len(p.result.Bytes))
	s.streams[p.stream.Name] = st
	s.migrations[p.migration.Name] = mg
	s.evict()
	return &placed{pending, p.result}, nil
}

// checkTail holds a request of a signed stream to its tail signature, which the
// caller has verified under the key that it names. Here: is it a key of this
// stream, valid now, and does it cover what the format says.
func (s *state) checkTail(p *plan) error {
	if p.req.ByLog {
		return nil
	}
	keys, last := p.stream.Keys, p.req.Events[len(p.req.Events)-1]
	if p.req.Events[0].Kind == "stream.open" {
		open, err := log.ParseStreamOpen(payloadBytes(p.req.Payloads[0]))
		if err != nil {
			return err
		}
		keys = open.Keys
	}
	if p.req.Sig == nil {
		return fmt.Errorf("%w: the last event of each request in %q carries sig", log.ErrTail, last.Stream)
	}
	if first := p.stream.TailFirst(); p.req.Events[0].Seq != first && p.req.Events[0].Seq == p.stream.Seq+1 {
		return fmt.Errorf("%w: a request in %q begins with seq %d", log.ErrTail, last.Stream, first)
	}
	for _, k := range keys {
		if k.ID() == p.req.Sig.Key {
			return s.c.Control.KeyValid(p.req.Sig.Key, p.req.By, s.next)
		}
	}
	if p.stream.Seq == 0 && p.req.Events[0].Kind != "stream.open" {
		return nil // a stream that is not open has no keys: Check says so better
	}
	return fmt.Errorf("%w: key %s is not one of stream %q", log.ErrTail, p.req.Sig.Key, last.Stream)
}

// checkControl asks the fold whether it takes a control entry, before it has a
// place: once it is durable it stays, and every fold has to go on without it.
func (s *state) checkControl(p *plan) error {
	for i, e := range p.result.Entries {
		if !log.Control(e.Event.Kind) {
			continue
		}
		if len(p.result.Entries) > 1 {
			return fmt.Errorf("%w request: %s is a control event, and not alone", log.ErrMalformed, e.Event.Kind)
		}
		return s.c.Control.Check(s.next, e, payloadBytes(p.req.Payloads[i]))
	}
	return nil
}

// add checks event i of the plan and makes its entry.
func (s *state) add(p *plan, i int) error {
	e := &p.req.Events[i]
	index := s.next + uint64(i)
	if p.req.ByLog {
		e.Log, e.Seq, e.Prev = s.c.Origin, p.stream.Seq+1, p.stream.Hash
	}
	if e.Stream != p.stream.Name || e.Log != s.c.Origin {
		return fmt.Errorf("%w request: event %d is of stream %q in log %q, want %q in %q", log.ErrMalformed, i, e.Stream, e.Log, p.stream.Name, s.c.Origin)
	}
	if e.Time > p.received+maxAheadMS {
		return fmt.Errorf("%w: by %d s; the limit is %d s: set the submitter's clock", ErrClock, (e.Time-p.received)/1000, maxAheadMS/1000)
	}
	if err := p.stream.Check(*e, p.req.By); err != nil {
		return err
	}
	open, opened, err := structure(*e, payloadBytes(p.req.Payloads[i]), p.req)
	if err != nil {
		return err
	}
	if p.stream.Mode == log.ModeSigned && p.req.ByLog {
		return fmt.Errorf("%w: stream %q is signed, and never takes an unsigned tail", log.ErrTail, e.Stream)
	}
	if p.stream.Mode == log.ModeLogKept && !p.req.ByLog {
		return fmt.Errorf("%w: stream %q is kept by the log: send events without seq, prev and sig", log.ErrTail, e.Stream)
	}
	if err := p.migration.Check(*e, p.req.By, open); err != nil {
		return err
	}
	return s.append(p, i, index, open, opened)
}

// append makes the entry of event i and moves the plan's states over it.
func (s *state) append(p *plan, i int, index uint64, open *log.StreamOpen, opened *log.MigrationOpen) error {
	e := p.req.Events[i]
	part := log.Part{
		AsOf: p.control, Auth: p.req.Auth, By: p.req.By,
		Received: p.received, SkewMS: int64(p.received) - int64(e.Time),
	}
	if p.req.ByLog {
		part.Attested = log.AttestedByLog
	}
	rand.Read(part.Blind[:]) // never fails: crypto/rand
	entry := log.Entry{Event: e, Log: part}
	last := i == len(p.req.Events)-1
	if last && !p.req.ByLog {
		entry.Sig = p.req.Sig
	}
	canonical := e.Marshal()
	bytes := entry.MarshalWith(canonical)
	if len(canonical) > log.EventMaxBytes || len(bytes) > log.EntryMaxBytes {
		return fmt.Errorf("%w event: %d bytes, at most %d", log.ErrMalformed, len(canonical), log.EventMaxBytes)
	}
	p.stream.Advance(e, log.EventHash(canonical), index, open, last || p.req.ByLog)
	p.migration.Advance(e, p.req.By, opened)
	if log.Control(e.Kind) {
		p.control = index
	}
	p.result.Entries = append(p.result.Entries, entry)
	p.result.Bytes = append(p.result.Bytes, bytes)
	return nil
}

// structure reads the payloads that the log itself must understand.
func structure(e log.Event, payload []byte, req Request) (*log.StreamOpen, *log.MigrationOpen, error) {
	if err := log.CheckPayload(e, payload); err != nil {
		return nil, nil, err
	}
	switch e.Kind {
	case "stream.open":
		open, err := log.ParseStreamOpen(payload)
		if err != nil {
			return nil, nil, err
		}
		if open.Owner != req.By {
			return nil, nil, fmt.Errorf("%w: stream.open names owner %q, the request is by %q", log.ErrOwner, open.Owner, req.By)
		}
		if signed := open.Mode == log.ModeSigned; signed == req.ByLog {
			return nil, nil, fmt.Errorf("%w stream.open: mode %q, but the stream is opened by the other side", log.ErrMalformed, open.Mode)
		}
		return &open, nil, nil
	case "migration.open":
		opened, err := log.ParseMigrationOpen(payload)
		if err != nil {
			return nil, nil, err
		}
		for _, st := range opened.Streams {
			if !strings.HasPrefix(st.Stream, e.Migration+"/") {
				return nil, nil, fmt.Errorf("%w migration.open: stream %q is not of migration %q", log.ErrMalformed, st.Stream, e.Migration)
			}
		}
		return nil, &opened, nil
	case "migration.close":
		_, err := log.ParseMigrationClose(payload)
		return nil, nil, err
	}
	return nil, nil, nil
}

func (s *state) stream(name string) (*streamState, error) {
	if st := s.streams[name]; st != nil {
		return st, nil
	}
	if err := s.room(); err != nil {
		return nil, err
	}
	// What is not in memory has been followed by the index: see evict.
	st, ok, err := s.c.Index.Stream(name)
	if err != nil {
		return nil, fmt.Errorf("read head of stream %q: %w", name, err)
	}
	if !ok {
		st = log.NewStream(s.c.Origin, name)
	}
	return &streamState{Stream: st}, nil
}

func (s *state) migration(name string) (*migrationState, error) {
	if m := s.migrations[name]; m != nil {
		return m, nil
	}
	if err := s.room(); err != nil {
		return nil, err
	}
	m, _, err := s.c.Index.Migration(name)
	if err != nil {
		return nil, fmt.Errorf("read state of migration %q: %w", name, err)
	}
	m.Name = name
	return &migrationState{Migration: m}, nil
}

// evictSample bounds the states that evict looks at for one request. It is more
// than a request brings in, so they become fewer as soon as the index is near.
const evictSample = 16

// evict forgets some states when there are too many, but none that the index
// has not followed: memory and index together always know every head.
func (s *state) evict() {
	if s.inMemory() <= s.c.StreamsInMemory {
		return
	}
	cursor := s.c.Index.Cursor()
	forgetSome(s.streams, func(st *streamState) bool { return st.Index < cursor })
	forgetSome(s.migrations, func(m *migrationState) bool { return m.index < cursor })
}

// forgetSome looks at a few states: the loop begins somewhere in the map.
func forgetSome[T any](states map[string]T, followed func(T) bool) {
	looked := 0
	for name, st := range states {
		if followed(st) {
			delete(states, name)
		}
		if looked++; looked == evictSample {
			return
		}
	}
}

// room refuses one more state when there are far too many, which is when the
// index is far behind.
func (s *state) room() error {
	if n := s.inMemory(); n >= 2*s.c.StreamsInMemory {
		s.evict()
		if s.inMemory() == n {
			return fmt.Errorf("%w: %d streams and migrations wait for the index, which has followed %d of %d entries", ErrBusy, n, s.c.Index.Cursor(), s.next)
		}
	}
	return nil
}

func (s *state) inMemory() int { return len(s.streams) + len(s.migrations) }

// clockSlack is how far the wall clock may run from the monotonic one.
const clockSlack = 2 * time.Second

// clock gives received for the next request. It never goes back; a clock that
// was set while the log ran is not believed (see FORMAT.md, and the order of
// entries does not depend on it).
func (s *state) clock() (uint64, error) {
	ms := uint64(s.c.Now().UnixMilli())
	want := s.startMS + uint64(s.c.Elapsed().Milliseconds())
	slack := uint64(clockSlack.Milliseconds())
	if ms > want+slack || ms+slack < want {
		return 0, fmt.Errorf("%w: the clock was set by %d ms while the log ran: restart it when the clock is right", errFatal, int64(ms)-int64(want))
	}
	return max(ms, s.lastReceived), nil
}

func payloadBytes(p *log.Payload) []byte {
	if p == nil {
		return nil
	}
	return p.Bytes
}
