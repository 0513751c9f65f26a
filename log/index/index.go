// Package index finds entries of the log: by event hash, by place in a stream,
// by name and time; and keeps the state of every stream and migration.
//
// It is a follower: a fold over the order of entries, kept in Pebble with a
// cursor that says how many entries are folded in. It is never a source of
// truth. Whoever deletes its directory loses nothing but the time to follow
// the order again; a damaged or foreign index is removed when it is opened.
//
// There is no write-ahead log. Each Apply is one batch that moves the cursor
// too, and Pebble writes batches out in order, so a crash leaves the state
// after some earlier Apply, from which the follower goes on.
//
// What is stored is a function of the entries alone, not of how they were cut
// into batches: see keys.go. So a check is simple: fold the order into a fresh
// index and compare all keys and values of the two ([Index.NewCheck]).
//
// It trusts the order: that entries were checked when they were placed, and
// that received never decreases. It does not trust its own disk: blocks are
// checksummed, and every answer to a search is compared with the entry.
package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pipe-roll/piperoll/log"
)

// Errors that callers branch on.
var (
	// ErrBroken means that the index's files are damaged or disagree with the
	// log. It answers nothing more; the next Open removes it and starts afresh.
	ErrBroken = errors.New("index is broken: it is rebuilt when it is opened next")
	// ErrClosed means that the index was closed.
	ErrClosed = errors.New("index is closed")
	// ErrLocked means that another process, or another Index, has the directory.
	ErrLocked = errors.New("index is in use")
	// ErrOrder means that items do not go on where the index stands.
	ErrOrder = errors.New("items do not follow the cursor")
	// ErrStalled means that the disk does not take the index's files, being full
	// for instance. The index still answers, and follows again once it does.
	ErrStalled = errors.New("index cannot be written out")
	// ErrFailed means that the disk failed where nothing can be tried again. The
	// index answers nothing more until it is opened next. It is not opened again
	// in place: the cursor would go back under those who rely on it.
	ErrFailed = errors.New("disk of the index has failed")
	// ErrQuery means that a query can have no answer, whatever the log holds.
	ErrQuery = errors.New("malformed query")
)

// writeOutMax bounds how long Close waits for the disk.
const writeOutMax = 30 * time.Second

// An Item is an entry at its place in the order.
type Item struct {
	Index uint64
	Entry log.Entry
	Hash  log.Hash // [log.Event.Hash] of Entry.Event
	// Payload holds the payload bytes of a stream.open or migration.open. It may
	// be nil for all other kinds: the index reads no other.
	Payload []byte
}

// An Index is an open index. All methods may be called concurrently.
type Index struct {
	dir    string
	origin string
	logger *slog.Logger
	fs     vfs.FS
	db     *pebble.DB
	lock   *pebble.Lock

	cursor  atomic.Uint64 // entries followed
	opened  atomic.Bool   // storage that fails from now on stops the index
	full    atomic.Bool   // the disk is full: work in the background waits for room
	stalled atomic.Bool   // the newest flush failed
	shut    sync.Once     // of db
	shutErr error

	mu       sync.Mutex
	moved    chan struct{}  // closed and replaced when cursor moves or stopped is set
	stopped  error          // why nothing more is answered
	failed   chan struct{}  // closed when stopped is set
	flushErr error          // of the newest flush
	closing  chan struct{}  // closed by the first Close
	failing  chan struct{}  // told of failed flushes while closing
	uses     sync.WaitGroup // of db; none begins when stopped is set

	writer sync.Mutex // one Apply at a time
	fold   fold       // guarded by writer
}

// Open opens the index in c.Dir, or makes an empty one. A directory whose index
// is damaged, of another version or of another origin is emptied of index
// files, and following starts at entry 0. [ErrLocked] if it is in use. Errors
// of the operating system, such as a full disk, are returned and remove nothing.
func Open(c Config) (*Index, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	if c.fs == nil {
		c.fs = vfs.Default
	}
	x := &Index{
		dir: c.Dir, origin: c.Origin, logger: c.Logger,
		moved: make(chan struct{}), failed: make(chan struct{}), closing: make(chan struct{}), failing: make(chan struct{}, 1),
	}
	x.fs = vfs.OnDiskFull(c.fs, func() { x.waitForRoom(c.fs) })
	x.fold.reset()
	if err := x.open(c); err != nil {
		return nil, fmt.Errorf("open index %s: %w", c.Dir, err)
	}
	x.logger.Debug("opened index", "origin", x.origin, "index", x.Cursor())
	return x, nil
}

// Cursor gives the number of entries followed: those below it are found.
func (x *Index) Cursor() uint64 { return x.cursor.Load() }

// Apply folds in the next entries, all or none. They are contiguous from
// Cursor, else [ErrOrder], and readable when it returns; durable some time
// later. [ErrStalled] if they would only fill the memory.
func (x *Index) Apply(items []Item) error {
	if len(items) == 0 {
		return nil
	}
	x.writer.Lock()
	defer x.writer.Unlock()
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	if x.full.Load() || x.stalled.Load() {
		return fmt.Errorf("index entries from %d: %w", items[0].Index, ErrStalled)
	}
	if err := x.apply(items); err != nil {
		// The fold's caches may be ahead of what was stored.
		x.fold.reset()
		return fmt.Errorf("index entries from %d: %w", items[0].Index, x.judge(err))
	}
	return nil
}

