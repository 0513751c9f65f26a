package convert

import (
	"strconv"
	"strings"
)

// amountDigitsMax keeps every amount, and the total of 100,000 of them, within
// the integers that JSON carries exactly (2^53-1).
const amountDigitsMax = 10

// decimals is how many digits of a currency stand after the decimal sign.
// Source: ISO 4217, the minor units of the currencies that the business takes.
func decimals(currency string) (n int, ok bool) {
	switch currency {
	case "EUR", "USD", "GBP", "CHF", "SEK", "PLN", "INR", "CNY", "TRY", "ILS", "AED", "MXN", "THB":
		return 2, true
	case "JPY", "KRW", "VND":
		return 0, true
	case "KWD", "TND":
		return 3, true
	}
	return 0, false
}

// Currency gives the ISO 4217 code of s, or [Missing] or [Unknown].
func Currency(s string) (string, error) {
	s = strings.ToUpper(Line(s))
	if s == "" {
		return "", Missing
	}
	if _, ok := decimals(s); !ok {
		return "", Unknown
	}
	return s, nil
}

// Amount reads an amount in units of the currency's smallest coin. It takes
// comma or point as the decimal sign, the usual ways to group thousands, and
// the minus sign before, behind, or as brackets. One separator with three
// digits behind it is [Ambiguous] wherever it can mean either.
func Amount(s, currency string) (int64, error) {
	exponent, ok := decimals(currency)
	if !ok {
		return 0, Unknown
	}
	s, negative := unsigned(s, currency)
	if s == "" {
		return 0, Missing
	}
	if strings.Trim(s, "0123456789.,") != "" {
		return 0, Unreadable
	}
	whole, fraction, err := decimalSign(s, exponent)
	if err != nil {
		return 0, err
	}
	if len(fraction) > exponent || len(whole)+exponent > amountDigitsMax {
		return 0, OutOfRange
	}
	fraction += strings.Repeat("0", exponent-len(fraction))
	minor, err := strconv.ParseInt(whole+fraction, 10, 64)
	if err != nil {
		return 0, Unreadable
	}
	if negative {
		minor = -minor
	}
	return minor, nil
}

// unsigned takes off what is around the figures: signs, currency, blanks.
func unsigned(s, currency string) (figures string, negative bool) {
	s = strings.ToUpper(asciiDigits(Line(s)))
	s = strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(s, currency), currency))
	s = amountSigns.Replace(s)
	switch {
	case strings.HasPrefix(s, "(") && strings.HasSuffix(s, ")"):
		return s[1 : len(s)-1], true
	case strings.HasPrefix(s, "-"):
		return s[1:], true
	case strings.HasSuffix(s, "-"):
		return s[:len(s)-1], true
	}
	return s, false
}

// decimalSign finds out which sign is the decimal one and takes the other away.
func decimalSign(s string, exponent int) (whole, fraction string, err error) {
	last := strings.LastIndexAny(s, ".,")
	if last < 0 {
		return s, "", nil
	}
	sign := s[last : last+1]
	head, tail := s[:last], s[last+1:]
	if strings.ContainsAny(head, ".,") {
		group := s[strings.IndexAny(s, ".,"):][:1]
		if group != sign { // both signs occur: the last is the decimal one
			whole, err = ungroup(head, group)
			return whole, tail, err
		}
		whole, err = ungroup(s, sign) // one sign, several times: it groups
		return whole, "", err
	}
	if len(tail) != 3 || len(head) == 0 || len(head) > 3 || head[0] == '0' {
		return head, tail, nil
	}
	if exponent == 0 {
		return head + tail, "", nil
	}
	return "", "", Ambiguous
}

// ungroup joins groups of three digits.
func ungroup(s, group string) (string, error) {
	parts := strings.Split(s, group)
	for i, p := range parts {
		if strings.ContainsAny(p, ".,") || i > 0 && len(p) != 3 || len(p) == 0 || len(p) > 3 {
			return "", Unreadable
		}
	}
	return strings.Join(parts, ""), nil
}

// amountSigns takes away what stands between figures and unites the signs.
var amountSigns = strings.NewReplacer(
	"\u2212", "-", // minus sign
	"\u066b", ".", "\u066c", ",", // Arabic decimal and thousands separators
	" ", "", "\u00a0", "", "\u202f", "", "'", "", "\u2019", "", // thousands
	"€", "", "$", "", "£", "", "¥", "", "₹", "",
)
