// Package convert holds the rules by which one customer database becomes
// another: how a text is repaired, a name split, a date or an amount read, an
// e-mail address masked. It does no I/O and keeps no state, so that a rule can
// be read, tested and cited in an audit by itself.
//
// A rule never guesses. Where an input has two plausible readings, such as
// 03/04/2021 without a country, it gives a [Reason] instead of a value.
package convert

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/unicode/norm"
)

// A Reason is the closed code of why a value was not taken. It holds no part
// of the value, so that it can stand in an audit trail.
type Reason string

// Error makes a reason an error.
func (r Reason) Error() string { return string(r) }

// The reasons that the rules of this package give.
const (
	Missing    Reason = "missing"      // nothing there, or a stand-in for nothing such as 0000-00-00
	Impossible Reason = "impossible"   // of the right form, but no such value, such as 31 February
	Ambiguous  Reason = "ambiguous"    // two readings, and nothing to decide between them
	Unreadable Reason = "unreadable"   // of no form that is known
	OutOfRange Reason = "out-of-range" // readable, but outside what the field can hold
	Unknown    Reason = "unknown"      // a code that is not on its list
)

// Line repairs a single-line text: bytes that are not UTF-8 are read as
// Windows-1252 (what the old application wrote), characters are composed
// (NFC), invisible ones that can disguise a text are removed, and each run of
// white space becomes one space.
func Line(s string) string {
	return strings.Join(strings.Fields(visible(s)), " ")
}

// Lines repairs a text as [Line] does, but keeps its line breaks. Empty lines
// are left out.
func Lines(s string) []string {
	var lines []string
	for _, l := range strings.FieldsFunc(visible(s), func(r rune) bool { return r == '\n' || r == '\r' }) {
		if l = strings.Join(strings.Fields(l), " "); l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

func visible(s string) string {
	if ascii(s) {
		return s
	}
	if !utf8.ValidString(s) {
		// The decoder maps every byte, the five that Windows-1252 leaves open
		// to U+FFFD: it cannot fail.
		s, _ = charmap.Windows1252.NewDecoder().String(s)
	}
	return norm.NFC.String(strings.Map(func(r rune) rune {
		if disguise(r) {
			return -1
		}
		return r
	}, s))
}

func ascii(s string) bool {
	for i := range len(s) {
		if c := s[i]; c >= utf8.RuneSelf || c < ' ' && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}

// disguise says whether r is invisible and can make one text look like
// another: controls, bidirectional overrides, zero-width spaces. The joiners
// U+200C and U+200D stay: Persian and the Indic scripts are spelt with them.
func disguise(r rune) bool {
	switch {
	case r == '\n' || r == '\r' || r == '\t':
		return false
	case r == '\u200c' || r == '\u200d':
		return false
	case r == '\u0085':
		return false
	}
	return unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r)
}

// Fold gives the form in which two texts are compared: [Line], compatibility
// characters replaced (NFKC), lower case.
func Fold(s string) string {
	return Line(strings.ToLower(norm.NFKC.String(Line(s))))
}

// zeros are the zeros of the digits that the source is known to hold.
var zeros = [...]rune{'0', '\u0660', '\u06f0', '\u0966', '\u09e6', '\u0e50', '\uff10'}

// digit gives the value of a decimal digit of any of those scripts.
func digit(r rune) (value int, ok bool) {
	for _, zero := range zeros {
		if r >= zero && r <= zero+9 {
			return int(r - zero), true
		}
	}
	return 0, false
}

// asciiDigits replaces the digits of other scripts by those of ASCII.
func asciiDigits(s string) string {
	if ascii(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if d, ok := digit(r); ok {
			return rune('0' + d)
		}
		return r
	}, s)
}
