package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A testRun is what to run and where its results go.
type testRun struct {
	Root    string
	File    string // results to write
	Profile string // coverage profile of the root's module to write, or empty
	Command []string
}

// runTests runs the command in each module, shows its failures on out and
// writes the results of all. It fails when a test did, when the command did,
// and when there was no test at all.
func runTests(ctx context.Context, out io.Writer, c testRun) error {
	where, err := newLocator(c.Root)
	if err != nil {
		return err
	}
	commit, modified := commitOf(ctx, c.Root, c.File)
	start := time.Now()
	s := newStream(out)
	exit := 0
	for _, m := range where.modules {
		command, err := c.in(m)
		if err != nil {
			return err
		}
		code, err := s.execute(ctx, filepath.Join(c.Root, m.folder), command)
		if err != nil {
			return err
		}
		exit = max(exit, code)
	}
	end := time.Now()
	r := newReport(s, where, exit)
	r.Created = float64(end.UnixMilli()) / 1000
	r.Duration = end.Sub(start).Seconds()
	r.Commit, r.Modified = commit, modified
	if c.Profile != "" {
		if err := r.addCoverage(c.Profile, where); err != nil {
			// The run below is worth more than its coverage; "cover" will complain.
			show(out, "results: %v\n", err)
		}
	}
	data, err := r.encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.File, data, 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	show(out, "%d tests: %d passed, %d failed, %d skipped in %.1f s; %d not run -> %s\n", r.Summary.Total,
		r.Summary.Passed, r.Summary.Failed, r.Summary.Skipped, r.Duration, len(r.NotRun), c.File)
	for _, what := range r.NotRun {
		show(out, "%s %s\n", notRunMark, what)
	}
	if r.ExitCode != 0 || r.Summary.Failed > 0 || r.Summary.Total == 0 {
		return fmt.Errorf("test run with exit code %d: %w", r.ExitCode, errFailed)
	}
	return nil
}

// in returns the command to run in a module. The root's is the one whose
// coverage counts: what others run of it shows that it is used, not tested.
func (c testRun) in(m module) ([]string, error) {
	if c.Profile == "" || m.folder != "." {
		return c.Command, nil
	}
	profile, err := filepath.Abs(c.Profile)
	if err != nil {
		return nil, fmt.Errorf("find the coverage profile: %w", err)
	}
	return append(slices.Clone(c.Command), "-coverpkg=./...", "-coverprofile="+profile), nil
}

// newReport makes the results of a finished run.
func newReport(s *stream, where locator, exit int) report {
	r := report{
		ExitCode: exit,
		Root:     ".", // the file is read elsewhere, where our path means nothing
		Environment: map[string]string{
			"Go":       runtime.Version(),
			"Platform": runtime.GOOS + "/" + runtime.GOARCH,
			"CPUs":     strconv.Itoa(runtime.NumCPU()),
		},
		NotRun: append([]string{}, s.notRun...),
		Tests:  s.tests(where),
	}
	r.Summary = summarise(r.Tests)
	return r
}

// execute runs a go test -json command, reads its events and returns its exit code.
func (s *stream) execute(ctx context.Context, dir string, command []string) (int, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", command[0], err)
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("run %s: %w", command[0], err)
	}
	readErr := s.read(pipe)
	if readErr != nil {
		_, _ = io.Copy(io.Discard, pipe) // or Wait would wait for ever; readErr is what we report
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return 0, errors.Join(readErr, fmt.Errorf("run %s: %w", command[0], err))
	}
	return cmd.ProcessState.ExitCode(), readErr
}

// commitOf names the commit that the tree is at, and says whether the tree
// differs from it in more than the results themselves.
func commitOf(ctx context.Context, root, file string) (commit string, modified bool) {
	head, err := git(ctx, root, "rev-parse", "HEAD")
	if err != nil {
		return "unknown", true
	}
	status, err := git(ctx, root, "status", "--porcelain", "--", ".", ":(exclude)"+file)
	return strings.TrimSpace(head), err != nil || status != ""
}

func git(ctx context.Context, root string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return string(out), nil
}
