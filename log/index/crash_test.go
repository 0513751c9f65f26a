package index

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// A reference knows what an index holds that has followed an order so far: all keys and values, hashed.
type reference struct {
	order *order
	sums  map[uint64]log.Hash
}

// batch is how many entries follow each other at once.
const batch = 20

func newReference(t testing.TB, o *order) *reference {
	t.Helper()
	r := &reference{o, map[uint64]log.Hash{}}
	x, err := Open((&explorer{}).config(crashfs.New(1)))
	if err != nil {
		t.Fatal(err)
	}
	for {
		sum, err := dumpSum(x)
		if err != nil {
			t.Fatal(err)
		}
		r.sums[x.Cursor()] = sum
		if x.Cursor() == o.Size() {
			break
		}
		if err := r.follow(x); err != nil {
			t.Fatal(err)
		}
	}
	closeIndex(t, x)
	return r
}

// follow applies the next batch.
func (r *reference) follow(x *Index) error {
	from := x.Cursor()
	return x.Apply(r.order.items[from:min(from+batch, r.order.Size())])
}

// check compares all that the index holds.
func (r *reference) check(x *Index) error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	want, ok := r.sums[x.Cursor()]
	if !ok {
		return fmt.Errorf("the cursor is at %d, inside a batch", x.Cursor())
	}
	if got, err := dumpSum(x); err != nil || got != want {
		return fmt.Errorf("with %d entries followed it holds something else, %w", x.Cursor(), err)
	}
	return nil
}

func dumpSum(x *Index) (log.Hash, error) {
	it, err := x.db.NewIter(nil)
	if err != nil {
		return log.Hash{}, err
	}
	h := sha256.New()
	for it.First(); it.Valid(); it.Next() {
		h.Write(fmt.Appendf(nil, "%d %s=%d %s\n", len(it.Key()), it.Key(), len(it.Value()), it.Value()))
	}
	return log.Hash(h.Sum(nil)), it.Close()
}

// explorer looks at crashes.
type explorer struct {
	wrap  func(*crashfs.FS) disk.FS // between Pebble and the file system, to plant faults
	seeds int                       // crash states per change

	durable uint64 // entries that were followed and written out, and have to be there

	mu sync.Mutex // guards all below: Pebble writes in the background
	crashfs.Count
}

func (e *explorer) config(f *crashfs.FS) Config {
	c := Config{Dir: "index", Origin: origin, CacheBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler), pause: time.Millisecond, fs: simFS{f}}
	if e.wrap != nil {
		c.fs = simFS{e.wrap(f)}
	}
	return c
}

// A state is what a crash left at some time.
type state struct {
	f       *crashfs.FS
	durable uint64
	seed    uint64
	op      int
	name    string
}

// explore runs one life, and looks at states that crashes at its changes leave.
func (e *explorer) explore(r *reference, seed uint64, moves int) {
	rng := rand.New(rand.NewPCG(seed, 2))
	f := crashfs.New(seed)
	e.durable = 0
	var states []state
	f.OnOp(func(op int, name string) {
		e.mu.Lock()
		defer e.mu.Unlock()
		for n := range e.seeds {
			s := seed<<32 | uint64(op)<<12 | uint64(n)
			if seed%3 == 0 && n%2 == 0 {
				// Pebble takes a manifest for durable that may be pages in memory, and removes what it lists no more:
				// if the power fails then, tables are missing and the index is built again, which is slow, not wrong.
				states = append(states, state{f.Restart(s), 0, s, op, name})
				continue
			}
			states = append(states, state{f.After(s), e.durable, s, op, name})
		}
	})
	x, err := Open(e.config(f))
	if err == nil {
		err = errors.Join(e.live(x, f, r, rng, moves), x.Close())
	}
	if err != nil {
		e.Bad = append(e.Bad, fmt.Errorf("seed %d: %w", seed, err))
	}
	for _, s := range states {
		e.Add(part(s.name), false)
		e.durable = s.durable
		if err := e.survive(s.f, r, rand.New(rand.NewPCG(s.seed, 3)), 0); err != nil {
			e.Bad = append(e.Bad, fmt.Errorf("seed %d, change %d of %s: %w", seed, s.op, s.name, err))
		}
	}
}

