package journal

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// model is what a journal must hold: everything acknowledged or served before, whole batches, and nothing that was not
// appended at that place in this life.
type model struct {
	records []log.Record
	ends    []uint64 // of batches
	durable uint64   // records acknowledged, or found by a recovery that served them
	erasing map[uint64]bool
	erased  map[uint64]bool
	created bool
	life    int
}

func newModel() *model {
	return &model{erasing: map[uint64]bool{}, erased: map[uint64]bool{}}
}

func (m *model) clone() *model {
	c := *m
	c.records, c.ends = slices.Clip(m.records), slices.Clip(m.ends)
	c.erasing, c.erased = maps.Clone(m.erasing), maps.Clone(m.erased)
	return &c
}

// batch makes records that tell where, and in which life of the journal, they were appended.
func (m *model) batch(rng *rand.Rand) []log.Record {
	records := make([]log.Record, 1+rng.IntN(4))
	for i := range records {
		index := len(m.records) + i
		records[i].Entry = fmt.Appendf(nil, "entry %d life %d ", index, m.life)
		records[i].Entry = append(records[i].Entry, bytes.Repeat([]byte{'.'}, rng.IntN(250))...)
		if rng.IntN(3) == 0 {
			p := &log.Payload{Bytes: fmt.Appendf(nil, "payload %d life %d ", index, m.life)}
			if rng.IntN(3) == 0 {
				p.Bytes = append(p.Bytes, make([]byte, 300)...)
			}
			p.Lasting = rng.IntN(4) == 0
			records[i].Payload = p
		}
	}
	return records
}

// look compares a journal just opened with the model, and takes what it found for what must be there from now on.
func (m *model) look(j *Journal) error {
	size := j.Size()
	switch {
	case size < m.durable:
		return fmt.Errorf("%d records, but %d were durable", size, m.durable)
	case size != m.durable && !slices.Contains(m.ends, size):
		return fmt.Errorf("%d records: a batch was split; batches end at %v", size, m.ends)
	}
	m.records = slices.Clip(m.records[:size])
	m.ends = slices.DeleteFunc(slices.Clone(m.ends), func(end uint64) bool { return end > size })
	m.durable = size
	m.life++
	// A server repeats all erasures before it serves. The entry that orders one is durable before the first attempt.
	maps.Copy(m.erased, m.erasing)
	for index := range m.erased {
		if err := j.Erase(index); err != nil {
			return err
		}
		delete(m.erasing, index)
	}
	return m.compare(j)
}

func (m *model) compare(j *Journal) error {
	for from := uint64(0); from < m.durable; {
		entries, err := j.Entries(from, 1000, 1<<20)
		if err != nil || len(entries) == 0 {
			return fmt.Errorf("read entry %d: %d entries, %w", from, len(entries), err)
		}
		for _, e := range entries {
			if want := m.records[from].Entry; !bytes.Equal(e, want) {
				return fmt.Errorf("entry %d is %.40q, want %.40q", from, e, want)
			}
			from++
		}
	}
	for index, r := range m.records[:m.durable] {
		if r.Payload == nil {
			continue
		}
		if err := m.comparePayload(j, uint64(index), r.Payload); err != nil {
			return err
		}
	}
	return nil
}

func (m *model) comparePayload(j *Journal, index uint64, want *log.Payload) error {
	p, err := j.Payload(index)
	switch {
	case m.erased[index]:
		if !errors.Is(err, ErrErased) {
			return fmt.Errorf("payload %d was erased, now: %w", index, err)
		}
	case err != nil:
		return fmt.Errorf("read payload: %w", err)
	case !bytes.Equal(p.Bytes, want.Bytes) || p.Lasting != want.Lasting:
		return fmt.Errorf("payload %d is %q", index, p.Bytes)
	}
	return nil
}

