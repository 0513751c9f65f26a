package witness

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/mldsa"
	"golang.org/x/mod/sumdb/note"

	"github.com/pipe-roll/piperoll/log"
)

// An actor signs checkpoints as a log or cosigns them as a witness.
type actor struct {
	Key
	sign func(msg []byte) []byte
}

func newActor(t *testing.T, name string, typ KeyType) actor {
	t.Helper()
	if typ == CosignMLDSA44 {
		priv, err := mldsa.GenerateKey(mldsa.MLDSA44())
		if err != nil {
			t.Fatal(err)
		}
		return actor{Key{name, typ, string(priv.PublicKey().Bytes())}, func(msg []byte) []byte {
			sig, err := priv.Sign(nil, msg, &mldsa.Options{})
			if err != nil {
				t.Error(err)
			}
			return sig
		}}
	}
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return actor{Key{name, typ, string(pub)}, func(msg []byte) []byte { return ed25519.Sign(priv, msg) }}
}

// line is the actor's signature line under text.
func (a actor) line(text string, seconds uint64) string {
	raw := binary.BigEndian.AppendUint32(nil, a.KeyHash())
	switch a.typ {
	case Ed25519:
		raw = append(raw, a.sign([]byte(text))...)
	case CosignEd25519:
		raw = append(binary.BigEndian.AppendUint64(raw, seconds), a.sign(ed25519Message(seconds, []byte(text)))...)
	default:
		c, _ := log.ParseCheckpoint(text) // a forger signs whatever this gives
		raw = append(binary.BigEndian.AppendUint64(raw, seconds), a.sign(mldsaMessage(a.name, seconds, c))...)
	}
	return "— " + a.name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
}

const origin = "log.example/a"

func text(size uint64) string {
	return log.Checkpoint{Origin: origin, Head: log.Head{Size: size, Root: log.Hash{1}}}.String()
}

// A crowd is a log and three witnesses, with a policy that lists them.
type crowd struct {
	log, receipts actor
	w             []actor
}

func newCrowd(t *testing.T) crowd {
	return crowd{
		newActor(t, origin, Ed25519), newActor(t, origin+"/receipt", Ed25519),
		[]actor{newActor(t, "w.example/1", CosignEd25519), newActor(t, "w.example/2", CosignMLDSA44), newActor(t, "w.example/3", CosignEd25519)},
	}
}

