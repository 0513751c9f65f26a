package log

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// SubmittersMaxBytes bounds a submitters file.
const SubmittersMaxBytes = 1 << 20

// Submitters are the keys of principals, as an auditor brings them: by another
// channel than the log, so that the log cannot make up a submitter.
type Submitters struct {
	keys map[Hash]submitterKey // by key id
}

type submitterKey struct {
	principal string
	key       PublicKey
}

// ParseSubmitters parses lines "PRINCIPAL VKEY". Blank lines and lines that
// begin with # are ignored. It reports everything that is wrong.
func ParseSubmitters(text []byte) (Submitters, error) {
	if len(text) > SubmittersMaxBytes {
		return Submitters{}, fmt.Errorf("%w submitters: %d bytes, at most %d", ErrMalformed, len(text), SubmittersMaxBytes)
	}
	s := Submitters{make(map[Hash]submitterKey)}
	var errs []error
	for n, line := range bytes.Split(text, []byte("\n")) {
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		principal, vkey, _ := strings.Cut(string(line), " ")
		_, key, err := ParseVKey(vkey)
		switch other, again := s.keys[key.ID()]; {
		case !ValidName(principal):
			errs = append(errs, fmt.Errorf("%w submitters: line %d: want a principal, one space, a vkey", ErrMalformed, n+1))
		case err != nil:
			errs = append(errs, fmt.Errorf("%w submitters: line %d: %w", ErrMalformed, n+1, err))
		case again:
			errs = append(errs, fmt.Errorf("%w submitters: line %d: the key is on another line, for %q", ErrMalformed, n+1, other.principal))
		default:
			s.keys[key.ID()] = submitterKey{principal, key}
		}
	}
	return s, errors.Join(errs...)
}

// Has says whether key is one that the auditor brought for principal.
func (s Submitters) Has(principal string, key Hash) bool {
	k, ok := s.keys[key]
	return ok && k.principal == principal
}