func (x *Index) apply(items []Item) (err error) {
	c := &changes{batch: x.db.NewBatch()}
	defer func() { err = errors.Join(err, c.batch.Close()) }()
	cursor := x.Cursor()
	for i := range items {
		it := &items[i]
		if it.Index != cursor {
			return fmt.Errorf("%w: index %d, want %d", ErrOrder, it.Index, cursor)
		}
		if it.Entry.Event.Log != x.origin {
			return fmt.Errorf("%w: entry %d is of log %q, want %q", ErrOrder, it.Index, it.Entry.Event.Log, x.origin)
		}
		if err := x.foldItem(c, it); err != nil {
			return fmt.Errorf("entry %d: %w", it.Index, err)
		}
		cursor++
	}
	x.fold.flush(c)
	c.set([]byte{classCursor}, cursorValue(cursor, items[len(items)-1].Entry))
	if c.err != nil {
		return c.err
	}
	if err := c.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	x.fold.settle()
	x.move(cursor)
	return nil
}

// Wait returns when Cursor is size or more, or ctx ends, or the index stops.
func (x *Index) Wait(ctx context.Context, size uint64) error {
	for {
		x.mu.Lock()
		moved, stopped := x.moved, x.stopped
		x.mu.Unlock()
		switch {
		case stopped != nil:
			return stopped
		case x.Cursor() >= size:
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for index of size %d: %w", size, ctx.Err())
		}
	}
}

// Stats are figures for metrics.
type Stats struct {
	Cursor        uint64 // entries followed
	DiskBytes     uint64 // size of the index's files
	MemTableBytes uint64
	CacheBytes    int64
	Flushes       int64 // since Open
	Compactions   int64 // since Open
}

// Stats gives the figures of now.
func (x *Index) Stats() (Stats, error) {
	if err := x.enter(); err != nil {
		return Stats{}, err
	}
	defer x.leave()
	m := x.db.Metrics()
	return Stats{
		Cursor:        x.Cursor(),
		DiskBytes:     m.DiskSpaceUsage(),
		MemTableBytes: m.MemTable.Size,
		CacheBytes:    m.BlockCache.Size,
		Flushes:       m.Flush.Count,
		Compactions:   m.Compact.Count,
	}, nil
}

// Close writes out what is in memory and closes the index, after calls under
// way have returned. Later calls get [ErrClosed]; waiters too.
func (x *Index) Close() error {
	if !x.closeOnce() {
		return nil
	}
	err := x.stop(ErrClosed)
	return errors.Join(x.closeDB(errors.Is(err, ErrClosed)), x.lock.Close())
}

// closeDB closes the database after the last call under way.
func (x *Index) closeDB(writeOut bool) error {
	x.shut.Do(func() {
		x.uses.Wait()
		if writeOut {
			x.writeOut()
		}
		x.shutErr = x.db.Close()
	})
	return x.shutErr
}

func (x *Index) closeOnce() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	select {
	case <-x.closing:
		return false
	default:
		close(x.closing)
		return true
	}
}

// writeOut saves the next start from following again what is in memory. It is
// no more than that: on a full disk it gives up.
func (x *Index) writeOut() {
	if x.full.Load() || x.stalled.Load() {
		x.logger.Warn("index was not written out", "err", ErrStalled)
		return
	}
	written, err := x.db.AsyncFlush()
	if err != nil {
		x.logger.Warn("index was not written out", "err", err)
		return
	}
	select {
	case <-written:
	case <-x.failing:
		x.logger.Warn("index was not written out", "err", ErrStalled)
	case <-time.After(writeOutMax):
		x.logger.Warn("index was not written out in time", "elapsed", writeOutMax)
	}
}

// Failed is closed when the index answers nothing more: [Index.Err] says why.
func (x *Index) Failed() <-chan struct{} { return x.failed }

// Err gives the reason why the index answers nothing more, nil while it does.
func (x *Index) Err() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.stopped
}

// enter keeps the index open until leave, unless it is stopped.
func (x *Index) enter() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stopped == nil {
		x.uses.Add(1)
	}
	return x.stopped
}

func (x *Index) leave() { x.uses.Done() }

// move publishes the cursor and wakes all waiters.
func (x *Index) move(cursor uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cursor.Store(cursor)
	close(x.moved)
	x.moved = make(chan struct{})
}

// stop makes every later call return err, and wakes all waiters. It gives the
// reason why the index is stopped: the first.
func (x *Index) stop(err error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stopped == nil {
		x.stopped = err
		close(x.failed)
		close(x.moved)
		x.moved = make(chan struct{})
	}
	return x.stopped
}

// judge latches the index if err shows that it is damaged. Answers from what is
// left could be wrong by omission.
func (x *Index) judge(err error) error {
	if pebble.IsCorruptionError(err) {
		err = fmt.Errorf("%w: %w", ErrBroken, err)
	}
	if errors.Is(err, ErrBroken) {
		x.condemn(err)
	}
	return err
}

// get gives a copy of a value, and whether there is one.
func (x *Index) get(key []byte) ([]byte, bool, error) {
	v, done, err := x.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	v = append([]byte(nil), v...)
	return v, true, done.Close()
}

func cursorValue(cursor uint64, last log.Entry) []byte {
	leaf := log.LeafHash(last.Marshal())
	return append(binary.BigEndian.AppendUint64(nil, cursor), leaf[:]...)
}

var _ io.Closer = (*Index)(nil)
