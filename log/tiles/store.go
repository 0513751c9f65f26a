package tiles

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// A store keeps every published checkpoint in segment files that are made full of zeros, so that an append changes no
// metadata. Sizes never go down; the same size may come again with more cosignatures, and the last one counts.
// Methods are not safe for concurrent use; the Tree holds a lock around them.
type store struct {
	fs       disk.FS
	dir      string
	segments []segment
	file     disk.File // of the last segment
	end      int64     // in file: where the next record goes
	keep     int       // length of last
	last     []record  // the newest, newest last
}

// A segment's name holds its place in the order and the first size in it.
type segment struct {
	ordinal, first uint64
}

type record struct {
	size uint64
	note []byte
}

const (
	segmentBytes    = 1 << 20
	recordAlign     = 64
	recordHeadBytes = 16
)

// errStore is wrapped when what was synced into the store is not there.
var errStore = errors.New("checkpoint store is damaged")

func (s segment) name() string { return fmt.Sprintf("%08d-%016d", s.ordinal, s.first) }

func parseSegment(name string) (segment, bool) {
	a, b, _ := strings.Cut(name, "-")
	ordinal, err := strconv.ParseUint(a, 10, 64)
	first, err2 := strconv.ParseUint(b, 10, 64)
	s := segment{ordinal, first}
	return s, err == nil && err2 == nil && s.name() == name
}

// openStore opens the store and makes it ready for appends; it keeps the newest records in memory. A record that was being written when the process or the
// machine died is cut off; a bad record with a good one behind it is damage.
func openStore(fsys disk.FS, dir string, keep int) (*store, error) {
	s := &store{fs: fsys, dir: dir, keep: keep}
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint store: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, tmpSuffix) {
			if err := fsys.Remove(filepath.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("remove left-over %s: %w", name, err)
			}
			continue
		}
		seg, ok := parseSegment(name)
		if !ok || seg.ordinal != uint64(len(s.segments))+1 || len(s.segments) > 0 && seg.first < s.segments[len(s.segments)-1].first {
			return nil, fmt.Errorf("%w: file %s is not the next segment", errStore, name)
		}
		s.segments = append(s.segments, seg)
	}
	if len(s.segments) == 0 {
		return s, nil
	}
	if err := s.openLast(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *store) openLast() error {
	seg := s.segments[len(s.segments)-1]
	data, err := s.read(seg)
	if err != nil {
		return err
	}
	records, end, err := parseSegmentData(data, seg)
	if err != nil {
		return err
	}
	s.last, s.end = records[max(0, len(records)-s.keep):], end
	if len(records) == 0 && len(s.segments) > 1 {
		// The crash came after the segment was made and before its first record was synced.
		before, err := s.records(s.segments[len(s.segments)-2])
		if err != nil {
			return err
		}
		s.last = before[max(0, len(before)-s.keep):]
	}
	if s.file, err = s.fs.Open(filepath.Join(s.dir, seg.name())); err != nil {
		return fmt.Errorf("open checkpoint segment %s: %w", seg.name(), err)
	}
	tail := data[end:]
	if len(data) == segmentBytes && len(bytes.TrimLeft(tail, "\x00")) == 0 {
		return nil
	}
	// Cut off the torn record, and sync what was recovered before anyone relies on it.
	if _, err = s.file.WriteAt(make([]byte, segmentBytes-end), end); err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("cut checkpoint segment %s at %d: %w", seg.name(), end, err)
	}
	return nil
}

func (s *store) read(seg segment) ([]byte, error) {
	data, err := disk.ReadFile(s.fs, filepath.Join(s.dir, seg.name()), segmentBytes)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint segment %s: %w", seg.name(), err)
	}
	return data, nil
}

// newest returns the record published last.
func (s *store) newest() (record, bool) {
	if len(s.last) == 0 {
		return record{}, false
	}
	return s.last[len(s.last)-1], true
}

// append stores a checkpoint, durably.
func (s *store) append(size uint64, msg []byte) error {
	data := marshalRecord(size, msg)
	if s.file == nil || s.end+int64(len(data)) > segmentBytes {
		if err := s.roll(size); err != nil {
			return fmt.Errorf("start checkpoint segment: %w", err)
		}
	}
	_, err := s.file.WriteAt(data, s.end)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("store checkpoint of size %d: %w", size, err)
	}
	s.end += int64(len(data))
	s.last = append(slices.Clone(s.last[max(0, len(s.last)-s.keep+1):]), record{size, msg})
	return nil
}

