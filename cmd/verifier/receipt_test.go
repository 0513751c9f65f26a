package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/pipe-roll/piperoll/log"
)

// A holder is a migration service that kept what it sent: entries 4 to 6 of
// smallLog, one request, and the receipt for them.
type holder struct {
	*scene
	sent    string // folder of its entries
	receipt string
}

func newHolder(t *testing.T, l *fakeLog, f files) *holder {
	t.Helper()
	h := &holder{scene: newScene(t, l, "g", f)}
	h.sent = filepath.Join(h.dir, "sent")
	sent := files{}
	for i := uint64(4); i < 7; i++ {
		sent[log.ExportFile{Kind: log.ExportEvent, Number: i}.Name()] = l.records[i].Entry
	}
	sent.write(h.sent)
	h.receipt = h.file("4.receipt", string(l.receipts[4]))
	return h
}

func (h *holder) want(code int, shown string, parts ...string) {
	h.t.Helper()
	got, text := runAll("receipt", "-policy", h.policy, "-entry", h.sent, h.receipt, shown)
	check(h.t, got, text, code, parts...)
}

func TestReceiptKept(t *testing.T) {
	l, _ := smallLog()
	h := newHolder(t, l, l.export())
	h.want(exitOK, h.out, "entries 4 to 6 are in the tree of log.example/crm, size 9")
	// One proof is of one entry: that the others are there too, it does not show.
	h.want(exitNotEstablished, h.file("5.tlog-proof", string(l.proof(5, 9))), "entry 5 is in the tree as promised, but the receipt is for entries 4 to 6")
	args := []string{"receipt", "-policy", h.policy}
	for _, n := range []string{"4", "5", "6"} {
		args = append(args, "-entry", filepath.Join(h.sent, "00000000000"+n+".json"))
	}
	code, text := runAll(append(args, h.receipt, h.out)...)
	check(t, code, text, exitOK, "promise    PASS")

	sent, receipt, proof := h.file("7.json", string(l.records[7].Entry)), h.file("7.receipt", string(l.receipts[7])), h.file("7.tlog-proof", string(l.proof(7, 8)))
	code, text = runAll("receipt", "-policy", h.policy, "-entry", sent, receipt, proof)
	check(t, code, text, exitOK, "entries 7 to 7 are in the tree of log.example/crm, size 8")
	// Without its quorum the tree is the log's word alone: nothing is wrong, and nothing established.
	l.cosignAt = []uint64{l.cosign, 0, 0}
	code, text = runAll("receipt", "-policy", h.policy, "-entry", sent, receipt, h.file("7.tlog-proof", string(l.proof(7, 8))))
	check(t, code, text, exitNotEstablished, "quorum of cosignatures is not met", "nothing is wrong with the files")
}

// A receipt and its entries say the same time, or one of them is not what it says.
func TestReceiptWithAnotherTime(t *testing.T) {
	l, _ := smallLog()
	h := newHolder(t, l, l.export())
	var leaves []log.Hash
	for _, r := range l.records[4:7] {
		leaves = append(leaves, log.LeafHash(r.Entry))
	}
	h.receipt = h.file("4.receipt", string(l.receipt(4, leaves))) // of now, not of then
	h.want(exitFailed, h.out, "the receipt says received 1700000006000, its entry")
}

