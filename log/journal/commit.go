package journal

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// markAfter is how long the journal is idle before a mark says that its last group was synced.
const markAfter = 250 * time.Millisecond

// yieldFrom is how many batches in a group make the writer wait for those who come again.
const yieldFrom = 8

// Pending is a batch of records that has its place and waits for its sync.
type Pending struct {
	first   uint64
	count   int
	done    chan struct{}
	err     error  // set before done is closed
	encoded []byte // records, complete but for what depends on their place
	segment uint64
}

// First returns the index of the batch's first record. It holds even before the batch is durable, provided that the
// batch becomes so.
func (p *Pending) First() uint64 { return p.first }

// Done is closed when the batch is durable, or has failed.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Err returns, after Done, nil if the batch is durable, else an ErrStopped that says why. A batch that failed may
// still be found whole after the next Open: nobody knows.
func (p *Pending) Err() error { return p.err }

func (p *Pending) finish(err error) {
	p.err, p.encoded = err, nil
	close(p.done)
}

// Enqueue places records at the next indices and returns at once, but for large payloads, which it writes first. The
// order of calls is the order of indices. A batch is never split: after a crash it is there as a whole, or absent, and
// absent only if it was not yet durable. The records may be reused when it returns.
// Errors: ErrBusy, ErrTooLarge, ErrStopped; then nothing was placed.
func (j *Journal) Enqueue(records []log.Record) (*Pending, error) {
	entries := make([][]byte, len(records))
	payloads := make([]*log.Payload, len(records))
	entryBytes := 0
	for i, r := range records {
		entries[i], payloads[i] = r.Entry, r.Payload
		entryBytes += len(r.Entry)
	}
	p, err := j.Prepare(payloads, entryBytes)
	if err != nil {
		return nil, err
	}
	pending, err := j.Place(p, entries)
	if err != nil {
		j.Discard(p)
	}
	if errors.Is(err, ErrStale) {
		err = fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return pending, err
}

// Place gives prepared payloads and their entries the next indices. Lasting payloads at the front may be left out, for
// callers who learn late that they do not need them: fewer entries are those of the last payloads. On success p is used
// up; on an error it is the caller's still, to place again or to discard. Errors: ErrBusy, ErrTooLarge, ErrStale,
// ErrStopped.
func (j *Journal) Place(p *Prepared, entries [][]byte) (*Pending, error) {
	seals, err := p.lastOf(len(entries))
	if err != nil {
		return nil, err
	}
	length, err := j.measure(seals, entries)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, length)
	for i, e := range entries {
		b = appendRecord(b, e, seals[i])
	}
	pending := &Pending{count: len(entries), done: make(chan struct{}), encoded: b}
	if err := j.enqueue(pending, p); err != nil {
		return nil, err
	}
	for _, s := range seals {
		if s != nil {
			clear(s.secret[:])
		}
	}
	*p = Prepared{}
	if j.c.inline {
		return pending, j.step()
	}
	signal(j.wake)
	return pending, nil
}

// measure returns the encoded bytes of a batch, and refuses what can never be placed.
func (j *Journal) measure(seals []*sealed, entries [][]byte) (int64, error) {
	var length int64
	for i, e := range entries {
		if len(e) == 0 || len(e) > log.EntryMaxBytes {
			return 0, fmt.Errorf("%w: entry of %d bytes, want 1 to %d", ErrTooLarge, len(e), log.EntryMaxBytes)
		}
		length += recordBytes(len(e), seals[i])
	}
	return length, j.refuseTooLarge(len(entries), length)
}

func (j *Journal) refuseTooLarge(records int, length int64) error {
	if limit := j.c.SegmentBytes - 2*sectorBytes; need(length) > limit || records > j.c.QueueRecords {
		return fmt.Errorf("%w: batch of %d records and %d bytes, limit %d and %d", ErrTooLarge, records, length, j.c.QueueRecords, limit)
	}
	return nil
}

// need is the space of a batch in a segment if it gets a group of its own, which is the most that it can take.
func need(length int64) int64 { return roundUp(groupHeaderBytes + length) }

// reserve sets room in the queue aside.
func (j *Journal) reserve(p *Prepared, records int, bytes int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.reserveLocked(p, records, bytes)
}