const tmpSuffix = ".tmp"

func (s *store) roll(first uint64) error {
	if s.file != nil {
		if err := s.file.Close(); err != nil {
			return err
		}
		s.file = nil
	}
	seg := segment{uint64(len(s.segments)) + 1, first}
	name := filepath.Join(s.dir, seg.name())
	if err := disk.WriteFile(s.fs, name+tmpSuffix, name, make([]byte, segmentBytes)); err != nil {
		return err
	}
	f, err := s.fs.Open(name)
	if err != nil {
		return err
	}
	s.file, s.end, s.segments = f, 0, append(s.segments, seg)
	return nil
}

// snapshot returns a store that can be searched while this one is appended to.
func (s *store) snapshot() *store {
	return &store{fs: s.fs, dir: s.dir, segments: s.segments, last: s.last}
}

// find returns the newest checkpoint of the given size, fs.ErrNotExist if that size was not published.
func (s *store) find(size uint64) ([]byte, error) {
	for i := len(s.last) - 1; i >= 0; i-- {
		if s.last[i].size == size {
			return s.last[i].note, nil
		}
	}
	n := sort.Search(len(s.segments), func(i int) bool { return s.segments[i].first > size })
	for n--; n >= 0; n-- {
		records, err := s.records(s.segments[n])
		if err != nil {
			return nil, err
		}
		for i := len(records) - 1; i >= 0; i-- {
			if records[i].size == size {
				return records[i].note, nil
			}
		}
		// A segment may not hold its first size: the crash came between making it and writing to it.
		if len(records) > 0 && records[0].size <= size {
			break
		}
	}
	return nil, fmt.Errorf("checkpoint of size %d: %w", size, fs.ErrNotExist)
}

func (s *store) records(seg segment) ([]record, error) {
	data, err := s.read(seg)
	if err != nil {
		return nil, err
	}
	records, _, err := parseSegmentData(data, seg)
	return records, err
}

func (s *store) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

func marshalRecord(size uint64, msg []byte) []byte {
	n := recordHeadBytes + len(msg)
	b := make([]byte, (n+recordAlign-1)/recordAlign*recordAlign)
	binary.BigEndian.PutUint32(b, uint32(len(msg)))
	binary.BigEndian.PutUint64(b[8:], size)
	copy(b[recordHeadBytes:], msg)
	binary.BigEndian.PutUint32(b[4:], recordSum(b[:n]))
	return b
}

// recordSum is over length, size and note.
func recordSum(b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(b[:4], table), table, b[8:])
}

// parseRecord reads the record at the start of data; bytes is how much it takes there.
func parseRecord(data []byte) (r record, bytes int64, ok bool) {
	if len(data) < recordHeadBytes {
		return r, 0, false
	}
	n := int(binary.BigEndian.Uint32(data))
	if n == 0 || n > log.NoteMaxBytes || recordHeadBytes+n > len(data) {
		return r, 0, false
	}
	if binary.BigEndian.Uint32(data[4:]) != recordSum(data[:recordHeadBytes+n]) {
		return r, 0, false
	}
	r = record{binary.BigEndian.Uint64(data[8:]), data[recordHeadBytes : recordHeadBytes+n]}
	return r, int64((recordHeadBytes + n + recordAlign - 1) / recordAlign * recordAlign), true
}

// parseSegmentData returns the records of a segment, and where they end.
func parseSegmentData(data []byte, seg segment) (records []record, end int64, err error) {
	size := seg.first
	for {
		r, n, ok := parseRecord(data[min(end, int64(len(data))):])
		if !ok {
			break
		}
		if r.size < size {
			return nil, 0, fmt.Errorf("%w: segment %s: size %d after %d", errStore, seg.name(), r.size, size)
		}
		records, size, end = append(records, r), r.size, end+n
	}
	for at := end + recordAlign; at < int64(len(data)); at += recordAlign {
		if _, _, ok := parseRecord(data[at:]); ok {
			return nil, 0, fmt.Errorf("%w: segment %s: bad record at %d, a good one at %d", errStore, seg.name(), end, at)
		}
	}
	return records, end, nil
}
