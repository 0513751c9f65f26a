package log

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// algEd25519 names the one signature algorithm of submitters so far (RFC 8032).
const algEd25519 = "ed25519"

// A PublicKey is a submitter's Ed25519 key.
type PublicKey [ed25519.PublicKeySize]byte

// A Sig is a signature that names its key.
type Sig struct {
	Key Hash // see [PublicKey.ID]
	Sig [ed25519.SignatureSize]byte
}

// Reasons why a key is not taken.
var (
	ErrKey        = errors.New("unusable public key")       // it must not be used
	ErrKeyTaken   = errors.New("key is registered already") // once revoked, too
	ErrKeyUnknown = errors.New("no such valid key")         // not registered, or revoked already
)

// smallOrder lists the y-coordinates, sign bit cleared, of the points of small
// order, second spellings included. A signature under such a key verifies for
// many messages, so whoever registers one can disown everything signed.
// Derived from RFC 8032 section 5.1: y of order 1, 2, 4 and 8, and y + p.
var smallOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// Check refuses keys of small order and keys that are not the canonical
// spelling of their point.
func (k PublicKey) Check() error {
	y := k
	y[31] &= 0x7f
	if slices.Contains(smallOrder, hex.EncodeToString(y[:])) {
		return fmt.Errorf("%w: point of small order", ErrKey)
	}
	high := y[31] == 0x7f && y[0] >= 0xed
	for _, c := range y[1:31] {
		high = high && c == 0xff
	}
	if high {
		return fmt.Errorf("%w: not the canonical spelling of its point", ErrKey)
	}
	return nil
}

// ID is SHA-256(alg || key).
func (k PublicKey) ID() Hash {
	return sha256.Sum256(append([]byte(algEd25519), k[:]...))
}

// ParseVKey reads a verifier key of c2sp.org/signed-note, type Ed25519 (0x01).
func ParseVKey(vkey string) (name string, key PublicKey, err error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return "", key, fmt.Errorf("%w vkey: %w", ErrMalformed, err)
	}
	// NewVerifier has checked the shape NAME+HASH+BASE64 and the hash.
	parts := strings.SplitN(vkey, "+", 3)
	raw, err := b64.DecodeString(parts[2])
	if err != nil || len(raw) != 1+len(key) || len(parts[2]) != b64.EncodedLen(len(raw)) {
		return "", key, fmt.Errorf("%w vkey: want type 0x01 and 32 bytes in strict base64", ErrMalformed)
	}
	copy(key[:], raw[1:])
	// The library takes the key id in upper case too.
	if again, err := key.VKey(v.Name()); err != nil || again != vkey {
		return "", key, fmt.Errorf("%w vkey: not the canonical spelling", ErrMalformed)
	}
	return v.Name(), key, key.Check()
}

// VKey writes the key as a verifier key with the given name.
func (k PublicKey) VKey(name string) (string, error) {
	return note.NewEd25519VerifierKey(name, k[:])
}

// TailText is what the tail signature of a request covers. Events before last
// are covered through their Prev. Source: FORMAT.md, "Tail signature".
func TailText(origin, stream string, first, last uint64, lastHash Hash) []byte {
	return []byte("piperoll/tail/v1\n" + origin + "\n" + stream + "\n" +
		strconv.FormatUint(first, 10) + "\n" + strconv.FormatUint(last, 10) + "\n" +
		b64.EncodeToString(lastHash[:]) + "\n")
}

// PossessionText is what a key signs to be registered for a principal.
func PossessionText(origin, principal string, key PublicKey) []byte {
	return []byte("piperoll/key/v1\n" + origin + "\n" + principal + "\n" + algEd25519 + "\n" + b64.EncodeToString(key[:]) + "\n")
}

// SuccessionText is what a principal's previous key signs to name its successor.
func SuccessionText(origin, principal string, key PublicKey) []byte {
	return []byte("piperoll/key-successor/v1\n" + origin + "\n" + principal + "\n" + algEd25519 + "\n" + b64.EncodeToString(key[:]) + "\n")
}

// Sign signs text with key and names it.
func Sign(key ed25519.PrivateKey, text []byte) Sig {
	s := Sig{Key: PublicKey(key.Public().(ed25519.PublicKey)).ID()}
	copy(s.Sig[:], ed25519.Sign(key, text))
	return s
}

// Verify checks s over text under key: [ErrSignature] if it is another key's,
// or does not verify.
func (s Sig) Verify(key PublicKey, text []byte) error {
	if err := key.Check(); err != nil {
		return err
	}
	if s.Key != key.ID() || !ed25519.Verify(key[:], text, s.Sig[:]) {
		return ErrSignature
	}
	return nil
}

// Marshal gives the canonical bytes (RFC 8785).
func (s Sig) Marshal() []byte { return s.append(nil) }

func (s Sig) append(b []byte) []byte {
	b = appendStr(b, `{"alg":`, algEd25519)
	b = appendRaw(b, `,"key":`, s.Key[:])
	return append(appendRaw(b, `,"sig":`, s.Sig[:]), '}')
}

func (s *scanner) sig() (g Sig) {
	s.lit(`{"alg":"` + algEd25519 + `","key":`)
	s.raw(g.Key[:])
	s.lit(`,"sig":`)
	s.raw(g.Sig[:])
	s.lit(`}`)
	return g
}

// ParseSig parses what [Sig.Marshal] returns.
func ParseSig(text []byte) (Sig, error) {
	s := newScanner("sig", text)
	g := s.sig()
	return g, s.end()
}
