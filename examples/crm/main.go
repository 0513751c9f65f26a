// Command crm migrates the customers, orders and invoices of an old database
// into a new one and logs every step, as a service that uses Piperoll does.
// It is meant to be read, and copied from: audit.go holds all that a service
// has to do for the log, package migrate where in the work it is done.
//
//	crm -dir D -url U -token-file T -log-vkey FILE -principal P -key FILE
//	crm replay -dir D -url U … FILE…
//
// It leaves out what the log's own commands do: the export of the proofs for
// an auditor (logserver export) and their check (verifier verify).
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pipe-roll/piperoll/examples/crm/migrate"
	"github.com/pipe-roll/piperoll/examples/crm/source"
)

// Exit codes, those of all commands of the project.
const (
	exitDone       = 0
	exitUnbalanced = 1 // the reconciliation does not add up
	exitUsage      = 2
	exitFailed     = 6 // the log cannot be reached or refuses, or I/O fails
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// errUsage means that the command line is wrong.
var errUsage = errors.New("usage")

// run is main without the process.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	var err error
	if len(args) > 0 && args[0] == "replay" {
		err = runReplay(ctx, args[1:], out, errOut)
	} else {
		err = runMigration(ctx, args, out, errOut)
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitDone
	case errors.Is(err, migrate.ErrUnbalanced):
		printf(errOut, "crm: %v\n", err)
		return exitUnbalanced
	case errors.Is(err, errUsage):
		printf(errOut, "crm: %v\n", err)
		return exitUsage
	}
	printf(errOut, "crm: %v\n", err)
	return exitFailed
}

// options are the flags of both commands.
type options struct {
	dir       string // the service's own files
	out       string // what it keeps of the log's answers; empty: nothing
	migration string
	log       connection
}

func (o *options) flags(set *flag.FlagSet, migration string) {
	set.StringVar(&o.dir, "dir", "", "`directory` of the databases and of what the service keeps between runs")
	set.StringVar(&o.out, "out", "", "new `directory` for the report, the entries and the log's receipts")
	set.StringVar(&o.migration, "migration", migration, "`name` of the migration; a log takes each name once")
	set.StringVar(&o.log.url, "url", "", "`address` of the log")
	set.StringVar(&o.log.tokenFile, "token-file", "", "`file` with the bearer token")
	set.StringVar(&o.log.logKeyFile, "log-vkey", "", "`file` with the log's verifier key")
	set.StringVar(&o.log.receiptKeyFile, "receipt-vkey", "", "`file` with the key of its receipts (default: receipt.vkey beside the log's)")
	set.StringVar(&o.log.principal, "principal", "", "`name` under which the log knows the service")
	set.StringVar(&o.log.keyFile, "key", "", "`file` with the private key that signs its events")
}

func (o *options) validate() error {
	var missing []string
	for _, f := range [][2]string{
		{"-dir", o.dir},
		{"-url", o.log.url},
		{"-token-file", o.log.tokenFile},
		{"-log-vkey", o.log.logKeyFile},
		{"-principal", o.log.principal},
		{"-key", o.log.keyFile},
	} {
		if f[1] == "" {
			missing = append(missing, f[0])
		}
	}
	if missing != nil {
		return fmt.Errorf("%w: %s missing; see crm -help", errUsage, strings.Join(missing, ", "))
	}
	if o.log.receiptKeyFile == "" {
		o.log.receiptKeyFile = filepath.Join(filepath.Dir(o.log.logKeyFile), "receipt.vkey")
	}
	o.log.checkpointFile = filepath.Join(o.dir, "log.checkpoint")
	return nil
}

// parse parses a command line: flags, then files.
func (o *options) parse(set *flag.FlagSet, args []string, errOut io.Writer) error {
	set.SetOutput(errOut)
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return o.validate()
}

