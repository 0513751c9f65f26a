package measure

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// An Appender makes one event durable. The number is of the event in an open
// loop, of the writer in a saturated one.
type Appender func(ctx context.Context, n int) error

// A Load drives an appender for the seconds of a round.
type Load func(ctx context.Context, e Env, add Appender) (Figures, error)

// OpenLoop appends at a fixed rate and counts latencies from planned times. It
// waits for all answers; where they take longer than the load did, the rate of
// answers shows it.
func OpenLoop(perSecond int) Load {
	return func(ctx context.Context, e Env, add Appender) (Figures, error) {
		all := make([]time.Duration, perSecond*e.Seconds)
		g, ctx := errgroup.WithContext(ctx)
		start := time.Now()
		for n := range all {
			planned := start.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
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
		return Latencies(all), err
	}
}

// Saturate appends from writers that each wait for their own.
func Saturate(writers int) Load {
	return func(ctx context.Context, e Env, add Appender) (Figures, error) {
		each := make([][]time.Duration, writers)
		g, ctx := errgroup.WithContext(ctx)
		start := time.Now()
		for n := range each {
			g.Go(func() error {
				for time.Since(start) < time.Duration(e.Seconds)*time.Second {
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
		f := Latencies(all)
		f[Rate] = float64(len(all)) / elapsed.Seconds()
		return f, nil
	}
}
