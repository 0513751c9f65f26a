package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
)

// A Report is the reconciliation: what the source holds and what became of it,
// counted from the two databases after the last batch.
type Report struct {
	Balanced bool                   `json:"balanced"`
	Problems []string               `json:"problems"` // empty if balanced
	Tables   map[string]TableReport `json:"tables"`   // by source table
}

// A TableReport accounts for one source table: Source = Loaded + Merged +
// Filtered + Rejected, in rows, in hash totals and in every currency.
type TableReport struct {
	Filtered Total            `json:"filtered"`
	Loaded   Total            `json:"loaded"`
	Merged   Total            `json:"merged"`
	Reasons  map[string]int64 `json:"reasons"` // rows filtered or rejected, by outcome and reason: "rejected:date-missing"
	Rejected Total            `json:"rejected"`
	Source   Total            `json:"source"`
}

// A Total is a control total over rows.
type Total struct {
	Amounts   map[string]int64 `json:"amounts"`    // in the smallest coin, by currency: of the rows whose amount can be read
	HashTotal int64            `json:"hash_total"` // sum of the source ids
	Rows      int64            `json:"rows"`
}

func (t *Total) add(id int64, m money) {
	t.Rows++
	t.HashTotal += id
	if m.currency != "" {
		t.Amounts[m.currency] += m.minor
	}
}

func (t *Total) equal(o Total) bool {
	return t.Rows == o.Rows && t.HashTotal == o.HashTotal && maps.Equal(t.Amounts, o.Amounts)
}

// A tally adds up outcomes.
type tally struct {
	totals  map[outcome]*Total
	reasons map[string]int64
}

func newTally() tally {
	t := tally{map[outcome]*Total{}, map[string]int64{}}
	for _, o := range []outcome{loaded, merged, filtered, rejected} {
		t.totals[o] = &Total{Amounts: map[string]int64{}}
	}
	return t
}

func (t tally) add(id int64, d decision) {
	t.totals[d.outcome].add(id, d.amount)
	if d.reason != "" {
		t.reasons[string(d.outcome)+":"+d.reason]++
	}
}

// verify reads a table of the target back and compares each batch with what
// its load event says.
func (r *run) verify(ctx context.Context, t *table) (problems []string, err error) {
	result := verifyPayload{Batches: len(t.batches), BatchesDiffering: []int{}, Table: t.target}
	whole, part := sha256.New(), sha256.New()
	n, rows := 0, 0
	finish := func() {
		if got := hex.EncodeToString(part.Sum(nil)); got != t.batches[n].sha256 || rows != t.batches[n].rows {
			result.BatchesDiffering = append(result.BatchesDiffering, n+1)
		}
		part.Reset()
		n, rows = n+1, 0
	}
	var b []byte
	err = each(ctx, r.target.db, func(row []any) error {
		for n < len(t.batches) && id(row) > t.batches[n].lastID {
			finish()
		}
		b = appendRow(b[:0], row)
		whole.Write(b)
		part.Write(b)
		result.Rows++
		rows++
		if n == len(t.batches) {
			result.RowsUnannounced++
		}
		return nil
	}, "SELECT "+t.loads+" FROM "+t.target+" ORDER BY source_id")
	if err != nil {
		return nil, err
	}
	for n < len(t.batches) {
		finish()
	}
	broken, err := query(ctx, r.target.db, "PRAGMA foreign_key_check("+t.target+")")
	if err != nil {
		return nil, fmt.Errorf("check foreign keys: %w", err)
	}
	result.ForeignKeysBroken = len(broken)
	result.SHA256 = hex.EncodeToString(whole.Sum(nil))
	for what, count := range map[string]int{
		"batches differ from what was logged": len(result.BatchesDiffering),
		"foreign keys lead nowhere":           result.ForeignKeysBroken,
		"rows were never logged":              result.RowsUnannounced,
	} {
		if count > 0 {
			problems = append(problems, fmt.Sprintf("%s: %d %s", t.target, count, what))
		}
	}
	slices.Sort(problems)
	objects := []Object{{newSystem + "." + t.target, "target"}}
	return problems, r.log(ctx, t.name, "migration.verify", objects, result)
}

