package migrate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/examples/crm/source"
)

// A record is an audit that remembers, in the order of the calls.
type record struct {
	events []logged
	closed []string
	before func(stream string, e Event) error // called before each event, if not nil
}

type logged struct {
	stream string
	Event
}

func (r *record) Append(_ context.Context, stream string, events ...Event) error {
	for _, e := range events {
		if slices.Contains(r.closed, stream) {
			return fmt.Errorf("stream %s is closed", stream)
		}
		if r.before != nil {
			if err := r.before(stream, e); err != nil {
				return err
			}
		}
		r.events = append(r.events, logged{stream, e})
	}
	return nil
}

func (r *record) Close(_ context.Context, stream string) error {
	r.closed = append(r.closed, stream)
	return nil
}

func (r *record) kinds() map[string]int {
	n := map[string]int{}
	for _, e := range r.events {
		n[e.Kind]++
	}
	return n
}

// payloads decodes the payloads of one kind.
func payloads[T any](t *testing.T, r *record, kind string) []T {
	t.Helper()
	var all []T
	for _, e := range r.events {
		if e.Kind == kind {
			var p T
			d := json.NewDecoder(bytes.NewReader(e.Payload))
			d.DisallowUnknownFields()
			if err := d.Decode(&p); err != nil {
				t.Fatalf("payload of %s: %v", kind, err)
			}
			all = append(all, p)
		}
	}
	return all
}

// setup makes a source and gives a configuration to migrate it.
func setup(t *testing.T, customers int, seed uint64) (Config, *record) {
	t.Helper()
	dir := t.TempDir()
	c := Config{
		Source: filepath.Join(dir, "old.db"), Target: filepath.Join(dir, "new.db"),
		Key: bytes.Repeat([]byte{7}, 32),
	}
	if err := source.Generate(t.Context(), c.Source, source.Config{Customers: customers, Seed: seed}); err != nil {
		t.Fatal(err)
	}
	r := &record{}
	c.Audit = r
	return c, r
}

