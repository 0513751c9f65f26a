package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// Journal is the durable order of one log's records. All methods may be called concurrently.
type Journal struct {
	c     Config
	id    id
	epoch uint64
	lock  io.Closer
	names names

	// Owned by the writer goroutine (by the caller, in inline mode).
	tail  tail
	group []byte // reused between writes
	taken []*Pending

	mu            sync.Mutex
	queue         []*Pending // guarded by mu, as all down to the blank line: placed, not yet taken by the writer
	queuedBytes   int64      // of queue, of what is being written, and of what room was promised to
	queuedRecords int
	next          uint64 // index of the next record to be placed
	placeSegment  uint64 // where it goes
	placeOff      int64  // bytes of that segment used, reserved or wasted
	preparedTo    uint64 // the last segment that was prepared
	prepared      map[uint64]disk.File
	keys          map[uint64]*keyFile // of the segments from placeSegment on
	prepareErr    error               // why the last preparation failed, nil after one that did not
	prepareAfter  time.Time           // when the next one may be tried
	urgent        int                 // callers that wait for a preparation
	ready         *sync.Cond          // a preparation ended, or the journal stopped
	chores        []chore             // sealed segments to look after
	choresAfter   time.Time           // when that may be tried
	err           error
	stopping      bool
	grown         chan struct{} // closed when Size grows; nil while nobody waits

	size    atomic.Uint64
	failed  chan struct{} // closed after err is set
	closing chan struct{} // closed by Close
	wake    chan struct{} // tells the writer that something was placed
	work    chan struct{} // tells the keeper that there may be something to do
	tasks   sync.WaitGroup
	closed  sync.Once
	shut    error

	where  places
	recent recent
	counts counts

	eraseMu sync.Mutex      // orders changes of key slots
	synced  map[string]bool // guarded by eraseMu: files synced since they were found erased
	dirMu   sync.Mutex
	dirs    map[uint64]bool // guarded by dirMu: folders of large payloads known to be there
}

// tail is the segment that is written to.
type tail struct {
	segment
	file disk.File
	off  int64 // where the next group goes; everything before it is synced
}

// names are the places of the journal's files.
type names struct{ dir string }

func (n names) lock() string     { return filepath.Join(n.dir, "lock") }
func (n names) identity() string { return filepath.Join(n.dir, "journal") }
func (n names) segments() string { return filepath.Join(n.dir, "segments") }
func (n names) tables() string   { return filepath.Join(n.dir, "tables") }
func (n names) keys() string     { return filepath.Join(n.dir, "keys") }
func (n names) large() string    { return filepath.Join(n.dir, "large") }
func (n names) segment(number uint64) string {
	return filepath.Join(n.segments(), fmt.Sprintf("%010d.seg", number))
}

func (n names) table(number uint64) string {
	return filepath.Join(n.tables(), fmt.Sprintf("%010d.tab", number))
}

func (n names) key(number uint64) string {
	return filepath.Join(n.keys(), fmt.Sprintf("%010d.key", number))
}

func (n names) largeDir(number uint64) string {
	return filepath.Join(n.large(), fmt.Sprintf("%010d", number))
}

func (n names) payload(k keyPos) string {
	return filepath.Join(n.largeDir(uint64(k.file)), fmt.Sprintf("%07d.sealed", k.slot))
}

// Size returns the number of durable records.
func (j *Journal) Size() uint64 { return j.size.Load() }

// Wait returns when Size is at least size. It returns the context's error, or ErrStopped.
func (j *Journal) Wait(ctx context.Context, size uint64) error {
	for {
		j.mu.Lock()
		if j.size.Load() >= size {
			j.mu.Unlock()
			return nil
		}
		if j.grown == nil {
			j.grown = make(chan struct{})
		}
		grown := j.grown
		j.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		case <-j.failed:
			return j.stopped()
		case <-j.closing:
			return ErrStopped
		}
	}
}

// Append places records and waits until they are durable; it returns the index of the first. When ctx ends first the
// records may still become durable. Errors as Enqueue's and Pending.Err's.
func (j *Journal) Append(ctx context.Context, records []log.Record) (first uint64, err error) {
	p, err := j.Enqueue(records)
	if err != nil {
		return 0, err
	}
	select {
	case <-p.done:
		return p.first, p.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Failed is closed when the journal has met an error after which it writes nothing more. Reads go on.
func (j *Journal) Failed() <-chan struct{} { return j.failed }

// Err returns the error that stopped the journal, nil if none did.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// fail latches the first error. What was waiting is told; nothing is tried again, because after a failed write or
// sync nobody knows what is on the medium.
func (j *Journal) fail(err error) {
	j.mu.Lock()
	if j.err != nil {
		j.mu.Unlock()
		return
	}
	j.err = err
	queue := j.queue
	j.queue = nil
	close(j.failed)
	j.ready.Broadcast()
	j.mu.Unlock()
	j.c.Logger.Error("stopped journal", "err", err, "size", j.Size())
	for _, p := range queue {
		p.finish(j.stopped())
	}
}

// stopped is the error for callers who come too late.
func (j *Journal) stopped() error {
	if err := j.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrStopped, err)
	}
	return ErrStopped
}

// Close refuses new records, makes the waiting ones durable, and releases everything. It returns the error that
// stopped the journal, if one did.
func (j *Journal) Close() error {
	j.closed.Do(func() {
		j.mu.Lock()
		j.stopping = true
		close(j.closing)
		j.ready.Broadcast()
		j.mu.Unlock()
		j.tasks.Wait()
		if j.c.inline && j.Err() == nil {
			j.mark()
		}
		errs := []error{j.Err(), j.tail.file.Close()}
		j.mu.Lock()
		for _, f := range j.prepared {
			errs = append(errs, f.Close())
		}
		for _, k := range j.keys {
			clear(k.keys)
		}
		clear(j.keys)
		j.mu.Unlock()
		j.shut = errors.Join(append(errs, j.lock.Close())...)
	})
	return j.shut
}
