package log

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// A vector is one case of testdata/vectors, as docs/second-verifier makes them.
type vector struct {
	Name, Kind, Text, Hex, Error string
	Pieces                       [][2]any // [text, how many times]
	// What a good one comes to.
	Hash, Leaf, Canonical, Note, Root string
	OldRoot                           string `json:"old_root"`
	NewRoot                           string `json:"new_root"`
	Index, Size, Old, New, Begin      uint64
	Leaves, Path                      []string
	Width                             int
	Entries                           []string
}

// bytes gives the vector's input.
func (v vector) bytes(t testing.TB) []byte {
	if v.Hex != "" {
		return unhex(t, v.Hex)
	}
	if v.Pieces == nil {
		return []byte(v.Text)
	}
	var b strings.Builder
	for _, p := range v.Pieces {
		b.WriteString(strings.Repeat(p[0].(string), int(p[1].(float64))))
	}
	return []byte(b.String())
}

// vectors reads a file of vectors into v.
func vectors(t testing.TB, name string, v any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "vectors", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hashOf(t testing.TB, text string) Hash { t.Helper(); return Hash(unhex(t, text)) }

func hashesOf(t testing.TB, texts []string) (hashes []Hash) {
	for _, text := range texts {
		hashes = append(hashes, hashOf(t, text))
	}
	return hashes
}

// A format is a parser followed by its writer.
type format struct {
	file, kind string // vectors of that file, and in it of that kind
	roundTrip  func([]byte) ([]byte, error)
}

func (f format) name() string { return strings.TrimSuffix(f.file+"/"+f.kind, "/") }

func via[T any](parse func([]byte) (T, error), write func(T) []byte) func([]byte) ([]byte, error) {
	return func(text []byte) ([]byte, error) {
		v, err := parse(text)
		if err != nil {
			return nil, err
		}
		return write(v), nil
	}
}

// fromString makes a parser of strings one of bytes.
func fromString[T any](parse func(string) (T, error)) func([]byte) (T, error) {
	return func(text []byte) (T, error) { return parse(string(text)) }
}

// formats are all formats that have a parser and a file of vectors.
func formats() []format {
	return []format{
		{"event", "", via(ParseEvent, Event.Marshal)},
		{"entry", "", via(ParseEntry, Entry.Marshal)},
		{"part", "", via(ParsePart, Part.Marshal)},
		{"sig", "", via(ParseSig, Sig.Marshal)},
		{"payload", "log.open", via(ParseLogOpen, LogOpen.Marshal)},
		{"payload", "stream.open", via(ParseStreamOpen, StreamOpen.Marshal)},
		{"payload", "migration.open", via(ParseMigrationOpen, MigrationOpen.Marshal)},
		{"payload", "migration.close", via(ParseMigrationClose, MigrationClose.Marshal)},
		{"payload", "key.registered", via(ParseKeyRegistered, KeyRegistered.Marshal)},
		{"payload", "key.revoked", via(ParseKeyRevoked, KeyRevoked.Marshal)},
		{"payload", "access.token.created", via(ParseTokenCreated, TokenCreated.Marshal)},
		{"payload", "access.token.revoked", via(ParseTokenRevoked, TokenRevoked.Marshal)},
		{"payload", "payload.erased", via(ParsePayloadErased, PayloadErased.Marshal)},
		{"payload", "log.refused", via(ParseRefused, Refused.Marshal)},
		{"checkpoint", "", via(fromString(ParseCheckpoint), func(c Checkpoint) []byte { return []byte(c.String()) })},
		{"receipt", "", via(fromString(ParseReceipt), func(r Receipt) []byte { return []byte(r.String()) })},
		{"inclusion", "", via(ParseInclusionProof, InclusionProof.Marshal)},
		{"consistency", "", via(ParseConsistencyProof, ConsistencyProof.Marshal)},
		{"range", "", via(ParseRangeProof, RangeProof.Marshal)},
	}
}

// cases gives the good and the bad vectors of a format.
func (f format) cases(t testing.TB) (good, bad []vector) {
	var v struct{ Good, Bad []vector }
	vectors(t, f.file, &v)
	other := func(c vector) bool { return c.Kind != f.kind }
	good, bad = slices.DeleteFunc(v.Good, other), slices.DeleteFunc(v.Bad, other)
	if len(good) == 0 || len(bad) == 0 {
		t.Fatalf("%s: %d good and %d bad vectors, want some of each", f.name(), len(good), len(bad))
	}
	return good, bad
}

// checkRefused wants the error that a bad vector's name promises.
func checkRefused(t *testing.T, name string, v vector, err error) {
	t.Helper()
	switch {
	case v.Error == "unsupported":
		if !errors.Is(err, ErrVersion) || errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %s: %v, want %v", name, v.Name, err, ErrVersion)
		}
	case !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrKey), errors.Is(err, ErrVersion):
		t.Errorf("%s: %s: %v, want %v", name, v.Name, err, ErrMalformed)
	}
}

