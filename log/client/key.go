package client

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/note"
)

// keyFileMaxBytes bounds what is read of a key file.
const keyFileMaxBytes = 1 << 10

// NewKey makes a key that signs streams.
func NewKey() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// VKey is the public half of a key under a name, as the log registers it and as
// an auditor's file of submitters lists it (c2sp.org/signed-note).
func VKey(name string, key ed25519.PrivateKey) (string, error) {
	if len(key) != ed25519.PrivateKeySize {
		return "", fmt.Errorf("%w: private key of %d bytes", log.ErrKey, len(key))
	}
	if !log.ValidName(name) {
		return "", fmt.Errorf("%w: key name %q is not a name", log.ErrMalformed, name)
	}
	return public(key).VKey(name)
}

// PossessionProof shows the log that who registers a key for a principal has it.
func PossessionProof(origin, principal string, key ed25519.PrivateKey) []byte {
	return ed25519.Sign(key, log.PossessionText(origin, principal, public(key)))
}

// WriteKeyFile writes a key under a name into a new file that only its owner can
// read: one line PRIVATE+KEY+NAME+HASH+KEY, the encoding of
// golang.org/x/mod/sumdb/note. A file that is there is left as it is; the new one
// is there when it is whole, and durable on return.
func WriteKeyFile(path, name string, key ed25519.PrivateKey) error {
	text, err := keyText(name, key)
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	if err := writeNew(path, []byte(text+"\n")); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	return nil
}

// keyText encodes a key.
func keyText(name string, key ed25519.PrivateKey) (string, error) {
	vkey, err := VKey(name, key)
	if err != nil {
		return "", err
	}
	// A vkey is NAME+HASH+BASE64(0x01 || public key). The base64 can hold a plus sign too.
	parts := strings.SplitN(vkey, "+", 3)
	return "PRIVATE+KEY+" + parts[0] + "+" + parts[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...)), nil
}

// ReadKeyFile reads what WriteKeyFile wrote. It refuses a file that others can
// read, where the system knows such a thing.
func ReadKeyFile(path string) (name string, key ed25519.PrivateKey, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", nil, fmt.Errorf("read key file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return "", nil, fmt.Errorf("read key file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return "", nil, fmt.Errorf("read key file %s: others can read it (mode %o); make it 0600, and think about a new key", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, keyFileMaxBytes+1))
	if err != nil {
		return "", nil, fmt.Errorf("read key file: %w", err)
	}
	name, key, err = parseKey(strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		return "", nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	return name, key, nil
}

func parseKey(text string) (string, ed25519.PrivateKey, error) {
	// NewSigner checks the shape PRIVATE+KEY+NAME+HASH+BASE64, the hash and the algorithm.
	// It never says what the text was, and neither do we: it is a secret.
	signer, err := note.NewSigner(text)
	if err != nil {
		return "", nil, fmt.Errorf("%w key: want PRIVATE+KEY+NAME+HASH+KEY", log.ErrMalformed)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.SplitN(text, "+", 5)[4])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return "", nil, fmt.Errorf("%w key: want the base64 of %d bytes", log.ErrMalformed, 1+ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(raw[1:])
	if again, err := keyText(signer.Name(), key); err != nil || again != text {
		return "", nil, fmt.Errorf("%w key: not as WriteKeyFile writes it", log.ErrMalformed)
	}
	return signer.Name(), key, nil
}
