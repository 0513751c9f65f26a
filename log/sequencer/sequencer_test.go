package sequencer

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/index"
	"github.com/pipe-roll/piperoll/log/journal"
)

const origin = "log.example/sequencer"

// A world is a sequencer on a real journal and a real index.
type world struct {
	t       *testing.T
	seq     *Sequencer
	journal *slowJournal
	index   *index.Index
	control *control
	stop    func()
	ended   chan struct{}

	mu    sync.Mutex
	clock func() time.Time
}

// slowJournal is a journal whose acknowledgements can be held back or fail.
type slowJournal struct {
	*journal.Journal
	mu   sync.Mutex
	hold chan struct{} // if not nil, acknowledgements wait for its closing
	err  error         // of Place
	busy chan struct{} // if not nil, Prepare of more than one event waits for its closing
	open int           // prepared, and neither placed nor discarded
	made int           // prepared
	fail error         // of acknowledgements
	off  uint64        // added to First
}

type slowPending struct {
	Pending
	done chan struct{}
	err  error
	off  uint64
}

func (p slowPending) Done() <-chan struct{} { return p.done }
func (p slowPending) First() uint64         { return p.Pending.First() + p.off }
func (p slowPending) Err() error {
	if p.err != nil {
		return p.err
	}
	return p.Pending.Err()
}

func (j *slowJournal) Prepare(payloads []*log.Payload, entryBytes int) (Prepared, error) {
	j.mu.Lock()
	busy := j.busy
	j.mu.Unlock()
	if busy != nil && len(payloads) > 1 {
		<-busy
	}
	p, err := j.Journal.Prepare(payloads, entryBytes)
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.open++
	j.made++
	return p, nil
}

func (j *slowJournal) Discard(p Prepared) {
	j.Journal.Discard(p.(*journal.Prepared))
	j.mu.Lock()
	defer j.mu.Unlock()
	j.open--
}

// prepared gives how many were ever prepared, and how many still are.
func (j *slowJournal) prepared() (made, open int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.made, j.open
}

func (j *slowJournal) Place(prepared Prepared, entries [][]byte) (Pending, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.err; err != nil {
		if errors.Is(err, ErrStale) {
			j.err = nil // the next are fresh
		}
		return nil, err
	}
	p, err := j.Journal.Place(prepared.(*journal.Prepared), entries)
	if err != nil {
		return nil, err
	}
	j.open--
	slow := slowPending{Pending: p, done: make(chan struct{}), err: j.fail, off: j.off}
	hold := j.hold
	go func() {
		<-p.Done()
		if hold != nil {
			<-hold
		}
		close(slow.done)
	}()
	return slow, nil
}

// control is a fold of keys alone.
type control struct {
	mu   sync.Mutex
	keys log.Keyring
	err  error
}

func (c *control) Check(i uint64, e log.Entry, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys.Check(i, e, payload)
}

func (c *control) Apply(i uint64, e log.Entry, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.err, c.keys.Apply(i, e, payload))
}

