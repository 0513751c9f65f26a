package source

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/unicode/norm"
)

// A generator makes rows. Each row depends on the seed and its id only.
type generator struct {
	config  Config
	locales []locale
	gallery Cases
}

func newGenerator(c Config) *generator {
	return &generator{config: c, locales: locales(), gallery: Gallery()}
}

// duplicateReach is how many ids back a duplicate's original is at most.
const duplicateReach = 5000

// person gives the id of the customer whose second account id is, or id.
func (g *generator) person(id int64) int64 {
	for {
		r := newRandom(g.config.Seed, "person", id)
		first := int64(len(g.gallery.Customers)) + 1
		if id <= first || !r.chance(40) {
			return id
		}
		id = max(first, id-1-int64(r.below(duplicateReach)))
	}
}

func (g *generator) locale(id int64) (locale, *random) {
	r := newRandom(g.config.Seed, "locale", g.person(id))
	n := r.below(100)
	for _, l := range g.locales {
		if n -= l.weight; n < 0 {
			return l, r
		}
	}
	panic("source: the weights of the locales are not 100")
}

// customer makes the customer with that id: who it is comes from the person,
// how it was typed in from the row.
func (g *generator) customer(id int64) []any {
	if fixed := g.gallery.Customers; id <= int64(len(fixed)) {
		return append([]any{id}, fixed[id-1].Row...)
	}
	person := g.person(id)
	l, who := g.locale(id)
	given, family := who.below(len(l.given)), who.below(len(l.family))
	email := fmt.Sprintf("%s.%d@example.%s", l.latin[family], person, pick(who, []string{"com", "org", "net"}))
	phone := fmt.Sprintf(l.phone, who.below(1000))
	birth := day(who, 1930, 2008)
	address := l.address(who)

	r := newRandom(g.config.Seed, "customer", id)
	return []any{
		id, typedName(r, l, given, family), typedEmail(r, email), typedPhone(r, phone), typedDate(r, birth, l.country),
		typedAddress(r, address), typedCountry(r, l.country), typedStatus(r),
	}
}

func typedName(r *random, l locale, given, family int) any {
	name := l.name(given, family)
	switch n := r.below(1000); {
	case n < 3:
		return nil
	case n < 5:
		return "   "
	case n < 45:
		return l.family[family] + ", " + l.given[given]
	case n < 60:
		return pick(r, []string{"Dr. ", "Mrs ", "Prof. "}) + name
	case n < 75:
		return norm.NFD.String(name)
	case n < 85:
		return strings.ToUpper(name)
	case n < 95:
		return "\u202b" + name + "\u202c"
	case n < 105:
		return strings.ReplaceAll(name, " ", "\n")
	case n < 125:
		if old, err := charmap.Windows1252.NewEncoder().String(name); err == nil {
			return old
		}
	case n < 128:
		return "TEST " + name
	}
	return padded(r, name)
}

// padded adds blanks as forms of fixed width leave them.
func padded(r *random, s string) string {
	switch n := r.below(100); {
	case n < 4:
		return s + strings.Repeat(" ", 1+r.below(20))
	case n < 5:
		return "\u00a0" + s
	case n < 6:
		return strings.ReplaceAll(s, " ", "  ")
	}
	return s
}

func typedEmail(r *random, email string) any {
	switch n := r.below(1000); {
	case n < 50:
		return nil
	case n < 60:
		return pick(r, []string{"n/a", "none", "-", "@", "unknown at example.com"})
	case n < 65:
		return "mailto:" + email
	case n < 200:
		return strings.ToUpper(email[:1]) + email[1:]
	case n < 230:
		return strings.ToUpper(email)
	case n < 233:
		return strings.Split(email, "@")[0] + "@bücher.example"
	case n < 236:
		return strings.Split(email, "@")[0] + "@qa.test"
	}
	return padded(r, email)
}

