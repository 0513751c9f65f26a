// Package source makes the database that the example migrates: customers,
// orders and invoices as a business of twenty years has them, with everything
// that makes migrations hard. See [Gallery] for a list of it.
//
// The data is invented. E-mail addresses are in the domains reserved for
// examples. The same seed gives the same bytes, on every machine, and the
// first customers are the same however many follow.
package source

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	_ "modernc.org/sqlite" // the driver, by its name "sqlite"
)

// CustomersMin is how many customers a database has at least: those of the
// gallery and enough others to refer to.
const CustomersMin = 200

// Config says what to make.
type Config struct {
	Customers int    // at least CustomersMin; orders are 3/2 and invoices 6/5 of it
	Seed      uint64 // chooses the data
}

// Orders is how many orders there are.
func (c Config) Orders() int { return c.Customers * 3 / 2 }

// Invoices is how many invoices there are.
func (c Config) Invoices() int { return c.Customers * 6 / 5 }

// schema is the old application's: text wherever somebody once needed text,
// no foreign keys, no checks.
const schema = `
CREATE TABLE customers (
	id INTEGER PRIMARY KEY, full_name TEXT, email TEXT, phone TEXT, birth_date TEXT,
	address TEXT, country TEXT, status TEXT);
CREATE TABLE orders (
	id INTEGER PRIMARY KEY, order_no TEXT, customer_id INTEGER, ordered TEXT, country TEXT,
	currency TEXT, total TEXT, note TEXT);
CREATE TABLE invoices (
	id INTEGER PRIMARY KEY, invoice_no TEXT, order_id INTEGER, doc_type TEXT, issued TEXT, due TEXT,
	country TEXT, currency TEXT, net TEXT, tax TEXT, total TEXT);
`

// Generate makes the database at path, where no file may be.
func Generate(ctx context.Context, path string, c Config) (err error) {
	if c.Customers < CustomersMin {
		return fmt.Errorf("generate source: %d customers, at least %d", c.Customers, CustomersMin)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("generate source: %s is there already (%v)", path, err)
	}
	// No journal and no sync: a database that is lost half made is made again.
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(off)&_pragma=synchronous(off)")
	if err != nil {
		return fmt.Errorf("generate source: %w", err)
	}
	db.SetMaxOpenConns(1)
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return fmt.Errorf("create source schema: %w", err)
	}
	g := newGenerator(c)
	for _, t := range []struct {
		insert string
		size   int
		row    func(id int64) []any
	}{
		{"INSERT INTO customers VALUES (?,?,?,?,?,?,?,?)", c.Customers, g.customer},
		{"INSERT INTO orders VALUES (?,?,?,?,?,?,?,?)", c.Orders(), g.order},
		{"INSERT INTO invoices VALUES (?,?,?,?,?,?,?,?,?,?,?)", c.Invoices(), g.invoice},
	} {
		if err := fill(ctx, db, t.insert, t.size, t.row); err != nil {
			return fmt.Errorf("fill source: %w", err)
		}
	}
	return nil
}

func fill(ctx context.Context, db *sql.DB, insert string, size int, row func(id int64) []any) (err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	stmt, err := tx.PrepareContext(ctx, insert)
	if err != nil {
		return err
	}
	for id := int64(1); id <= int64(size); id++ {
		if _, err := stmt.ExecContext(ctx, row(id)...); err != nil {
			return fmt.Errorf("row %d: %w", id, err)
		}
	}
	if err := stmt.Close(); err != nil {
		return err
	}
	return tx.Commit()
}
