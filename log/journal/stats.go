package journal

import (
	"sync/atomic"
	"time"
)

// Stats are figures for metrics.
type Stats struct {
	Size          uint64        // durable records
	QueuedRecords int           // let in, not yet durable
	QueuedBytes   int64         // of those
	Segment       uint64        // number of the one that is filled
	SegmentUsed   int64         // bytes of it used or promised
	SegmentBytes  int64         // of each
	Syncs         uint64        // groups made durable since the journal was opened
	Written       uint64        // bytes in those groups
	SyncTime      time.Duration // spent on writing and syncing them, in all
	SyncSlowest   time.Duration // of one
	Erased        uint64        // calls of Erase that succeeded
}

// counts are kept without a lock.
type counts struct{ syncs, written, nanos, slowest, erased atomic.Uint64 }

// sync counts one group. Only the writer calls it.
func (c *counts) sync(took time.Duration, bytes int) {
	c.syncs.Add(1)
	c.written.Add(uint64(bytes))
	c.nanos.Add(uint64(took))
	c.slowest.Store(max(c.slowest.Load(), uint64(took)))
}

// Stats returns the figures of this moment.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	s := Stats{
		QueuedRecords: j.queuedRecords, QueuedBytes: j.queuedBytes, Segment: j.placeSegment, SegmentUsed: j.placeOff,
	}
	j.mu.Unlock()
	s.Size, s.SegmentBytes = j.Size(), j.c.SegmentBytes
	s.Syncs, s.Written, s.Erased = j.counts.syncs.Load(), j.counts.written.Load(), j.counts.erased.Load()
	s.SyncTime, s.SyncSlowest = time.Duration(j.counts.nanos.Load()), time.Duration(j.counts.slowest.Load())
	return s
}