// reserveLocked changes the room that p has. The caller holds mu.
func (j *Journal) reserveLocked(p *Prepared, records int, bytes int64) error {
	others, otherBytes := j.queuedRecords-p.records, j.queuedBytes-p.bytes
	switch {
	case j.err != nil:
		return fmt.Errorf("%w: %w", ErrStopped, j.err)
	case j.stopping:
		return ErrStopped
	case others > 0 && bytes > p.bytes && otherBytes+bytes > j.c.QueueBytes, others+records > j.c.QueueRecords:
		return fmt.Errorf("%w: %d records wait", ErrBusy, others)
	}
	j.queuedRecords, j.queuedBytes = others+records, otherBytes+bytes
	p.records, p.bytes = records, bytes
	return nil
}

// enqueue decides where a batch goes. All that is known later is what can be saved by sharing a group.
func (j *Journal) enqueue(pending *Pending, p *Prepared) error {
	length := int64(len(pending.encoded))
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.reserveLocked(p, pending.count, length); err != nil {
		return err
	}
	segment, off := j.nextPlace(p, length)
	// What is placed will be written. Where the disk has no room for another segment, callers are told so before.
	for segment > j.preparedTo {
		if err := j.awaitPreparation(); err != nil {
			return err
		}
		segment, off = j.nextPlace(p, length)
	}
	if p.any && p.file+1 < segment {
		return ErrStale
	}
	pending.first, pending.segment = j.next, segment
	j.placeSegment, j.placeOff = segment, off+need(length)
	j.next += uint64(pending.count)
	j.queue = append(j.queue, pending)
	return nil
}

// nextPlace tells where a batch goes. The caller holds mu.
func (j *Journal) nextPlace(p *Prepared, length int64) (segment uint64, off int64) {
	// The last sector of a segment is kept for a mark. A segment also ends when its key slots have run out, which
	// shows in a key of the next one.
	if j.placeOff+need(length) > j.c.SegmentBytes-sectorBytes || p.any && p.file > j.placeSegment {
		return j.placeSegment + 1, sectorBytes
	}
	return j.placeSegment, j.placeOff
}

// write is the writer goroutine: as soon as a sync has returned it takes all that waits, and that is the next group.
// There is no timer in its way; how many share a sync follows from how long a sync takes.
func (j *Journal) write() {
	idle := time.NewTimer(markAfter)
	defer idle.Stop()
	for {
		if j.step() != nil {
			return
		}
		select {
		case <-j.wake:
			idle.Reset(markAfter)
		case <-idle.C:
			j.mark()
		case <-j.failed:
			return
		case <-j.closing:
			// Everything placed before the closing is in the queue.
			if j.step() == nil {
				j.mark()
			}
			return
		}
	}
}

// step commits until nothing waits. Its error has stopped the journal.
func (j *Journal) step() error {
	for {
		batches := j.take()
		if len(batches) == 0 {
			return nil
		}
		n := len(batches)
		if err := j.commit(batches); err != nil {
			j.fail(err)
			err = j.stopped()
			for _, p := range batches {
				p.finish(err)
			}
			return err
		}
		if j.c.inline {
			if err := j.keep(); err != nil {
				return err
			}
			continue
		}
		signal(j.work)
		// Many who were just answered have more to say. Let them, and the next sync serves twice as many; else they
		// run only while it is in the system's hands, and miss it.
		if n >= yieldFrom {
			runtime.Gosched()
		}
	}
}

// take removes from the queue what goes into the next group: batches of one segment, up to groupMaxBytes.
func (j *Journal) take() []*Pending {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, length := 0, 0
	for n < len(j.queue) && j.queue[n].segment == j.queue[0].segment {
		if length += len(j.queue[n].encoded); n > 0 && length > groupMaxBytes {
			break
		}
		n++
	}
	j.taken = append(j.taken[:0], j.queue[:n]...)
	rest := copy(j.queue, j.queue[n:])
	clear(j.queue[rest:])
	j.queue = j.queue[:rest]
	return j.taken
}

// commit writes batches as one group and makes them durable, in this order:
//
//	group written (with the header of its segment, if it is the first there) -> synced -> size grown -> acknowledged
//
// The segment before is synced by then, since every group is synced before the next is written. A crash before the
// sync leaves a torn group, which recovery drops as a whole: no batch of it was acknowledged. Any error is fatal; the
// sync is not tried again, for the kernel counts the pages as clean.
func (j *Journal) commit(batches []*Pending) error {
	next := j.tail
	if batches[0].segment != j.tail.number {
		next = j.roll(batches[0].segment)
	}
	g := j.encode(&next, batches)
	began := time.Now()
	if _, err := next.file.WriteAt(j.group, g.at); err != nil {
		return fmt.Errorf("write group at offset %d of segment %d: %w", g.at, next.number, err)
	}
	if err := next.file.Sync(); err != nil {
		return fmt.Errorf("sync segment %d: %w", next.number, err)
	}
	j.counts.sync(time.Since(began), len(j.group))
	if err := j.advance(next, g); err != nil {
		return err
	}
	j.acknowledge(batches, g)
	if cap(j.group) > 2*groupMaxBytes {
		j.group = nil
	}
	return nil
}