func typedPhone(r *random, phone string) any {
	switch n := r.below(1000); {
	case n < 120:
		return nil
	case n < 130:
		return pick(r, []string{"unknown", "0", "call the wife", "123"})
	case n < 230:
		return strings.NewReplacer(" ", "", "-", "").Replace(phone)
	case n < 280:
		return strings.ReplaceAll(phone, " ", "/")
	case n < 300:
		return phone + " ext. " + strconv.Itoa(10+r.below(90))
	case n < 305:
		return strings.Map(func(c rune) rune {
			if c >= '0' && c <= '9' {
				return '٠' + c - '0'
			}
			return c
		}, phone)
	}
	return phone
}

func typedAddress(r *random, address string) any {
	switch n := r.below(1000); {
	case n < 30:
		return nil
	case n < 230:
		return strings.ReplaceAll(address, "\n", ", ")
	case n < 330:
		return strings.ReplaceAll(address, "\n", "\r\n")
	case n < 350:
		return "c/o \"The Old \"\"Mill\"\"\"\n" + address
	}
	return padded(r, address)
}

func typedCountry(r *random, country string) any {
	switch n := r.below(1000); {
	case n < 30:
		return nil
	case n < 60:
		return strings.ToLower(country)
	case n < 80:
		return country + " "
	case n < 100:
		switch country {
		case "GB":
			return "UK"
		case "US":
			return "U.S.A."
		case "DE":
			return "Deutschland"
		}
	}
	return country
}

func typedStatus(r *random) any {
	switch n := r.below(1000); {
	case n < 40:
		return "inactive"
	case n < 60:
		return "closed"
	case n < 65:
		return "erased"
	case n < 68:
		return nil
	case n < 100:
		return "ACTIVE "
	case n < 120:
		return "a"
	}
	return "active"
}

// A date is what somebody meant before typing it.
type date struct{ year, month, day int }

func day(r *random, first, last int) date {
	return date{first + r.below(last-first+1), 1 + r.below(12), 1 + r.below(28)}
}

func typedDate(r *random, d date, country string) any {
	usual := fmt.Sprintf("%04d-%02d-%02d", d.year, d.month, d.day)
	slashed := [2]int{d.day, d.month}
	if country == "US" {
		slashed = [2]int{d.month, d.day}
	}
	switch n := r.below(1000); {
	case n < 20:
		return nil
	case n < 30:
		return "0000-00-00"
	case n < 35:
		return fmt.Sprintf("%04d-02-31", d.year)
	case n < 38:
		return pick(r, []string{"unknown", "n/a", "1.1."})
	case n < 138:
		return fmt.Sprintf("%02d/%02d/%04d", slashed[0], slashed[1], d.year)
	case n < 178:
		return fmt.Sprintf("%02d/%02d/%02d", slashed[0], slashed[1], d.year%100)
	case n < 258:
		return fmt.Sprintf("%02d.%02d.%04d", d.day, d.month, d.year)
	case n < 278:
		return fmt.Sprintf("%04d%02d%02d", d.year, d.month, d.day)
	case n < 298:
		return usual + "T00:00:00Z"
	}
	return usual
}

// order makes the order with that id.
func (g *generator) order(id int64) []any {
	if fixed := g.gallery.Orders; id <= int64(len(fixed)) {
		return append([]any{id}, fixed[id-1].Row...)
	}
	r := newRandom(g.config.Seed, "order", id)
	if r.chance(5) { // the same order, imported twice
		return append([]any{id}, g.order(id - 1)[1:]...)
	}
	no := fmt.Sprintf("SO-%07d", id)
	if r.chance(1) { // a number used twice
		no = fmt.Sprintf("SO-%07d", id-2)
	}
	customer := 1 + int64(r.below(g.config.Customers))
	l, _ := g.locale(customer)
	var owner any = customer
	switch n := r.below(1000); {
	case n < 5: // an orphan
		owner = int64(10_000_000 + r.below(1000))
	case n < 7:
		owner = nil
	}
	minor := int64(r.below(2_000_000))
	if l.currency == "KRW" || l.currency == "VND" || l.currency == "JPY" {
		minor *= 10
	}
	if r.chance(10) {
		minor = -minor
	}
	return []any{
		id, no, owner, typedDate(r, day(r, 2004, 2024), l.country), typedCountry(r, l.country),
		typedCurrency(r, l.currency), typedAmount(r, minor, l), typedNote(r),
	}
}

