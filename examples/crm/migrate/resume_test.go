package migrate

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/examples/crm/source"
)

var errKilled = errors.New("killed")

// A run that breaks off at any event, before it is logged or after, is taken up by the next:
// the log and the new database are in the end as if nothing had happened.
func TestResumedRunsEndAsOne(t *testing.T) {
	whole, record := setup(t, source.CustomersMin, 1)
	if _, err := Run(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	want, database := fmt.Sprint(record.events, record.closed), dump(t, whole.Target)
	for at := 1; ; at++ {
		c, r := setup(t, source.CustomersMin, 1)
		count := 0
		r.before = func(_ string, _ Event) error {
			if count++; count >= at {
				return errKilled
			}
			return nil
		}
		_, err := Run(t.Context(), c)
		if err == nil {
			if at < 20 {
				t.Errorf("a run has only %d events and closings", at)
			}
			break
		}
		if !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		r.again()
		c.Resumed = true
		report, err := Run(t.Context(), c)
		if err != nil {
			t.Fatalf("broken off at %d: %v", at, err)
		}
		if got := fmt.Sprint(r.events, r.closed); got != want {
			t.Errorf("broken off at %d: the record is\n%.300s\nwant\n%.300s", at, got, want)
		}
		if dump(t, c.Target) != database || !report.Balanced {
			t.Errorf("broken off at %d: another database, or not balanced: %v", at, report.Problems)
		}
	}
}

// A run that broke off after its last event has nothing left to do, and says the same.
func TestResumedAfterTheEnd(t *testing.T) {
	c, r := setup(t, source.CustomersMin, 1)
	first, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	n := len(r.events)
	r.again()
	c.Resumed = true
	second, err := Run(t.Context(), c)
	if err != nil || fmt.Sprint(first) != fmt.Sprint(second) || len(r.events) != n {
		t.Errorf("Run again = %+v, %v with %d more events, want %+v", second, err, len(r.events)-n, first)
	}
}

// What the log calls loaded is not made again when it has gone, and a migration is not
// gone on with as another.
func TestResumedOverWhatWasLost(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(c *Config) error
		says  string
	}{
		"the new database": {func(c *Config) error { return os.Remove(building(c.Target)) }, "the log says that it was loaded"},
		"another limit":    {func(c *Config) error { c.Limit = 50; return nil }, "has changed since this migration began"},
		"another source": {func(c *Config) error {
			db, err := sql.Open("sqlite", "file:"+c.Source)
			if err != nil {
				return err
			}
			_, err = db.ExecContext(t.Context(), "DELETE FROM invoices WHERE id = 7")
			return errors.Join(err, db.Close())
		}, "has changed since this migration began"},
	} {
		c, r := setup(t, source.CustomersMin, 1)
		r.before = func(stream string, e Event) error {
			if stream == "orders" && e.Kind == "migration.load" {
				return errKilled
			}
			return nil
		}
		if _, err := Run(t.Context(), c); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		r.again()
		c.Resumed = true
		if err := tc.spoil(&c); err != nil {
			t.Fatal(err)
		}
		if _, err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: Run = %v, want %q", name, err, tc.says)
		}
	}
}
