package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/pipe-roll/piperoll/log/tiles"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"
)

const (
	entryBytes = 1024
	openRate   = 10_000
	writers    = 64
)

// rawResults are the limits of this disk in this run.
type rawResults struct {
	p99  time.Duration
	rate float64
}

// An appender makes one entry durable.
type appender func(ctx context.Context, entry []byte) error

// openLoop appends at a fixed rate and gives the latencies from planned times.
func openLoop(ctx context.Context, rate, seconds int, add appender) (latencies, error) {
	n := rate * seconds
	all := make(latencies, n)
	entry := make([]byte, entryBytes)
	rand.Read(entry)
	var wg sync.WaitGroup
	errs := make(chan error, 1)
	start := time.Now()
	for i := range n {
		planned := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		if d := time.Until(planned); d > 0 {
			time.Sleep(d)
		}
		wg.Go(func() {
			if err := add(ctx, entry); err != nil {
				select {
				case errs <- err:
				default:
				}
			}
			all[i] = time.Since(planned)
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return nil, err
	default:
		return all, nil
	}
}

// saturate appends from many goroutines, each waiting for its own.
func saturate(ctx context.Context, seconds int, add appender) (float64, latencies, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	each := make([]latencies, writers)
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for i := range writers {
		g.Go(func() error {
			entry := make([]byte, entryBytes)
			rand.Read(entry)
			for time.Since(start) < time.Duration(seconds)*time.Second {
				began := time.Now()
				if err := add(ctx, entry); err != nil {
					return err
				}
				each[i] = append(each[i], time.Since(began))
			}
			return nil
		})
	}
	err := g.Wait()
	elapsed := time.Since(start)
	var all latencies
	for _, l := range each {
		all = append(all, l...)
	}
	return float64(len(all)) / elapsed.Seconds(), all, err
}

// A rawLog is the least that is durable: what waits is written at the end of a
// file that was filled with zeros before, then synced, then acknowledged.
type rawLog struct {
	f     *os.File
	queue chan rawAppend
	done  chan struct{}
}

type rawAppend struct {
	entry []byte
	done  chan error
}

const rawFileBytes = 1 << 30

func newRawLog(dir string, bytes int64) (*rawLog, error) {
	f, err := os.Create(filepath.Join(dir, "raw"))
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < bytes; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, off); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	l := &rawLog{f: f, queue: make(chan rawAppend, 1<<16), done: make(chan struct{})}
	go l.write()
	return l, nil
}

func (l *rawLog) add(_ context.Context, entry []byte) error {
	a := rawAppend{entry, make(chan error, 1)}
	l.queue <- a
	return <-a.done
}

func (l *rawLog) write() {
	defer close(l.done)
	var buf []byte
	var group []rawAppend
	off := int64(0)
	for a := range l.queue {
		buf, group = append(buf[:0], a.entry...), append(group[:0], a)
		for len(l.queue) > 0 && len(group) < 4096 {
			a = <-l.queue
			buf, group = append(buf, a.entry...), append(group, a)
		}
		if off+int64(len(buf)) > rawFileBytes {
			off = 0
		}
		_, err := l.f.WriteAt(buf, off)
		if err == nil {
			err = dataSync(l.f)
		}
		off += int64(len(buf))
		for _, a := range group {
			a.done <- err
		}
	}
}

func (l *rawLog) close() error {
	close(l.queue)
	<-l.done
	return l.f.Close()
}

func rawOpen(ctx context.Context, e env) (string, error) {
	l, err := newRawLog(e.dir, rawFileBytes)
	if err != nil {
		return "", err
	}
	all, err := openLoop(ctx, openRate, e.seconds, l.add)
	if err != nil {
		return "", err
	}
	text := all.String()
	e.raw.p99 = all.at(.99)
	return text, l.close()
}

func rawSaturated(ctx context.Context, e env) (string, error) {
	l, err := newRawLog(e.dir, rawFileBytes)
	if err != nil {
		return "", err
	}
	rate, all, err := saturate(ctx, e.seconds, l.add)
	if err != nil {
		return "", err
	}
	e.raw.rate = rate
	return fmt.Sprintf("%.0f/s, %s", rate, all), l.close()
}

// withEngine runs f on a journal whose tree is integrated, signed and published.
func withEngine(ctx context.Context, e env, f func(j *journal.Journal) error) error {
	logger := slog.New(slog.DiscardHandler)
	j, err := journal.Create(journal.Config{Dir: filepath.Join(e.dir, "journal"), FS: disk.OS(), Logger: logger})
	if err != nil {
		return err
	}
	skey, vkey, err := note.GenerateKey(rand.Reader, "log.example/bench")
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	c := tiles.Config{
		Dir: filepath.Join(e.dir, "tiles"), StateDir: filepath.Join(e.dir, "state"), AnchorDir: filepath.Join(e.dir, "anchor"),
		FS: disk.OS(), Origin: "log.example/bench", Signer: signer, Verifier: verifier, Source: j, Logger: logger,
	}
	if err := tiles.Create(c); err != nil {
		return err
	}
	tree, err := tiles.Open(c)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- tree.Run(running) }()
	time.Sleep(2 * time.Second) // the first segments are prepared
	err = f(j)
	stop()
	if rerr := <-ended; err == nil && ctx.Err() == nil && rerr != nil && running.Err() == nil {
		err = rerr
	}
	if tree.Head().Size != j.Size() && err == nil {
		err = fmt.Errorf("the tree has %d of %d entries", tree.Head().Size, j.Size())
	}
	if cerr := tree.Close(); err == nil {
		err = cerr
	}
	if cerr := j.Close(); err == nil {
		err = cerr
	}
	return err
}

func adder(j *journal.Journal) appender {
	return func(ctx context.Context, entry []byte) error {
		_, err := j.Append(ctx, []log.Record{{Entry: entry}})
		return err
	}
}

func engineOpen(ctx context.Context, e env) (text string, err error) {
	err = withEngine(ctx, e, func(j *journal.Journal) error {
		all, err := openLoop(ctx, openRate, e.seconds, adder(j))
		text = all.String()
		if e.raw.p99 > 0 {
			text += fmt.Sprintf(", %.1fx raw p99", float64(all.at(.99))/float64(e.raw.p99))
		}
		return err
	})
	return text, err
}

func engineSaturated(ctx context.Context, e env) (text string, err error) {
	err = withEngine(ctx, e, func(j *journal.Journal) error {
		rate, all, err := saturate(ctx, e.seconds, adder(j))
		text = fmt.Sprintf("%.0f/s, %s", rate, all)
		if e.raw.rate > 0 {
			text += fmt.Sprintf(", %.2f of raw", rate/e.raw.rate)
		}
		return err
	})
	return text, err
}
