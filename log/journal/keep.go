package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pipe-roll/piperoll/log/disk"
)

const (
	// A segment is zeroed in pieces, each written back, with pauses, so that a commit's sync never queues behind more
	// than one piece. Only the whole is synced: each sync of a file that has grown commits the file system's journal.
	pieceBytes = 256 << 10
	piecePause = 10 * time.Millisecond
	retryPause = time.Second
)

// chore is a segment that was sealed and is to be looked after.
type chore struct {
	segment
	table
}

// keeper is the goroutine that works ahead of the writer (prepares segments) and behind it (tables, unused keys).
func (j *Journal) keeper(drained <-chan struct{}) {
	for {
		err := j.keep()
		if err != nil {
			j.fail(err)
			return
		}
		var retry <-chan time.Time
		if j.unprepared() {
			retry = time.After(retryPause)
		}
		select {
		case <-j.work:
		case <-retry:
		case <-j.failed:
			return
		case <-drained:
			return
		}
	}
}

// unprepared tells whether the last preparation failed.
func (j *Journal) unprepared() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.prepareErr != nil
}

// keep does what there is to do. Its error is fatal.
func (j *Journal) keep() error {
	for {
		j.mu.Lock()
		var c chore
		todo := len(j.chores) > 0
		if todo {
			c = j.chores[0]
			j.chores = j.chores[1:]
		}
		number, due := j.nextPreparation()
		j.mu.Unlock()
		// A segment that somebody waits for comes before the care for an old one, which nobody waits for.
		if due {
			if err := j.prepare(number); err != nil {
				if !errors.Is(err, errAborted) { // by Close: nothing is wrong
					j.c.Logger.Warn("did not prepare a segment", "segment", number, "err", err)
				}
				due = false
			}
		}
		if todo {
			if err := j.lookAfter(c); err != nil {
				return err
			}
		}
		if !todo && !due {
			return nil
		}
	}
}

// nextPreparation tells which segment to prepare next, if any is due: one is always ready, and a second one is made
// while the current one fills. The caller holds mu.
func (j *Journal) nextPreparation() (number uint64, due bool) {
	ahead := uint64(1)
	if !j.c.inline && j.placeOff > 2*pieceBytes {
		ahead = 2
	}
	number = j.preparedTo + 1
	return number, number <= j.placeSegment+ahead
}

// errAborted: the journal is closing, and nobody waits for this preparation.
var errAborted = errors.New("preparation was aborted")

// prepare makes a segment file, zero-filled, and its key file, both durable under their names. After an error it can be
// called again: it begins with new files, so no failed sync is asked twice.
//
// The order of durable steps: temporary file zeroed and synced -> keys written and synced -> renamed -> folder synced.
func (j *Journal) prepare(number uint64) error {
	keys, f, err := j.prepareFiles(number)
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.ready.Broadcast()
	j.prepareErr = nil
	if err != nil {
		if !errors.Is(err, errAborted) {
			j.prepareErr = err
		}
		return err
	}
	j.preparedTo = number
	j.prepared[number], j.keys[number] = f, keys
	for file, k := range j.keys {
		if file < j.placeSegment {
			clear(k)
			delete(j.keys, file)
		}
	}
	return nil
}

