package witness

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"filippo.io/mldsa"
)

// vkey makes a key of its own and gives it as a verifier key of that type.
func vkey(t *testing.T, name string, typ KeyType) string {
	t.Helper()
	k := Key{name: name, typ: typ}
	if typ == CosignMLDSA44 {
		priv, err := mldsa.GenerateKey(mldsa.MLDSA44())
		if err != nil {
			t.Fatal(err)
		}
		k.public = string(priv.PublicKey().Bytes())
		return k.String()
	}
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k.public = string(pub)
	return k.String()
}

// renamed gives the same raw key under another name and type.
func renamed(t *testing.T, key, name string, typ KeyType) string {
	t.Helper()
	k, err := ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Key{name, typ, k.public}.String()
}

func TestPolicyRoundTrip(t *testing.T) {
	l1, l2 := vkey(t, "log.example/a", Ed25519), vkey(t, "log.example/b", CosignMLDSA44)
	w1, w2, w3 := vkey(t, "w.example/1", CosignEd25519), vkey(t, "w.example/2", CosignMLDSA44), renamed(t, l1, "w.example/3", CosignEd25519)
	text := "# a policy\n\n log\t" + l1 + "  https://log.example/a \nwitness a " + w1 + "\n\t# tab first\n" +
		"witness b " + w2 + " http://w.example/2\ngroup one any a\nlog " + l2 + "\nwitness \xffc " + w3 + "\n" +
		"group two all b one\ngroup top 2 two \xffc\nquorum top\n"
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := "log " + l1 + " https://log.example/a\nlog " + l2 + "\nwitness a " + w1 + "\nwitness b " + w2 + " http://w.example/2\nwitness \xffc " + w3 + "\n" +
		"group one 1 a\ngroup two 2 b one\ngroup top 2 two \xffc\nquorum top\n"
	if got := p.String(); got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	again, err := ParsePolicy([]byte(want))
	if err != nil || !reflect.DeepEqual(again, p) {
		t.Errorf("ParsePolicy(String()) = %+v, %v, want %+v", again, err, p)
	}
	if got := p.Witnesses[1].Key; got.Type() != CosignMLDSA44 || got.Name() != "w.example/2" {
		t.Errorf("key of b = %v %v", got.Type(), got.Name())
	}
}

