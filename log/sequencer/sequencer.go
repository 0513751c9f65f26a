// Package sequencer is the only writer of the log's order.
//
// One goroutine owns the heads of all streams, the states of migrations, the
// index of the last control entry and the clock of received. It takes requests
// in the order of arrival, checks that each fits, gives it its place, and hands
// it to the journal, which makes what waits durable in one group. So two
// events never get one place, and as_of is exact.
//
// It leaves out what needs no order: limits, authentication, commitments and
// signatures are checked before, receipts are signed after, by many goroutines.
//
// It trusts its journal to keep the order and its index to have followed all
// that is not in memory; it trusts no request.
package sequencer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// Errors that callers branch on, beside those of package log.
var (
	// ErrBusy means that the queue is full: try again later.
	ErrBusy = errors.New("the queue of the log is full")
	// ErrReadOnly means that the log takes no more entries until it is restarted.
	ErrReadOnly = errors.New("the log is read-only")
	// ErrClock means that an event's time is too far ahead of the log's clock.
	ErrClock = errors.New("event is dated in the future")
	// ErrStale means that payloads were prepared too long ago.
	ErrStale = errors.New("prepared payloads are too old")
	// ErrRetry means that some events of a request are in the log, but not as
	// one request: only the same request can be retried.
	ErrRetry = errors.New("events were committed in other requests")
)

// A Journal keeps records in order.
type Journal interface {
	// Prepare does to payloads, nil where a record has none, what needs no
	// order and takes long: it seals and writes them. entryBytes is what their
	// entries will have together, about. A full queue wraps ErrBusy.
	Prepare(payloads []*log.Payload, entryBytes int) (Prepared, error)
	// Place gives prepared payloads and their entries the next indexes, and
	// returns before they are durable. Lasting payloads at the front may be left
	// out: fewer entries are those of the last payloads. All or nothing; with an
	// error p is the caller's still. A full queue wraps ErrBusy, what is too old
	// ErrStale.
	Place(p Prepared, entries [][]byte) (Pending, error)
	// Discard gives up what was prepared and will not be placed.
	Discard(p Prepared)
	// Entries gives durable entries.
	Entries(from uint64, most, mostBytes int) ([][]byte, error)
}

// Prepared are payloads of a request that the journal has made ready. Each is
// placed or discarded.
type Prepared any

// A Pending is a group of records on its way to the disk.
type Pending interface {
	First() uint64         // index of the first record
	Done() <-chan struct{} // closed when durable, or failed
	Err() error            // after Done: nil if durable
}

// An Index finds what is durable. It follows the order.
type Index interface {
	Wait(ctx context.Context, size uint64) error
	Cursor() uint64 // entries followed
	Stream(name string) (log.Stream, bool, error)
	Migration(name string) (log.Migration, bool, error)
	ByPlace(stream string, seq uint64) (uint64, bool, error)
}

// A Control is the fold over control entries: keys, tokens, roles.
type Control interface {
	// Check gives the error that Apply would, for an entry that would get index.
	// It is the last check of a control entry, in the order of the log, before
	// it gets its place: what Check takes, Apply takes.
	Check(index uint64, e log.Entry, payload []byte) error
	// Apply folds an entry with its payload. It is called in order, before the
	// entry is acknowledged.
	Apply(index uint64, e log.Entry, payload []byte) error
	// KeyValid says whether the principal may sign with the key at index.
	KeyValid(key log.Hash, principal string, index uint64) error
}

// Config is what a Sequencer needs.
type Config struct {
	Origin  string
	Journal Journal
	Index   Index
	Control Control
	Logger  *slog.Logger

	// Next is the index of the next entry: the size of the journal.
	Next uint64
	// LastControl is the index of the last control entry.
	LastControl uint64
	// LastReceived is the received of the last entry, Unix milliseconds.
	LastReceived uint64

	// QueueRequests bounds the requests that wait. Default 4096.
	QueueRequests int
	// StreamsInMemory bounds the states of streams and migrations kept in
	// memory; while the index lags there are up to twice as many. Default 100,000.
	StreamsInMemory int
	// Now is the wall clock; default time.Now. Tests that must jump set it.
	Now func() time.Time
	// Elapsed is the monotonic clock; default the time since New.
	Elapsed func() time.Duration
}

const (
	defaultQueueRequests   = 4096
	defaultStreamsInMemory = 100_000

	// maxAheadMS is how far an event's time may be ahead of received.
	maxAheadMS = 5 * 60 * 1000
)

