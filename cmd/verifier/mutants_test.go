package main

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// mutantLog has every kind of file: with a pin of size 5, the consistency proof is checked too.
func mutantLog() (*fakeLog, files, string) {
	l := newLog("l.example")
	svc := l.register("s")
	l.migrateOpen(svc, "m")
	pin := string(l.checkpoint(5))
	l.migrateClose(svc, "m")
	f := l.export()
	f["consistency/5.proof"] = l.consistency(5, uint64(len(l.records)))
	return l, f, pin
}

// verifyMutant runs verify on a changed directory: whatever was changed, it was
// tampered with.
func verifyMutant(t *testing.T, s *scene, what string) {
	t.Helper()
	if code, text := s.verify("-pin", filepath.Join(s.dir, "pin")); code != exitFailed {
		t.Errorf("%s: exit %d, want %d:\n%s", what, code, exitFailed, text)
	}
}

// No bit of any file may be anything else. One bit of each byte is tried here,
// every bit in the nightly run.
func TestEveryByteMatters(t *testing.T) { flipAll(t, false) }

func TestEveryBitMattersNightly(t *testing.T) {
	if testing.Short() {
		t.Skip("every bit of every file takes minutes")
	}
	flipAll(t, true)
}

func flipAll(t *testing.T, everyBit bool) {
	t.Helper()
	l, f, pin := mutantLog()
	seed := rand.Uint64()
	t.Logf("bits are drawn with seed %d", seed)
	var wg sync.WaitGroup
	work := make(chan string)
	for range runtime.GOMAXPROCS(0) {
		s := newScene(t, l, "g", f)
		s.file("pin", pin)
		wg.Go(func() {
			for path := range work {
				flip(t, s, path, f[path], everyBit, rand.New(rand.NewPCG(seed, uint64(crc32.ChecksumIEEE([]byte(path))))))
			}
		})
	}
	for _, path := range f.paths() {
		work <- path
	}
	close(work)
	wg.Wait()
}

func flip(t *testing.T, s *scene, path string, text []byte, everyBit bool, draw *rand.Rand) {
	name := filepath.Join(s.out, filepath.FromSlash(path))
	for i := range text {
		bits := []int{draw.IntN(8)}
		if everyBit {
			bits = []int{0, 1, 2, 3, 4, 5, 6, 7}
		}
		for _, bit := range bits {
			changed := slices.Clone(text)
			changed[i] ^= 1 << bit
			if err := os.WriteFile(name, changed, 0o600); err != nil {
				t.Error(err)
				return
			}
			verifyMutant(t, s, fmt.Sprintf("%s, byte %d, bit %d", path, i, bit))
		}
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Error(err)
	}
}

// mutate runs verify on a copy of the files changed by do.
func mutate(t *testing.T, do func(f files)) (int, string) {
	t.Helper()
	l, f, pin := mutantLog()
	do(f)
	s := newScene(t, l, "g", f)
	s.file("pin", pin)
	return s.verify("-pin", filepath.Join(s.dir, "pin"))
}

// Every file that is dropped is missed, but for those that may be withheld,
// whose absence the report states.
func TestEveryFileIsMissed(t *testing.T) {
	_, f, _ := mutantLog()
	for _, path := range f.paths() {
		code, text := mutate(t, func(f files) { delete(f, path) })
		want := exitFailed
		switch {
		case strings.HasPrefix(path, "receipts/"):
			want = exitOK
		case strings.HasPrefix(path, "consistency/"):
			want = exitNotEstablished
		}
		check(t, code, text, want)
		if t.Failed() {
			t.Fatalf("without %s", path)
		}
	}
}

// Files cut short at every place, empty ones included, and with more at the end.
func TestCutAndLongFiles(t *testing.T) {
	l, f, pin := mutantLog()
	s := newScene(t, l, "g", f)
	s.file("pin", pin)
	for path, text := range f {
		name := filepath.Join(s.out, filepath.FromSlash(path))
		for _, changed := range [][]byte{nil, text[:len(text)/2], text[:len(text)-1], append(slices.Clone(text), '\n'), append(slices.Clone(text), text...)} {
			if err := os.WriteFile(name, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			verifyMutant(t, s, fmt.Sprintf("%s with %d bytes", path, len(changed)))
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// No two files of a folder can change places.
func TestSwappedFiles(t *testing.T) {
	l, f, pin := mutantLog()
	s := newScene(t, l, "g", f)
	s.file("pin", pin)
	paths := f.paths()
	for i, a := range paths {
		for _, b := range paths[i+1:] {
			if filepath.Dir(a) != filepath.Dir(b) || filepath.Ext(a) != filepath.Ext(b) || string(f[a]) == string(f[b]) {
				continue
			}
			files{a: f[b], b: f[a]}.write(s.out)
			verifyMutant(t, s, "swapped "+a+" and "+b)
			files{a: f[a], b: f[b]}.write(s.out)
		}
	}
	code, text := s.verify("-pin", filepath.Join(s.dir, "pin"))
	check(t, code, text, exitOK)
}

// A directory of one log under the checkpoint of another with the same name:
// the operator's second tree.
func TestMixedTrees(t *testing.T) {
	l, f, _ := mutantLog()
	l2 := l.forked()
	l2.migrate(l2.register("s"), "m")
	f["checkpoint"] = l2.checkpoint(uint64(len(l2.records)))
	newScene(t, l, "g", f).want(exitFailed, "under another checkpoint than the directory's", "and ")
	for path := range f {
		if strings.HasPrefix(path, "proofs/") {
			p := must(log.ParseInclusionProof(f[path]))
			p.Checkpoint = f["checkpoint"]
			f[path] = p.Marshal()
		}
	}
	newScene(t, l, "g", f).want(exitFailed, "proof does not lead to the root")
}
