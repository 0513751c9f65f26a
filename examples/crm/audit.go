package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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
	// checkpointFile remembers the newest checkpoint between runs, so that a
	// log that forks while the service is away is caught.
	checkpointFile string
}

func (c connection) open() (*client.Client, error) {
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
	}
	name, key, err := client.ReadKeyFile(c.keyFile)
	if err != nil {
		errs = append(errs, err)
	} else if name != c.principal {
		errs = append(errs, fmt.Errorf("key file %s is of %q, not of %q", c.keyFile, name, c.principal))
	}
	config.Key = key
	config.Checkpoint, err = os.ReadFile(c.checkpointFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
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
	keep       *keeper
	events     int // appended, beside those that open and close
}

// openAudit opens the migration with all its streams. What is to come is
// announced first: a stream that is left out later leaves a hole that shows.
func openAudit(ctx context.Context, c connection, name string, streams []string, keep *keeper) (*audit, error) {
	service, err := c.open()
	if err != nil {
		return nil, err
	}
	a := &audit{connection: c, client: service, streams: map[string]*client.Stream{}, keep: keep}
	if a.migration, err = service.OpenMigration(ctx, name, client.MigrationConfig{Streams: streams}); err != nil {
		return nil, a.caught(err)
	}
	a.streams[migrate.Control] = a.migration.Control()
	for _, s := range streams {
		if a.streams[s], err = a.migration.OpenStream(ctx, s); err != nil {
			return nil, a.caught(err)
		}
	}
	return a, nil
}

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

func (a *audit) append(ctx context.Context, stream string, events ...client.Event) error {
	placed, err := a.streams[stream].Append(ctx, events...)
	a.events += len(placed)
	// Also of an append that failed half-way, what was acknowledged is in the log.
	return errors.Join(a.keep.placed(placed), a.caught(err))
}

// Close ends a stream. The end of the control stream is that of the migration:
// its last event lists where every stream ends, so that none can be cut short.
func (a *audit) Close(ctx context.Context, stream string) error {
	if stream == migrate.Control {
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
	checkpoint := a.client.Checkpoint()
	if err := replaceFile(a.connection.checkpointFile, checkpoint); err != nil {
		return fmt.Errorf("remember checkpoint: %w", err)
	}
	return a.keep.checkpoint(checkpoint)
}

// caught saves what a log was caught at, if err is that, before passing it on:
// the evidence is all that will be left of the matter.
func (a *audit) caught(err error) error {
	var evidence *client.Evidence
	if !errors.As(err, &evidence) {
		return err
	}
	dir := a.connection.checkpointFile + ".evidence"
	return errors.Join(err, evidence.Save(dir), fmt.Errorf("the evidence is in %s", dir))
}

func replaceFile(path string, data []byte) error {
	next := path + ".new"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// A keeper keeps what the log has answered: the entries and the receipts. With
// them the service can convict a log that drops an entry later. A nil keeper
// keeps nothing.
type keeper struct{ dir string }

// newKeeper makes the directory, which must not be there. The files are named
// as in an export of the log.
func newKeeper(dir string) (*keeper, error) {
	if dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("make output directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make output directory: %w; give one that is not there yet", err)
	}
	k := &keeper{dir}
	for _, kind := range []log.ExportKind{log.ExportEvent, log.ExportReceipt} {
		if err := os.Mkdir(filepath.Join(dir, log.ExportFile{Kind: kind}.Folder()), 0o700); err != nil {
			return nil, fmt.Errorf("make output directory: %w", err)
		}
	}
	return k, nil
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
