package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/index"
	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/pipe-roll/piperoll/log/reader"
	"github.com/pipe-roll/piperoll/log/sequencer"
	"github.com/pipe-roll/piperoll/log/tiles"
	"golang.org/x/sync/errgroup"
)

// A ledger is one log with all its machinery.
type ledger struct {
	c      Config
	logger *slog.Logger

	checkpoints keyPair
	receipts    keyPair
	open        log.LogOpen // entry 0

	lock    io.Closer
	journal *journal.Journal
	tree    *tiles.Tree
	index   *index.Index
	reader  *reader.Reader
	access  *access
	ignored []error // why entries were left out of a fold
	seq     *sequencer.Sequencer

	erasing sync.RWMutex // held from the check of a payload to its erasure; who gives one out reads it under RLock
}

// The log's streams.
var (
	streamOpen     = log.ServerStream("open")
	streamAccess   = log.ServerStream("access")
	streamKeys     = log.ServerStream("keys")
	streamPayloads = log.ServerStream("payloads")
	streamRefusals = log.ServerStream("refusals")
	streamReads    = log.ServerStream("reads")
)

// proofTiles is how many tiles the reader keeps, 16 KiB each.
const proofTiles = 4096

func (c Config) journalConfig(logger *slog.Logger, atLeast uint64) journal.Config {
	return journal.Config{Dir: filepath.Join(c.DataDir, "journal"), FS: c.fs, Logger: logger, AtLeast: atLeast}
}

func (c Config) tilesConfig(key keyPair, source tiles.Source, logger *slog.Logger) tiles.Config {
	return tiles.Config{
		Dir: filepath.Join(c.DataDir, "tiles"), StateDir: filepath.Join(c.DataDir, "state"), AnchorDir: c.AnchorDir,
		FS: c.fs, Origin: c.Origin, Signer: key.Signer, Verifier: key.verifier, Source: source,
		Round: c.Round, Publish: c.Publish, Idle: c.IdlePublish, Rebuild: c.rebuild, Logger: logger,
	}
}

// openLedger opens a log in this order, each step refusing what it cannot
// vouch for, before anything is served or signed:
//
//	lock -> keys -> anchor (what was signed last) -> journal (at least that
//	much) -> tiles (the same tree) -> index (follows to the end) -> folds ->
//	erasures again -> sequencer
func openLedger(ctx context.Context, c Config, logger *slog.Logger) (l *ledger, err error) {
	l = &ledger{c: c, logger: logger, access: newAccess(time.Now)}
	defer func() {
		if err != nil {
			err = errors.Join(fault(err), l.close())
		}
	}()
	if l.lock, err = c.fs.Lock(filepath.Join(c.DataDir, "lock")); errors.Is(err, disk.ErrLocked) {
		return l, fmt.Errorf("open log %s: another process uses it: %w", c.Origin, err)
	} else if err != nil {
		return l, fmt.Errorf("open log %s: take its lock: %w", c.Origin, err)
	}
	if l.checkpoints, err = readKey(c.CheckpointKey, c.Origin); err != nil {
		return l, err
	}
	if l.receipts, err = readKey(c.ReceiptKey, log.ReceiptKeyName(c.Origin)); err != nil {
		return l, err
	}
	anchor, err := tiles.ReadAnchor(c.tilesConfig(l.checkpoints, nil, logger))
	if err != nil {
		return l, fmt.Errorf("open log %s: %w", c.Origin, err)
	}
	if l.journal, err = journal.Open(c.journalConfig(logger, anchor.Size)); err != nil {
		return l, fmt.Errorf("open log %s: %w", c.Origin, err)
	}
	if l.tree, err = tiles.Open(c.tilesConfig(l.checkpoints, l.journal, logger)); err != nil {
		return l, fmt.Errorf("open log %s: %w", c.Origin, err)
	}
	l.reader = reader.New(l.tree, proofTiles)
	if err = l.openIndex(ctx); err == nil {
		err = l.replay()
	}
	if err != nil {
		return l, fmt.Errorf("open log %s: %w", c.Origin, err)
	}
	return l, nil
}

// openIndex opens the index and lets it follow to the end of the journal: the
// sequencer relies on it for every head that is not in memory.
func (l *ledger) openIndex(ctx context.Context) (err error) {
	l.index, err = index.Open(index.Config{Dir: filepath.Join(l.c.DataDir, "index"), Origin: l.c.Origin, Logger: l.logger})
	if err != nil {
		return err
	}
	if err := l.index.CatchUp(ctx, l.journal); err != nil {
		return fmt.Errorf("index the journal: %w", err)
	}
	return nil
}

