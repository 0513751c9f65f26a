package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/index"
	"github.com/pipe-roll/piperoll/log/journal"
)

func cmdFsck(ctx context.Context, args []string, out, errOut io.Writer, _ io.Reader) int {
	fs := newFlags("fsck", errOut, `logserver fsck -config FILE [-rebuild]

Reads the whole log and derives everything from it again: that the journal's
records and sealed payloads are whole, every payload the one its entry commits
to, every stream unbroken and signed, every tile, bundle and published
checkpoint what the entries give, the index what it should be, and everything
erased gone. The server must be stopped. It changes nothing but what a start of
the server would, too.

Exit code 0: all is well. 1: something is wrong, and printed. 6: it could not be read.

Example:
  logserver fsck -config mylog/config.yaml
`)
	config := fs.String("config", "", "configuration `file`")
	rebuild := fs.Bool("rebuild", false, "first derive all tiles again from the journal, as far as that gives what was signed")
	if code, done := parseFlags(fs, args, out); done {
		return code
	}
	if *config == "" || fs.NArg() != 0 {
		fs.Usage()
		return exitUsage
	}
	c, err := readConfig(*config)
	if err != nil {
		fmt.Fprintf(errOut, "logserver: %v\n", err)
		return exitUsage
	}
	c.rebuild = *rebuild
	logger := slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: slog.LevelWarn}))
	l, err := openLedger(ctx, c, logger)
	if err != nil {
		fmt.Fprintf(errOut, "logserver: fsck: %v\n", err)
		if errors.Is(err, disk.ErrLocked) {
			fmt.Fprintln(errOut, "hint: stop the server first")
			return exitIO
		}
		return exitFailed
	}
	f := &fsck{l: l, out: out, errOut: errOut, findings: log.NewFindings()}
	err = errors.Join(f.run(ctx), l.close())
	if err != nil {
		fmt.Fprintf(out, "FAIL\n%v\n", err)
		return exitFailed
	}
	fmt.Fprintf(out, "OK: %d entries, %d payloads, %d erased, tree of size %d, %d index keys\n",
		l.journal.Size(), f.payloads, f.erased, l.tree.Head().Size, f.keys)
	return exitOK
}

// fsck is one run over a whole log.
type fsck struct {
	l           *ledger
	out, errOut io.Writer
	findings    *log.Findings
	payloads    int
	erased      int
	keys        uint64
	told        time.Time
}

// run does all checks; the error says everything that is wrong.
func (f *fsck) run(ctx context.Context) error {
	if err := f.entries(ctx); err != nil {
		return err
	}
	var errs []error
	for _, c := range f.findings.All() {
		if c.Status == log.Fail {
			errs = append(errs, fmt.Errorf("%w: %s: %d faults: %v", errCheck, c.ID, c.Count, c.Reasons))
		}
	}
	if err := f.l.tree.Check(ctx, func(done, total uint64) { f.progress("tiles", done, total) }); err != nil {
		errs = append(errs, fmt.Errorf("%w: tiles: %w", errCheck, err))
	}
	return errors.Join(errs...)
}

// entries reads every record once, for the audit and the index.
func (f *fsck) entries(ctx context.Context) error {
	check, err := f.l.index.NewCheck(filepath.Join(f.l.c.DataDir, "fsck.tmp"))
	if err != nil {
		return err
	}
	defer check.Close() //nolint:errcheck // a scratch folder
	size := f.l.journal.Size()
	audit := log.NewAudit(log.AuditConfig{
		Origin: f.l.c.Origin, LogKeys: f.l.open.Keys, Has: func(i uint64) bool { return i < size },
	}, f.findings)
	for i := range size {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("stopped at entry %d: %w", i, err)
		}
		f.progress("entries", i, size)
		e, payload, err := f.record(i)
		if err != nil {
			return fmt.Errorf("%w: %w", errCheck, err)
		}
		item := index.Item{Index: i, Entry: e, Hash: e.Event.Hash()}
		exhibit := log.Exhibit{Index: i, Entry: e, Disclosed: payload != nil}
		if payload != nil && !log.Erasable(e.Event.Kind) {
			item.Payload = payload.Bytes
		}
		if payload != nil && log.Structural(e.Event.Kind) {
			exhibit.Payload = payload.Bytes
		}
		if err := audit.Add(exhibit); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if err := check.Apply([]index.Item{item}); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
	}
	f.keys, err = check.Compare(ctx, 20, func(d index.Difference) { f.findings.Fail("index", "%s: %s", d.Key, d.Fault) })
	return err
}

// record reads a record, and its payload unless that is erased.
func (f *fsck) record(i uint64) (log.Entry, *log.Payload, error) {
	e, err := f.l.entry(i)
	if err != nil || e.Event.Payload == nil {
		return e, nil, err
	}
	p, err := f.l.journal.Payload(i)
	switch {
	case errors.Is(err, journal.ErrErased):
		f.erased++
		return e, nil, nil
	case err != nil:
		return e, nil, fmt.Errorf("payload of entry %d: %w", i, err)
	}
	f.payloads++
	return e, &p, e.Event.Payload.Check(p)
}

// progress tells how far long work is, every few seconds.
func (f *fsck) progress(what string, done, total uint64) {
	if f.told.IsZero() {
		f.told = time.Now()
	}
	if time.Since(f.told) > 2*time.Second {
		f.told = time.Now()
		fmt.Fprintf(f.errOut, "fsck: %s %d of %d\n", what, done, total)
	}
}
