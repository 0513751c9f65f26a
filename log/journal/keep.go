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
	pieceBytes = 64 << 10
	piecePause = 3 * time.Millisecond
	// One that is late is zeroed in larger pieces without pauses: a commit that waits for the whole of it waits longer.
	hurryBytes = 512 << 10
	retryPause = time.Second
)

// chore is a segment that was sealed and is to be looked after.
type chore struct {
	segment
	table
	settle []uint64 // key files that no record can come for any more
}

// keeper is the goroutine that works ahead of the writer (prepares segments) and behind it (tables, unused keys).
func (j *Journal) keeper(drained <-chan struct{}) {
	for {
		if err := j.keep(); err != nil {
			j.fail(err)
			return
		}
		select {
		case <-j.work:
		case <-j.retry():
		case <-j.failed:
			return
		case <-drained:
			return
		}
	}
}

// retry fires when what failed may be tried again, or never. A preparation that failed may no longer be due: batches
// that share a group take less room than was set aside for them.
func (j *Journal) retry() <-chan time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, due := j.nextPreparation()
	switch {
	case due && j.prepareErr != nil && (len(j.chores) == 0 || j.prepareAfter.Before(j.choresAfter)):
		return time.After(time.Until(j.prepareAfter))
	case len(j.chores) > 0:
		return time.After(time.Until(j.choresAfter))
	}
	return nil
}

// keep does what there is to do. Its error is fatal.
func (j *Journal) keep() error {
	for {
		// A segment that somebody waits for comes before the care for an old one, which nobody waits for.
		prepared, err := j.prepareNext()
		if err != nil {
			return err
		}
		lookedAfter, err := j.lookAfterNext()
		if err != nil || !prepared && !lookedAfter {
			return err
		}
	}
}

// prepareNext prepares a segment, if one is due, and tells whether it did. Its error is fatal.
func (j *Journal) prepareNext() (bool, error) {
	j.mu.Lock()
	number, due := j.nextPreparation()
	due = due && !j.paused(j.prepareAfter)
	j.mu.Unlock()
	if !due {
		return false, nil
	}
	err := j.prepare(number)
	if errors.Is(err, errSync) {
		return false, fmt.Errorf("prepare segment %d: %w", number, err)
	}
	if err != nil && !errors.Is(err, errAborted) { // by Close: nothing is wrong
		j.c.Logger.Warn("did not prepare a segment", "segment", number, "err", err)
	}
	return err == nil, nil
}

// lookAfterNext looks after a sealed segment, if there is one, and tells whether it did. Its error is fatal: a key of
// which nobody knows whether it is destroyed, or damage. Anything else, such as a full disk or one file handle too few,
// harms nobody, and is tried again.
func (j *Journal) lookAfterNext() (bool, error) {
	j.mu.Lock()
	if len(j.chores) == 0 || j.paused(j.choresAfter) {
		j.mu.Unlock()
		return false, nil
	}
	c := j.chores[0]
	j.chores = j.chores[1:]
	j.mu.Unlock()
	err := j.lookAfter(c)
	if err == nil {
		return true, nil
	}
	err = fmt.Errorf("look after segment %d: %w", c.number, err)
	if errors.Is(err, errSync) || errors.Is(err, ErrCorrupt) {
		return false, err
	}
	j.c.Logger.Warn("did not look after a sealed segment", "segment", c.number, "err", err)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.chores = append(j.chores, c)
	j.choresAfter = time.Now().Add(retryPause)
	return false, nil
}

// paused tells whether it is too early for another try, however often somebody asks for one.
func (j *Journal) paused(after time.Time) bool { return !j.c.inline && time.Now().Before(after) }

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
// called again: the segment is a new file each time, and of the key file every byte is written again before it is
// synced again, so nothing is taken for durable on the word of a sync that has forgotten it.
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
			j.prepareErr, j.prepareAfter = err, time.Now().Add(retryPause)
		}
		return err
	}
	j.preparedTo = number
	j.prepared[number], j.keys[number] = f, &keyFile{keys: keys}
	for file, k := range j.keys {
		if file < j.placeSegment {
			clear(k.keys)
			delete(j.keys, file)
		}
	}
	return nil
}

func (j *Journal) prepareFiles(number uint64) (keys []byte, f disk.File, err error) {
	name := j.names.segment(number)
	tmp := name + ".tmp"
	if err := j.removeIfThere(tmp); err != nil {
		return nil, nil, err
	}
	if f, err = j.c.FS.Create(tmp); err != nil {
		return nil, nil, err
	}
	if err = j.zero(f, number); err == nil {
		keys, err = j.makeKeys(number)
	}
	if err == nil {
		err = j.removeUnused(number, nil)
	}
	if err == nil {
		err = j.c.FS.Rename(tmp, name)
	}
	if err == nil {
		err = j.syncDir(j.names.segments())
	}
	if err != nil {
		// On a full disk the file would hold what others need more: anchor, tiles, index.
		return nil, nil, errors.Join(err, f.Close(), j.removeIfThere(tmp))
	}
	return keys, f, nil
}

