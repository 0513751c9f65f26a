package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/pipe-roll/piperoll/cmd/bench/engine"
	"github.com/pipe-roll/piperoll/cmd/bench/measure"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

// A batching is how many entries Tessera collects, and for how long at most.
// It cuts batches by age even while it writes, so an age that is shorter than
// a write piles them up; which is best depends on the load and the disk.
type batching struct {
	size uint
	age  time.Duration
}

func (b batching) String() string { return fmt.Sprintf("batches of %d or %v", b.size, b.age) }

func (b batching) under(load measure.Load) func(context.Context, measure.Env) (measure.Figures, error) {
	return func(ctx context.Context, e measure.Env) (f measure.Figures, err error) {
		ctx, end := context.WithCancel(ctx)
		defer end() // what shutdown leaves running would go on beside the next bench
		log, reader, shutdown, err := b.open(ctx, filepath.Join(e.Dir, "tessera"))
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, shutdown(ctx)) }()
		next, acknowledged := leaves(), atomic.Uint64{}
		time.Sleep(engine.WarmUp)
		f, err = load(ctx, e, func(ctx context.Context, _ int) error {
			_, err := log.Add(ctx, tessera.NewEntry(next()))()
			acknowledged.Add(1)
			return err
		})
		if err != nil {
			return nil, err
		}
		size, err := reader.IntegratedSize(ctx)
		if err == nil && size != acknowledged.Load() {
			err = fmt.Errorf("of %d entries Tessera has %d", acknowledged.Load(), size)
		}
		return f, err
	}
}

func (b batching) open(ctx context.Context, dir string) (*tessera.Appender, tessera.LogReader, func(context.Context) error, error) {
	skey, _, err := note.GenerateKey(rand.Reader, engine.Origin)
	if err != nil {
		return nil, nil, nil, err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, nil, nil, err
	}
	driver, err := posix.New(ctx, posix.Config{Path: dir})
	if err != nil {
		return nil, nil, nil, err
	}
	// The same cadence as ours: a shorter one takes more of the disk from the entries.
	options := tessera.NewAppendOptions().WithCheckpointSigner(signer).WithCheckpointInterval(time.Second).WithBatching(b.size, b.age)
	log, shutdown, reader, err := tessera.NewAppender(ctx, driver, options)
	return log, reader, shutdown, err
}