func (c *control) KeyValid(key log.Hash, principal string, i uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys.Valid(key, principal, i)
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	dir := t.TempDir()
	logger := slog.New(slog.DiscardHandler)
	j, err := journal.Create(journal.Config{Dir: filepath.Join(dir, "journal"), FS: disk.OS(), Logger: logger, SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	x, err := index.Open(index.Config{Dir: filepath.Join(dir, "index"), Origin: origin, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, journal: &slowJournal{Journal: j}, index: x, control: &control{}, clock: time.Now}
	c := Config{
		Origin: origin, Journal: w.journal, Index: x, Control: w.control, Logger: logger,
		Now: func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.clock()
		},
	}
	if change != nil {
		change(&c)
	}
	w.seq = New(c)
	ctx, stop := context.WithCancel(t.Context())
	w.stop, w.ended = stop, make(chan struct{})
	following := make(chan struct{})
	go func() { defer close(w.ended); _ = w.seq.Run(ctx) }()
	followCtx, stopFollow := context.WithCancel(context.WithoutCancel(ctx))
	go func() { defer close(following); _ = x.Follow(followCtx, j) }()
	t.Cleanup(func() {
		stop()
		<-w.ended
		stopFollow()
		<-following
		if err := errors.Join(x.Close(), j.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) setClock(f func() time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = f
}

// A service is a principal with a key, and the head of one stream of its own.
type service struct {
	w      *world
	name   string
	key    ed25519.PrivateKey
	stream log.Stream
}

func (w *world) service(name, stream string) *service {
	w.t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	s := &service{w: w, name: name, key: key, stream: log.NewStream(origin, stream)}
	w.server("key.registered", log.KeyRegistered{Key: s.public(), Principal: name}.Marshal())
	return s
}

func (s *service) public() log.PublicKey { return log.PublicKey(s.key.Public().(ed25519.PublicKey)) }

func jsonPayload(b []byte) (*log.Ref, *log.Payload) {
	p := &log.Payload{Bytes: b, Salt: [32]byte{1}}
	return &log.Ref{Commitment: log.Commit(*p, log.JSONType), Type: log.JSONType}, p
}

// server records an event of the log itself.
func (w *world) server(kind string, payload []byte) Result {
	w.t.Helper()
	r, err := w.seq.Submit(w.t.Context(), serverRequest(kind, payload))
	if err != nil {
		w.t.Fatalf("Submit of %s: %v", kind, err)
	}
	return r
}

func serverRequest(kind string, payload []byte) Request {
	ref, p := jsonPayload(payload)
	return Request{
		By: "admin", Auth: "token:1", ByLog: true, Payloads: []*log.Payload{p},
		Events: []log.Event{{Actor: "admin", Kind: kind, Migration: "log", Stream: "log/test", Time: uint64(time.Now().UnixMilli()), Payload: ref}},
	}
}

// request makes the next request of the stream: kinds with their payloads, signed.
func (s *service) request(events ...any) Request {
	r := Request{By: s.name, Auth: "token:2"}
	hash := s.stream.Hash
	for i := 0; i < len(events); i += 2 {
		e := log.Event{
			Actor: s.name, Kind: events[i].(string), Log: origin, Migration: strings.Split(s.stream.Name, "/")[0],
			Stream: s.stream.Name, Seq: s.stream.Seq + uint64(i/2) + 1, Prev: hash, Time: uint64(time.Now().UnixMilli()),
		}
		var p *log.Payload
		if b, _ := events[i+1].([]byte); b != nil {
			e.Payload, p = jsonPayload(b)
		}
		hash = e.Hash()
		r.Events, r.Payloads = append(r.Events, e), append(r.Payloads, p)
	}
	s.sign(&r)
	return r
}

func (s *service) sign(r *Request) {
	last := r.Events[len(r.Events)-1]
	sig := log.Sign(s.key, log.TailText(origin, last.Stream, r.Events[0].Seq, last.Seq, last.Hash()))
	r.Sig = &sig
}

// draft makes a request of notes for a stream that the log keeps for curl.
func draft(stream string, payloads ...[]byte) Request {
	r := Request{By: "curl", Auth: "token:3", ByLog: true}
	e := log.Event{Actor: "curl", Kind: "audit.note", Migration: "m1", Stream: stream, Time: uint64(time.Now().UnixMilli())}
	for _, b := range payloads {
		note, p := e, (*log.Payload)(nil)
		if b != nil {
			note.Payload, p = jsonPayload(b)
		}
		r.Events, r.Payloads = append(r.Events, note), append(r.Payloads, p)
	}
	open, p := e, (*log.Payload)(nil)
	open.Kind = "stream.open"
	open.Payload, p = jsonPayload(log.StreamOpen{Mode: log.ModeLogKept, Owner: "curl"}.Marshal())
	r.Opening = &Opening{open, p}
	return r
}

func (s *service) opening() []byte {
	return log.StreamOpen{Keys: []log.PublicKey{s.public()}, Mode: log.ModeSigned, Owner: s.name}.Marshal()
}

// must submits a request that fits, and moves the service's own head.
func (s *service) must(r Request) Result {
	s.w.t.Helper()
	result, err := s.w.seq.Submit(s.w.t.Context(), r)
	if err != nil {
		s.w.t.Fatalf("Submit: %v", err)
	}
	last := r.Events[len(r.Events)-1]
	s.stream.Seq, s.stream.Hash = last.Seq, last.Hash()
	return result
}

// refused submits a request that does not fit, and checks that nothing of it is in the log.
func (w *world) refused(r Request, want error) {
	w.t.Helper()
	before := w.journal.Size()
	_, err := w.seq.Submit(w.t.Context(), r)
	if !errors.Is(err, want) {
		w.t.Errorf("Submit = %v, want %v", err, want)
	}
	if after := w.journal.Size(); after != before {
		w.t.Errorf("a refused request left %d entries", after-before)
	}
}

// check reads the whole order back: it parses, received never decreases, as_of
// is exact, and every stream chains.
func (w *world) check() {
	w.t.Helper()
	entries, err := w.journal.Entries(0, 1<<20, 1<<30)
	if err != nil {
		w.t.Fatal(err)
	}
	streams := map[string]*log.Stream{}
	asOf, received := uint64(0), uint64(0)
	for i, b := range entries {
		e, err := log.ParseEntry(b)
		if err != nil {
			w.t.Fatalf("entry %d: %v", i, err)
		}
		if e.Log.AsOf != asOf || e.Log.Received < received {
			w.t.Errorf("entry %d has as_of %d, received %d; want %d, at least %d", i, e.Log.AsOf, e.Log.Received, asOf, received)
		}
		if log.Control(e.Event.Kind) {
			asOf = uint64(i)
		}
		received = e.Log.Received
		st := streams[e.Event.Stream]
		if st == nil {
			fresh := log.NewStream(origin, e.Event.Stream)
			st = &fresh
			streams[e.Event.Stream] = st
		}
		if err := st.Check(e.Event, e.Log.By); err != nil {
			w.t.Errorf("entry %d: %v", i, err)
		}
		st.Advance(e.Event, e.Event.Hash(), uint64(i), nil, e.Sig != nil)
	}
}

func TestEventsGetTheirPlaces(t *testing.T) {
	w := newWorld(t, nil)
	crm := w.service("crm", "m1/customers")
	first := crm.must(crm.request("stream.open", crm.opening(), "migration.extract", []byte(`{"rows":3}`)))
	if first.First != 1 || len(first.Entries) != 2 || first.Duplicate {
		t.Errorf("first request is at %d with %d entries", first.First, len(first.Entries))
	}
	if first.Entries[0].Sig != nil || first.Entries[1].Sig == nil {
		t.Error("want the tail signature on the last event, and there alone")
	}
	for range 20 {
		crm.must(crm.request("migration.load", []byte(`{}`)))
	}
	crm.must(crm.request("stream.close", nil))
	w.refused(crm.request("migration.load", nil), log.ErrClosed)
	w.check()
}

func TestWhatDoesNotFitIsRefusedAndLeavesNothing(t *testing.T) {
	w := newWorld(t, nil)
	crm, erp := w.service("crm", "m1/customers"), w.service("erp", "m1/orders")
	w.refused(crm.request("migration.load", nil), log.ErrOpen)
	crm.must(crm.request("stream.open", crm.opening()))
	erp.must(erp.request("stream.open", erp.opening()))

	change := func(want error, f func(*Request)) {
		t.Helper()
		r := crm.request("migration.load", []byte(`{}`), "migration.load", []byte(`{}`))
		f(&r)
		w.refused(r, want)
	}
	change(log.ErrGap, func(r *Request) { r.Events[0].Seq, r.Events[1].Seq = 5, 6; crm.sign(r) })
	change(log.ErrFork, func(r *Request) { r.Events[0].Prev = log.Hash{1}; crm.sign(r) })
	change(log.ErrFork, func(r *Request) { r.Events[1].Prev = log.Hash{1}; crm.sign(r) })
	change(log.ErrTail, func(r *Request) { r.Sig = nil })
	change(log.ErrTail, func(r *Request) { r.Sig.Key = erp.public().ID() })
	change(log.ErrOwner, func(r *Request) { r.By = "erp" })
	change(log.ErrMalformed, func(r *Request) { r.Events[1].Log = "other" })
	change(log.ErrMalformed, func(r *Request) { r.Events[1].Stream = "m1/orders" })
	change(ErrClock, func(r *Request) { r.Events[1].Time += 6 * 60 * 1000; crm.sign(r) })
	change(log.ErrOpen, func(r *Request) { r.Events[1].Kind = "stream.open" })
	change(log.ErrTail, func(r *Request) { r.ByLog = true; r.Sig = nil }) // no downgrade
	change(log.ErrMalformed, func(r *Request) {
		for range 200 {
			r.Events[0].Objects = append(r.Events[0].Objects, log.Object{Name: strings.Repeat("n", 128), Role: "r"})
		}
	})

	other := w.service("crm2", "m1/new")
	open := func(want error, payload []byte) {
		t.Helper()
		w.refused(other.request("stream.open", payload), want)
	}
	open(log.ErrMalformed, []byte(`{}`))
	open(log.ErrOwner, log.StreamOpen{Keys: []log.PublicKey{other.public()}, Mode: log.ModeSigned, Owner: "crm"}.Marshal())
	open(log.ErrTail, log.StreamOpen{Mode: log.ModeLogKept, Owner: "crm2"}.Marshal())
	w.server("key.revoked", log.KeyRevoked{Key: other.public().ID()}.Marshal())
	open(log.ErrKey, other.opening())
	w.check()
}

func TestATailCoversARequestFromItsBeginning(t *testing.T) {
	w := newWorld(t, nil)
	crm := w.service("crm", "m1/customers")
	crm.must(crm.request("stream.open", crm.opening()))
	crm.must(crm.request("migration.load", nil))
	if got := w.seq.state.streams["m1/customers"].TailFirst(); got != 3 {
		t.Errorf("TailFirst = %d, want 3", got)
	}
}

func TestARetryGetsTheSameResult(t *testing.T) {
	w := newWorld(t, nil)
	crm := w.service("crm", "m1/customers")
	open := crm.request("stream.open", crm.opening(), "migration.start", nil)
	first := crm.must(open)
	load := crm.request("migration.load", []byte(`{}`))
	crm.must(load)

	again, err := w.seq.Submit(t.Context(), open)
	if err != nil || !again.Duplicate || again.First != first.First || !slices.EqualFunc(again.Bytes, first.Bytes, slices.Equal) {
		t.Errorf("retry = %+v, %v; want %+v", again, err, first)
	}
	// Another event in a place that is taken is a fork, whoever sends it.
	fork := open
	fork.Events = slices.Clone(open.Events)
	fork.Events[1].Time++
	w.refused(fork, log.ErrFork)
	open.By = "mallory"
	w.refused(open, log.ErrOwner)
	var head *HeadError
	if _, err := w.seq.Submit(t.Context(), fork); !errors.As(err, &head) || head.Head.Seq != 3 {
		t.Errorf("a fork tells no head: %v", err)
	}
	w.check()
}

// A retry is the same request, as a whole. Events that were committed in other
// requests, some or all, get no receipt as one: it would be over entries whose
// signatures are not those that the submitter sends, and would convict the log.
func TestOnlyTheSameRequestIsARetry(t *testing.T) {
	w := newWorld(t, nil)
	now := time.Now()
	w.setClock(func() time.Time { return now }) // all of one millisecond
	crm := w.service("crm", "m1/customers")
	open := crm.request("stream.open", crm.opening())
	crm.must(open)
	both := crm.request("migration.load", []byte(`{"n":2}`), "migration.load", []byte(`{"n":3}`))
	crm.must(both)
	one := crm.request("migration.load", []byte(`{"n":4}`))
	crm.must(one)

	// part makes a request of events that are in the log, signed as one.
	part := func(requests ...Request) Request {
		r := Request{By: "crm", Auth: "token:2"}
		for _, q := range requests {
			r.Events, r.Payloads = append(r.Events, q.Events...), append(r.Payloads, q.Payloads...)
		}
		crm.sign(&r)
		return r
	}
	first := Request{Events: both.Events[:1], Payloads: both.Payloads[:1]}
	second := Request{Events: both.Events[1:], Payloads: both.Payloads[1:]}
	more := crm.request("migration.load", nil, "migration.load", nil)
	for name, r := range map[string]Request{
		"the beginning of a request":     part(first),
		"the end of a request":           part(second),
		"two requests":                   part(both, one),
		"a request and what follows":     part(one, more),
		"the end of one and the next":    part(second, one),
		"all, and what follows":          part(open, both, one, more),
		"the beginning, and two of them": part(open, both),
	} {
		w.refused(r, ErrRetry)
		var head *HeadError
		if _, err := w.seq.Submit(t.Context(), r); !errors.As(err, &head) || head.Head.Seq != 4 {
			t.Errorf("%s: Submit = %v, want the head too", name, err)
		}
	}
	unsigned := both
	unsigned.Sig = nil
	w.refused(unsigned, ErrRetry)
	for _, r := range []Request{open, both, one} {
		if got, err := w.seq.Submit(t.Context(), r); err != nil || !got.Duplicate || got.Entries[len(got.Entries)-1].Sig == nil {
			t.Errorf("retry = %+v, %v; want the entries again", got, err)
		}
	}
	crm.must(more) // the stream is where it was
	w.check()
}

// Sealing a large payload takes syncs: they are its submitter's to wait for.
func TestALargePayloadKeepsNobodyElseWaiting(t *testing.T) {
	w := newWorld(t, nil)
	crm, erp := w.service("crm", "m1/customers"), w.service("erp", "m1/orders")
	crm.must(crm.request("stream.open", crm.opening()))
	erp.must(erp.request("stream.open", erp.opening()))
	sealing := make(chan struct{})
	w.journal.mu.Lock()
	w.journal.busy = sealing
	w.journal.mu.Unlock()
	large := crm.request("x.n", []byte("large"), "x.n", nil)
	done := make(chan error, 1)
	go func() {
		_, err := w.seq.Submit(t.Context(), large)
		done <- err
	}()
	for range 10 {
		erp.must(erp.request("x.n", []byte("small")))
	}
	select {
	case err := <-done:
		t.Errorf("Submit = %v before its payload was sealed", err)
	default:
	}
	close(sealing)
	if err := <-done; err != nil {
		t.Error(err)
	}
	w.check()
}

func TestWhatIsPreparedIsPlacedOrGivenUp(t *testing.T) {
	w := newWorld(t, nil)
	crm := w.service("crm", "m1/customers")
	settled := func(what string, prepares int, do func()) {
		t.Helper()
		before, _ := w.journal.prepared()
		do()
		after, open := w.journal.prepared()
		if open != 0 || after-before != prepares {
			t.Errorf("%s: prepared %d times, want %d; %d neither placed nor discarded", what, after-before, prepares, open)
		}
	}
	r := crm.request("stream.open", crm.opening())
	settled("a request", 1, func() { crm.must(r) })
	if err := w.index.Wait(t.Context(), w.journal.Size()); err != nil {
		t.Fatal(err)
	}
	settled("a retry", 0, func() {
		if _, err := w.seq.Submit(t.Context(), r); err != nil {
			t.Error(err)
		}
	})
	gap := crm.request("x.n", []byte("a"))
	gap.Events[0].Seq = 9
	settled("a gap", 1, func() { w.refused(gap, log.ErrGap) })
	w.journal.mu.Lock()
	w.journal.err = ErrStale
	w.journal.mu.Unlock()
	settled("a stale request", 2, func() { crm.must(crm.request("x.n", []byte("a"))) })
	w.journal.mu.Lock()
	w.journal.err = ErrBusy
	w.journal.mu.Unlock()
	settled("a busy journal", 1, func() { w.refused(crm.request("x.n", []byte("a")), ErrBusy) })
	w.journal.mu.Lock()
	w.journal.err = nil
	w.journal.mu.Unlock()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	settled("a request that nobody waits for", 1, func() {
		if _, err := w.seq.Submit(gone, crm.request("x.n", []byte("a"))); !errors.Is(err, context.Canceled) {
			t.Errorf("Submit = %v, want that it was cancelled", err)
		}
	})
	for i := range 2 {
		settled(fmt.Sprintf("event %d of a log-kept stream", i), 1, func() {
			if _, err := w.seq.Submit(t.Context(), draft("m1/curl", []byte("{}"))); err != nil {
				t.Error(err)
			}
		})
	}
	crm.must(crm.request("stream.close", nil))
	if err := w.index.Wait(t.Context(), w.journal.Size()); err != nil {
		t.Fatal(err)
	}
	settled("a request in a closed stream", 0, func() { w.refused(crm.request("x.n", []byte("a")), log.ErrClosed) })
	anothers := draft("m1/curl", make([]byte, lookUpBytes))
	anothers.By = "eve"
	settled("a request in another's stream", 0, func() { w.refused(anothers, log.ErrOwner) })
	w.check()
}

// The first request to a stream may be as large as any: its opening and its
// events wait in one room, and so do events that are prepared once more.
func TestTheFirstRequestToAStreamMayFillMostOfTheQueue(t *testing.T) {
	w := newWorld(t, nil) // 512 KiB may wait in its journal
	payloads := slices.Repeat([][]byte{make([]byte, 40<<10)}, 9)
	for stream, stale := range map[string]error{"m1/first": nil, "m1/stale": ErrStale} {
		w.journal.mu.Lock()
		w.journal.err = stale
		w.journal.mu.Unlock()
		r, err := w.seq.Submit(t.Context(), draft(stream, payloads...))
		if err != nil {
			t.Fatalf("Submit to %s: %v", stream, err)
		}
		for i := range uint64(10) {
			p, err := w.journal.Payload(r.First + i)
			if want := i == 0; err != nil || p.Lasting != want || !want && len(p.Bytes) != 40<<10 {
				t.Errorf("payload %d of %s has %d bytes, lasting %v, %v", i, stream, len(p.Bytes), p.Lasting, err)
			}
		}
	}
	w.check()
}

func TestARetryInFlightWaitsForTheCommit(t *testing.T) {
	w := newWorld(t, nil)
	crm := w.service("crm", "m1/customers")
	hold := make(chan struct{})
	w.journal.mu.Lock()
	w.journal.hold = hold
	w.journal.mu.Unlock()
	r := crm.request("stream.open", crm.opening())
	results := make(chan Result, 2)
	for range 2 {
		go func() {
			result, err := w.seq.Submit(t.Context(), r)
			if err != nil {
				t.Errorf("Submit: %v", err)
			}
			results <- result
		}()
	}
	impatient, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := w.seq.Submit(impatient, r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("impatient retry = %v, want the deadline", err)
	}
	select {
	case r := <-results:
		t.Fatalf("acknowledged before it was durable: %+v", r)
	case <-time.After(20 * time.Millisecond):
	}
	close(hold)
	a, b := <-results, <-results
	if a.First != b.First || !a.Duplicate && !b.Duplicate || !slices.Equal(a.Bytes[0], b.Bytes[0]) {
		t.Errorf("two sends of one event are at %d and %d", a.First, b.First)
	}
	w.check()
}

func TestOfTwoConcurrentEventsForOneSeqOneWins(t *testing.T) {
	w := newWorld(t, nil)
	crm := w.service("crm", "m1/customers")
	crm.must(crm.request("stream.open", crm.opening()))
	var won, lost int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 20 {
		r := crm.request("x.n", fmt.Appendf(nil, "%d", i))
		wg.Go(func() {
			_, err := w.seq.Submit(t.Context(), r)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case errors.Is(err, log.ErrFork):
				lost++
			default:
				t.Errorf("Submit = %v, want nil or a fork", err)
			}
		})
	}
	wg.Wait()
	if won != 1 || lost != 19 {
		t.Errorf("%d won, %d lost; want 1 and 19", won, lost)
	}
	w.check()
}

func TestLogKeptStreamsAreOpenedByTheLog(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 3 {
		r, err := w.seq.Submit(t.Context(), draft("m1/curl", nil))
		if err != nil {
			t.Fatal(err)
		}
		if want := []int{2, 1, 1}[i]; len(r.Entries) != want || len(r.Payloads) != want {
			t.Errorf("request %d made %d entries, want %d", i, len(r.Entries), want)
		}
		if r.Entries[0].Log.Attested != log.AttestedByLog {
			t.Error("an entry of a log-kept stream is not attested by the log")
		}
	}
	signed := w.service("curl", "m1/curl")
	signed.stream.Seq = w.seq.state.streams["m1/curl"].Seq
	signed.stream.Hash = w.seq.state.streams["m1/curl"].Hash
	w.refused(signed.request("audit.note", nil), log.ErrTail)
	w.check()
}

func TestMigrationsAreOpenedOnceAndClosedByTheirOwner(t *testing.T) {
	w := newWorld(t, nil)
	crm, erp, eve := w.service("crm", "m1/control"), w.service("erp", "m1/orders"), w.service("eve", "m1/evil")
	opened := log.MigrationOpen{Streams: []log.StreamOwner{{Owner: "erp", Stream: "m1/orders"}}}
	closed := log.MigrationClose{}.Marshal()
	crm.must(crm.request("stream.open", crm.opening()))
	w.refused(crm.request("migration.close", closed), log.ErrMigration)
	w.refused(crm.request("migration.open", []byte(`{"streams":[{"owner":"x","stream":"m2/x"}],"v":1}`)), log.ErrMalformed)
	w.refused(crm.request("migration.open", []byte(`{}`)), log.ErrMalformed)
	crm.must(crm.request("migration.open", opened.Marshal()))
	w.refused(crm.request("migration.open", opened.Marshal()), log.ErrMigration)
	w.refused(eve.request("stream.open", eve.opening()), log.ErrMigration)
	erp.must(erp.request("stream.open", erp.opening()))
	w.refused(erp.request("migration.close", closed), log.ErrMigration)
	w.refused(crm.request("migration.close", []byte(`{}`)), log.ErrMalformed)
	crm.must(crm.request("migration.close", closed))
	w.refused(erp.request("migration.load", nil), log.ErrMigration)
	w.check()
}

func TestAuthorisationIsAskedAgainWhenAControlEntryCameBetween(t *testing.T) {
	w := newWorld(t, nil)
	crm := w.service("crm", "m1/customers")
	crm.must(crm.request("stream.open", crm.opening()))
	asked := 0
	r := crm.request("migration.load", nil)
	r.AsOf = w.seq.LastControl()
	r.Authorize = func() error { asked++; return errors.New("token was revoked") }
	late := crm.request("migration.load", nil)
	late.AsOf, late.Authorize = r.AsOf, r.Authorize
	crm.must(r)
	if asked != 0 {
		t.Error("asked again although nothing had changed")
	}
	w.server("key.registered", log.KeyRegistered{Key: log.PublicKey{9}, Principal: "x"}.Marshal())
	before := w.journal.Size()
	if _, err := w.seq.Submit(t.Context(), late); err == nil || asked != 1 || w.journal.Size() != before {
		t.Errorf("Submit after a control entry = %v, asked %d times", err, asked)
	}
	w.check()
}

func TestAControlEntryThatTheFoldDoesNotTakeGetsNoPlace(t *testing.T) {
	w := newWorld(t, nil)
	crm := w.service("crm", "m1/customers")
	key := log.KeyRegistered{Key: crm.public(), Principal: "crm"}.Marshal()
	w.refused(serverRequest("key.registered", key), log.ErrKeyTaken)
	w.refused(serverRequest("key.registered", nil), log.ErrMalformed)
	id, late := crm.public().ID(), uint64(1)<<53
	w.refused(serverRequest("key.revoked", log.KeyRevoked{Key: id, CompromisedSince: &late}.Marshal()), log.ErrMalformed)
	w.refused(serverRequest("key.revoked", log.KeyRevoked{Key: log.Hash{7}}.Marshal()), log.ErrKeyUnknown)
	two := serverRequest("key.revoked", log.KeyRevoked{Key: id}.Marshal())
	two.Events, two.Payloads = append(two.Events, two.Events[0]), append(two.Payloads, two.Payloads[0])
	w.refused(two, log.ErrMalformed)
	crm.must(crm.request("stream.open", crm.opening()))

	// Of many who ask for the same at once, one gets it.
	for _, ask := range []struct {
		kind    string
		payload []byte
		want    error
	}{
		{"key.revoked", log.KeyRevoked{Key: id}.Marshal(), log.ErrKeyUnknown},
		{"key.registered", log.KeyRegistered{Key: log.PublicKey{9}, Principal: "x"}.Marshal(), log.ErrKeyTaken},
	} {
		before := w.journal.Size()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := w.seq.Submit(t.Context(), serverRequest(ask.kind, ask.payload)); err != nil && !errors.Is(err, ask.want) {
					t.Errorf("Submit of %s = %v, want nil or %v", ask.kind, err, ask.want)
				}
			})
		}
		wg.Wait()
		if n := w.journal.Size() - before; n != 1 {
			t.Errorf("%d entries of %s, want 1", n, ask.kind)
		}
	}
	if err := w.seq.ReadOnly(); err != nil {
		t.Error(err)
	}
	w.check()
}

// idle gives a sequencer that goes on where the world's has stopped, and that
// nobody runs yet, with requests in its queue. The channel has their errors.
func (w *world) idle(requests ...Request) (*Sequencer, <-chan error) {
	w.t.Helper()
	w.stop()
	<-w.ended
	c := w.seq.c
	c.Next, c.LastControl = w.journal.Size(), w.seq.LastControl()
	s := New(c)
	errs := make(chan error, len(requests))
	for i, r := range requests {
		go func() {
			_, err := s.Submit(w.t.Context(), r)
			errs <- err
		}()
		for s.Queued() <= i {
			time.Sleep(time.Millisecond)
		}
	}
	return s, errs
}

func TestWhatIsQueuedWhenTheLogBecomesReadOnlyGetsNoPlace(t *testing.T) {
	w := newWorld(t, nil)
	crm, erp := w.service("crm", "m1/customers"), w.service("erp", "m1/orders")
	s, errs := w.idle(crm.request("stream.open", crm.opening()), erp.request("stream.open", erp.opening()))
	before := w.journal.Size()
	s.Latch(errors.New("input/output error"))
	ended, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Run(ended); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-errs; !errors.Is(err, ErrReadOnly) {
			t.Errorf("Submit = %v, want read-only", err)
		}
	}
	if after := w.journal.Size(); after != before {
		t.Errorf("%d entries were placed by a log that is read-only", after-before)
	}
}

