package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/cmd/bench/engine"
	"github.com/pipe-roll/piperoll/cmd/bench/measure"
	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/reader"
	"golang.org/x/sync/errgroup"
)

// What the benches of a large log measure.
var (
	cpuFirst    = measure.Quantity{Name: "CPU per event, first tenth", Format: "%.1f", Unit: "us"}
	cpuLast     = measure.Quantity{Name: "CPU per event, last tenth", Format: "%.1f", Unit: "us"}
	cpuGrowth   = measure.Quantity{Name: "CPU, last to first", Format: "%.2f"}
	timeFirst   = measure.Quantity{Name: "time per event, first tenth", Format: "%.1f", Unit: "us"}
	timeLast    = measure.Quantity{Name: "time per event, last tenth", Format: "%.1f", Unit: "us"}
	timeGrowth  = measure.Quantity{Name: "time, last to first", Format: "%.2f"}
	restartCold = measure.Quantity{Name: "restart, nothing cached", Format: "%.2f", Unit: "s"}
	restartKill = measure.Quantity{Name: "restart after kill -9 under load", Format: "%.2f", Unit: "s"}
	rssStarted  = measure.Quantity{Name: "RSS after start", Format: "%.0f", Unit: "MiB"}
	rssLoaded   = measure.Quantity{Name: "RSS at most", Format: "%.0f", Unit: "MiB"}
	verified    = measure.Quantity{Name: "verified per core", Format: "%.0f", Unit: "/s"}
	perEvent    = measure.Quantity{Name: "in all", Format: "%.0f", Unit: "B per event"}
	seven1M     = measure.Quantity{Name: "seven years at 1 M a day", Format: "%.1f", Unit: "TB"}
	seven26M    = measure.Quantity{Name: "seven years at 26 M a day", Format: "%.0f", Unit: "TB"}
)

// steps of filling, of which the last is compared with the first.
const steps = 10

// A large log is filled once, by the first bench that needs it, and serves all of them.
type large struct {
	binary serverBinary
	dir    string
	events int
	costs  []engine.Cost
}

// set has the benches of a large log, which build on each other.
func (l *large) set() measure.Set {
	name := fmt.Sprintf("size: %d events, %s: ", l.events, engine.PayloadSizes)
	return measure.Set{Rounds: 1, Benches: []measure.Bench{
		{Name: name + "appending them", Goals: measure.Goals{cpuGrowth.AtMost(1.2), timeGrowth.AtMost(1.2)}, Run: l.on(l.growth)},
		{Name: name + "bytes on disk per event", Run: l.on(l.onDisk)},
		{Name: name + "restart", Goals: measure.Goals{restartCold.Below(3), restartKill.Below(3), rssStarted.Below(400)}, Run: l.on(l.restart)},
		{Name: name + "5,000 events/s over HTTP and random proofs", Goals: measure.Goals{rssLoaded.Below(400)}, Run: l.on(l.loaded)},
		{Name: name + "random inclusion proofs over HTTP", Goals: measure.Goals{measure.Rate.AtLeast(5_000), verified.AtLeast(50_000)}, Run: l.on(l.proofs)},
	}}
}

// on fills the log before a bench if nobody has.
func (l *large) on(run func(context.Context, measure.Env) (measure.Figures, error)) func(context.Context, measure.Env) (measure.Figures, error) {
	return func(ctx context.Context, e measure.Env) (measure.Figures, error) {
		if l.costs == nil {
			if err := l.binary.create(ctx, l.dir, "1s"); err != nil {
				return nil, err
			}
			costs, err := engine.Fill(ctx, l.dir, l.events, max(1, l.events/steps))
			if err != nil {
				return nil, err
			}
			l.costs = costs
		}
		return run(ctx, e)
	}
}

func (l *large) growth(context.Context, measure.Env) (measure.Figures, error) {
	first, last := l.costs[0], l.costs[len(l.costs)-1]
	us := func(d time.Duration, c engine.Cost) float64 {
		return float64(d) / float64(c.Events) / float64(time.Microsecond)
	}
	f := measure.Figures{
		cpuFirst: us(first.CPU, first), cpuLast: us(last.CPU, last),
		timeFirst: us(first.Elapsed, first), timeLast: us(last.Elapsed, last),
	}
	f[cpuGrowth], f[timeGrowth] = f[cpuLast]/f[cpuFirst], f[timeLast]/f[timeFirst]
	return f, nil
}

// onDisk adds up the blocks of the log's files, of which some lie ready for what comes.
func (l *large) onDisk(context.Context, measure.Env) (measure.Figures, error) {
	bytes := map[string]int64{}
	err := filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes[partOf(strings.TrimPrefix(path, l.dir+"/"))] += measure.DiskBytes(info)
		}
		return err
	})
	f := measure.Figures{}
	for part, n := range bytes {
		each := float64(n) / float64(l.events)
		f[measure.Quantity{Name: part, Format: "%.1f", Unit: "B"}] = each
		f[perEvent] += each
	}
	const days, tera = 7 * 365.25, 1e12
	f[seven1M], f[seven26M] = f[perEvent]*1e6*days/tera, f[perEvent]*26e6*days/tera
	return f, err
}

