package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/pipe-roll/piperoll/log/disk"
)

// recovery is the end of the journal as far as it is understood.
type recovery struct {
	base  segment // the last segment that counts, without the doubtful records
	table table   // of base
	doubt doubtful
	kept  uint64 // the highest number of a segment that has something to keep
}

// next is the index after the last record.
func (r recovery) next() uint64 { return r.base.next() + uint64(r.doubt.records) }

// doubtful are the records of a last group, or two, of which nothing says that they were synced.
type doubtful struct {
	bytes   []byte
	records int
	last    uint32 // CRC of the last one
}

// recover finds the end of the journal and opens a new segment behind it. Only the last segment is read, or the last
// two, if the last one has but one group.
func (j *Journal) recover() error {
	headers, err := j.readHeaders()
	if err != nil {
		return err
	}
	top := len(headers) - 1
	for top >= 0 && headers[top] == nil {
		top--
	}
	if top < 0 {
		return j.badHeader(0)
	}
	r, err := j.resolve(headers, top)
	if err != nil {
		return err
	}
	if err := j.refuseLaterGroups(r, headers); err != nil {
		return err
	}
	if r.next() < j.c.AtLeast {
		return fmt.Errorf("%w: %s: valid records end at offset %d with record %d, but %d are known to have been durable: restore it from a backup or mirror",
			ErrCorrupt, j.names.segment(r.kept), r.base.end, r.next(), j.c.AtLeast)
	}
	if j.where.sealed, err = j.sealedBefore(headers, r.base.number); err != nil {
		return err
	}
	if j.epoch, err = j.newEpoch(r.base.epoch); err != nil {
		return err
	}
	if err := j.begin(r.kept+1, r.base, r.doubt); err != nil {
		return err
	}
	j.where.remember(r.base.number, &r.table)
	c := chore{segment: r.base, table: r.table}
	// Keys that crashed runs drew and no record uses are destroyed, with the files that they sealed.
	for n := r.kept + 1; n > 0 && n+5 > r.kept; n-- {
		c.settle = append(c.settle, n-1)
	}
	j.chores = append(j.chores, c)
	j.c.Logger.Info("opened journal", "size", j.Size(), "segment", r.kept+1, "copied", r.doubt.records)
	return nil
}

// readHeaders reads the headers of all segments; nil stands for one that is not valid.
func (j *Journal) readHeaders() ([]*segmentHeader, error) {
	numbers, err := segmentNumbers(j.c.FS, j.names)
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	headers := make([]*segmentHeader, len(numbers))
	for n, number := range numbers {
		if number != uint64(n) {
			return nil, fmt.Errorf("%w: %s is missing: restore it from a backup or mirror", ErrCorrupt, j.names.segment(uint64(n)))
		}
		h, err := j.readHeader(number)
		if err == nil {
			headers[n] = &h
		} else if !errors.Is(err, errBad) {
			return nil, err
		}
	}
	return headers, nil
}

// resolve tells where the journal ends if top is the last segment that was begun. A header is confirmed when a group
// in its segment says that it was synced. One that is not may be in the page cache only, and must not be built upon:
// then the journal ends in the segment before, and what only the unconfirmed one has is doubtful.
func (j *Journal) resolve(headers []*segmentHeader, top int) (recovery, error) {
	r, seen, err := j.readTail(headers[top].begun())
	if err != nil || top == 0 || seen.confirmed {
		return r, err
	}
	lower := top - 1
	for lower > int(headers[top].prev) && headers[lower] == nil {
		lower--
	}
	if headers[lower] == nil {
		return r, j.badHeader(uint64(lower))
	}
	before, err := j.resolve(headers, lower)
	switch {
	case err != nil || before.next() >= r.next():
		return before, err
	case before.next() == seen.first && before.lastCRC() == seen.seed:
		before.doubt.bytes = append(before.doubt.bytes, seen.all...)
		before.doubt.records += seen.records
	case before.base.next() == seen.first && before.base.last == seen.seed:
		before.doubt = doubtful{bytes: seen.all, records: seen.records}
	default:
		return r, fmt.Errorf("%w: %s ends with record %d and does not fit the header of %s: restore both from one backup or mirror",
			ErrCorrupt, j.names.segment(before.kept), before.next(), j.names.segment(uint64(top)))
	}
	before.doubt.last, before.kept = seen.last, uint64(top)
	return before, nil
}

func (r recovery) lastCRC() uint32 {
	if r.doubt.records > 0 {
		return r.doubt.last
	}
	return r.base.last
}

