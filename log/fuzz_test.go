package log

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/gowebpki/jcs"
	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"
)

// fuzzFormat runs a parser on anything: what it accepts comes back as it was.
func fuzzFormat(f *testing.F, name string) {
	for _, format := range formats() {
		if format.name() != name {
			continue
		}
		good, bad := format.cases(f)
		for _, v := range append(good, bad...) {
			if text := v.bytes(f); len(text) < 4096 {
				f.Add(text)
			}
		}
		f.Fuzz(func(t *testing.T, text []byte) {
			got, err := format.roundTrip(text)
			if err == nil && !bytes.Equal(got, text) {
				t.Errorf("%q comes back as %q", text, got)
			}
			if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrKey) {
				t.Errorf("%q: %v wraps no error of the package", text, err)
			}
		})
		return
	}
	f.Fatalf("no format %s", name)
}

func FuzzEvent(f *testing.F)            { fuzzFormat(f, "event") }
func FuzzEntry(f *testing.F)            { fuzzFormat(f, "entry") }
func FuzzPart(f *testing.F)             { fuzzFormat(f, "part") }
func FuzzSig(f *testing.F)              { fuzzFormat(f, "sig") }
func FuzzLogOpen(f *testing.F)          { fuzzFormat(f, "payload/log.open") }
func FuzzStreamOpen(f *testing.F)       { fuzzFormat(f, "payload/stream.open") }
func FuzzMigrationOpen(f *testing.F)    { fuzzFormat(f, "payload/migration.open") }
func FuzzMigrationClose(f *testing.F)   { fuzzFormat(f, "payload/migration.close") }
func FuzzKeyRegistered(f *testing.F)    { fuzzFormat(f, "payload/key.registered") }
func FuzzKeyRevoked(f *testing.F)       { fuzzFormat(f, "payload/key.revoked") }
func FuzzTokenCreated(f *testing.F)     { fuzzFormat(f, "payload/access.token.created") }
func FuzzTokenRevoked(f *testing.F)     { fuzzFormat(f, "payload/access.token.revoked") }
func FuzzPayloadErased(f *testing.F)    { fuzzFormat(f, "payload/payload.erased") }
func FuzzRefused(f *testing.F)          { fuzzFormat(f, "payload/log.refused") }
func FuzzCheckpoint(f *testing.F)       { fuzzFormat(f, "checkpoint") }
func FuzzReceipt(f *testing.F)          { fuzzFormat(f, "receipt") }
func FuzzInclusionProof(f *testing.F)   { fuzzFormat(f, "inclusion") }
func FuzzConsistencyProof(f *testing.F) { fuzzFormat(f, "consistency") }
func FuzzRangeProof(f *testing.F)       { fuzzFormat(f, "range") }

func FuzzTilePath(f *testing.F) {
	for _, path := range []string{"tile/0/000", "tile/entries/x001/234.p/7", "tile/63/x123/x456/789", "tile/0/x000/001", "tile/-1/000"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if id, err := ParseTilePath(path); err == nil && id.Path() != path {
			t.Errorf("%q comes back as %q", path, id.Path())
		}
	})
}

func FuzzVKey(f *testing.F) {
	f.Add("log.example/test+fae20353+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c")
	f.Fuzz(func(t *testing.T, vkey string) {
		name, key, err := ParseVKey(vkey)
		if err != nil {
			return
		}
		if again, err := key.VKey(name); err != nil || again != vkey {
			t.Errorf("%q comes back as %q, %v", vkey, again, err)
		}
	})
}

func FuzzBundle(f *testing.F) {
	f.Add([]byte("\x00\x01a\x00\x00"), 2)
	f.Fuzz(func(t *testing.T, bundle []byte, width int) {
		entries, err := ParseBundle(bundle, width)
		if err != nil {
			return
		}
		var again []byte
		for _, e := range entries {
			again = AppendBundle(again, e)
		}
		if len(entries) != width || !bytes.Equal(again, bundle) {
			t.Errorf("%q with width %d comes back as %q", bundle, width, again)
		}
	})
}

