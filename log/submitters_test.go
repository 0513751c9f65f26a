package log

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
)

func TestSubmitters(t *testing.T) {
	newKey := func() PublicKey {
		pub, _, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		return PublicKey(pub)
	}
	a, b, c := newKey(), newKey(), newKey()
	line := func(principal string, k PublicKey) string {
		v, err := k.VKey("any.name")
		if err != nil {
			t.Fatal(err)
		}
		return principal + " " + v + "\n"
	}
	s, err := ParseSubmitters([]byte("# mine\n\n" + line("svc:a", a) + line("svc:a", b) + line("svc:c", c)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		principal string
		key       PublicKey
		want      bool
	}{{"svc:a", a, true}, {"svc:a", b, true}, {"svc:c", c, true}, {"svc:a", c, false}, {"svc:c", a, false}, {"svc:b", a, false}} {
		if got := s.Has(tc.principal, tc.key.ID()); got != tc.want {
			t.Errorf("Has(%q, %s) = %v, want %v", tc.principal, tc.key.ID(), got, tc.want)
		}
	}
	small := PublicKey{}
	for name, bad := range map[string]string{
		"no key":            "svc:a\n",
		"two spaces":        strings.Replace(line("svc:a", a), " ", "  ", 1),
		"not a name":        line("svc a", a),
		"no principal":      line("", a),
		"leading space":     " " + line("svc:a", a),
		"comment behind":    strings.TrimSuffix(line("svc:a", a), "\n") + " # mine\n",
		"CRLF":              strings.Replace(line("svc:a", a), "\n", "\r\n", 1),
		"one key, twice":    line("svc:a", a) + line("svc:b", a),
		"small order":       line("svc:a", small),
		"cut":               line("svc:a", a)[:40],
		"too large":         strings.Repeat("#", SubmittersMaxBytes+1),
		"a line of nothing": " \n",
	} {
		if _, err := ParseSubmitters([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: ParseSubmitters = %v, want %v", name, err, ErrMalformed)
		}
	}
}