func (c crowd) policy(t *testing.T, rules string) Policy {
	t.Helper()
	var b strings.Builder
	b.WriteString("log " + c.log.String() + "\nlog " + c.receipts.String() + "\n")
	for i, w := range c.w {
		b.WriteString(fmt.Sprintf("witness w%d %s\n", i+1, w))
	}
	p, err := ParsePolicy([]byte(b.String() + rules))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestQuorum(t *testing.T) {
	c := newCrowd(t)
	for _, tc := range []struct {
		rules string
		times []uint64 // of the three witnesses; 0: has not signed; 1: signed without a time
		want  uint64
		ok    bool
	}{
		{"quorum none\n", []uint64{0, 0, 0}, 0, true},
		{"quorum none\n", []uint64{9, 9, 9}, 0, true},
		{"quorum w2\n", []uint64{9, 8, 7}, 8, true},
		{"quorum w2\n", []uint64{9, 0, 7}, 0, false},
		{"group g 2 w1 w2 w3\nquorum g\n", []uint64{50, 20, 30}, 30, true},
		{"group g 2 w1 w2 w3\nquorum g\n", []uint64{50, 0, 30}, 50, true},
		{"group g 2 w1 w2 w3\nquorum g\n", []uint64{50, 0, 0}, 0, false},
		{"group g 2 w1 w2 w3\nquorum g\n", []uint64{50, 1, 30}, 50, true},
		{"group g 2 w1 w2 w3\nquorum g\n", []uint64{1, 1, 30}, 0, true},
		{"group g all w1 w2 w3\nquorum g\n", []uint64{50, 20, 30}, 50, true},
		{"group g all w1 w2 w3\nquorum g\n", []uint64{50, 20, 0}, 0, false},
		{"group g any w1 w2 w3\nquorum g\n", []uint64{50, 20, 30}, 20, true},
		{"group a any w1 w2\ngroup b all a w3\nquorum b\n", []uint64{50, 20, 30}, 30, true},
		{"group a any w1 w2\ngroup b all a w3\nquorum b\n", []uint64{0, 0, 30}, 0, false},
	} {
		msg, signed := text(5)+"\n"+c.log.line(text(5), 0), 0
		for i, seconds := range tc.times {
			if seconds == 1 {
				msg += c.w[i].line(text(5), 0)
				signed++
			} else if seconds > 0 {
				msg += c.w[i].line(text(5), seconds)
				signed++
			}
		}
		o, err := c.policy(t, tc.rules).Open([]byte(msg))
		if ok := err == nil; ok != tc.ok || !ok && !errors.Is(err, ErrQuorum) {
			t.Errorf("%q with %v: %v, want ok %v", tc.rules, tc.times, err, tc.ok)
			continue
		}
		if o.Time != tc.want || len(o.Cosigned) != signed || o.Checkpoint.Size != 5 || o.Log != c.log.Key {
			t.Errorf("%q with %v: Open = %+v, want time %d and %d cosignatures", tc.rules, tc.times, o, tc.want, signed)
		}
	}
}

// Who says that a quorum had seen a checkpoint only after some time, needs a
// quorum that says so: not a line that was late, beside others that were not.
func TestQuorumAfter(t *testing.T) {
	c := newCrowd(t)
	const two, all = "group g 2 w1 w2 w3\nquorum g\n", "group g all w1 w2 w3\nquorum g\n"
	for _, tc := range []struct {
		rules string
		times []uint64 // of the three witnesses; 0 makes no claim
		ms    uint64
		want  uint64
		ok    bool
	}{
		{two, []uint64{10, 20, 30}, 9_999, 20, true},
		{two, []uint64{10, 20, 30}, 10_000, 30, true},
		{two, []uint64{10, 20, 30}, 20_000, 0, false},
		{two, []uint64{0, 0, 30}, 1, 0, false},
		{all, []uint64{10, 20, 30}, 10_000, 0, false},
		{"quorum w3\n", []uint64{10, 20, 30}, 20_000, 30, true},
		{"quorum none\n", []uint64{10, 20, 30}, 1, 0, false},
	} {
		var cosigned []Cosignature
		for i, seconds := range tc.times {
			cosigned = append(cosigned, Cosignature{fmt.Sprintf("w%d", i+1), seconds})
		}
		before := slices.Clone(cosigned)
		got, ok := c.policy(t, tc.rules).QuorumAfter(cosigned, tc.ms)
		if got != tc.want || ok != tc.ok || !slices.Equal(cosigned, before) {
			t.Errorf("%q: QuorumAfter(%v, %d) = %d, %v, want %d, %v", tc.rules, before, tc.ms, got, ok, tc.want, tc.ok)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	c := newCrowd(t)
	stranger, other := newActor(t, "w.example/9", CosignEd25519), newActor(t, "log.example/b", Ed25519)
	p := c.policy(t, "log "+other.String()+"\nquorum none\n")
	good := text(5) + "\n" + c.log.line(text(5), 0)
	if o, err := p.Open([]byte(good + stranger.line(text(5), 9))); err != nil || o.Unknown != 1 || len(o.Cosigned) != 0 {
		t.Errorf("Open with a stranger's line = %+v, %v, want it ignored", o, err)
	}
	if o, err := p.Open([]byte(good + stranger.line(text(5), 9) + stranger.line(text(5), 10))); err != nil || o.Unknown != 2 {
		t.Errorf("Open with two lines of a stranger = %+v, %v, want them ignored", o, err)
	}
	if o, err := p.Open([]byte(good + c.w[0].line(text(5), timeMax))); err != nil || o.Cosigned[0].Time != timeMax {
		t.Errorf("Open with the latest time = %+v, %v", o, err)
	}
	receipt := strings.Replace(text(5), origin, origin+"/receipt", 1)
	extended := text(5) + "more\n"
	respelled := strings.Replace(text(5), "\n5\n", "\n05\n", 1)
	flipped := func(line string) string {
		i := strings.LastIndex(line, " ") + 20
		b := []byte(line)
		b[i] ^= 1 // of the base64, still in its alphabet for some letters
		if b[i] < '0' {
			b[i] = 'A'
		}
		return string(b)
	}
	late := c.w[0]
	for name, msg := range map[string]string{
		"only a witness":          text(5) + "\n" + c.w[0].line(text(5), 9),
		"another log of policy":   text(5) + "\n" + other.line(text(5), 0),
		"only the receipt key":    receipt + "\n" + c.receipts.line(receipt, 0),
		"receipt key as log":      text(5) + "\n" + c.receipts.line(text(5), 0),
		"bad signature":           text(5) + "\n" + flipped(c.log.line(text(5), 0)),
		"bad cosignature":         good + flipped(c.w[0].line(text(5), 9)),
		"bad ML-DSA cosignature":  good + flipped(c.w[1].line(text(5), 9)),
		"cosignature of another":  good + c.w[0].line(text(6), 9),
		"signature of another":    text(5) + "\n" + c.log.line(text(6), 0),
		"time beyond 2^63-1":      good + late.line(text(5), 1<<63),
		"time beyond JSON":        good + late.line(text(5), timeMax+1),
		"two lines by a witness":  good + late.line(text(5), 9) + late.line(text(5), 10),
		"the same line twice":     good + late.line(text(5), 9) + late.line(text(5), 9),
		"two lines by the log":    good + c.log.line(text(5), 0),
		"short cosignature":       good + "— w.example/1 " + base64.StdEncoding.EncodeToString(append(binary.BigEndian.AppendUint32(nil, c.w[0].KeyHash()), 1, 2)) + "\n",
		"extension line":          extended + "\n" + c.log.line(extended, 0),
		"extension under ML-DSA":  extended + "\n" + c.log.line(extended, 0) + c.w[1].line(extended, 9),
		"second spelling of size": respelled + "\n" + c.log.line(respelled, 0),
		"unsigned":                text(5) + "\n",
		"empty":                   "",
		"spare bits":              strings.Replace(good, "==\n", "!=\n", 1) + "x",
		"too long":                good + strings.Repeat(stranger.line(text(5), 1), 2000),
	} {
		o, err := p.Open([]byte(msg))
		if !errors.Is(err, log.ErrSignature) && !errors.Is(err, log.ErrMalformed) {
			t.Errorf("%s: Open = %+v, %v, want %v or %v", name, o, err, log.ErrSignature, log.ErrMalformed)
		}
	}
}

// The receipt key signs receipts, and no checkpoint; without its log it is
// nobody's.
func TestReceiptKeys(t *testing.T) {
	c := newCrowd(t)
	p := c.policy(t, "quorum none\n")
	if got := p.ReceiptKeys(origin); !slices.Equal(got, []Key{c.receipts.Key}) {
		t.Errorf("ReceiptKeys(%q) = %v, want %v", origin, got, c.receipts.Key)
	}
	if got := p.ReceiptKeys("log.example/b"); got != nil {
		t.Errorf("ReceiptKeys of another log = %v, want none", got)
	}
	alone, err := ParsePolicy([]byte("log " + c.receipts.String() + "\nquorum none\n"))
	if err != nil || alone.ReceiptKeys(origin) != nil {
		t.Errorf("ReceiptKeys without the log = %v, %v, want none", alone.ReceiptKeys(origin), err)
	}
}

// A log may sign with ML-DSA, and be its own witness under one key.
func TestLogAndWitnessShareAKey(t *testing.T) {
	a := newActor(t, origin, CosignMLDSA44)
	p, err := ParsePolicy([]byte("log " + a.String() + "\nwitness self " + a.String() + "\nquorum self\n"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := p.Open([]byte(text(5) + "\n" + a.line(text(5), 7)))
	if err != nil || o.Time != 7 || len(o.Cosigned) != 1 {
		t.Errorf("Open = %+v, %v, want time 7", o, err)
	}
}

// Vectors of the C2SP specifications, made by other implementations.
func TestVectors(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "c2sp.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]string
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	p, err := ParsePolicy([]byte(v["policy"]))
	if err != nil {
		t.Fatal(err)
	}
	msg := v["checkpoint_signed_by_log"] + v["cosig_ed25519_line"]
	o, err := p.Open([]byte(msg))
	if err != nil || o.Time != 1_700_000_000 || o.Checkpoint.Size != 9 || !slices.Equal(o.Cosigned, []Cosignature{{"w1", 1_700_000_000}}) {
		t.Errorf("Open = %+v, %v", o, err)
	}
	p, err = ParsePolicy([]byte(strings.Replace(v["policy"], v["witness_ed25519_vkey"], v["witness_mldsa44_vkey"], 1)))
	if err != nil {
		t.Fatal(err)
	}
	o, err = p.Open([]byte(v["checkpoint_signed_by_log"] + v["cosig_mldsa44_line_deterministic"]))
	if err != nil || o.Time != 1_700_000_000 || len(o.Cosigned) != 1 {
		t.Errorf("Open with ML-DSA = %+v, %v", o, err)
	}
	if got := fmt.Sprintf("%x", mldsaMessage("witness.example/w1", 1_700_000_000, o.Checkpoint)); got != v["cosig_mldsa44_message_hex"] {
		t.Errorf("message = %s, want %s", got, v["cosig_mldsa44_message_hex"])
	}
	if got := string(ed25519Message(1_700_000_000, []byte(v["checkpoint_text"]))); got != v["cosig_ed25519_message"] {
		t.Errorf("message = %q, want %q", got, v["cosig_ed25519_message"])
	}
	if _, err := note.Open([]byte(msg), note.VerifierList(p.Logs[0].Key)); err != nil {
		t.Errorf("a Key is a note.Verifier: %v", err)
	}
}