func TestVectorsOfTexts(t *testing.T) {
	for _, f := range formats() {
		good, bad := f.cases(t)
		for _, v := range good {
			if got, err := f.roundTrip(v.bytes(t)); err != nil || !bytes.Equal(got, v.bytes(t)) {
				t.Errorf("%s: %s: comes back as %q, %v, want %q", f.name(), v.Name, got, err, v.bytes(t))
			}
		}
		for _, v := range bad {
			_, err := f.roundTrip(v.bytes(t))
			checkRefused(t, f.name(), v, err)
		}
	}
}

func TestVectorsOfHashes(t *testing.T) {
	var events, entries struct{ Good []vector }
	vectors(t, "event", &events)
	for _, v := range events.Good {
		e, err := ParseEvent(v.bytes(t))
		if got := e.Hash(); err != nil || got != hashOf(t, v.Hash) {
			t.Errorf("hash of event %s = %x, %v, want %s", v.Name, got, err, v.Hash)
		}
	}
	vectors(t, "entry", &entries)
	for _, v := range entries.Good {
		if got := LeafHash(v.bytes(t)); got != hashOf(t, v.Leaf) {
			t.Errorf("leaf hash of entry %s = %x, want %s", v.Name, got, v.Leaf)
		}
	}
	var v struct {
		Starts      []struct{ Origin, Stream, Hash string }
		Commitments []struct{ Name, Salt, Type, Payload, Commitment string }
	}
	vectors(t, "hashes", &v)
	for _, c := range v.Starts {
		if got := StreamStart(c.Origin, c.Stream); got != hashOf(t, c.Hash) {
			t.Errorf("StreamStart(%q, %q) = %x, want %s", c.Origin, c.Stream, got, c.Hash)
		}
	}
	for _, c := range v.Commitments {
		p := Payload{Salt: [32]byte(unhex(t, c.Salt)), Bytes: unhex(t, c.Payload)}
		want := hashOf(t, c.Commitment)
		if got := Commit(p, c.Type); got != want {
			t.Errorf("Commit(%s) = %x, want %x", c.Name, got, want)
		}
		if err := (Ref{want, c.Type}).Check(p); err != nil {
			t.Errorf("Check(%s) = %v", c.Name, err)
		}
		p.Salt[31] ^= 1
		if err := (Ref{want, c.Type}).Check(p); !errors.Is(err, ErrCommitment) {
			t.Errorf("Check(%s) with another salt = %v, want %v", c.Name, err, ErrCommitment)
		}
	}
}

func TestVectorsOfJSON(t *testing.T) {
	var v struct {
		Good, Bad []vector
		Numbers   []struct{ Bits, Text string }
	}
	vectors(t, "json", &v)
	for _, c := range v.Good {
		if got, err := Canonical(c.bytes(t)); err != nil || string(got) != c.Canonical {
			t.Errorf("Canonical(%q) = %q, %v, want %q", c.Text, got, err, c.Canonical)
		}
	}
	for _, c := range v.Bad {
		_, err := Canonical(c.bytes(t))
		checkRefused(t, "json", c, err)
	}
	for _, n := range v.Numbers {
		var bits uint64
		for _, b := range unhex(t, n.Bits) {
			bits = bits<<8 | uint64(b)
		}
		if got := string(appendJSONNumber(nil, math.Float64frombits(bits))); got != n.Text {
			t.Errorf("number of bits %s = %s, want %s", n.Bits, got, n.Text)
		}
	}
}

