package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// A second is the second verifier, docs/second-verifier: a process that takes
// arguments, and answers with exit code and report.
type second struct {
	ask    *json.Encoder
	answer *json.Decoder
}

const secondMain = `
import io, json, sys
sys.path.insert(0, sys.argv[1])
import verify
for line in sys.stdin:
    out = io.StringIO()
    code = verify.run(json.loads(line), out)
    print(json.dumps({"Code": code, "Text": out.getvalue()}), flush=True)
`

func startSecond(t *testing.T) *second {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatalf("the second verifier needs python3: %v", err)
	}
	cmd := exec.Command(python, "-B", "-c", secondMain, filepath.Join("..", "..", "docs", "second-verifier"))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("second verifier: %v", err)
		}
	})
	return &second{json.NewEncoder(in), json.NewDecoder(out)}
}

// verify runs it in full.
func (s *second) verify(args ...string) (code int, text string, err error) {
	var answer struct {
		Code int
		Text string
	}
	if err := s.ask.Encode(append([]string{"verify"}, args...)); err != nil {
		return 0, "", err
	}
	err = s.answer.Decode(&answer)
	return answer.Code, answer.Text, err
}

// compare wants one exit code of both. The pin does for the first what the
// leaves at hand do for the second: it shows what a consistency proof is worth.
func (s *second) compare(t *testing.T, sc *scene, what string, pin bool) {
	t.Helper()
	var more []string
	if pin {
		more = []string{"-pin", filepath.Join(sc.dir, "pin")}
	}
	code, text := sc.verify(more...)
	other, otherText, err := s.verify("-policy", sc.policy, "-submitters", sc.submitters, sc.out)
	if err != nil {
		t.Fatalf("%s: second verifier: %v", what, err)
	}
	if code != other {
		t.Errorf("%s: exit %d, the second verifier says %d:\n%s\nsecond verifier:\n%s", what, code, other, text, otherText)
	}
}

// A mutant is a directory with some files changed; nil is one that is gone.
type mutant struct {
	what    string
	changes files
}

// mutants are some hundreds, and the same in every run.
func mutants(f files) []mutant {
	random := rand.New(rand.NewPCG(1, 2))
	all := []mutant{{"as it is", nil}}
	paths := f.paths()
	for i, path := range paths {
		text := f[path]
		change := func(what string, changed []byte) {
			all = append(all, mutant{path + " " + what, files{path: changed}})
		}
		change("is gone", nil)
		change("is empty", []byte{})
		change("is cut", text[:random.IntN(len(text))])
		change("has one more line", append(slices.Clone(text), '\n'))
		change("is there twice over", append(slices.Clone(text), text...))
		for range 3 {
			flipped := slices.Clone(text)
			at := random.IntN(len(text))
			flipped[at] ^= 1 << random.IntN(8)
			change(fmt.Sprintf("has byte %d changed", at), flipped)
		}
		next := paths[(i+1)%len(paths)]
		if filepath.Ext(path) == filepath.Ext(next) {
			all = append(all, mutant{"swapped " + path + " and " + next, files{path: f[next], next: text}})
		}
		if index, ok := strings.CutPrefix(path, "events/"); ok {
			number := must(log.ParseExportName("events", index)).Number
			gone := files{}
			for _, kind := range []log.ExportKind{log.ExportEvent, log.ExportProof, log.ExportPayload, log.ExportSalt} {
				if p := (log.ExportFile{Kind: kind, Number: number}).Path(); f[p] != nil {
					gone[p] = nil
				}
			}
			all = append(all, mutant{"entry of " + path + " is gone", gone})
		}
	}
	lines := strings.SplitAfter(string(f["checkpoint"]), "\n")
	return append(all,
		mutant{"two lines by a witness", files{"checkpoint": append(slices.Clone(f["checkpoint"]), lines[len(lines)-2]...)}},
		mutant{"a file that does not belong", files{"events/README": []byte("x")}},
		mutant{"no number", files{"proofs/9007199254740992.tlog-proof": []byte("x")}})
}

