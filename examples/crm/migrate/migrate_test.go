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

var _ = []any{errors.New, fs.ErrNotExist, os.Stat, strings.Cut, sha256.New, open}
