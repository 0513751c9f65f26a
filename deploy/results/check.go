package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	nightlySuffix = "Nightly" // of tests that make nightly runs
	problemsMax   = 50        // printed
)

// A fileCheck is what to compare a results file with.
type fileCheck struct {
	Root    string
	File    string
	Close   bool // the file must be of this code, not of an older one
	Command []string
}

// checkFile compares a results file with the tests that a go test -json -list
// command lists in each module.
func checkFile(ctx context.Context, out io.Writer, c fileCheck) error {
	r, err := readReport(c.File)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w; run make test on a clean tree and commit pytest_results.json", errFailed, err)
	}
	if err != nil {
		return err
	}
	listed, nightly, err := listTests(ctx, c.Root, c.Command)
	if err != nil {
		return err
	}
	problems := r.problems(listed)
	problems = append(problems, commitProblems(ctx, out, c.Root, r.Commit, c.Close)...)
	for _, p := range problems[:min(len(problems), problemsMax)] {
		show(out, "%s\n", p)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%s has %d problems; run make test on a clean tree and commit pytest_results.json: %w", c.File, len(problems), errFailed)
	}
	show(out, "%s: %d tests passed at %.12s; it holds all %d that go test lists, %d nightly ones apart\n",
		c.File, r.Summary.Passed, r.Commit, len(listed), nightly)
	return nil
}

// listTests runs a go test -json -list command in each module.
func listTests(ctx context.Context, root string, command []string) (listed []string, nightly int, err error) {
	where, err := newLocator(root)
	if err != nil {
		return nil, 0, err
	}
	for _, m := range where.modules {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = filepath.Join(root, m.folder)
		cmd.Stderr = os.Stderr
		list, err := cmd.Output()
		if err != nil {
			return nil, 0, fmt.Errorf("list tests of %s: %w: %w\n%s", m.path, errFailed, err, list)
		}
		some, more, err := readList(bytes.NewReader(list), where)
		if err != nil {
			return nil, 0, err
		}
		listed, nightly = append(listed, some...), nightly+more
	}
	return listed, nightly, nil
}

// readList reads go test -json -list. It returns "folder::TestName" of each test,
// example and fuzz target, and counts the nightly ones, which are in no file.
func readList(in io.Reader, where locator) (listed []string, nightly int, err error) {
	name := regexp.MustCompile(`^(Test|Example|Fuzz)\w*$`)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, lineMaxBytes)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, 0, fmt.Errorf("read list of tests, line %q: %w", lines.Text(), err)
		}
		test := strings.TrimSpace(e.Output)
		if e.Action != "output" || !name.MatchString(test) {
			continue
		}
		if strings.HasSuffix(test, nightlySuffix) {
			nightly++
			continue
		}
		listed = append(listed, where.folder(e.Package)+"::"+test)
	}
	if err := lines.Err(); err != nil {
		return nil, 0, fmt.Errorf("read list of tests: %w", err)
	}
	return listed, nightly, nil
}

// problems says everything that is wrong with a results file.
func (r report) problems(listed []string) []string {
	var problems []string
	if r.ExitCode != 0 {
		problems = append(problems, fmt.Sprintf("exit code is %d", r.ExitCode))
	}
	if r.Modified {
		problems = append(problems, "made on a tree that differs from its commit")
	}
	if want := summarise(r.Tests); r.Summary != want {
		problems = append(problems, fmt.Sprintf("summary is %+v, the tests add up to %+v", r.Summary, want))
	}
	if len(listed) == 0 {
		problems = append(problems, "go test lists no test to compare with")
	}
	seen := map[string]bool{}
	for _, t := range r.Tests {
		if t.Outcome != passed || t.Call.Outcome != passed {
			problems = append(problems, t.NodeID+" is "+t.Outcome)
		}
		file, name, _ := strings.Cut(t.NodeID, "::")
		if strings.HasSuffix(file, ".go") {
			file = path.Dir(file)
		}
		top, _, _ := strings.Cut(name, "/")
		seen[file+"::"+top] = true
	}
	for _, t := range listed {
		if !seen[t] {
			problems = append(problems, t+" is missing")
		}
	}
	slices.Sort(problems)
	return problems
}

// tested is what decides whether tests pass: code, what it depends on, and the data of tests.
var tested = []string{"*.go", "*go.mod", "*go.sum", "*/testdata/*"}

// commitProblems checks that the commit a file names is one that the tree
// grew from, and how far that has gone on: a warning, and a problem when the
// file is to close the work. A shallow clone, or none, cannot tell and says so.
func commitProblems(ctx context.Context, out io.Writer, root, commit string, toClose bool) []string {
	if !regexp.MustCompile(`^[0-9a-f]{40}$`).MatchString(commit) {
		return []string{fmt.Sprintf("commit %q is no commit", commit)}
	}
	if shallow, err := git(ctx, root, "rev-parse", "--is-shallow-repository"); err != nil || strings.TrimSpace(shallow) == "true" {
		if toClose {
			return []string{fmt.Sprintf("whether the code is that of commit %.12s cannot be told: there is no history here", commit)}
		}
		show(out, "%s whether %.12s is an ancestor (no history here)\n", notRunMark, commit)
		return nil
	}
	if _, err := git(ctx, root, "merge-base", "--is-ancestor", commit, "HEAD"); err != nil {
		return []string{fmt.Sprintf("commit %.12s is not an ancestor of HEAD", commit)}
	}
	changed, err := git(ctx, root, append([]string{"rev-list", commit + "..HEAD", "--"}, tested...)...)
	if err != nil {
		return []string{err.Error()}
	}
	if changed == "" {
		return nil
	}
	old := fmt.Sprintf("%d commits since %.12s changed what is tested, the first of them %.12s",
		strings.Count(changed, "\n"), commit, changed[strings.LastIndex(strings.TrimSpace(changed), "\n")+1:])
	if toClose {
		return []string{old}
	}
	show(out, "warning: %s; make results-close fails until make test has written the file again\n", old)
	return nil
}
