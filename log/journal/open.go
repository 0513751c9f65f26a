package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/pipe-roll/piperoll/log/disk"
)

// Create makes a journal where there is none, and opens it. fs.ErrExist if there is one.
//
// The order of durable steps: folders -> segment 0, of a header alone -> identity. A folder without identity and
// without records is an unfinished Create, which is begun anew.
func Create(c Config) (*Journal, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	n := names{c.Dir}
	for _, dir := range []string{n.dir, n.segments(), n.tables(), n.keys(), n.large()} {
		if err := c.FS.MkdirAll(dir); err != nil {
			return nil, fmt.Errorf("create journal: %w", err)
		}
	}
	lock, err := c.FS.Lock(n.lock())
	if err != nil {
		return nil, fmt.Errorf("create journal in %s: %w", c.Dir, err)
	}
	err = create(c, n)
	if err = errors.Join(err, lock.Close()); err != nil {
		return nil, fmt.Errorf("create journal in %s: %w", c.Dir, err)
	}
	return Open(c)
}

func create(c Config, n names) error {
	if _, err := c.FS.Size(n.identity()); err == nil {
		return fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := refuseRecords(c.FS, n); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(n.dir), n.dir} {
		if err := c.FS.SyncDir(dir); err != nil {
			return err
		}
	}
	var journal id
	if _, err := rand.Read(journal[:]); err != nil {
		return err
	}
	header := segmentHeader{journal: journal, sizeBytes: sectorBytes, synced: sectorBytes}.encode()
	name := n.segment(0)
	if err := disk.WriteFile(c.FS, name+".tmp", name, header); err != nil {
		return err
	}
	return disk.WriteFile(c.FS, n.identity()+".tmp", n.identity(), []byte(journal.identity()))
}

// refuseRecords fails if the folder holds more than an unfinished Create leaves.
func refuseRecords(fsys disk.FS, n names) error {
	numbers, err := segmentNumbers(fsys, n)
	if err != nil {
		return err
	}
	for _, number := range numbers {
		if number > 0 {
			return fmt.Errorf("%w: %s is missing but segment %d is there: restore the file from a backup", ErrCorrupt, n.identity(), number)
		}
	}
	return nil
}

// segmentNumbers returns the numbers of the segment files, in order.
func segmentNumbers(fsys disk.FS, n names) ([]uint64, error) {
	files, err := fsys.ReadDir(n.segments())
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, f := range files {
		base, ok := strings.CutSuffix(f, ".seg")
		if !ok {
			continue
		}
		number, err := strconv.ParseUint(base, 10, 32)
		if err != nil || filepath.Join(n.segments(), f) != n.segment(number) {
			return nil, fmt.Errorf("%w: unknown file %s in %s: move it away", ErrCorrupt, f, n.segments())
		}
		numbers = append(numbers, number)
	}
	return numbers, nil
}

// Open opens a journal after Close or after a crash. It returns fs.ErrNotExist if there is none, disk.ErrLocked if
// somebody has it open, and ErrCorrupt if a crash cannot explain what is on disk.
func Open(c Config) (*Journal, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	n := names{c.Dir}
	text, err := disk.ReadFile(c.FS, n.identity(), 1024)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(fmt.Errorf("open journal in %s: %w", c.Dir, err), refuseRecords(c.FS, n))
	}
	if err != nil {
		return nil, err
	}
	journal, err := parseIdentity(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: not an identity: restore the file from a backup", ErrCorrupt, n.identity())
	}
	lock, err := c.FS.Lock(n.lock())
	if err != nil {
		return nil, fmt.Errorf("open journal in %s: %w", c.Dir, err)
	}
	// A backup may leave out this one.
	if err := c.FS.MkdirAll(n.keys()); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal in %s: %w", c.Dir, err), lock.Close())
	}
	// A process that was killed may have left names that are not durable yet.
	for _, dir := range []string{filepath.Dir(n.dir), n.dir, n.segments()} {
		if err := c.FS.SyncDir(dir); err != nil {
			return nil, errors.Join(fmt.Errorf("sync %s: %w", dir, err), lock.Close())
		}
	}
	j := newJournal(c, journal, lock)
	if err := j.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal in %s: %w", c.Dir, err), j.abandon())
	}
	if j.c.inline {
		return j, j.keep()
	}
	drained := make(chan struct{})
	j.tasks.Go(func() {
		defer close(drained)
		j.write()
	})
	j.tasks.Go(func() { j.keeper(drained) })
	return j, nil
}

func newJournal(c Config, journal id, lock io.Closer) *Journal {
	j := &Journal{
		c: c, id: journal, lock: lock, names: names{c.Dir},
		prepared: map[uint64]disk.File{}, keys: map[uint64]*keyFile{},
		failed: make(chan struct{}), closing: make(chan struct{}), wake: make(chan struct{}, 1), work: make(chan struct{}, 1),
		synced: map[string]bool{}, dirs: map[uint64]bool{},
	}
	j.ready = sync.NewCond(&j.mu)
	j.where.cache = map[uint64]*table{}
	j.recent = newRecent(c.TailBytes)
	return j
}

