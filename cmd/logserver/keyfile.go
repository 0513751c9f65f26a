package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// A keyPair is one of the log's signing keys.
type keyPair struct {
	note.Signer
	verifier note.Verifier
	vkey     string
}

// readKey reads a signing key, which must be for this name and for nobody
// else's eyes.
func readKey(file, name string) (k keyPair, err error) {
	if err := refuseTestKey(name); err != nil {
		return k, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return k, fmt.Errorf("read signing key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return k, fmt.Errorf("signing key %s can be read by others: chmod 600 it", file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return k, fmt.Errorf("read signing key: %w", err)
	}
	text := string(trimLine(data))
	if k.Signer, err = note.NewSigner(text); err != nil {
		return k, fmt.Errorf("signing key %s: %w", file, err)
	}
	if k.Name() != name {
		return k, fmt.Errorf("signing key %s is named %q, want %q", file, k.Name(), name)
	}
	seed, err := seedOf(text)
	if err != nil {
		return k, fmt.Errorf("signing key %s: %w", file, err)
	}
	public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	if k.vkey, err = note.NewEd25519VerifierKey(name, public); err != nil {
		return k, fmt.Errorf("signing key %s: %w", file, err)
	}
	k.verifier, err = note.NewVerifier(k.vkey)
	return k, err
}

// seedOf gives the seed of PRIVATE+KEY+NAME+HASH+BASE64(type || seed), a text
// whose shape note.NewSigner has checked, or note.GenerateKey made.
func seedOf(skey string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.SplitN(skey, "+", 5)[4])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, errors.New("not an Ed25519 key")
	}
	return raw[1:], nil
}