func (j *Journal) prepareFiles(number uint64) (keys []byte, f disk.File, err error) {
	if keys, err = j.makeKeys(number); err != nil {
		return nil, nil, err
	}
	if err := j.removeUnused(number, nil); err != nil {
		return nil, nil, err
	}
	name := j.names.segment(number)
	tmp := name + ".tmp"
	if err := j.c.FS.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if f, err = j.c.FS.Create(tmp); err != nil {
		return nil, nil, err
	}
	if err = j.zero(f, number); err == nil {
		err = j.c.FS.Rename(tmp, name)
	}
	if err == nil {
		err = j.c.FS.SyncDir(j.names.segments())
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return keys, f, nil
}

// zero fills a file with zeros. Blocks that were written once, even with zeros, cost a sync nothing but their data;
// blocks that were only reserved cost it a commit of the file system's journal.
func (j *Journal) zero(f disk.File, number uint64) error {
	zeros := make([]byte, min(pieceBytes, j.c.SegmentBytes))
	for off := int64(0); off < j.c.SegmentBytes; {
		n := min(int64(len(zeros)), j.c.SegmentBytes-off)
		if _, err := f.WriteAt(zeros[:n], off); err != nil {
			return err
		}
		if err := f.WriteBack(); err != nil {
			return err
		}
		off += n
		if err := j.pace(number, off); err != nil {
			return err
		}
	}
	return f.Sync()
}

// pace waits until the next piece of a segment that is done up to off may be written.
func (j *Journal) pace(number uint64, off int64) error {
	for !j.c.inline {
		j.mu.Lock()
		stopping, urgent := j.stopping, j.urgent > 0
		// The second one ahead is made just as fast as the current one fills; the first one ahead, missing only after
		// opening, at a pace of its own.
		wait := number > j.placeSegment+1 && off > j.placeOff
		late := number <= j.placeSegment+1 && off < 2*j.placeOff
		j.mu.Unlock()
		switch {
		case urgent, late:
			return nil
		case stopping:
			return errAborted
		case !wait:
			time.Sleep(piecePause)
			return nil
		}
		select {
		case <-j.work:
		case <-j.failed:
			return j.stopped()
		case <-j.closing:
		}
	}
	return nil
}

// awaitPreparation returns after the next preparation has ended. Its error wraps ErrBusy if that failed. The caller
// holds mu, and looks whether it got what it needs.
func (j *Journal) awaitPreparation() error {
	if j.c.inline {
		number := j.preparedTo + 1
		j.mu.Unlock()
		err := j.prepare(number)
		j.mu.Lock()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrBusy, err)
		}
		return nil
	}
	if j.err != nil {
		return fmt.Errorf("%w: %w", ErrStopped, j.err)
	}
	j.urgent++
	signal(j.work)
	j.ready.Wait()
	j.urgent--
	switch {
	case j.err != nil:
		return fmt.Errorf("%w: %w", ErrStopped, j.err)
	case j.prepareErr != nil:
		return fmt.Errorf("%w: %w", ErrBusy, j.prepareErr)
	}
	return nil
}

// roll returns the next tail, not yet written to.
func (j *Journal) roll(number uint64) (tail, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.prepared[number] == nil {
		if err := j.awaitPreparation(); err != nil {
			return tail{}, err
		}
	}
	f := j.prepared[number]
	delete(j.prepared, number)
	t := j.tail
	next := segment{
		number: number, epoch: j.epoch, first: t.next(), sizeBytes: j.c.SegmentBytes, prev: t.number, prevEnd: t.off,
		synced: sectorBytes, seed: t.last, last: t.last,
	}
	return tail{segment: next, file: f, off: sectorBytes}, nil
}

// lookAfter does for a sealed segment what can wait until it is sealed.
func (j *Journal) lookAfter(c chore) error {
	name := j.names.table(c.number)
	if err := disk.WriteFile(j.c.FS, name+".tmp", name, c.encode(j.id, c.segment)); err != nil {
		return fmt.Errorf("write table of segment %d: %w", c.number, err)
	}
	f, err := j.c.FS.Open(j.names.segment(c.number))
	if err != nil {
		return fmt.Errorf("trim segment %d: %w", c.number, err)
	}
	if err = f.Truncate(c.end); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("trim segment %d: %w", c.number, err)
	}
	j.mu.Lock()
	files := j.unsettled
	j.unsettled = nil
	j.mu.Unlock()
	if len(files) == 0 && c.number > 0 {
		files = []uint64{c.number - 1}
	}
	for _, file := range files {
		if err := j.settle(file); err != nil {
			return err
		}
	}
	return nil
}
