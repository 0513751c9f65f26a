package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/pipe-roll/piperoll/examples/crm/migrate"
	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
)

// This file is all that the service has to do with the log.

// A connection says which log to write to, and as whom.
type connection struct {
	url, tokenFile             string
	logKeyFile, receiptKeyFile string
	principal, keyFile         string
	// outboxDir is the service's memory: what it has logged and is not final yet, where
	// its streams are, and the newest checkpoint. With it the service can be killed
	// at any time and run again, and a log that forks or forgets meanwhile is caught.
	outboxDir string
}

// open connects. keep is called with what the log has acknowledged.
func (c connection) open(keep func([]client.Placed) error) (*client.Client, error) {
	var errs []error
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, err)
		}
		return strings.TrimSpace(string(b))
	}
	config := client.Config{
		URL: c.url, Token: read(c.tokenFile), LogKey: read(c.logKeyFile), ReceiptKey: read(c.receiptKeyFile), Principal: c.principal,
		Outbox: &client.OutboxConfig{Dir: c.outboxDir, Keep: keep},
	}
	name, key, err := client.ReadKeyFile(c.keyFile)
	if err != nil {
		errs = append(errs, err)
	} else if name != c.principal {
		errs = append(errs, fmt.Errorf("key file %s is of %q, not of %q", c.keyFile, name, c.principal))
	}
	config.Key = key
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return client.New(config)
}

// An audit is a migration in the log, open. It is the migration's
// [migrate.Audit].
type audit struct {
	connection connection
	client     *client.Client
	migration  *client.Migration
	streams    map[string]*client.Stream
	logged     map[string]int // events of earlier runs, by stream
	given      map[string]int // events that were given to Append
	resumed    bool
	keep       *keeper
	events     atomic.Int64 // acknowledged to this run
}

// openAudit opens the migration with all its streams, or takes up those that an
// earlier run has left. What is to come is announced first: a stream that is left out
// later leaves a hole that shows.
func openAudit(ctx context.Context, c connection, name string, streams []string, keep *keeper) (a *audit, err error) {
	a = &audit{
		connection: c, streams: map[string]*client.Stream{},
		logged: map[string]int{}, given: map[string]int{}, keep: keep,
	}
	if a.client, err = c.open(a.acknowledged); err != nil {
		return nil, err
	}
	if err := a.open(ctx, name, streams); err != nil {
		return nil, errors.Join(a.caught(err), a.client.Close())
	}
	return a, nil
}

func (a *audit) open(ctx context.Context, name string, streams []string) (err error) {
	if a.migration, err = a.client.OpenMigration(ctx, name, client.MigrationConfig{Streams: streams}); err != nil {
		return err
	}
	a.resumed = a.migration.Resumed()
	if a.migration.Closed() {
		// All of it is logged, down to the last event. Whoever wants to see it again goes
		// through it once more.
		for _, s := range append([]string{migrate.Control}, streams...) {
			a.logged[s] = math.MaxInt
		}
		return nil
	}
	a.streams[migrate.Control] = a.migration.Control()
	a.logged[migrate.Control] = int(a.migration.Control().End().Last) - 2 // beside stream.open and migration.open
	for _, s := range streams {
		if a.streams[s], err = a.migration.OpenStream(ctx, s); err != nil {
			return err
		}
		a.logged[s] = int(a.streams[s].End().Last) - 1
	}
	return nil
}

// Logged is of the [migrate.Audit] interface.
func (a *audit) Logged(stream string) int { return a.logged[stream] }

// Append logs events and returns when the log has acknowledged them with a
// receipt, which the SDK has checked.
func (a *audit) Append(ctx context.Context, stream string, events ...migrate.Event) error {
	list := make([]client.Event, len(events))
	for i, e := range events {
		objects := make([]log.Object, len(e.Objects))
		for j, o := range e.Objects {
			objects[j] = log.Object{Name: o.Name, Role: o.Role}
		}
		list[i] = client.Event{Kind: e.Kind, Objects: objects, Type: log.JSONType, Payload: e.Payload}
	}
	return a.append(ctx, stream, list...)
}

// append logs those of the events that no earlier run has logged. The outbox takes all
// events of a call or none, so a run never breaks off between them.
func (a *audit) append(ctx context.Context, stream string, events ...client.Event) error {
	before := min(max(a.logged[stream]-a.given[stream], 0), len(events))
	a.given[stream] += len(events)
	if before == len(events) {
		return nil
	}
	_, err := a.streams[stream].Append(ctx, events[before:]...)
	return a.caught(err)
}

