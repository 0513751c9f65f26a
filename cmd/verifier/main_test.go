package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

func TestUsage(t *testing.T) {
	l, _ := smallLog()
	s := newScene(t, l, "g", l.export())
	nowhere := filepath.Join(s.dir, "nowhere")
	bad := s.file("bad", "nonsense\n")
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "usage: verifier COMMAND"},
		{[]string{"frobnicate"}, exitUsage, `unknown command "frobnicate"`},
		{[]string{"--help"}, exitOK, "Exit codes:"},
		{[]string{"help"}, exitOK, "usage: verifier COMMAND"},
		{[]string{"help", "verify"}, exitOK, "Examples:"},
		{[]string{"help", "nothing"}, exitUsage, `no command "nothing"`},
		{[]string{"verify", "--help"}, exitOK, "-submitters FILE"},
		{[]string{"receipt", "-h"}, exitOK, "CONVICTED"},
		{[]string{"verify"}, exitUsage, "0 arguments after the flags, want 1"},
		{[]string{"verify", "-frob", "x"}, exitUsage, "not defined"},
		{[]string{"verify", "-policy", nowhere, s.out}, exitIO, "no such file"},
		{[]string{"verify", "-policy", bad, s.out}, exitUsage, "unknown keyword"},
		{[]string{"verify", "-policy", s.dir, s.out}, exitIO, "read "},
		{[]string{"verify", "-submitters", nowhere, s.out}, exitIO, "no such file"},
		{[]string{"verify", "-submitters", bad, s.out}, exitUsage, "line 1"},
		{[]string{"verify", s.policy}, exitIO, "hint:"},
		{[]string{"proof", "-policy", s.policy, bad}, exitUsage, "no -entry"},
		{[]string{"proof", "-entry", bad, bad}, exitUsage, "no -policy"},
		{[]string{"proof", "-policy", s.policy, "-entry", nowhere, bad}, exitIO, "no such file"},
		{[]string{"proof", "-policy", s.policy, "-entry", bad, nowhere}, exitIO, "no such file"},
		{[]string{"proof", bad, bad}, exitUsage, "want 1"},
		{[]string{"receipt", "-policy", s.policy, bad, bad}, exitUsage, "want -entry or -leaves"},
		{[]string{"receipt", "-entry", bad, bad, bad}, exitUsage, "no -policy"},
		{[]string{"receipt", bad}, exitUsage, "want 2"},
		{[]string{"receipt", "-policy", s.policy, "-entry", bad, nowhere, bad}, exitIO, "no such file"},
		{[]string{"receipt", "-policy", s.policy, "-entry", nowhere, filepath.Join(s.out, "receipts/000000000004.receipt"), bad}, exitIO, "no such file"},
		{[]string{"receipt", "-policy", s.policy, "-entry", filepath.Join(s.out, "events/000000000000.json"), "-logged", nowhere, filepath.Join(s.out, "receipts/000000000000.receipt"), bad}, exitIO, "no such file"},
		{[]string{"explain"}, exitOK, "complete.migration"},
		{[]string{"explain", "integrity.pin"}, exitOK, "second history"},
		{[]string{"explain", "nothing"}, exitUsage, "no check"},
		{[]string{"explain", "-x"}, exitUsage, "unknown flag"},
		{[]string{"explain", "a", "b"}, exitUsage, "at most one"},
	} {
		code, text := runAll(tc.args...)
		if code != tc.code || !strings.Contains(text, tc.want) {
			t.Errorf("verifier %q: exit %d, want %d and %q:\n%s", tc.args, code, tc.code, tc.want, text)
		}
		if code != exitOK && tc.args != nil && !strings.Contains(text, "hint:") {
			t.Errorf("verifier %q: no hint:\n%s", tc.args, text)
		}
	}
}

