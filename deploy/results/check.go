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
	"regexp"
	"slices"
	"strings"
)

const (
	nightlySuffix = "Nightly" // of tests that make nightly runs
	problemsMax   = 50        // printed
)

// checkFile compares a results file with the tests that a go test -json -list command lists.
func checkFile(ctx context.Context, out io.Writer, root, file string, command []string) error {
	r, err := readReport(file)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w; run make test on a clean tree and commit pytest_results.json", errFailed, err)
	}
	if err != nil {
		return err
	}
	where, err := newLocator(root)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	list, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("list tests: %w: %w\n%s", errFailed, err, list)
	}
	listed, nightly, err := readList(bytes.NewReader(list), where)
	if err != nil {
		return err
	}
	problems := r.problems(listed)
	problems = append(problems, commitProblems(ctx, out, root, r.Commit)...)
	for _, p := range problems[:min(len(problems), problemsMax)] {
		show(out, "%s\n", p)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%s has %d problems; run make test on a clean tree and commit pytest_results.json: %w", file, len(problems), errFailed)
	}
	show(out, "%s: %d tests passed at %.12s; it holds all %d that go test lists, %d nightly ones apart\n",
		file, r.Summary.Passed, r.Commit, len(listed), nightly)
	return nil
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

// commitProblems checks that the commit a file names is one that the tree
// grew from. A shallow clone, or none, cannot tell and says so.
func commitProblems(ctx context.Context, out io.Writer, root, commit string) []string {
	if !regexp.MustCompile(`^[0-9a-f]{40}$`).MatchString(commit) {
		return []string{fmt.Sprintf("commit %q is no commit", commit)}
	}
	if shallow, err := git(ctx, root, "rev-parse", "--is-shallow-repository"); err != nil || strings.TrimSpace(shallow) == "true" {
		show(out, "%s whether %.12s is an ancestor (no history here)\n", notRunMark, commit)
		return nil
	}
	if _, err := git(ctx, root, "merge-base", "--is-ancestor", commit, "HEAD"); err != nil {
		return []string{fmt.Sprintf("commit %.12s is not an ancestor of HEAD", commit)}
	}
	return nil
}
