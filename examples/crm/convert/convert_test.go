package convert

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestLineRepairsWhatOldApplicationsWrote(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"  Anna \t Beispiel  ", "Anna Beispiel"},
		{"Zoe\u0308", "Zoë"},                  // combining
		{"J\xfcrgen", "Jürgen"},               // Windows-1252
		{"\x80 \x93quoted\x94", "€ “quoted”"}, // where Windows-1252 and Latin-1 differ
		{"a\x81b", "a\ufffdb"},                // what neither has
		{"\u202bמשה\u202c", "משה"},            // bidirectional override
		{"ad\u200bmin", "admin"},              // zero-width space
		{"می\u200cخواهم", "می\u200cخواهم"},    // the joiner that Persian needs
		{"a\r\nb", "a b"},
		{"a\u00a0b", "a b"},
		{"\x00a", "a"}, // line breaks, no-break space, NUL
	} {
		if got := Line(c.in); got != c.want {
			t.Errorf("Line(%q) = %q, want %q", c.in, got, c.want)
		}
	}
	if got := strings.Join(Lines(" a \r\n\r\n b\u0308 \n"), "|"); got != "a|b\u0308" {
		t.Errorf("Lines = %q", got)
	}
	if Fold("ＷＥＩß Straße") != Fold("weiß  straße") {
		t.Error("Fold sees two texts where there is one")
	}
}

func TestSplitName(t *testing.T) {
	for _, c := range []struct {
		full, country       string
		given, family, rule string
	}{
		{"Anna Beispiel", "DE", "Anna", "Beispiel", "last-word"},
		{"Mary Ann Smith", "US", "Mary Ann", "Smith", "last-word"},
		{"Dr. Anna Beispiel", "DE", "Anna", "Beispiel", "last-word"},
		{"Martin King Jr.", "US", "Martin", "King", "last-word"},
		{"King, Jr.", "US", "", "King", "single"},
		{"van der Berg, Dr. Jan", "NL", "Jan", "van der Berg", "comma"},
		{"Ludwig van Beethoven", "DE", "Ludwig", "van Beethoven", "particle"},
		{"Maria de la Cruz", "ES", "Maria", "de la Cruz", "particle"},
		{"José Luis Núñez Peña", "ES", "José Luis", "Núñez Peña", "two-surnames"},
		{"María Ibáñez", "ES", "María", "Ibáñez", "last-word"},
		{"Kovács László", "HU", "László", "Kovács", "family-first"},
		{"Nguyễn Thị Hoa", "VN", "Thị Hoa", "Nguyễn", "family-first"},
		{"王小明", "CN", "小明", "王", "surname"},
		{"欧阳小明", "CN", "小明", "欧阳", "surname"},
		{"김민준", "KR", "민준", "김", "surname"},
		{"남궁민", "KR", "민", "남궁", "surname"},
		{"山田 太郎", "JP", "太郎", "山田", "family-first"},
		{"山田太郎", "JP", "", "山田太郎", "single"},
		{"やまだたろう", "", "", "やまだたろう", "single"},
		{"Suharto", "ID", "", "Suharto", "single"},
		{"Dr.", "DE", "", "Dr.", "single"}, // never nothing
		{"محمد المنصوري", "AE", "محمد", "المنصوري", "last-word"},
		{"Smith,", "GB", "", "Smith", "single"},
	} {
		got, err := SplitName(c.full, c.country)
		if want := (Name{c.given, c.family, c.rule}); got != want || err != nil {
			t.Errorf("SplitName(%q, %q) = %+v, %v, want %+v", c.full, c.country, got, err, want)
		}
	}
	for _, empty := range []string{"", "  ", "\u200b\u00a0", ",", " , "} {
		if got, err := SplitName(empty, "DE"); !errors.Is(err, Missing) {
			t.Errorf("SplitName(%q) = %+v, %v, want Missing", empty, got, err)
		}
	}
}

