package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// windowBytes bounds the events that are in memory to be sent, about.
const windowBytes = 8 << 20

// An OutboxConfig gives a client a memory that outlives its process: a directory in
// which every event is durable before it is sent, and stays until it is settled:
// under a checkpoint that [Config.Policy] accepts, with its inclusion checked. A
// process that is started again with the same directory sends again what is not,
// the same bytes, and goes on with the streams where they were.
//
// The directory holds payloads and salts as they are, readable by its owner alone:
// it is as sensitive as what is in them, until its files are removed. An erasure
// in the log does not reach it; so it belongs on a disk of its service, not into a
// backup. A copy of it, also one that was restored, must never be used beside or
// after the original: both would sign other events for the same places. Evidence after
// which the client goes on is saved there too, in directories evidence-*.
type OutboxConfig struct {
	Dir      string
	MaxBytes int64 // of events that are not settled, about; 0 means 256 MiB, at least 1 MiB

	// FailWhenFull makes calls fail with [ErrFull] when the outbox is full; otherwise
	// they wait until there is room, or their context ends.
	FailWhenFull bool

	BatchAge time.Duration // that an event given to [Stream.Put] waits for others of its stream; 0 means 50 ms
	// Resubmit is how long an acknowledged event may stay unpublished until a stream's last
	// request is sent again, in case the log has lost it; 0 means 1 minute. It doubles each time.
	Resubmit time.Duration

	// Keep, if it is not nil, is called with the events of a request when the log has
	// acknowledged them, before the outbox notes that it did: after a crash it can be called
	// again with the same. What it keeps of them convicts a log that drops one in later years.
	// An error counts as one of the request: it is sent again later.
	Keep func([]Placed) error

	FS disk.FS // nil: the operating system's
}

func (c OutboxConfig) withDefaults() OutboxConfig {
	if c.MaxBytes == 0 {
		c.MaxBytes = 256 << 20
	}
	if c.BatchAge == 0 {
		c.BatchAge = 50 * time.Millisecond
	}
	if c.Resubmit == 0 {
		c.Resubmit = time.Minute
	}
	if c.FS == nil {
		c.FS = disk.OS()
	}
	return c
}

func (c OutboxConfig) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("client config: Outbox.Dir is empty"))
	}
	if c.MaxBytes < 1<<20 {
		errs = append(errs, fmt.Errorf("client config: Outbox.MaxBytes is %d, want at least 1 MiB, or 0 for the default", c.MaxBytes))
	}
	if c.BatchAge < 0 || c.Resubmit < 0 {
		errs = append(errs, errors.New("client config: a time of Outbox is negative"))
	}
	return errors.Join(errs...)
}

// An outbox stands between a client's streams and the log. An event goes through
//
//	put (durable in the spool) -> read -> cut (durable: where its request ends) -> sent -> acknowledged -> settled
//
// One goroutine reads the spool in its order, as after a restart, so memory holds no
// more than a window of its events, about; of the others where they are, and receipts. Each stream with something to send has a goroutine,
// which sends one request after the other. One goroutine looks at checkpoints.
type outbox struct {
	client  *Client
	cfg     OutboxConfig
	spool   *spool
	stop    context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	changed  *sync.Cond // anything below, or the spool
	chains   map[string]*chain
	claimed  map[string]bool // streams that this process has in hand
	window   int             // bytes of events that are read and not acknowledged
	active   int             // chains that will send without more being read
	again    bool            // to read from the beginning
	written  uint64          // grows with the spool
	reserved int64           // bytes of events on their way into the spool
	untold   error           // evidence after which it went on, until a Wait has failed with it
	err      error           // nothing goes on: the disk, or evidence

	saved atomic.Int64 // pieces of evidence
}