// live follows, and writes out what was followed, in some order.
func (e *explorer) live(x *Index, f *crashfs.FS, r *reference, rng *rand.Rand, moves int) error {
	for range moves {
		if x.Cursor() < r.order.Size() && rng.IntN(3) > 0 {
			if err := r.follow(x); err != nil {
				return err
			}
			continue
		}
		if err := e.flush(x, f); err != nil {
			return err
		}
	}
	return nil
}

// flush writes out what is in memory, unless the disk fails or the machine crashes meanwhile.
func (e *explorer) flush(x *Index, f *crashfs.FS) error {
	if err := x.enter(); err != nil {
		return err
	}
	cursor := x.Cursor()
	written, err := x.db.AsyncFlush()
	x.leave()
	if err != nil {
		return err
	}
	for {
		select {
		case <-written:
			e.mu.Lock()
			defer e.mu.Unlock()
			if !f.Crashed() {
				e.durable = cursor
			}
			return nil
		case <-time.After(time.Millisecond):
			if err := x.Err(); err != nil || f.Failed() > 0 {
				return err
			}
			if f.Crashed() {
				return crashfs.ErrCrashed
			}
		}
	}
}

// survive opens, which nothing that a crash leaves may hinder, compares all with the reference, follows to the end, and
// sometimes crashes again in the middle of that.
func (e *explorer) survive(f *crashfs.FS, r *reference, rng *rand.Rand, depth int) error {
	again := depth < 2 && rng.IntN(2) == 0
	if again {
		f.CrashAt(1 + rng.IntN(40))
	}
	x, err := Open(e.config(f))
	recovering := err != nil
	if err == nil {
		if err = r.check(x); err == nil && x.Cursor() < e.durable {
			err = fmt.Errorf("%d entries followed, but %d were written out", x.Cursor(), e.durable)
		}
		if err == nil {
			err = e.live(x, f, r, rng, 1+rng.IntN(6))
		}
		if err == nil && !again {
			for err == nil && x.Cursor() < r.order.Size() {
				err = r.follow(x)
			}
			err = errors.Join(err, r.check(x))
		}
		if closed := x.Close(); !f.Crashed() {
			err = errors.Join(err, closed)
		}
	}
	if again && (err == nil || f.Crashed()) {
		e.Add(part(f.Changed()), recovering)
		return e.survive(f.After(rng.Uint64()), r, rng, depth+1)
	}
	return err
}

// part names what a file of Pebble is.
func part(name string) string {
	switch base := filepath.Base(name); {
	case strings.HasPrefix(base, "MANIFEST"), strings.HasPrefix(base, "marker"):
		return "index manifest"
	case strings.HasSuffix(base, ".sst"):
		return "index tables"
	}
	return "index, other"
}

// The index's share of the suite, in percent.
const crashShare = 2

// TestCrashes explores lives and the states that crashes in them leave, among them a second and third crash in the
// recovery from the first: the index opens, holds what some earlier entries give, to the byte, and follows on.
func TestCrashes(t *testing.T) { explore(t, crashfs.Points(10_000, crashShare)) }

// TestCrashesNightly is TestCrashes at length, as far as memory goes: each manifest that fails leaves a Pebble behind
// that is never closed.
func TestCrashesNightly(t *testing.T) { explore(t, crashfs.Points(1_000_000, crashShare)) }

func explore(t *testing.T, points int) {
	r := newReference(t, randomOrder(77, 100))
	crashfs.Explore(t, "index", points, func(seed uint64, c *crashfs.Count) {
		e := &explorer{seeds: 2}
		e.explore(r, seed, 10)
		*c = e.Count
	})
}
