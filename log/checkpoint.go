package log

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A Checkpoint commits to the first Size entries of the log named Origin
// (c2sp.org/tlog-checkpoint). Ours never has extension lines.
type Checkpoint struct {
	Origin string
	Head
}

// String gives the text that the log and its witnesses sign.
func (c Checkpoint) String() string {
	return c.Origin + "\n" + strconv.FormatUint(c.Size, 10) + "\n" + b64.EncodeToString(c.Root[:]) + "\n"
}

// ParseCheckpoint parses the text of a checkpoint, without its signatures. It
// accepts exactly what String returns; so there are no extension lines.
func ParseCheckpoint(text string) (Checkpoint, error) {
	origin, rest, _ := strings.Cut(text, "\n")
	size, rest, _ := strings.Cut(rest, "\n")
	root, rest, ok := strings.Cut(rest, "\n")
	if !ok || rest != "" || !ValidName(origin) {
		return Checkpoint{}, fmt.Errorf("%w checkpoint: want three lines: origin, size, root", ErrMalformed)
	}
	n, err := strconv.ParseUint(size, 10, 53)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w checkpoint: size %q", ErrMalformed, size)
	}
	h, err := tlog.ParseHash(root)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w checkpoint: root %q", ErrMalformed, root)
	}
	c := Checkpoint{origin, Head{n, h}}
	if c.String() != text {
		return Checkpoint{}, fmt.Errorf("%w checkpoint: not the canonical spelling", ErrMalformed)
	}
	if n == 0 && h != emptyRoot {
		return Checkpoint{}, fmt.Errorf("%w checkpoint: size 0 with a root other than SHA-256 of nothing", ErrMalformed)
	}
	return c, nil
}

// emptyRoot is the root of the tree of size 0 (RFC 6962 section 2.1).
var emptyRoot = func() Hash {
	h, err := tlog.TreeHash(0, nil)
	if err != nil {
		panic("log: no root for the empty tree: " + err.Error())
	}
	return h
}()

// EmptyHead is the head of the empty log.
func EmptyHead() Head { return Head{Root: emptyRoot} }

// OpenCheckpoint verifies that msg is signed by the log's key, whose name is
// the origin, and parses it. Nothing in msg is looked at before.
func OpenCheckpoint(msg []byte, key note.Verifier) (Checkpoint, error) {
	n, err := OpenNote("checkpoint", msg, note.VerifierList(key))
	if err != nil {
		return Checkpoint{}, err
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != key.Name() {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint is of log %q, the key is of %q", ErrSignature, c.Origin, key.Name())
	}
	return c, nil
}