// A chain is a stream as the outbox has it.
type chain struct {
	name      string
	migration string
	last      uint64   // seq of the last event that was put
	read      uint64   // seq of the last that is queued, or was
	queue     []queued // read and not acknowledged
	ends      []end    // of requests: the settled one first, then the acknowledged ones
	cuts      []cut    // of what is not settled, in order
	spans     []span   // which segments have the events that are not settled
	hurry     uint64   // events up to this seq wait for no others
	due       time.Time
	sending   bool                // it has a goroutine
	stuck     bool                // which waits for more to be read, or for another stream
	epoch     int                 // grows when acknowledged requests were lost
	losses    int                 // since something was settled
	acked     uint64              // last seq that was ever acknowledged
	rest      time.Time           // until which it sends nothing, after a loss
	probes    int                 // since something was settled
	probed    uint64              // last seq of the request that was sent again to see if the log has it
	void      map[uint64]*pending // receipts of requests that are sent again, by last seq, to compare
	waiters   []*waiter
	troubles  int   // reports of it, or of one that it waits for
	trouble   error // the last of them
}

// A queued is an event that was read.
type queued struct {
	made
	bytes int
}

// An end is where the log said that a stream is, after a request.
type end struct {
	seq     uint64
	hash    log.Hash
	index   uint64
	receipt []byte
	when    time.Time // it was acknowledged, to this process
	of      *pending  // while the outbox is opened
}

// A cut is where a request ends: exactly one, which may have been sent, and is never
// made otherwise; or, where it is open, as many as are needed.
type cut struct {
	seq  uint64
	open bool
}

// A span says up to which seq a segment has a stream's events.
type span struct{ segment, last uint64 }

// A waiter waits for the acknowledgement of the events from first to last.
type waiter struct {
	first, last uint64
	placed      []Placed
	got         int
	err         error
	done        chan struct{}
}

