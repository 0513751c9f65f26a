// Command logserver runs a transparency log for the audit of data migrations:
// it takes signed events, orders them, makes them durable, and publishes signed
// checkpoints under which everything can be proven.
//
// Start reading in submit.go: it is the way of an event through the system.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes of every command (contract).
const (
	exitOK             = 0
	exitFailed         = 1 // a check failed
	exitUsage          = 2
	exitNotEstablished = 3
	exitVersion        = 4
	exitLimit          = 5
	exitIO             = 6 // unreachable, or input and output failed
)

// A command is one subcommand.
type command struct {
	name    string
	summary string
	run     func(ctx context.Context, args []string, out, errOut io.Writer, in io.Reader) int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr, os.Stdin))
}

func commands() []command {
	return append([]command{
		{"init", "make a new log: keys, configuration, first entries", cmdInit},
		{"serve", "run the server", cmdServe},
		{"token", "make an access token, as a logged event", cmdToken},
		{"key", "register or revoke a submitter's key, as a logged event", cmdKey},
		{"fsck", "re-derive everything from the journal and compare", cmdFsck},
	}, clientCommands()...)
}

// run is main without the process.
func run(ctx context.Context, args []string, out, errOut io.Writer, in io.Reader) int {
	if len(args) == 0 {
		usage(errOut)
		return exitUsage
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		usage(out)
		return exitOK
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, args[1:], out, errOut, in)
		}
	}
	printf(errOut, "logserver: no command %q; see logserver help\n", args[0])
	return exitUsage
}

func usage(w io.Writer) {
	printf(w, "Usage: logserver COMMAND [flags]\n\n")
	for _, c := range commands() {
		printf(w, "  %-8s %s\n", c.name, c.summary)
	}
	printf(w, `
Each command has -help with examples. The first five minutes:

  logserver init -dir mylog -origin example.com/mylog
  logserver serve -config mylog/config.yaml

Exit codes: 0 done, 1 a check failed, 2 usage, 3 not established, 4 version, 5 limit, 6 unreachable or I/O.
`)
}

// printf tells people. If they do not listen, there is nobody to tell that.
func printf(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format, args...)
}
