package journal

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// A crowd are callers that use a journal together, and what they know of it.
type crowd struct {
	mu      sync.Mutex // guards all below; nobody holds it in a call of the journal
	placed  map[uint64]log.Record
	ends    map[uint64]bool // of batches
	durable uint64          // records acknowledged
	erasing map[uint64]bool // erasures that began
	erased  map[uint64]bool // erasures that are done
}

// A crash is what a machine may find that lost power while the crowd was at work, and what it must find.
type crash struct {
	states  []*crashfs.FS
	durable uint64
	erasing map[uint64]bool
	erased  map[uint64]bool
	op      int
}

func newCrowd() *crowd {
	return &crowd{placed: map[uint64]log.Record{}, ends: map[uint64]bool{}, erasing: map[uint64]bool{}, erased: map[uint64]bool{}}
}

// work appends, and sometimes erases, until the journal refuses for good.
func (w *crowd) work(j *Journal, rng *rand.Rand, name string, batches int) error {
	for n := range batches {
		records := make([]log.Record, 1+rng.IntN(3))
		for i := range records {
			text := fmt.Sprintf("%s batch %d record %d ", name, n, i)
			records[i].Entry = append([]byte(text), bytes.Repeat([]byte{'.'}, rng.IntN(300))...)
			if rng.IntN(3) == 0 {
				records[i].Payload = &log.Payload{Bytes: bytes.Repeat([]byte(text), 1+rng.IntN(2)*20)}
			}
		}
		p, err := j.Enqueue(records)
		for errors.Is(err, ErrBusy) {
			time.Sleep(time.Millisecond)
			p, err = j.Enqueue(records)
		}
		if err != nil {
			return err
		}
		w.mu.Lock()
		for i, r := range records {
			w.placed[p.First()+uint64(i)] = r
		}
		end := p.First() + uint64(len(records))
		w.ends[end] = true
		w.mu.Unlock()
		<-p.Done()
		if p.Err() != nil {
			return p.Err()
		}
		w.mu.Lock()
		w.durable = max(w.durable, end)
		w.mu.Unlock()
		if records[0].Payload != nil && rng.IntN(2) == 0 {
			if err := w.erase(j, p.First()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *crowd) erase(j *Journal, index uint64) error {
	w.mu.Lock()
	w.erasing[index] = true
	w.mu.Unlock()
	if err := j.Erase(index); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.erased[index] = true
	return nil
}

// snapshot is taken in the middle of a change, while everybody else goes on: what must be there is what was there
// before it, and what may be erased is what somebody had begun to erase after it.
func (w *crowd) snapshot(f *crashfs.FS, seed uint64, op int) *crash {
	w.mu.Lock()
	c := &crash{durable: w.durable, erased: maps.Clone(w.erased), op: op}
	w.mu.Unlock()
	for n := range uint64(2) {
		c.states = append(c.states, f.After(seed<<8|n))
	}
	c.states = append(c.states, f.Restart(seed))
	w.mu.Lock()
	c.erasing = maps.Clone(w.erasing)
	w.mu.Unlock()
	return c
}

// check recovers from one state and compares it with what is known by now of all that was placed.
func (w *crowd) check(config Config, f *crashfs.FS, c *crash) error {
	config.FS, config.inline = f, true
	j, err := Open(config)
	if err != nil {
		return err
	}
	size := j.Size()
	if size < c.durable || size > 0 && !w.ends[size] {
		return fmt.Errorf("%d records, %d were durable, or a batch was split", size, c.durable)
	}
	for index := range c.erasing {
		if index >= size {
			continue
		}
		if state, err := j.HasPayload(index); c.erased[index] && (state != PayloadErased || err != nil) {
			return fmt.Errorf("payload %d was erased, now it is %d, %w", index, state, err)
		}
		if err := j.Erase(index); err != nil {
			return err
		}
	}
	for index := range size {
		want := w.placed[index]
		got, err := j.Entries(index, 1, 1)
		if err != nil || !bytes.Equal(got[0], want.Entry) {
			return fmt.Errorf("entry %d is %.40q, %w, want %.40q", index, got, err, want.Entry)
		}
		p, err := j.Payload(index)
		switch {
		case want.Payload == nil && errors.Is(err, ErrNoPayload), c.erasing[index] && errors.Is(err, ErrErased):
		case want.Payload == nil, err != nil, !bytes.Equal(p.Bytes, want.Payload.Bytes):
			return fmt.Errorf("payload %d: %d bytes, %w", index, len(p.Bytes), err)
		}
	}
	if _, err := j.Append(context.Background(), []log.Record{{Entry: []byte("after the crash")}}); err != nil {
		return err
	}
	return errors.Join(j.Check(context.Background(), nil, nil), j.Close())
}

// explore runs a crowd on a journal whose every change takes a random time, and looks at crashes in the middle of
// random changes, and after all. It returns how many groups the crowd's batches shared.
func (w *crowd) explore(seed uint64, plant func(*Config)) (groups uint64, err error) {
	rng := rand.New(rand.NewPCG(seed, 7))
	f := crashfs.New(seed)
	config := (&explorer{}).config(f)
	config.inline, config.SegmentBytes, config.SegmentSlots, config.QueueRecords = false, 8<<10, 8, 24
	j, err := Create(config)
	if err == nil {
		err = j.Close()
	}
	if err != nil {
		return 0, err
	}
	plant(&config)
	if j, err = Open(config); err != nil {
		return 0, err
	}
	wanted := map[int]bool{}
	for range 3 {
		wanted[f.Ops()+1+rng.IntN(300)] = true
	}
	var mu sync.Mutex
	var crashes []*crash
	f.OnOp(func(op int) {
		if wanted[op] {
			c := w.snapshot(f, seed<<16|uint64(op), op)
			mu.Lock()
			crashes = append(crashes, c)
			mu.Unlock()
		}
		time.Sleep(time.Duration(rand.IntN(100)) * time.Microsecond)
	})
	fails := seed%3 == 0
	if fails {
		f.FailAt(100+rng.IntN(500), crashfs.EIO, false)
	}
	errs := make(chan error)
	const callers = 6
	for n := range uint64(callers) {
		mine := rand.New(rand.NewPCG(seed, 10+n))
		go func() { errs <- w.work(j, mine, fmt.Sprintf("caller %d", n), 8) }()
	}
	for n := range callers + 1 {
		if n == callers {
			groups = j.Stats().Syncs
			go func() { errs <- j.Close() }()
		}
		select {
		case err := <-errs:
			if err != nil && !(fails && errors.Is(err, syscall.EIO)) {
				return 0, err
			}
		case <-time.After(time.Minute):
			return 0, errors.New("somebody waits for ever")
		}
	}
	f.OnOp(nil)
	crashes = append(crashes, w.snapshot(f, seed, -1))
	for _, c := range crashes {
		for n, state := range c.states {
			if err := w.check(config, state, c); err != nil {
				return 0, fmt.Errorf("change %d, state %d: %w", c.op, n, err)
			}
		}
	}
	return groups, nil
}

var crowds = flag.Int("crowds", 200, "crowds to explore")

// TestCrashesUnderLoad looks at crashes while many callers append and erase: several batches share a group, segments
// fill meanwhile, and a journal that fails has many who wait for it. All of them must hear of it.
func TestCrashesUnderLoad(t *testing.T) {
	began, rounds := time.Now(), uint64(*crowds)
	if testing.Short() {
		rounds /= 10
	}
	var batches, groups atomic.Int64
	seeds := make(chan uint64)
	var exploring sync.WaitGroup
	for range 8 {
		exploring.Go(func() {
			for seed := range seeds {
				w := newCrowd()
				n, err := w.explore(seed, func(*Config) {})
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				groups.Add(int64(n))
				batches.Add(int64(len(w.ends)))
			}
		})
	}
	for seed := range rounds {
		seeds <- seed
	}
	close(seeds)
	exploring.Wait()
	if batches.Load() < groups.Load()*3/2 {
		t.Errorf("%d batches in %d groups: they did not meet", batches.Load(), groups.Load())
	}
	t.Logf("%d crowds, %d batches in %d groups, in %v", rounds, batches.Load(), groups.Load(), time.Since(began))
}

// TestPlantedBugsUnderLoad shows that TestCrashesUnderLoad finds what it is there to find.
func TestPlantedBugsUnderLoad(t *testing.T) {
	for name, plant := range map[string]func(*Config){
		"no sync":                 func(c *Config) { c.FS = liar{FS: c.FS, noSync: true} },
		"no sync of folders":      func(c *Config) { c.FS = liar{FS: c.FS, noSyncDir: true} },
		"bytes erased before key": func(c *Config) { c.bugs.eraseBytesFirst = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(1000) {
				if _, err := newCrowd().explore(seed, plant); err != nil {
					t.Logf("found in crowd %d: %v", seed, err)
					return
				}
			}
			t.Error("not found in 1000 crowds")
		})
	}
}