func open(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// checkAccount re-derives the account from the events alone, as an auditor
// would who has no database, and compares it with the report.
func checkAccount(t *testing.T, r *record, report Report) {
	t.Helper()
	rows, fates := map[string]int64{}, map[string]map[string]int64{}
	count := func(table, fate string, n int) {
		if fates[table] == nil {
			fates[table] = map[string]int64{}
		}
		fates[table][fate] += int64(n)
	}
	extracts := payloads[extractPayload](t, r, "migration.extract")
	transforms := payloads[transformPayload](t, r, "migration.transform")
	rejects := payloads[rejectPayload](t, r, "migration.reject")
	loads := payloads[loadPayload](t, r, "migration.load")
	if len(transforms) != len(extracts) || len(rejects) != len(extracts) || len(loads) != len(extracts) {
		t.Fatalf("%d extract, %d transform, %d reject, %d load events: want one of each per batch", len(extracts), len(transforms), len(rejects), len(loads))
	}
	for i, x := range extracts {
		tr, re, lo := transforms[i], rejects[i], loads[i]
		rows[x.Table] += int64(x.Rows)
		for reason, n := range tr.Filtered {
			count(x.Table, "filtered:"+reason, n)
		}
		for reason, n := range re.Rejected {
			count(x.Table, "rejected:"+reason, n)
		}
		count(x.Table, "loaded", lo.Rows)
		count(x.Table, "merged", tr.Merged)
		if tr.SHA256 != lo.SHA256 || tr.Loaded != lo.Rows || tr.Rejected != len(re.RejectedRows) {
			t.Errorf("%s batch %d: transform and load or reject disagree", x.Table, x.Batch)
		}
		if x.Rows != lo.Rows+tr.Merged+len(tr.FilteredRows)+len(re.RejectedRows) {
			t.Errorf("%s batch %d: %d rows do not add up", x.Table, x.Batch, x.Rows)
		}
	}
	for table, tr := range report.Tables {
		want := map[string]int64{"loaded": tr.Loaded.Rows, "merged": tr.Merged.Rows}
		maps.Copy(want, tr.Reasons)
		if rows[table] != tr.Source.Rows || !maps.Equal(fates[table], want) {
			t.Errorf("%s: the events say %d rows, %v; the report %d, %v", table, rows[table], fates[table], tr.Source.Rows, want)
		}
		if sum := tr.Loaded.Rows + tr.Merged.Rows + tr.Filtered.Rows + tr.Rejected.Rows; sum != tr.Source.Rows {
			t.Errorf("%s: %d rows in the source, %d accounted for", table, tr.Source.Rows, sum)
		}
	}
}

func TestEveryRowIsAccountedFor(t *testing.T) {
	for _, seed := range []uint64{1, 2, 1 << 63} {
		c, r := setup(t, 2500, seed)
		report, err := Run(t.Context(), c)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !report.Balanced || len(report.Problems) != 0 {
			t.Errorf("seed %d: report %v", seed, report.Problems)
		}
		checkAccount(t, r, report)
		for _, table := range Streams() {
			tr := report.Tables[table]
			if tr.Loaded.Rows == 0 || tr.Merged.Rows == 0 || tr.Rejected.Rows == 0 || tr.Filtered.Rows == 0 {
				t.Errorf("seed %d: %s has an outcome without a row: %+v", seed, table, tr)
			}
		}
	}
}

func TestHundredThousandCustomersNightly(t *testing.T) {
	if testing.Short() {
		t.Skip("100,000 customers take 10 s")
	}
	c, r := setup(t, 100_000, 1)
	report, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	checkAccount(t, r, report)
	if n := len(r.events); n < 1000 || n > 2000 {
		t.Errorf("%d events, want 1000 to 2000", n)
	}
}

// The order that makes the record worth reading: nothing is in the new
// database before its announcement is in the log, and "loaded" is said only of
// what is there.
func TestNothingIsCommittedBeforeItIsAnnounced(t *testing.T) {
	c, r := setup(t, 2500, 1)
	rows := func() map[string]int {
		n := map[string]int{}
		db, err := sql.Open("sqlite", "file:"+building(c.Target)+"?mode=ro")
		if err != nil {
			t.Fatal(err)
		}
		// A reader that stays would keep the cutover waiting.
		defer func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}()
		for _, table := range tables() {
			var loaded, disposed int
			err := db.QueryRowContext(t.Context(), "SELECT (SELECT count(*) FROM "+table.target+"), (SELECT count(*) FROM disposition WHERE source_table = ?)", table.name).Scan(&loaded, &disposed)
			if err != nil {
				t.Fatal(err)
			}
			n[table.name] = loaded + disposed
		}
		return n
	}
	extracted := map[string]int{}
	r.before = func(stream string, e Event) error {
		var p extractPayload
		if err := json.Unmarshal(e.Payload, &p); err != nil && e.Kind == "migration.extract" {
			return err
		}
		switch e.Kind {
		case "migration.extract":
			if got := rows()[stream]; got != extracted[stream] {
				t.Errorf("before batch %d of %s is announced: %d rows in the target, want %d", p.Batch, stream, got, extracted[stream])
			}
			extracted[stream] += p.Rows
		case "migration.load":
			if got := rows()[stream]; got != extracted[stream] {
				t.Errorf("when batch %d of %s is logged as loaded: %d rows in the target, want %d", p.Batch, stream, got, extracted[stream])
			}
		case "migration.cutover":
			if _, err := os.Stat(c.Target); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the target is there before the cutover is logged: %v", err)
			}
		}
		return nil
	}
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(building(c.Target)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the cutover the building site is still there: %v", err)
	}
	var kinds []string
	for _, e := range r.events {
		if e.stream == Control {
			kinds = append(kinds, e.Kind)
		}
	}
	if got, want := strings.Join(kinds, " "), "migration.start migration.reconcile migration.cutover"; got != want {
		t.Errorf("control stream: %s, want %s", got, want)
	}
	if got, want := strings.Join(r.closed, " "), "customers orders invoices control"; got != want {
		t.Errorf("closed: %s, want %s", got, want)
	}
}

// When the log does not take an event, nothing happens that it does not know.
func TestLogRefusesThenNothingHappens(t *testing.T) {
	refused := errors.New("refused")
	for _, kind := range []string{"migration.start", "migration.extract", "migration.reject", "migration.load", "migration.verify", "migration.reconcile", "migration.cutover"} {
		c, r := setup(t, source.CustomersMin, 1)
		r.before = func(_ string, e Event) error {
			if e.Kind == kind {
				return refused
			}
			return nil
		}
		if _, err := Run(t.Context(), c); !errors.Is(err, refused) {
			t.Errorf("%s refused: Run = %v", kind, err)
		}
		if _, err := os.Stat(c.Target); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s refused: there is a target", kind)
		}
		if len(r.closed) != 0 {
			t.Errorf("%s refused: streams %v closed, as if complete", kind, r.closed)
		}
	}
}