// live runs random work on a journal until it fails or steps are done.
func (m *model) live(j *Journal, rng *rand.Rand, steps int) error {
	for range steps {
		switch roll := rng.IntN(12); {
		case roll < 8:
			records := m.batch(rng)
			m.records = append(m.records, records...)
			m.ends = append(m.ends, uint64(len(m.records)))
			p, err := j.Enqueue(records)
			if err != nil {
				return err
			}
			<-p.Done()
			if p.Err() != nil {
				return p.Err()
			}
			m.durable = uint64(len(m.records))
			if p.First()+uint64(len(records)) != m.durable || j.Size() != m.durable {
				return errors.New("placed elsewhere")
			}
		case roll < 10:
			if err := m.erase(j, rng); err != nil {
				return err
			}
		default:
			j.mark()
			if err := j.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *model) erase(j *Journal, rng *rand.Rand) error {
	if m.durable == 0 {
		return nil
	}
	index := rng.Uint64N(m.durable)
	switch p := m.records[index].Payload; {
	case p == nil:
		return nil
	case p.Lasting:
		if err := j.Erase(index); !errors.Is(err, ErrLasting) {
			return fmt.Errorf("erase lasting payload %d: %w", index, err)
		}
		return nil
	}
	m.erasing[index] = true
	if err := j.Erase(index); err != nil {
		return err
	}
	delete(m.erasing, index)
	m.erased[index] = true
	return nil
}

// explorer looks at crashes.
type explorer struct {
	bugs  bugs
	wrap  func(*crashfs.FS) disk.FS // between journal and file system, to plant faults
	power bool                      // crashes lose power; otherwise only the process is killed at first
	// failSync makes a sync of each life fail, drop its pages, and the process be killed before power is lost.
	failSync bool
	seeds    int // crash states per change
	points   int
	bad      []error
}

func (e *explorer) config(f *crashfs.FS) Config {
	c := Config{
		Dir: "j", FS: f, Logger: slog.New(slog.DiscardHandler), SegmentBytes: 6 << 10, SegmentSlots: 4, LargeBytes: 256,
		TailBytes: log.EntryMaxBytes, inline: true, bugs: e.bugs,
	}
	if e.wrap != nil {
		c.FS = e.wrap(f)
	}
	return c
}

// open opens, or creates if creation was not finished before the crash.
func (e *explorer) open(f *crashfs.FS, m *model) (*Journal, error) {
	j, err := Open(e.config(f))
	if !m.created && errors.Is(err, fs.ErrNotExist) {
		j, err = Create(e.config(f))
	}
	if err == nil {
		m.created = true
	}
	return j, err
}

// explore runs one life with the given seed, and at each of its changes looks at states that a crash could leave.
func (e *explorer) explore(seed uint64, steps int) {
	rng := rand.New(rand.NewPCG(seed, 2))
	f, m := crashfs.New(seed), newModel()
	f.OnOp(func(op int) {
		for n := range e.seeds {
			s := seed<<32 | uint64(op)<<12 | uint64(n)
			e.points++
			after := f.After(s)
			if !e.power && n%2 == 0 {
				after = f.Restart(s)
			}
			if err := e.survive(after, m.clone(), rand.New(rand.NewPCG(s, 3)), 0); err != nil {
				e.bad = append(e.bad, fmt.Errorf("seed %d, change %d, state %d: %w", seed, op, n, err))
			}
		}
	})
	if e.failSync {
		f.FailAt(100+rng.IntN(500), crashfs.EIO, false)
	}
	j, err := e.open(f, m)
	if err == nil {
		err = m.live(j, rng, steps)
	}
	if err == nil {
		err = j.Close()
	}
	if e.failSync && errors.Is(err, syscall.EIO) {
		e.killed(f, m, seed)
		err = nil
	}
	if err != nil {
		e.bad = append(e.bad, fmt.Errorf("seed %d: %w", seed, err))
	}
}

// killed looks at a process that is killed after a failed sync, restarts, serves, and then loses power.
func (e *explorer) killed(f *crashfs.FS, m *model, seed uint64) {
	for s := range uint64(8) {
		e.points++
		again, m := f.Restart(s), m.clone()
		j, err := e.open(again, m)
		if err == nil {
			err = m.look(j)
		}
		if err == nil {
			err = e.survive(again.After(s), m, rand.New(rand.NewPCG(s, 5)), 1)
		}
		if err != nil {
			e.bad = append(e.bad, fmt.Errorf("seed %d, killed, state %d: %w", seed, s, err))
		}
	}
}

// survive recovers, looks, lives on a little, and sometimes crashes again in the middle of that.
func (e *explorer) survive(f *crashfs.FS, m *model, rng *rand.Rand, depth int) error {
	again := depth < 2 && rng.IntN(3) == 0
	if again {
		f.CrashAt(1 + rng.IntN(30))
	}
	j, err := e.open(f, m)
	if err == nil {
		if err = m.look(j); err == nil {
			if err = m.live(j, rng, 1+rng.IntN(4)); err == nil {
				err = m.compare(j)
			}
		}
		if err == nil {
			err = j.Close()
		}
	}
	if again && (err == nil || errors.Is(err, crashfs.ErrCrashed)) {
		e.points++
		return e.survive(f.After(rng.Uint64()), m, rng, depth+1)
	}
	return err
}

var (
	crashPoints = flag.Int("crashpoints", 50_000, "crash points to explore")
	firstSeed   = flag.Int("crashseed", 1, "first seed to explore")
)

// TestCrashes explores lives and the states that crashes in them leave, among them a second and third crash in the
// recovery from the first. Nightly it runs with -crashpoints 20000000.
func TestCrashes(t *testing.T) {
	const workers = 2
	points := *crashPoints
	if testing.Short() {
		points /= 10
	}
	var wait sync.WaitGroup
	explorers := make([]explorer, workers)
	began := time.Now()
	for w := range explorers {
		wait.Go(func() {
			e := &explorers[w]
			e.seeds = 6
			for seed := uint64(*firstSeed + w); e.points < points/workers+1 && len(e.bad) == 0; seed += workers {
				e.power = seed%3 != 0
				e.failSync = seed%5 == 0
				e.explore(seed, 40)
			}
		})
	}
	wait.Wait()
	points = 0
	for _, e := range explorers {
		points += e.points
		for _, err := range e.bad[:min(5, len(e.bad))] {
			t.Error(err)
		}
	}
	t.Logf("%d crash points in %v, %.0f a second", points, time.Since(began), float64(points)/time.Since(began).Seconds())
}
