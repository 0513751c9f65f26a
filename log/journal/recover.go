package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/pipe-roll/piperoll/log/disk"
)

// recover finds the end of the journal and opens a new segment behind it. Only the last segment is read.
func (j *Journal) recover() error {
	last, spares, err := j.readHeaders()
	if err != nil {
		return err
	}
	s, doubt, err := j.readTail(&last)
	if err != nil {
		return err
	}
	if err := j.refuseLaterGroups(last, spares); err != nil {
		return err
	}
	if last.next() < j.c.AtLeast {
		return fmt.Errorf("%w: %s: valid records end at offset %d with record %d, but %d are known to have been durable: restore it from a backup or mirror",
			ErrCorrupt, j.names.segment(last.number), last.end, last.next(), j.c.AtLeast)
	}
	if j.epoch, err = j.newEpoch(last.epoch); err != nil {
		return err
	}
	var doubtful []byte
	if doubt.records > 0 && !j.c.bugs.noCopy {
		// The last group may be in the page cache only, after a sync that failed. It cannot be synced again (its pages
		// count as clean), and must not be rewritten in place (a crash could tear what was durable): it is copied.
		doubtful = doubt.bytes
		last.end, last.count, last.last = doubt.at, last.count-uint64(doubt.records), doubt.seed
		s.table.offsets = s.table.offsets[:last.count]
		s.table.refs = s.table.refs[:len(s.table.refs)-doubt.refs]
	} else {
		doubt.records = 0
	}
	if err := j.begin(last, doubtful, doubt.records); err != nil {
		return err
	}
	j.where.remember(last.number, &s.table)
	j.chores = append(j.chores, chore{last, s.table})
	// Keys that crashed runs drew and no record uses are destroyed, with the files that they sealed.
	for n := last.number; n+5 > last.number && n <= last.number; n-- {
		j.unsettled = append(j.unsettled, n)
	}
	j.c.Logger.Info("opened journal", "size", j.Size(), "segment", last.number+1, "copied", doubt.records)
	return nil
}