// openOutbox reads what is there. start lets it go on.
func openOutbox(c *Client, cfg OutboxConfig) (*outbox, error) {
	o := &outbox{client: c, cfg: cfg, chains: map[string]*chain{}, claimed: map[string]bool{}}
	o.changed = sync.NewCond(&o.mu)
	empty := &ledger{
		Origin: c.origin, Principal: c.cfg.Principal, Key: c.key.ID(),
		Streams: map[string]*log.Stream{}, Migrations: map[string]*ledgerMigration{},
	}
	first := true
	var err error
	o.spool, err = openSpool(cfg.FS, cfg.Dir, min(segmentMaxBytes, cfg.MaxBytes/4), empty, func(segment uint64, r record) error {
		if r.kind == recordSnapshot {
			defer func() { first = false }()
			return o.base(r.bytes, first)
		}
		o.replay(segment, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open outbox %s: %w", cfg.Dir, err)
	}
	l := o.spool.ledger
	if l.Origin != c.origin || l.Principal != c.cfg.Principal || l.Key != c.key.ID() {
		return nil, errors.Join(fmt.Errorf("open outbox %s: it is of log %q, principal %q and another key perhaps: each has an outbox of its own",
			cfg.Dir, l.Origin, l.Principal), o.spool.close())
	}
	if l.Checkpoint != nil {
		cp, err := log.OpenCheckpoint(l.Checkpoint, c.logKey)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open outbox %s: checkpoint: %w", cfg.Dir, err), o.spool.close())
		}
		c.seen, c.older = seen{cp.Head, l.Checkpoint}, c.seen
		if c.seen.Size < c.older.Size {
			c.seen, c.older = c.older, c.seen
		}
	}
	for _, ch := range o.chains {
		ch.read = ch.ends[len(ch.ends)-1].seq
		ch.hurry = ch.last // it has waited long enough
		for i := range ch.ends[1:] {
			c.pend(*ch.ends[i+1].of)
			ch.ends[i+1].of = nil
		}
	}
	return o, nil
}

// base takes the streams of the first segment: what they have is settled.
func (o *outbox) base(snapshot []byte, first bool) error {
	if !first {
		return nil
	}
	l, err := parseLedger(snapshot)
	if err != nil {
		return err
	}
	for name, s := range l.Streams {
		o.chains[name] = &chain{name: name, migration: s.Migration, last: s.Seq, ends: []end{{seq: s.Seq, hash: s.Hash}}}
	}
	return nil
}

// chain gives a stream's chain, a new one if it has none. The caller holds mu.
func (o *outbox) chain(name, migration string) *chain {
	ch := o.chains[name]
	if ch == nil {
		ch = &chain{name: name, migration: migration, ends: []end{{hash: log.StreamStart(o.client.origin, name)}}}
		o.chains[name] = ch
	}
	return ch
}

// replay takes a record that an earlier process has written.
func (o *outbox) replay(segment uint64, r record) {
	switch r.kind {
	case recordEvent:
		ch := o.chain(r.made.event.Stream, r.made.event.Migration)
		ch.last = r.made.event.Seq
		ch.span(segment, ch.last)
		return
	case recordCheckpoint:
		return
	}
	ch := o.chains[r.stream]
	if ch == nil || r.seq <= ch.ends[0].seq {
		return // of events that are settled, and gone
	}
	switch r.kind {
	case recordCut, recordBreak:
		ch.cut(cut{r.seq, r.kind == recordBreak})
	case recordAck:
		// A request that was acknowledged again was lost, and so was all after it.
		for ch.at().seq >= r.seq {
			ch.ends = ch.ends[:len(ch.ends)-1]
		}
		p := &pending{first: r.first, leaves: r.leaves, by: r.by, receipt: r.bytes, stream: r.stream, last: r.seq}
		ch.ends = append(ch.ends, end{r.seq, r.hash, p.end() - 1, r.bytes, time.Now(), p})
		ch.acked = max(ch.acked, r.seq)
	}
}

// cut notes where a request ends.
func (ch *chain) cut(c cut) {
	switch i, have := ch.cutFrom(c.seq); {
	case c.seq <= ch.ends[0].seq:
	case !have:
		ch.cuts = slices.Insert(ch.cuts, i, c)
	default:
		ch.cuts[i].open = ch.cuts[i].open && c.open
	}
}

// cutFrom finds the first cut at or after seq.
func (ch *chain) cutFrom(seq uint64) (i int, at bool) {
	return slices.BinarySearchFunc(ch.cuts, seq, func(c cut, seq uint64) int { return cmp.Compare(c.seq, seq) })
}

func (ch *chain) span(segment, seq uint64) {
	n := len(ch.spans)
	switch {
	case n == 0 || ch.spans[n-1].segment < segment:
		ch.spans = append(ch.spans, span{segment, seq})
	default:
		ch.spans[n-1].last = max(ch.spans[n-1].last, seq)
	}
}

// at is where the log is with the stream, as far as it said.
func (ch *chain) at() end { return ch.ends[len(ch.ends)-1] }

// start lets the outbox work until close.
func (o *outbox) start() {
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	o.spool.notify(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.written++
		o.changed.Broadcast()
	})
	context.AfterFunc(ctx, o.wakeAll)
	o.running.Go(func() { o.read(ctx) })
	o.running.Go(func() { o.settle(ctx) })
}

func (o *outbox) wakeAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changed.Broadcast()
}

// close stops, and keeps what is not settled for the next process.
func (o *outbox) close() error {
	o.stop()
	o.running.Wait()
	err := o.spool.close()
	o.fail(errOutboxClosed)
	return err
}

// fail ends everything: what is in the outbox stays there.
func (o *outbox) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
		if !errors.Is(err, errOutboxClosed) {
			o.client.cfg.Logger.Error("stopped the outbox", "dir", o.cfg.Dir, "err", err)
		}
	}
	for _, ch := range o.chains {
		ch.tell(o.err)
	}
	o.changed.Broadcast()
}

// tell ends the waiters of a chain. Their events are in the outbox all the same.
func (ch *chain) tell(err error) {
	for _, w := range ch.waiters {
		w.err = err
		close(w.done)
	}
	ch.waiters = nil
}

// wait waits for a change until the context ends. The caller holds mu.
func (o *outbox) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, o.wakeAll)
	defer stop()
	if ctx.Err() == nil && o.err == nil {
		o.changed.Wait()
	}
	if o.err != nil {
		return o.err
	}
	return ctx.Err()
}