// Nothing but what the keys signed opens.
func FuzzNote(f *testing.F) {
	var v struct {
		VKey string
		Good []vector
	}
	vectors(f, "checkpoint", &v)
	key, err := note.NewVerifier(v.VKey)
	if err != nil {
		f.Fatal(err)
	}
	signed := make(map[string]bool)
	for _, c := range v.Good {
		f.Add([]byte(c.Note))
		signed[c.Text] = true
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		if c, err := OpenCheckpoint(msg, key); err == nil && !signed[c.String()] {
			t.Errorf("%q opens, and was never signed", msg)
		}
	})
}

// Canonical agrees with another implementation of RFC 8785 wherever both
// accept, and is never the laxer one; its output is its own canonical form.
func checkCanonical(t interface{ Errorf(string, ...any) }, text []byte) {
	got, err := Canonical(text)
	if err != nil {
		return
	}
	if !json.Valid(text) || !utf8.Valid(text) {
		t.Errorf("Canonical(%q) = %q, want it refused: not JSON", text, got)
		return
	}
	if again, err := Canonical(got); err != nil || !bytes.Equal(again, got) {
		t.Errorf("Canonical(%q) = %q, %v, want itself", got, again, err)
	}
	want, err := jcs.Transform(text)
	switch trimmed := bytes.TrimSpace(text); {
	case trimmed[0] != '{' && trimmed[0] != '[':
		return // the oracle takes objects and arrays only
	case err != nil && bytes.Contains(text, []byte(`\u`)):
		return // and no escaped surrogate pairs in keys
	case err != nil:
		t.Errorf("Canonical(%q) = %q, the oracle refuses it: %v", text, got, err)
	case !bytes.Equal(got, want):
		t.Errorf("Canonical(%q) = %q, the oracle says %q", text, got, want)
	}
}

func FuzzCanonical(f *testing.F) {
	var v struct{ Good, Bad []vector }
	vectors(f, "json", &v)
	for _, c := range append(v.Good, v.Bad...) {
		f.Add(c.bytes(f))
	}
	f.Fuzz(func(t *testing.T, text []byte) { checkCanonical(t, text) })
}

// jsonValue draws any JSON value of some depth.
func jsonValue(depth int) *rapid.Generator[any] {
	simple := []*rapid.Generator[any]{
		rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.String().AsAny(), rapid.Int64Range(-maxInt, maxInt).AsAny(),
		rapid.Float64().AsAny(), rapid.Float64Range(-1e-5, 1e-5).AsAny(), rapid.Float64Range(1e20, 1e22).AsAny(), rapid.Float64Range(1e15, 1e17).AsAny(),
	}
	if depth > 0 {
		simple = append(simple,
			rapid.SliceOfN(jsonValue(depth-1), 0, 4).AsAny(),
			rapid.MapOfN(rapid.String(), jsonValue(depth-1), 0, 4).AsAny())
	}
	return rapid.OneOf(simple...)
}

func TestCanonicalAgreesWithOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.SliceOfN(jsonValue(3), 0, 5).Draw(t, "value")
		for _, indent := range []string{"", "\t"} {
			text, err := json.MarshalIndent(value, "", indent)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Canonical(text); err != nil && !slices.ContainsFunc(value, beyond) {
				t.Fatalf("Canonical(%q) = %v", text, err)
			}
			checkCanonical(t, text)
		}
	})
}

// beyond says whether some number in value is one that Canonical refuses:
// beyond 2^53-1, and written as an integer.
func beyond(value any) bool {
	switch v := value.(type) {
	case float64:
		return (v > maxInt || v < -maxInt) && v < 1e21 && v > -1e21
	case []any:
		return slices.ContainsFunc(v, beyond)
	case map[string]any:
		return slices.ContainsFunc(slices.Collect(maps.Values(v)), beyond)
	}
	return false
}
