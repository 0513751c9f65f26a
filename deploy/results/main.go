// Command results turns the project's test run into a file that others can
// read, and checks such files.
//
//	results test -out FILE -profile FILE -- go test -json ...
//	results cover -profile FILE -min 95.0 -exclusions FILE FOLDER...
//	results check [-close] -file FILE -- go test -json -list . ./...
//
// test runs the command in the root's module and in those inside it, shows
// what failed and writes the whole run in the schema of pytest-json-report,
// with the commit it was made at and the statement coverage of the root's
// packages; it adds the flags for that. cover fails when a folder (with its
// subfolders) has less statement coverage than -min. check fails when the file
// holds anything but passed tests, or lacks a test that the command lists in
// any module; with -close also when code changed since the commit it names.
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
	root := flags.String("root", ".", "`folder` of the repository")
	switch args[0] {
	case "test":
		file := flags.String("out", "pytest_results.json", "`file` to write")
		profile := flags.String("profile", "", "coverage `profile` to write")
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
		toClose := flags.Bool("close", false, "fail when code changed since the commit that the file names")
		if err := flags.Parse(args[1:]); err != nil || flags.NArg() == 0 {
			return errors.Join(errUsage, err)
		}
		return checkFile(ctx, out, fileCheck{Root: *root, File: *file, Close: *toClose, Command: flags.Args()})
	}
	return errUsage
}

// show prints for people. Its error is dropped: what counts is the exit status and the file.
func show(out io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(out, format, args...)
}