// Each trap lets somebody count twice, or a policy mean something else to
// another reader.
func TestPolicyTraps(t *testing.T) {
	l, a, b := vkey(t, "log.example/a", Ed25519), vkey(t, "w.example/a", CosignEd25519), vkey(t, "w.example/b", CosignEd25519)
	head := "log " + l + "\nwitness A " + a + "\nwitness B " + b + "\n"
	small := Key{"w.example/s", CosignEd25519, strings.Repeat("\x00", 32)}.String()
	short := Key{"w.example/s", CosignEd25519, "short"}.String()
	badMLDSA := Key{"w.example/s", CosignMLDSA44, strings.Repeat("x", 1311)}.String()
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "no quorum line"},
		{"no quorum", head, "no quorum line"},
		{"two quorums", head + "quorum A\nquorum none\n", "second quorum"},
		{"quorum before definition", "quorum A\n" + head, "not a witness or group on an earlier line"},
		{"quorum of nothing", head + "quorum C\n", "not a witness or group"},
		{"quorum words", head + "quorum A B\n", "want \"quorum NAME\""},
		{"quorum alone", head + "quorum\n", "want \"quorum NAME\""},
		{"member twice", head + "group g 2 A A\nquorum g\n", "would count twice"},
		{"member of two groups", head + "group g any A B\ngroup h any A\nquorum g\n", "would count twice"},
		{"group in itself", head + "group g any g\nquorum g\n", "not a witness or group on an earlier line"},
		{"group before its member", head + "group g any h\ngroup h any A\nquorum g\n", "earlier line"},
		{"k is 0", head + "group g 0 A\nquorum g\n", "1 to 1"},
		{"k above n", head + "group g 3 A B\nquorum g\n", "1 to 2"},
		{"k with sign", head + "group g +1 A\nquorum g\n", "1 to 1"},
		{"k with zero", head + "group g 01 A\nquorum g\n", "1 to 1"},
		{"k is a word", head + "group g most A\nquorum g\n", "1 to 1"},
		{"no member", head + "group g all\nquorum g\n", "at least one member"},
		{"none as member", head + "group g any none\nquorum g\n", "not a witness or group"},
		{"none as group", head + "group none any A\nquorum none\n", "reserved or taken"},
		{"none as witness", "witness none " + a + "\nquorum none\n", "reserved or taken"},
		{"name taken", head + "group A any B\nquorum A\n", "reserved or taken"},
		{"one key, two witnesses", head + "witness C " + renamed(t, a, "w.example/c", CosignEd25519) + "\nquorum A\n", "would count twice"},
		{"one key, two logs", head + "log " + renamed(t, l, "log.example/b", Ed25519) + "\nquorum A\n", "key of another log"},
		{"log with a witness's type", "log " + a + "\nquorum none\n", "which is for witnesses"},
		{"witness with a log's type", "witness A " + l + "\nquorum A\n", "which is for logs"},
		{"unknown type", "log " + Key{"l", 2, strings.Repeat("x", 32)}.String() + "\nquorum none\n", "type 0x02"},
		{"small order", "witness S " + small + "\nquorum S\n", "small order"},
		{"short key", "witness S " + short + "\nquorum S\n", "has 5 bytes"},
		{"short ML-DSA key", "witness S " + badMLDSA + "\nquorum S\n", "key of"},
		{"wrong key ID", "witness A " + strings.Replace(a, "+", "+0", 1) + "\nquorum A\n", "key ID"},
		{"no key", "witness A\nquorum A\n", "want \"witness NAME VKEY"},
		{"not a key", "witness A x+y\nquorum A\n", "is not NAME+ID+BASE64"},
		{"no name", "witness A " + Key{"", CosignEd25519, strings.Repeat("x", 32)}.String() + "\nquorum A\n", "key name"},
		{"name with a Unicode space", "witness A " + Key{"w\u00a0x", CosignEd25519, strings.Repeat("x", 32)}.String() + "\nquorum A\n", "key name"},
		{"long name", "witness A " + Key{strings.Repeat("w", 256), CosignEd25519, strings.Repeat("x", 32)}.String() + "\nquorum A\n", "key name"},
		{"log words", "log " + l + " https://x https://y\nquorum none\n", "want \"log VKEY"},
		{"not a URL", "log " + l + " x\nquorum none\n", "is not an http"},
		{"comment at the end", "log " + l + " # mine\nquorum none\n", "want \"log VKEY"},
		{"CRLF", strings.ReplaceAll(head, "\n", "\r\n") + "quorum none\r\n", "byte 0x0d"},
		{"NUL", head + "quorum A\x00\n", "byte 0x00"},
		{"DEL", head + "quorum A\x7f\n", "byte 0x7f"},
		{"no LF at the end", head + "quorum none", "does not end in LF"},
		{"unknown keyword", head + "quorum none\nLog " + l + "\n", "unknown keyword"},
		{"too large", strings.Repeat("#", PolicyMaxBytes+1), "at most"},
	} {
		_, err := ParsePolicy([]byte(tc.text))
		if !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: ParsePolicy = %v, want %q", tc.name, err, tc.want)
		}
	}
}