// A Request is events of one stream that are committed together, or not at all.
type Request struct {
	By   string // the authenticated principal
	Auth string // how it was established

	// Events are complete for a signed stream. For a log-kept stream and for
	// the log's own, the sequencer fills in Log, Seq and Prev. An event of a
	// control kind is a request of its own.
	Events   []log.Event
	Payloads []*log.Payload // one for each event, nil where it has none
	Sig      *log.Sig       // of the last event in a signed stream; verified before
	ByLog    bool           // the log makes these events: log-kept stream or server kinds

	// Opening is the stream.open of a log-kept stream, which is placed before
	// Events if the stream is new.
	Opening *Opening

	// AsOf is the last control entry under which the request was authorised.
	// If another has come since, Authorize is asked again.
	AsOf      uint64
	Authorize func() error
}

// last marks the payloads that must outlive their keys: copies, since a
// submitter may send a request again while the first one is under way.
func (r *Request) last() {
	r.Payloads = slices.Clone(r.Payloads)
	for i, p := range r.Payloads {
		if p != nil {
			marked := *p
			marked.Lasting = !log.Erasable(r.Events[i].Kind)
			r.Payloads[i] = &marked
		}
	}
	if r.Opening != nil {
		opening, payload := *r.Opening, *r.Opening.Payload
		payload.Lasting = true
		opening.Payload = &payload
		r.Opening = &opening
	}
}

// An Opening is the first event of a stream, with its payload.
type Opening struct {
	Event   log.Event
	Payload *log.Payload
}

// A Result says where a request's events are.
type Result struct {
	First     uint64
	Entries   []log.Entry
	Bytes     [][]byte       // canonical entries
	Payloads  []*log.Payload // as in the request, an Opening included; nil for a duplicate
	Duplicate bool           // they were there already
}

// A Sequencer orders requests. Create it with New, then call Run.
type Sequencer struct {
	c     Config
	queue chan *job
	stop  chan struct{} // closed when Run ends

	mu          sync.Mutex
	latched     error  // why the log is read-only until a restart
	stopping    bool   // it takes no more requests, and serves those it has
	lastControl uint64 // for LastControl

	state state // owned by Run
}

type job struct {
	ctx    context.Context
	req    Request
	done   chan struct{}
	placed *placed
	err    error

	prepared Prepared // payloads of req; nil if there are none, or once placed
}

// placed is a request that has its place in the order.
type placed struct {
	pending Pending
	result  Result
}

// New makes a sequencer of a log whose index has followed all entries.
func New(c Config) *Sequencer {
	if c.QueueRequests == 0 {
		c.QueueRequests = defaultQueueRequests
	}
	if c.StreamsInMemory == 0 {
		c.StreamsInMemory = defaultStreamsInMemory
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Elapsed == nil {
		start := time.Now()
		c.Elapsed = func() time.Duration { return time.Since(start) }
	}
	s := &Sequencer{
		c:           c,
		queue:       make(chan *job, c.QueueRequests),
		stop:        make(chan struct{}),
		lastControl: c.LastControl,
	}
	s.state = newState(&s.c)
	return s
}

// LastControl gives the index of the last control entry placed: what a
// request that is authorised now carries as AsOf.
func (s *Sequencer) LastControl() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastControl
}

// ReadOnly says why the log takes no entries; nil if it does.
func (s *Sequencer) ReadOnly() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latched == nil && s.stopping {
		return fmt.Errorf("%w: it is stopping", ErrReadOnly)
	}
	return s.latched
}

// Latch makes the log read-only until a restart: reason is what went wrong.
func (s *Sequencer) Latch(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latched == nil {
		s.latched = fmt.Errorf("%w: %w", ErrReadOnly, reason)
		s.c.Logger.Error("log became read-only", "err", reason)
	}
}

// stopTaking refuses requests from now on: nothing is wrong, the log stops.
func (s *Sequencer) stopTaking() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
}

// failed says why nothing may be placed any more; nil while it may.
func (s *Sequencer) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latched
}

// Queued gives the number of requests that wait.
func (s *Sequencer) Queued() int { return len(s.queue) }

// Run sequences requests until ctx is done; those that are queued then are
// still served. Whatever it has placed is the journal's to make durable.
func (s *Sequencer) Run(ctx context.Context) error {
	defer close(s.stop)
	for {
		select {
		case j := <-s.queue:
			s.serve(j)
		case <-ctx.Done():
			s.stopTaking()
			for {
				select {
				case j := <-s.queue:
					s.serve(j)
				default:
					return nil
				}
			}
		}
	}
}

