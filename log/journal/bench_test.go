package journal

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// raw is the least that group commit can cost: one goroutine that writes what waits to a zeroed file and syncs it.
type raw struct {
	file  disk.File
	queue chan rawWrite
	done  sync.WaitGroup
}

type rawWrite struct {
	data []byte
	done chan struct{}
}

func newRaw(b *testing.B, bytes int64) *raw {
	f, err := disk.OS().Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < bytes; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, off); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	r := &raw{file: f, queue: make(chan rawWrite, 65536)}
	r.done.Go(func() { r.write(b, bytes) })
	return r
}

func (r *raw) write(b *testing.B, limit int64) {
	var group []byte
	var waiting []rawWrite
	off := int64(0)
	for w := range r.queue {
		group, waiting = append(group[:0], w.data...), append(waiting[:0], w)
		for n := len(r.queue); n > 0; n-- {
			w := <-r.queue
			group, waiting = append(group, w.data...), append(waiting, w)
		}
		if off+int64(len(group)) > limit {
			off = 0
		}
		if _, err := r.file.WriteAt(group, off); err != nil {
			b.Error(err)
		}
		if err := r.file.Sync(); err != nil {
			b.Error(err)
		}
		off += int64(len(group))
		for _, w := range waiting {
			close(w.done)
		}
	}
}

func (r *raw) put(data []byte) (<-chan struct{}, error) {
	w := rawWrite{data, make(chan struct{})}
	r.queue <- w
	return w.done, nil
}

func (r *raw) close(b *testing.B) {
	close(r.queue)
	r.done.Wait()
	if err := r.file.Close(); err != nil {
		b.Fatal(err)
	}
}

func benchJournal(b *testing.B) (*Journal, func([]byte) (<-chan struct{}, error)) {
	j, err := Create(Config{Dir: filepath.Join(b.TempDir(), "j"), FS: disk.OS(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return j, func(data []byte) (<-chan struct{}, error) {
		p, err := j.Enqueue([]log.Record{{Entry: data}})
		if err != nil {
			return nil, err
		}
		return p.Done(), nil
	}
}

// openLoop sends at a fixed rate, whatever comes back, and counts latency from when a record was due.
func openLoop(b *testing.B, name string, perSecond int, lasts time.Duration, put func([]byte) (<-chan struct{}, error)) time.Duration {
	entry := bytes.Repeat([]byte{'x'}, 1024)
	n := int(lasts.Seconds() * float64(perSecond))
	latencies := make([]time.Duration, n)
	var wait sync.WaitGroup
	began := time.Now()
	for i := 0; i < n; {
		for due := int(time.Since(began).Seconds() * float64(perSecond)); i < min(due, n); i++ {
			at := began.Add(time.Duration(float64(i) / float64(perSecond) * 1e9))
			done, err := put(entry)
			if err != nil {
				b.Fatal(err)
			}
			slot := &latencies[i]
			wait.Go(func() {
				<-done
				*slot = time.Since(at)
			})
		}
		time.Sleep(100 * time.Microsecond)
	}
	wait.Wait()
	slices.Sort(latencies)
	p99 := latencies[n*99/100]
	b.Logf("%s: open loop %d/s: p50 %v p99 %v max %v", name, perSecond, latencies[n/2], p99, latencies[n-1])
	return p99
}

// saturated has writers that each wait for their record before they send the next.
func saturated(b *testing.B, name string, writers int, lasts time.Duration, put func([]byte) (<-chan struct{}, error)) float64 {
	entry := bytes.Repeat([]byte{'x'}, 1024)
	ctx, cancel := context.WithTimeout(context.Background(), lasts)
	defer cancel()
	counts := make([]int, writers)
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			for ctx.Err() == nil {
				done, err := put(entry)
				if err != nil {
					b.Error(err)
					return
				}
				<-done
				counts[w]++
			}
		})
	}
	wait.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	rate := float64(total) / lasts.Seconds()
	b.Logf("%s: %d writers: %.0f records/s", name, writers, rate)
	return rate
}

// BenchmarkCommit compares the journal with raw group commit on the same disk in the same run.
func BenchmarkCommit(b *testing.B) {
	const lasts = 4 * time.Second
	for b.Loop() {
		var ratios []float64
		for range 3 {
			r := newRaw(b, 512<<20)
			base := openLoop(b, "raw", 10_000, lasts, r.put)
			r.close(b)
			j, put := benchJournal(b)
			ratios = append(ratios, float64(openLoop(b, "journal", 10_000, lasts, put))/float64(base))
			b.Logf("%+v", j.Stats())
			if err := j.Close(); err != nil {
				b.Fatal(err)
			}
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[1], "p99/raw")
		ratios = ratios[:0]
		for range 3 {
			r := newRaw(b, 512<<20)
			base := saturated(b, "raw", 64, lasts, r.put)
			r.close(b)
			j, put := benchJournal(b)
			ratios = append(ratios, saturated(b, "journal", 64, lasts, put)/base)
			b.Logf("%+v", j.Stats())
			if err := j.Close(); err != nil {
				b.Fatal(err)
			}
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[1], "rate/raw")
	}
}
