// Command results turns the project's test run into a file that others can
// read, and checks such files.
//
//	results test -out FILE -profile FILE -- go test -json ...
//	results cover -profile FILE -min 95.0 -exclusions FILE FOLDER...
//	results check -file FILE -- go test -json -list . ./...
//
// test runs the command, shows what failed and writes the whole run in the
// schema of pytest-json-report, with statement coverage per package and the
// commit it was made at. cover fails when a folder (with its subfolders) has
// less statement coverage than -min. check fails when the file holds anything
// but passed tests, or lacks a test that the command lists.
//
// Tests whose names end in Nightly are run by "make nightly" and belong to no
// file. It uses the standard library only and trusts nothing in a file it checks.
// Exit status: 0 done, 1 a test or a check failed, 2 usage, 6 unreachable or I/O.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

const (
	exitFailed = 1 // a test or a check failed
	exitUsage  = 2
	exitIO     = 6
)

// errFailed marks what the caller should see as a failed test or check, not as a broken tool.
var errFailed = errors.New("failed")

// errUsage marks a wrong command line.
var errUsage = errors.New("usage: results test|cover|check [flags] [ARG...]")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Stdout, os.Args[1:])
	switch {
	case err == nil:
		return
	case errors.Is(err, errFailed):
		show(os.Stderr, "results: %v\n", err)
		os.Exit(exitFailed)
	case errors.Is(err, errUsage):
		show(os.Stderr, "results: %v\n", err)
		os.Exit(exitUsage)
	}
	show(os.Stderr, "results: %v\n", err)
	os.Exit(exitIO)
}

func run(ctx context.Context, out io.Writer, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	root := flags.String("root", ".", "the module's `folder`")
	switch args[0] {
	case "test":
		file := flags.String("out", "pytest_results.json", "`file` to write")
		profile := flags.String("profile", "", "coverage `profile` that the command writes")
		if err := flags.Parse(args[1:]); err != nil || flags.NArg() == 0 {
			return errors.Join(errUsage, err)
		}
		return runTests(ctx, out, testRun{Root: *root, File: *file, Profile: *profile, Command: flags.Args()})
	case "cover":
		profile := flags.String("profile", "", "coverage `profile`")
		minimum := flags.Float64("min", 95, "least statement coverage of a folder, in `percent`")
		exclusions := flags.String("exclusions", "", "`file` of paths that do not count, each with its reason")
		if err := flags.Parse(args[1:]); err != nil || flags.NArg() == 0 {
			return errors.Join(errUsage, err)
		}
		return checkCoverage(out, *root, *profile, *exclusions, *minimum, flags.Args())
	case "check":
		file := flags.String("file", "pytest_results.json", "`file` to check")
		if err := flags.Parse(args[1:]); err != nil || flags.NArg() == 0 {
			return errors.Join(errUsage, err)
		}
		return checkFile(ctx, out, *root, *file, flags.Args())
	}
	return errUsage
}

// show prints for people. Its error is dropped: what counts is the exit status and the file.
func show(out io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(out, format, args...)
}
