package main

import (
	"strconv"
	"time"

	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/pipe-roll/piperoll/log/tiles"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one log. No label has values that a client chooses: routes are
// patterns, problems are those of one table, codes are classes.
type metrics struct {
	events     prometheus.Counter
	duplicates prometheus.Counter
	appends    prometheus.Histogram
	requests   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
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
		appends: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "piperoll_append_seconds", Help: "Time to make the events of a request durable, in the queue included.", ConstLabels: labels,
			Buckets: []float64{.0005, .001, .002, .004, .006, .008, .01, .015, .025, .05, .1, .25, 1, 5},
		}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "piperoll_requests_total", Help: "Requests answered, by route and class of status.", ConstLabels: labels,
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "piperoll_request_seconds", Help: "Time to answer, by route.", ConstLabels: labels,
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30},
		}, []string{"route"}),
		problems: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "piperoll_problems_total", Help: "Refused and failed requests, by problem type.", ConstLabels: labels,
		}, []string{"type"}),
	}
	reg.MustRegister(m.events, m.duplicates, m.appends, m.requests, m.seconds, m.problems)
	machinery{reg, labels}.register(l)
	return m
}

// machinery registers what the parts of a log count by themselves.
type machinery struct {
	reg    prometheus.Registerer
	labels prometheus.Labels
}

func (m machinery) register(l *ledger) {
	tree := func(f func(tiles.Stats) float64) func() float64 { return func() float64 { return f(l.tree.Stats()) } }
	disk := func(f func(journal.Stats) float64) func() float64 {
		return func() float64 { return f(l.journal.Stats()) }
	}

	m.gauge("piperoll_read_only", "1 if the log takes no entries until it is restarted.", func() float64 {
		if l.seq.ReadOnly() != nil {
			return 1
		}
		return 0
	})
	m.gauge("piperoll_queue_requests", "Requests that wait to be sequenced.", func() float64 { return float64(l.seq.Queued()) })
	m.gauge("piperoll_size", "Durable entries.", func() float64 { return float64(l.journal.Size()) })
	m.gauge("piperoll_journal_queued_records", "Records that are placed and not yet durable.", disk(func(s journal.Stats) float64 { return float64(s.QueuedRecords) }))
	m.gauge("piperoll_journal_queued_bytes", "Bytes of those records.", disk(func(s journal.Stats) float64 { return float64(s.QueuedBytes) }))
	m.counter("piperoll_journal_syncs_total", "Groups of records made durable.", disk(func(s journal.Stats) float64 { return float64(s.Syncs) }))
	m.counter("piperoll_journal_written_bytes_total", "Bytes in those groups.", disk(func(s journal.Stats) float64 { return float64(s.Written) }))
	m.counter("piperoll_journal_sync_seconds_total", "Time to write and sync them.", disk(func(s journal.Stats) float64 { return s.SyncTime.Seconds() }))
	m.counter("piperoll_erasures_total", "Payloads erased.", disk(func(s journal.Stats) float64 { return float64(s.Erased) }))

	m.gauge("piperoll_signed_size", "Size of the tree last signed.", tree(func(s tiles.Stats) float64 { return float64(s.Signed) }))
	m.gauge("piperoll_published_size", "Size of the published checkpoint.", tree(func(s tiles.Stats) float64 { return float64(s.Published) }))
	m.gauge("piperoll_behind_seconds", "For how long a signed head has not been published.", tree(func(s tiles.Stats) float64 { return s.Behind.Seconds() }))
	m.gauge("piperoll_tile_backlog", "Tiles and bundles that are written and not yet synced.", tree(func(s tiles.Stats) float64 { return float64(s.Backlog) }))
	m.counter("piperoll_rounds_total", "Heads signed.", tree(func(s tiles.Stats) float64 { return float64(s.Rounds) }))
	m.counter("piperoll_round_seconds_total", "Time of those rounds.", tree(func(s tiles.Stats) float64 { return s.RoundTime.Seconds() }))
	m.counter("piperoll_anchor_sync_seconds_total", "Of it, waiting for the anchor to be durable.", tree(func(s tiles.Stats) float64 { return s.AnchorTime.Seconds() }))
	m.counter("piperoll_publications_total", "Checkpoints published.", tree(func(s tiles.Stats) float64 { return float64(s.Publications) }))
	m.counter("piperoll_publication_seconds_total", "Time of those publications, cosigning included.", tree(func(s tiles.Stats) float64 { return s.PublishTime.Seconds() }))
	m.counter("piperoll_unpublished_total", "Publications that failed for want of cosignatures.", tree(func(s tiles.Stats) float64 { return float64(s.Unpublished) }))

	m.gauge("piperoll_index_cursor", "Entries that the index has followed.", func() float64 { return float64(l.index.Cursor()) })
	m.gauge("piperoll_index_lag", "Durable entries that the index has not followed yet.", func() float64 {
		cursor := l.index.Cursor() // before the size, which only grows
		return float64(l.journal.Size() - cursor)
	})
}

func (m machinery) gauge(name, help string, f func() float64) {
	m.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: m.labels}, f))
}

func (m machinery) counter(name, help string, f func() float64) {
	m.reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: m.labels}, f))
}

// appended counts the events of a request and the time until they were durable.
func (m *metrics) appended(n int, duplicate bool, d time.Duration) {
	if duplicate {
		m.duplicates.Add(float64(n))
		return
	}
	m.events.Add(float64(n))
	m.appends.Observe(d.Seconds())
}

// served counts an answer. Status 0 is that of a handler that wrote nothing: net/http says 200.
func (m *metrics) served(route string, status int, d time.Duration) {
	class := max(status, 200) / 100
	m.requests.WithLabelValues(route, strconv.Itoa(class)+"xx").Inc()
	m.seconds.WithLabelValues(route).Observe(d.Seconds())
}

func (m *metrics) refused(problemType string) { m.problems.WithLabelValues(problemType).Inc() }
