package witness

import (
	"crypto/ed25519"
	"errors"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

func FuzzKey(f *testing.F) {
	for _, typ := range []KeyType{Ed25519, CosignEd25519} {
		f.Add(fixedActor("w.example/1", typ).String())
	}
	f.Fuzz(func(t *testing.T, vkey string) {
		k, err := ParseKey(vkey)
		if err == nil && k.String() != vkey {
			t.Errorf("%q comes back as %q", vkey, k)
		}
		if err != nil && !errors.Is(err, ErrPolicy) {
			t.Errorf("ParseKey(%q) = %v, want %v", vkey, err, ErrPolicy)
		}
	})
}

// fixedActor has the same key in every process of the fuzzer.
func fixedActor(name string, typ KeyType) actor {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	return actor{Key{name, typ, string(key.Public().(ed25519.PublicKey))}, func(msg []byte) []byte { return ed25519.Sign(key, msg) }}
}

// Nothing but what the log signed opens, and with a quorum only what the witness cosigned, too.
func FuzzOpen(f *testing.F) {
	l, w := fixedActor(origin, Ed25519), fixedActor("w.example/1", CosignEd25519)
	policy := Policy{Logs: []Log{{Key: l.Key}}, Witnesses: []Witness{{Name: "w", Key: w.Key}}, Quorum: "w"}
	signed, cosigned, unsigned := text(7), text(9), text(11)
	f.Add([]byte(signed + "\n" + l.line(signed, 0)))
	f.Add([]byte(cosigned + "\n" + l.line(cosigned, 0) + w.line(cosigned, 5)))
	f.Add([]byte(unsigned + "\n" + w.line(unsigned, 5))) // a witness alone
	f.Fuzz(func(t *testing.T, msg []byte) {
		o, err := policy.Open(msg)
		if err == nil && (o.Checkpoint.String() != cosigned || len(o.Cosigned) != 1) {
			t.Errorf("%q opens with a quorum as %+v", msg, o)
		}
		alone, errAlone := policy.OpenLog(msg)
		if text := alone.Checkpoint.String(); errAlone == nil && text != signed && text != cosigned {
			t.Errorf("%q opens as %+v, and was never signed", msg, alone)
		}
		if (errAlone == nil) != (err == nil || errors.Is(err, ErrQuorum)) {
			t.Errorf("%q: %v, and of the log alone %v", msg, err, errAlone)
		}
		for _, err := range []error{err, errAlone} {
			if err != nil && !errors.Is(err, ErrQuorum) && !errors.Is(err, log.ErrMalformed) && !errors.Is(err, log.ErrSignature) {
				t.Errorf("%q: %v wraps no error of the package", msg, err)
			}
		}
	})
}