func (s *Sequencer) serve(j *job) {
	defer close(j.done)
	// What was queued before the log became read-only must not be placed by a
	// state that nobody trusts any more.
	if j.err = s.failed(); j.err != nil {
		return
	}
	if j.err = j.ctx.Err(); j.err != nil {
		return // nobody waits for the answer, and nothing has been placed
	}
	j.placed, j.err = s.state.place(j.req, &j.prepared)
	if errors.Is(j.err, errFatal) {
		s.Latch(j.err)
	}
	s.mu.Lock()
	s.lastControl = s.state.lastControl
	s.mu.Unlock()
}

// Submit places a request and returns when it is durable. A request that is in
// the log already, or on its way, gets the same result with Duplicate set.
// If ctx ends first the request may or may not be in the log: retry it.
func (s *Sequencer) Submit(ctx context.Context, req Request) (Result, error) {
	if len(req.Events) == 0 || len(req.Events) != len(req.Payloads) {
		panic("sequencer: request without events, or with other than one payload for each")
	}
	if err := s.ReadOnly(); err != nil {
		return Result{}, err
	}
	req.last()
	j := &job{ctx: ctx, req: req, done: make(chan struct{})}
	err := s.order(j)
	if j.prepared != nil {
		s.c.Journal.Discard(j.prepared) // it was not placed
	}
	if err != nil {
		return Result{}, err
	}
	var dup *duplicate
	switch {
	case errors.As(j.err, &dup):
		return s.resolve(ctx, req, dup)
	case errors.Is(j.err, errFatal):
		return Result{}, s.ReadOnly()
	case j.err != nil:
		return Result{}, j.err
	}
	select {
	case <-j.placed.pending.Done():
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	if err := j.placed.pending.Err(); err != nil {
		s.Latch(err)
		return Result{}, s.ReadOnly()
	}
	return j.placed.result, nil
}

// order prepares a job, queues it and waits until it is served. When it returns
// nobody else has the job any more. Its error means that it was not served.
func (s *Sequencer) order(j *job) (err error) {
	busy := fmt.Errorf("%w: %d requests wait", ErrBusy, cap(s.queue))
	if len(s.queue) == cap(s.queue) {
		return busy // before any work is done for it
	}
	if j.prepared, err = s.prepare(j.req); err != nil {
		return err
	}
	select {
	case s.queue <- j:
	default:
		return busy
	}
	select {
	case <-j.done:
	case <-s.stop:
		// Run may have served it just before it ended.
		select {
		case <-j.done:
		default:
			return s.ReadOnly()
		}
	}
	return nil
}

// entryBytesGuess is what an entry mostly takes. The journal counts when it
// places it.
const entryBytesGuess = 1024

// lookUpBytes of payloads are more work to seal than their stream is to look up.
const lookUpBytes = 16 << 10

// prepare makes payloads ready in the caller's goroutine, since a large one
// takes syncs of its own, and the one goroutine would keep everybody waiting.
// Only that one knows whether the stream is to be opened, so the opening is
// always prepared, which is cheap, and left out if it is not needed.
func (s *Sequencer) prepare(req Request) (Prepared, error) {
	payloads := req.Payloads
	if req.Opening != nil {
		payloads = slices.Concat([]*log.Payload{req.Opening.Payload}, payloads)
	}
	if !slices.ContainsFunc(payloads, func(p *log.Payload) bool { return p != nil }) {
		return nil, nil
	}
	if stores, err := s.stores(req); err != nil || !stores {
		return nil, err
	}
	return s.c.Journal.Prepare(payloads, len(payloads)*entryBytesGuess)
}

// stores is false if the index knows already that nothing of a request will be
// stored: it is a retry or a fork, or the stream is another's or closed. Should
// that be wrong, place prepares what it needs.
func (s *Sequencer) stores(req Request) (bool, error) {
	length := 0
	for _, p := range req.Payloads {
		length += len(payloadBytes(p))
	}
	if req.ByLog && length < lookUpBytes {
		return true, nil // it is no retry, and costs little
	}
	first := req.Events[0]
	st, _, err := s.c.Index.Stream(first.Stream)
	if err != nil {
		return false, fmt.Errorf("read head of stream %q: %w", first.Stream, err)
	}
	taken := !req.ByLog && first.Seq <= st.Seq
	anothers := st.Owner != "" && st.Owner != req.By
	return !taken && !anothers && !st.Closed, nil
}
