package migrate

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pipe-roll/piperoll/examples/crm/convert"
)

// Years that a birth date and a business date can have. They are constants and
// not taken from the clock: the same rows have the same outcome every day.
var (
	birthYears    = convert.Years{First: 1900, Last: 2010}
	businessYears = convert.Years{First: 1990, Last: 2026}
)

// A person is a customer as the source's row describes it.
type person struct {
	name    convert.Name
	email   string // empty: none
	phone   string
	birth   string
	address convert.Address
	country string
	repairs []string
}

// A verdict is why a row is not loaded; nil outcome means it can be.
type verdict struct {
	outcome outcome
	reason  string
}

func reject(field string, why error) verdict {
	return verdict{rejected, field + "-" + why.Error()}
}

// readCustomer reads one row. It is a function of the row alone.
func readCustomer(row []any) (person, verdict) {
	name, email, phone, birth, address, country, status := row[1], row[2], row[3], row[4], row[5], row[6], row[7]
	var p person
	if v := filterCustomer(text(name), text(email), text(status)); v.outcome != "" {
		return p, v
	}
	p.country = convert.Country(text(country))
	var err error
	if p.name, err = convert.SplitName(text(name), p.country); err != nil {
		return p, reject("name", err)
	}
	p.email = p.optional("email", func() (string, error) { return convert.Email(text(email)) })
	p.phone = p.optional("phone", func() (string, error) { return convert.Phone(text(phone), p.country) })
	if p.email == "" && p.phone == "" {
		return p, reject("contact", convert.Missing)
	}
	p.birth, err = convert.Date(text(birth), p.country, birthYears)
	if err != nil && !errors.Is(err, convert.Missing) {
		return p, reject("birth-date", err)
	}
	p.address = convert.SplitAddress(text(address), p.country)
	return p, verdict{}
}

// optional reads a field that a customer can be without: what cannot be read
// is left out, and counted.
func (p *person) optional(field string, read func() (string, error)) string {
	value, err := read()
	if err != nil && !errors.Is(err, convert.Missing) {
		p.repairs = append(p.repairs, field+"-"+err.Error()+"-dropped")
	}
	return value
}

func filterCustomer(name, email, status string) verdict {
	switch convert.Fold(status) {
	case "active", "a":
	case "inactive", "closed", "erased":
		return verdict{filtered, convert.Fold(status)}
	case "":
		return reject("status", convert.Missing)
	default:
		return reject("status", convert.Unknown)
	}
	if strings.HasSuffix(convert.Fold(email), ".test") || strings.HasPrefix(convert.Line(name), "TEST ") {
		return verdict{filtered, "test-row"}
	}
	return verdict{}
}

// A plan is what the first look at the customers found: who is there twice.
type plan struct {
	into map[int64]int64   // a duplicate -> the customer that stands for it, the earliest
	from map[int64][]int64 // that customer -> its duplicates
}

// findDuplicates reads all customers once. Two rows are one person if they have
// the same name and the same e-mail address, or the same name and telephone
// number and no address.
func (r *run) findDuplicates(ctx context.Context) (plan, error) {
	p := plan{map[int64]int64{}, map[int64][]int64{}}
	seen := make(map[digest]int64, r.tables[0].size.Rows)
	query := "SELECT " + r.tables[0].columns + " FROM customers ORDER BY id LIMIT ?"
	err := each(ctx, r.source, func(row []any) error {
		c, v := readCustomer(row)
		if v.outcome != "" {
			return nil
		}
		key := digestOf([]any{convert.Fold(c.name.Given), convert.Fold(c.name.Family), c.email, ""})
		if c.email == "" {
			key = digestOf([]any{convert.Fold(c.name.Given), convert.Fold(c.name.Family), "", c.phone})
		}
		first, ok := seen[key]
		if !ok {
			seen[key] = id(row)
			return nil
		}
		p.into[id(row)] = first
		p.from[first] = append(p.from[first], id(row))
		return nil
	}, query, r.limit())
	return p, err
}

// fates remembers what became of a table's rows, for those that refer to them.
type fates struct {
	of   map[int64]outcome
	into map[int64]int64 // of the merged ones
}

func newFates(size int64) fates {
	return fates{make(map[int64]outcome, size), map[int64]int64{}}
}

func (f fates) note(id int64, d decision) decision {
	f.of[id] = d.outcome
	if d.outcome == merged {
		f.into[id] = d.into
	}
	return d
}

// customers decides on customers.
type customers struct {
	run   *run
	fates fates
}

func newCustomers(r *run) *customers {
	return &customers{r, newFates(r.tables[0].size.Rows)}
}

func (c *customers) decide(ctx context.Context, row []any) (decision, error) {
	d, err := c.judge(ctx, row)
	return c.fates.note(id(row), d), err
}

func (c *customers) judge(ctx context.Context, row []any) (decision, error) {
	p, v := readCustomer(row)
	if v.outcome != "" {
		return decision{outcome: v.outcome, reason: v.reason}, nil
	}
	if into, ok := c.run.plan.into[id(row)]; ok {
		return decision{outcome: merged, into: into}, nil
	}
	for _, other := range c.run.plan.from[id(row)] {
		if err := c.fill(ctx, &p, other); err != nil {
			return decision{}, fmt.Errorf("merge customer %d: %w", other, err)
		}
	}
	return decision{outcome: loaded, row: c.targetRow(id(row), p), repairs: p.repairs}, nil
}

// fill takes from a duplicate what the person lacks. It never replaces a value.
func (c *customers) fill(ctx context.Context, p *person, other int64) error {
	t := c.run.tables[0]
	rows, err := query(ctx, c.run.source, "SELECT "+t.columns+" FROM customers WHERE id = ?", other)
	if err != nil {
		return err
	}
	if len(rows) != 1 {
		return errors.New("it has gone from the source since the start")
	}
	o, _ := readCustomer(rows[0])
	for _, field := range []struct {
		name string
		to   *string
		from string
	}{
		{"email", &p.email, o.email},
		{"phone", &p.phone, o.phone},
		{"birth-date", &p.birth, o.birth},
	} {
		if *field.to == "" && field.from != "" {
			*field.to = field.from
			p.repairs = append(p.repairs, field.name+"-from-duplicate")
		}
	}
	if p.address == (convert.Address{}) && o.address != p.address {
		p.address = o.address
		p.repairs = append(p.repairs, "address-from-duplicate")
	}
	return nil
}

func (c *customers) targetRow(id int64, p person) []any {
	row := []any{
		id, c.run.ids.person(id), null(p.name.Given), p.name.Family, p.name.Rule, nil, nil, nil, nil,
		null(p.birth), null(p.address.Street), null(p.address.PostalCode), null(p.address.City), null(p.country),
	}
	if p.email != "" {
		row[5], row[6] = convert.MaskEmail(p.email), c.run.ids.token("email", p.email)
	}
	if p.phone != "" {
		row[7], row[8] = convert.MaskPhone(p.phone), c.run.ids.token("phone", p.phone)
	}
	return row
}
