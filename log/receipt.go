package log

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// A Receipt promises that entries are in the log from an index on, and will be
// under a checkpoint by a time. It is signed by a key that signs nothing else.
// With a checkpoint that breaks the promise it convicts the log.
type Receipt struct {
	Origin   string
	First    uint64 // index of the first entry
	Count    uint64 // entries, at least 1
	Leaves   Hash   // see [LeavesHash]
	Received uint64 // Unix milliseconds, the entries' received
	By       uint64 // Unix milliseconds
}

const receiptHeader = "piperoll/receipt/v1\n"

// ReceiptKeyName is the name of the key that signs an origin's receipts. It is
// not the origin, so that no receipt can pass for a checkpoint.
func ReceiptKeyName(origin string) string { return origin + "/receipt" }

// LeavesHash is SHA-256 over the leaf hashes in order.
func LeavesHash(leaves []Hash) Hash {
	h := sha256.New()
	for i := range leaves {
		h.Write(leaves[i][:])
	}
	return Hash(h.Sum(nil))
}

// String gives the text that is signed.
func (r Receipt) String() string {
	return fmt.Sprintf(receiptHeader+"log %s\nindex %d\ncount %d\nleaves %s\nreceived %d\nby %d\n",
		r.Origin, r.First, r.Count, b64.EncodeToString(r.Leaves[:]), r.Received, r.By)
}

// ParseReceipt parses the text of a receipt, without its signature. It
// accepts exactly what String returns.
func ParseReceipt(text string) (Receipt, error) {
	var r Receipt
	p := lines{what: "receipt", rest: text}
	p.lit(receiptHeader)
	r.Origin = p.field("log ")
	r.First = p.num("index ")
	r.Count = p.num("count ")
	r.Leaves = p.hash("leaves ")
	r.Received = p.num("received ")
	r.By = p.num("by ")
	if err := p.end(); err != nil {
		return Receipt{}, err
	}
	if r.String() != text || !ValidName(r.Origin) || r.Count == 0 || r.By < r.Received {
		return Receipt{}, fmt.Errorf("%w receipt: want a canonical text, a count above 0 and by not before received", ErrMalformed)
	}
	return r, nil
}

// OpenReceipt verifies that msg is signed by the origin's receipt key and parses it.
func OpenReceipt(msg []byte, key note.Verifier) (Receipt, error) {
	n, err := OpenNote("receipt", msg, note.VerifierList(key))
	if err != nil {
		return Receipt{}, err
	}
	r, err := ParseReceipt(n.Text)
	if err != nil {
		return Receipt{}, err
	}
	if ReceiptKeyName(r.Origin) != key.Name() {
		return Receipt{}, fmt.Errorf("%w: receipt is of log %q, the key is %q", ErrSignature, r.Origin, key.Name())
	}
	return r, nil
}

// lines reads "name value" lines; after the first failure it stays.
type lines struct {
	what, rest string
	err        error
}

func (p *lines) fail(want string) {
	if p.err == nil {
		p.err = fmt.Errorf("%w %s: want %q", ErrMalformed, p.what, want)
	}
}

func (p *lines) lit(t string) {
	rest, ok := strings.CutPrefix(p.rest, t)
	if !ok {
		p.fail(t)
	}
	p.rest = rest
}

func (p *lines) field(name string) string {
	line, rest, ok := strings.Cut(p.rest, "\n")
	value, named := strings.CutPrefix(line, name)
	if !ok || !named {
		p.fail(name)
		return ""
	}
	p.rest = rest
	return value
}

// num wants the canonical decimal of an integer up to 2^53-1.
func (p *lines) num(name string) uint64 {
	text := p.field(name)
	n, err := strconv.ParseUint(text, 10, 53)
	if err != nil || strconv.FormatUint(n, 10) != text {
		p.fail(name)
	}
	return n
}

func (p *lines) hash(name string) (h Hash) {
	text := p.field(name)
	raw, err := b64.DecodeString(text) // which skips CR: the length shows it
	if err != nil || len(raw) != len(h) || len(text) != b64.EncodedLen(len(h)) {
		p.fail(name)
		return h
	}
	return Hash(raw)
}

func (p *lines) end() error {
	if p.rest != "" {
		p.fail("the end")
	}
	return p.err
}