func TestVectorsOfWords(t *testing.T) {
	var v struct {
		Kinds []struct {
			Text, Class       string
			Control, Erasable bool
		}
		Names, Types []string
		KindsBad     []string `json:"kinds_bad"`
		NamesBad     []string `json:"names_bad"`
		TypesBad     []string `json:"types_bad"`
	}
	vectors(t, "words", &v)
	classes := map[string]Class{"submitted": Submitted, "server": Server}
	for _, k := range v.Kinds {
		if got := ClassOf(k.Text); got != classes[k.Class] {
			t.Errorf("ClassOf(%q) = %d, want %s", k.Text, got, k.Class)
		}
		if got := Control(k.Text); got != k.Control {
			t.Errorf("Control(%q) = %t", k.Text, got)
		}
		if got := Erasable(k.Text); got != k.Erasable {
			t.Errorf("Erasable(%q) = %t", k.Text, got)
		}
	}
	kind := func(s string) bool { return ClassOf(s) != Unregistered }
	for _, c := range []struct {
		what  string
		valid func(string) bool
		texts []string
		want  bool
	}{
		{"kind", kind, v.KindsBad, false},
		{"name", ValidName, v.Names, true},
		{"name", ValidName, v.NamesBad, false},
		{"type", ValidType, v.Types, true},
		{"type", ValidType, v.TypesBad, false},
	} {
		for _, text := range c.texts {
			if got := c.valid(text); got != c.want {
				t.Errorf("%q is a %s: %t, want %t", text, c.what, got, c.want)
			}
		}
	}
}

func TestVectorsOfKeys(t *testing.T) {
	var v struct {
		IDs     []struct{ Name, Seed, Public, ID, VKey string }
		Refused []struct{ Name, Public string }
		Texts   struct {
			Origin, Principal, Public, Successor string
			Tail                                 struct {
				Stream, Hash string
				First, Last  uint64
			}
		}
		Signed   []struct{ Name, Text, Public, Sig string }
		VKeysBad []vector `json:"vkeys_bad"`
	}
	vectors(t, "keys", &v)
	for _, k := range v.IDs {
		public := PublicKey(ed25519.NewKeyFromSeed(unhex(t, k.Seed)).Public().(ed25519.PublicKey))
		if hex.EncodeToString(public[:]) != k.Public || public.ID() != hashOf(t, k.ID) || public.Check() != nil {
			t.Errorf("%s: key %x, id %x, want %s, %s", k.Name, public, public.ID(), k.Public, k.ID)
		}
		name, parsed, err := ParseVKey(k.VKey)
		if err != nil || parsed != public {
			t.Errorf("ParseVKey(%q) = %x, %v", k.VKey, parsed, err)
		}
		if back, err := public.VKey(name); err != nil || back != k.VKey {
			t.Errorf("VKey(%q) = %q, %v, want %q", name, back, err, k.VKey)
		}
	}
	for _, k := range v.Refused {
		if err := PublicKey(unhex(t, k.Public)).Check(); !errors.Is(err, ErrKey) {
			t.Errorf("%s: Check = %v, want %v", k.Name, err, ErrKey)
		}
	}
	x := v.Texts
	public, successor := PublicKey(unhex(t, x.Public)), PublicKey(unhex(t, x.Successor))
	texts := map[string][]byte{
		"tail":         TailText(x.Origin, x.Tail.Stream, x.Tail.First, x.Tail.Last, hashOf(t, x.Tail.Hash)),
		"tail-largest": TailText(x.Origin, "a/b", 1, maxInt, Hash{}),
		"possession":   PossessionText(x.Origin, x.Principal, public),
		"succession":   SuccessionText(x.Origin, x.Principal, successor),
	}
	for _, s := range v.Signed {
		if string(texts[s.Name]) != s.Text {
			t.Errorf("text of %s = %q, want %q", s.Name, texts[s.Name], s.Text)
		}
		sig, err := ParseSig([]byte(s.Sig))
		key := PublicKey(unhex(t, s.Public))
		if err != nil || sig.Verify(key, []byte(s.Text)) != nil {
			t.Errorf("%s: %v, %v", s.Name, err, sig.Verify(key, []byte(s.Text)))
		}
		if err := sig.Verify(key, []byte(s.Text+"\n")); !errors.Is(err, ErrSignature) {
			t.Errorf("%s over another text: %v, want %v", s.Name, err, ErrSignature)
		}
	}
	for _, k := range v.VKeysBad {
		_, _, err := ParseVKey(k.Text)
		checkRefused(t, "vkey", k, err)
	}
}

