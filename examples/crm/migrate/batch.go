package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// A table is one table's way from the source to the target.
type table struct {
	name    string   // in the source; also its stream
	target  string   // in the target
	columns string   // of the source, the id first
	loads   string   // columns of the target, source_id first
	steps   []string // names of the transformations, for the log
	money   bool     // it has a currency and a total

	size     sourceSize
	mover    mover
	batches  []loadedBatch
	reported tally // what the events have said so far
}

func tables() []*table {
	return []*table{
		{
			name: "customers", target: "customer",
			columns: "id, full_name, email, phone, birth_date, address, country, status",
			loads: "source_id, person, given_name, family_name, name_rule, email_masked, email_token, " +
				"phone_masked, phone_token, birth_date, street, postal_code, city, country",
			steps: []string{"normalise", "filter", "split-name", "split-address", "merge", "mask"},
		},
		{
			name: "orders", target: "sales_order", money: true,
			columns: "id, order_no, customer_id, ordered, country, currency, total, note",
			loads:   "source_id, order_no, person, ordered_on, currency, total_minor, note",
			steps:   []string{"normalise", "resolve-customer", "filter", "merge"},
		},
		{
			name: "invoices", target: "invoice", money: true,
			columns: "id, invoice_no, order_id, doc_type, issued, due, country, currency, net, tax, total",
			loads:   "source_id, invoice_no, order_id, kind, issued_on, due_on, currency, net_minor, tax_minor, total_minor",
			steps:   []string{"normalise", "resolve-order", "filter", "merge", "check-total"},
		},
	}
}

// A mover decides what becomes of each row of its table. It sees every row
// once, in the order of their ids.
type mover interface {
	decide(ctx context.Context, row []any) (decision, error)
}

// An outcome is what became of a row.
type outcome string

// The outcomes: every row of the source has exactly one.
const (
	loaded   outcome = "loaded"
	merged   outcome = "merged"   // another row stands for it
	filtered outcome = "filtered" // readable, but not wanted in the new system
	rejected outcome = "rejected" // not taken: somebody has to look at it
)

// A decision is what becomes of a row, and why.
type decision struct {
	outcome outcome
	reason  string   // of a filtered or rejected row
	into    int64    // of a merged row: the id of the one that stands for it
	row     []any    // of a loaded row: the row of the target
	amount  money    // what the row is worth, if that can be read, whatever its outcome
	repairs []string // what was emptied or read by a special rule
}

// money is an amount in the smallest coin of a currency.
type money struct {
	currency string // empty: there is none
	minor    int64
}

// A loadedBatch is what a load event said of a batch.
type loadedBatch struct {
	lastID int64 // of the source rows
	rows   int
	sha256 string
}

// A batch is up to [batchRows] rows on their way.
type batch struct {
	number    int // from 1
	rows      [][]any
	decisions []decision
	first     int64 // id
	last      int64
}

// move moves one table, batch by batch.
func (r *run) move(ctx context.Context, t *table) error {
	t.reported = newTally()
	var done, last int64
	for number := 1; done < t.size.Rows; number++ {
		rows, err := r.extract(ctx, t, last, min(batchRows, t.size.Rows-done))
		if err != nil {
			return fmt.Errorf("extract batch %d: %w", number, err)
		}
		if len(rows) == 0 {
			return fmt.Errorf("extract batch %d: the source has shrunk to %d rows since the start", number, done)
		}
		b := &batch{number: number, rows: rows, first: id(rows[0]), last: id(rows[len(rows)-1])}
		if err := r.moveBatch(ctx, t, b); err != nil {
			return fmt.Errorf("batch %d: %w", number, err)
		}
		done += int64(len(rows))
		last = b.last
		if r.config.Progress != nil {
			r.config.Progress(t.name, done, t.size.Rows)
		}
	}
	return nil
}

// moveBatch is where the order of things matters:
//
//	decided -> announced (durable in the log) -> committed -> logged as loaded
//
// A crash after "announced" leaves a batch that the log speaks of and that has
// no load event: an auditor sees it as unfinished, which is what it is.
func (r *run) moveBatch(ctx context.Context, t *table, b *batch) error {
	for _, row := range b.rows {
		d, err := t.mover.decide(ctx, row)
		if err != nil {
			return fmt.Errorf("decide on row %d: %w", id(row), err)
		}
		b.decisions = append(b.decisions, d)
		t.reported.add(id(row), d)
	}
	announcement, load, err := b.events(t)
	if err != nil {
		return err
	}
	if err := r.config.Audit.Append(ctx, t.name, announcement...); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	if err := r.target.load(ctx, t, b); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if err := r.config.Audit.Append(ctx, t.name, load); err != nil {
		return fmt.Errorf("log load: %w", err)
	}
	rows := b.loadedRows()
	t.batches = append(t.batches, loadedBatch{lastID: b.last, rows: len(rows), sha256: hashRows(rows)})
	return nil
}