// replay runs the folds over the control entries, applies every erasure again
// (a restored backup may hold what was erased), and makes the sequencer.
func (l *ledger) replay() error {
	lastControl := uint64(0)
	err := l.index.Control(func(i uint64) error {
		e, payload, err := l.structural(i)
		if err != nil {
			return err
		}
		lastControl = i
		if i == 0 {
			if l.open, err = log.ParseLogOpen(payload); err != nil {
				return fmt.Errorf("entry 0: %w", err)
			}
		}
		// The sequencer lets none in that the fold does not take. If one is there
		// all the same, the fold goes on without it, as a verifier's does.
		if err := l.access.Apply(i, e, payload); err != nil {
			l.ignore(i, err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("replay control entries: %w", err)
	}
	if err := l.checkOpen(); err != nil {
		return err
	}
	if !l.c.examine {
		if err := l.eraseAgain(); err != nil {
			return err
		}
	}
	size := l.journal.Size()
	last, err := l.entry(size - 1)
	if err != nil {
		return err
	}
	l.seq = sequencer.New(sequencer.Config{
		Origin: l.c.Origin, Journal: orderOf{l.journal}, Index: l.index, Control: l.access, Logger: l.logger,
		Next: size, LastControl: lastControl, LastReceived: last.Log.Received, QueueRequests: l.c.Limits.Queue,
	})
	return nil
}

// ignore notes an entry that a fold goes on without. It is a finding of fsck.
func (l *ledger) ignore(i uint64, err error) {
	l.logger.Error("ignored entry", "index", i, "err", err)
	l.ignored = append(l.ignored, err)
}

// checkOpen holds the configured origin and keys to what entry 0 says.
func (l *ledger) checkOpen() error {
	if l.open.Origin != l.c.Origin {
		return fmt.Errorf("entry 0 opens log %q, the configuration says %q", l.open.Origin, l.c.Origin)
	}
	for _, k := range l.open.Keys {
		have, ok := map[string]keyPair{log.PurposeCheckpoint: l.checkpoints, log.PurposeReceipt: l.receipts}[k.Purpose]
		if !ok || have.vkey != k.VKey {
			return fmt.Errorf("the %s key is not the one that entry 0 names, %s: put the right key file back", k.Purpose, k.VKey)
		}
	}
	return nil
}

func (l *ledger) eraseAgain() error {
	return l.index.Kinds("payload.erased", 0, func(i uint64) error {
		_, payload, err := l.structural(i)
		if err != nil {
			return err
		}
		p, err := log.ParsePayloadErased(payload)
		if err != nil {
			l.ignore(i, fmt.Errorf("entry %d: %w", i, err))
			return nil
		}
		if err := l.journal.Erase(p.Index); err != nil {
			return fmt.Errorf("erase the payload of entry %d again, as entry %d says: %w", p.Index, i, err)
		}
		return nil
	})
}

// structural reads an entry and its payload, for the folds.
func (l *ledger) structural(i uint64) (log.Entry, []byte, error) {
	e, err := l.entry(i)
	if err != nil || e.Event.Payload == nil {
		return e, nil, err
	}
	p, err := l.journal.Payload(i)
	if err != nil {
		return e, nil, fmt.Errorf("read payload of entry %d: %w", i, err)
	}
	return e, p.Bytes, nil
}

// hasPayload says why an entry's payload is not to be had, without opening it.
func (l *ledger) hasPayload(i uint64) error {
	state, err := l.journal.HasPayload(i)
	switch {
	case err != nil:
	case state == journal.PayloadNone:
		err = journal.ErrNoPayload
	case state == journal.PayloadErased:
		err = journal.ErrErased
	case state == journal.PayloadNoKey:
		err = journal.ErrNoKey
	}
	if err != nil {
		return fmt.Errorf("payload of entry %d: %w", i, err)
	}
	return nil
}

// openPayload opens a payload for who has a record of it: an erasure whose entry is before that record has ended, or
// ends first.
func (l *ledger) openPayload(i uint64) (log.Payload, error) {
	l.erasing.RLock()
	defer l.erasing.RUnlock()
	p, err := l.journal.Payload(i)
	if err != nil {
		return p, fmt.Errorf("payload of entry %d: %w", i, err)
	}
	return p, nil
}

// entryBytes reads a durable entry.
func (l *ledger) entryBytes(i uint64) ([]byte, error) {
	if i >= l.journal.Size() {
		return nil, fmt.Errorf("%w: entry %d; the log has %d", errNotFound, i, l.journal.Size())
	}
	found, err := l.journal.Entries(i, 1, log.EntryMaxBytes)
	if err != nil {
		return nil, fmt.Errorf("read entry %d: %w", i, err)
	}
	return found[0], nil
}

func (l *ledger) entry(i uint64) (log.Entry, error) {
	b, err := l.entryBytes(i)
	if err != nil {
		return log.Entry{}, err
	}
	e, err := log.ParseEntry(b)
	if err != nil {
		return log.Entry{}, fmt.Errorf("entry %d: %w", i, err)
	}
	return e, nil
}

// run runs the log until ctx is done. The sequencer stops first, so that the
// tree and the index still see all that was acknowledged; then the tree
// publishes it. Whatever of them fails before makes the log read-only, and
// nothing else: reads go on, and so do the other logs of the server.
func (l *ledger) run(ctx context.Context) error {
	after, stopRest := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRest()
	var g errgroup.Group
	g.Go(func() error {
		defer stopRest()
		return l.seq.Run(ctx)
	})
	g.Go(func() error {
		select {
		case <-l.journal.Failed():
			l.seq.Latch(l.journal.Err())
		case <-l.tree.Failed():
			l.seq.Latch(l.tree.Err())
		case <-l.index.Failed():
			l.seq.Latch(l.index.Err())
		case <-after.Done():
		}
		return nil
	})
	g.Go(func() error { l.follow(after); return nil })
	g.Go(func() error { return l.runTree(after) })
	return g.Wait()
}

// follow keeps the index at the end of the journal until ctx is done. Without
// it nobody knows the heads that are not in memory.
func (l *ledger) follow(ctx context.Context) {
	if err := ignoreCanceled(l.index.Follow(ctx, l.journal)); err != nil {
		l.seq.Latch(fmt.Errorf("index: %w", err))
	}
}

// runTree keeps the tree at the end of the journal until ctx is done, and then
// publishes the rest. Its error means that not all was published.
func (l *ledger) runTree(ctx context.Context) error {
	err := l.tree.Run(ctx)
	if err == nil {
		return nil
	}
	l.logger.Error("tree stopped", "err", err)
	return fmt.Errorf("publish all of log %s: %w", l.c.Origin, err)
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// close releases everything that is open, in reverse.
func (l *ledger) close() error {
	var errs []error
	if l.index != nil {
		errs = append(errs, l.index.Close())
	}
	if l.tree != nil {
		errs = append(errs, l.tree.Close())
	}
	if l.journal != nil {
		errs = append(errs, l.journal.Close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	return errors.Join(errs...)
}

// A server event is one that the log makes itself.
type serverEvent struct {
	kind, stream string
	by, auth     string
	objects      []log.Object
	payload      []byte // JSON, or nil
}

// record commits an event that the log makes by itself, and returns when it is
// durable.
func (l *ledger) record(ctx context.Context, e serverEvent) (sequencer.Result, error) {
	return l.seq.Submit(ctx, e.request())
}

// recordFor commits a server event that somebody asked for, who must be allowed
// to when it gets its place, and not only when the request came: its body may
// have been held back until after a revocation.
func (l *ledger) recordFor(ctx context.Context, by principal, need permission, e serverEvent) (sequencer.Result, error) {
	e.by, e.auth = by.name, by.auth
	req := e.request()
	req.AsOf = l.seq.LastControl()
	req.Authorize = func() error { return l.access.confirm(by, need) }
	if err := req.Authorize(); err != nil {
		return sequencer.Result{}, err
	}
	return l.seq.Submit(ctx, req)
}

func (e serverEvent) request() sequencer.Request {
	event, payload := e.event()
	return sequencer.Request{
		By: e.by, Auth: e.auth, ByLog: true,
		Events: []log.Event{event}, Payloads: []*log.Payload{payload},
	}
}

func (e serverEvent) event() (log.Event, *log.Payload) {
	event := log.Event{
		Actor: e.by, Kind: e.kind, Migration: "log", Stream: e.stream, Objects: e.objects,
		Time: uint64(time.Now().UnixMilli()),
	}
	if e.payload == nil {
		return event, nil
	}
	p := newPayload(e.payload)
	event.Payload = &log.Ref{Commitment: log.Commit(*p, log.JSONType), Type: log.JSONType}
	return event, p
}

// newPayload salts bytes that the log itself commits to.
func newPayload(b []byte) *log.Payload {
	p := &log.Payload{Bytes: b}
	rand.Read(p.Salt[:])
	return p
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