// group is what commit knows of the group in j.group.
type group struct {
	at      int64    // offset of the write in its segment
	first   uint64   // index of the first record
	records int      // how many
	bytes   int64    // of records
	used    int64    // bytes of the segment that it takes, without a segment header
	offsets []uint32 // of the records in the segment
	refs    []keyPos
}

// encode fills j.group with the batches, and moves next behind them.
func (j *Journal) encode(next *tail, batches []*Pending) group {
	g := group{at: next.off, first: next.next()}
	b := j.group[:0]
	if next.number != j.tail.number {
		g.at = 0
		b = append(b, next.header(j.id).encode()...)
	}
	head := len(b)
	b = append(b, make([]byte, groupHeaderBytes)...)
	for _, p := range batches {
		b = append(b, p.encoded...)
		g.records += p.count
	}
	g.bytes = int64(len(b) - head - groupHeaderBytes)
	h := groupHeader{epoch: j.epoch, first: g.first, length: uint32(g.bytes), count: uint32(g.records), seed: next.last}
	if g.at != 0 {
		h.synced = uint32(next.off)
	}
	g.offsets = make([]uint32, 0, g.records)
	for at := head + groupHeaderBytes; at < len(b); {
		crc, size := place(b[at:], next.last, next.next(), j.epoch)
		if key, ok := keyOf(b[at:]); ok {
			g.refs = append(g.refs, key)
		}
		g.offsets = append(g.offsets, uint32(g.at)+uint32(at))
		next.last, next.count, at = crc, next.count+1, at+size
	}
	h.last = next.last
	h.put(b[head:], j.id, next.number, next.off)
	g.used = roundUp(int64(len(b) - head))
	next.off += g.used
	next.end = next.off
	b = append(b, make([]byte, head+int(g.used)-len(b))...)
	j.group = b
	return g
}

// advance makes next the tail and shows its new records to readers.
func (j *Journal) advance(next tail, g group) error {
	old := j.tail
	j.tail = next
	if next.number == old.number {
		j.where.extend(next.segment, g)
		return nil
	}
	c := chore{segment: old.segment, table: j.where.seal(next.segment, g)}
	if old.number > 0 {
		c.settle = []uint64{old.number - 1}
	}
	j.mu.Lock()
	j.chores = append(j.chores, c)
	j.mu.Unlock()
	if err := old.file.Close(); err != nil {
		return fmt.Errorf("close segment %d: %w", old.number, err)
	}
	return nil
}

// acknowledge tells everybody who waits for batches that are durable.
func (j *Journal) acknowledge(batches []*Pending, g group) {
	j.recent.add(j.group, g)
	var reserved int64
	for _, p := range batches {
		reserved += need(int64(len(p.encoded)))
	}
	j.mu.Lock()
	if j.placeSegment == j.tail.number {
		j.placeOff -= reserved - g.used
	}
	j.queuedBytes -= g.bytes
	j.queuedRecords -= g.records
	j.size.Store(j.tail.next())
	if j.grown != nil {
		close(j.grown)
		j.grown = nil
	}
	j.mu.Unlock()
	for _, p := range batches {
		p.finish(nil)
	}
	clear(batches)
}

// mark writes and syncs a group of no records, whose header says up to where was synced. A bit that rots in the last
// group is then known for damage: without the mark it would look like a group torn by a crash.
func (j *Journal) mark() {
	if j.tail.marked() {
		return
	}
	j.mu.Lock()
	room := len(j.queue) == 0 && j.placeSegment == j.tail.number && j.err == nil
	if room {
		j.placeOff += sectorBytes
	}
	j.mu.Unlock()
	if !room {
		return
	}
	t := &j.tail
	b := make([]byte, sectorBytes)
	h := groupHeader{epoch: j.epoch, first: t.next(), synced: uint32(t.off), seed: t.last, last: t.last}
	h.put(b, j.id, t.number, t.off)
	if _, err := t.file.WriteAt(b, t.off); err != nil {
		j.fail(fmt.Errorf("write mark at offset %d of segment %d: %w", t.off, t.number, err))
		return
	}
	if err := t.file.Sync(); err != nil {
		j.fail(fmt.Errorf("sync mark of segment %d: %w", t.number, err))
		return
	}
	t.off += sectorBytes
	t.end, t.mark = t.off, t.off
	j.where.extend(t.segment, group{})
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
