package log

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// A signature line has one spelling, and a note a bound.
func TestCheckNote(t *testing.T) {
	good := "text\n\n— name AAAAAAE=\n— other AAAAAAAA\n"
	if err := CheckNote([]byte(good)); err != nil {
		t.Errorf("CheckNote(%q) = %v", good, err)
	}
	for name, bad := range map[string]string{
		"spare bits":    strings.Replace(good, "AAAAAAE=", "AAAAAAF=", 1),
		"no padding":    strings.Replace(good, "AAAAAAE=", "AAAAAAE", 1),
		"no separator":  "text\n— name AAAAAAE=\n",
		"no signature":  "text\n\n— name \n",
		"no space":      "text\n\n— nameAAAAAAE=\n",
		"no dash":       "text\n\nname AAAAAAE=\n",
		"no LF":         "text\n\n— name AAAAAAE=",
		"not base64":    "text\n\n— name !!!!\n",
		"two spaces":    "text\n\n— name  AAAAAAE=\n",
		"CR":            strings.Replace(good, "=\n", "=\r\n", 1),
		"space behind":  "text\n\n— name AAAAAAE= \n",
		"empty":         "",
		"too long":      good + strings.Repeat("— name AAAAAAE=\n", NoteMaxBytes/10),
		"long bad line": "text\n\n" + strings.Repeat("x", 1000) + "\n",
	} {
		if err := CheckNote([]byte(bad)); !errors.Is(err, ErrMalformed) || len(err.Error()) > 1000 {
			t.Errorf("%s: CheckNote = %v, want %v", name, err, ErrMalformed)
		}
	}
}

// A known key has one line. What unknown keys have to say, however often, is nobody's.
func TestOpenNote(t *testing.T) {
	signer := func(name string) (note.Signer, note.Verifier) {
		skey, vkey, err := note.GenerateKey(rand.Reader, name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := note.NewSigner(skey)
		if err != nil {
			t.Fatal(err)
		}
		v, err := note.NewVerifier(vkey)
		if err != nil {
			t.Fatal(err)
		}
		return s, v
	}
	known, key := signer("log.example/a")
	stranger, _ := signer("log.example/b")
	line := func(s note.Signer) string {
		msg, err := note.Sign(&note.Note{Text: "text\n"}, s)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(string(msg), "text\n\n")
	}
	good := "text\n\n" + line(known)
	other := "— log.example/b AAAAAAE=\n"
	if n, err := OpenNote("note", []byte(good+line(stranger)+other+other), note.VerifierList(key)); err != nil || n.Text != "text\n" || len(n.Sigs) != 1 {
		t.Errorf("OpenNote with lines of strangers = %+v, %v", n, err)
	}
	if n, err := OpenNote("note", []byte(good+line(known)), note.VerifierList(key)); !errors.Is(err, ErrSignature) {
		t.Errorf("OpenNote with two lines by one key = %+v, %v, want %v", n, err, ErrSignature)
	}
}

// The base64 decoder skips CR: no parser may take it for nothing.
func TestNoCRInBase64(t *testing.T) {
	proof := ConsistencyProof{"log.example/a", 1, 2, []Hash{{1}}}.Marshal()
	if _, err := ParseConsistencyProof(proof); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{strings.Replace(string(proof), "=\n", "=\r\n", 1), strings.Replace(string(proof), "AQAA", "AQA\rA", 1)} {
		if p, err := ParseConsistencyProof([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseConsistencyProof(%q) = %v, %v, want %v", bad, p, err, ErrMalformed)
		}
	}
	vkey, err := PublicKey{1: 7}.VKey("svc")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{vkey + "\r", vkey + "\n", strings.Replace(vkey, "+AQ", "+A\rQ", 1)} {
		if _, key, err := ParseVKey(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseVKey(%q) = %x, %v, want %v", bad, key, err, ErrMalformed)
		}
	}
}
