// Command bench measures what the log promises, against the raw limit of the
// disk in the same run, and prints a table in Markdown.
//
//	bench [-run REGEXP] [-seconds N] [-dir DIR]
//
// Loads are open loop: requests go out on a fixed schedule, whether answers
// come or not, and a latency is counted from the time that was planned, so
// that a slow answer does not hide the ones queued behind it. The generator
// runs on the same machine and its work is included.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"time"
)

// A bench is one line of the table.
type bench struct {
	name string
	goal string
	run  func(ctx context.Context, e env) (string, error)
}

// env is what a bench runs in.
type env struct {
	dir     string // scratch, empty
	seconds int    // of load
	server  string // path of the logserver binary
	raw     *rawResults
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	only := flag.String("run", "", "`regexp` of the benches to run")
	seconds := flag.Int("seconds", 15, "`seconds` of load for each")
	parent := flag.String("dir", os.TempDir(), "`folder` on the disk to measure")
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(*parent, "piperoll-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // scratch
	server, err := buildServer(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Printf("%s, %d cores, %s\n\n| bench | goal | result |\n|---|---|---|\n", runtime.Version(), runtime.NumCPU(), runtime.GOOS+"/"+runtime.GOARCH)
	raw := &rawResults{}
	for i, b := range benches() {
		if !match.MatchString(b.name) {
			continue
		}
		e := env{dir: filepath.Join(dir, fmt.Sprint(i)), seconds: *seconds, server: server, raw: raw}
		if err := os.Mkdir(e.dir, 0o700); err != nil {
			return err
		}
		result, err := b.run(ctx, e)
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		fmt.Printf("| %s | %s | %s |\n", b.name, b.goal, result)
		if err := os.RemoveAll(e.dir); err != nil {
			return err
		}
	}
	return nil
}

func benches() []bench {
	return []bench{
		{"raw group commit, open loop 10,000/s of 1 KiB", "the limit", rawOpen},
		{"engine, open loop 10,000/s of 1 KiB", "p99 < 10 ms, <= 3x raw", engineOpen},
		{"raw group commit, 64 writers", "the limit", rawSaturated},
		{"engine, 64 writers", ">= 0.5 of raw", engineSaturated},
		{"HTTP, batches of 100, 5,000 events/s", "p50 < 4 ms, p99 < 10 ms", httpLoad(5_000, 100, 64, 200)},
		{"HTTP, batches of 100, 10,000 events/s", "p99 < 25 ms", httpLoad(10_000, 100, 64, 200)},
		{"HTTP, single events, 1,000/s, 64 connections", "p99 < 10 ms", httpLoad(1_000, 1, 64, 200)},
		{"event to published checkpoint, default cadence", "p99 < 1.2 s", published("1s")},
		{"event to published checkpoint, 100 ms cadence", "p99 < 300 ms", published("100ms")},
		{"SDK, 100,000 events, each inclusion proof checked", "< 15 s", sdk},
	}
}

// latencies are in the order of arrival; summaries sort them.
type latencies []time.Duration

func (l latencies) at(q float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[min(len(l)-1, int(q*float64(len(l))))]
}

func (l latencies) String() string {
	slices.Sort(l)
	return fmt.Sprintf("p50 %s, p99 %s, max %s (n=%d)", ms(l.at(.5)), ms(l.at(.99)), ms(l.at(1)), len(l))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
