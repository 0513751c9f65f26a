// Command bench measures what the log promises, against the raw limit of the
// disk in the same rounds, and prints a table in Markdown.
//
//	bench [-run REGEXP] [-rounds N] [-seconds N] [-dir DIR] [-strict]
//
// A disk's tail is never the same twice, so no line rests on one measurement:
// each bench runs in several rounds, and what is compared runs in the same
// round, in an order that turns from one to the next. The table gives medians
// and, in brackets, the extremes; goals are held against the medians.
//
// Loads are open loop: requests go out on a fixed schedule, whether answers
// come or not, and a latency is counted from the time that was planned, so
// that a slow answer does not hide the ones queued behind it. The generator
// runs on the same machine and its work is included.
//
// Exit status: 0 measured, 1 a goal was missed with -strict, 2 usage, 6 not
// measured: input, output, or what it starts failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	if runtime.GOMAXPROCS(0) < 4 { // as the server does
		runtime.GOMAXPROCS(4)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(exitCode(err))
	}
}

var (
	errUsage  = errors.New("usage")
	errMissed = errors.New("goals missed")
)

func exitCode(err error) int {
	switch {
	case errors.Is(err, errMissed):
		return 1
	case errors.Is(err, errUsage):
		return 2
	}
	return 6
}

// env is what a bench runs in.
type env struct {
	dir     string // scratch, empty
	seconds int    // of load
	server  string // path of the logserver binary
	raw     *rawLog
	keep    bool // what the rounds write, until all are done
}

// roomBytes is about what all rounds write.
const roomBytes = 40 << 30

func run(ctx context.Context, out io.Writer, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("run", "", "`regexp` of the benches to run; what they are compared with runs too")
	rounds := flags.Int("rounds", 5, "`rounds` of each bench; over HTTP at most 3")
	seconds := flags.Int("seconds", 6, "`seconds` of load in a round")
	parent := flags.String("dir", os.TempDir(), "`folder` on the disk to measure")
	strict := flags.Bool("strict", false, "fail when a goal is missed")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	match, err := regexp.Compile(*only)
	if err != nil || *rounds < 1 || *seconds < 1 || flags.NArg() > 0 {
		return fmt.Errorf("%w: want -run with a regexp, and at least one round of one second: %q: %w", errUsage, args, errors.Join(err, flag.ErrHelp))
	}
	disk := fileSystem(*parent)
	if disk == "tmpfs" || disk == "ramfs" {
		return fmt.Errorf("%w: %s is on %s, where a sync costs nothing and proves nothing: give -dir a folder on the disk to measure", errUsage, *parent, disk)
	}
	dir, err := os.MkdirTemp(*parent, "piperoll-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // scratch
	e := env{dir: dir, seconds: *seconds, keep: room(dir) > roomBytes}
	if e.server, err = buildServer(ctx, dir); err != nil {
		return err
	}
	if e.raw, err = newRawLog(filepath.Join(dir, "raw")); err != nil {
		return err
	}
	defer func() { _ = e.raw.close() }() // what mattered has been synced
	show(out, "%s, %s/%s, %d cores, kernel %s, %s; rounds of %d s; load average before: %s\n\n", runtime.Version(),
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), kernel(), disk, *seconds, loadAverage())
	if !e.keep {
		show(out, "Less than %d GiB are free: each round's files are removed after it, which makes the next ones slower.\n\n", roomBytes>>30)
	}
	return measure(ctx, out, e, sets(*rounds), match, *strict)
}

// measure runs the sets and prints their lines, then what else the machine did.
func measure(ctx context.Context, out io.Writer, e env, all []set, match *regexp.Regexp, strict bool) error {
	before := readUsage()
	show(out, "| bench | rounds | median [least to most] | goal | verdict |\n|---|---|---|---|---|\n")
	var below []string
	for _, s := range all {
		lines, err := s.run(ctx, e, match)
		if err != nil {
			return err
		}
		for _, l := range lines {
			show(out, "| %s | %d | %s | %s | %s |\n", l.bench.name, len(l.rounds), l.rounds, l.bench.goals, l.verdict())
			if l.verdict() == missed {
				below = append(below, l.bench.name)
			}
		}
	}
	u := readUsage().since(before)
	show(out, "\nForeign work took %.2f cores, the hypervisor %.1f %% of the time; load average after: %s\n", u.foreign(), u.stolen(), loadAverage())
	if strict && len(below) > 0 {
		return fmt.Errorf("%w: %s", errMissed, strings.Join(below, "; "))
	}
	return nil
}

// sets are all benches. A name gives the bytes of each event.
func sets(rounds int) []set {
	overHTTP := min(rounds, 3)
	return []set{
		{rounds, []bench{
			{"raw group commit, open loop 10,000/s of 1 KiB", nil, rawOpen},
			{"engine, open loop 10,000/s, entry 1 KiB", goals{{p99, "<", 10}, {p99OfRaw, "<=", 3}}, engineOpen},
			{"engine with payloads, open loop 10,000/s, " + payloadSizes, nil, payloadsOpen},
		}},
		{rounds, []bench{
			{"raw group commit, 64 writers, 1 KiB", nil, rawSaturated},
			{"engine, 64 writers, entry 1 KiB", goals{{rateOfRaw, ">=", .5}}, engineSaturated},
			{"engine with payloads, 64 writers, " + payloadSizes, nil, payloadsSaturated},
		}},
		alone(overHTTP, "HTTP, batches of 100, 5,000 events/s, "+httpSizes, goals{{p50, "<", 4}, {p99, "<", 10}}, httpLoad(5_000, 100)),
		alone(overHTTP, "HTTP, batches of 100, 10,000 events/s, "+httpSizes, goals{{p99, "<", 25}}, httpLoad(10_000, 100)),
		alone(overHTTP, "HTTP, single events, 1,000/s, 64 connections, "+httpSizes, goals{{p99, "<", 10}}, httpLoad(1_000, 1)),
		alone(overHTTP, "event to published checkpoint, default cadence", goals{{p99, "<", 1200}}, published("1s")),
		alone(overHTTP, "event to published checkpoint, 100 ms cadence", goals{{p99, "<", 300}}, published("100ms")),
		alone(overHTTP, "SDK, 100,000 events, each inclusion proof checked, payload 33 B", goals{{took, "<", 15}}, sdk),
	}
}

// show prints for people.
func show(out io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(out, format, args...) }