// sealedBefore returns the segments in front of base, as the headers behind them say.
func (j *Journal) sealedBefore(headers []*segmentHeader, base uint64) ([]segment, error) {
	sealed := make([]segment, base)
	for n := base; n > 0; {
		after := headers[n]
		if after.prev >= n || headers[after.prev] == nil {
			return nil, j.badHeader(min(after.prev, n-1))
		}
		h := headers[after.prev]
		for void := after.prev + 1; void < n; void++ {
			sealed[void] = segment{number: void, first: after.first}
		}
		s := h.begun()
		s.end, s.last, s.count = int64(after.prevEnd), after.seed, after.first-h.first
		size, err := j.c.FS.Size(j.names.segment(s.number))
		if err != nil {
			return nil, err
		}
		if after.first < h.first || s.end < sectorBytes || s.end > size || s.end%sectorBytes != 0 {
			return nil, fmt.Errorf("%w: %s has %d bytes and does not fit the header of %s: restore both from one backup or mirror",
				ErrCorrupt, j.names.segment(s.number), size, j.names.segment(n))
		}
		sealed[s.number] = s
		n = s.number
	}
	return sealed, nil
}

func (j *Journal) badHeader(number uint64) error {
	return fmt.Errorf("%w: %s: damaged header at offset 0: restore it from a backup or mirror", ErrCorrupt, j.names.segment(number))
}

// readHeader returns errBad if the first sector is not the header of this segment of this journal.
func (j *Journal) readHeader(number uint64) (segmentHeader, error) {
	f, err := j.c.FS.Open(j.names.segment(number))
	if err != nil {
		return segmentHeader{}, err
	}
	b := make([]byte, sectorBytes)
	_, err = f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return segmentHeader{}, fmt.Errorf("read header of segment %d: %w", number, err)
	}
	h, err := parseSegmentHeader(b)
	if err != nil || h.journal != j.id || h.number != number || h.sizeBytes > segmentMaxBytes || h.synced < sectorBytes || h.synced > h.sizeBytes {
		return segmentHeader{}, errBad
	}
	return h, nil
}

// glance is what resolve needs to know of a segment that may not count.
type glance struct {
	confirmed bool
	first     uint64
	seed      uint32
	all       []byte // records of its one group, if it is not confirmed
	records   int
	last      uint32
}

// readTail walks a segment to the end of its valid groups. A bad group is torn by a crash if nothing says that it was
// synced, else ErrCorrupt.
func (j *Journal) readTail(begun segment) (r recovery, seen glance, err error) {
	name := j.names.segment(begun.number)
	f, err := j.c.FS.Open(name)
	if err != nil {
		return r, seen, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return r, seen, err
	}
	keys := keyReader{j: j}
	defer func() { err = errors.Join(err, keys.close()) }()
	s := newScan(f, j.id, begun, size, keys.intact)
	s.noCRC = j.c.bugs.noCRC
	// The segment up to the last group, which nothing behind it says to have been synced.
	r.base = s.segment
	var lastGroup groupHeader
	for {
		before := s.segment
		h, err := s.group(func(rec record, off int64) error {
			r.table.add(rec, off)
			return nil
		})
		if errors.Is(err, errBad) {
			break
		} else if err != nil {
			return r, seen, fmt.Errorf("scan segment %d: %w", begun.number, err)
		}
		r.base, lastGroup = before, h
	}
	if err := j.refuseEvidence(s, name); err != nil {
		return r, seen, err
	}
	seen = glance{confirmed: s.maxSync >= sectorBytes, first: s.first, seed: s.seed, records: int(s.count), last: s.last}
	if seen.confirmed && s.end < begun.synced {
		return r, seen, fmt.Errorf("%w: %s: no valid group at offset %d, but its header says that %d bytes were synced: restore it from a backup or mirror",
			ErrCorrupt, name, s.end, begun.synced)
	}
	r.kept = begun.number
	if j.c.bugs.noCopy {
		r.base = s.segment
		return r, seen, nil
	}
	if lastGroup.count == 0 {
		return r, seen, nil
	}
	// The last group may be in the page cache only, after a sync that failed. It cannot be synced again (its pages
	// count as clean), and must not be rewritten in place (a crash could tear what was durable): it will be copied.
	b, err := s.at(r.base.end+groupHeaderBytes, int64(lastGroup.length))
	if err != nil {
		return r, seen, fmt.Errorf("read the last group: %w", err)
	}
	r.doubt = doubtful{bytes: bytes.Clone(b), records: int(lastGroup.count), last: lastGroup.last}
	seen.all = r.doubt.bytes
	r.table.cut(int(r.base.count), b)
	return r, seen, nil
}

