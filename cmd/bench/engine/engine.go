// Package engine puts the log's machinery under a load, without HTTP.
package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pipe-roll/piperoll/cmd/bench/measure"
	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/index"
	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/pipe-roll/piperoll/log/sequencer"
	"github.com/pipe-roll/piperoll/log/tiles"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"
)

// WarmUp is the time in which the first segments are prepared.
const WarmUp = 2 * time.Second

// Origin of every log that a bench makes.
const Origin = "log.example/bench"

// Entries loads a journal whose tree is integrated, signed and published with
// entries of 1 KiB and no payloads.
func Entries(run measure.Load) func(context.Context, measure.Env) (measure.Figures, error) {
	return func(ctx context.Context, e measure.Env) (f measure.Figures, err error) {
		p, err := create(e.Dir)
		if err != nil {
			return nil, err
		}
		err = p.withTree(ctx, func(ctx context.Context, j *journal.Journal) error {
			entry := make([]byte, measure.EntryBytes)
			rand.Read(entry)
			time.Sleep(WarmUp)
			f, err = run(ctx, e, func(ctx context.Context, _ int) error {
				_, err := j.Append(ctx, []log.Record{{Entry: entry}})
				return err
			})
			return err
		})
		return f, err
	}
}

// A place is where the parts of a log are, as logserver init has them, and how it signs.
type place struct {
	dir      string
	signer   note.Signer
	verifier note.Verifier
}

func (p place) data(part string) string { return filepath.Join(p.dir, "data", part) }

func (p place) journal() journal.Config {
	return journal.Config{Dir: p.data("journal"), FS: disk.OS(), Logger: slog.New(slog.DiscardHandler)}
}

func (p place) tree(source tiles.Source) tiles.Config {
	return tiles.Config{
		Dir: p.data("tiles"), StateDir: p.data("state"), AnchorDir: filepath.Join(p.dir, "anchor"), FS: disk.OS(),
		Origin: Origin, Signer: p.signer, Verifier: p.verifier, Source: source, Logger: slog.New(slog.DiscardHandler),
	}
}

// create makes a log without entries in dir.
func create(dir string) (place, error) {
	skey, vkey, err := note.GenerateKey(rand.Reader, Origin)
	if err != nil {
		return place{}, err
	}
	p, err := signing(dir, skey, vkey)
	if err != nil {
		return p, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		return p, err
	}
	j, err := journal.Create(p.journal())
	if err != nil {
		return p, err
	}
	return p, errors.Join(tiles.Create(p.tree(j)), j.Close())
}

// open finds a log that logserver init made in dir.
func open(dir string) (place, error) {
	skey, err := os.ReadFile(filepath.Join(dir, "keys", "checkpoint.key"))
	if err != nil {
		return place{}, err
	}
	vkey, err := os.ReadFile(filepath.Join(dir, "log.vkey"))
	if err != nil {
		return place{}, err
	}
	return signing(dir, strings.TrimSpace(string(skey)), strings.TrimSpace(string(vkey)))
}

func signing(dir, skey, vkey string) (p place, err error) {
	p.dir = dir
	if p.signer, err = note.NewSigner(skey); err == nil {
		p.verifier, err = note.NewVerifier(vkey)
	}
	return p, err
}

// withTree runs f on a journal that a tree follows to the end.
func (p place) withTree(ctx context.Context, f func(ctx context.Context, j *journal.Journal) error) (err error) {
	j, err := journal.Open(p.journal())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	tree, err := tiles.Open(p.tree(j))
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

// Payloads loads the same with what each event of a service costs besides: the
// sequencer gives it its place, its payload is sealed, and the index follows.
func Payloads(run measure.Load) func(context.Context, measure.Env) (measure.Figures, error) {
	return func(ctx context.Context, e measure.Env) (f measure.Figures, err error) {
		p, err := create(e.Dir)
		if err != nil {
			return nil, err
		}
		err = p.withSequencer(ctx, func(ctx context.Context, w work) error {
			time.Sleep(WarmUp)
			f, err = run(ctx, e, submitter(w.seq))
			return err
		})
		return f, err
	}
}

// A work is what runs in a log.
type work struct {
	journal *journal.Journal
	index   *index.Index
	seq     *sequencer.Sequencer
}

// withSequencer runs f with a sequencer for a journal that a tree and an index follow to the end.
func (p place) withSequencer(ctx context.Context, f func(context.Context, work) error) error {
	return p.withTree(ctx, func(ctx context.Context, j *journal.Journal) (err error) {
		logger := slog.New(slog.DiscardHandler)
		x, err := index.Open(index.Config{Dir: p.data("index"), Origin: Origin, Logger: logger})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, x.Close()) }()
		if err := x.CatchUp(ctx, j); err != nil {
			return err
		}
		received, err := lastReceived(j)
		if err != nil {
			return err
		}
		seq := sequencer.New(sequencer.Config{
			Origin: Origin, Journal: orderOf{j}, Index: x, Control: noControl{}, Logger: logger,
			Next: j.Size(), LastReceived: received, QueueRequests: 1 << 16,
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
			return errors.Join(f(ctx, work{j, x, seq}), x.Wait(ctx, j.Size()))
		})
		return g.Wait()
	})
}

// lastReceived is the time of the last entry; no later one may be before it.
func lastReceived(j *journal.Journal) (uint64, error) {
	size := j.Size()
	if size == 0 {
		return 0, nil
	}
	last, err := j.Entries(size-1, 1, log.EntryMaxBytes)
	if err != nil {
		return 0, err
	}
	e, err := log.ParseEntry(last[0])
	return e.Log.Received, err
}

const (
	payloadEntryBytes = 700
	payloadBytes      = 300
)

// PayloadSizes says what an event of Payloads has.
var PayloadSizes = fmt.Sprintf("entry %d B and sealed payload %d B", payloadEntryBytes, payloadBytes)

const streams = 64

// submitter submits events with payloads to some streams in turn. The log keeps
// the streams, since then events may come in any order, as an open loop needs.
func submitter(seq *sequencer.Sequencer) measure.Appender {
	payload := newPayload()
	requests := make([]sequencer.Request, streams)
	for i := range requests {
		requests[i] = request(i, payload)
	}
	return func(ctx context.Context, n int) error {
		req := requests[n%streams]
		req.Events = []log.Event{req.Events[0]} // the sequencer fills in the place
		_, err := seq.Submit(ctx, req)
		return err
	}
}

func newPayload() *log.Payload {
	p := &log.Payload{Bytes: fmt.Appendf(nil, "%q", strings.Repeat("x", payloadBytes-2))}
	rand.Read(p.Salt[:])
	return p
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
