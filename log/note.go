package log

import (
	"bytes"
	"fmt"
)

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
