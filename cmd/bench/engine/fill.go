package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pipe-roll/piperoll/cmd/bench/measure"
	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/sync/errgroup"
)

// A Cost is what some events took, until tree and index had them.
type Cost struct {
	Events  int
	CPU     time.Duration // of this process
	Elapsed time.Duration
}

// Fill appends n events with payloads to a log that logserver init made in dir,
// with all parts that run in the server, from as many writers as keep it busy.
// It gives the cost of each step of so many events.
func Fill(ctx context.Context, dir string, n, step int) (costs []Cost, err error) {
	p, err := open(dir)
	if err != nil {
		return nil, err
	}
	err = p.withSequencer(ctx, func(ctx context.Context, w work) error {
		time.Sleep(WarmUp)
		for done := 0; done < n; done += step {
			c := Cost{Events: min(step, n-done)}
			began, cpu := time.Now(), measure.CPU()
			if err := w.fill(ctx, c.Events); err != nil {
				return fmt.Errorf("append after %d events: %w", done, err)
			}
			if err := w.index.Wait(ctx, w.journal.Size()); err != nil {
				return err
			}
			c.CPU, c.Elapsed = measure.CPU()-cpu, time.Since(began)
			costs = append(costs, c)
		}
		return nil
	})
	return costs, err
}

// fill appends n events from writers that each have a new stream and wait for
// their own. A log that has run for long has many streams.
func (w work) fill(ctx context.Context, n int) error {
	payload, first := newPayload(), int(w.journal.Size())
	var left atomic.Int64
	left.Store(int64(n))
	g, ctx := errgroup.WithContext(ctx)
	for i := range streams {
		req := request(first+i, payload)
		g.Go(func() error {
			for left.Add(-1) >= 0 {
				one := req
				one.Events = []log.Event{req.Events[0]} // the sequencer fills in the place
				if _, err := w.seq.Submit(ctx, one); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}
