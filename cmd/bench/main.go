// Command bench measures what the log promises, against the raw limit of the
// disk in the same rounds, and prints a table in Markdown.
//
//	bench [-run REGEXP] [-rounds N] [-seconds N] [-dir DIR] [-strict] [-events N]
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
	"path/filepath"

	"github.com/pipe-roll/piperoll/cmd/bench/engine"
	"github.com/pipe-roll/piperoll/cmd/bench/measure"
)

func main() { os.Exit(measure.Main(run)) }

func run(ctx context.Context, out io.Writer, args []string) (err error) {
	var events int
	o, err := measure.ParseOptions(args, func(f *flag.FlagSet) { f.IntVar(&events, "events", 5_000_000, "`events` of the large log") })
	if err == nil && events < steps {
		err = fmt.Errorf("%w: -events %d: want at least %d", measure.ErrUsage, events, steps)
	}
	if err != nil {
		return err
	}
	var raw *measure.Raw
	_, err = o.Run(ctx, out, func(dir string) ([]measure.Set, error) {
		binary, err := buildServer(ctx, dir)
		if err != nil {
			return nil, err
		}
		if raw, err = measure.NewRaw(filepath.Join(dir, "raw")); err != nil {
			return nil, err
		}
		server := serverBinary(binary)
		size := large{binary: server, dir: filepath.Join(dir, "size"), events: events}
		return append(sets(o.Rounds, raw, server), size.set()), nil
	})
	if raw != nil {
		err = errors.Join(err, raw.Close())
	}
	return err
}

const (
	openRate = 10_000
	writers  = 64
)

// sets are all benches. A name gives the bytes of each event.
func sets(rounds int, raw *measure.Raw, server serverBinary) []measure.Set {
	overHTTP := min(rounds, 3)
	p50, p99 := measure.P50, measure.P99
	open, saturated := measure.OpenLoop(openRate), measure.Saturate(writers)
	alone := measure.Alone
	return []measure.Set{
		{Rounds: rounds, Benches: []measure.Bench{
			{Name: "raw group commit, open loop 10,000/s of 1 KiB", Run: raw.Under(open)},
			{Name: "engine, open loop 10,000/s, entry 1 KiB", Goals: measure.Goals{p99.Below(10), measure.P99OfRaw.AtMost(3)}, Run: engine.Entries(open)},
			{Name: "engine with payloads, open loop 10,000/s, " + engine.PayloadSizes, Run: engine.Payloads(open)},
		}},
		{Rounds: rounds, Benches: []measure.Bench{
			{Name: "raw group commit, 64 writers, 1 KiB", Run: raw.Under(saturated)},
			{Name: "engine, 64 writers, entry 1 KiB", Goals: measure.Goals{measure.RateOfRaw.AtLeast(.5)}, Run: engine.Entries(saturated)},
			{Name: "engine with payloads, 64 writers, " + engine.PayloadSizes, Run: engine.Payloads(saturated)},
		}},
		alone(overHTTP, "HTTP, batches of 100, 5,000 events/s, "+httpSizes, measure.Goals{p50.Below(4), p99.Below(10)}, server.load(5_000, 100)),
		alone(overHTTP, "HTTP, batches of 100, 10,000 events/s, "+httpSizes, measure.Goals{p99.Below(25)}, server.load(10_000, 100)),
		alone(overHTTP, "HTTP, single events, 1,000/s, 64 connections, "+httpSizes, measure.Goals{p99.Below(10)}, server.load(1_000, 1)),
		alone(overHTTP, "event to published checkpoint, default cadence", measure.Goals{p99.Below(1200)}, server.published("1s")),
		alone(overHTTP, "event to published checkpoint, 100 ms cadence", measure.Goals{p99.Below(300)}, server.published("100ms")),
		alone(overHTTP, "SDK, 100,000 events, each receipt and inclusion proof checked, payload 33 B", measure.Goals{took.Below(15)}, server.sdk(100_000, false)),
		alone(1, "SDK, 1,000,000 events, the same", measure.Goals{took.Below(120)}, server.sdk(1_000_000, false)),
		alone(1, "SDK with outbox, 1,000,000 events, the same", measure.Goals{took.Below(120)}, server.sdk(1_000_000, true)),
	}
}
