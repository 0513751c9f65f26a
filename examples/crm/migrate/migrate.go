// Package migrate moves the customers, orders and invoices of an old database
// into a new one and says what it does, batch by batch, to an audit log.
//
// Two promises make the record worth reading:
//
//   - Nothing is committed to the new database before the log durably holds
//     what is about to be committed; what was committed is logged after. So
//     every effect has its entry, and a crash leaves an announced batch without
//     its load event, never a loaded batch without an announcement.
//   - Every row of the old database is accounted for: loaded, merged, filtered
//     or rejected with a reason. [Run] counts the rows again at the end, from
//     the two databases alone, and does not cut over unless all adds up.
//
// Events hold no personal data: names of tables, counts and hashes. The ids of
// rows that were not loaded are in the payloads, which can be erased.
// What it leaves out: going on after a crash. A run that broke off is done
// again from the start, as a migration of another name.
package migrate

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Audit is where the migration reports what it will do and what it has done.
type Audit interface {
	// Append logs events on a stream, in order. They are durable when it
	// returns, and nobody can take them back.
	Append(ctx context.Context, stream string, events ...Event) error
	// Close ends a stream: nothing can follow.
	Close(ctx context.Context, stream string) error
}

// An Event says that something happened. Its kind and its objects are public
// to every reader of the log, so they hold no personal data.
type Event struct {
	Kind    string   // such as "migration.extract"
	Objects []Object // the tables that it is about
	Payload []byte   // JSON, canonical as of RFC 8785; it is kept apart and can be erased
}

// An Object is a table in a role: "source" or "target".
type Object struct{ Name, Role string }

// Control is the stream of what concerns the whole migration. The other
// streams are named after the tables: see [Streams].
const Control = "control"

// Streams gives the streams of the tables, in the order of their migration.
func Streams() []string { return []string{"customers", "orders", "invoices"} }

// batchRows is how many rows share the events of a batch and a transaction.
const batchRows = 1000

// ErrUnbalanced means that the two databases do not account for each other.
// The report says where; nothing was cut over.
var ErrUnbalanced = errors.New("the migration does not add up")

// Config says what to migrate.
type Config struct {
	Source string // path of the old database; it is only read
	Target string // path of the new database, where no file may be; it is there only after a cutover
	// Key makes the opaque ids of persons and the tokens that stand for e-mail
	// addresses and telephone numbers: 32 random bytes. Who holds it can find
	// a person's rows again, so it is kept like the data.
	Key   []byte
	Audit Audit
	// Limit, if it is not 0, is how many rows of each table a rehearsal takes.
	// What refers to rows beyond it is filtered.
	Limit int64
	// Progress, if it is not nil, is called after each batch with the rows
	// done and the rows there are.
	Progress func(table string, done, total int64)
}

func (c Config) validate() error {
	var errs []error
	if len(c.Key) < 32 {
		errs = append(errs, fmt.Errorf("key of %d bytes, want 32", len(c.Key)))
	}
	if c.Audit == nil {
		errs = append(errs, errors.New("no audit: a migration without a record is not one of ours"))
	}
	if c.Limit < 0 {
		errs = append(errs, fmt.Errorf("limit %d is negative", c.Limit))
	}
	if _, err := os.Stat(c.Source); err != nil {
		errs = append(errs, err)
	}
	for _, path := range []string{c.Target, building(c.Target)} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s is there already: move it away, a migration starts with an empty target", path))
		}
	}
	return errors.Join(errs...)
}

// building is where the new database grows until the cutover renames it.
func building(target string) string { return target + ".building" }

// A run is one migration under way.
type run struct {
	config Config
	source *sql.DB
	target *target
	ids    identities
	plan   plan
	tables []*table
}