// parts of a log by the folders of their files; the first that fits counts.
var parts = []struct{ folder, name string }{
	{"data/journal/segments/", "journal"},
	{"data/journal/keys/", "keys of payloads"},
	{"data/journal/tables/", "tables of the journal"},
	{"data/tiles/tile/entries/", "entry bundles"},
	{"data/tiles/", "hash tiles"},
	{"data/index/", "index"},
	{"", "the rest"},
}

func partOf(file string) string {
	for _, p := range parts {
		if strings.HasPrefix(file, p.folder) {
			return p.name
		}
	}
	return file
}

// restart times the server from its start until it says that it is ready: with
// nothing of the log in memory, and after a crash under load.
func (l *large) restart(ctx context.Context, e measure.Env) (measure.Figures, error) {
	f := measure.Figures{}
	if err := measure.Uncache(l.dir); err != nil {
		return nil, err
	}
	began := time.Now()
	s, err := l.binary.start(ctx, l.dir)
	if err != nil {
		return nil, err
	}
	f[restartCold] = time.Since(began).Seconds()
	if f[rssStarted], err = s.rss(); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	cut := make(chan error, 1)
	go func() {
		_, err := s.load(ctx, "killed", 10_000, 100, 2*e.Seconds)
		cut <- err
	}()
	time.Sleep(time.Duration(e.Seconds) * time.Second)
	if err := s.kill(); err != nil {
		return nil, err
	}
	if err := <-cut; err == nil {
		return nil, errors.New("the load had ended before the server was killed")
	}
	began = time.Now()
	if s, err = l.binary.start(ctx, l.dir); err != nil {
		return nil, err
	}
	f[restartKill] = time.Since(began).Seconds()
	return f, s.stop()
}

// loaded watches the server's memory while it takes events and makes proofs.
func (l *large) loaded(ctx context.Context, e measure.Env) (f measure.Figures, err error) {
	s, err := l.binary.start(ctx, l.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	g, gctx := errgroup.WithContext(ctx)
	running, stop := context.WithCancel(gctx)
	g.Go(func() error {
		defer stop()
		f, err = s.load(gctx, "loaded", 5_000, 100, e.Seconds)
		return err
	})
	g.Go(func() error {
		for running.Err() == nil {
			if _, err := s.proof(gctx, rand.Uint64N(uint64(l.events))); err != nil {
				return err
			}
		}
		return nil
	})
	var most float64
	g.Go(func() error {
		for running.Err() == nil {
			rss, err := s.rss()
			if err != nil {
				return err
			}
			most = max(most, rss)
			time.Sleep(50 * time.Millisecond)
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	f[rssLoaded] = most
	return f, nil
}

func (s *server) proof(ctx context.Context, index uint64) ([]byte, error) {
	return s.get(ctx, fmt.Sprintf("/v1/proofs/inclusion/%d", index), s.admin)
}

// A served proof is of the entry at index.
type served struct {
	index uint64
	proof []byte
}

// proofs fetches proofs of random entries as fast as the server makes them, and
// then verifies them with what a client has: leaf hashes and the log's key.
func (l *large) proofs(ctx context.Context, e measure.Env) (f measure.Figures, err error) {
	s, err := l.binary.start(ctx, l.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	var mu sync.Mutex
	var all []served
	f, err = measure.Saturate(connections)(ctx, e, func(ctx context.Context, _ int) error {
		p := served{index: rand.Uint64N(uint64(l.events))}
		p.proof, err = s.proof(ctx, p.index)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	f[verified], err = verify(ctx, s, all)
	return f, err
}

// verifyMost bounds the proofs that are verified, since each needs its leaf hash.
const verifyMost = 20_000

// verify checks proofs on one core and returns how many it did a second. Proofs
// come under few checkpoints, whose signatures are verified once.
func verify(ctx context.Context, s *server, all []served) (perSecond float64, err error) {
	all = all[:min(len(all), verifyMost)]
	leaves, err := s.leaves(ctx, all)
	if err != nil {
		return 0, err
	}
	key, err := s.logKey()
	if err != nil {
		return 0, err
	}
	heads := map[string]log.Head{}
	began := time.Now()
	for i, of := range all {
		p, err := log.ParseInclusionProof(of.proof)
		if err != nil {
			return 0, err
		}
		head, known := heads[string(p.Checkpoint)]
		if !known {
			c, err := log.OpenCheckpoint(p.Checkpoint, key)
			if err != nil {
				return 0, err
			}
			head, heads[string(p.Checkpoint)] = c.Head, c.Head
		}
		if err := log.CheckInclusion(head, of.index, leaves[i], p.Path); err != nil {
			return 0, err
		}
	}
	return float64(len(all)) / time.Since(began).Seconds(), nil
}

// leaves gives the leaf hashes of entries, from the log's tiles.
func (s *server) leaves(ctx context.Context, all []served) ([]log.Hash, error) {
	checkpoint, err := s.checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	from := reader.HTTP(s.url, s.admin, s.http)
	tiles := map[uint64][]log.Hash{}
	leaves := make([]log.Hash, len(all))
	for i, of := range all {
		n := of.index / log.TileWidth
		if tiles[n] == nil {
			id := log.TileID{Index: n, Width: int(min(log.TileWidth, checkpoint.Size-n*log.TileWidth))}
			b, err := from.Tile(ctx, id)
			if err != nil {
				return nil, err
			}
			if tiles[n], err = log.ParseTile(b, id.Width); err != nil {
				return nil, err
			}
		}
		leaves[i] = tiles[n][of.index%log.TileWidth]
	}
	return leaves, nil
}
