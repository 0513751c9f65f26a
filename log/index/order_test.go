package index

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

const origin = "log.example/audit"

// An order is a log in memory: a Source, and what the tests compare with.
type order struct {
	mu       sync.Mutex
	moved    chan struct{}
	items    []Item
	texts    [][]byte
	streams  map[string]*log.Stream
	received uint64
}

func newOrder() *order {
	o := &order{moved: make(chan struct{}), streams: make(map[string]*log.Stream), received: 1_790_000_000_000}
	o.add(log.Event{Actor: "log", Kind: "log.open", Migration: "log", Stream: "log/log"}, "log", nil, 0)
	return o
}

// add places an event at the head of its stream, later milliseconds after the
// entry before. Payload bytes are committed to.
func (o *order) add(e log.Event, by string, payload []byte, later uint64) Item {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.streams[e.Stream]
	if s == nil {
		fresh := log.NewStream(origin, e.Stream)
		s = &fresh
		o.streams[e.Stream] = s
	}
	o.received += later
	e.Log, e.Seq, e.Prev, e.Time = origin, s.Seq+1, s.Hash, o.received
	if payload != nil {
		e.Payload = &log.Ref{Commitment: log.Commit(log.Payload{Bytes: payload}, log.JSONType), Type: log.JSONType}
	}
	entry := log.Entry{Event: e, Log: log.Part{Auth: "token:1", By: by, Received: o.received}}
	if log.ClassOf(e.Kind) == log.Server {
		entry.Log.Attested = log.AttestedByLog
	}
	if e.Seq%3 == 0 {
		entry.Sig = &log.Sig{}
	}
	it := Item{Index: uint64(len(o.items)), Entry: entry, Hash: e.Hash(), Payload: payload}
	var open *log.StreamOpen
	if e.Kind == "stream.open" && payload != nil {
		p, err := log.ParseStreamOpen(payload)
		if err != nil {
			panic(err)
		}
		open = &p
	}
	s.Advance(e, it.Hash, it.Index, open, entry.Sig != nil || entry.Log.Attested != "")
	o.refuse(e, it.Index)
	o.items = append(o.items, it)
	o.texts = append(o.texts, entry.Marshal())
	close(o.moved)
	o.moved = make(chan struct{})
	return it
}

// refuse moves the stream whose next event e refused.
func (o *order) refuse(e log.Event, index uint64) {
	r, took := log.RefusalOf(e)
	if s := o.streams[r.Stream]; took && s != nil && !s.Closed && r.Seq == s.Seq+1 {
		s.Refuse(r.Seq, r.Hash, index)
	}
}

// push adds an entry made elsewhere.
func (o *order) push(it Item, text []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.items, o.texts = append(o.items, it), append(o.texts, text)
	close(o.moved)
	o.moved = make(chan struct{})
}

func (o *order) Size() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return uint64(len(o.items))
}

func (o *order) Wait(ctx context.Context, size uint64) error {
	for {
		o.mu.Lock()
		moved, have := o.moved, uint64(len(o.items))
		o.mu.Unlock()
		if have >= size {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (o *order) Entries(from uint64, count, _ int) ([][]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.texts[from:min(from+uint64(count), uint64(len(o.texts)))], nil
}

func (o *order) Payload(index uint64) (log.Payload, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.items[index].Payload == nil {
		return log.Payload{}, fmt.Errorf("entry %d has no payload", index)
	}
	return log.Payload{Bytes: o.items[index].Payload}, nil
}

func (o *order) entry(index uint64) (log.Entry, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.items[index].Entry, nil
}

func testConfig(t testing.TB, dir string) Config {
	t.Helper()
	return Config{Dir: dir, Origin: origin, CacheBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler)}
}

func open(t testing.TB, dir string) *Index {
	t.Helper()
	x, err := Open(testConfig(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}