// reconcile counts both databases anew and compares: the source with the sum
// of the outcomes, and the outcomes with what the events said of them.
func (r *run) reconcile(ctx context.Context, problems []string) (Report, error) {
	report := Report{Problems: append([]string{}, problems...), Tables: map[string]TableReport{}}
	for _, t := range r.tables {
		source, err := r.countSource(ctx, t)
		if err != nil {
			return Report{}, fmt.Errorf("count source %s: %w", t.name, err)
		}
		outcomes, err := r.countTarget(ctx, t)
		if err != nil {
			return Report{}, fmt.Errorf("count target %s: %w", t.target, err)
		}
		report.Tables[t.name] = TableReport{
			Filtered: *outcomes.totals[filtered], Loaded: *outcomes.totals[loaded], Merged: *outcomes.totals[merged],
			Reasons: outcomes.reasons, Rejected: *outcomes.totals[rejected], Source: source,
		}
		report.Problems = append(report.Problems, compare(t, source, outcomes)...)
	}
	report.Balanced = len(report.Problems) == 0
	return report, nil
}

func compare(t *table, source Total, counted tally) (problems []string) {
	bad := func(format string, args ...any) {
		problems = append(problems, t.name+": "+fmt.Sprintf(format, args...))
	}
	if source.Rows != t.size.Rows || source.HashTotal != t.size.HashTotal {
		bad("the source has changed since the start: %d rows, were %d", source.Rows, t.size.Rows)
	}
	sum := Total{Amounts: map[string]int64{}}
	for _, o := range []outcome{loaded, merged, filtered, rejected} {
		c, said := counted.totals[o], t.reported.totals[o]
		sum.Rows += c.Rows
		sum.HashTotal += c.HashTotal
		for currency, minor := range c.Amounts {
			sum.Amounts[currency] += minor
		}
		if !c.equal(*said) {
			bad("%d rows %s, the log says %d, or their totals differ", c.Rows, o, said.Rows)
		}
	}
	if sum.Rows != source.Rows {
		bad("%d rows in the source, %d accounted for", source.Rows, sum.Rows)
	}
	if sum.HashTotal != source.HashTotal {
		bad("hash total %d in the source, %d accounted for", source.HashTotal, sum.HashTotal)
	}
	if !maps.Equal(sum.Amounts, source.Amounts) {
		bad("amounts in the source are not those accounted for")
	}
	if !maps.Equal(counted.reasons, t.reported.reasons) {
		bad("reasons differ from what was logged")
	}
	return problems
}

// countSource reads the source once more. It shares the reading of amounts with
// the migration, and nothing else.
func (r *run) countSource(ctx context.Context, t *table) (Total, error) {
	total := Total{Amounts: map[string]int64{}}
	columns := "id, NULL, NULL"
	if t.money {
		columns = "id, currency, total"
	}
	err := each(ctx, r.source, func(row []any) error {
		m, _ := readMoney(row[1], row[2])
		total.add(id(row), m)
		return nil
	}, "SELECT "+columns+" FROM "+t.name+" ORDER BY id LIMIT ?", r.limit())
	return total, err
}

// countTarget adds up the target in SQL, so that nothing of the way the rows
// came there is taken on trust.
func (r *run) countTarget(ctx context.Context, t *table) (tally, error) {
	counted := newTally()
	amount := "NULL AS currency, NULL AS total_minor"
	if t.money {
		amount = "currency, total_minor"
	}
	err := each(ctx, r.target.db, func(row []any) error {
		o, reason, rows := outcome(text(row[0])), text(row[1]), row[2].(int64)
		total := counted.totals[o]
		total.Rows += rows
		total.HashTotal += row[3].(int64)
		if currency := text(row[4]); currency != "" {
			total.Amounts[currency] += row[5].(int64)
		}
		if reason != "" {
			counted.reasons[string(o)+":"+reason] += rows
		}
		return nil
	}, `SELECT outcome, reason, count(*), sum(source_id), currency, sum(total_minor) FROM (
			SELECT 'loaded' AS outcome, NULL AS reason, source_id, `+amount+` FROM `+t.target+`
			UNION ALL SELECT outcome, reason, source_id, currency, total_minor FROM disposition WHERE source_table = ?)
		GROUP BY outcome, reason, currency`, t.name)
	return counted, err
}
