package migrate

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pipe-roll/piperoll/examples/crm/convert"
)

// parents finds what became of the row that another refers to.
type parents struct {
	run   *run
	table string // of the parents, in the source
	field string // names the reference in reasons
	fates fates
}

// resolve gives the id of the row that stands for the parent in the target, or
// why there is none.
func (p parents) resolve(ctx context.Context, reference any) (int64, verdict, error) {
	parent, ok := reference.(int64)
	if !ok {
		return 0, reject(p.field, convert.Missing), nil
	}
	switch p.fates.of[parent] {
	case loaded:
		return parent, verdict{}, nil
	case merged:
		return p.fates.into[parent], verdict{}, nil
	case filtered:
		return 0, verdict{filtered, p.field + "-filtered"}, nil
	case rejected:
		return 0, verdict{rejected, p.field + "-rejected"}, nil
	}
	// Not among the rows that were moved. In a rehearsal it may lie beyond
	// the limit, which is no fault of the row.
	var there bool
	query := "SELECT EXISTS (SELECT 1 FROM " + p.table + " WHERE id = ?)"
	if err := p.run.source.QueryRowContext(ctx, query, parent).Scan(&there); err != nil {
		return 0, verdict{}, fmt.Errorf("look for %s %d: %w", p.field, parent, err)
	}
	if there {
		return 0, verdict{filtered, "beyond-limit"}, nil
	}
	return 0, verdict{rejected, p.field + "-orphaned"}, nil
}

// numbers finds documents that have the same number.
type numbers struct{ seen map[digest]numbered }

type numbered struct {
	id      int64
	content digest
}

func newNumbers(size int64) numbers { return numbers{make(map[digest]numbered, size)} }

// check compares a row that could be loaded with the one loaded under the same
// number: the same content was imported twice and is merged, another is refused.
func (n numbers) check(number string, row []any) (into int64, v verdict) {
	key, content := digestOf([]any{number}), digestOf(row[1:])
	first, ok := n.seen[key]
	switch {
	case !ok:
		n.seen[key] = numbered{id(row), content}
		return 0, verdict{}
	case first.content == content:
		return first.id, verdict{outcome: merged}
	}
	return 0, verdict{rejected, "number-conflict"}
}

// readMoney reads what a row is worth. It is read for every row, also for those
// that are not loaded: the control totals are over all of them.
func readMoney(currency, total any) (money, verdict) {
	code, err := convert.Currency(text(currency))
	if err != nil {
		return money{}, reject("currency", err)
	}
	minor, err := convert.Amount(text(total), code)
	if err != nil {
		return money{}, reject("total", err)
	}
	return money{code, minor}, verdict{}
}

// first gives the first verdict that is one.
func first(verdicts ...verdict) verdict {
	for _, v := range verdicts {
		if v.outcome != "" {
			return v
		}
	}
	return verdict{}
}

// orders decides on orders.
type orders struct {
	customers parents
	numbers   numbers
	fates     fates
	ids       identities
}

func newOrders(r *run, customers fates) *orders {
	size := r.tables[1].size.Rows
	return &orders{
		customers: parents{r, "customers", "customer", customers},
		numbers:   newNumbers(size),
		fates:     newFates(size),
		ids:       r.ids,
	}
}

func (o *orders) decide(ctx context.Context, row []any) (decision, error) {
	d, err := o.judge(ctx, row)
	return o.fates.note(id(row), d), err
}

func (o *orders) judge(ctx context.Context, row []any) (decision, error) {
	no, owner, ordered, country, currency, total, note := row[1], row[2], row[3], row[4], row[5], row[6], row[7]
	customer, parent, err := o.customers.resolve(ctx, owner)
	if err != nil {
		return decision{}, err
	}
	amount, worth := readMoney(currency, total)
	number, numbering := readNumber(no)
	date, dated := readDate("date", ordered, country)
	d := decision{amount: amount}
	if v := first(parent, numbering, dated, worth); v.outcome != "" {
		d.outcome, d.reason = v.outcome, v.reason
		return d, nil
	}
	into, v := o.numbers.check(number, row)
	if v.outcome != "" {
		d.outcome, d.reason, d.into = v.outcome, v.reason, into
		return d, nil
	}
	d.outcome = loaded
	d.row = []any{
		id(row), number, o.ids.person(customer), date, amount.currency, amount.minor,
		null(strings.Join(convert.Lines(text(note)), "\n")),
	}
	return d, nil
}