// Somebody meddles with the target during the migration, each time in a way
// that another control has to find. The migration says so in the log, does not
// cut over, and leaves a complete record.
func TestMeddlingIsFoundAndNotCutOver(t *testing.T) {
	for _, c := range []struct{ name, meddle, problem string }{
		{"row deleted", "DELETE FROM invoice WHERE source_id = 1", "invoices: 0 loaded"},
		{"row changed", "UPDATE sales_order SET total_minor = total_minor + 1 WHERE source_id = 2", "sales_order: 1 batches differ"},
		{"name changed", "UPDATE customer SET family_name = 'X' WHERE source_id = 1", "customer: 1 batches differ"},
		{"row added", "INSERT INTO sales_order SELECT 99999999, 'X', person, ordered_on, currency, total_minor, note FROM sales_order LIMIT 1", "sales_order: 1 rows were never logged"},
		{"reject hidden", "DELETE FROM disposition WHERE source_table = 'orders' AND source_id = 15", "orders: "},
		{"reason changed", "UPDATE disposition SET reason = 'inactive' WHERE source_table = 'customers' AND reason = 'closed'", "customers: reasons differ"},
		{"orphan made", "PRAGMA foreign_keys = OFF; DELETE FROM customer WHERE source_id = 1", "sales_order: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, r := setup(t, source.CustomersMin, 1)
			r.before = func(stream string, e Event) error {
				if e.Kind == "migration.verify" && stream == "customers" || e.Kind != "migration.load" || stream != "invoices" {
					return nil
				}
				_, err := open(t, building(config.Target)).ExecContext(t.Context(), c.meddle)
				return err
			}
			report, err := Run(t.Context(), config)
			if !errors.Is(err, ErrUnbalanced) || report.Balanced {
				t.Fatalf("Run = %v, balanced %v, want ErrUnbalanced", err, report.Balanced)
			}
			if all := strings.Join(report.Problems, "\n"); c.name != "row deleted" && !strings.Contains(all, c.problem) {
				t.Errorf("problems:\n%s\nwant %q among them", all, c.problem)
			}
			logged := payloads[Report](t, r, "migration.reconcile")
			if len(logged) != 1 || logged[0].Balanced || !slices.Equal(logged[0].Problems, report.Problems) {
				t.Errorf("the log's reconciliation is %+v, want the report's", logged)
			}
			if r.kinds()["migration.cutover"] != 0 {
				t.Error("a cutover was logged")
			}
			if _, err := os.Stat(config.Target); !errors.Is(err, fs.ErrNotExist) {
				t.Error("the target was cut over")
			}
			if len(r.closed) != 4 {
				t.Errorf("closed %v, want all streams: the record of a failure is complete too", r.closed)
			}
		})
	}
}

// A source that changes under the migration is noticed.
func TestChangingSourceIsFound(t *testing.T) {
	c, r := setup(t, 2500, 1)
	r.before = func(stream string, e Event) error {
		if e.Kind != "migration.verify" || stream != "customers" {
			return nil
		}
		_, err := open(t, c.Source).ExecContext(t.Context(), "UPDATE orders SET total = '0.01' WHERE id = 5; DELETE FROM invoices WHERE id = 7")
		return err
	}
	report, err := Run(t.Context(), c)
	if !errors.Is(err, ErrUnbalanced) {
		t.Fatalf("Run = %v, want ErrUnbalanced", err)
	}
	all := strings.Join(report.Problems, "\n")
	for _, want := range []string{"orders: amounts in the source", "invoices: the source has changed", "invoices: hash total"} {
		if !strings.Contains(all, want) {
			t.Errorf("problems:\n%s\nwant %q among them", all, want)
		}
	}
}

