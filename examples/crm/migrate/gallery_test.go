package migrate

import (
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/pipe-roll/piperoll/examples/crm/source"
)

// Every difficulty of the gallery ends where it should: the outcome and reason
// of those that are not loaded, the fields that matter of those that are.
func TestEveryAwkwardCaseLandsWhereItShould(t *testing.T) {
	c, _ := setup(t, source.CustomersMin, 1)
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	db := open(t, c.Target)
	g := source.Gallery()
	for _, table := range []struct {
		name  string
		query string // what of a loaded row to show
		cases []source.Case
		want  map[string]string
	}{
		{
			"customers", `SELECT coalesce(given_name,'-')||'|'||family_name||'|'||name_rule||'|'||coalesce(email_masked,'-')||'|'||coalesce(phone_masked,'-')
				||'|'||coalesce(birth_date,'-')||'|'||coalesce(street,'-')||'|'||coalesce(postal_code,'-')||'|'||coalesce(city,'-')||'|'||coalesce(country,'-')
				FROM customer WHERE source_id = ?`, g.Customers, customersWanted(),
		},
		{
			"orders", `SELECT o.currency||' '||total_minor||'|'||ordered_on||'|'||c.source_id||'|'||coalesce(replace(note, char(10), '/'),'-')
				FROM sales_order o JOIN customer c USING (person) WHERE o.source_id = ?`, g.Orders, ordersWanted(),
		},
		{
			"invoices", `SELECT kind||'|'||issued_on||'|'||coalesce(due_on,'-')||'|'||net_minor||'+'||tax_minor||'='||total_minor||'|'||order_id
				FROM invoice WHERE source_id = ?`, g.Invoices, invoicesWanted(),
		},
	} {
		if len(table.want) != len(table.cases) {
			t.Errorf("%s: %d expectations for %d cases", table.name, len(table.want), len(table.cases))
		}
		for i, awkward := range table.cases {
			got := landed(t, db, table.name, table.query, int64(i)+1)
			if want := table.want[awkward.Name]; got != want {
				t.Errorf("%s, %q landed as %q, want %q", table.name, awkward.Name, got, want)
			}
		}
	}
}

// landed describes what became of a row.
func landed(t *testing.T, db *sql.DB, table, query string, id int64) string {
	t.Helper()
	var row string
	err := db.QueryRowContext(t.Context(), query, id).Scan(&row)
	if err == nil {
		return row
	}
	if !errors.Is(err, sql.ErrNoRows) {
		t.Fatal(err)
	}
	var outcome string
	var reason, into sql.NullString
	err = db.QueryRowContext(t.Context(), "SELECT outcome, reason, into_id FROM disposition WHERE source_table = ? AND source_id = ?", table, id).Scan(&outcome, &reason, &into)
	if err != nil {
		return fmt.Sprintf("nowhere: %v", err)
	}
	return outcome + " " + reason.String + into.String
}

