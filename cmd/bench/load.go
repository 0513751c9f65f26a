package main

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	openRate = 10_000
	writers  = 64
)

// An appender makes one event durable. The number is of the event in an open
// loop, of the writer in a saturated one.
type appender func(ctx context.Context, n int) error

// openLoop appends at a fixed rate and counts latencies from planned times.
func openLoop(ctx context.Context, e env, add appender) (figures, error) {
	all := make(latencies, openRate*e.seconds)
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for n := range all {
		planned := start.Add(time.Duration(n) * time.Second / openRate)
		time.Sleep(time.Until(planned))
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			err := add(ctx, n)
			all[n] = time.Since(planned)
			return err
		})
	}
	err := g.Wait()
	return all.figures(), err
}

// saturate appends from writers that each wait for their own.
func saturate(ctx context.Context, e env, add appender) (figures, error) {
	each := make([]latencies, writers)
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for n := range each {
		g.Go(func() error {
			for time.Since(start) < time.Duration(e.seconds)*time.Second {
				began := time.Now()
				if err := add(ctx, n); err != nil {
					return err
				}
				each[n] = append(each[n], time.Since(began))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	all := slices.Concat(each...)
	f := all.figures()
	f[rate] = float64(len(all)) / elapsed.Seconds()
	return f, nil
}
