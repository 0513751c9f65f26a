package log

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// jsonMaxDepth bounds nesting, so that no input can exhaust the stack.
	jsonMaxDepth = 64
	// numberMaxBytes bounds a number as written. The exact decimal of a float64
	// has at most 1,077 bytes; of far longer ones strconv.ParseFloat takes an
	// exponent for a smaller one.
	numberMaxBytes = 4096
)

// Canonical gives the RFC 8785 form of a JSON text. It is strict where
// encoding/json is not: duplicate keys, invalid UTF-8, lone surrogates, trailing
// text and nesting beyond 64 are [ErrMalformed]. So are large numbers that would
// come out as others: see [jsonParser.number]. The form is its own form.
func Canonical(text []byte) ([]byte, error) {
	p := &jsonParser{in: text}
	out := p.value(make([]byte, 0, len(text)), 0)
	p.space()
	if p.err == nil && p.at != len(p.in) {
		p.fail("text after the value")
	}
	if p.err != nil {
		return nil, p.err
	}
	return out, nil
}

// A Member is one member of a JSON object.
type Member struct {
	Key string
	Raw []byte // the value as written
}

// Members splits a JSON object into its members, in the order written. It is
// as strict as [Canonical].
func Members(text []byte) ([]Member, error) {
	p := &jsonParser{in: text, top: []Member{}, checkOnly: true}
	p.space()
	if p.at == len(p.in) || p.in[p.at] != '{' {
		return nil, fmt.Errorf("%w JSON: want an object", ErrMalformed)
	}
	p.value(nil, 0)
	p.space()
	if p.err == nil && p.at != len(p.in) {
		p.fail("text after the value")
	}
	return p.top, p.err
}

// JSONString gives the value of a JSON string.
func JSONString(text []byte) (string, error) {
	p := &jsonParser{in: text}
	s := p.string()
	if p.err == nil && p.at != len(p.in) {
		p.fail("text after the value")
	}
	return s, p.err
}

// A jsonParser turns JSON into its canonical form while checking it.
type jsonParser struct {
	in  []byte
	at  int
	top []Member // collected if not nil
	err error

	checkOnly bool // the canonical form is not wanted
}

func (p *jsonParser) fail(what string) {
	if p.err == nil {
		p.err = fmt.Errorf("%w JSON: byte %d: %s", ErrMalformed, p.at, what)
	}
}