// reserve waits until n bytes have room.
func (o *outbox) reserve(ctx context.Context, n int64) error {
	if n > o.cfg.MaxBytes/4 {
		return fmt.Errorf("%d bytes at once, and the outbox takes %d: append less, or raise Outbox.MaxBytes", n, o.cfg.MaxBytes/4)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.spool.bytes()+o.reserved+n > o.cfg.MaxBytes {
		if o.cfg.FailWhenFull {
			return fmt.Errorf("%w: %d bytes are not settled", ErrFull, o.spool.bytes())
		}
		if err := o.wait(ctx); err != nil {
			return fmt.Errorf("wait for room in the outbox: %w", err)
		}
	}
	if o.err != nil {
		return o.err
	}
	o.reserved += n
	return nil
}

// put enqueues events of a stream, made and in order. If they are urgent, somebody
// waits for their acknowledgement, and they wait for no others.
func (o *outbox) put(s *Stream, all []record, urgent bool) (*write, *waiter, error) {
	w := &write{records: all}
	var first, last uint64
	for _, r := range all {
		if r.kind == recordEvent {
			if first == 0 {
				first = r.made.event.Seq
			}
			last = r.made.event.Seq
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	ch := o.chain(s.state.Name, s.state.Migration)
	if first != ch.last+1 {
		return nil, nil, fmt.Errorf("event has seq %d, and the outbox has the stream to seq %d: it is open twice", first, ch.last)
	}
	ch.last = last
	var wait *waiter
	if urgent {
		ch.hurry = last
		wait = ch.waiter(first)
	}
	o.spool.enqueue(w)
	return w, wait, nil
}

// finish waits until a write is durable, and gives back what was reserved for it.
func (o *outbox) finish(w *write, n int64) error {
	<-w.done
	if w.err != nil {
		o.fail(w.err)
	}
	o.release(n)
	return w.err
}

// release gives back what was reserved.
func (o *outbox) release(n int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reserved -= n
	o.changed.Broadcast()
}

// waiter waits for all from first to the last event that was put.
func (ch *chain) waiter(first uint64) *waiter {
	w := &waiter{first: first, last: ch.last, done: make(chan struct{})}
	w.placed = make([]Placed, ch.last-first+1)
	ch.waiters = append(ch.waiters, w)
	return w
}

// await gives what the log acknowledged of the waiter's events, in their order.
func (o *outbox) await(ctx context.Context, name string, w *waiter) ([]Placed, error) {
	select {
	case <-w.done:
	case <-ctx.Done():
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if ch := o.chains[name]; ch != nil {
		ch.waiters = slices.DeleteFunc(ch.waiters, func(x *waiter) bool { return x == w })
	}
	placed := w.placed[:w.got]
	if w.got == len(w.placed) {
		return placed, nil
	}
	err := w.err
	if err == nil {
		err = ctx.Err()
	}
	var evidence *Evidence
	if errors.As(err, &evidence) {
		return placed, err
	}
	return placed, fmt.Errorf("%w: %d of %q are in the outbox, and will be sent again: %w", ErrUnacknowledged, len(w.placed)-w.got, name, err)
}

// unacknowledged is how many events of a stream were put and not acknowledged.
func (o *outbox) unacknowledged(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if ch := o.chains[name]; ch != nil {
		return int(ch.last - ch.at().seq)
	}
	return 0
}

// flush waits until all that was put is acknowledged, and gives what was not before.
func (o *outbox) flush(ctx context.Context, name string) ([]Placed, error) {
	o.mu.Lock()
	ch := o.chains[name]
	if ch == nil || ch.at().seq == ch.last || o.err != nil {
		defer o.mu.Unlock()
		return nil, o.err
	}
	ch.hurry = ch.last
	w := ch.waiter(ch.at().seq + 1)
	o.changed.Broadcast()
	o.mu.Unlock()
	return o.await(ctx, name, w)
}