// readHeaders reads the headers of all segments. It returns the last one that was begun, and the numbers of those
// behind it.
func (j *Journal) readHeaders() (last segment, spares []uint64, err error) {
	numbers, err := segmentNumbers(j.c.FS, j.names)
	if err != nil {
		return last, nil, fmt.Errorf("list segments: %w", err)
	}
	headers := make([]segmentHeader, len(numbers))
	begun := 0
	for n, number := range numbers {
		if number != uint64(n) {
			return last, nil, fmt.Errorf("%w: %s is missing: restore it from a backup or mirror", ErrCorrupt, j.names.segment(uint64(n)))
		}
		h, err := j.readHeader(number)
		if errors.Is(err, errBad) {
			continue
		} else if err != nil {
			return last, nil, err
		}
		if headers[n] = h; begun != n {
			return last, nil, j.badHeader(uint64(begun))
		}
		begun = n + 1
	}
	if begun == 0 {
		return last, nil, j.badHeader(0)
	}
	for n, h := range headers[:begun-1] {
		s, after := h.begun(), headers[n+1]
		s.end, s.last, s.count = int64(after.prevEnd), after.seed, after.first-h.first
		size, err := j.c.FS.Size(j.names.segment(h.number))
		if err != nil {
			return last, nil, err
		}
		if after.first < h.first || after.epoch < h.epoch || s.end < sectorBytes || s.end > size {
			return last, nil, fmt.Errorf("%w: %s has %d bytes and does not fit the header of the next segment: restore both from one backup or mirror",
				ErrCorrupt, j.names.segment(h.number), size)
		}
		j.where.sealed = append(j.where.sealed, s)
	}
	return headers[begun-1].begun(), numbers[begun:], nil
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

// doubtful is a last group of which nothing says that it was synced.
type doubtful struct {
	at      int64
	bytes   []byte // its records
	records int
	refs    int
	seed    uint32
}

// tailScan is what the scan of the last segment collects.
type tailScan struct{ table table }

// readTail walks the last segment to the end of its valid groups, and completes last. A bad group is torn by a crash
// if nothing says that it was synced, else ErrCorrupt.
func (j *Journal) readTail(last *segment) (ts tailScan, doubt doubtful, err error) {
	name := j.names.segment(last.number)
	f, err := j.c.FS.Open(name)
	if err != nil {
		return ts, doubt, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return ts, doubt, err
	}
	keys := keyReader{j: j}
	defer func() { err = errors.Join(err, keys.close()) }()
	s := newScan(f, j.id, *last, size, keys.intact)
	s.noCRC = j.c.bugs.noCRC
	at, synced := s.end, last.synced
	for {
		at = s.end
		seed, refs := s.last, len(ts.table.refs)
		h, err := s.group(func(r record, off int64) error {
			ts.table.add(r, off)
			return nil
		})
		if errors.Is(err, errBad) {
			break
		} else if err != nil {
			return ts, doubt, fmt.Errorf("scan segment %d: %w", last.number, err)
		}
		if h.count > 0 {
			doubt = doubtful{at: at, records: int(h.count), refs: len(ts.table.refs) - refs, seed: seed}
		}
	}
	*last = s.segment
	if s.end < synced {
		return ts, doubt, fmt.Errorf("%w: %s: no valid group at offset %d, but its header says that %d bytes were synced: restore it from a backup or mirror",
			ErrCorrupt, name, s.end, synced)
	}
	if err := j.refuseEvidence(s, at, name); err != nil {
		return ts, doubt, err
	}
	if doubt.records > 0 && s.maxSync > doubt.at {
		doubt = doubtful{}
	}
	if doubt.records > 0 {
		b, err := s.at(doubt.at, s.end-doubt.at)
		if err != nil {
			return ts, doubt, fmt.Errorf("read the last group: %w", err)
		}
		h, err := parseGroupHeader(b, j.id, s.number, doubt.at)
		if err != nil {
			return ts, doubt, fmt.Errorf("read the last group: %w", err)
		}
		doubt.bytes = bytes.Clone(b[groupHeaderBytes : groupHeaderBytes+int(h.length)])
	}
	return ts, doubt, nil
}

// refuseEvidence fails if a header behind the bad group at offset at says that at was synced.
func (j *Journal) refuseEvidence(s *scan, at int64, name string) error {
	if j.c.bugs.noEvidence {
		return nil
	}
	later, err := s.evidence(at, func(h groupHeader) bool { return int64(h.synced) > at })
	if err != nil {
		return fmt.Errorf("scan segment %d: %w", s.number, err)
	}
	if later == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s: bad group at offset %d, but the group at offset %d was written after it was synced: restore the file from a backup or mirror",
		ErrCorrupt, name, at, later)
}

// refuseLaterGroups looks behind the last segment that was begun, where there may be the torn first group of the next
// one, or what a crashed recovery copied there, but nothing else.
func (j *Journal) refuseLaterGroups(last segment, spares []uint64) error {
	if j.c.bugs.noEvidence {
		return nil
	}
	for _, number := range spares {
		name := j.names.segment(number)
		f, err := j.c.FS.Open(name)
		if err != nil {
			return err
		}
		size, err := f.Size()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		s := newScan(f, j.id, segment{number: number}, size, nil)
		later, err := s.evidence(sectorBytes, func(h groupHeader) bool {
			// A header that was synced is damaged, or records in front of this group are missing.
			return h.synced != 0 || h.epoch == last.epoch && h.first > last.next()
		})
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("scan segment %d: %w", number, err)
		}
		if later != 0 {
			return fmt.Errorf("%w: %s ends with record %d at offset %d, but %s has a later group at offset %d: restore both from one backup or mirror",
				ErrCorrupt, j.names.segment(last.number), last.next(), last.end, name, later)
		}
	}
	return nil
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
	if r.sealedIntact(r.sealed) {
		return true, nil
	}
	key, err := k.key(r.key)
	if errors.Is(err, ErrNoKey) {
		return false, nil
	}
	return key == [keyBytes]byte{}, err
}