func (j *Journal) removeIfThere(name string) error {
	if err := j.c.FS.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir syncs a folder. Its error is an errSync: a folder whose sync has failed is never synced again.
func (j *Journal) syncDir(name string) error {
	if err := j.c.FS.SyncDir(name); err != nil {
		return fmt.Errorf("%w: %w", errSync, err)
	}
	return nil
}

// zero fills a file with zeros. Blocks that were written once, even with zeros, cost a sync nothing but their data;
// blocks that were only reserved cost it a commit of the file system's journal.
func (j *Journal) zero(f disk.File, number uint64) error {
	zeros := make([]byte, min(hurryBytes, j.c.SegmentBytes))
	hurry := false
	for off := int64(0); off < j.c.SegmentBytes; {
		n := min(pieceBytes, j.c.SegmentBytes-off)
		if hurry {
			n = min(hurryBytes, j.c.SegmentBytes-off)
		}
		if _, err := f.WriteAt(zeros[:n], off); err != nil {
			return err
		}
		if err := f.WriteBack(); err != nil {
			return err
		}
		off += n
		var err error
		if hurry, err = j.pace(number, off); err != nil {
			return err
		}
	}
	return f.Sync()
}

// pace waits until the next piece of a segment that is done up to off may be written, and tells whether it is late.
func (j *Journal) pace(number uint64, off int64) (hurry bool, err error) {
	for !j.c.inline {
		j.mu.Lock()
		stopping, urgent := j.stopping, j.urgent > 0
		// The second one ahead is made just as fast as the current one fills; the first one ahead, missing only after
		// opening, at a pace of its own.
		wait := number > j.placeSegment+1 && off > j.placeOff
		late := number <= j.placeSegment+1 && off < 2*j.placeOff || off+4*hurryBytes < j.placeOff
		j.mu.Unlock()
		switch {
		case urgent, late:
			return true, nil
		case stopping:
			return false, errAborted
		case !wait:
			time.Sleep(piecePause)
			return false, nil
		}
		select {
		case <-j.work:
		case <-j.failed:
			return false, j.stopped()
		case <-j.closing:
		}
	}
	return false, nil
}

// awaitPreparation returns after the next preparation has ended. Its error wraps ErrBusy if that failed, or if the one
// before failed a moment ago. The caller holds mu, and looks whether it got what it needs.
func (j *Journal) awaitPreparation() error {
	if j.c.inline {
		number := j.preparedTo + 1
		j.mu.Unlock()
		err := j.prepare(number)
		if errors.Is(err, errSync) {
			j.fail(err)
		}
		j.mu.Lock()
		return j.unprepared()
	}
	if j.err != nil || j.stopping || j.prepareErr != nil && j.paused(j.prepareAfter) {
		return j.unprepared()
	}
	j.urgent++
	signal(j.work)
	j.ready.Wait()
	j.urgent--
	return j.unprepared()
}

// unprepared tells why there is no hope for another segment just now, nil if there is. The caller holds mu.
func (j *Journal) unprepared() error {
	switch {
	case j.err != nil:
		return fmt.Errorf("%w: %w", ErrStopped, j.err)
	case j.stopping:
		return ErrStopped
	case j.prepareErr != nil:
		return fmt.Errorf("%w: %w", ErrBusy, j.prepareErr)
	}
	return nil
}

// roll returns the next tail, not yet written to. It is prepared: enqueue places nothing in a segment that is not.
func (j *Journal) roll(number uint64) tail {
	j.mu.Lock()
	defer j.mu.Unlock()
	f := j.prepared[number]
	if f == nil {
		panic("journal: placed a record in a segment that is not prepared")
	}
	delete(j.prepared, number)
	t := j.tail
	next := segment{
		number: number, epoch: j.epoch, first: t.next(), sizeBytes: j.c.SegmentBytes, prev: t.number, prevEnd: t.off,
		synced: sectorBytes, seed: t.last, last: t.last,
	}
	return tail{segment: next, file: f, off: sectorBytes}
}

// lookAfter does for a sealed segment what can wait until it is sealed. It can be called again after an error.
func (j *Journal) lookAfter(c chore) error {
	name := j.names.table(c.number)
	err := errors.Join(disk.WriteFile(j.c.FS, name+".tmp", name, c.encode(j.id, c.segment)), j.trim(c.segment))
	for _, file := range c.settle {
		err = errors.Join(err, j.settle(file))
	}
	return err
}

// trim cuts a sealed segment to the length that the header behind it tells. Nothing hangs on it but space, so it may
// be tried again after a failed sync, though that may have forgotten the cut.
func (j *Journal) trim(s segment) error {
	f, err := j.c.FS.Open(j.names.segment(s.number))
	if err != nil {
		return err
	}
	if err = f.Truncate(s.end); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