func TestDate(t *testing.T) {
	years := Years{1900, 2010}
	for _, c := range []struct {
		in, country, want string
		err               error
	}{
		{"1980-05-17", "", "1980-05-17", nil},
		{" 1980-5-7 ", "", "1980-05-07", nil},
		{"1980-05-17T23:59:59+14:00", "", "1980-05-17", nil},
		{"19800517", "", "1980-05-17", nil},
		{"17.05.1980", "US", "1980-05-17", nil}, // points are never American
		{"17 May 1980", "", "1980-05-17", nil},
		{"1. September 1980", "", "1980-09-01", nil},
		{"1980/05/17", "", "1980-05-17", nil},
		{"05/17/1980", "", "1980-05-17", nil}, // no month 17
		{"17/05/1980", "", "1980-05-17", nil},
		{"05/05/1980", "", "1980-05-05", nil}, // the same either way
		{"04/05/1980", "US", "1980-04-05", nil},
		{"04/05/1980", "GB", "1980-05-04", nil},
		{"04/05/1980", "", "", Ambiguous},
		{"04.05.80", "DE", "1980-05-04", nil},
		{"04.05.10", "DE", "2010-05-04", nil},
		{"04.05.11", "DE", "1911-05-04", nil},
		{"29.02.2000", "", "2000-02-29", nil},
		{"29.02.1900", "", "", Impossible}, // not a leap year
		{"1980-02-31", "", "", Impossible},
		{"1980-13-01", "", "", Impossible},
		{"1980-00-10", "", "", Impossible},
		{"13/13/1980", "GB", "", Impossible},
		{"0000-00-00", "", "", Missing},
		{"00.00.0000", "", "", Missing},
		{"", "", "", Missing},
		{"1899-12-31", "", "", OutOfRange},
		{"2011-01-01", "", "", OutOfRange},
		{"spring 1980", "", "", Unreadable},
		{"17 İİ 1980", "", "", Unreadable},
		{"1980-05", "", "", Unreadable},
		{"--", "", "", Unreadable},
		{"١٩٨٠-٠٥-١٧", "", "1980-05-17", nil},
	} {
		if got, err := Date(c.in, c.country, years); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("Date(%q, %q) = %q, %v, want %q, %v", c.in, c.country, got, err, c.want, c.err)
		}
	}
}

// Every day of a century, in every way of writing it, is read as that day.
func TestDateReadsEveryDayInEveryForm(t *testing.T) {
	years := Years{1911, 2010}
	for d := time.Date(1911, 1, 1, 0, 0, 0, 0, time.UTC); d.Year() <= 2010; d = d.AddDate(0, 0, 1) {
		want := d.Format("2006-01-02")
		for _, c := range []struct{ layout, country string }{
			{"2006-01-02", ""},
			{"20060102", ""},
			{"02.01.2006", ""},
			{"2.1.06", ""},
			{"02/01/2006", "GB"},
			{"1/2/2006", "US"},
			{"01/02/06", "US"},
			{"2 January 2006", ""},
			{time.RFC3339, ""},
		} {
			if got, err := Date(d.Format(c.layout), c.country, years); got != want || err != nil {
				t.Fatalf("Date(%q, %q) = %q, %v, want %q", d.Format(c.layout), c.country, got, err, want)
			}
		}
	}
}

func TestAmount(t *testing.T) {
	for _, c := range []struct {
		in, currency string
		want         int64
		err          error
	}{
		{"1234.56", "EUR", 123456, nil},
		{"1234,56", "EUR", 123456, nil},
		{"1234", "EUR", 123400, nil},
		{"1234,5", "EUR", 123450, nil},
		{"1.234,56", "EUR", 123456, nil},
		{"1,234.56", "USD", 123456, nil},
		{"1.234.567,89", "EUR", 123456789, nil},
		{"1\u202f234,56 EUR", "EUR", 123456, nil},
		{"1'234.56", "CHF", 123456, nil},
		{"$1,234.50", "USD", 123450, nil},
		{"EUR 99,90", "EUR", 9990, nil},
		{",50", "EUR", 50, nil},
		{"12.", "EUR", 1200, nil},
		{"1,234,567", "USD", 123456700, nil}, // twice the same sign: it groups
		{"-12.50", "EUR", -1250, nil},
		{"12.50-", "EUR", -1250, nil},
		{"(12.50)", "EUR", -1250, nil},
		{"\u221212,50", "EUR", -1250, nil},
		{"-0.00", "EUR", 0, nil},
		{"¥1,234", "JPY", 1234, nil}, // yen have no decimals
		{"1234.567", "KWD", 1234567, nil},
		{"0.125", "KWD", 125, nil},
		{"١٬٢٣٤٫٥٠", "AED", 123450, nil},
		{"99999999.99", "EUR", 9999999999, nil},
		{"1,234", "EUR", 0, Ambiguous},
		{"1.234", "KWD", 0, Ambiguous},
		{"-1.234", "EUR", 0, Ambiguous},
		{"1234.567", "EUR", 0, OutOfRange},
		{"0,125", "EUR", 0, OutOfRange},
		{"1.5", "JPY", 0, OutOfRange},
		{"100000000.00", "EUR", 0, OutOfRange},
		{"", "EUR", 0, Missing},
		{"EUR", "EUR", 0, Missing},
		{"12.345.67", "EUR", 0, Unreadable},
		{"1,2345.00", "EUR", 0, Unreadable},
		{"1.234.567.89,00", "EUR", 0, Unreadable},
		{"1,234.567,89", "EUR", 0, Unreadable},
		{".", "KRW", 0, Unreadable},
		{"--5", "EUR", 0, Unreadable},
		{"tbd", "EUR", 0, Unreadable},
		{"1e3", "EUR", 0, Unreadable},
		{"5 USD", "EUR", 0, Unreadable}, // another currency than the row's
		{"1", "DM", 0, Unknown},
	} {
		if got, err := Amount(c.in, c.currency); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("Amount(%q, %s) = %d, %v, want %d, %v", c.in, c.currency, got, err, c.want, c.err)
		}
	}
}