func customersWanted() map[string]string {
	const street = "|Hauptstraße 1|10115|Berlin|DE"
	return map[string]string{
		"plain":                           "Anna|Beispiel|last-word|a***@example.com|+**********01|1980-05-17" + street,
		"duplicate":                       "merged 1",
		"duplicate with zero-width space": "merged 1",
		"gaps":                            "Gregor|Lücke|last-word|g***@example.com|+**********02|1971-03-02" + street,
		"fills gaps":                      "merged 4",
		"combining characters":            "Zoë|Schäfer|last-word|z***@example.com|-|1990-01-02" + street,
		"Arabic with override":            "محمد|المنصوري|last-word|m***@example.com|+*********01|-|شارع الشيخ زايد 1, دبي|-|-|AE",
		"Hebrew":                          "רבקה|בן-דוד|last-word|r***@example.com|-|-|-|-|-|IL",
		"Devanagari":                      "अर्जुन|श्रीवास्तव|last-word|a***@example.com|-|-|12 महात्मा गांधी मार्ग|110001|नई दिल्ली|IN",
		"Windows-1252 bytes":              "Jürgen|Müller|last-word|j***@example.com|-|-|Königsallee 2|40212|Düsseldorf|DE",
		"comma and title":                 "Jan|van der Berg|comma|j***@example.com|-|-|Dorpsstraat 3|1012 AB|Amsterdam|NL",
		"particle":                        "Maria|de la Cruz|particle|m***@example.com|-|-|-|-|-|US",
		"two surnames":                    "José Luis|Núñez Peña|two-surnames|j***@example.com|-|-|-|-|-|ES",
		"single name":                     "-|Suharto|single|s***@example.com|-|-|-|-|-|NL",
		"Chinese double surname":          "小明|欧阳|surname|o***@example.com|-|-|-|-|-|CN",
		"Japanese without space":          "-|山田太郎|single|y***@example.com|-|-|千代田1|100-0001|東京都|JP",
		"newline and quotes":              "Robert \"Bob\"|O'Neil|last-word|b***@example.com|-|-|1 High Street|SW1A 1AA|London|GB",
		"SQL in the address":              "Bobby|Tables|last-word|b***@example.com|-|-|'); DROP TABLE customer;--|-|-|US",
		"name null":                       "rejected name-missing",
		"name of blanks":                  "rejected name-missing",
		"e-mail unreadable":               "Eva|Ohnemail|last-word|-|+**********03|-|-|-|-|DE",
		"no contact":                      "rejected contact-missing",
		"phone with extension":            "Petra|Telefon|last-word|p***@example.com|+**********04|-|-|-|-|-",
		"birth zero":                      "Zoltan|Null|last-word|z***@example.com|-|-|-|-|-|DE",
		"birth 31 February":               "rejected birth-date-impossible",
		"birth month first":               "Uma|Amerika|last-word|u***@example.com|-|1980-04-05|-|-|-|US",
		"birth day first":                 "Ede|Europa|last-word|e***@example.com|-|1980-05-04|-|-|-|GB",
		"birth ambiguous":                 "rejected birth-date-ambiguous",
		"birth clear without country":     "Clara|Klar|last-word|c***@example.com|-|1980-12-25|-|-|-|-",
		"birth year of two digits":        "Zwo|Ziffern|last-word|z***@example.com|-|1980-05-17|-|-|-|DE",
		"birth too early":                 "rejected birth-date-out-of-range",
		"birth unreadable":                "rejected birth-date-unreadable",
		"inactive":                        "filtered inactive",
		"closed":                          "filtered closed",
		"erased":                          "filtered erased",
		"test by e-mail":                  "filtered test-row",
		"test by name":                    "filtered test-row",
		"status null":                     "rejected status-missing",
		"status unknown":                  "rejected status-unknown",
		"rejected original":               "rejected birth-date-impossible",
		"duplicate of rejected":           "Dora|Doppelt|last-word|d***@example.com|-|1990-02-03|-|-|-|DE",
	}
}

func ordersWanted() map[string]string {
	const rest = "|2020-03-04|1|-"
	return map[string]string{
		"plain":               "EUR 123456" + rest,
		"decimal comma":       "EUR 123456" + rest,
		"grouped with points": "EUR 123456789" + rest,
		"grouped with commas": "USD 123450" + rest,
		"grouped with spaces": "EUR 123450" + rest,
		"amount ambiguous":    "rejected total-ambiguous",
		"amount in brackets":  "EUR -1250" + rest,
		"minus behind":        "EUR -1250" + rest,
		"yen":                 "JPY 1234" + rest,
		"three decimals":      "KWD 1234567" + rest,
		"Arabic digits":       "AED 123450" + rest,
		"amount null":         "rejected total-missing",
		"amount unreadable":   "rejected total-unreadable",
		"amount too large":    "rejected total-out-of-range",
		"orphan":              "rejected customer-orphaned",
		"customer null":       "rejected customer-missing",
		"customer rejected":   "rejected customer-rejected",
		"customer filtered":   "filtered customer-filtered",
		"customer merged":     "EUR 100" + rest,
		"currency null":       "rejected currency-missing",
		"currency unknown":    "rejected currency-unknown",
		"date zero":           "rejected date-missing",
		"date 31 February":    "rejected date-impossible",
		"date ambiguous":      "rejected date-ambiguous",
		"date in the future":  "rejected date-out-of-range",
		"date of two digits":  "USD 100" + rest,
		"number null":         "rejected number-missing",
		"imported twice":      "merged 1",
		"number used twice":   "rejected number-conflict",
		"note with newline":   "EUR 100|2020-03-04|1|said \"now\"/wait; \U0001F381",
	}
}

func invoicesWanted() map[string]string {
	return map[string]string{
		"plain":                "invoice|2020-03-05|2020-04-05|10000+1900=11900|1",
		"credit note":          "credit-note|2020-03-05|-|-10000+-1900=-11900|1",
		"invoice negative":     "rejected total-negative",
		"credit note positive": "rejected credit-positive",
		"total wrong":          "rejected total-differs",
		"tax null":             "rejected tax-missing",
		"due before issued":    "rejected due-before-issued",
		"due zero":             "invoice|2020-03-05|-|10000+1900=11900|1",
		"orphan":               "rejected order-orphaned",
		"order rejected":       "rejected order-rejected",
		"order filtered":       "filtered order-filtered",
		"order merged":         "invoice|2020-03-05|-|10000+1900=11900|1",
		"kind unknown":         "rejected kind-unknown",
		"issued 31 February":   "rejected issued-impossible",
		"imported twice":       "merged 1",
		"number used twice":    "rejected number-conflict",
	}
}
