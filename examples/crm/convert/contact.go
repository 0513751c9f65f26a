package convert

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Country gives the ISO 3166 code of s, or the empty string for one that is
// not on the list: no later rule may then lean on it.
func Country(s string) string {
	switch code := strings.ToUpper(dropSigns(Line(s), ". ")); code {
	case "UK", "GREATBRITAIN", "ENGLAND":
		return "GB"
	case "USA", "UNITEDSTATES":
		return "US"
	case "DEUTSCHLAND", "GERMANY":
		return "DE"
	case "ESPAÑA", "SPAIN":
		return "ES"
	default:
		if callingCode(code) == "" {
			return ""
		}
		return code
	}
}

// dropSigns removes every one of the signs from s.
func dropSigns(s, signs string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(signs, r) {
			return -1
		}
		return r
	}, s)
}

// callingCode gives the prefix of a country's telephone numbers.
// Source: ITU-T E.164, for the countries in which the business has customers.
func callingCode(country string) string {
	codes := [...][2]string{
		{"US", "1"},
		{"GB", "44"},
		{"DE", "49"},
		{"FR", "33"},
		{"ES", "34"},
		{"MX", "52"},
		{"PL", "48"},
		{"TR", "90"},
		{"GR", "30"},
		{"RU", "7"},
		{"IL", "972"},
		{"AE", "971"},
		{"IN", "91"},
		{"TH", "66"},
		{"CN", "86"},
		{"JP", "81"},
		{"KR", "82"},
		{"VN", "84"},
		{"NL", "31"},
		{"HU", "36"},
		{"AM", "374"},
		{"GE", "995"},
		{"ET", "251"},
		{"SE", "46"},
	}
	i := slices.IndexFunc(codes[:], func(c [2]string) bool { return c[0] == country })
	if i < 0 {
		return ""
	}
	return codes[i][1]
}

// Email gives an e-mail address in lower case, without the wrapping in which
// people paste it. The error is [Missing] or [Unreadable].
func Email(s string) (string, error) {
	s = strings.ToLower(Line(s))
	s = strings.TrimPrefix(strings.Trim(s, "<>"), "mailto:")
	if s == "" {
		return "", Missing
	}
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || strings.ContainsAny(s, " \"<>,;()") || !domainName(domain) {
		return "", Unreadable
	}
	return s, nil
}

func domainName(s string) bool {
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || strings.HasPrefix(l, "-") || strings.HasSuffix(l, "-") ||
			strings.ContainsFunc(l, func(r rune) bool { return !unicode.In(r, unicode.L, unicode.N, unicode.M) && r != '-' }) {
			return false
		}
	}
	return len(labels) > 1
}

// MaskEmail shows the first character of an address and its domain: enough for
// a clerk to recognise it with the customer on the telephone.
func MaskEmail(address string) string {
	local, domain, _ := strings.Cut(address, "@")
	for _, r := range local {
		return string(r) + "***@" + domain
	}
	return ""
}

// Phone gives a telephone number in the form +COUNTRYNUMBER (ITU-T E.164),
// without an extension. The country is that of numbers without a prefix.
// The error is [Missing], [Ambiguous] (no prefix, no country) or [Unreadable].
func Phone(s, country string) (string, error) {
	s = strings.ToLower(asciiDigits(Line(s)))
	for _, ext := range [...]string{"ext", "x", "#", ";"} {
		s, _, _ = strings.Cut(s, ext)
	}
	if s = strings.TrimSpace(s); s == "" {
		return "", Missing
	}
	if strings.Trim(s, "0123456789+-./() ") != "" {
		return "", Unreadable
	}
	international := strings.HasPrefix(s, "+")
	// "(0)" is dialled only inside the country.
	digits := strings.Map(onlyDigits, strings.Replace(s, "(0)", "", 1))
	if rest, ok := strings.CutPrefix(digits, "00"); ok && !international {
		digits, international = rest, true
	}
	if !international {
		code := callingCode(country)
		if code == "" {
			return "", Ambiguous
		}
		if country == "US" {
			digits = strings.TrimPrefix(digits, "1")
		}
		digits = code + strings.TrimPrefix(digits, "0")
	}
	if len(digits) < 8 || len(digits) > 15 || digits[0] == '0' {
		return "", Unreadable
	}
	return "+" + digits, nil
}

func onlyDigits(r rune) rune {
	if r < '0' || r > '9' {
		return -1
	}
	return r
}

// MaskPhone shows the last two digits of a number as [Phone] gives it.
func MaskPhone(number string) string {
	shown := max(0, len(number)-2)
	return "+" + strings.Repeat("*", max(0, shown-1)) + number[shown:]
}

// An Address is a postal address in three parts.
type Address struct {
	Street     string // everything that is neither of the others
	PostalCode string
	City       string
}

// SplitAddress splits an address by its postal code: the line that holds it is
// the city's. Without a recognisable code everything stays in Street, so that
// nothing is lost.
func SplitAddress(s, country string) Address {
	lines := Lines(s)
	if len(lines) == 1 {
		lines = strings.Split(lines[0], ", ")
	}
	code := postalCode(country)
	for i := len(lines) - 1; i >= 0; i-- {
		at := code.FindStringIndex(lines[i])
		// A street's number can look like a code: the first line is a street.
		if at == nil || i == 0 {
			continue
		}
		a := Address{PostalCode: lines[i][at[0]:at[1]]}
		a.City = strings.Trim(Line(lines[i][:at[0]]+" "+lines[i][at[1]:]), " ,〒")
		rest := slices.Delete(lines, i, i+1)
		if a.City == "" && i > 1 {
			a.City = rest[i-1]
			rest = slices.Delete(rest, i-1, i)
		}
		a.Street = strings.Join(rest, ", ")
		return a
	}
	return Address{Street: strings.Join(lines, ", ")}
}

func postalCode(country string) *regexp.Regexp {
	switch country {
	case "GB":
		return gbCode
	case "US":
		return usCode
	case "JP":
		return jpCode
	case "NL":
		return nlCode
	}
	return anyCode
}

var (
	gbCode  = regexp.MustCompile(`\b[A-Z]{1,2}[0-9][A-Z0-9]? ?[0-9][A-Z]{2}\b`)
	usCode  = regexp.MustCompile(`\b[0-9]{5}(-[0-9]{4})?\b`)
	jpCode  = regexp.MustCompile(`\b[0-9]{3}-[0-9]{4}\b`)
	nlCode  = regexp.MustCompile(`\b[0-9]{4} ?[A-Z]{2}\b`)
	anyCode = regexp.MustCompile(`\b[0-9]{4,6}\b`)
)