// cut leaves out the records behind the first count, whose bytes are given.
func (t *table) cut(count int, records []byte) {
	t.offsets = t.offsets[:count]
	refs := len(t.refs)
	for len(records) > 0 {
		r, size, err := decodeRecord(records)
		if err != nil {
			panic("journal: cut records that it did not parse")
		}
		if r.keyed() {
			refs--
		}
		records = records[size:]
	}
	t.refs = t.refs[:refs]
}

// refuseEvidence fails if a header behind the end of the scan says that the end was synced.
func (j *Journal) refuseEvidence(s *scan, name string) error {
	if j.c.bugs.noEvidence {
		return nil
	}
	later, err := s.evidence(s.end, func(h groupHeader) bool { return int64(h.synced) > s.end })
	if err != nil {
		return fmt.Errorf("scan segment %d: %w", s.number, err)
	}
	if later == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s: bad group at offset %d, but the group at offset %d was written after it was synced: restore the file from a backup or mirror",
		ErrCorrupt, name, s.end, later)
}

// refuseLaterGroups looks behind the last segment that counts, where there may be the torn first group of the next
// one, or what a crashed recovery copied there, but nothing else.
func (j *Journal) refuseLaterGroups(r recovery, headers []*segmentHeader) error {
	if j.c.bugs.noEvidence {
		return nil
	}
	for number := r.kept + 1; number < uint64(len(headers)); number++ {
		later, err := j.laterGroup(number, func(h groupHeader) bool {
			// A header that was synced is damaged, or records in front of this group are missing.
			return headers[number] == nil && h.synced != 0 || h.epoch == r.base.epoch && h.first > r.next()
		})
		if err != nil {
			return fmt.Errorf("scan segment %d: %w", number, err)
		}
		if later != 0 {
			return fmt.Errorf("%w: %s ends with record %d at offset %d, but %s has a later group at offset %d: restore both from one backup or mirror",
				ErrCorrupt, j.names.segment(r.kept), r.next(), r.base.end, j.names.segment(number), later)
		}
	}
	return nil
}

// laterGroup returns the offset of a group for which is holds in a segment that does not count, or 0.
func (j *Journal) laterGroup(number uint64, is func(groupHeader) bool) (int64, error) {
	f, err := j.c.FS.Open(j.names.segment(number))
	if err != nil {
		return 0, err
	}
	size, err := f.Size()
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	later, err := newScan(f, j.id, segment{number: number}, size, nil).evidence(sectorBytes, is)
	return later, errors.Join(err, f.Close())
}

// keyReader reads key slots, keeping one key file open.
type keyReader struct {
	j    *Journal
	name string
	file disk.File // nil if name does not exist
}

func (k *keyReader) close() error {
	if k.file == nil {
		return nil
	}
	return k.file.Close()
}

// key returns the key at pos, all zeros if it was erased. ErrNoKey if the file or the slot is not there.
func (k *keyReader) key(pos keyPos) ([keyBytes]byte, error) {
	var key [keyBytes]byte
	if name := k.j.names.key(uint64(pos.file)); name != k.name {
		if err := k.close(); err != nil {
			return key, err
		}
		k.name, k.file = name, nil
		f, err := k.j.c.FS.Open(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return key, fmt.Errorf("read key: %w", err)
		}
		if err == nil {
			k.file = f
		}
	}
	if k.file == nil {
		return key, ErrNoKey
	}
	n, err := k.file.ReadAt(key[:], int64(pos.slot)*keyBytes)
	switch {
	case n == len(key):
		return key, nil
	case err == nil, errors.Is(err, io.EOF):
		return key, ErrNoKey
	}
	return key, fmt.Errorf("read key: %w", err)
}

// intact tells whether a record's sealed bytes are what was written, or may be anything because the key is gone by an
// erasure.
func (k *keyReader) intact(r record) (bool, error) {
	if r.sealedIntact(r.sealed) || !r.keyed() {
		return r.sealedIntact(r.sealed), nil
	}
	key, err := k.key(r.key)
	if errors.Is(err, ErrNoKey) {
		// Restored without keys; an erasure since then has zeroed the bytes all the same.
		return k.j.bytesGone(r)
	}
	return key == [keyBytes]byte{}, err
}