func TestWhatIsQueuedWhenTheLogStopsIsServed(t *testing.T) {
	w := newWorld(t, nil)
	crm, erp := w.service("crm", "m1/customers"), w.service("erp", "m1/orders")
	s, errs := w.idle(crm.request("stream.open", crm.opening()), erp.request("stream.open", erp.opening()))
	ended, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Run(ended); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Errorf("Submit = %v, want nil", err)
		}
	}
	if _, err := s.Submit(t.Context(), crm.request("stream.open", crm.opening())); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Submit after the end = %v, want read-only", err)
	}
	w.check()
}

func TestTheQueueIsBounded(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.QueueRequests = 1 })
	crm := w.service("crm", "m1/customers")
	w.stop()
	<-w.ended
	if _, err := w.seq.Submit(t.Context(), crm.request("stream.open", crm.opening())); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Submit after the end = %v, want read-only", err)
	}

	idle := New(w.seq.c) // nobody runs it
	r := crm.request("stream.open", crm.opening())
	gone, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _, _ = idle.Submit(gone, r) }()
	for idle.Queued() == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := idle.Submit(t.Context(), r); !errors.Is(err, ErrBusy) {
		t.Errorf("Submit to a full queue = %v, want busy", err)
	}
	// Whoever waits no longer gets no place; who is queued at the end is served.
	cancel()
	ended, stop := context.WithCancel(t.Context())
	stop()
	if err := idle.Run(ended); err != nil {
		t.Error(err)
	}
	if w.journal.Size() != 1 {
		t.Errorf("an abandoned request left entries: %d", w.journal.Size())
	}
}

