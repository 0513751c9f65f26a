package tiles

import "time"

// Stats are counts since Open, and gauges, for metrics.
type Stats struct {
	Signed, Published, Recovery uint64 // sizes

	Rounds       uint64        // that signed a new head
	RoundTime    time.Duration // sum
	AnchorTime   time.Duration // sum: of RoundTime, waiting for the anchor's sync
	Files        uint64        // full tiles and bundles written
	Backlog      int           // of these, not yet synced
	Synced       uint64        // files synced
	SyncTime     time.Duration // sum
	Publications uint64
	PublishTime  time.Duration // sum, cosigning included
	Unpublished  uint64        // publications that failed for want of cosignatures
	Healed       uint64        // files that Open found missing or different above the recovery point
	// Behind is for how long there has been a signed head that is not published, on the monotonic clock. Above three
	// publication intervals is an alarm.
	Behind time.Duration
	Failed bool
}

// Stats returns the counts of this moment.
func (t *Tree) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats
	s.Signed, s.Published = t.view.head.Size, t.published.size
	s.Backlog = int(s.Files - s.Synced)
	s.Failed = t.err != nil
	if !t.behind.IsZero() {
		s.Behind = time.Since(t.behind)
	}
	return s
}

// count changes the counters.
func (t *Tree) count(f func(s *Stats)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.stats)
}