func readNumber(v any) (string, verdict) {
	number := convert.Line(text(v))
	if number == "" {
		return "", reject("number", convert.Missing)
	}
	return number, verdict{}
}

func readDate(field string, v, country any) (string, verdict) {
	date, err := convert.Date(text(v), convert.Country(text(country)), businessYears)
	if err != nil {
		return "", reject(field, err)
	}
	return date, verdict{}
}

// invoices decides on invoices and credit notes.
type invoices struct {
	orders  parents
	numbers numbers
}

func newInvoices(r *run, orders fates) *invoices {
	return &invoices{
		orders:  parents{r, "orders", "order", orders},
		numbers: newNumbers(r.tables[2].size.Rows),
	}
}

func (i *invoices) decide(ctx context.Context, row []any) (decision, error) {
	order, parent, err := i.orders.resolve(ctx, row[2])
	if err != nil {
		return decision{}, err
	}
	doc, worth := readInvoice(row)
	d := decision{amount: doc.total}
	if v := first(parent, worth); v.outcome != "" {
		d.outcome, d.reason = v.outcome, v.reason
		return d, nil
	}
	into, v := i.numbers.check(doc.number, row)
	if v.outcome != "" {
		d.outcome, d.reason, d.into = v.outcome, v.reason, into
		return d, nil
	}
	d.outcome = loaded
	d.row = []any{
		id(row), doc.number, order, doc.kind, doc.issued, null(doc.due),
		doc.total.currency, doc.net.minor, doc.tax.minor, doc.total.minor,
	}
	return d, nil
}

// An invoice is a row of the source as far as it can be read.
type invoice struct {
	number, kind, issued, due string
	net, tax, total           money
}

func readInvoice(row []any) (invoice, verdict) {
	no, kind, issued, due, country, currency := row[1], row[3], row[4], row[5], row[6], row[7]
	var i invoice
	var number, dated, worth, net, tax verdict
	i.number, number = readNumber(no)
	i.issued, dated = readDate("issued", issued, country)
	i.total, worth = readMoney(currency, row[10])
	i.net, net = readMoney(currency, row[8])
	i.tax, tax = readMoney(currency, row[9])
	due1, err := convert.Date(text(due), convert.Country(text(country)), businessYears)
	i.due = due1
	dueDated := verdict{}
	if err != nil && !errors.Is(err, convert.Missing) {
		dueDated = reject("due", err)
	}
	if v := first(number, dated, dueDated, worth, renamed(net, "net"), renamed(tax, "tax")); v.outcome != "" {
		return i, v
	}
	return i, i.check(convert.Fold(text(kind)))
}

// renamed gives a verdict on an amount the name of its column.
func renamed(v verdict, column string) verdict {
	v.reason = strings.Replace(v.reason, "total-", column+"-", 1)
	return v
}

// check applies the rules of bookkeeping.
func (i *invoice) check(kind string) verdict {
	switch {
	case kind == "inv" && i.total.minor < 0:
		return verdict{rejected, "total-negative"}
	case kind == "inv":
		i.kind = "invoice"
	case kind == "cn" && i.total.minor > 0:
		return verdict{rejected, "credit-positive"}
	case kind == "cn":
		i.kind = "credit-note"
	default:
		return reject("kind", convert.Unknown)
	}
	if i.net.minor+i.tax.minor != i.total.minor {
		return verdict{rejected, "total-differs"}
	}
	if i.due != "" && i.due < i.issued {
		return verdict{rejected, "due-before-issued"}
	}
	return verdict{}
}