func TestAFailedJournalLatchesReadOnly(t *testing.T) {
	broken := errors.New("input/output error")
	for name, damage := range map[string]func(*world){
		"acknowledgement": func(w *world) { w.journal.fail = broken },
		"wrong place":     func(w *world) { w.journal.off = 7 },
		"fold":            func(w *world) { w.control.err = broken },
		"clock ahead": func(w *world) {
			w.setClock(func() time.Time { return time.Now().Add(time.Hour) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			crm := w.service("crm", "m1/customers")
			r := crm.request("stream.open", crm.opening())
			w.journal.mu.Lock()
			damage(w)
			w.journal.mu.Unlock()
			if name == "fold" {
				r = serverRequest("key.registered", log.KeyRegistered{Key: log.PublicKey{9}, Principal: "x"}.Marshal())
			}
			if _, err := w.seq.Submit(t.Context(), r); !errors.Is(err, ErrReadOnly) {
				t.Errorf("Submit = %v, want read-only", err)
			}
			if w.seq.ReadOnly() == nil {
				t.Error("the log is not read-only")
			}
			if _, err := w.seq.Submit(t.Context(), r); !errors.Is(err, ErrReadOnly) {
				t.Errorf("second Submit = %v, want read-only", err)
			}
		})
	}
}

func TestARetryOfAFailedCommitIsNotAcknowledged(t *testing.T) {
	w := newWorld(t, nil)
	crm := w.service("crm", "m1/customers")
	hold := make(chan struct{})
	w.journal.mu.Lock()
	w.journal.hold, w.journal.fail = hold, errors.New("input/output error")
	w.journal.mu.Unlock()
	r := crm.request("stream.open", crm.opening())
	served := make(chan struct{}, 2)
	r.AsOf, r.Authorize = w.seq.LastControl()+1, func() error { served <- struct{}{}; return nil }
	errs := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := w.seq.Submit(t.Context(), r)
			errs <- err
		}()
	}
	<-served
	<-served // the first has its place, and the other finds it taken
	close(hold)
	for range 2 {
		if err := <-errs; !errors.Is(err, ErrReadOnly) {
			t.Errorf("Submit = %v, want read-only", err)
		}
	}
}

