package client

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/pipe-roll/piperoll/log/disk"
)

// numbers gives the segments that are there.
func (s *spool) numbers() ([]uint64, error) {
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, name := range names {
		var n uint64
		if _, err := fmt.Sscanf(name, "%d.outbox", &n); err == nil && name == segmentName(n) {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// load reads a segment. Of the last one a torn end is dropped, and the rest is
// written anew.
func (s *spool) load(number uint64, last bool, each func(uint64, record) error) error {
	path := filepath.Join(s.dir, segmentName(number))
	size, err := s.fs.Size(path)
	if err != nil {
		return err
	}
	data, err := disk.ReadFile(s.fs, path, size)
	if err != nil {
		return err
	}
	seg := &segment{number: number}
	for seg.size < int64(len(data)) {
		records, n, err := group(data[seg.size:], number, seg.size)
		if err != nil {
			if !last || seg.size == 0 || s.whole(data, number, seg.size+1) {
				return fmt.Errorf("damaged at byte %d, and not by a crash: keep a copy, it may have events that are not in the log", seg.size)
			}
			break
		}
		if err := s.replay(seg, records, each); err != nil {
			return fmt.Errorf("group at byte %d: %w", seg.size, err)
		}
		if seg.size == 0 {
			seg.head = n
		}
		seg.size += n
	}
	if seg.size == 0 {
		return errors.New("it is empty: every segment begins with a snapshot")
	}
	if last {
		if err := disk.WriteFile(s.fs, filepath.Join(s.dir, "new"), path, data[:seg.size]); err != nil {
			return err
		}
	}
	return s.add(seg)
}

// whole says whether there is a group that is whole at or after off: then what is
// damaged before it had been synced.
func (s *spool) whole(data []byte, number uint64, off int64) bool {
	for ; off < int64(len(data)); off++ {
		if _, _, err := group(data[off:], number, off); err == nil {
			return true
		}
	}
	return false
}

func (s *spool) replay(seg *segment, group []byte, each func(uint64, record) error) error {
	records, err := parseRecords(group)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.kind == recordSnapshot && s.ledger == nil {
			if s.ledger, err = parseLedger(r.bytes); err != nil {
				return err
			}
		}
		if s.ledger == nil {
			return errors.New("no snapshot at the beginning")
		}
		if err := s.ledger.apply(&r); err != nil {
			return err
		}
		if r.kind == recordEvent {
			seg.unsettled++
		}
		if err := each(seg.number, r); err != nil {
			return err
		}
	}
	return nil
}

// A place is where a group begins.
type place struct {
	segment uint64
	off     int64
}

// next reads the group at a place, or the first after it that is still there, and
// gives where the next one is. Without one that is durable, ok is false.
func (s *spool) next(at place) (records []record, from uint64, then place, ok bool, err error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	s.mu.Lock()
	var seg segment
	for _, have := range s.segments {
		if have.number > at.segment {
			at = place{have.number, 0}
		}
		if have.number == at.segment && at.off < have.size {
			seg = *have
			break
		}
	}
	s.mu.Unlock()
	if seg.file == nil {
		return nil, 0, at, false, nil
	}
	header := make([]byte, groupHeaderBytes)
	if err := readFull(seg.file, header, at.off); err != nil {
		return nil, 0, at, false, err
	}
	size, err := groupBytes(header)
	if err != nil || at.off+size > seg.size {
		return nil, 0, at, false, fmt.Errorf("read %s: damaged at byte %d", segmentName(seg.number), at.off)
	}
	b := make([]byte, size)
	if err := readFull(seg.file, b, at.off); err != nil {
		return nil, 0, at, false, err
	}
	text, _, err := group(b, seg.number, at.off)
	if err == nil {
		records, err = parseRecords(text)
	}
	if err != nil {
		return nil, 0, at, false, fmt.Errorf("read %s at byte %d: %w", segmentName(seg.number), at.off, err)
	}
	return records, seg.number, place{seg.number, at.off + size}, true, nil
}

func readFull(f disk.File, b []byte, off int64) error {
	// A reader may report io.EOF together with the last byte.
	if n, err := f.ReadAt(b, off); n < len(b) {
		return err
	}
	return nil
}