func (b *batch) loadedRows() [][]any {
	var rows [][]any
	for _, d := range b.decisions {
		if d.outcome == loaded {
			rows = append(rows, d.row)
		}
	}
	return rows
}

// events makes the three events before the commit and the one after it.
func (b *batch) events(t *table) (announcement []Event, load Event, err error) {
	rows := b.loadedRows()
	hash := hashRows(rows)
	transform := transformPayload{
		Batch: b.number, Filtered: map[string]int{}, FilteredRows: []reasonedRow{}, Loaded: len(rows), MergedRows: []mergedRow{},
		Repairs: map[string]int{}, Rows: len(b.rows), SHA256: hash, Steps: t.steps, Table: t.name,
	}
	reject := rejectPayload{Batch: b.number, Rejected: map[string]int{}, RejectedRows: []reasonedRow{}, Table: t.name}
	totals := map[string]int64{}
	for i, d := range b.decisions {
		switch d.outcome {
		case filtered:
			transform.Filtered[d.reason]++
			transform.FilteredRows = append(transform.FilteredRows, reasonedRow{id(b.rows[i]), d.reason})
		case merged:
			transform.Merged++
			transform.MergedRows = append(transform.MergedRows, mergedRow{id(b.rows[i]), d.into})
		case rejected:
			transform.Rejected++
			reject.Rejected[d.reason]++
			reject.RejectedRows = append(reject.RejectedRows, reasonedRow{id(b.rows[i]), d.reason})
		case loaded:
			if d.amount.currency != "" {
				totals[d.amount.currency] += d.amount.minor
			}
		}
		for _, repair := range d.repairs {
			transform.Repairs[repair]++
		}
	}
	source, into := Object{oldSystem + "." + t.name, "source"}, Object{newSystem + "." + t.target, "target"}
	events := make([]Event, 4)
	for i, e := range []struct {
		kind    string
		objects []Object
		payload any
	}{
		{"migration.extract", []Object{source}, extractPayload{b.number, b.first, b.last, len(b.rows), hashRows(b.rows), t.name}},
		{"migration.transform", []Object{source, into}, transform},
		{"migration.reject", []Object{source}, reject},
		{"migration.load", []Object{into}, loadPayload{b.number, len(rows), hash, t.target, totals}},
	} {
		if events[i], err = newEvent(e.kind, e.objects, e.payload); err != nil {
			return nil, Event{}, err
		}
	}
	return events[:3], events[3], nil
}

// measure counts a source table.
func (r *run) measure(ctx context.Context, t *table) (s sourceSize, err error) {
	query := "SELECT count(*), coalesce(sum(id), 0) FROM (SELECT id FROM " + t.name + " ORDER BY id LIMIT ?)"
	if err := r.source.QueryRowContext(ctx, query, r.limit()).Scan(&s.Rows, &s.HashTotal); err != nil {
		return s, fmt.Errorf("count %s: %w", t.name, err)
	}
	return s, nil
}

// limit is the Limit in SQLite's terms.
func (r *run) limit() int64 {
	if r.config.Limit == 0 {
		return -1
	}
	return r.config.Limit
}

// extract reads the next rows after an id.
func (r *run) extract(ctx context.Context, t *table, after, limit int64) ([][]any, error) {
	return query(ctx, r.source, "SELECT "+t.columns+" FROM "+t.name+" WHERE id > ? ORDER BY id LIMIT ?", after, limit)
}

// query reads rows of integers, texts and NULLs.
func query(ctx context.Context, db *sql.DB, text string, args ...any) (all [][]any, err error) {
	err = each(ctx, db, func(row []any) error {
		all = append(all, row)
		return nil
	}, text, args...)
	return all, err
}

// each calls f with each row. The row is f's to keep.
func each(ctx context.Context, db *sql.DB, f func(row []any) error, text string, args ...any) (err error) {
	rows, err := db.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	places := make([]any, len(columns))
	for rows.Next() {
		row := make([]any, len(columns))
		for i := range row {
			places[i] = &row[i]
		}
		if err := rows.Scan(places...); err != nil {
			return err
		}
		if err := f(row); err != nil {
			return err
		}
	}
	return rows.Err()
}

// id is the first column of every row.
func id(row []any) int64 { return row[0].(int64) }

// text gives a column as a text; NULL is empty.
func text(v any) string {
	s, _ := v.(string)
	return s
}

// null gives an empty text as NULL.
func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// placeholders gives the question marks for a list of columns.
func placeholders(columns string) string {
	return strings.Repeat("?, ", strings.Count(columns, ",")) + "?"
}
