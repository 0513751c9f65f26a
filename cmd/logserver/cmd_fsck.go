package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
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

Exit code 0: all is well. 1: something is wrong, and printed. 4: it is of a version
that this program does not know. 6: it could not be read to its end. How far it is
goes to standard error.

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
		printf(errOut, "logserver: %v\n", err)
		return exitUsage
	}
	c.rebuild, c.examine = *rebuild, true
	logger := slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: slog.LevelWarn}))
	f := &fsck{out: out, errOut: errOut, findings: log.NewFindings(), gone: make(map[uint64]bool), keyless: make(map[uint64]bool), ordered: make(map[uint64]uint64)}
	f.stage("opening the log")
	f.l, err = openLedger(ctx, c, logger)
	if err == nil {
		err = errors.Join(f.run(ctx), f.l.close())
	}
	code := exitCode(err)
	switch code {
	case exitOK:
		if len(f.keyless) > 0 {
			printf(out, "NOT CHECKED: %d payloads cannot be opened: the log was restored without its folder journal/keys, or not all of it\n", len(f.keyless))
		}
		printf(out, "OK: %d entries, %d payloads, %d erased, tree of size %d, %d index keys\n",
			f.l.journal.Size(), f.payloads, len(f.gone), f.l.tree.Head().Size, f.keys)
	case exitFailed:
		printf(out, "FAIL\n%v\n", err)
	default:
		printf(out, "NOT CHECKED\n%v\n", err)
		if errors.Is(err, disk.ErrLocked) {
			printf(errOut, "hint: stop the server first\n")
		}
	}
	return code
}

// fsck is one run over a whole log.
type fsck struct {
	l           *ledger
	out, errOut io.Writer
	findings    *log.Findings
	payloads    int
	gone        map[uint64]bool   // indexes whose payloads are erased on disk
	keyless     map[uint64]bool   // indexes whose payloads are there, but not the keys
	ordered     map[uint64]uint64 // index erased, to the payload.erased that says so
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
		// A migration that is still going on is not complete, and no fault.
		if c.Status == log.Fail && !strings.HasPrefix(c.ID, "complete.") {
			errs = append(errs, fmt.Errorf("%w: %s: %d faults: %v", errCheck, c.ID, c.Count, c.Reasons))
		}
	}
	f.stage("deriving the tiles")
	if err := f.l.tree.Check(ctx, func(done, total uint64) { f.progress("tiles", done, total) }); err != nil {
		errs = append(errs, fault(fmt.Errorf("tiles: %w", err)))
	}
	return errors.Join(errs...)
}

// entries reads every record once, for the journal's own checks, the audit, the
// index and the erasures.
func (f *fsck) entries(ctx context.Context) error {
	check, err := f.l.index.NewCheck(filepath.Join(f.l.c.DataDir, "fsck.tmp"))
	if err != nil {
		return err
	}
	defer func() { _ = check.Close() }() // a scratch folder
	f.stage("reading the records")
	size := f.l.journal.Size()
	audit := log.NewAudit(log.AuditConfig{
		Origin: f.l.c.Origin, LogKeys: f.l.open.Keys, Has: func(i uint64) bool { return i < size },
	}, f.findings)
	err = f.l.journal.Check(ctx, func(done, total uint64) { f.progress("records", done, total) }, func(r journal.Checked) error {
		return f.record(r, audit, check)
	})
	if errors.Is(err, journal.ErrCorrupt) {
		err = fmt.Errorf("%w: %w", errCheck, err)
	}
	if err != nil {
		return err
	}
	audit.Finish()
	for _, err := range f.l.ignored {
		f.findings.Fail("control", "%v", err)
	}
	f.erasures()
	f.stage("comparing the index")
	f.keys, err = check.Compare(ctx, 20, func(d index.Difference) { f.findings.Fail("index", "%s: %s", d.Key, d.Fault) })
	return err
}

// record checks one record as it is on disk.
func (f *fsck) record(r journal.Checked, audit *log.Audit, check *index.Check) error {
	e, err := log.ParseEntry(r.Entry)
	if err != nil {
		return fmt.Errorf("%w: entry %d: %w", errCheck, r.Index, err)
	}
	item := index.Item{Index: r.Index, Entry: e, Hash: e.Event.Hash()}
	exhibit := log.Exhibit{Index: r.Index, Entry: e}
	switch {
	case r.State == journal.PayloadErased:
		f.gone[r.Index] = true
	case r.State == journal.PayloadNoKey && log.Erasable(e.Event.Kind):
		f.keyless[r.Index] = true
	case e.Event.Payload == nil && r.State != journal.PayloadNone, e.Event.Payload != nil && r.Payload == nil:
		f.findings.Fail("payload", "entry %d: there is a payload where none is committed to, or the reverse", r.Index)
	case e.Event.Payload != nil:
		f.payloads++
		if err := e.Event.Payload.Check(*r.Payload); err != nil {
			f.findings.Fail("payload", "entry %d: %v", r.Index, err)
		}
		exhibit.Disclosed = true
		if !log.Erasable(e.Event.Kind) {
			item.Payload = r.Payload.Bytes
		}
		if log.Structural(e.Event.Kind) {
			exhibit.Payload = r.Payload.Bytes
		}
		if e.Event.Kind == "payload.erased" {
			f.noteErasure(r.Index, r.Payload.Bytes)
		}
	}
	if err := audit.Add(exhibit); err != nil {
		return fmt.Errorf("entry %d: %w", r.Index, err)
	}
	if err := check.Apply([]index.Item{item}); err != nil {
		return fmt.Errorf("entry %d: %w", r.Index, err)
	}
	return nil
}

func (f *fsck) noteErasure(index uint64, payload []byte) {
	p, err := log.ParsePayloadErased(payload)
	if err != nil {
		f.findings.Fail("erasure", "entry %d: %v", index, err)
		return
	}
	f.ordered[p.Index] = index
}

// erasures compares what is gone with what entries say is erased: a payload
// may be missing only if an entry covers it, and must be if one does.
func (f *fsck) erasures() {
	for i := range f.gone {
		if _, ok := f.ordered[i]; !ok {
			f.findings.Fail("erasure", "the payload of entry %d is gone, and no payload.erased says so", i)
		}
	}
	for i, by := range f.ordered {
		if !f.gone[i] && !f.keyless[i] {
			f.findings.Fail("erasure", "entry %d erases the payload of entry %d, and it is still there: the next start of the server destroys it", by, i)
		}
	}
}

// stage tells what comes next: any of it can take minutes.
func (f *fsck) stage(what string) {
	f.told = time.Now()
	printf(f.errOut, "fsck: %s\n", what)
}

// progress tells how far long work is, every few seconds.
func (f *fsck) progress(what string, done, total uint64) {
	if time.Since(f.told) > 2*time.Second {
		f.told = time.Now()
		printf(f.errOut, "fsck: %s %d of %d\n", what, done, total)
	}
}