// abandon releases what a failed opening holds.
func (j *Journal) abandon() error {
	var errs []error
	if j.tail.file != nil {
		errs = append(errs, j.tail.file.Close())
	}
	for _, f := range j.prepared {
		errs = append(errs, f.Close())
	}
	return errors.Join(append(errs, j.lock.Close())...)
}

// begin opens the segment with the given number behind the one that recovery found to be the last, in this order:
//
//	keys drawn anew and synced -> stale header, if any, cleared and synced -> doubtful records copied and synced ->
//	header written and synced -> mark written and synced -> the old tail is cut
//
// Without the mark the next recovery starts from the old tail again, which is as it was. The header ends the old tail
// in front of the doubtful group, so what is left there of torn and copied groups is never parsed.
func (j *Journal) begin(number uint64, old segment, d doubtful) error {
	f, err := j.spare(number)
	if err != nil {
		return fmt.Errorf("prepare segment %d: %w", number, err)
	}
	s := segment{
		number: number, epoch: j.epoch, first: old.next(), sizeBytes: j.c.SegmentBytes, prev: old.number, prevEnd: old.end,
		synced: sectorBytes, seed: old.last, last: old.last,
	}
	j.where.sealed = append(j.where.sealed, old)
	for void := old.number + 1; void < number; void++ {
		j.where.sealed = append(j.where.sealed, segment{number: void, first: old.next()})
	}
	t := tail{segment: s, file: f, off: sectorBytes}
	j.tail = t
	if j.c.bugs.cutFirst {
		if err := j.trim(old); err != nil {
			return err
		}
	}
	var g group
	if d.records > 0 {
		if g, err = j.copyDoubtful(&t, d); err != nil {
			return err
		}
	}
	t.synced, t.end = t.off, t.off
	if _, err := f.WriteAt(t.header(j.id).encode(), 0); err != nil {
		return fmt.Errorf("write header of segment %d: %w", number, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync header of segment %d: %w", number, err)
	}
	j.tail = t
	j.where.extend(t.segment, g)
	j.next, j.placeSegment, j.placeOff = t.next(), number, t.off
	j.size.Store(t.next())
	j.mark()
	return j.Err()
}

// copyDoubtful writes the doubtful records as the first group of t.
func (j *Journal) copyDoubtful(t *tail, d doubtful) (group, error) {
	h := groupHeader{epoch: j.epoch, first: t.first, count: uint32(d.records), seed: t.seed}
	g := j.encode(t, []*Pending{{count: d.records, encoded: d.bytes}})
	// Nothing says yet that anything in this segment was synced.
	h.length, h.last = uint32(g.bytes), t.last
	h.put(j.group, j.id, t.number, sectorBytes)
	if _, err := t.file.WriteAt(j.group, sectorBytes); err != nil {
		return group{}, fmt.Errorf("copy the last group: %w", err)
	}
	if err := t.file.Sync(); err != nil {
		return group{}, fmt.Errorf("sync the copy of the last group: %w", err)
	}
	return g, nil
}

// spare takes the segment file that was prepared before the crash, with new keys, or prepares one.
func (j *Journal) spare(number uint64) (disk.File, error) {
	j.mu.Lock()
	j.urgent++ // nothing is in the way yet that a pause would spare
	j.mu.Unlock()
	defer func() {
		j.mu.Lock()
		j.urgent--
		j.mu.Unlock()
	}()
	size, err := j.c.FS.Size(j.names.segment(number))
	if err == nil && size == j.c.SegmentBytes {
		keys, err := j.makeKeys(number)
		if err != nil {
			return nil, err
		}
		if err := j.removeUnused(number, nil); err != nil {
			return nil, err
		}
		j.keys[number], j.preparedTo = &keyFile{keys: keys}, number
		return j.openSpare(number)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := j.prepare(number); err != nil {
		return nil, err
	}
	f := j.prepared[number]
	delete(j.prepared, number)
	return f, nil
}

// openSpare opens a segment file, and clears the header of an opening that crashed before it had confirmed it.
func (j *Journal) openSpare(number uint64) (disk.File, error) {
	_, err := j.readHeader(number)
	stale := err == nil
	if err != nil && !errors.Is(err, errBad) {
		return nil, err
	}
	f, err := j.c.FS.Open(j.names.segment(number))
	if err != nil || !stale {
		return f, err
	}
	if _, err = f.WriteAt(make([]byte, sectorBytes), 0); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// newEpoch returns an epoch above old that no other opening of this journal has used, even one that crashed before
// it left a trace: its lower half is random.
func (j *Journal) newEpoch(old uint64) (uint64, error) {
	if j.c.bugs.sameEpoch {
		return old, nil
	}
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, err
	}
	return (old>>32+1)<<32 | uint64(binary.LittleEndian.Uint32(b[:])), nil
}
