package log

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// No parser accepts another kind's text: whatever is signed or hashed serves
// one purpose. Two payloads can be the same bytes when they list no stream;
// which is meant is in the event that commits to them.
func TestNoParserTakesAnothersText(t *testing.T) {
	all := formats()
	for _, of := range all {
		good, _ := of.cases(t)
		for _, v := range good {
			texts := [][]byte{v.bytes(t)}
			if v.Note != "" {
				texts = append(texts, []byte(v.Note))
			}
			for i, text := range texts {
				for _, f := range all {
					_, err := f.roundTrip(text)
					same := i == 0 && f.name() == of.name() || v.Text == `{"streams":[],"v":1}` && strings.HasPrefix(f.kind, "migration.")
					if (err == nil) != same {
						t.Errorf("parser of %s takes %s %s: %t, want %t", f.name(), of.name(), v.Name, err == nil, same)
					}
				}
			}
		}
	}
}

// A receipt never opens as a checkpoint, and the other way round, even if an
// operator gave one key both names.
func TestReceiptIsNoCheckpoint(t *testing.T) {
	const origin = "log.example/TEST"
	seed := bytes.NewReader(bytes.Repeat([]byte{1}, 32))
	priv := ed25519.NewKeyFromSeed(append([]byte(nil), bytes.Repeat([]byte{1}, 32)...))
	for _, name := range []string{origin, ReceiptKeyName(origin)} {
		if _, err := seed.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		skey, vkey, err := note.GenerateKey(seed, name)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := note.NewSigner(skey)
		if err != nil {
			t.Fatal(err)
		}
		verifier, err := note.NewVerifier(vkey)
		if err != nil {
			t.Fatal(err)
		}
		if _, key, err := ParseVKey(vkey); err != nil || !bytes.Equal(key[:], priv.Public().(ed25519.PublicKey)) {
			t.Fatalf("ParseVKey(%q) = %x, %v: the two names were to share one key", vkey, key, err)
		}
		sign := func(text string) []byte {
			msg, err := note.Sign(&note.Note{Text: text}, signer)
			if err != nil {
				t.Fatal(err)
			}
			return msg
		}
		receipt := sign(Receipt{origin, 1, 2, Hash{3}, 4, 5}.String())
		checkpoint := sign(Checkpoint{origin, Head{1, Hash{2}}}.String())
		if _, err := OpenCheckpoint(receipt, verifier); err == nil {
			t.Errorf("a receipt signed by %q opens as a checkpoint", name)
		}
		if _, err := OpenReceipt(checkpoint, verifier); err == nil {
			t.Errorf("a checkpoint signed by %q opens as a receipt", name)
		}
		if _, err := OpenCheckpoint(checkpoint, verifier); (err == nil) != (name == origin) {
			t.Errorf("a checkpoint signed by %q: %v", name, err)
		}
		if _, err := OpenReceipt(receipt, verifier); (err == nil) == (name == origin) {
			t.Errorf("a receipt signed by %q: %v", name, err)
		}
	}
}

// Everything hashed or signed begins with a label of its own, and no label is
// the beginning of another: so no text can stand for two things.
func TestLabelsAreUnique(t *testing.T) {
	var key PublicKey
	labels := map[string]string{}
	for what, text := range map[string]string{
		"tail":        string(TailText("o", "m/s", 1, 2, Hash{})),
		"possession":  string(PossessionText("o", "p", key)),
		"succession":  string(SuccessionText("o", "p", key)),
		"receipt":     Receipt{Origin: "o", Count: 1}.String(),
		"consistency": string(ConsistencyProof{Origin: "o"}.Marshal()),
		"range":       string(RangeProof{Origin: "o"}.Marshal()),
		"inclusion":   string(InclusionProof{}.Marshal()),
		"checkpoint":  Checkpoint{Origin: "o"}.String(),
	} {
		label, _, _ := strings.Cut(text, "\n")
		if what == "checkpoint" {
			label = "checkpoint without a label: its second line is a number, and that of the others is not"
		} else if !strings.HasPrefix(label, "piperoll/") && !strings.HasPrefix(label, "c2sp.org/") {
			t.Errorf("%s begins with %q, want a label of this project or of its specification", what, label)
		}
		if other, ok := labels[label]; ok {
			t.Errorf("%s and %s share the label %q", what, other, label)
		}
		labels[label] = what
	}
	event := Event{}.Marshal()
	hashed := map[string]Hash{
		"event": EventHash(event), "leaf": LeafHash(event), "plain": sha256.Sum256(event),
		"commitment": Commit(Payload{Bytes: event}, ""), "key id": PublicKey{}.ID(), "start": StreamStart("", string(event)),
	}
	seen := map[Hash]string{}
	for what, h := range hashed {
		if other, ok := seen[h]; ok {
			t.Errorf("%s and %s of the same bytes are one hash", what, other)
		}
		seen[h] = what
	}
}

