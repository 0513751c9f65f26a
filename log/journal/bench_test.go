package journal

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// BenchmarkAppend is the journal alone, without a tree that follows: what
// cmd/bench, which compares the whole with the disk's limit, leaves out.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("%d writers of 1 KiB", writers), func(b *testing.B) {
			j, err := Create(Config{Dir: filepath.Join(b.TempDir(), "j"), FS: disk.OS(), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			records := []log.Record{{Entry: bytes.Repeat([]byte{'x'}, 1024)}}
			var placed atomic.Int64
			var wait sync.WaitGroup
			b.SetBytes(1024)
			b.ResetTimer()
			for range writers {
				wait.Go(func() {
					for placed.Add(1) <= int64(b.N) {
						if _, err := j.Append(b.Context(), records); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wait.Wait()
			b.StopTimer()
			s := j.Stats()
			b.ReportMetric(float64(s.Size)/float64(s.Syncs), "records/sync")
			b.ReportMetric(float64(s.SyncSlowest.Microseconds())/1000, "slowest-ms")
			if err := j.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
