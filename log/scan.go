package log

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// b64 is the only base64 of our formats: standard alphabet, padded, and
// strict, so that a value has one spelling.
var b64 = base64.StdEncoding.Strict()

// A scanner reads canonical JSON of a known shape. It expects each byte where
// RFC 8785 puts it, so unknown, missing, repeated and reordered keys, white
// space and second spellings are all the same error: not the next byte.
// After the first failure it stays where it failed.
type scanner struct {
	what string // for errors: the kind of text
	text string
	at   int
	err  error
}

func newScanner(what string, text []byte) *scanner {
	return &scanner{what: what, text: string(text)}
}

func (s *scanner) fail(want string) {
	if s.err == nil {
		s.err = fmt.Errorf("%w %s: byte %d: want %s", ErrMalformed, s.what, s.at, want)
	}
}

// lit expects t.
func (s *scanner) lit(t string) {
	if s.err == nil && !s.has(t) {
		s.fail(strconv.Quote(t))
	}
}

// has consumes t if it is next.
func (s *scanner) has(t string) bool {
	if s.err != nil || !strings.HasPrefix(s.text[s.at:], t) {
		return false
	}
	s.at += len(t)
	return true
}

// str expects a quoted string without escapes, and gives what is between the quotes.
func (s *scanner) str(want string, ok func(string) bool) string {
	if s.err != nil {
		return ""
	}
	rest := s.text[s.at:]
	if strings.HasPrefix(rest, `"`) {
		if n := strings.IndexByte(rest[1:], '"'); n >= 0 && ok(rest[1:1+n]) {
			s.at += n + 2
			return rest[1 : 1+n]
		}
	}
	s.fail(want)
	return ""
}

func (s *scanner) name() string { return s.str("a name", ValidName) }
func (s *scanner) kind() string { return s.str("a kind", validKindText) }

// visible expects a string of printable ASCII without space, quote or backslash.
func (s *scanner) visible(most int) string {
	return s.str("printable ASCII", func(t string) bool {
		for i := range len(t) {
			if t[i] <= ' ' || t[i] > '~' || t[i] == '\\' {
				return false
			}
		}
		return t != "" && len(t) <= most
	})
}

// num expects an integer in [0, 2^53-1].
func (s *scanner) num() uint64 {
	if s.err != nil {
		return 0
	}
	n := s.at
	for n < len(s.text) && n-s.at < 17 && '0' <= s.text[n] && s.text[n] <= '9' {
		n++
	}
	digits := s.text[s.at:n]
	v, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || v > maxInt || digits[0] == '0' && len(digits) > 1 {
		s.fail("an integer from 0 to 2^53-1")
		return 0
	}
	s.at = n
	return v
}

// signed expects an integer in [-(2^53-1), 2^53-1]; there is no -0.
func (s *scanner) signed() int64 {
	if !s.has("-") {
		return int64(s.num())
	}
	v := s.num()
	if s.err == nil && v == 0 {
		s.fail("no -0")
	}
	return -int64(v)
}

// raw expects the base64 of exactly len(dst) bytes.
func (s *scanner) raw(dst []byte) {
	n := b64.EncodedLen(len(dst))
	text := s.str("base64", func(t string) bool { return len(t) == n })
	if s.err != nil {
		return
	}
	got, err := b64.DecodeString(text)
	if err != nil || len(got) != len(dst) {
		s.fail(fmt.Sprintf("base64 of %d bytes", len(dst)))
		return
	}
	copy(dst, got)
}

func (s *scanner) hash() (h Hash) {
	s.raw(h[:])
	return h
}

// list reads "[...]", calling item for each element, at most most of them.
func (s *scanner) list(most int, item func()) {
	s.lit("[")
	if s.has("]") {
		return
	}
	for n := 0; s.err == nil; n++ {
		if n == most {
			s.fail(fmt.Sprintf("at most %d elements", most))
			return
		}
		item()
		if s.has("]") {
			return
		}
		s.lit(",")
	}
}

// version expects the version 1 of a text; another integer is ErrVersion.
func (s *scanner) version() {
	if v := s.num(); s.err == nil && v != 1 {
		s.err = fmt.Errorf("%w: %s has v %d; this code knows 1", ErrVersion, s.what, v)
	}
}

// end expects the end of the text.
func (s *scanner) end() error {
	if s.err == nil && s.at != len(s.text) {
		s.fail("the end")
	}
	return s.err
}

// The appendX functions write what the scanner reads.

func appendStr(b []byte, key, value string) []byte {
	b = append(b, key...)
	b = append(b, '"')
	b = append(b, value...)
	return append(b, '"')
}

func appendNum(b []byte, key string, value uint64) []byte {
	return strconv.AppendUint(append(b, key...), value, 10)
}

func appendRaw(b []byte, key string, value []byte) []byte {
	b = append(append(b, key...), '"')
	return append(b64.AppendEncode(b, value), '"')
}