// Case (a): the log shows another entry at the index that it promised.
func TestReceiptConvictsALogThatReplacedAnEntry(t *testing.T) {
	l, _ := smallLog()
	honest := newHolder(t, l, l.export())

	// The same log tells another story: entry 5 was never sent.
	lie := *l
	lie.records = slices.Clone(l.records)
	lie.records[5].Entry = []byte(strings.Replace(string(l.records[5].Entry), "migration.extract", "migration.cutover", 1))
	lie.rehash()
	lie.receipts = l.receipts
	out := filepath.Join(honest.dir, "lie")
	lie.export().write(out)
	honest.want(exitFailed, out, "CONVICTED", "your entry 5")

	// verify finds it too, from the receipts in the directory.
	s := newScene(t, l, "g", lie.export())
	s.want(exitFailed, "CONVICTED: the log's receipt promises other entries at 4 to 6")

	// A bare proof convicts only with the entry that it is of.
	proof := honest.file("5.tlog-proof", string(lie.proof(5, 9)))
	honest.want(exitFailed, proof, "the proof is not of your entry", "-logged")
	logged := filepath.Join(out, "events", "000000000005.json")
	hold := func(proof string) (int, string) {
		return runAll("receipt", "-policy", honest.policy, "-entry", honest.sent, "-logged", logged, honest.receipt, proof)
	}
	code, text := hold(proof)
	check(t, code, text, exitFailed, "CONVICTED")
	code, text = hold(out)
	check(t, code, text, exitUsage, "-logged with a directory")

	// A tree that ends within the receipt, and that no witness has seen, convicts as well.
	lie.cosignAt = []uint64{0, 0, 0}
	code, text = hold(honest.file("5.tlog-proof", string(lie.proof(5, 6))))
	check(t, code, text, exitFailed, "CONVICTED")
	f := lie.export()
	f["checkpoint"] = lie.checkpoint(6)
	path := must(tlog.ProveRecord(6, 5, lie.reader()))
	f["proofs/000000000005.tlog-proof"] = log.InclusionProof{Index: 5, Path: path, Checkpoint: f["checkpoint"]}.Marshal()
	honest.again(f)
	honest.want(exitFailed, honest.out, "CONVICTED", "your entry 5")

	// What the log has there may be no entry, or one that only a newer verifier can read.
	for _, leaf := range []string{"free text", strings.Replace(string(l.records[5].Entry), `"v":1}`, `"v":2}`, 2)} {
		lie.records[5].Entry = []byte(leaf)
		lie.rehash()
		lie.export().write(out)
		code, text = hold(honest.file("5.tlog-proof", string(lie.proof(5, 9))))
		check(t, code, text, exitFailed, "CONVICTED")
		honest.want(exitFailed, out, "CONVICTED", "your entry 5")
	}
}

// A client that keeps only hashes of what it sent can hold the log to them.
func TestReceiptWithHashesOfEntries(t *testing.T) {
	l, _ := smallLog()
	h := newHolder(t, l, l.export())
	var text strings.Builder
	for _, r := range l.records[4:7] {
		text.WriteString(log.LeafHash(r.Entry).String() + "\n")
	}
	hold := func(leaves string) (int, string) {
		return runAll("receipt", "-policy", h.policy, "-leaves", h.file("leaves", leaves), h.receipt, h.out)
	}
	code, got := hold(text.String())
	check(t, code, got, exitOK, "promise    PASS")
	code, got = hold(text.String()[45:])
	check(t, code, got, exitFailed, "the 2 entries are not the 3")
	code, got = hold(text.String() + "\n")
	check(t, code, got, exitFailed, "line 4 is no hash")
	code, got = runAll("receipt", "-policy", h.policy, "-leaves", filepath.Join(h.dir, "none"), h.receipt, h.out)
	check(t, code, got, exitIO)
	code, got = runAll("receipt", "-policy", h.policy, "-leaves", filepath.Join(h.dir, "leaves"), "-entry", h.sent, h.receipt, h.out)
	check(t, code, got, exitUsage, "want -entry or -leaves")
	code, got = runAll("receipt", "-policy", h.policy, h.receipt, h.out)
	check(t, code, got, exitUsage, "want -entry or -leaves")
}

// Case (b): witnesses saw a tree without the entries after the promised time.
func TestReceiptConvictsALogThatNeverPublished(t *testing.T) {
	l, _ := smallLog()
	h := newHolder(t, l, l.export())
	h.want(exitFailed, h.file("checkpoint", string(l.checkpoint(6))), "CONVICTED", "promised entry 6", "its tree had size 6")
	h.want(exitNotEstablished, h.file("checkpoint", string(l.checkpoint(7))), "does not show what is in it")

	// Before the promised time, or by no witness's clock, it is no broken promise.
	l.cosign = 1_700_000_060
	h.want(exitNotEstablished, h.file("checkpoint", string(l.checkpoint(6))), "entry 6 is not in it yet")
	l.cosign = 1_800_000_000
	// A quorum has to say so. An old checkpoint of an honest log, with a line
	// taken off it and a late one of a witness that lagged behind, is no proof.
	const early, late = 1_700_000_060, 1_700_000_400
	for _, tc := range []struct {
		at   []uint64
		code int
	}{
		{[]uint64{early, late, 0}, exitNotEstablished},
		{[]uint64{early, early, late}, exitNotEstablished},
		{[]uint64{0, 0, late}, exitNotEstablished},
		{[]uint64{early, late, late}, exitFailed},
		{[]uint64{0, late, late}, exitFailed},
	} {
		l.cosignAt = tc.at
		h.want(tc.code, h.file("checkpoint", string(l.checkpoint(6))))
		f := l.export()
		f["checkpoint"] = l.checkpoint(6)
		code, text := newScene(t, l, "g", f).verify()
		if got := strings.Contains(text, "CONVICTED"); got != (tc.code == exitFailed) {
			t.Errorf("verify with cosignatures at %v: exit %d, convicted %v:\n%s", tc.at, code, got, text)
		}
	}
	l.cosignAt = nil
	h.policy = h.file("policy.txt", l.policy("none"))
	h.want(exitNotEstablished, h.file("checkpoint", string(l.checkpoint(6))), "entry 6 is not in it yet")
}