func TestABusyJournalChangesNothing(t *testing.T) {
	w := newWorld(t, nil)
	crm := w.service("crm", "m1/customers")
	r := crm.request("stream.open", crm.opening())
	w.journal.mu.Lock()
	w.journal.err = ErrBusy
	w.journal.mu.Unlock()
	w.refused(r, ErrBusy)
	w.journal.mu.Lock()
	w.journal.err = nil
	w.journal.mu.Unlock()
	crm.must(r)
	w.check()
}

func TestReceivedNeverGoesBack(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.LastReceived = uint64(time.Now().Add(time.Hour).UnixMilli()) })
	crm := w.service("crm", "m1/customers")
	crm.must(crm.request("stream.open", crm.opening()))
	w.setClock(func() time.Time { return time.Now().Add(-time.Second) })
	crm.must(crm.request("migration.load", nil))
	w.check()
}

func TestHeadsSurviveEviction(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.StreamsInMemory = 20 })
	var all []*service
	for i := range 200 {
		s := w.service(fmt.Sprintf("svc%d", i), fmt.Sprintf("m%d/s", i))
		s.must(s.request("stream.open", s.opening()))
		if err := w.index.Wait(t.Context(), w.journal.Size()); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	for range 3 {
		for i, s := range all { // most heads are read again
			s.must(s.request("x.n", nil))
			if i%10 != 0 {
				continue
			}
			if err := w.index.Wait(t.Context(), w.journal.Size()); err != nil { // else the log is busy
				t.Fatal(err)
			}
		}
	}
	if n := w.seq.state.inMemory(); n > 40 {
		t.Errorf("%d states in memory, want at most 40", n)
	}
	w.check()
}

