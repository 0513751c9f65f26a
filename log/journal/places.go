package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sort"
	"sync"

	"github.com/pipe-roll/piperoll/log/disk"
)

// tablesMax bounds how many tables of sealed segments are kept in memory.
const tablesMax = 8

// table tells where the records of one segment are. It is derived from the segment, and kept in a file beside it so
// that a lookup need not read the segment.
type table struct {
	offsets []uint32 // of the records, in order
	refs    []keyPos // keys that they use, in order
}

// places finds records.
type places struct {
	mu     sync.RWMutex
	sealed []segment // guarded by mu, as all below; sealed[n].number is n
	tail   segment
	table  table // of the tail; only ever appended to
	cache  map[uint64]*table
	used   []uint64 // numbers in cache, last used last
}

// extend shows readers a tail that has grown.
func (w *places) extend(tail segment, g group) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tail = tail
	w.table.offsets = append(w.table.offsets, g.offsets...)
	w.table.refs = append(w.table.refs, g.refs...)
}

// seal shows readers a new tail, and returns the table of the old one.
func (w *places) seal(tail segment, g group) table {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.table
	w.sealed = append(w.sealed, w.tail)
	w.remember(w.tail.number, &old)
	w.tail, w.table = tail, table{g.offsets, g.refs}
	return old
}

// remember caches a table. The caller holds mu.
func (w *places) remember(number uint64, t *table) {
	if i := slices.Index(w.used, number); i >= 0 {
		w.used = slices.Delete(w.used, i, i+1)
	} else if len(w.used) == tablesMax {
		delete(w.cache, w.used[0])
		w.used = slices.Delete(w.used, 0, 1)
	}
	w.cache[number] = t
	w.used = append(w.used, number)
}

// segments returns all segments, the tail last, as far as they are durable.
func (w *places) segments() []segment {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return append(slices.Clip(w.sealed), w.tail)
}

// find returns the segment with a durable record.
func (w *places) find(index uint64) segment {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if index >= w.tail.first {
		return w.tail
	}
	// An empty segment has the same first index as the next; the last one of them has the record.
	return w.sealed[sort.Search(len(w.sealed), func(i int) bool { return w.sealed[i].first > index })-1]
}

// known returns a table that is in memory.
func (w *places) known(number uint64) (table, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if number == w.tail.number {
		return w.table, true
	}
	t := w.cache[number]
	if t == nil {
		return table{}, false
	}
	w.remember(number, t)
	return *t, true
}

// tableOf returns the table of a segment: from memory, else from its file, else by scanning the segment.
func (j *Journal) tableOf(s segment) (table, error) {
	if t, ok := j.where.known(s.number); ok {
		return t, nil
	}
	t, err := j.readTable(s)
	if err != nil {
		if t, err = j.deriveTable(s); err != nil {
			return table{}, err
		}
		j.c.Logger.Warn("derived missing or damaged table", "segment", s.number)
	}
	j.where.mu.Lock()
	j.where.remember(s.number, &t)
	j.where.mu.Unlock()
	return t, nil
}

func (j *Journal) readTable(s segment) (table, error) {
	limit := tableHeaderBytes + 4*int64(s.count)*3 + 4
	b, err := disk.ReadFile(j.c.FS, j.names.table(s.number), limit)
	if err != nil {
		return table{}, err
	}
	return parseTable(b, j.id, s)
}

func (j *Journal) deriveTable(s segment) (t table, err error) {
	name := j.names.segment(s.number)
	f, err := j.c.FS.Open(name)
	if err != nil {
		return table{}, fmt.Errorf("read segment %d: %w", s.number, err)
	}
	err = scanSealed(f, j.id, s, name, func(r record, off int64) error {
		t.add(r, off)
		return nil
	})
	return t, errors.Join(err, f.Close())
}

func (t *table) add(r record, off int64) {
	t.offsets = append(t.offsets, uint32(off))
	if r.keyed() {
		t.refs = append(t.refs, r.key)
	}
}

const (
	tableMagic       = "prjtab/1"
	tableHeaderBytes = 64
)

// encode gives the table file of a segment.
func (t table) encode(journal id, s segment) []byte {
	b := make([]byte, 0, tableHeaderBytes+4*len(t.offsets)+8*len(t.refs)+4)
	b = append(append(b, tableMagic...), journal[:]...)
	for _, v := range []uint64{s.number, s.first, s.count, uint64(s.end)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, s.last)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(t.refs)))
	for _, v := range t.offsets {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for _, k := range t.refs {
		b = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, k.file), k.slot)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
}

// parseTable accepts only the table of this very segment; anything else is errBad.
func parseTable(b []byte, journal id, s segment) (table, error) {
	t := table{offsets: make([]uint32, s.count)}
	head := table{}.encode(journal, s)[:tableHeaderBytes-4]
	if len(b) < tableHeaderBytes+4 || string(b[:len(head)]) != string(head) {
		return table{}, errBad
	}
	refs := uint64(binary.LittleEndian.Uint32(b[len(head):]))
	if refs > s.count || uint64(len(b)) != tableHeaderBytes+4*s.count+8*refs+4 {
		return table{}, errBad
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli()) != binary.LittleEndian.Uint32(b[len(body):]) {
		return table{}, errBad
	}
	body = body[tableHeaderBytes:]
	for i := range t.offsets {
		t.offsets[i] = binary.LittleEndian.Uint32(body[4*i:])
	}
	body = body[4*s.count:]
	for ; len(body) > 0; body = body[8:] {
		t.refs = append(t.refs, keyPos{binary.LittleEndian.Uint32(body), binary.LittleEndian.Uint32(body[4:])})
	}
	return t, nil
}