// In a directory: a receipt for entries that its late checkpoint does not have.
func TestDirectoryWithABrokenPromise(t *testing.T) {
	l, svc := smallLog()
	f := l.export()
	l.send(svc, "x/a", openStream(log.ModeSigned, svc.name, svc.public()))
	f["receipts/000000000009.receipt"] = l.receipts[9]
	newScene(t, l, "g", f).want(exitFailed, "CONVICTED: the log promised entry 9")
	newScene(t, l, "none", f).want(exitOK, "receipt 9: not all of its 1 entries are at hand")

	f = l.export()
	f["receipts/000000000008.receipt"] = l.receipts[9]
	newScene(t, l, "g", f).want(exitFailed, "receipt 8 is of entry 9")
	f["receipts/000000000008.receipt"] = l.receipt(8, []log.Hash{log.LeafHash(l.records[8].Entry), {}, {}, {}})
	newScene(t, l, "none", f).want(exitFailed, "receipt 8 says received") // and its end is not at hand
	f["receipts/000000000008.receipt"] = must(note.Sign(&note.Note{Text: log.Receipt{Origin: l.origin, First: 8, Count: 1, Received: 1, By: 2}.String()}, l.receiptKey))
	newScene(t, l, "g", f).want(exitFailed, "log.open promises 60000")
}

// Each entry came in one request: two receipts for one entry are one too many.
func TestReceiptsOverlap(t *testing.T) {
	l, _ := smallLog()
	f := l.export()
	f["receipts/000000000005.receipt"] = l.receipts[4]
	newScene(t, l, "g", f).want(exitFailed, "receipt 5 is of entry 4")
	l.now -= 2000
	f["receipts/000000000005.receipt"] = l.receipt(5, []log.Hash{log.LeafHash(l.records[5].Entry)})
	newScene(t, l, "g", f).want(exitFailed, "receipt 5 begins within receipt 4")
}

// Without the receipt key in the policy nobody can say whose receipt it is.
func TestReceiptKeyNotInPolicy(t *testing.T) {
	l, _ := smallLog()
	h := newHolder(t, l, l.export())
	h.policy = h.file("policy.txt", strings.Replace(l.policy("g"), "log "+l.receiptVKey+"\n", "", 1))
	h.want(exitNotEstablished, h.out, "the policy lists no receipt key")
	h.scene.want(exitNotEstablished, "the policy lists no receipt key", "Integrity     NOT CHECKED")
}

func TestReceiptNotEstablished(t *testing.T) {
	l, _ := smallLog()
	f := l.export()
	f.remove(5)
	delete(f, "proofs/000000000006.tlog-proof")
	h := newHolder(t, l, f)
	h.want(exitNotEstablished, h.out, "entry 5 is not in", "entry 6 in", "has no good proof")
	h.want(exitNotEstablished, h.file("8.tlog-proof", string(l.proof(8, 9))), "the proof is of entry 8, the receipt of 4 to 6")
	delete(f, "checkpoint")
	h.again(f)
	h.want(exitNotEstablished, h.out, "has no checkpoint")
}

