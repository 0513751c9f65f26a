package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/pipe-roll/piperoll/log/disk"
)

// windowBytes is what a scan reads at a time.
const windowBytes = 1 << 20

// segment is what is known of one segment file.
type segment struct {
	number    uint64
	epoch     uint64
	first     uint64 // index of its first record
	count     uint64 // records
	sizeBytes int64  // as prepared
	prev      uint64
	prevEnd   int64
	synced    int64 // what its header says was synced before the header
	end       int64 // bytes used; 0 if the segment is void
	mark      int64 // end of the last mark, if nothing came after it
	seed      uint32
	last      uint32 // CRC of the last record, seed if there is none
}

// next is the index after the segment's last record.
func (s segment) next() uint64 { return s.first + s.count }

// marked tells whether a mark says that all groups of the segment were synced.
func (s segment) marked() bool { return s.end == s.mark }

func (s segment) header(journal id) segmentHeader {
	return segmentHeader{
		journal: journal, number: s.number, epoch: s.epoch, first: s.first, sizeBytes: uint64(s.sizeBytes),
		prev: s.prev, prevEnd: uint64(s.prevEnd), synced: uint64(s.synced), seed: s.seed,
	}
}

// begun returns a segment that has only its header.
func (h segmentHeader) begun() segment {
	return segment{
		number: h.number, epoch: h.epoch, first: h.first, sizeBytes: int64(h.sizeBytes), prev: h.prev, prevEnd: int64(h.prevEnd),
		synced: int64(h.synced), end: sectorBytes, seed: h.seed, last: h.seed,
	}
}

// window reads a file in large pieces.
type window struct {
	file  disk.File
	off   int64
	bytes []byte
	limit int64 // the end of what is to be read
}

// at returns up to n bytes at off, fewer at the limit or the end of the file. They hold until the next call.
func (w *window) at(off int64, n int64) ([]byte, error) {
	n = max(0, min(n, w.limit-off))
	if off < w.off || off+n > w.off+int64(len(w.bytes)) {
		want := max(n, min(windowBytes, w.limit-off))
		if int64(cap(w.bytes)) < want {
			w.bytes = make([]byte, want)
		}
		got, err := w.file.ReadAt(w.bytes[:want], off)
		if err != nil && !errors.Is(err, io.EOF) {
			w.bytes = w.bytes[:0]
			return nil, err
		}
		w.off, w.bytes = off, w.bytes[:got]
	}
	b := w.bytes[off-w.off:]
	return b[:min(int64(len(b)), n)], nil
}

// scan walks the groups of one segment in order.
type scan struct {
	window
	journal id
	segment       // grows with what was found
	maxSync int64 // the greatest offset that a header said was synced
	noCRC   bool  // see bugs
	intact  func(record) (bool, error)
}

// newScan begins at the first group of the segment. intact tells whether a record's sealed bytes are as they should
// be; nil means that they are not looked at.
func newScan(f disk.File, journal id, s segment, limit int64, intact func(record) (bool, error)) *scan {
	s.count, s.end, s.last = 0, sectorBytes, s.seed
	return &scan{window: window{file: f, limit: limit}, journal: journal, segment: s, intact: intact}
}

// group reads the group at the end of what was scanned so far, and calls each with its records and their offsets. If
// there is no whole group it returns errBad, and the scan stays where it was. The group's bytes hold until the next
// call.
func (s *scan) group(each func(r record, off int64) error) (groupHeader, error) {
	off := s.end
	b, err := s.at(off, groupHeaderBytes)
	if err != nil {
		return groupHeader{}, err
	}
	h, err := parseGroupHeader(b, s.journal, s.number, off)
	if err != nil || h.epoch != s.epoch || h.first != s.next() || h.seed != s.last {
		return groupHeader{}, errBad
	}
	if b, err = s.at(off+groupHeaderBytes, int64(h.length)); err != nil {
		return groupHeader{}, err
	}
	if int64(len(b)) != int64(h.length) {
		return groupHeader{}, errBad
	}
	if err := s.records(h, b, func(record, int64) error { return nil }); err != nil {
		return groupHeader{}, err
	}
	if err := s.records(h, b, each); err != nil {
		return groupHeader{}, err
	}
	s.end = roundUp(off + groupHeaderBytes + int64(h.length))
	s.count += uint64(h.count)
	s.last = h.last
	s.maxSync = max(s.maxSync, int64(h.synced))
	if h.count == 0 {
		s.mark = s.end
	}
	return h, nil
}

// records checks a group's records from first to last, so that a group counts only as a whole.
func (s *scan) records(h groupHeader, b []byte, each func(r record, off int64) error) error {
	prev, off := h.seed, s.end+groupHeaderBytes
	for n := range uint64(h.count) {
		parse := parseRecord
		if s.noCRC {
			parse = decodeRecord
		}
		r, size, err := parse(b)
		if err != nil {
			return err
		}
		if !s.noCRC && (r.prev != prev || r.index != h.first+n || r.epoch != h.epoch) {
			return errBad
		}
		if s.intact != nil && len(r.sealed) > 0 && !s.noCRC {
			ok, err := s.intact(r)
			if err != nil {
				return err
			}
			if !ok {
				return errBad
			}
		}
		if err := each(r, off); err != nil {
			return err
		}
		prev, b, off = r.crc, b[size:], off+int64(size)
	}
	if len(b) != 0 || prev != h.last && !s.noCRC {
		return errBad
	}
	return nil
}

// evidence looks at every sector behind from for a group of this journal and place for which is holds, and returns
// its offset, or 0.
func (s *scan) evidence(from int64, is func(groupHeader) bool) (int64, error) {
	for off := from; off < s.limit; {
		b, err := s.at(off, min(windowBytes, s.limit-off))
		if err != nil {
			return 0, err
		}
		if len(b) == 0 {
			return 0, nil
		}
		for at := 0; at < len(b); at += sectorBytes {
			if len(b)-at < groupHeaderBytes || binary.LittleEndian.Uint32(b[at:]) != groupMagic {
				continue
			}
			place := off + int64(at)
			if h, err := parseGroupHeader(b[at:], s.journal, s.number, place); err == nil && is(h) {
				return place, nil
			}
		}
		off += roundUp(int64(len(b)))
	}
	return 0, nil
}

// scanSealed walks a segment whose end the next one's header tells, and calls each with every record. What does not
// agree with that header is ErrCorrupt.
func scanSealed(f disk.File, journal id, want segment, name string, each func(r record, off int64) error) error {
	s := newScan(f, journal, want, want.end, nil)
	for s.end < want.end {
		at := s.end
		if _, err := s.group(each); errors.Is(err, errBad) {
			return fmt.Errorf("%w: %s: no valid group at offset %d: restore this file from a backup or a mirror", ErrCorrupt, name, at)
		} else if err != nil {
			return fmt.Errorf("scan %s: %w", name, err)
		}
	}
	if s.end != want.end || s.count != want.count || s.last != want.last {
		return fmt.Errorf("%w: %s: %d records up to offset %d, the next segment says %d up to %d: restore both from one backup or mirror",
			ErrCorrupt, name, s.count, s.end, want.count, want.end)
	}
	return nil
}

// sealedIntact tells whether sealed bytes are what was written.
func (r record) sealedIntact(box []byte) bool {
	return len(box) == int(r.sealedLen) && crc32.Checksum(box, castagnoli()) == r.sealedCRC
}
