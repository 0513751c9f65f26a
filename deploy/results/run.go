package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// A testRun is what to run and where its results go.
type testRun struct {
	Root    string
	File    string // results to write
	Profile string // coverage profile that Command writes, or empty
	Command []string
}

// runTests runs the command, shows its failures on out and writes its results.
// It fails when a test did, when the command did, and when there was no test at all.
func runTests(ctx context.Context, out io.Writer, c testRun) error {
	where, err := newLocator(c.Root)
	if err != nil {
		return err
	}
	commit, modified := commitOf(ctx, c.Root, c.File)
	start := time.Now()
	s, exit, err := execute(ctx, out, c.Root, c.Command)
	if err != nil {
		return err
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

// execute runs a go test -json command and returns what its stream says, and its exit code.
func execute(ctx context.Context, out io.Writer, root string, command []string) (*stream, int, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, 0, fmt.Errorf("run %s: %w", command[0], err)
	}
	if err := cmd.Start(); err != nil {
		return nil, 0, fmt.Errorf("run %s: %w", command[0], err)
	}
	s, readErr := readStream(pipe, out)
	if readErr != nil {
		_, _ = io.Copy(io.Discard, pipe) // or Wait would wait for ever; readErr is what we report
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return nil, 0, errors.Join(readErr, fmt.Errorf("run %s: %w", command[0], err))
	}
	return s, cmd.ProcessState.ExitCode(), readErr
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