func TestReceiptBadInput(t *testing.T) {
	l, _ := smallLog()
	h := newHolder(t, l, l.export())
	good := h.receipt
	for name, bad := range map[string]string{
		"flipped":              strings.Replace(string(l.receipts[4]), "count 3", "count 2", 1),
		"a checkpoint":         string(l.checkpoint(9)),
		"by the log's own key": string(must(note.Sign(&note.Note{Text: strings.Split(string(l.receipts[4]), "\n\n")[0] + "\n"}, l.key))),
		"empty":                "",
	} {
		h.receipt = h.file("bad.receipt", bad)
		code, text := runAll("receipt", "-policy", h.policy, "-entry", h.sent, h.receipt, h.out)
		if code != exitFailed {
			t.Errorf("%s: exit %d, want %d:\n%s", name, code, exitFailed, text)
		}
	}
	h.receipt = good
	h.want(exitFailed, h.file("x", "nonsense\n"), "malformed note")
	h.want(exitFailed, h.file("x", "c2sp.org/tlog-proof@v1\nindex 5\n"), "malformed tlog-proof")
	h.want(exitFailed, h.file("x", strings.Replace(string(l.proof(5, 9)), "log.example/crm\n9", "log.example/crm\n8", 1)), "signature")
	other := newLog("log.example/b")
	for range 9 {
		other.own("access", "access.summary", []byte("{}"))
	}
	both := h.policy
	h.policy = h.file("both.txt", strings.Replace(l.policy("none"), "log ", "log "+other.vkey+"\nlog ", 1))
	h.want(exitFailed, h.file("x", string(other.checkpoint(9))), "the checkpoint is of log")
	h.policy = both
	h.want(exitIO, filepath.Join(h.dir, "nowhere"), "no such file")

	if err := os.WriteFile(filepath.Join(h.sent, "000000000005.json"), l.records[8].Entry, 0o600); err != nil {
		t.Fatal(err)
	}
	h.want(exitFailed, h.out, "are not the 3 that the receipt is for")
	replayed := strings.Replace(string(l.records[5].Entry), `"log":"log.example/crm"`, `"log":"log.example/b"`, 1)
	for text, want := range map[string]string{"x": "malformed entry", replayed: `made for log "log.example/b"`} {
		if err := os.WriteFile(filepath.Join(h.sent, "000000000005.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h.want(exitFailed, h.out, want)
	}
	later := strings.Replace(string(l.records[5].Entry), `"v":1}`, `"v":2}`, 2)
	if err := os.WriteFile(filepath.Join(h.sent, "000000000005.json"), []byte(later), 0o600); err != nil {
		t.Fatal(err)
	}
	h.want(exitVersion, h.out, "unsupported version")
	if err := os.WriteFile(filepath.Join(h.sent, "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.want(exitUsage, h.out, `"README" is no regular file named INDEX.json`)
}

func TestProof(t *testing.T) {
	l, _ := smallLog()
	s := newScene(t, l, "g", l.export())
	entry := filepath.Join(s.out, "events", "000000000005.json")
	proof := filepath.Join(s.out, "proofs", "000000000005.tlog-proof")
	prove := func(entry, proof string) (int, string) {
		return runAll("proof", "-policy", s.policy, "-entry", entry, proof)
	}
	code, text := prove(entry, proof)
	check(t, code, text, exitOK, "entry 5, event", "migration.extract, seq 2 of crm/data", "by 2023-11-14T22:20:00Z", "signature   NOT CHECKED")

	code, text = prove(filepath.Join(s.out, "events", "000000000006.json"), proof)
	check(t, code, text, exitFailed, "proof does not lead to the root", "they are the evidence")
	code, text = prove(entry, s.file("x", "x"))
	check(t, code, text, exitFailed, "malformed tlog-proof")
	code, text = prove(entry, s.file("x", strings.Replace(string(l.proof(5, 9)), "crm\n9\n", "crm\n8\n", 1)))
	check(t, code, text, exitFailed, "signature")

	// What the log alone has signed is its word; a wrong proof is wrong without witnesses too.
	l.cosignAt = []uint64{0, 0, l.cosign}
	alone := s.file("alone", string(l.proof(5, 9)))
	code, text = prove(entry, alone)
	check(t, code, text, exitNotEstablished, "the log has signed that entry 5 is in it, but quorum of cosignatures is not met")
	code, text = prove(filepath.Join(s.out, "events", "000000000006.json"), alone)
	check(t, code, text, exitFailed, "proof does not lead to the root")
	l.cosignAt = nil

	// What is in the tree, and should not be.
	for i, tc := range []struct {
		leaf, want string
		code       int
	}{
		{"free text", "the log has taken what is no entry", exitFailed},
		{strings.Replace(string(l.records[5].Entry), `"v":1}`, `"v":2}`, 2), "unsupported version", exitVersion},
		{strings.Replace(string(l.records[5].Entry), `"log":"log.example/crm"`, `"log":"log.example/b"`, 1), "replayed", exitFailed},
	} {
		l.add([]byte(tc.leaf), nil)
		index := uint64(9 + i)
		code, text = prove(s.file("entry", tc.leaf), s.file("x", string(l.proof(index, index+1))))
		check(t, code, text, tc.code, tc.want)
	}
	s.policy = s.file("policy.txt", l.policy("none"))
	code, text = prove(entry, proof)
	check(t, code, text, exitOK, "only the log's own clock")
}
