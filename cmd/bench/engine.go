package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/index"
	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/pipe-roll/piperoll/log/sequencer"
	"github.com/pipe-roll/piperoll/log/tiles"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"
)

// warmUp is the time in which the first segments are prepared.
const warmUp = 2 * time.Second

// A load is openLoop or saturate.
type load func(ctx context.Context, e env, add appender) (figures, error)

func engineOpen(ctx context.Context, e env) (figures, error) { return entries(ctx, e, openLoop) }

func engineSaturated(ctx context.Context, e env) (figures, error) { return entries(ctx, e, saturate) }

func payloadsOpen(ctx context.Context, e env) (figures, error) { return payloads(ctx, e, openLoop) }

func payloadsSaturated(ctx context.Context, e env) (figures, error) {
	return payloads(ctx, e, saturate)
}

// entries loads a journal whose tree is integrated, signed and published with
// entries of 1 KiB and no payloads.
func entries(ctx context.Context, e env, run load) (f figures, err error) {
	err = withTree(ctx, e.dir, func(ctx context.Context, j *journal.Journal) error {
		entry := make([]byte, entryBytes)
		rand.Read(entry)
		time.Sleep(warmUp)
		f, err = run(ctx, e, func(ctx context.Context, _ int) error {
			_, err := j.Append(ctx, []log.Record{{Entry: entry}})
			return err
		})
		return err
	})
	return f, err
}

// withTree runs f on a new journal that a tree follows.
func withTree(ctx context.Context, dir string, f func(ctx context.Context, j *journal.Journal) error) (err error) {
	logger := slog.New(slog.DiscardHandler)
	j, err := journal.Create(journal.Config{Dir: filepath.Join(dir, "journal"), FS: disk.OS(), Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	tree, err := newTree(dir, j, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	g, ctx := errgroup.WithContext(ctx)
	running, stop := context.WithCancel(ctx)
	g.Go(func() error { return tree.Run(running) })
	g.Go(func() error { defer stop(); return f(ctx, j) })
	if err := g.Wait(); err != nil {
		return err
	}
	if tree.Head().Size != j.Size() {
		return fmt.Errorf("the tree has %d of %d entries", tree.Head().Size, j.Size())
	}
	return nil
}

func newTree(dir string, j *journal.Journal, logger *slog.Logger) (*tiles.Tree, error) {
	skey, vkey, err := note.GenerateKey(rand.Reader, benchOrigin)
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	c := tiles.Config{
		Dir: filepath.Join(dir, "tiles"), StateDir: filepath.Join(dir, "state"), AnchorDir: filepath.Join(dir, "anchor"),
		FS: disk.OS(), Origin: benchOrigin, Signer: signer, Verifier: verifier, Source: j, Logger: logger,
	}
	if err := tiles.Create(c); err != nil {
		return nil, err
	}
	return tiles.Open(c)
}

// payloads loads the same with what each event of a service costs besides: the
// sequencer gives it its place, its payload is sealed, and the index follows.
func payloads(ctx context.Context, e env, run load) (f figures, err error) {
	err = withTree(ctx, e.dir, func(ctx context.Context, j *journal.Journal) (err error) {
		logger := slog.New(slog.DiscardHandler)
		x, err := index.Open(index.Config{Dir: filepath.Join(e.dir, "index"), Origin: benchOrigin, Logger: logger})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, x.Close()) }()
		seq := sequencer.New(sequencer.Config{
			Origin: benchOrigin, Journal: orderOf{j}, Index: x, Control: noControl{}, Logger: logger, QueueRequests: 1 << 16,
		})
		g, ctx := errgroup.WithContext(ctx)
		running, stop := context.WithCancel(ctx)
		g.Go(func() error { return seq.Run(running) })
		g.Go(func() error {
			if err := x.Follow(running, j); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		})
		g.Go(func() error {
			defer stop()
			time.Sleep(warmUp)
			f, err = run(ctx, e, submitter(seq))
			return errors.Join(err, x.Wait(ctx, j.Size()))
		})
		return g.Wait()
	})
	return f, err
}

const (
	payloadEntryBytes = 700
	payloadBytes      = 300
)

var payloadSizes = fmt.Sprintf("entry %d B and sealed payload %d B", payloadEntryBytes, payloadBytes)

// submitter submits events with payloads to as many streams as there are
// writers. The log keeps the streams, since then events may come in any order,
// as an open loop needs.
func submitter(seq *sequencer.Sequencer) appender {
	payload := &log.Payload{Bytes: fmt.Appendf(nil, "%q", strings.Repeat("x", payloadBytes-2))}
	rand.Read(payload.Salt[:])
	requests := make([]sequencer.Request, writers)
	for i := range requests {
		requests[i] = request(i, payload)
	}
	return func(ctx context.Context, n int) error {
		req := requests[n%writers]
		req.Events = []log.Event{req.Events[0]} // the sequencer fills in the place
		_, err := seq.Submit(ctx, req)
		return err
	}
}

// request makes a request of one event in stream i, with what opens the stream if need be.
func request(i int, payload *log.Payload) sequencer.Request {
	open := &log.Payload{Bytes: log.StreamOpen{Mode: log.ModeLogKept, Owner: "bench"}.Marshal()}
	event := log.Event{
		Actor: "bench", Kind: "stream.open", Migration: fmt.Sprintf("m%02d", i), Stream: fmt.Sprintf("m%02d/bench", i),
		Time: uint64(time.Now().UnixMilli()), Payload: ref(open),
	}
	opening := &sequencer.Opening{Event: event, Payload: open}
	event.Kind, event.Payload = "migration.load", ref(payload)
	event.Objects = []log.Object{{Name: "crm.customers", Role: "source"}}
	for _, target := range []string{"party", "party_address", "party_consent", "party_contact"} {
		event.Objects = append(event.Objects, log.Object{Name: "dwh." + target, Role: "target"})
	}
	return sequencer.Request{
		By: "bench", Auth: "none", ByLog: true, Opening: opening, Events: []log.Event{event}, Payloads: []*log.Payload{payload},
	}
}

func ref(p *log.Payload) *log.Ref {
	return &log.Ref{Commitment: log.Commit(*p, log.JSONType), Type: log.JSONType}
}

// orderOf makes the journal a sequencer.Journal.
type orderOf struct{ *journal.Journal }

func (o orderOf) Prepare(payloads []*log.Payload, entryBytes int) (sequencer.Prepared, error) {
	p, err := o.Journal.Prepare(payloads, entryBytes)
	if err != nil {
		return nil, ordered(err)
	}
	return p, nil
}

func (o orderOf) Place(p sequencer.Prepared, entries [][]byte) (sequencer.Pending, error) {
	pending, err := o.Journal.Place(p.(*journal.Prepared), entries)
	if err != nil {
		return nil, ordered(err)
	}
	return pending, nil
}

func (o orderOf) Discard(p sequencer.Prepared) { o.Journal.Discard(p.(*journal.Prepared)) }

// ordered gives the journal's errors the sequencer's names.
func ordered(err error) error {
	switch {
	case errors.Is(err, journal.ErrBusy):
		return fmt.Errorf("%w: %w", sequencer.ErrBusy, err)
	case errors.Is(err, journal.ErrStale):
		return fmt.Errorf("%w: %w", sequencer.ErrStale, err)
	}
	return err
}

// noControl folds nothing: the load has no control entries.
type noControl struct{}

func (noControl) Check(uint64, log.Entry, []byte) error   { return nil }
func (noControl) Apply(uint64, log.Entry, []byte) error   { return nil }
func (noControl) KeyValid(log.Hash, string, uint64) error { return nil }