func TestMemoryIsBoundedWhileTheIndexLags(t *testing.T) {
	var lagging *brokenIndex
	w := newWorld(t, func(c *Config) {
		lagging = &brokenIndex{Index: c.Index, at: "cursor"}
		c.Index, c.StreamsInMemory = lagging, 20
	})
	busy := 0
	var last *service
	for i := range 60 {
		s := w.service("svc", fmt.Sprintf("m%d/s", i))
		switch _, err := w.seq.Submit(t.Context(), s.request("stream.open", s.opening())); {
		case errors.Is(err, ErrBusy):
			busy, last = busy+1, s
		case err != nil:
			t.Fatal(err)
		}
	}
	if n := w.seq.state.inMemory(); busy == 0 || n > 41 {
		t.Fatalf("%d states in memory, %d requests turned away; want at most 41, and some", n, busy)
	}
	if err := w.index.Wait(t.Context(), w.journal.Size()); err != nil {
		t.Fatal(err)
	}
	lagging.at = ""
	last.must(last.request("stream.open", last.opening()))
	w.check()
}

// brokenIndex fails at one of its methods.
type brokenIndex struct {
	Index
	at string
}

var errIndex = errors.New("index is broken")

func (b brokenIndex) Stream(name string) (log.Stream, bool, error) {
	if b.at == "stream" {
		return log.Stream{}, false, errIndex
	}
	return b.Index.Stream(name)
}