// Every check that a report can have is explained, and has a level.
func TestEveryCheckIsExplained(t *testing.T) {
	var known []string
	for _, d := range checkDocs() {
		known = append(known, d.id)
	}
	if !slices.IsSorted(known) {
		t.Error("checks are not sorted")
	}
	for _, dir := range []string{".", "../../log"} {
		for _, name := range must(filepath.Glob(filepath.Join(dir, "*.go"))) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			for _, part := range strings.Split(string(must(os.ReadFile(name))), `("`)[1:] {
				id, _, _ := strings.Cut(part, `"`)
				for _, l := range levels(nil) {
					if rest, ok := strings.CutPrefix(id, l.prefix); ok && rest != "" && !slices.Contains(known, id) {
						t.Errorf("%s: check %q is not explained", name, id)
					}
				}
			}
		}
	}
}

// The report in JSON is canonical, and the same for two who saw the same.
func TestJSONReport(t *testing.T) {
	l, _ := smallLog()
	s := newScene(t, l, "g", l.export())
	code, text := s.verify("-json")
	if code != exitOK {
		t.Fatalf("exit %d:\n%s", code, text)
	}
	canonical, err := log.Canonical([]byte(text))
	if err != nil || string(canonical)+"\n" != text {
		t.Errorf("report is not canonical: %v\n%s", err, text)
	}
	if _, again := s.verify("-json"); again != text {
		t.Errorf("second report differs:\n%s\n%s", text, again)
	}
	var r report
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	if r.V != 1 || r.Exit != 0 || r.Checkpoint.Size != 9 || len(r.Witnesses) != 3 || r.Levels["integrity"] != "PASS" || r.Levels["semantics"] != "NOT CHECKED" {
		t.Errorf("report = %+v", r)
	}
	f := l.export()
	f.remove(8)
	code, text = newScene(t, l, "g", f).verify("-json")
	check(t, code, text, exitFailed, `"id":"complete.migration","reasons":["INCOMPLETE`, `"completeness":"FAIL"`)
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// A report that could not be written was not given.
func TestReportCannotBeWritten(t *testing.T) {
	l, _ := smallLog()
	s := newScene(t, l, "g", l.export())
	for _, more := range [][]string{nil, {"-json"}} {
		var stderr strings.Builder
		args := append([]string{"verify", "-policy", s.policy}, more...)
		if code := run(append(args, s.out), brokenWriter{}, &stderr); code != exitIO {
			t.Errorf("verify into a full disk: exit %d, want %d", code, exitIO)
		}
	}
}

// A bug is said to be one, in every goroutine, and never exits 0.
func TestBug(t *testing.T) {
	var stderr strings.Builder
	code := run([]string{"help"}, panicWriter{}, &stderr)
	if code != exitBug || !strings.Contains(stderr.String(), "this is a bug") {
		t.Errorf("panic: exit %d, %q", code, stderr.String())
	}
	l := &loader{} // without a directory it cannot work
	err := l.loadAll([]uint64{1, 2, 3}, func(*loaded) error { return nil })
	var coded *codedError
	if !errors.As(err, &coded) || coded.code != exitBug {
		t.Errorf("panic in a worker = %v, want code %d", err, exitBug)
	}
}

type panicWriter struct{}

func (panicWriter) Write([]byte) (int, error) { panic("planted") }

// A long run says how far it is, but not on every entry.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, 1000)
	for range 1000 {
		p.step()
	}
	if out.Len() > 0 {
		t.Errorf("a short run printed %q", out.String())
	}
	p.said = p.said.Add(-time.Hour)
	for range 1000 {
		p.step()
	}
	if got, want := out.String(), "verified 1024 of 1000 entries\n"; got != want {
		t.Errorf("progress = %q, want %q", got, want)
	}
}

// An error in the middle ends the loading: no goroutine is left behind.
func TestLoadAllStops(t *testing.T) {
	l, _ := smallLog()
	s := newScene(t, l, "g", l.export())
	d := must(openDirectory(s.out, log.NewFindings()))
	defer d.close()
	ld := newLoader(d, l.checkpoint(9), log.Head{})
	indexes := slices.Repeat([]uint64{5}, 1000)
	if err := ld.loadAll(indexes, func(*loaded) error { return io.ErrUnexpectedEOF }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("loadAll = %v, want %v", err, io.ErrUnexpectedEOF)
	}
}