// apply writes the mutant over f; with undo it writes f again.
func (m mutant) apply(s *scene, f files, undo bool) error {
	for path, text := range m.changes {
		name := filepath.Join(s.out, filepath.FromSlash(path))
		if undo {
			text = f[path]
		}
		err := os.WriteFile(name, text, 0o600)
		if text == nil {
			err = os.Remove(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Two verifiers that were made apart from one text say the same of every
// directory. Where they do not, one of them or the text is wrong.
func TestSecondVerifierAgreesOnMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("the second verifier checks signatures in plain Python")
	}
	l, f, pin := mutantLog()
	l.cosignAt = []uint64{l.cosign, 0, l.cosign + 1}
	work := make(chan mutant)
	var wg sync.WaitGroup
	for range 2 {
		s, sc := startSecond(t), newScene(t, l, "g", f)
		wg.Go(func() {
			for m := range work {
				sc.file("pin", pin)
				if err := m.apply(sc, f, false); err != nil {
					t.Error(err)
				}
				_, proof := m.changes["consistency/5.proof"]
				s.compare(t, sc, m.what, proof && m.changes["consistency/5.proof"] != nil)
				if err := m.apply(sc, f, true); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all := mutants(f)
	for _, m := range all {
		work <- m
	}
	close(work)
	wg.Wait()
	t.Logf("%d mutants", len(all))
}

// The same of whole logs and operators that cheat.
func TestSecondVerifierAgreesOnStories(t *testing.T) {
	if testing.Short() {
		t.Skip("the second verifier checks signatures in plain Python")
	}
	s := startSecond(t)
	for _, story := range slices.Concat(omissions(), forgeries(), malformed(), oddities()) {
		l, f := story.make()
		s.compare(t, newScene(t, l, "g", f), story.name, false)
	}
}

// rotated is a log in which a key that the auditor does not list, entry 9, takes
// over from one that they do, entry 1; and one of the two is not shown.
func rotated(gone uint64) func() (*fakeLog, files) {
	return func() (*fakeLog, files) {
		l, svc := smallLog()
		next := &submitter{svc.name, newKey()}
		proof := log.Sign(next.key, log.PossessionText(l.origin, svc.name, next.public())).Sig
		previous := log.Sign(svc.key, log.SuccessionText(l.origin, svc.name, next.public()))
		l.own("keys", "key.registered", log.KeyRegistered{Key: next.public(), Previous: &previous, Principal: svc.name, Proof: &proof}.Marshal())
		l.send(next, "x/a", openStream(log.ModeSigned, svc.name, next.public()))
		f := l.export()
		f.remove(gone)
		return l, f
	}
}

// oddities are logs that are intact, or not to be trusted on sight, or new.
func oddities() []badStory {
	after := func(do func(l *fakeLog, svc *submitter)) func() (*fakeLog, files) {
		return func() (*fakeLog, files) {
			l, svc := smallLog()
			do(l, svc)
			return l, l.export()
		}
	}
	return []badStory{
		{"small log", after(func(*fakeLog, *submitter) {}), nil},
		{"no quorum", after(func(l *fakeLog, _ *submitter) { l.cosignAt = []uint64{0, l.cosign, 0} }), nil},
		{"no quorum, and an entry gone", taken(func(l *fakeLog, f files) {
			l.cosignAt = []uint64{0, l.cosign, 0}
			f.remove(5)
		}), nil},
		{"cosigned before it was received", after(func(l *fakeLog, _ *submitter) { l.cosign = l.now/1000 - 301 }), nil},
		{"cosigned in the far future", after(func(l *fakeLog, _ *submitter) { l.cosign = 1 << 53 }), nil},
		{"another log", func() (*fakeLog, files) { l, _ := smallLog(); return newLog(l.origin), l.export() }, nil},
		{"customers' kinds", after(func(l *fakeLog, svc *submitter) {
			l.send(svc, "x/a", openStream(log.ModeSigned, svc.name, svc.public()), draft{kind: "x.note"})
		}), nil},
		{"event replaced by a refusal", func() (*fakeLog, files) { l := replaced(); return l, l.export() }, nil},
		{"registration of a brought key gone, its successor signs", rotated(1), nil},
		{"registration of a successor gone, and it signs", rotated(9), nil},
		{"control entry gone", taken(func(_ *fakeLog, f files) { f.remove(1) }), nil},
		{"log.open gone, with its receipt", taken(func(_ *fakeLog, f files) { f.remove(0) }), nil},
		{"key revoked", after(func(l *fakeLog, svc *submitter) {
			l.own("keys", "key.revoked", log.KeyRevoked{Key: svc.public().ID()}.Marshal())
		}), nil},
		{"revoked key used", ended(func(l *fakeLog, svc *submitter) {
			l.own("keys", "key.revoked", log.KeyRevoked{Key: svc.public().ID()}.Marshal())
		}), nil},
		{"payload withheld", after(func(l *fakeLog, svc *submitter) {
			l.send(svc, "x/a", openStream(log.ModeSigned, svc.name, svc.public()), draft{kind: "x.note", payload: []byte("{}"), withheld: true})
		}), nil},
		{"entry of a later version", after(func(l *fakeLog, _ *submitter) {
			l.add([]byte(strings.Replace(string(l.records[8].Entry), `"v":1}`, `"v":2}`, 1)), nil)
		}), nil},
		{"last event of a stream of a later version", after(func(l *fakeLog, _ *submitter) {
			l.records[7].Entry = []byte(strings.Replace(string(l.records[7].Entry), `"v":1}`, `"v":2}`, 1))
			l.rehash()
		}), nil},
		{"false tail beside a later version", after(func(l *fakeLog, _ *submitter) {
			e := must(log.ParseEntry(l.records[6].Entry))
			e.Sig.Sig[0] ^= 1
			later := strings.Replace(string(l.records[8].Entry), `"v":1}`, `"v":2}`, 1)
			l.records[6].Entry = e.Marshal()
			l.rehash()
			l.add([]byte(later), nil)
		}), nil},
		{"made for another log, beside a later version", after(func(l *fakeLog, _ *submitter) {
			e := must(log.ParseEntry(l.records[5].Entry))
			e.Event.Log = "log.example/other"
			later := strings.Replace(string(l.records[8].Entry), `"v":1}`, `"v":2}`, 1)
			l.records[5].Entry = e.Marshal()
			l.rehash()
			l.add([]byte(later), nil)
		}), nil},
		{"malformed refusal", after(func(l *fakeLog, _ *submitter) { l.own("refusals", "log.refused", []byte("{}")) }), nil},
		{"malformed token", after(func(l *fakeLog, _ *submitter) { l.own("access", "access.token.created", []byte("{}")) }), nil},
		{"key entry of a later version", after(func(l *fakeLog, _ *submitter) {
			l.records[1].Entry = []byte(strings.Replace(string(l.records[1].Entry), `"v":1}`, `"v":2}`, 1))
			l.rehash()
		}), nil},
		{"later version beside a receipt for another entry", func() (*fakeLog, files) {
			l, _ := smallLog()
			l.add([]byte(strings.Replace(string(l.records[8].Entry), `"v":1}`, `"v":2}`, 1)), nil)
			f := l.export()
			f["receipts/000000000008.receipt"] = l.receipt(8, []log.Hash{{1}})
			return l, f
		}, nil},
		{"later version without proof", func() (*fakeLog, files) {
			l, _ := smallLog()
			l.add([]byte(strings.Replace(string(l.records[8].Entry), `"v":1}`, `"v":2}`, 1)), nil)
			f := l.export()
			delete(f, "proofs/000000000009.tlog-proof")
			return l, f
		}, nil},
		{"leaf that is no entry", after(func(l *fakeLog, _ *submitter) { l.add([]byte("free text"), nil) }), nil},
		{"proof to a newer tree", func() (*fakeLog, files) {
			l, svc := smallLog()
			f := l.export()
			l.migrate(svc, "erp")
			f["consistency/9.proof"] = l.consistency(9, 16)
			return l, f
		}, nil},
		{"broken promise", func() (*fakeLog, files) {
			l, svc := smallLog()
			f := l.export()
			l.send(svc, "x/a", openStream(log.ModeSigned, svc.name, svc.public()))
			f["receipts/000000000009.receipt"] = l.receipts[9]
			return l, f
		}, nil},
		{"receipts overlap", taken(func(l *fakeLog, f files) {
			l.now -= 2000
			f["receipts/000000000005.receipt"] = l.receipt(5, []log.Hash{log.LeafHash(l.records[5].Entry)})
		}), nil},
		{"receipt without its end", taken(func(_ *fakeLog, f files) { f.remove(6) }), nil},
		{"event too long", taken(func(_ *fakeLog, f files) { f["events/000000000005.json"] = make([]byte, log.EntryMaxBytes+1) }), nil},
		{"checkpoint too long", taken(func(_ *fakeLog, f files) { f["checkpoint"] = make([]byte, log.NoteMaxBytes+1) }), nil},
	}
}
