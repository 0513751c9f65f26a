package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	_ "modernc.org/sqlite" // the driver, by its name "sqlite"
)

// schema is the new system's. The table disposition is the quarantine's list:
// each source row that was not loaded, with its outcome; ids and codes only.
const schema = `
CREATE TABLE customer (
	source_id INTEGER PRIMARY KEY, person TEXT NOT NULL UNIQUE,
	given_name TEXT, family_name TEXT NOT NULL, name_rule TEXT NOT NULL,
	email_masked TEXT, email_token TEXT, phone_masked TEXT, phone_token TEXT,
	birth_date TEXT CHECK (birth_date IS date(birth_date)),
	street TEXT, postal_code TEXT, city TEXT, country TEXT,
	CHECK (email_token IS NOT NULL OR phone_token IS NOT NULL)) STRICT;
CREATE TABLE sales_order (
	source_id INTEGER PRIMARY KEY, order_no TEXT NOT NULL UNIQUE, person TEXT NOT NULL REFERENCES customer (person),
	ordered_on TEXT NOT NULL CHECK (ordered_on IS date(ordered_on)),
	currency TEXT NOT NULL, total_minor INTEGER NOT NULL, note TEXT) STRICT;
CREATE TABLE invoice (
	source_id INTEGER PRIMARY KEY, invoice_no TEXT NOT NULL UNIQUE, order_id INTEGER NOT NULL REFERENCES sales_order (source_id),
	kind TEXT NOT NULL CHECK (kind IN ('invoice', 'credit-note')),
	issued_on TEXT NOT NULL CHECK (issued_on IS date(issued_on)), due_on TEXT CHECK (due_on IS date(due_on)),
	currency TEXT NOT NULL, net_minor INTEGER NOT NULL, tax_minor INTEGER NOT NULL, total_minor INTEGER NOT NULL,
	CHECK (net_minor + tax_minor = total_minor), CHECK ((total_minor < 0) <= (kind = 'credit-note'))) STRICT;
CREATE TABLE disposition (
	source_table TEXT NOT NULL, source_id INTEGER NOT NULL, outcome TEXT NOT NULL CHECK (outcome IN ('merged', 'filtered', 'rejected')),
	reason TEXT, into_id INTEGER, currency TEXT, total_minor INTEGER,
	PRIMARY KEY (source_table, source_id)) STRICT, WITHOUT ROWID;
`

// A target is the new database while it is built.
type target struct{ db *sql.DB }

func createTarget(ctx context.Context, path string) (*target, error) {
	// The log says "loaded" of nothing that a power cut could take back, so
	// every commit is synced. One commit per batch keeps that cheap.
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=foreign_keys(1)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &target{db}, nil
}

// load commits one batch: the rows and the dispositions of the others.
func (t *target) load(ctx context.Context, table *table, b *batch) (err error) {
	tx, err := t.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	insert, err := tx.PrepareContext(ctx, "INSERT INTO "+table.target+" ("+table.loads+") VALUES ("+placeholders(table.loads)+")")
	if err != nil {
		return err
	}
	dispose, err := tx.PrepareContext(ctx, "INSERT INTO disposition VALUES (?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return errors.Join(err, insert.Close())
	}
	defer func() { err = errors.Join(err, insert.Close(), dispose.Close()) }()
	for i, d := range b.decisions {
		if d.outcome == loaded {
			_, err = insert.ExecContext(ctx, d.row...)
		} else {
			_, err = dispose.ExecContext(ctx, disposition(table.name, id(b.rows[i]), d)...)
		}
		if err != nil {
			return fmt.Errorf("row %d: %w", id(b.rows[i]), err)
		}
	}
	return tx.Commit()
}

func disposition(table string, id int64, d decision) []any {
	row := []any{table, id, string(d.outcome), null(d.reason), nil, nil, nil}
	if d.outcome == merged {
		row[4] = d.into
	}
	if d.amount.currency != "" {
		row[5], row[6] = d.amount.currency, d.amount.minor
	}
	return row
}

// seal makes the database one file, complete and synced.
func (t *target) seal(ctx context.Context) error {
	var busy, inLog, moved int
	if err := t.db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &inLog, &moved); err != nil {
		return fmt.Errorf("checkpoint the database's journal: %w", err)
	}
	var mode string
	if err := t.db.QueryRowContext(ctx, "PRAGMA journal_mode = DELETE").Scan(&mode); err != nil {
		return fmt.Errorf("leave the journal mode: %w", err)
	}
	if busy != 0 || mode != "delete" {
		return fmt.Errorf("seal: somebody else has the new database open (busy %d, mode %q)", busy, mode)
	}
	return t.db.Close()
}

// close may follow seal.
func (t *target) close() error { return t.db.Close() }