// Every single-byte change of a good text is refused, or is another good text
// that says something else: then its own bytes come back.
func TestFlippedBytes(t *testing.T) {
	for _, f := range formats() {
		good, _ := f.cases(t)
		for _, v := range good {
			text := v.bytes(t)
			if len(text) > 2048 {
				continue // the shapes repeat; 100 bytes more tell nothing new
			}
			for i := range text {
				for _, flip := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
					text[i] ^= flip
					if got, err := f.roundTrip(text); err == nil && !bytes.Equal(got, text) {
						t.Errorf("%s: %q comes back as %q", f.name(), text, got)
					}
					text[i] ^= flip
				}
			}
		}
	}
}

// A flipped byte of a signed note never opens, wherever it is.
func TestFlippedBytesOfNotes(t *testing.T) {
	for _, file := range []string{"checkpoint", "receipt"} {
		var v struct {
			VKey string
			Good []vector
		}
		vectors(t, file, &v)
		key, err := note.NewVerifier(v.VKey)
		if err != nil {
			t.Fatal(err)
		}
		text := []byte(v.Good[0].Note)
		for i := range text {
			for _, flip := range []byte{1, 4, 32, 128} {
				text[i] ^= flip
				_, err := OpenCheckpoint(text, key)
				_, err2 := OpenReceipt(text, key)
				if err == nil || err2 == nil {
					t.Errorf("%s opens with byte %d changed: %q", file, i, text)
				}
				text[i] ^= flip
			}
		}
	}
}