// An amount is never read as another: what is written in any usual way comes
// back, or is called ambiguous.
func TestAmountNeverGuesses(t *testing.T) {
	state := uint64(1)
	for range 20_000 {
		state = state*6364136223846793005 + 1442695040888963407
		minor := int64(state>>33) % 9_999_999_999 >> (state % 30)
		whole, cents := fmt.Sprint(minor/100), fmt.Sprintf("%02d", minor%100)
		for _, signs := range [][2]string{{"", "."}, {"", ","}, {",", "."}, {".", ","}, {"'", "."}, {" ", ","}, {"\u202f", ","}} {
			text := grouped(whole, signs[0]) + signs[1] + cents
			for _, form := range []struct {
				format string
				want   int64
			}{{"%s", minor}, {"-%s", -minor}, {"(%s)", -minor}, {"%s-", -minor}, {"%s EUR", minor}, {"€ %s", minor}} {
				in := fmt.Sprintf(form.format, text)
				if got, err := Amount(in, "EUR"); err != nil || got != form.want {
					t.Fatalf("Amount(%q) = %d, %v, want %d", in, got, err, form.want)
				}
			}
			if got, err := Amount(grouped(whole, signs[0]), "EUR"); err == nil && got != minor/100*100 {
				t.Fatalf("Amount(%q) = %d, want %d or Ambiguous", grouped(whole, signs[0]), got, minor/100*100)
			}
		}
	}
}

func grouped(whole, sign string) string {
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + sign + whole[i:]
	}
	return whole
}

func TestCurrency(t *testing.T) {
	for _, c := range []struct {
		in, want string
		err      error
	}{{"eur ", "EUR", nil}, {"JPY", "JPY", nil}, {"KWD", "KWD", nil}, {" ", "", Missing}, {"DM", "", Unknown}} {
		if got, err := Currency(c.in); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("Currency(%q) = %q, %v, want %q, %v", c.in, got, err, c.want, c.err)
		}
	}
}

