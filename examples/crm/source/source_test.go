package source

import (
	"crypto/sha256"
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"
)

func generate(t *testing.T, c Config) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "source.db")
	if err := Generate(t.Context(), path, c); err != nil {
		t.Fatal(err)
	}
	return path
}

func sum(t *testing.T, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

func TestSameSeedSameBytes(t *testing.T) {
	c := Config{Customers: 2000, Seed: 42}
	first, second := sum(t, generate(t, c)), sum(t, generate(t, c))
	if first != second {
		t.Errorf("two databases of one seed differ: %x, %x", first, second)
	}
	if other := sum(t, generate(t, Config{Customers: 2000, Seed: 43})); other == first {
		t.Error("another seed gave the same database")
	}
}

// The data must not change behind the back of those who know its figures: a
// change of the generator changes this list, and is seen in review.
func TestDataIsStable(t *testing.T) {
	g := newGenerator(Config{Customers: 2000, Seed: 1})
	row := g.customer(1003)
	for i, want := range []any{
		int64(1003), "Hélène Noël", "noel.1003@example.com                ", "01 99 00 0185", "16/07/61",
		"20 avenue Foch\n69002 Lyon", "FR", "active",
	} {
		if row[i] != want {
			t.Errorf("customer 1003 of seed 1: column %d = %#v, want %#v", i, row[i], want)
		}
	}
}

func TestMoreCustomersChangeNoneBefore(t *testing.T) {
	small, large := newGenerator(Config{Customers: 300, Seed: 5}), newGenerator(Config{Customers: 9000, Seed: 5})
	for id := int64(1); id <= 300; id++ {
		a, b := small.customer(id), large.customer(id)
		for i := range a {
			if a[i] != b[i] {
				t.Fatalf("customer %d: column %d = %#v of 300 customers, %#v of 9000", id, i, a[i], b[i])
			}
		}
	}
}

// The data is as bad as it claims to be.
func TestDifficultiesAreThere(t *testing.T) {
	db, err := sql.Open("sqlite", "file:"+generate(t, Config{Customers: 20_000, Seed: 1})+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	for what, query := range map[string]string{
		"customers":               "SELECT count(*) = 20000 FROM customers",
		"orders":                  "SELECT count(*) = 30000 FROM orders",
		"invoices":                "SELECT count(*) = 24000 FROM invoices",
		"names null":              "SELECT count(*) > 20 FROM customers WHERE full_name IS NULL",
		"trailing blanks":         "SELECT count(*) > 200 FROM customers WHERE full_name LIKE '% '",
		"line breaks in names":    "SELECT count(*) > 50 FROM customers WHERE instr(full_name, char(10)) > 0",
		"combining characters":    "SELECT count(*) > 20 FROM customers WHERE instr(full_name, char(776)) > 0",
		"bidirectional overrides": "SELECT count(*) > 50 FROM customers WHERE instr(full_name, char(8235)) > 0",
		"quotes":                  "SELECT count(*) > 50 FROM customers WHERE instr(address, '\"') > 0",
		"addresses of duplicates": "SELECT count(*) > 400 FROM (SELECT 1 FROM customers GROUP BY lower(trim(email)) HAVING count(*) > 1 AND email IS NOT NULL)",
		"e-mail in mixed case":    "SELECT count(*) > 1000 FROM customers WHERE email <> lower(email)",
		"zero dates":              "SELECT count(*) > 50 FROM orders WHERE ordered = '0000-00-00'",
		"31 February":             "SELECT count(*) > 50 FROM orders WHERE ordered LIKE '%-02-31'",
		"dates with slashes":      "SELECT count(*) > 1000 FROM orders WHERE ordered LIKE '%/%'",
		"amounts with comma":      "SELECT count(*) > 5000 FROM orders WHERE total LIKE '%,%'",
		"negative totals":         "SELECT count(*) > 100 FROM orders WHERE total LIKE '-%'",
		"orphans":                 "SELECT count(*) > 50 FROM orders WHERE customer_id NOT IN (SELECT id FROM customers)",
		"orders imported twice":   "SELECT count(*) > 50 FROM (SELECT 1 FROM orders GROUP BY order_no, customer_id, total HAVING count(*) > 1)",
		"orphaned invoices":       "SELECT count(*) > 20 FROM invoices WHERE order_id NOT IN (SELECT id FROM orders)",
		"credit notes":            "SELECT count(*) > 200 FROM invoices WHERE doc_type = 'CN'",
	} {
		var ok bool
		if err := db.QueryRowContext(t.Context(), query).Scan(&ok); err != nil || !ok {
			t.Errorf("%s: %v, %v", what, ok, err)
		}
	}
	g := newGenerator(Config{Customers: 20_000, Seed: 1})
	old := 0
	for id := int64(1); id <= 20_000; id++ {
		if name, _ := g.customer(id)[1].(string); !utf8.ValidString(name) {
			old++
		}
	}
	if old < 50 {
		t.Errorf("%d names in Windows-1252, want at least 50", old)
	}
}

func TestGenerateRefuses(t *testing.T) {
	path := generate(t, Config{Customers: CustomersMin, Seed: 1})
	before := sum(t, path)
	if err := Generate(t.Context(), path, Config{Customers: CustomersMin}); err == nil || sum(t, path) != before {
		t.Errorf("Generate over a database = %v, want an error and the file untouched", err)
	}
	if err := Generate(t.Context(), filepath.Join(t.TempDir(), "x"), Config{Customers: CustomersMin - 1}); err == nil {
		t.Error("Generate of too few customers: no error")
	}
	if err := Generate(t.Context(), filepath.Join(t.TempDir(), "none", "x"), Config{Customers: CustomersMin}); err == nil {
		t.Error("Generate in a folder that is not there: no error")
	}
}

func TestWeightsOfLocalesAreAHundred(t *testing.T) {
	n := 0
	for _, l := range locales() {
		n += l.weight
		if len(l.latin) != len(l.family) {
			t.Errorf("%s: %d Latin names for %d family names", l.country, len(l.latin), len(l.family))
		}
	}
	if n != 100 {
		t.Errorf("the weights sum up to %d, want 100", n)
	}
}
