package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const sampleModule = "example.org/sample"

// sampleTests is where the recorded runs' tests were; the files themselves were not kept.
var sampleTests = locator{modules: []module{{sampleModule, "."}}, places: map[testKey]place{
	{sampleModule + "/good", "TestDouble"}:      {"good/good_test.go", 8},
	{sampleModule + "/good", "TestLater"}:       {"good/good_test.go", 18},
	{sampleModule + "/good", "FuzzDouble"}:      {"good/good_test.go", 23},
	{sampleModule + "/good", "ExampleDouble"}:   {"good/good_test.go", 28},
	{sampleModule + "/failing", "TestTable"}:    {"failing/failing_test.go", 5},
	{sampleModule + "/panics", "TestPanics"}:    {"panics/panics_test.go", 10},
	{sampleModule + "/slow", "TestSlow"}:        {"slow/slow_test.go", 5},
	{sampleModule + "/broken", "TestBroken"}:    {"broken/broken_test.go", 5},
	{sampleModule + "/good", "TestLongNightly"}: {"good/good_test.go", 33},
}}

// recorded reads a recorded stream and returns its results by nodeid.
func recorded(t *testing.T, file string, exit int) (report, map[string]test) {
	t.Helper()
	in, err := os.Open(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	s := newStream(io.Discard)
	if err := errors.Join(s.read(in), in.Close()); err != nil {
		t.Fatal(err)
	}
	r := newReport(s, sampleTests, exit)
	byID := map[string]test{}
	for _, item := range r.Tests {
		if _, ok := byID[item.NodeID]; ok {
			t.Errorf("%s: two items with nodeid %s", file, item.NodeID)
		}
		byID[item.NodeID] = item
	}
	return r, byID
}

func TestRecordedRun(t *testing.T) {
	r, byID := recorded(t, "good.json", 0)
	if want := (summary{Passed: 6, Skipped: 1, Total: 7, Collected: 7}); r.Summary != want {
		t.Errorf("summary = %+v, want %+v", r.Summary, want)
	}
	want := []string{
		"good/good_test.go::ExampleDouble", "good/good_test.go::FuzzDouble", "good/good_test.go::FuzzDouble/seed#0",
		"good/good_test.go::TestDouble", "good/good_test.go::TestDouble/n=0", "good/good_test.go::TestDouble/n=2",
		"good/good_test.go::TestLater",
	}
	if got := slices.Sorted(maps.Keys(byID)); !slices.Equal(got, want) {
		t.Errorf("nodeids = %q, want %q", got, want)
	}
	later := byID["good/good_test.go::TestLater"]
	if later.Outcome != skipped || !strings.Contains(later.Call.Longrepr, "no clock") || *later.Lineno != 17 {
		t.Errorf("skipped test = %+v, want skipped with its reason at line 17", later)
	}
	if want := []string{sampleModule + "/good TestLater: there is no clock here"}; !slices.Equal(r.NotRun, want) {
		t.Errorf("not run = %q, want %q", r.NotRun, want)
	}
}

func TestRecordedFailures(t *testing.T) {
	r, byID := recorded(t, "bad.json", 1)
	for _, tc := range []struct{ nodeid, says string }{
		{"broken::package", "undefined: undefined"},
		{"exits::package", "FAIL\texample.org/sample/exits"},
		{"failing/failing_test.go::TestTable", "--- FAIL: TestTable"},
		{"failing/failing_test.go::TestTable/bad", "Double(3) = 7, want 6"},
		{"panics/panics_test.go::TestPanics", "assignment to entry in nil map"},
		{"panics::TestWaits", "did not end"}, // its file is not known here, and it is counted all the same
		{"slow/slow_test.go::TestSlow", "test timed out after 2s"},
		{"good/good_test.go::TestLongNightly", "must not run"},
	} {
		got, ok := byID[tc.nodeid]
		if !ok || got.Outcome != failed || got.Call.Outcome != failed || !strings.Contains(got.Call.Longrepr, tc.says) {
			t.Errorf("%s = %+v, %v, want failed with %q", tc.nodeid, got, ok, tc.says)
		}
	}
	if r.Summary.Failed != 8 || r.ExitCode != 1 {
		t.Errorf("summary = %+v, exit code %d, want 8 failed, 1", r.Summary, r.ExitCode)
	}
	for _, nodeid := range []string{"failing/failing_test.go::TestTable/good", "exits::TestFine", "panics::TestNever"} {
		if got := byID[nodeid]; got.Outcome != passed || got.Call.Longrepr != "" {
			t.Errorf("%s = %+v, want passed without output", nodeid, got)
		}
	}
}

func TestStreamThatIsNone(t *testing.T) {
	for _, in := range []string{"ok  \tpkg\t0.1s\n", `{"Action":"pass"`, "[]"} {
		if err := newStream(io.Discard).read(strings.NewReader(in)); err == nil {
			t.Errorf("read(%q) = nil, want an error", in)
		}
	}
}

func TestLongOutputIsBounded(t *testing.T) {
	line, err := json.Marshal(event{Action: "output", Package: "p", Test: "T", Output: strings.Repeat("x", 100_000)})
	if err != nil {
		t.Fatal(err)
	}
	s := newStream(io.Discard)
	if err := s.read(bytes.NewReader(bytes.Repeat(append(line, '\n'), 3))); err != nil {
		t.Fatal(err)
	}
	if got := s.results[testKey{"p", "T"}].output.Len(); got != longreprMaxBytes {
		t.Errorf("kept %d bytes, want %d", got, longreprMaxBytes)
	}
}

// TestSchema compares the fields of a file with those of pytest-json-report's README.
func TestSchema(t *testing.T) {
	r, _ := recorded(t, "bad.json", 1)
	data, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"created", "duration", "exitcode", "root", "environment", "summary", "tests"} {
		if _, ok := file[key]; !ok {
			t.Errorf("no %q", key)
		}
	}
	tests := file["tests"].([]any)
	if len(tests) != r.Summary.Total {
		t.Fatalf("%d tests, want %d", len(tests), r.Summary.Total)
	}
	for _, item := range tests {
		item := item.(map[string]any)
		for _, part := range []string{"setup", "call", "teardown"} {
			p, ok := item[part].(map[string]any)
			if _, hasDuration := p["duration"].(float64); !ok || !hasDuration || p["outcome"] == "" {
				t.Errorf("%s: %s = %v", item["nodeid"], part, item[part])
			}
		}
	}
	file2 := filepath.Join(t.TempDir(), "r.json")
	write(t, file2, string(data))
	again, err := readReport(file2)
	if err != nil {
		t.Fatal(err)
	}
	if data2, err := again.encode(); err != nil || !bytes.Equal(data, data2) {
		t.Errorf("encode(readReport(x)) differs from x, %v", err)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// repository makes a module with one passing test, and one inside it with
// another, committed to a repository of its own.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module example.org/m\n\ngo 1.26.0\n")
	write(t, filepath.Join(dir, "a/a.go"), "package a\n\nfunc One() int { return 1 }\n\nfunc Two() int { return 2 }\n")
	write(t, filepath.Join(dir, "a/a_test.go"), testOne)
	write(t, filepath.Join(dir, "examples/x/go.mod"), "module example.net/x\n\ngo 1.26.0\n")
	write(t, filepath.Join(dir, "examples/x/b/b_test.go"), strings.ReplaceAll(testOne, "One() != 1", "false"))
	write(t, filepath.Join(dir, ".gitignore"), "/c.out\n")
	runGit(t, dir, "init", "-q")
	commitAll(t, dir)
	return dir
}

const testOne = "package a\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) {\n\tif One() != 1 {\n\t\tt.Error(\"no\")\n\t}\n}\n"

func commitAll(t *testing.T, dir string) {
	t.Helper()
	runGit(t, dir, "add", "-A")
	runGit(t, dir, "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false", "commit", "-q", "--no-verify", "-m", "m")
}

func runGit(t *testing.T, dir string, args ...string) {
	t.Helper()
	if out, err := exec.Command("git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

// TestRealRun follows a file through its life: made on a clean tree it is
// accepted; then the tree changes and each change is found.
func TestRealRun(t *testing.T) {
	dir := repository(t)
	file := filepath.Join(dir, "pytest_results.json")
	tests := func() error {
		return run(t.Context(), t.Output(), []string{
			"test", "-root", dir, "-out", file, "-profile", filepath.Join(dir, "c.out"), "--",
			"go", "test", "-json", "-count=1", "./...",
		})
	}
	check := func() error {
		return run(t.Context(), t.Output(), []string{"check", "-root", dir, "-file", file, "--", "go", "test", "-json", "-list", ".", "./..."})
	}
	if err := check(); !errors.Is(err, errFailed) {
		t.Errorf("check without a file = %v, want errFailed", err)
	}
	if err := tests(); err != nil {
		t.Fatalf("test = %v", err)
	}
	r, err := readReport(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []coverage{{Package: "a", Statements: 2, Covered: 1, Percent: 50}}
	if r.Modified || len(r.Commit) != 40 || !slices.Equal(r.Coverage, want) {
		t.Errorf("report = %+v", r)
	}
	if len(r.Tests) != 2 || r.Tests[0].NodeID != "a/a_test.go::TestOne" || r.Tests[1].NodeID != "examples/x/b/b_test.go::TestOne" || *r.Tests[1].Lineno != 4 {
		t.Errorf("tests = %+v, want those of both modules, at their places in the repository", r.Tests)
	}
	commitAll(t, dir)
	if err := check(); err != nil {
		t.Errorf("check of a fresh file = %v, want nil", err)
	}

	inner := filepath.Join(dir, "examples/x/b/c_test.go")
	write(t, inner, strings.ReplaceAll(testOne, "One() != 1", "false")+"\nfunc TestInner(*testing.T) {}\n")
	if err := os.Remove(filepath.Join(dir, "examples/x/b/b_test.go")); err != nil {
		t.Fatal(err)
	}
	if err := check(); !errors.Is(err, errFailed) {
		t.Errorf("check with a new test in an inner module = %v, want errFailed", err)
	}
	runGit(t, dir, "checkout", "-q", "--", "examples")
	if err := os.Remove(inner); err != nil {
		t.Fatal(err)
	}

	write(t, filepath.Join(dir, "a/b_test.go"), strings.ReplaceAll(testOne, "TestOne", "TestLongNightly"))
	if err := check(); err != nil {
		t.Errorf("check with a new nightly test = %v, want nil", err)
	}
	write(t, filepath.Join(dir, "a/b_test.go"), strings.ReplaceAll(testOne, "TestOne", "TestNew"))
	if err := check(); !errors.Is(err, errFailed) {
		t.Errorf("check with a new test = %v, want errFailed", err)
	}
	if err := tests(); err != nil {
		t.Fatal(err)
	}
	if err := check(); !errors.Is(err, errFailed) {
		t.Errorf("check of a file from a modified tree = %v, want errFailed", err)
	}

	write(t, filepath.Join(dir, "a/a.go"), "package a\n\nfunc One() int { return 3 }\n")
	if err := tests(); !errors.Is(err, errFailed) {
		t.Errorf("test with a failure = %v, want errFailed", err)
	}
	// What comes after a failure is run all the same: one run tells everything.
	if r, err := readReport(file); err != nil || r.ExitCode != 1 || r.Summary.Passed != 1 || r.Summary.Failed != 2 {
		t.Errorf("report of a run with failures = %+v, %v, want two failed in the outer module, one passed in the inner", r.Summary, err)
	}
	write(t, filepath.Join(dir, "a/a.go"), "package a\n\nfunc One() int { return")
	if err := check(); !errors.Is(err, errFailed) {
		t.Errorf("check of a tree that does not build = %v, want errFailed", err)
	}
}

func TestNoTestsIsAFailure(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module example.org/m\n")
	c := testRun{Root: dir, File: filepath.Join(dir, "r.json"), Command: []string{"true"}}
	if err := runTests(t.Context(), t.Output(), c); !errors.Is(err, errFailed) {
		t.Errorf("runTests without a test = %v, want errFailed", err)
	}
	if r, err := readReport(c.File); err != nil || r.Commit != "unknown" {
		t.Errorf("readReport = %+v, %v, want commit unknown, nil", r, err)
	}
	c.Command = []string{filepath.Join(dir, "missing")}
	if err := runTests(t.Context(), t.Output(), c); err == nil || errors.Is(err, errFailed) {
		t.Errorf("runTests of a missing command = %v, want another error than errFailed", err)
	}
	c.Command = []string{"echo", "no event"}
	if err := runTests(t.Context(), t.Output(), c); err == nil {
		t.Error("runTests of a command that prints no events = nil, want an error")
	}
}

// TestProblems damages a good file in each way that check must find.
func TestProblems(t *testing.T) {
	good := func() report {
		tests := []test{
			{NodeID: "log/a_test.go::TestA/x", Outcome: passed, Call: stage{Outcome: passed}},
			{NodeID: "log/a_test.go::TestA", Outcome: passed, Call: stage{Outcome: passed}},
		}
		return report{Tests: tests, Summary: summarise(tests)}
	}
	listed := []string{"log::TestA"}
	if got := good().problems(listed); len(got) != 0 {
		t.Errorf("problems of a good file = %q, want none", got)
	}
	for name, damage := range map[string]func(*report){
		"exit code is 1":                func(r *report) { r.ExitCode = 1 },
		"differs from its commit":       func(r *report) { r.Modified = true },
		"summary is":                    func(r *report) { r.Summary.Passed++ },
		"TestA is skipped":              func(r *report) { r.Tests[1].Outcome = skipped; r.Summary = summarise(r.Tests) },
		"TestA is failed":               func(r *report) { r.Tests[1].Outcome = failed; r.Summary = summarise(r.Tests) },
		"TestA/x is ":                   func(r *report) { r.Tests[0].Outcome = ""; r.Summary = summarise(r.Tests) },
		"log/a_test.go::TestA is passe": func(r *report) { r.Tests[1].Call.Outcome = failed },
		"log::TestA is missing":         func(r *report) { r.Tests = nil; r.Summary = summary{} },
	} {
		r := good()
		damage(&r)
		if got := strings.Join(r.problems(listed), "\n"); !strings.Contains(got, name) {
			t.Errorf("problems = %q, want %q", got, name)
		}
	}
	if got := good().problems(nil); len(got) == 0 {
		t.Error("problems with an empty list = none, want one")
	}
}

func TestReadList(t *testing.T) {
	in, err := os.Open("testdata/list.json")
	if err != nil {
		t.Fatal(err)
	}
	listed, nightly, err := readList(in, sampleTests)
	want := []string{"failing::TestTable", "good::TestDouble", "good::TestLater", "good::FuzzDouble", "good::ExampleDouble"}
	if err := errors.Join(err, in.Close()); err != nil || nightly != 1 || !slices.Equal(listed, want) {
		t.Errorf("readList = %q, %d, %v, want %q, 1, nil", listed, nightly, err, want)
	}
}

func TestCommitProblems(t *testing.T) {
	dir := repository(t)
	head, err := git(t.Context(), dir, "rev-parse", "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	for commit, want := range map[string]int{
		strings.TrimSpace(head): 0, "unknown": 1, "": 1, strings.Repeat("1", 40): 1, strings.ToUpper(strings.TrimSpace(head)): 1,
	} {
		if got := commitProblems(t.Context(), t.Output(), dir, commit, true); len(got) != want {
			t.Errorf("commitProblems(%q) = %q, want %d", commit, got, want)
		}
	}
	var out strings.Builder
	if got := commitProblems(t.Context(), &out, t.TempDir(), strings.TrimSpace(head), false); len(got) != 0 || !strings.Contains(out.String(), notRunMark) {
		t.Errorf("commitProblems without a repository = %q, prints %q, want none, NOT RUN", got, &out)
	}
	if got := commitProblems(t.Context(), &out, t.TempDir(), strings.TrimSpace(head), true); len(got) != 1 {
		t.Errorf("commitProblems without a repository, to close = %q, want one", got)
	}
}

// TestOldResults: a file grows old with the code, not with what is written
// about it. That is a warning, and a failure where work is closed.
func TestOldResults(t *testing.T) {
	dir := repository(t)
	head, err := git(t.Context(), dir, "rev-parse", "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	problems := func(toClose bool) (problems []string, printed string) {
		var out strings.Builder
		problems = commitProblems(t.Context(), &out, dir, strings.TrimSpace(head), toClose)
		return problems, out.String()
	}
	write(t, filepath.Join(dir, "README.md"), "# M\n")
	commitAll(t, dir)
	if got, printed := problems(true); len(got) > 0 || printed != "" {
		t.Errorf("after a commit of documents: %q, prints %q, want nothing", got, printed)
	}
	for i, file := range []string{"a/a.go", "examples/x/go.mod", "a/testdata/golden"} {
		write(t, filepath.Join(dir, file), "// changed\n")
		commitAll(t, dir)
		want := fmt.Sprintf("%d commits since", i+1)
		if got, printed := problems(false); len(got) > 0 || !strings.HasPrefix(printed, "warning: "+want) {
			t.Errorf("after a change of %s: %q, prints %q, want a warning of %s", file, got, printed, want)
		}
		if got, _ := problems(true); len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("after a change of %s, to close: %q, want %s", file, got, want)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"sing"}, {"test"}, {"test", "-x", "go"}, {"cover"}, {"check"}, {"cover", "-min", "x", "log"}} {
		if err := run(t.Context(), t.Output(), args); !errors.Is(err, errUsage) {
			t.Errorf("run(%q) = %v, want errUsage", args, err)
		}
	}
}
