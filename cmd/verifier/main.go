// Command verifier checks what a log has shown, offline.
//
// It is the auditor's tool, and trusts nobody but the auditor: keys come from
// the policy and submitters files that the auditor brings, never from what is
// checked. It reads files, writes a report and the auditor's pin file, and
// opens no connection. What it checks, and what it cannot, each run prints:
// integrity, authenticity, completeness, time and semantics, each as PASS, FAIL
// or NOT CHECKED. Nothing is a pass because nobody looked.
//
// It does not show that what was logged is true, or that nothing happened
// before or beside the log.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/witness"
)

// Exit codes: what scripts and auditors rely on.
const (
	exitOK             = 0
	exitFailed         = 1 // tamper or omission
	exitUsage          = 2
	exitNotEstablished = 3 // intact, but nobody to trust it on
	exitVersion        = 4
	exitLimit          = 5
	exitIO             = 6
	exitBug            = 70
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// A codedError is an error that decides the exit code.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &codedError{exitUsage, fmt.Errorf(format, args...)}
}

func notEstablished(format string, args ...any) error {
	return &codedError{exitNotEstablished, fmt.Errorf(format, args...)}
}

func failed(err error) error { return &codedError{exitFailed, err} }

// errReported means that the report says it all; code is in the codedError around it.
var errReported = errors.New("reported")

// run is the program: it never panics, and gives the exit code.
func run(args []string, stdout, stderr io.Writer) (code int) {
	defer func() {
		if r := recover(); r != nil {
			say(stderr, "verifier: this is a bug, and nothing was established: %v\n%s", r, debug.Stack())
			code = exitBug
		}
	}()
	if len(args) == 0 {
		say(stderr, "%s", overview())
		return exitUsage
	}
	name, args := args[0], args[1:]
	if name == "--help" || name == "-help" || name == "-h" {
		name = "help"
	}
	for _, c := range commands() {
		if c.name == name {
			return exitCode(c, c.run(&streams{stdout, stderr}, args), stdout, stderr)
		}
	}
	say(stderr, "verifier: unknown command %q\nhint: run \"verifier help\"\n", name)
	return exitUsage
}

// exitCode prints what a command returned, and gives the code that it means.
func exitCode(c command, err error, stdout, stderr io.Writer) int {
	var coded *codedError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, flag.ErrHelp):
		say(stdout, "%s", c.help())
		return exitOK
	case errors.As(err, &coded) && errors.Is(err, errReported):
		return coded.code
	}
	code := exitIO
	switch {
	case coded != nil:
		code = coded.code
	case errors.Is(err, log.ErrVersion):
		code = exitVersion
	case errors.Is(err, log.ErrLimit):
		code = exitLimit
	}
	say(stderr, "verifier %s: %v\nhint: %s\n", c.name, err, hint(code, c.name))
	return code
}

// say tells a person something on the side. If nobody reads it, the exit code still speaks.
func say(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format, args...)
}

func hint(code int, name string) string {
	switch code {
	case exitFailed:
		return "keep the files as they are: they are the evidence; ask the log's operator, and other auditors what they were shown"
	case exitUsage:
		return "run \"verifier help " + name + "\""
	case exitNotEstablished:
		return "nothing is wrong with the files; what is missing is said above"
	case exitVersion:
		return "get a newer verifier"
	case exitLimit:
		return "the input is larger than any that a log writes, or has to be checked in parts"
	}
	return "check that the file exists and can be read"
}

// streams are where a command writes.
type streams struct{ out, err io.Writer }

// A command is one of the verifier's.
type command struct {
	name, args, short, text string
	run                     func(s *streams, args []string) error
}

func (c command) help() string {
	return "usage: verifier " + c.name + " " + c.args + "\n\n" + c.short + ".\n\n" + c.text
}

func commands() []command {
	return []command{
		{"verify", "[-policy FILE] [-submitters FILE] [-pin FILE] [-migration NAME]... [-json] DIR", "Check a directory of events with proofs", verifyHelp, runVerify},
		{"proof", "-policy FILE -entry FILE PROOF", "Check that one entry is in the log", proofHelp, runProof},
		{"receipt", "-policy FILE -entry FILE|DIR... [-logged FILE]... RECEIPT PROOF|CHECKPOINT|DIR", "Hold the log to a receipt", receiptHelp, runReceipt},
		{"explain", "[CHECK-ID]", "Say what a check of the report means", explainHelp, runExplain},
		{"help", "[COMMAND]", "Show this text, or that of a command", "", runHelp},
	}
}

func overview() string {
	var b strings.Builder
	b.WriteString("usage: verifier COMMAND [FLAGS] [FILES]\n\nChecks what a transparency log has shown, offline. Commands:\n\n")
	b.WriteString("  verify   check a directory of events with proofs\n")
	b.WriteString("  proof    check that one entry is in the log\n")
	b.WriteString("  receipt  hold the log to a receipt: a log that dropped the entry is convicted\n")
	b.WriteString("  explain  say what a check of the report means\n")
	b.WriteString("  help     show this text, or that of a command\n")
	b.WriteString(exitText)
	return b.String()
}

const exitText = `
Exit codes:
  0  the policy is met, and nothing failed
  1  tampered with, or something is omitted
  2  wrong usage
  3  intact as far as seen, but trust is not established (no policy, no quorum, no proof)
  4  unsupported version
  5  resource limit
  6  a file cannot be read or written
`

func runHelp(s *streams, args []string) error {
	if len(args) == 0 || args[0] == "help" {
		_, err := io.WriteString(s.out, overview())
		return err
	}
	for _, c := range commands() {
		if c.name == args[0] {
			_, err := io.WriteString(s.out, c.help())
			return err
		}
	}
	return usagef("no command %q", args[0])
}

// flags makes a flag set that reports to the caller.
func flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// parse parses flags and wants exactly n arguments after them.
func parse(f *flag.FlagSet, args []string, n int) error {
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usagef("%w", err)
	}
	if f.NArg() != n {
		return usagef("%d arguments after the flags, want %d (flags come first)", f.NArg(), n)
	}
	return nil
}

// repeated is a flag that can be given more than once.
type repeated []string

func (l *repeated) String() string     { return strings.Join(*l, ",") }
func (l *repeated) Set(v string) error { *l = append(*l, v); return nil }

// readFile reads a file that the auditor named, up to most bytes.
func readFile(name string, most int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	return readAll(f, nil, name, most)
}

// readAll reads up to most bytes, into buf while it is large enough.
func readAll(f io.Reader, buf []byte, name string, most int) ([]byte, error) {
	text := buf[:0]
	for {
		if len(text) == cap(text) {
			text = slices.Grow(text, 4096)
		}
		n, err := f.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		switch {
		case len(text) > most:
			return nil, fmt.Errorf("%w: %s has more than %d bytes", log.ErrLimit, name, most)
		case errors.Is(err, io.EOF):
			return text, nil
		case err != nil:
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
}

// readPolicy reads the auditor's policy. A file that is no policy is a mistake
// of the auditor's, not a finding.
func readPolicy(name string) (witness.Policy, error) {
	if name == "" {
		return witness.Policy{}, usagef("no -policy: the log's keys must come from a file of your own")
	}
	text, err := readFile(name, witness.PolicyMaxBytes)
	if err != nil {
		return witness.Policy{}, err
	}
	p, err := witness.ParsePolicy(text)
	if err != nil {
		return witness.Policy{}, usagef("policy %s: %w", name, err)
	}
	return p, nil
}
