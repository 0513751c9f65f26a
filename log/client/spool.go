package client

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// Sizes of the outbox's files.
const (
	segmentMaxBytes = 16 << 20 // of a segment, unless one group alone has more
	groupMaxBytes   = 4 << 20  // of a group, unless one write alone has more
)

// A spool is the outbox's files: segments, of groups of records. One goroutine
// writes them, in this order:
//
//	group checked against the ledger -> written and synced -> in the ledger -> what is settled counted -> oldest segments removed -> writers told
//
// A new segment begins with the ledger as it is then, and is synced, name and all,
// before anything else goes into it. A segment is removed when every event in it
// is settled and so is every segment before it: what is left always begins with a
// ledger of settled events, and holds all that came after.
//
// After a crash the last group may be torn: nobody was told that it is written, and
// it is dropped. Anything else that is damaged is an error. Opening writes the last
// segment anew, since a process that failed to sync it may have left pages that
// are only in memory, and look as if they were on the disk.
type spool struct {
	fs           disk.FS
	dir          string
	lock         io.Closer
	segmentBytes int64
	running      sync.WaitGroup

	reading sync.Mutex // held while a file is read, or closed and removed

	mu       sync.Mutex
	wake     *sync.Cond // for the writer, when there is something to write
	ledger   *ledger    // of what is written
	queue    []*write
	segments []*segment // oldest first; the last is written to
	size     int64      // of all, without the snapshots
	err      error      // of a write: nothing is written after it
	closing  bool
	told     func() // called when something was written; may be nil
}

// A segment is a file.
type segment struct {
	number    uint64
	file      disk.File
	head      int64 // bytes of the snapshot
	size      int64 // durable bytes, with it
	unsettled int   // events in it that are not settled
}

// A write is what one caller wants to have written.
type write struct {
	records []record
	settled map[uint64]int // segment -> events of it that are settled, counted after the records are written
	done    chan struct{}  // closed when it is written, or failed
	err     error          // set before
}

func segmentName(number uint64) string { return fmt.Sprintf("%012d.outbox", number) }

// openSpool opens the files of a directory, and makes the first one if there is
// none. each is called with every record, in order, and the segment that it is in.
func openSpool(fsys disk.FS, dir string, segmentBytes int64, empty *ledger, each func(segment uint64, r record) error) (*spool, error) {
	if err := makeDir(fsys, dir); err != nil {
		return nil, err
	}
	lock, err := fsys.Lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock: %w; one process at a time has an outbox", err)
	}
	s := &spool{fs: fsys, dir: dir, lock: lock, segmentBytes: segmentBytes}
	s.wake = sync.NewCond(&s.mu)
	if err := s.open(empty, each); err != nil {
		return nil, errors.Join(err, s.release())
	}
	s.running.Go(s.run)
	return s, nil
}

// makeDir makes a directory and its name durable, and those of the parents that it
// makes. Its own is synced in any case: who made it may have ended before that.
func makeDir(fsys disk.FS, dir string) error {
	made := []string{dir}
	for up := filepath.Dir(dir); up != filepath.Dir(up); up = filepath.Dir(up) {
		if _, err := fsys.Size(up); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, up)
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	for _, d := range made {
		if err := fsys.SyncDir(filepath.Dir(d)); err != nil {
			return err
		}
	}
	return nil
}

func (s *spool) open(empty *ledger, each func(segment uint64, r record) error) error {
	numbers, err := s.numbers()
	if err != nil {
		return err
	}
	for i, number := range numbers {
		if i > 0 && number != numbers[i-1]+1 {
			return fmt.Errorf("%s is missing: it was removed or lost, with events that may not be in the log", segmentName(numbers[i-1]+1))
		}
		if err := s.load(number, i == len(numbers)-1, each); err != nil {
			return fmt.Errorf("read %s: %w", segmentName(number), err)
		}
	}
	if s.ledger != nil {
		return nil
	}
	s.ledger = empty
	return s.begin(1)
}

// add opens the file of a segment.
func (s *spool) add(seg *segment) (err error) {
	if seg.file, err = s.fs.Open(filepath.Join(s.dir, segmentName(seg.number))); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments = append(s.segments, seg)
	s.size += seg.size - seg.head
	return nil
}

// begin begins a segment.
func (s *spool) begin(number uint64) error {
	s.mu.Lock()
	first := record{kind: recordSnapshot, bytes: s.ledger.marshal()}
	s.mu.Unlock()
	b := first.append(make([]byte, groupHeaderBytes))
	putGroup(b, number, 0)
	if err := disk.WriteFile(s.fs, filepath.Join(s.dir, "new"), filepath.Join(s.dir, segmentName(number)), b); err != nil {
		return err
	}
	return s.add(&segment{number: number, head: int64(len(b)), size: int64(len(b))})
}

// enqueue takes a write: it is written after those before it. What nobody waits
// for is written too.
func (s *spool) enqueue(w *write) {
	w.done = make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.closing {
		w.err = s.err
		if w.err == nil {
			w.err = errOutboxClosed
		}
		close(w.done)
		return
	}
	s.queue = append(s.queue, w)
	s.wake.Signal()
}