func runMigration(ctx context.Context, args []string, out, errOut io.Writer) (err error) {
	var o options
	var data source.Config
	var limit int64
	set := flag.NewFlagSet("crm", flag.ContinueOnError)
	o.flags(set, "crm-2026")
	set.IntVar(&data.Customers, "customers", 100_000, "how many `customers` to make, if there is no database yet")
	set.Uint64Var(&data.Seed, "seed", 1, "`number` that chooses the data")
	set.Int64Var(&limit, "limit", 0, "rehearse with the first `rows` of each table; 0 means all")
	if err := o.parse(set, args, errOut); err != nil {
		return err
	}
	if set.NArg() > 0 || limit < 0 {
		return fmt.Errorf("%w: no arguments are expected, and no negative -limit", errUsage)
	}
	old := filepath.Join(o.dir, "crm-legacy.db")
	if err := prepare(ctx, o.dir, old, data, errOut); err != nil {
		return err
	}
	key, err := ownKey(filepath.Join(o.dir, "person.key"))
	if err != nil {
		return err
	}
	keep, err := newKeeper(o.out)
	if err != nil {
		return err
	}
	audit, err := openAudit(ctx, o.log, o.migration, migrate.Streams(), keep)
	if err != nil {
		return err
	}
	started := time.Now()
	report, err := migrate.Run(ctx, migrate.Config{
		Source: old, Target: filepath.Join(o.dir, "crm-new.db"), Key: key, Audit: audit, Limit: limit, Progress: progress(errOut),
	})
	if err != nil && !errors.Is(err, migrate.ErrUnbalanced) {
		return err
	}
	moved := time.Since(started)
	// Only now is the record final: under a checkpoint that the log published.
	if waiting := audit.finish(ctx); waiting != nil {
		return errors.Join(err, waiting)
	}
	summarise(out, report, audit.events, moved, time.Since(started))
	return errors.Join(err, keep.report(report))
}

// prepare makes the old database unless there is one.
func prepare(ctx context.Context, dir, old string, data source.Config, errOut io.Writer) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the service's directory: %w", err)
	}
	if _, err := os.Stat(old); err == nil {
		printf(errOut, "migrating the database that is there: %s\n", old)
		return nil
	}
	printf(errOut, "making %d customers, %d orders, %d invoices\n", data.Customers, data.Orders(), data.Invoices())
	return source.Generate(ctx, old, data)
}

// ownKey reads the service's secret for opaque names, and makes it the first time.
func ownKey(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		rand.Read(key) // never fails: see its documentation
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, fmt.Errorf("make key: %w", err)
		}
		_, err = f.WriteString(hex.EncodeToString(key) + "\n")
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return nil, fmt.Errorf("write key: %w", err)
		}
		return key, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("read key %s: want 64 hexadecimal digits", path)
	}
	return key, nil
}

// progress prints a line at most every second, and one when a table is done.
func progress(w io.Writer) func(table string, done, total int64) {
	var last time.Time
	return func(table string, done, total int64) {
		if now := time.Now(); done == total || now.Sub(last) >= time.Second {
			last = now
			printf(w, "%-10s %8d of %d\n", table, done, total)
		}
	}
}

// summarise prints the account: it can be read without knowing the program.
func summarise(w io.Writer, r migrate.Report, events int, moved, final time.Duration) {
	printf(w, "%-10s %8s = %8s + %8s + %8s + %8s\n", "table", "source", "loaded", "merged", "filtered", "rejected")
	for _, name := range migrate.Streams() {
		t := r.Tables[name]
		printf(w, "%-10s %8d = %8d + %8d + %8d + %8d\n", name, t.Source.Rows, t.Loaded.Rows, t.Merged.Rows, t.Filtered.Rows, t.Rejected.Rows)
	}
	for _, p := range r.Problems {
		printf(w, "PROBLEM: %s\n", p)
	}
	verdict := "balanced: rows, hash totals, amounts and reasons agree in both databases and in the log"
	if !r.Balanced {
		verdict = "NOT BALANCED: nothing was cut over"
	}
	printf(w, "%s\n", verdict)
	printf(w, "%d events logged; migrated after %.1f s, all under a published checkpoint after %.1f s\n", events, moved.Seconds(), final.Seconds())
}

// writeJSON writes a file for people to read.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("marshal %s: %w", path, err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}

// printf tells people. If they do not listen, there is nobody to tell that.
func printf(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format, args...)
}