// acknowledged is called with the events of each request that the log has acknowledged,
// once at least, whichever run they are of.
func (a *audit) acknowledged(placed []client.Placed) error {
	if err := a.keep.placed(placed); err != nil {
		return err
	}
	a.events.Add(int64(len(placed)))
	return nil
}

// Close ends a stream. The end of the control stream is that of the migration:
// its last event lists where every stream ends, so that none can be cut short.
func (a *audit) Close(ctx context.Context, stream string) error {
	switch {
	case a.migration.Closed():
		return nil
	case stream == migrate.Control:
		return a.caught(a.migration.Close(ctx))
	}
	return a.caught(a.streams[stream].Close(ctx))
}

// finish waits until every event is under a published checkpoint and its
// inclusion proof is checked. Before that the log has promised it, after that
// it cannot take it back.
func (a *audit) finish(ctx context.Context) error {
	if err := a.client.Wait(ctx); err != nil {
		return a.caught(err)
	}
	return a.keep.checkpoint(a.client.Checkpoint())
}

// close gives the outbox back. What is in it is sent by the next run.
func (a *audit) close() error { return a.client.Close() }

// caught saves what a log was caught at, if err is that, before passing it on:
// the evidence is all that will be left of the matter.
func (a *audit) caught(err error) error {
	var evidence *client.Evidence
	if !errors.As(err, &evidence) {
		return err
	}
	dir := a.connection.outboxDir + ".evidence"
	return errors.Join(err, evidence.Save(dir), fmt.Errorf("the evidence is in %s", dir))
}

// A keeper keeps what the log has answered: the entries and the receipts. With
// them the service can convict a log that drops an entry later. A nil keeper
// keeps nothing.
type keeper struct{ dir string }

// newKeeper makes the directory. One that is there must be of an earlier run of the same
// migration, which broke off. The files are named as in an export of the log.
func newKeeper(dir, migration string) (*keeper, error) {
	if dir == "" {
		return nil, nil
	}
	k := &keeper{dir}
	if was, err := os.ReadFile(k.owner()); err == nil && string(was) == migration {
		return k, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("make output directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !(errors.Is(err, fs.ErrExist) && k.empty()) {
		return nil, fmt.Errorf("make output directory: %w; give one that is not there yet", err)
	}
	for _, kind := range []log.ExportKind{log.ExportEvent, log.ExportReceipt} {
		if err := os.Mkdir(filepath.Join(dir, log.ExportFile{Kind: kind}.Folder()), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make output directory: %w", err)
		}
	}
	if err := os.WriteFile(k.owner(), []byte(migration), 0o600); err != nil {
		return nil, fmt.Errorf("make output directory: %w", err)
	}
	return k, nil
}

// owner is the file that says whose answers are kept.
func (k *keeper) owner() string { return filepath.Join(k.dir, "migration") }

// empty says whether the directory holds no file: a run ended while it made it.
func (k *keeper) empty() bool {
	files := 0
	err := filepath.WalkDir(k.dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files++
		}
		return err
	})
	return err == nil && files == 0
}

func (k *keeper) write(f log.ExportFile, data []byte) error {
	if err := os.WriteFile(filepath.Join(k.dir, filepath.FromSlash(f.Path())), data, 0o600); err != nil {
		return fmt.Errorf("keep the log's answer: %w", err)
	}
	return nil
}

func (k *keeper) placed(placed []client.Placed) error {
	if k == nil {
		return nil
	}
	for i, p := range placed {
		if err := k.write(log.ExportFile{Kind: log.ExportEvent, Number: p.Index}, p.Entry); err != nil {
			return err
		}
		// Events of one request share a receipt, which is named for the first.
		if i == 0 || string(p.Receipt) != string(placed[i-1].Receipt) {
			if err := k.write(log.ExportFile{Kind: log.ExportReceipt, Number: p.Index}, p.Receipt); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *keeper) checkpoint(note []byte) error {
	if k == nil {
		return nil
	}
	return k.write(log.ExportFile{Kind: log.ExportCheckpoint}, note)
}

func (k *keeper) report(r migrate.Report) error {
	if k == nil {
		return nil
	}
	return writeJSON(filepath.Join(k.dir, "report.json"), r)
}