func typedCurrency(r *random, currency string) any {
	switch n := r.below(1000); {
	case n < 3:
		return nil
	case n < 6:
		return pick(r, []string{"???", "DM", "XXX"})
	case n < 30:
		return strings.ToLower(currency) + " "
	}
	return currency
}

// typedAmount writes an amount the way its country does, or as one of the
// programs did that have filled the table over the years.
func typedAmount(r *random, minor int64, l locale) any {
	exponent := 2
	if l.currency == "KRW" || l.currency == "VND" || l.currency == "JPY" {
		exponent = 0
	}
	plain := decimal(minor, exponent, "", ".")
	switch n := r.below(1000); {
	case n < 5:
		return nil
	case n < 8:
		return pick(r, []string{"tbd", "#VALUE!", "12.345.67"})
	case n < 10:
		return "1,234"
	case n < 300:
		return decimal(minor, exponent, ".", ",")
	case n < 400:
		return decimal(minor, exponent, "", ",")
	case n < 500 && l.country == "US":
		return "$" + decimal(minor, exponent, ",", ".")
	case n < 550:
		return decimal(minor, exponent, "\u202f", ",") + " " + l.currency
	case n < 570 && minor < 0:
		return "(" + decimal(-minor, exponent, "", ".") + ")"
	case n < 600 && minor < 0:
		return decimal(-minor, exponent, "", ".") + "-"
	}
	return plain
}

// decimal writes an amount in the smallest coin with its separators.
func decimal(minor int64, exponent int, group, point string) string {
	sign := ""
	if minor < 0 {
		sign, minor = "-", -minor
	}
	digits := fmt.Sprintf("%0*d", exponent+1, minor)
	whole, fraction := digits[:len(digits)-exponent], digits[len(digits)-exponent:]
	for i := len(whole) - 3; i > 0 && group != ""; i -= 3 {
		whole = whole[:i] + group + whole[i:]
	}
	if exponent == 0 {
		return sign + whole
	}
	return sign + whole + point + fraction
}

func typedNote(r *random) any {
	switch n := r.below(100); {
	case n < 70:
		return nil
	case n < 72:
		return "said \"urgent\"\r\nring twice;\tthen wait"
	case n < 74:
		return "Robert'); DROP TABLE orders;--"
	case n < 76:
		return "🎁 gift, 请包装"
	}
	return "standard"
}

// invoice makes the invoice with that id.
func (g *generator) invoice(id int64) []any {
	if fixed := g.gallery.Invoices; id <= int64(len(fixed)) {
		return append([]any{id}, fixed[id-1].Row...)
	}
	r := newRandom(g.config.Seed, "invoice", id)
	if r.chance(4) {
		return append([]any{id}, g.invoice(id - 1)[1:]...)
	}
	order := 1 + int64(r.below(g.config.Orders()))
	l, _ := g.locale(1 + int64(r.below(g.config.Customers)))
	l.currency = "EUR" // the business bills in euros
	var owner any = order
	if r.chance(4) {
		owner = int64(20_000_000 + r.below(1000))
	}
	net := int64(r.below(1_000_000))
	tax := net * 19 / 100
	kind := "INV"
	if r.chance(30) {
		kind = "CN"
	}
	if kind == "CN" || r.chance(3) { // a credit note is negative, an invoice must not be
		net, tax = -net, -tax
	}
	total := net + tax
	if r.chance(3) {
		total += 100
	}
	issued := day(r, 2004, 2024)
	due := date{issued.year, issued.month, 28}
	if r.chance(3) {
		due.year--
	}
	country := typedCountry(r, l.country)
	return []any{
		id, fmt.Sprintf("RE-%07d", id), owner, kind, typedDate(r, issued, l.country), typedDate(r, due, l.country),
		country, typedCurrency(r, l.currency), typedAmount(r, net, l), typedAmount(r, tax, l), typedAmount(r, total, l),
	}
}
