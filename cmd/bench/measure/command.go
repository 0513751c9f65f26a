// Package measure is what every bench command is made of: loads that count
// latencies honestly, rounds in turning order, medians with their extremes,
// goals, and the raw limit of the disk.
//
// A disk's tail is never the same twice, so no line rests on one measurement:
// each bench runs in several rounds, and what is compared runs in the same
// round, in an order that turns from one to the next. Tables give medians and,
// in brackets, the extremes; goals are held against the medians.
package measure

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"syscall"
)

var (
	// ErrUsage is a mistake in the arguments.
	ErrUsage = errors.New("usage")
	// ErrMissed is a goal that was not met, where that was to fail.
	ErrMissed = errors.New("goals missed")
)

// Main runs a command with the process's arguments and returns its exit status:
// 0 measured, 1 a goal was missed with -strict, 2 usage, 6 not measured.
func Main(run func(ctx context.Context, out io.Writer, args []string) error) int {
	if runtime.GOMAXPROCS(0) < 4 { // as the server does
		runtime.GOMAXPROCS(4)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Stdout, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	return ExitCode(err)
}

// ExitCode tells scripts a missed goal from a bench that did not run.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrMissed):
		return 1
	case errors.Is(err, ErrUsage):
		return 2
	}
	return 6
}

// Env is what a bench runs in.
type Env struct {
	Dir     string // scratch, empty
	Seconds int    // of load

	keep bool // what the rounds write, until all are done
}

// Options are the flags that every bench command has.
type Options struct {
	Rounds int
	Strict bool // fail when a goal is missed

	match   *regexp.Regexp
	seconds int
	parent  string
}

// roomBytes is about what all rounds write.
const roomBytes = 40 << 30

// ParseOptions reads the flags of a command, of which it adds its own.
func ParseOptions(args []string, own ...func(*flag.FlagSet)) (Options, error) {
	var o Options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("run", "", "`regexp` of the benches to run; what they are compared with runs too")
	flags.IntVar(&o.Rounds, "rounds", 5, "`rounds` of each bench; over HTTP at most 3")
	flags.IntVar(&o.seconds, "seconds", 6, "`seconds` of load in a round")
	flags.StringVar(&o.parent, "dir", os.TempDir(), "`folder` on the disk to measure")
	flags.BoolVar(&o.Strict, "strict", false, "fail when a goal is missed")
	for _, add := range own {
		add(flags)
	}
	if err := flags.Parse(args); err != nil {
		return o, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	var err error
	o.match, err = regexp.Compile(*only)
	if err != nil || o.Rounds < 1 || o.seconds < 1 || flags.NArg() > 0 {
		return o, fmt.Errorf("%w: want -run with a regexp, and at least one round of one second: %q: %w", ErrUsage, args, errors.Join(err, flag.ErrHelp))
	}
	if disk := fileSystem(o.parent); disk == "tmpfs" || disk == "ramfs" {
		return o, fmt.Errorf("%w: %s is on %s, where a sync costs nothing and proves nothing: give -dir a folder on the disk to measure", ErrUsage, o.parent, disk)
	}
	return o, nil
}

// Run measures the sets that prepare makes in a scratch folder, and prints
// their lines, which it returns as well.
func (o Options) Run(ctx context.Context, out io.Writer, prepare func(dir string) ([]Set, error)) ([][]Line, error) {
	dir, err := os.MkdirTemp(o.parent, "piperoll-bench")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // scratch
	sets, err := prepare(dir)
	if err != nil {
		return nil, err
	}
	e := Env{Dir: dir, Seconds: o.seconds, keep: room(dir) > roomBytes}
	show(out, "%s, %s/%s, %d cores, kernel %s, %s; rounds of %d s; load average before: %s\n\n", runtime.Version(),
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), kernel(), fileSystem(dir), e.Seconds, loadAverage())
	if !e.keep {
		show(out, "Less than %d GiB are free: each round's files are removed after it, which makes the next ones slower.\n\n", roomBytes>>30)
	}
	return o.measure(ctx, out, e, sets)
}

// measure runs the sets and prints their lines, then what else the machine did.
func (o Options) measure(ctx context.Context, out io.Writer, e Env, sets []Set) ([][]Line, error) {
	before := readUsage()
	show(out, "| bench | rounds | median [least to most] | goal | verdict |\n|---|---|---|---|---|\n")
	var all [][]Line
	var below []string
	for _, s := range sets {
		lines, err := s.run(ctx, e, o.match)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			show(out, "| %s | %d | %s | %s | %s |\n", l.Bench.Name, len(l.Rounds), l.Rounds, l.Bench.Goals, l.verdict())
			if l.verdict() == missed {
				below = append(below, l.Bench.Name)
			}
		}
		all = append(all, lines)
	}
	u := readUsage().since(before)
	show(out, "\nForeign work took %.2f cores, the hypervisor %.1f %% of the time; load average after: %s\n", u.foreign(), u.stolen(), loadAverage())
	if o.Strict && len(below) > 0 {
		return all, fmt.Errorf("%w: %s", ErrMissed, strings.Join(below, "; "))
	}
	return all, nil
}

// show prints for people.
func show(out io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(out, format, args...) }