func (b brokenIndex) Cursor() uint64 {
	if b.at == "cursor" {
		return 0 // it lags
	}
	return b.Index.Cursor()
}

func (b brokenIndex) Migration(name string) (log.Migration, bool, error) {
	if b.at == "migration" {
		return log.Migration{}, false, errIndex
	}
	return b.Index.Migration(name)
}

func (b brokenIndex) Wait(ctx context.Context, size uint64) error {
	if b.at == "wait" {
		return errIndex
	}
	return b.Index.Wait(ctx, size)
}

func (b brokenIndex) ByPlace(stream string, seq uint64) (uint64, bool, error) {
	switch b.at {
	case "place":
		return 0, false, errIndex
	case "nowhere":
		return 0, false, nil
	case "elsewhere":
		return 1 << 40, true, nil
	}
	return b.Index.ByPlace(stream, seq)
}

func TestABrokenIndexRefusesRatherThanGuesses(t *testing.T) {
	for _, at := range []string{"stream", "migration", "wait", "place", "nowhere", "elsewhere"} {
		var broken *brokenIndex
		w := newWorld(t, func(c *Config) {
			broken = &brokenIndex{Index: c.Index}
			c.Index = broken
		})
		crm := w.service("crm", "m1/customers")
		r := crm.request("stream.open", crm.opening())
		if at != "stream" && at != "migration" {
			crm.must(r)
		}
		broken.at = at
		if _, err := w.seq.Submit(t.Context(), r); err == nil {
			t.Errorf("%s: Submit succeeded with a broken index", at)
		}
	}
}

func TestARequestWithoutEventsIsABug(t *testing.T) {
	w := newWorld(t, nil)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	_, _ = w.seq.Submit(t.Context(), Request{})
}