// The same source, key and code give the same target and the same record.
func TestMigrationIsDeterministic(t *testing.T) {
	var dumps, records [2]string
	for i := range 2 {
		c, r := setup(t, 1500, 9)
		if _, err := Run(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		dumps[i] = dump(t, c.Target)
		records[i] = fmt.Sprint(r.events)
	}
	if dumps[0] != dumps[1] {
		t.Error("two targets differ")
	}
	if records[0] != records[1] {
		t.Error("two records differ")
	}
}

func dump(t *testing.T, path string) string {
	t.Helper()
	h := sha256.New()
	for _, table := range append(tables(), &table{target: "disposition", loads: "source_table, source_id, outcome, reason, into_id, currency, total_minor"}) {
		err := each(t.Context(), open(t, path), func(row []any) error {
			h.Write(appendRow(nil, row))
			return nil
		}, "SELECT "+table.loads+" FROM "+table.target+" ORDER BY 1, 2")
		if err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// No event, payloads included, and no column that should be masked holds what
// could name a person; without the key the opaque ids are other ones.
func TestNothingPersonalLeaves(t *testing.T) {
	c, r := setup(t, source.CustomersMin, 1)
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	var names []string
	err := each(t.Context(), open(t, c.Source), func(row []any) error {
		for _, v := range row[1:4] {
			if s := strings.TrimSpace(text(v)); len(s) > 6 {
				names = append(names, s)
			}
		}
		return nil
	}, "SELECT id, full_name, email, phone FROM customers")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range r.events {
		for _, name := range names {
			if strings.Contains(string(e.Payload), name) {
				t.Errorf("%s holds %q", e.Kind, name)
			}
		}
		for _, o := range e.Objects {
			if o.Role != "source" && o.Role != "target" || !strings.HasPrefix(o.Name, oldSystem) && !strings.HasPrefix(o.Name, newSystem) {
				t.Errorf("%s is about %v, want tables only", e.Kind, o)
			}
		}
	}
	err = each(t.Context(), open(t, c.Target), func(row []any) error {
		for _, v := range row[1:] {
			if s := text(v); slices.Contains(names, s) {
				t.Errorf("customer %d: %q is not masked", row[0], s)
			}
		}
		return nil
	}, "SELECT source_id, email_masked, email_token, phone_masked, phone_token FROM customer")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := (identities{[]byte("a")}), (identities{[]byte("b")}); a.person(1) == b.person(1) || a.person(1) == a.person(2) || a.token("email", "x") == a.token("phone", "x") {
		t.Error("opaque ids do not depend on the key, the person and the field")
	}
}

func TestRehearsalTakesTheFirstRowsOnly(t *testing.T) {
	c, r := setup(t, 2500, 1)
	c.Limit = 1200
	calls := 0
	c.Progress = func(_ string, done, total int64) {
		if calls++; done > total || total != 1200 {
			t.Errorf("progress %d of %d", done, total)
		}
	}
	report, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	checkAccount(t, r, report)
	if calls != 6 {
		t.Errorf("%d calls of Progress, want one for each of 6 batches", calls)
	}
	for name, tr := range report.Tables {
		if tr.Source.Rows != 1200 {
			t.Errorf("%s: %d rows, want 1200", name, tr.Source.Rows)
		}
	}
	if report.Tables["orders"].Reasons["filtered:beyond-limit"] == 0 || report.Tables["orders"].Reasons["rejected:customer-orphaned"] == 0 {
		t.Errorf("orders: %v, want some beyond the limit and some orphans", report.Tables["orders"].Reasons)
	}
}

func TestConfigIsChecked(t *testing.T) {
	good, _ := setup(t, source.CustomersMin, 1)
	for name, spoil := range map[string]func(*Config){
		"key":    func(c *Config) { c.Key = c.Key[:31] },
		"audit":  func(c *Config) { c.Audit = nil },
		"limit":  func(c *Config) { c.Limit = -1 },
		"source": func(c *Config) { c.Source += ".none" },
		"target": func(c *Config) { c.Target = c.Source },
	} {
		c := good
		spoil(&c)
		if _, err := Run(t.Context(), c); err == nil {
			t.Errorf("bad %s: no error", name)
		}
	}
	if _, err := Run(t.Context(), good); err != nil {
		t.Errorf("after all that: %v", err)
	}
	if _, err := Run(t.Context(), good); err == nil {
		t.Error("a second run over the target: no error")
	}
}

func TestCanonicalRowsAreDistinct(t *testing.T) {
	seen := map[string][]any{}
	for _, row := range [][]any{
		{},
		{nil},
		{nil, nil},
		{""},
		{"", ""},
		{"N;"},
		{int64(1)},
		{"1"},
		{"I1;"},
		{int64(12)},
		{int64(1), int64(2)},
		{"a\n"},
		{"a"},
		{"1:a"},
		{"a", "b"},
		{"aT1:b"},
		{"ab"},
		{int64(-1)},
		{"T1:a"},
	} {
		form := string(appendRow(nil, row))
		if other, ok := seen[form]; ok {
			t.Errorf("%#v and %#v have the form %q", other, row, form)
		}
		seen[form] = row
	}
}
