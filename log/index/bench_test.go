package index

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// busyOrder is a log as a migration makes it: 20 streams, each event about a
// row of its own and one of 50 tables.
func busyOrder(count int) *order {
	o := newOrder()
	rng := rand.New(rand.NewPCG(1, 2))
	payload := log.StreamOpen{Mode: log.ModeSigned, Owner: "svc:mover-1", Keys: []log.PublicKey{{9}}}.Marshal()
	for i := range 20 {
		o.add(log.Event{Actor: "svc:mover-1", Kind: "stream.open", Migration: "crm-2026", Stream: fmt.Sprintf("crm-2026/loader-%02d", i)}, "svc:mover-1", payload, 1)
	}
	for i := range count {
		var id [16]byte
		for j := range id {
			id[j] = byte(rng.Uint32())
		}
		o.add(log.Event{
			Actor: "svc:mover-1", Kind: "migration.load", Migration: "crm-2026", Stream: fmt.Sprintf("crm-2026/loader-%02d", i/25%20),
			Objects: []log.Object{{Name: "o:" + hex.EncodeToString(id[:]), Role: "row"}, {Name: fmt.Sprintf("crm.table-%02d", i%50), Role: "target"}},
		}, "svc:mover-1", nil, uint64(i%20/19))
	}
	return o
}

// cpu gives the processor time that the process has used, all threads.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFollow reports processor time per entry for batches as they come:
// a full one when catching up, a few entries when live.
func BenchmarkFollow(b *testing.B) {
	o := busyOrder(200_000)
	for _, batch := range []int{4096, 100, 20, 1} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			for b.Loop() {
				x := open(b, b.TempDir())
				began := cpu()
				for x.Cursor() < o.Size() {
					if err := x.applyBatch(o, min(o.Size(), x.Cursor()+uint64(batch))); err != nil {
						b.Fatal(err)
					}
				}
				if err := x.db.Flush(); err != nil {
					b.Fatal(err)
				}
				used := cpu() - began
				s, err := x.Stats()
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(used.Microseconds())/float64(o.Size()), "cpu-µs/entry")
				b.ReportMetric(float64(s.DiskBytes)/float64(o.Size()), "disk-B/entry")
			}
		})
	}
}

// BenchmarkMillion reports what a million entries cost, and the memory that
// following them takes beyond that of the test's own log.
func BenchmarkMillion(b *testing.B) {
	o := busyOrder(10_000)
	for b.Loop() {
		x := open(b, b.TempDir())
		debug.FreeOSMemory()
		before := residentBytes(b)
		began, used := time.Now(), cpu()
		for x.Cursor() < 1_000_000 {
			if err := x.Apply(again(o, x.Cursor())); err != nil {
				b.Fatal(err)
			}
		}
		s, err := x.Stats()
		if err != nil {
			b.Fatal(err)
		}
		n := float64(x.Cursor())
		b.ReportMetric(float64(time.Since(began).Microseconds())/n, "µs/entry")
		b.ReportMetric(float64((cpu()-used).Microseconds())/n, "cpu-µs/entry")
		b.ReportMetric(float64(s.DiskBytes)/n, "disk-B/entry")
		b.ReportMetric(float64(residentBytes(b)-before)/(1<<20), "rss-MiB")
		b.ReportMetric(0, "ns/op")
	}
}

// again gives a batch of the log's entries under new hashes, rows and seqs.
func again(o *order, from uint64) []Item {
	items := make([]Item, 0, followEntries)
	size := uint64(len(o.items))
	for i := from; i < from+followEntries; i++ {
		it := o.items[i%size]
		it.Index = i
		round := byte(i / size)
		it.Hash[0] ^= round
		it.Hash[31] ^= round
		it.Entry.Event.Seq += uint64(round) << 32
		it.Entry.Log.Received += uint64(round) * 5_000_000
		if n := len(it.Entry.Event.Objects); n > 0 {
			it.Entry.Event.Objects = append([]log.Object(nil), it.Entry.Event.Objects...)
			it.Entry.Event.Objects[0].Name = fmt.Sprintf("o:%02x%s", round, it.Entry.Event.Objects[0].Name[4:])
		}
		items = append(items, it)
	}
	return items
}

// residentBytes is the process's memory in use, from the kernel.
func residentBytes(b *testing.B) int64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skip(err)
	}
	var pages int64
	if _, err := fmt.Sscan(strings.Fields(string(text))[1], &pages); err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

func BenchmarkSearch(b *testing.B) {
	o := busyOrder(200_000)
	x := open(b, b.TempDir())
	if err := x.CatchUp(b.Context(), o); err != nil {
		b.Fatal(err)
	}
	for name, q := range map[string]Query{
		"dense":   {Migration: "crm-2026", Kind: "migration.load", By: "svc:mover-1", Limit: 100},
		"two":     {Stream: "crm-2026/loader-07", Object: "crm.table-33", Limit: 100},
		"nothing": {Stream: "crm-2026/loader-07", Object: "crm.table-33", Kind: "stream.open", Limit: 100},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, _, _, err := x.Search(b.Context(), q, o.entry); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