func (p *jsonParser) space() {
	for p.at < len(p.in) {
		switch p.in[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

// next consumes c, after white space, or fails.
func (p *jsonParser) next(c byte) bool {
	p.space()
	if p.err == nil && p.at < len(p.in) && p.in[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *jsonParser) value(out []byte, depth int) []byte {
	p.space()
	if p.err != nil {
		return out
	}
	if p.at == len(p.in) {
		p.fail("the text ends where a value should be")
		return out
	}
	if depth > jsonMaxDepth {
		p.fail(fmt.Sprintf("nested deeper than %d", jsonMaxDepth))
		return out
	}
	switch c := p.in[p.at]; {
	case c == '{':
		return p.object(out, depth)
	case c == '[':
		return p.array(out, depth)
	case c == '"':
		s := p.string()
		if p.checkOnly {
			return out
		}
		return appendJSONString(out, s)
	case c == '-' || '0' <= c && c <= '9':
		return p.number(out)
	}
	for _, word := range []string{"true", "false", "null"} {
		if len(p.in)-p.at >= len(word) && string(p.in[p.at:p.at+len(word)]) == word {
			p.at += len(word)
			return append(out, word...)
		}
	}
	p.fail("not a value")
	return out
}

func (p *jsonParser) array(out []byte, depth int) []byte {
	p.at++
	out = append(out, '[')
	if p.next(']') {
		return append(out, ']')
	}
	for p.err == nil {
		out = p.value(out, depth+1)
		if p.next(']') {
			return append(out, ']')
		}
		if !p.next(',') {
			p.fail("want , or ]")
		}
		out = append(out, ',')
	}
	return out
}

type jsonMember struct {
	key   string
	value []byte
}

// compareUTF16 compares by UTF-16 code units (RFC 8785 section 3.2.3). That is
// the order of code points, but that a code point beyond U+FFFF begins with a
// surrogate, and so comes before U+E000.
func compareUTF16(a, b string) int {
	for a != "" && b != "" {
		x, n := utf8.DecodeRuneInString(a)
		y, m := utf8.DecodeRuneInString(b)
		if x != y {
			return cmp.Or(cmp.Compare(firstUnit(x), firstUnit(y)), cmp.Compare(x, y))
		}
		a, b = a[n:], b[m:]
	}
	return cmp.Compare(len(a), len(b))
}

func firstUnit(r rune) rune {
	if high, _ := utf16.EncodeRune(r); high != utf8.RuneError {
		return high
	}
	return r
}

func (p *jsonParser) object(out []byte, depth int) []byte {
	members := p.members(depth)
	slices.SortFunc(members, func(a, b jsonMember) int { return compareUTF16(a.key, b.key) })
	out = append(out, '{')
	for i, m := range members {
		if i > 0 {
			if m.key == members[i-1].key {
				p.fail("duplicate key " + strconv.Quote(m.key))
				return out
			}
			out = append(out, ',')
		}
		if !p.checkOnly {
			out = append(appendJSONString(out, m.key), ':')
			out = append(out, m.value...)
		}
	}
	return append(out, '}')
}

func (p *jsonParser) members(depth int) (members []jsonMember) {
	p.at++
	if p.next('}') {
		return nil
	}
	members = make([]jsonMember, 0, 8)
	for p.err == nil {
		p.space()
		key := p.string()
		if !p.next(':') {
			p.fail("want :")
		}
		p.space()
		begin := p.at
		value := p.value(nil, depth+1)
		if depth == 0 && p.top != nil {
			p.top = append(p.top, Member{key, p.in[begin:p.at]})
		}
		members = append(members, jsonMember{key, value})
		if p.next('}') {
			return members
		}
		if !p.next(',') {
			p.fail("want , or }")
		}
	}
	return members
}

// string reads a JSON string, and gives its value.
func (p *jsonParser) string() string {
	if p.err != nil || p.at == len(p.in) || p.in[p.at] != '"' {
		p.fail("want a string")
		return ""
	}
	p.at++
	begin := p.at
	for p.at < len(p.in) && p.in[p.at] != '"' && p.in[p.at] != '\\' && p.in[p.at] >= ' ' {
		p.at++
	}
	if p.at < len(p.in) && p.in[p.at] == '"' && utf8.Valid(p.in[begin:p.at]) {
		p.at++
		return string(p.in[begin : p.at-1]) // no escapes: nearly all strings
	}
	out := append([]byte(nil), p.in[begin:p.at]...)
	for p.err == nil {
		if p.at == len(p.in) {
			p.fail("string does not end")
			break
		}
		c := p.in[p.at]
		p.at++
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				p.fail("string is not UTF-8")
			}
			return string(out)
		case c == '\\':
			out = p.escape(out)
		case c < ' ':
			p.fail("control character in a string")
		default:
			out = append(out, c)
		}
	}
	return ""
}

func (p *jsonParser) escape(out []byte) []byte {
	if p.at == len(p.in) {
		return out
	}
	c := p.in[p.at]
	p.at++
	switch c {
	case '"', '\\', '/':
		return append(out, c)
	case 'b':
		return append(out, '\b')
	case 'f':
		return append(out, '\f')
	case 'n':
		return append(out, '\n')
	case 'r':
		return append(out, '\r')
	case 't':
		return append(out, '\t')
	case 'u':
		r := p.hex4()
		if utf16.IsSurrogate(r) {
			if p.at+2 > len(p.in) || p.in[p.at] != '\\' || p.in[p.at+1] != 'u' {
				p.fail("lone surrogate")
				return out
			}
			p.at += 2
			if r = utf16.DecodeRune(r, p.hex4()); r == utf8.RuneError {
				p.fail("lone surrogate")
			}
		}
		return utf8.AppendRune(out, r)
	}
	p.fail("unknown escape")
	return out
}

func (p *jsonParser) hex4() rune {
	if p.at+4 <= len(p.in) {
		if v, err := strconv.ParseUint(string(p.in[p.at:p.at+4]), 16, 32); err == nil {
			p.at += 4
			return rune(v)
		}
	}
	p.fail("want four hexadecimal digits")
	return 0
}

func (p *jsonParser) digits() (n int) {
	for p.at < len(p.in) && '0' <= p.in[p.at] && p.in[p.at] <= '9' {
		p.at++
		n++
	}
	return n
}

// number reads a number by the grammar of RFC 8259 section 6. What counts is
// its value as a float64, never the spelling: 1e16 and 10000000000000000 are one
// number. Beyond 2^53-1 not every integer is a float64, and one that is may be
// what another was rounded to: so nothing is taken that is written as an integer
// there, and from 1e21 on, where RFC 8785 writes exponents, only what stays the
// same number, to the last digit. Below, rounding is as RFC 8785 says.
func (p *jsonParser) number(out []byte) []byte {
	begin := p.at
	if p.in[p.at] == '-' {
		p.at++
	}
	first := p.at
	if n := p.digits(); n == 0 || n > 1 && p.in[first] == '0' {
		p.fail("not a number")
		return out
	}
	if p.at < len(p.in) && p.in[p.at] == '.' {
		p.at++
		if p.digits() == 0 {
			p.fail("not a number")
		}
	}
	if p.at < len(p.in) && (p.in[p.at] == 'e' || p.in[p.at] == 'E') {
		p.at++
		if p.at < len(p.in) && (p.in[p.at] == '+' || p.in[p.at] == '-') {
			p.at++
		}
		if p.digits() == 0 {
			p.fail("not a number")
		}
	}
	text := string(p.in[begin:p.at])
	if len(text) > numberMaxBytes {
		p.fail(fmt.Sprintf("number of more than %d bytes", numberMaxBytes))
		return out
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		p.fail("number is outside the range of a float64")
		return out
	}
	end := len(out)
	out = appendJSONNumber(out, f)
	if a := math.Abs(f); a > maxInt && (a < 1e21 || !sameDecimal(text, string(out[end:]))) {
		p.fail("number beyond 2^53-1 may lose digits; send it as a string, or the payload as payload_b64")
	}
	if p.checkOnly {
		return out[:end]
	}
	return out
}

// sameDecimal says whether two numbers of JSON, neither of them 0, have one value.
func sameDecimal(a, b string) bool {
	aDigits, aExponent := decimal(a)
	bDigits, bExponent := decimal(b)
	return aDigits == bDigits && aExponent == bExponent
}

// decimal gives the sign and the digits of a number without outer zeros, and
// the exponent that makes 0.DIGITS of it.
func decimal(text string) (digits string, exponent int) {
	sign := ""
	if text[0] == '-' {
		sign, text = "-", text[1:]
	}
	mantissa, power := text, 0
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		mantissa = text[:i]
		power, _ = strconv.Atoi(text[i+1:]) // it was read as a float64 before
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits = strings.TrimLeft(whole+fraction, "0")
	exponent = power + len(digits) - len(fraction)
	return sign + strings.TrimRight(digits, "0"), exponent
}

// appendJSONNumber writes a number as ECMAScript does (RFC 8785 section 3.2.2.3).
func appendJSONNumber(out []byte, f float64) []byte {
	if f == 0 {
		return append(out, '0') // also for -0
	}
	if a := math.Abs(f); a >= 1e-6 && a < 1e21 {
		return strconv.AppendFloat(out, f, 'f', -1, 64)
	}
	out = strconv.AppendFloat(out, f, 'e', -1, 64)
	// Go writes e-07 where ECMAScript writes e-7.
	if n := len(out); out[n-2] == '0' && (out[n-3] == '-' || out[n-3] == '+') {
		out[n-2] = out[n-1]
		out = out[:n-1]
	}
	return out
}

func appendJSONString(out []byte, s string) []byte {
	out = append(out, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c >= ' ':
			out = append(out, c)
		case c == '\b':
			out = append(out, `\b`...)
		case c == '\t':
			out = append(out, `\t`...)
		case c == '\n':
			out = append(out, `\n`...)
		case c == '\f':
			out = append(out, `\f`...)
		case c == '\r':
			out = append(out, `\r`...)
		default:
			out = fmt.Appendf(out, `\u%04x`, c)
		}
	}
	return append(out, '"')
}
