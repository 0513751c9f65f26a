package client_test

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"github.com/pipe-roll/piperoll/log/client"
)

// BenchmarkAppend logs and proves events in four streams, 100 in a call, against a log
// in memory: what an outbox adds to it. With -benchtime 100000x it is 100,000 events.
func BenchmarkAppend(b *testing.B) {
	for _, bc := range []struct {
		name        string
		outbox, put bool
	}{{"plain", false, false}, {"outbox", true, false}, {"put", true, true}} {
		b.Run(bc.name, func(b *testing.B) {
			f := newFake(nil)
			cfg := f.config()
			cfg.URL, cfg.HTTP, cfg.AllowPlainHTTP = "http://log.example.com", &http.Client{Transport: direct{f}}, true
			if bc.outbox {
				cfg.Outbox = &client.OutboxConfig{Dir: filepath.Join(b.TempDir(), "outbox")}
			}
			c := openOutbox(b, cfg)
			names := []string{"a", "b", "c", "d"}
			m, err := c.OpenMigration(b.Context(), "crm-2026", client.MigrationConfig{Streams: names})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i, name := range names {
				wg.Go(func() {
					s, err := m.OpenStream(b.Context(), name)
					for left := (b.N + i) / len(names); err == nil && left > 0; left -= 100 {
						if bc.put {
							err = s.Put(b.Context(), events(min(left, 100))...)
						} else {
							_, err = s.Append(b.Context(), events(min(left, 100))...)
						}
					}
					if err != nil {
						b.Error(fmt.Errorf("%s: %w", name, err))
					}
				})
			}
			wg.Wait()
			if err := errors.Join(m.Close(b.Context()), c.Wait(b.Context())); err != nil {
				b.Error(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkSettle opens an outbox with 20,000 acknowledged requests of one event, and settles them.
func BenchmarkSettle(b *testing.B) {
	const n = 20_000
	for b.Loop() {
		b.StopTimer()
		f := newFake(nil)
		f.held = true
		cfg := f.config()
		cfg.URL, cfg.HTTP, cfg.AllowPlainHTTP = "http://log.example.com", &http.Client{Transport: direct{f}}, true
		cfg.Outbox = &client.OutboxConfig{Dir: filepath.Join(b.TempDir(), "outbox")}
		cfg.BatchEvents = 1
		c := openOutbox(b, cfg)
		m, err := c.OpenMigration(b.Context(), "crm-2026", client.MigrationConfig{Streams: []string{"a"}})
		if err != nil {
			b.Fatal(err)
		}
		s, err := m.OpenStream(b.Context(), "a")
		for left := n; err == nil && left > 0; left -= 500 {
			err = s.Put(b.Context(), events(500)...)
		}
		if err == nil {
			_, err = s.Flush(b.Context())
		}
		if err = errors.Join(err, c.Close()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		c = openOutbox(b, cfg)
		f.with(func() { f.held = false })
		if err := errors.Join(c.Wait(b.Context()), c.Close()); err != nil {
			b.Fatal(err)
		}
	}
}