// write writes records, and returns when they are durable.
func (s *spool) write(records ...record) error {
	w := &write{records: records}
	s.enqueue(w)
	<-w.done
	return w.err
}

// run writes until the spool is closed and the queue is empty.
func (s *spool) run() {
	for {
		s.mu.Lock()
		for len(s.queue) == 0 && !s.closing {
			s.wake.Wait()
		}
		group := make([]byte, groupHeaderBytes)
		n := 0
		for _, w := range s.queue {
			if n > 0 && len(group) > groupMaxBytes {
				break
			}
			for i := range w.records {
				group = w.records[i].append(group)
			}
			n++
		}
		ws := slices.Clone(s.queue[:n])
		s.queue = slices.Delete(s.queue, 0, n)
		err := s.err
		s.mu.Unlock()
		if n == 0 {
			return
		}
		if err == nil {
			err = s.commit(group, ws)
		}
		s.tell(ws, err)
	}
}

// notify has a function called after each write.
func (s *spool) notify(told func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = told
}

// bytes is how much there is, without the snapshots.
func (s *spool) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// stream gives the state of a stream after the last event that is written.
func (s *spool) stream(name string) (state log.Stream, found bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.ledger.Streams[name] == nil {
		return state, false, s.err
	}
	return *s.ledger.Streams[name], true, nil
}

// migration gives a migration that was opened here, if it was, and its streams.
// Those of one that is closed are forgotten.
func (s *spool) migration(name string) (m ledgerMigration, streams []string, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ledger.Migrations[name] == nil {
		return m, nil, false
	}
	return *s.ledger.Migrations[name], s.ledger.of(name), true
}

// ended says whether a stream that is written has ended, by itself or with its migration.
func (s *spool) ended(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	stream := s.ledger.Streams[name]
	return stream == nil || stream.Closed
}

// tell ends writes. A failed one is the last: what is on the disk is not known.
func (s *spool) tell(ws []*write, err error) {
	s.mu.Lock()
	if s.err == nil && err != nil {
		s.err = fmt.Errorf("write outbox: %w", err)
	}
	for _, w := range ws {
		w.err = s.err
		close(w.done)
	}
	told := s.told
	s.mu.Unlock()
	if told != nil {
		told()
	}
}

// commit makes a group durable: see the type.
func (s *spool) commit(group []byte, ws []*write) error {
	if len(group) > groupHeaderBytes {
		if err := s.put(group, ws); err != nil {
			return err
		}
	}
	s.mu.Lock()
	for _, w := range ws {
		for _, seg := range s.segments {
			seg.unsettled -= w.settled[seg.number]
		}
	}
	last := s.segments[len(s.segments)-1]
	s.mu.Unlock()
	// Without this a small outbox could be full of nothing but what is settled.
	if last.unsettled == 0 && last.size-last.head > s.segmentBytes/2 {
		if err := s.begin(last.number + 1); err != nil {
			return err
		}
	}
	return s.trim()
}

func (s *spool) put(group []byte, ws []*write) error {
	last := s.last()
	if last.size > last.head && last.size-last.head+int64(len(group)) > s.segmentBytes {
		if err := s.begin(last.number + 1); err != nil {
			return err
		}
		last = s.last()
	}
	s.mu.Lock()
	err := s.ledger.check(ws)
	s.mu.Unlock()
	if err != nil {
		return err // written, it would be what no process can read
	}
	putGroup(group, last.number, last.size)
	if _, err := last.file.WriteAt(group, last.size); err != nil {
		return err
	}
	if err := last.file.Sync(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range ws {
		for i := range w.records {
			if err := s.ledger.apply(&w.records[i]); err != nil {
				return err
			}
			if w.records[i].kind == recordEvent {
				last.unsettled++
			}
		}
	}
	last.size += int64(len(group))
	s.size += int64(len(group))
	return nil
}

// trim removes the oldest segments that are settled. Each removal is durable
// before the next, so that a hole is always damage.
func (s *spool) trim() error {
	for {
		s.mu.Lock()
		oldest := s.segments[0]
		done := len(s.segments) > 1 && oldest.unsettled == 0
		if done {
			s.segments = slices.Delete(s.segments, 0, 1)
			s.size -= oldest.size - oldest.head
		}
		s.mu.Unlock()
		if !done {
			return nil
		}
		s.reading.Lock()
		err := errors.Join(oldest.file.Close(), s.fs.Remove(filepath.Join(s.dir, segmentName(oldest.number))))
		s.reading.Unlock()
		if err != nil {
			return err
		}
		if err := s.fs.SyncDir(s.dir); err != nil {
			return err
		}
	}
}

func (s *spool) last() *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.segments[len(s.segments)-1]
}

// close writes what is queued and closes the files.
func (s *spool) close() error {
	s.mu.Lock()
	s.closing = true
	s.wake.Broadcast()
	s.mu.Unlock()
	s.running.Wait()
	return s.release()
}

// release gives back the files and the lock.
func (s *spool) release() error {
	var errs []error
	for _, seg := range s.segments {
		errs = append(errs, seg.file.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}
