package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one log. No label has values that a client chooses: routes are
// patterns, problems are those of one table.
type metrics struct {
	events     prometheus.Counter
	duplicates prometheus.Counter
	requests   *prometheus.HistogramVec
	problems   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, l *ledger) *metrics {
	labels := prometheus.Labels{"origin": l.c.Origin}
	m := &metrics{
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "piperoll_events_total", Help: "Entries appended over HTTP.", ConstLabels: labels,
		}),
		duplicates: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "piperoll_duplicate_events_total", Help: "Events that were in the log already.", ConstLabels: labels,
		}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "piperoll_request_seconds", Help: "Time to answer, by route.", ConstLabels: labels,
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30},
		}, []string{"route"}),
		problems: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "piperoll_problems_total", Help: "Refused and failed requests, by problem type.", ConstLabels: labels,
		}, []string{"type"}),
	}
	reg.MustRegister(m.events, m.duplicates, m.requests, m.problems)
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, f))
	}
	gauge("piperoll_size", "Durable entries.", func() float64 { return float64(l.journal.Size()) })
	gauge("piperoll_signed_size", "Size of the tree last signed.", func() float64 { return float64(l.tree.Head().Size) })
	gauge("piperoll_index_cursor", "Entries that the index has followed.", func() float64 { return float64(l.index.Cursor()) })
	gauge("piperoll_queue_requests", "Requests that wait to be sequenced.", func() float64 { return float64(l.seq.Queued()) })
	gauge("piperoll_read_only", "1 if the log takes no entries until it is restarted.", func() float64 {
		if l.seq.ReadOnly() != nil {
			return 1
		}
		return 0
	})
	return m
}

func (m *metrics) appended(n int, duplicate bool) {
	if duplicate {
		m.duplicates.Add(float64(n))
		return
	}
	m.events.Add(float64(n))
}

func (m *metrics) served(route string, d time.Duration) {
	m.requests.WithLabelValues(route).Observe(d.Seconds())
}

func (m *metrics) refused(problemType string) { m.problems.WithLabelValues(problemType).Inc() }