func TestContact(t *testing.T) {
	for _, c := range []struct {
		in, want, mask string
		err            error
	}{
		{" Anna@Example.COM ", "anna@example.com", "a***@example.com", nil},
		{"<mailto:Anna@example.com>", "anna@example.com", "a***@example.com", nil},
		{"mailto:anna@example.com", "anna@example.com", "a***@example.com", nil},
		{"Ölaf@bücher.example", "ölaf@bücher.example", "ö***@bücher.example", nil},
		{"", "", "", Missing},
		{"n/a", "", "", Unreadable},
		{"@example.com", "", "", Unreadable},
		{"a@b@example.com", "", "", Unreadable},
		{"anna@localhost", "", "", Unreadable},
		{"anna@-example.com", "", "", Unreadable},
		{"anna@example..com", "", "", Unreadable},
		{"anna beispiel@example.com", "", "", Unreadable},
	} {
		got, err := Email(c.in)
		if got != c.want || !errors.Is(err, c.err) || MaskEmail(got) != c.mask {
			t.Errorf("Email(%q) = %q, %v, masked %q, want %q, %v, %q", c.in, got, err, MaskEmail(got), c.want, c.err, c.mask)
		}
	}
	for _, c := range []struct {
		in, country, want string
		err               error
	}{
		{"+49 30 23125 001", "", "+493023125001", nil},
		{"+49 (0)30 23125-001", "US", "+493023125001", nil},
		{"0049 30/23125-001 ext. 12", "", "+493023125001", nil},
		{"030 23125 001", "DE", "+493023125001", nil},
		{"(212) 555-0123", "US", "+12125550123", nil},
		{"1-212-555-0123 x9", "US", "+12125550123", nil},
		{"٠٤ ٠٠٠ ٠٠٠١", "AE", "+97140000001", nil},
		{"030 23125 001", "", "", Ambiguous},
		{"", "DE", "", Missing},
		{"ext 5", "DE", "", Missing},
		{"0", "DE", "", Unreadable},
		{"123", "DE", "", Unreadable},
		{"call the wife", "DE", "", Unreadable},
		{"+0 123 456 789", "DE", "", Unreadable},
		{"+1234567890123456", "", "", Unreadable},
	} {
		got, err := Phone(c.in, c.country)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("Phone(%q, %q) = %q, %v, want %q, %v", c.in, c.country, got, err, c.want, c.err)
		}
	}
	if got := MaskPhone("+493023125001"); got != "+**********01" {
		t.Errorf("MaskPhone = %q", got)
	}
	for in, want := range map[string]string{
		"de": "DE", "U.S.A.": "US", "United States": "US", "uk ": "GB", "Deutschland": "DE", "España": "ES", "Atlantis": "", "": "",
	} {
		if got := Country(in); got != want {
			t.Errorf("Country(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSplitAddress(t *testing.T) {
	for _, c := range []struct {
		in, country string
		want        Address
	}{
		{"Hauptstraße 1\n10115 Berlin", "DE", Address{"Hauptstraße 1", "10115", "Berlin"}},
		{"Hauptstraße 1, 10115 Berlin", "DE", Address{"Hauptstraße 1", "10115", "Berlin"}},
		{"12 High Street\r\nLondon\r\nSW1A 1AA", "GB", Address{"12 High Street", "SW1A 1AA", "London"}},
		{"1 Oak Ave\nAustin, TX 78701-1234", "US", Address{"1 Oak Ave", "78701-1234", "Austin, TX"}},
		{"千代田1\n〒100-0001 東京都", "JP", Address{"千代田1", "100-0001", "東京都"}},
		{"Dorpsstraat 3\n1012 AB Amsterdam", "NL", Address{"Dorpsstraat 3", "1012 AB", "Amsterdam"}},
		{"c/o \"The Mill\"\nHauptstraße 1\n10115 Berlin\nGermany", "DE", Address{"c/o \"The Mill\", Hauptstraße 1, Germany", "10115", "Berlin"}},
		{"12345 Long Road", "US", Address{"12345 Long Road", "", ""}}, // the number of a house
		{"'); DROP TABLE customer;--", "US", Address{"'); DROP TABLE customer;--", "", ""}},
		{"", "DE", Address{}},
	} {
		if got := SplitAddress(c.in, c.country); got != c.want {
			t.Errorf("SplitAddress(%q, %q) = %+v, want %+v", c.in, c.country, got, c.want)
		}
	}
}

// Whatever stands in a field, the rules do not fail and lose nothing.
func FuzzRules(f *testing.F) {
	for _, seed := range []string{"", "Anna Beispiel", "J\xfcrgen", "1.234,56", "04/05/80", "a@b.example", "12 High St\nLondon\nSW1A 1AA", "\u0130 \u200b", "王小明", "〒100-0001 東京都"} {
		f.Add(seed, "DE")
		f.Add(seed, "JP")
	}
	f.Fuzz(func(t *testing.T, s, country string) {
		line := Line(s)
		if Line(line) != line || !utf8.ValidString(line) {
			t.Errorf("Line(%q) = %q is not its own repair", s, line)
		}
		if n, err := SplitName(s, country); err == nil && (n.Family == "" || n.Rule == "") {
			t.Errorf("SplitName(%q) = %+v", s, n)
		}
		if d, err := Date(s, country, Years{1900, 2010}); err == nil {
			if again, err := Date(d, "", Years{1900, 2010}); again != d || err != nil {
				t.Errorf("Date(%q) = %q is not its own date", s, d)
			}
		}
		if e, err := Email(s); err == nil {
			if again, err := Email(e); again != e || err != nil {
				t.Errorf("Email(%q) = %q, and again %q, %v", s, e, again, err)
			}
		}
		if p, err := Phone(s, country); err == nil {
			if again, err := Phone(p, ""); again != p || err != nil {
				t.Errorf("Phone(%q) = %q, and again %q, %v", s, p, again, err)
			}
			if m := MaskPhone(p); strings.Trim(m[:len(m)-2], "+*") != "" || len(m) != len(p) {
				t.Errorf("MaskPhone(%q) = %q", p, m)
			}
		}
		_, _ = Amount(s, "EUR") // must not panic; what it reads is tested above
		a := SplitAddress(s, country)
		if all := a.Street + a.PostalCode + a.City; letters(all) < letters(line)-strings.Count(line, "〒") {
			t.Errorf("SplitAddress(%q) = %+v has lost something", s, a)
		}
	})
}

// letters counts what is neither a blank nor punctuation that a split may drop.
func letters(s string) int {
	n := 0
	for _, r := range s {
		if !strings.ContainsRune(" ,\t\n\r", r) {
			n++
		}
	}
	return n
}