// The standard asks for at least 32 of each; a bound stops more than sense.
func TestPolicySizes(t *testing.T) {
	build := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "log %s\nwitness w%d %s\ngroup g%d any w%d\n", vkey(t, "l", Ed25519), i, vkey(t, "w", CosignEd25519), i, i)
		}
		return b.String() + "quorum none\n"
	}
	if p, err := ParsePolicy([]byte(build(64))); err != nil || len(p.Logs) != 64 || len(p.Groups) != 64 {
		t.Errorf("ParsePolicy of 64 each: %d logs, %d groups, %v", len(p.Logs), len(p.Groups), err)
	}
	_, err := ParsePolicy([]byte(build(policyMaxItems + 1)))
	for _, want := range []string{"log VKEY", "witness NAME VKEY", "at most 256 groups"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePolicy of %d each = %v, want %q", policyMaxItems+1, err, want)
		}
	}
}

// Two keys whose IDs collide: 2^16 tries give such a pair. Nobody could say
// which of them a line is by.
func TestKeyIDCollision(t *testing.T) {
	lines := map[KeyType]string{Ed25519: "log ", CosignEd25519: "witness w "}
	for _, types := range [][2]KeyType{{Ed25519, Ed25519}, {CosignEd25519, CosignEd25519}, {Ed25519, CosignEd25519}, {CosignEd25519, Ed25519}} {
		a, b := collision(t, types[0], types[1])
		second := strings.Replace(lines[types[1]], " w ", " v ", 1)
		_, err := ParsePolicy([]byte(lines[types[0]] + a.String() + "\n" + second + b.String() + "\nquorum none\n"))
		if !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), "could tell them apart") {
			t.Errorf("ParsePolicy with colliding keys of types %v = %v, want %v", types, err, ErrPolicy)
		}
	}
}

// collision finds two keys of one name and ID.
func collision(t *testing.T, first, second KeyType) (a, b Key) {
	t.Helper()
	seen := map[uint32]Key{}
	for i := range uint32(1 << 21) {
		public := make([]byte, 32)
		binary.BigEndian.PutUint32(public, i+1<<24) // no curve point is needed for an ID
		b = Key{"k", second, string(public)}
		if a, ok := seen[b.KeyHash()]; ok {
			return a, b
		}
		a = Key{"k", first, string(public)}
		seen[a.KeyHash()] = a
	}
	t.Fatal("no collision among 2^21 keys")
	return a, b
}

func mustKey(t *testing.T, text string) Key {
	t.Helper()
	k, err := ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A key has one spelling.
func TestParseKeySpellings(t *testing.T) {
	good := vkey(t, "w.example/a", CosignEd25519)
	if k := mustKey(t, good); k.String() != good {
		t.Errorf("ParseKey(%q).String() = %q", good, k.String())
	}
	name, rest, _ := strings.Cut(good, "+")
	id, b64, _ := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(b64)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", name, name + "+" + id, strings.ToUpper(good), name + "+" + strings.ToUpper(id) + "x+" + b64, good + "=", good + "\n",
		name + "+" + id + "+" + base64.RawStdEncoding.EncodeToString(raw) + "!", name + "+" + id + "+", name + "+" + id + "+" + hex.EncodeToString(raw),
	} {
		if k, err := ParseKey(bad); !errors.Is(err, ErrPolicy) {
			t.Errorf("ParseKey(%q) = %v, %v, want %v", bad, k, err, ErrPolicy)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	w := Key{"w.example/1", CosignEd25519, "\x8a\x88\xe3\xdd\x74\x09\xf1\x95\xfd\x52\xdb\x2d\x3c\xba\x5d\x72\xca\x67\x09\xbf\x1d\x94\x12\x1b\xf3\x74\x88\x01\xb4\x0f\x6f\x5c"}.String()
	f.Add([]byte("witness a " + w + " https://w.example/\n# c\ngroup g any a\nquorum g\n"))
	f.Add([]byte("quorum none\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePolicy(text)
		if err != nil {
			return
		}
		again, err := ParsePolicy([]byte(p.String()))
		if err != nil || again.String() != p.String() {
			t.Errorf("ParsePolicy(%q) = %q, %v, want itself", p.String(), again.String(), err)
		}
	})
}