// The test vectors of the C2SP specifications.
func TestC2SP(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "c2sp", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Signed      string          `json:"checkpoint_signed_by_log"`
		Text        string          `json:"checkpoint_text"`
		VKey        string          `json:"log_vkey"`
		Roots       map[string]Hash `json:"roots_b64_by_size"`
		Inclusion   []Hash          `json:"inclusion_5_of_9"`
		Consistency []Hash          `json:"consistency_3_to_9"`
		Proof       string          `json:"tlog_proof_leaf5"`
		Fork        string          `json:"fork_checkpoint_size9_signed_by_log"`
		WitnessVKey string          `json:"witness_ed25519_vkey"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	tr := newTree(testLeaves(9))
	for size := range uint64(10) {
		if got, want := tr.root(size), v.Roots[fmt.Sprint(size)]; got != want {
			t.Errorf("root of size %d = %s, want %s", size, got, want)
		}
	}
	key, err := note.NewVerifier(v.VKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := OpenCheckpoint([]byte(v.Signed), key)
	if err != nil || c.String() != v.Text {
		t.Fatalf("OpenCheckpoint = %v, %v, want %q", c, err, v.Text)
	}
	p, err := ParseInclusionProof([]byte(v.Proof))
	if err != nil || string(p.Marshal()) != v.Proof || !reflect.DeepEqual(p.Path, v.Inclusion) {
		t.Errorf("ParseInclusionProof = %v, %v", p, err)
	}
	if err := CheckInclusion(c.Head, 5, testLeaves(9)[5], p.Path); err != nil {
		t.Errorf("CheckInclusion = %v", err)
	}
	if err := CheckConsistency(tr.head(3), c.Head, v.Consistency); err != nil {
		t.Errorf("CheckConsistency = %v", err)
	}
	fork, err := OpenCheckpoint([]byte(v.Fork), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckConsistency(tr.head(3), fork.Head, v.Consistency); !errors.Is(err, ErrProof) {
		t.Errorf("CheckConsistency with a fork = %v, want %v", err, ErrProof)
	}
	if _, _, err := ParseVKey(v.WitnessVKey); !errors.Is(err, ErrMalformed) {
		t.Errorf("ParseVKey of a witness's key = %v, want %v: it signs cosignatures only", err, ErrMalformed)
	}
}

// Wycheproof's Ed25519 cases: see testdata/wycheproof/LICENSE.
func TestWycheproof(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "wycheproof", "ed25519_test.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		NumberOfTests int
		TestGroups    []struct {
			PublicKey struct{ PK string }
			Tests     []struct {
				TcID                      int
				Comment, Msg, Sig, Result string
			}
		}
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range v.TestGroups {
		key := PublicKey(unhex(t, g.PublicKey.PK))
		for _, c := range g.Tests {
			n++
			raw := unhex(t, c.Sig)
			sig := Sig{Key: key.ID()}
			if len(raw) != len(sig.Sig) {
				if c.Result != "invalid" {
					t.Errorf("case %d (%s): %d bytes are no signature, the case is %s", c.TcID, c.Comment, len(raw), c.Result)
				}
				continue // no Sig can hold it
			}
			copy(sig.Sig[:], raw)
			if err := sig.Verify(key, unhex(t, c.Msg)); (err == nil) != (c.Result == "valid") {
				t.Errorf("case %d (%s): %v, want %s", c.TcID, c.Comment, err, c.Result)
			}
		}
	}
	if n != v.NumberOfTests || n < 150 {
		t.Errorf("%d cases ran, the file has %d", n, v.NumberOfTests)
	}
}

// An event and what the log adds hold no free text: every string is a name, a
// kind or a media type, so that nobody's data can be in what is never erased.
func TestNoFreeText(t *testing.T) {
	var v struct{ Good []vector }
	vectors(t, "entry", &v)
	base, err := ParseEntry(v.Good[0].bytes(t))
	if err != nil {
		t.Fatal(err)
	}
	var paths [][]int
	var walk func(typ reflect.Type, path []int)
	walk = func(typ reflect.Type, path []int) {
		switch typ.Kind() {
		case reflect.String:
			paths = append(paths, append([]int(nil), path...))
		case reflect.Struct:
			for i := range typ.NumField() {
				walk(typ.Field(i).Type, append(path, i))
			}
		case reflect.Pointer, reflect.Slice:
			if typ.Elem().Kind() != reflect.Uint8 {
				walk(typ.Elem(), append(path, 0))
			}
		case reflect.Map, reflect.Interface:
			t.Errorf("field %v of an entry can hold anything", path)
		}
	}
	walk(reflect.TypeFor[Entry](), nil)
	if len(paths) < 11 {
		t.Fatalf("%d string fields found in an entry, want all of at least 11", len(paths))
	}
	for _, path := range paths {
		for _, text := range []string{"Jane Doe", "jane@example.com", "+44 20 7946 0000", "Zoë", "a\nb", "12, High Street"} {
			e := base
			e.Event.Objects = append([]Object(nil), base.Event.Objects...)
			ref := *base.Event.Payload
			e.Event.Payload = &ref
			field := reflect.ValueOf(&e).Elem()
			for _, i := range path {
				switch field.Kind() {
				case reflect.Pointer:
					field = field.Elem()
				case reflect.Slice:
					field = field.Index(i)
				default:
					field = field.Field(i)
				}
			}
			field.SetString(text)
			if _, err := ParseEntry(e.Marshal()); err == nil {
				t.Errorf("an entry with %q in field %v parses", text, path)
			}
			if err := e.Validate(); !errors.Is(err, ErrMalformed) {
				t.Errorf("Validate of an entry with %q in field %v = %v, want %v", text, path, err, ErrMalformed)
			}
		}
	}
}