func TestVectorsOfNotes(t *testing.T) {
	open := map[string]func([]byte, note.Verifier) (string, error){
		"checkpoint": func(msg []byte, key note.Verifier) (string, error) {
			c, err := OpenCheckpoint(msg, key)
			return c.String(), err
		},
		"receipt": func(msg []byte, key note.Verifier) (string, error) {
			r, err := OpenReceipt(msg, key)
			return r.String(), err
		},
	}
	for _, file := range []string{"checkpoint", "receipt"} {
		var v struct {
			VKey     string
			Good     []vector
			BadNotes []vector `json:"bad_notes"`
		}
		vectors(t, file, &v)
		key, err := note.NewVerifier(v.VKey)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range v.Good {
			if got, err := open[file]([]byte(c.Note), key); err != nil || got != c.Text {
				t.Errorf("%s: %s opens as %q, %v, want %q", file, c.Name, got, err, c.Text)
			}
		}
		for _, c := range v.BadNotes {
			if _, err := open[file](c.bytes(t), key); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrSignature) {
				t.Errorf("%s: %s: %v, want it refused", file, c.Name, err)
			}
		}
	}
}

func TestVectorsOfReceipts(t *testing.T) {
	var v struct{ Good []vector }
	vectors(t, "receipt", &v)
	for _, c := range v.Good {
		r, err := ParseReceipt(c.Text)
		if got := LeavesHash(hashesOf(t, c.Leaves)); err != nil || got != r.Leaves || r.First != c.Index || int(r.Count) != len(c.Leaves) {
			t.Errorf("%s: %+v, %v, leaves hash to %x", c.Name, r, err, got)
		}
	}
}

func TestVectorsOfTiles(t *testing.T) {
	var v struct {
		Paths []struct {
			Level, Width int
			Index        uint64
			Text         string
		}
		PathsBad   []string `json:"paths_bad"`
		Bundles    []vector
		BundlesBad []vector `json:"bundles_bad"`
	}
	vectors(t, "tiles", &v)
	for _, p := range v.Paths {
		id := TileID{p.Level, p.Index, p.Width}
		if got := id.Path(); got != p.Text {
			t.Errorf("Path of %v = %q, want %q", id, got, p.Text)
		}
		if got, err := ParseTilePath(p.Text); err != nil || got != id {
			t.Errorf("ParseTilePath(%q) = %v, %v, want %v", p.Text, got, err, id)
		}
	}
	for _, p := range v.PathsBad {
		if got, err := ParseTilePath(p); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseTilePath(%q) = %v, %v, want %v", p, got, err, ErrMalformed)
		}
	}
	for _, b := range v.Bundles {
		var built []byte
		for _, e := range b.Entries {
			built = AppendBundle(built, unhex(t, e))
		}
		entries, err := ParseBundle(built, len(b.Entries))
		if err != nil || !bytes.Equal(built, b.bytes(t)) {
			t.Fatalf("bundle %s: %v", b.Name, err)
		}
		var leaves []Hash
		for i, e := range entries {
			leaves = append(leaves, LeafHash(e))
			if hex.EncodeToString(e) != b.Entries[i] {
				t.Errorf("bundle %s: entry %d is %x, want %s", b.Name, i, e, b.Entries[i])
			}
		}
		if got := newTree(leaves).root(uint64(len(leaves))); got != hashOf(t, b.Root) {
			t.Errorf("bundle %s: root %x, want %s", b.Name, got, b.Root)
		}
	}
	for _, b := range v.BundlesBad {
		_, err := ParseBundle(b.bytes(t), b.Width)
		checkRefused(t, "bundle", b, err)
	}
}
