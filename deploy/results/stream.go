package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	lineMaxBytes     = 16 << 20   // one event of go test -json
	longreprMaxBytes = 64 << 10   // output kept of one test
	notRunMark       = "NOT RUN:" // begins what a test says it could not run
)

// An event is a line of go test -json (see "go doc test2json" and, for builds, "go help buildjson").
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// A testKey names a test; an empty test is the package itself.
type testKey struct{ pkg, test string }

// A result is what the stream says of one test so far.
type result struct {
	outcome  string // empty while it runs
	duration float64
	output   strings.Builder
}

// A stream is runs of go test, one a module, as their events tell it.
type stream struct {
	results map[testKey]*result
	builds  map[string]*strings.Builder // output of builds by import path
	failed  map[string]string           // packages that failed, with the build that did
	notRun  []string
	out     io.Writer // progress, for people
}

func newStream(out io.Writer) *stream {
	return &stream{
		results: map[testKey]*result{},
		builds:  map[string]*strings.Builder{},
		failed:  map[string]string{},
		out:     out,
	}
}

// read reads events until the end. A line that is none of them is an error: it
// would be a test that nobody counted.
func (s *stream) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, lineMaxBytes)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("read go test -json line %q: %w", lines.Text(), err)
		}
		s.apply(e)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read go test -json: %w", err)
	}
	return nil
}

func (s *stream) apply(e event) {
	key := testKey{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		b := s.builds[e.ImportPath]
		if b == nil {
			b = new(strings.Builder)
			s.builds[e.ImportPath] = b
		}
		keep(b, e.Output)
	case "run":
		s.result(key)
	case "output":
		keep(&s.result(key).output, e.Output)
		if _, what, ok := strings.Cut(e.Output, notRunMark); ok {
			s.notRun = append(s.notRun, strings.TrimSpace(e.Package+" "+e.Test+": "+strings.TrimSpace(what)))
		}
	case "pass", "fail", "skip":
		s.finish(key, e)
	}
}

func (s *stream) result(key testKey) *result {
	r := s.results[key]
	if r == nil {
		r = new(result)
		s.results[key] = r
	}
	return r
}

func (s *stream) finish(key testKey, e event) {
	r := s.result(key)
	r.duration = e.Elapsed
	r.outcome = map[string]string{"pass": passed, "fail": failed, "skip": skipped}[e.Action]
	if r.outcome == passed {
		r.output.Reset()
	}
	if key.test != "" {
		if r.outcome == failed {
			show(s.out, "FAIL  %s %s\n%s", key.pkg, key.test, r.output.String())
		}
		return
	}
	if r.outcome == failed {
		s.failed[key.pkg] = e.FailedBuild
		if b := s.builds[e.FailedBuild]; b != nil {
			keep(&r.output, b.String())
		}
		show(s.out, "FAIL  %s\n%s", key.pkg, r.output.String())
		return
	}
	if r.outcome == passed {
		show(s.out, "ok    %s %.1f s\n", key.pkg, e.Elapsed)
	}
}

// tests returns the results in the order of their names. A test without an
// end failed: the process died under it. A package whose failure no test
// accounts for (it did not build, TestMain or exit failed it) gets an item of
// its own, so that it cannot be missed.
func (s *stream) tests(where locator) []test {
	var tests []test
	accounted := map[string]bool{}
	for key, r := range s.results {
		if key.test == "" {
			continue
		}
		t := where.locate(key)
		t.Outcome = r.outcome
		t.Setup, t.Teardown = stage{Outcome: passed}, stage{Outcome: passed}
		if r.outcome == "" {
			keep(&r.output, "the test did not end: its process did\n")
			t.Outcome = failed
		}
		t.Call = stage{Duration: r.duration, Outcome: t.Outcome}
		if t.Outcome != passed {
			t.Call.Longrepr = r.output.String()
		}
		accounted[key.pkg] = accounted[key.pkg] || t.Outcome == failed
		tests = append(tests, t)
	}
	for pkg := range s.failed {
		if accounted[pkg] {
			continue
		}
		r := s.results[testKey{pkg, ""}]
		tests = append(tests, test{
			NodeID:  where.folder(pkg) + "::package",
			Outcome: failed,
			Setup:   stage{Outcome: passed}, Teardown: stage{Outcome: passed},
			Call: stage{Duration: r.duration, Outcome: failed, Longrepr: r.output.String()},
		})
	}
	slices.SortFunc(tests, func(a, b test) int { return cmp.Compare(a.NodeID, b.NodeID) })
	return tests
}

// keep adds to b what its limit allows.
func keep(b *strings.Builder, text string) {
	if room := longreprMaxBytes - b.Len(); len(text) > room {
		text = text[:max(room, 0)]
	}
	b.WriteString(text)
}
