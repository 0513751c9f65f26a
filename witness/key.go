package witness

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"filippo.io/mldsa"

	"github.com/pipe-roll/piperoll/log"
)

// A KeyType is the first byte of a verifier key's public part (c2sp.org/signed-note).
type KeyType byte

// The types that a policy may list.
const (
	Ed25519       KeyType = 0x01 // a log's signature of the text
	CosignEd25519 KeyType = 0x04 // timestamped cosignature
	CosignMLDSA44 KeyType = 0x06 // timestamped cosignature
)

// nameMaxBytes bounds a key's name: the message of type 0x06 has one byte for its length.
const nameMaxBytes = 255

// timeBytes is the size of the timestamp before a cosignature.
const timeBytes = 8

// b64 is the only base64 of a policy: one spelling for a value.
var b64 = base64.StdEncoding.Strict()

// A Key is a public key of a log or of a witness.
type Key struct {
	name   string
	typ    KeyType
	public string // raw, and comparable: keys are counted by it
}

// ParseKey reads a verifier key NAME+ID+BASE64 of a type that a policy may
// list. The ID must be that of name and key; unusable keys are refused.
func ParseKey(vkey string) (Key, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	id, text, _ := strings.Cut(rest, "+")
	raw, err := b64.DecodeString(text)
	if err != nil || len(raw) < 1 {
		return Key{}, fmt.Errorf("%w: %q is not NAME+ID+BASE64", ErrPolicy, abbreviate(vkey))
	}
	k := Key{name, KeyType(raw[0]), string(raw[1:])}
	if !validKeyName(name) {
		return Key{}, fmt.Errorf("%w: key name %q", ErrPolicy, abbreviate(name))
	}
	if err := k.check(); err != nil {
		return Key{}, err
	}
	if k.String() != vkey {
		return Key{}, fmt.Errorf("%w: key ID %q of %q, want %08x: the key was mistyped or is not the one of that name", ErrPolicy, abbreviate(id), name, k.KeyHash())
	}
	return k, nil
}

func (k Key) check() error {
	switch k.typ {
	case Ed25519, CosignEd25519:
		if len(k.public) != ed25519.PublicKeySize {
			return fmt.Errorf("%w: key of %q has %d bytes, want %d", ErrPolicy, k.name, len(k.public), ed25519.PublicKeySize)
		}
		if err := log.PublicKey([]byte(k.public)).Check(); err != nil {
			return fmt.Errorf("%w: key of %q: %w", ErrPolicy, k.name, err)
		}
		return nil
	case CosignMLDSA44:
		if _, err := mldsa.NewPublicKey(mldsa.MLDSA44(), []byte(k.public)); err != nil {
			return fmt.Errorf("%w: key of %q: %w", ErrPolicy, k.name, err)
		}
		return nil
	}
	return fmt.Errorf("%w: key of %q has type 0x%02x: want 0x01, 0x04 or 0x06", ErrPolicy, k.name, byte(k.typ))
}

// Name is the key's name: for a log its origin.
func (k Key) Name() string { return k.name }

// Type is the key's type.
func (k Key) Type() KeyType { return k.typ }

// KeyHash is the key ID of c2sp.org/signed-note.
func (k Key) KeyHash() uint32 {
	sum := sha256.Sum256([]byte(k.name + "\n" + string(k.typed())))
	return binary.BigEndian.Uint32(sum[:])
}

// String gives the verifier key.
func (k Key) String() string {
	var id [4]byte
	binary.BigEndian.PutUint32(id[:], k.KeyHash())
	return k.name + "+" + hex.EncodeToString(id[:]) + "+" + b64.EncodeToString(k.typed())
}

// typed is the type byte and the public key.
func (k Key) typed() []byte { return append([]byte{byte(k.typ)}, k.public...) }

// Verify says whether sig, what follows the key ID on a signature line, is the
// key's signature of a checkpoint's text. With Name and KeyHash it makes a Key
// a note.Verifier of x/mod.
func (k Key) Verify(text, sig []byte) bool {
	if k.typ == Ed25519 {
		return ed25519.Verify([]byte(k.public), text, sig)
	}
	if len(sig) < timeBytes {
		return false
	}
	seconds := binary.BigEndian.Uint64(sig)
	if seconds > timeMax {
		return false
	}
	if k.typ == CosignEd25519 {
		return ed25519.Verify([]byte(k.public), ed25519Message(seconds, text), sig[timeBytes:])
	}
	// The message of type 0x06 holds origin, size and root, not the text: only
	// one spelling of them, without other lines, may stand under it.
	c, err := log.ParseCheckpoint(string(text))
	if err != nil {
		return false
	}
	pub, err := mldsa.NewPublicKey(mldsa.MLDSA44(), []byte(k.public))
	return err == nil && mldsa.Verify(pub, mldsaMessage(k.name, seconds, c), sig[timeBytes:], nil) == nil
}

// timeMax is the latest timestamp of a cosignature, in seconds: as milliseconds
// it is still an integer of JSON. A later one is no time but a way to make
// arithmetic wrap.
const timeMax = (1<<53 - 1) / 1000

// ed25519Message is what a cosignature of type 0x04 signs.
func ed25519Message(seconds uint64, text []byte) []byte {
	return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", seconds, text)
}

// mldsaMessage is what a cosignature of type 0x06 signs: the subtree [0, size).
func mldsaMessage(cosigner string, seconds uint64, c log.Checkpoint) []byte {
	b := []byte("subtree/v1\n\x00")
	b = append(append(b, byte(len(cosigner))), cosigner...)
	b = binary.BigEndian.AppendUint64(b, seconds)
	b = append(append(b, byte(len(c.Origin))), c.Origin...)
	b = binary.BigEndian.AppendUint64(b, 0)
	b = binary.BigEndian.AppendUint64(b, c.Size)
	return append(b, c.Root[:]...)
}

func validKeyName(name string) bool {
	return name != "" && len(name) <= nameMaxBytes && utf8.ValidString(name) && strings.IndexFunc(name, unicode.IsSpace) < 0
}

// abbreviate keeps errors readable: an ML-DSA key has 1.8 kB.
func abbreviate(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
