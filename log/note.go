package log

import (
	"bytes"
	"fmt"

	"golang.org/x/mod/sumdb/note"
)

// OpenNote is note.Open for notes that [CheckNote] accepts, in which no known
// key has two lines: the library would check the first and drop the second, so
// that what a note says would hang on the order of its lines. Lines of unknown
// keys are nobody's, however many (c2sp.org/signed-note). What names the kind
// of note in errors: [ErrMalformed], [ErrSignature].
func OpenNote(what string, msg []byte, known note.Verifiers) (*note.Note, error) {
	if err := CheckNote(msg); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	n, err := note.Open(msg, &onceEach{known, make(map[string]bool)})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrSignature, what, err)
	}
	return n, nil
}

// onceEach gives each known key once: note.Open asks for it at every line.
type onceEach struct {
	known note.Verifiers
	given map[string]bool
}

// Verifier is of the note.Verifiers interface.
func (o *onceEach) Verifier(name string, hash uint32) (note.Verifier, error) {
	v, err := o.known.Verifier(name, hash)
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%s+%08x", name, hash)
	if o.given[id] {
		return nil, fmt.Errorf("two signature lines by key %s", id)
	}
	o.given[id] = true
	return v, nil
}

// CheckNote checks the shape of a signed note before it is opened: its size,
// and that the base64 of every signature has its one spelling. The library that
// opens notes accepts any spare bits, so that one signature would have several
// spellings. It verifies nothing.
func CheckNote(msg []byte) error {
	if len(msg) > NoteMaxBytes {
		return fmt.Errorf("%w note: %d bytes, at most %d", ErrMalformed, len(msg), NoteMaxBytes)
	}
	split := bytes.LastIndex(msg, []byte("\n\n"))
	if split < 0 {
		return fmt.Errorf("%w note: no empty line before the signatures", ErrMalformed)
	}
	for line := range bytes.Lines(msg[split+2:]) {
		line, ended := bytes.CutSuffix(line, []byte("\n"))
		named, begun := bytes.CutPrefix(line, []byte("— "))
		_, sig, spaced := bytes.Cut(named, []byte(" "))
		raw := make([]byte, b64.DecodedLen(len(sig)))
		if _, err := b64.Decode(raw, sig); err != nil || !ended || !begun || !spaced || len(sig) == 0 || bytes.IndexByte(sig, '\r') >= 0 {
			return fmt.Errorf("%w note: signature line %q", ErrMalformed, abbreviated(line))
		}
	}
	return nil
}

// abbreviated keeps errors readable: a signature can have 3 kB.
func abbreviated(line []byte) []byte {
	const most = 120
	return line[:min(len(line), most)]
}
