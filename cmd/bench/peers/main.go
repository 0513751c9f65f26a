// Command peers measures this log beside two others, in the same run and on
// the same disk, and prints two tables in Markdown: all settings, then the best
// of each log with ratios, and where this log is not ahead.
//
//	peers [-run REGEXP] [-rounds N] [-seconds N] [-dir DIR] [-strict]
//
// It needs mariadbd and mariadb-install-db, and go, which finds Trillian's
// schema. An acknowledgement is the time when a caller may forget its entry,
// which is not the same promise everywhere; the output says what each means.
//
// Exit status: that of cmd/bench; with -strict, 1 also where this log is behind.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pipe-roll/piperoll/cmd/bench/engine"
	"github.com/pipe-roll/piperoll/cmd/bench/measure"
	"k8s.io/klog/v2"
)

func main() {
	klog.LogToStderr(false) // both peers log through it; their errors still show
	klog.SetOutput(io.Discard)
	os.Exit(measure.Main(run))
}

func run(ctx context.Context, out io.Writer, args []string) error {
	o, err := measure.ParseOptions(args)
	if err != nil {
		return err
	}
	schema, err := trillianSchema(ctx)
	if err != nil {
		return err
	}
	contests := contests(schema)
	if _, err := fmt.Fprint(out, promises); err != nil {
		return err
	}
	lines, err := o.Run(ctx, out, func(string) ([]measure.Set, error) { return sets(contests, o.Rounds), nil })
	if err != nil {
		return err
	}
	if behind := report(out, contests, lines); o.Strict && len(behind) > 0 {
		return fmt.Errorf("%w: behind in %d places", measure.ErrMissed, len(behind))
	}
	return nil
}

const promises = `Entries have 1,024 bytes. What an acknowledgement means:

- Piperoll, entries: the entry is durable at its final index. The tree has it within a round (50 ms).
- Piperoll, events: the same through sequencer, sealed payload and index, which find repeats exactly; 700 B and 300 B.
- Tessera v1.0.4, POSIX: the entry is durable at its final index, and in the tree. Checkpoints once a second, as here; no antispam.
- Trillian v1.8.0 in this process, MariaDB on a socket, a sync for each commit. Queued (LOG): the leaf is durable in a
  queue, without an index. Preordered (PREORDERED_LOG): it is durable at an index that our own sequencer gave.

`

// A contest is a load that all logs are put under.
type contest struct {
	name       string
	compared   []measure.Quantity
	contenders []contender
}

// A contender is a log in one of its settings.
type contender struct {
	log, setting string
	run          func(context.Context, measure.Env) (measure.Figures, error)
}

func (c contest) bench(of contender) string { return c.name + ": " + of.log + ", " + of.setting }

// The logs that are compared.
const (
	piperollLog = "Piperoll"
	tesseraLog  = "Tessera"
	trillianLog = "Trillian"
)

// contests names the settings of Tessera that were best somewhere on the disk
// that this was written on; the report takes the best one of each run.
func contests(schema string) []contest {
	latency := []measure.Quantity{measure.P50, measure.P99}
	rate := []measure.Quantity{measure.Rate}
	const ms = time.Millisecond
	of := func(name string, load measure.Load, compared []measure.Quantity, settings ...batching) contest {
		c := contest{name, compared, []contender{
			{piperollLog, "entries", engine.Entries(load)},
			{piperollLog, "events", engine.Payloads(load)},
		}}
		for _, b := range settings {
			c.contenders = append(c.contenders, contender{tesseraLog, b.String(), b.under(load)})
		}
		for _, m := range modes {
			c.contenders = append(c.contenders, contender{trillianLog, m.name, m.under(load, schema)})
		}
		return c
	}
	return []contest{
		of("1,000/s", measure.OpenLoop(1_000), latency, batching{256, 2 * ms}, batching{256, 5 * ms}, batching{256, 10 * ms}),
		of("5,000/s", measure.OpenLoop(5_000), latency, batching{1024, 5 * ms}, batching{1024, 10 * ms}, batching{1024, 20 * ms}),
		of("10,000/s", measure.OpenLoop(10_000), latency, batching{1024, 5 * ms}, batching{512, 20 * ms}, batching{1024, 50 * ms}),
		of("64 writers", measure.Saturate(64), rate, batching{64, 50 * ms}, batching{256, 5 * ms}),
		of("1,024 writers", measure.Saturate(1_024), rate, batching{256, 250 * ms}, batching{512, 50 * ms}, batching{1024, 50 * ms}),
	}
}

func sets(contests []contest, rounds int) []measure.Set {
	all := make([]measure.Set, len(contests))
	for i, c := range contests {
		all[i].Rounds = rounds
		for _, of := range c.contenders {
			all[i].Benches = append(all[i].Benches, measure.Bench{Name: c.bench(of), Run: of.run})
		}
	}
	return all
}