// Run migrates, in this order:
//
//	planned -> (announced -> committed -> loaded, batch by batch) -> verified -> reconciled -> cut over -> closed
//
// A result that does not add up is [ErrUnbalanced], with the report; its
// events are logged and its streams closed all the same, since the record of a
// failed migration must be as complete as any.
func Run(ctx context.Context, c Config) (report Report, err error) {
	if err := c.validate(); err != nil {
		return Report{}, fmt.Errorf("migrate: %w", err)
	}
	source, err := sql.Open("sqlite", "file:"+c.Source+"?mode=ro&_pragma=query_only(1)")
	if err != nil {
		return Report{}, fmt.Errorf("open source: %w", err)
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	t, err := createTarget(ctx, building(c.Target))
	if err != nil {
		return Report{}, fmt.Errorf("create target: %w", err)
	}
	defer func() { err = errors.Join(err, t.close()) }()

	r := &run{config: c, source: source, target: t, ids: identities{c.Key}}
	if err := r.prepare(ctx); err != nil {
		return Report{}, fmt.Errorf("plan: %w", err)
	}
	for _, table := range r.tables {
		if err := r.move(ctx, table); err != nil {
			return Report{}, fmt.Errorf("move %s: %w", table.name, err)
		}
	}
	return r.finish(ctx)
}

// prepare reads what must be known before the first batch, and logs it.
func (r *run) prepare(ctx context.Context) error {
	r.tables = tables()
	sizes := map[string]sourceSize{}
	for _, t := range r.tables {
		var err error
		if t.size, err = r.measure(ctx, t); err != nil {
			return err
		}
		sizes[t.name] = t.size
	}
	duplicates, err := r.findDuplicates(ctx)
	if err != nil {
		return fmt.Errorf("find duplicates: %w", err)
	}
	r.plan = duplicates
	customers := newCustomers(r)
	orders := newOrders(r, customers.fates)
	for i, m := range []mover{customers, orders, newInvoices(r, orders.fates)} {
		r.tables[i].mover = m
	}
	return r.log(ctx, Control, "migration.start", r.objects(), startPayload{
		BatchRows: batchRows, Duplicates: len(duplicates.into), Limit: r.config.Limit, Tables: sizes,
	})
}

// finish verifies, reconciles, cuts over and closes the streams.
func (r *run) finish(ctx context.Context) (Report, error) {
	var problems []string
	for _, t := range r.tables {
		found, err := r.verify(ctx, t)
		if err != nil {
			return Report{}, fmt.Errorf("verify %s: %w", t.target, err)
		}
		problems = append(problems, found...)
	}
	report, err := r.reconcile(ctx, problems)
	if err != nil {
		return Report{}, fmt.Errorf("reconcile: %w", err)
	}
	if err := r.log(ctx, Control, "migration.reconcile", r.objects(), report); err != nil {
		return report, err
	}
	if report.Balanced {
		if err := r.cutover(ctx); err != nil {
			return report, fmt.Errorf("cut over: %w", err)
		}
	}
	for _, stream := range append(Streams(), Control) {
		if err := r.config.Audit.Close(ctx, stream); err != nil {
			return report, fmt.Errorf("close stream %s: %w", stream, err)
		}
	}
	if !report.Balanced {
		return report, fmt.Errorf("%w: %d problems, the first: %s", ErrUnbalanced, len(report.Problems), report.Problems[0])
	}
	return report, nil
}

// cutover gives the new database its name: from then on it is the database.
// It is announced first, as everything that has an effect is.
func (r *run) cutover(ctx context.Context) error {
	if err := r.log(ctx, Control, "migration.cutover", r.objects(), cutoverPayload{Target: database(newSystem)}); err != nil {
		return err
	}
	if err := r.target.seal(ctx); err != nil {
		return err
	}
	return os.Rename(building(r.config.Target), r.config.Target)
}

// log appends one event.
func (r *run) log(ctx context.Context, stream, kind string, objects []Object, payload any) error {
	e, err := newEvent(kind, objects, payload)
	if err != nil {
		return err
	}
	if err := r.config.Audit.Append(ctx, stream, e); err != nil {
		return fmt.Errorf("log %s: %w", kind, err)
	}
	return nil
}

func newEvent(kind string, objects []Object, payload any) (Event, error) {
	b, err := json.Marshal(payload)
	if err != nil {
		return Event{}, fmt.Errorf("marshal payload of %s: %w", kind, err)
	}
	return Event{Kind: kind, Objects: objects, Payload: b}, nil
}

// Names of the two systems, as events name their tables.
const (
	oldSystem = "crm-legacy"
	newSystem = "crm-new"
)

func database(system string) string { return system + ".main" }

func (r *run) objects() []Object {
	return []Object{{database(oldSystem), "source"}, {database(newSystem), "target"}}
}
