package client

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/tlog"
)

// Kinds of record in the outbox.
const (
	recordEvent      = 'e' // an event with its payload and salt
	recordCut        = 'c' // a request ends here: its tail signature never covers anything else
	recordBreak      = 'b' // no request goes over this: what comes after is cut already, what comes before is not
	recordAck        = 'a' // the log's receipt for a request
	recordCheckpoint = 'k' // the newest checkpoint that was checked
	recordSnapshot   = 's' // first in each segment: the ledger before it
)

// A record is what the outbox writes at once.
type record struct {
	kind byte
	made made // of an event

	stream string   // of the others but checkpoint and snapshot
	seq    uint64   // the last that it is about
	hash   log.Hash // of that event, in an ack
	first  uint64   // index of the first entry, in an ack
	by     uint64
	leaves []log.Hash
	bytes  []byte // receipt, checkpoint or snapshot
}

func appendField(b, field []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(field))), field...)
}

// append encodes the record.
func (r *record) append(b []byte) []byte {
	b = append(b, r.kind)
	switch r.kind {
	case recordEvent:
		b = appendField(b, r.made.canonical)
		if p := r.made.payload; p != nil {
			b = appendField(append(b, p.Salt[:]...), p.Bytes)
		}
		return b
	case recordCheckpoint, recordSnapshot:
		return appendField(b, r.bytes)
	}
	b = binary.AppendUvarint(appendField(b, []byte(r.stream)), r.seq)
	if r.kind != recordAck {
		return b
	}
	b = binary.AppendUvarint(binary.AppendUvarint(append(b, r.hash[:]...), r.first), r.by)
	b = binary.AppendUvarint(b, uint64(len(r.leaves)))
	for i := range r.leaves {
		b = append(b, r.leaves[i][:]...)
	}
	return appendField(b, r.bytes)
}

// A cursor reads records; after the first failure it stays.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) take(n uint64) []byte {
	if c.bad || n > uint64(len(c.rest)) {
		c.bad = true
		return nil
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) num() uint64 {
	v, n := binary.Uvarint(c.rest)
	if n <= 0 {
		c.bad = true
		return 0
	}
	c.take(uint64(n))
	return v
}

func (c *cursor) field() []byte { return c.take(c.num()) }

func (c *cursor) hash() (h log.Hash) {
	copy(h[:], c.take(tlog.HashSize))
	return h
}

// parseRecords decodes the records of a group. It keeps b.
func parseRecords(b []byte) ([]record, error) {
	var all []record
	for c := (cursor{rest: b}); len(c.rest) > 0; {
		var r record
		if kind := c.take(1); kind != nil {
			r.kind = kind[0]
		}
		switch r.kind {
		case recordEvent:
			if err := r.event(&c); err != nil {
				return nil, err
			}
		case recordCheckpoint, recordSnapshot:
			r.bytes = c.field()
		case recordCut, recordBreak, recordAck:
			r.stream, r.seq = string(c.field()), c.num()
			if r.kind != recordAck {
				break
			}
			r.hash, r.first, r.by = c.hash(), c.num(), c.num()
			n := c.num()
			if n > uint64(len(c.rest))/tlog.HashSize {
				c.bad = true
				break
			}
			for range n {
				r.leaves = append(r.leaves, c.hash())
			}
			r.bytes = c.field()
		default:
			c.bad = true
		}
		if c.bad {
			return nil, fmt.Errorf("%w record %d of a group", log.ErrMalformed, len(all))
		}
		all = append(all, r)
	}
	return all, nil
}

func (r *record) event(c *cursor) (err error) {
	r.made.canonical = c.field()
	if c.bad {
		return nil
	}
	if r.made.event, err = log.ParseEvent(r.made.canonical); err != nil {
		return err
	}
	r.made.hash = log.EventHash(r.made.canonical)
	if r.made.event.Payload != nil {
		p := &log.Payload{}
		copy(p.Salt[:], c.take(uint64(len(p.Salt))))
		p.Bytes = c.field()
		r.made.payload = p
	}
	return nil
}

// Groups. A group is what one write and one sync make durable: all of it is read
// back, or nothing. The checksum covers its place, so that it counts nowhere else.
const (
	groupMagic       = 0x3158_4f50 // "POX1"
	groupHeaderBytes = 16          // magic, CRC-32C of what follows, bytes of the records, 0
)

var errGroup = errors.New("not a group")

func groupSum(segment uint64, off int64, from []byte) uint32 {
	var place [16]byte
	binary.LittleEndian.PutUint64(place[:], segment)
	binary.LittleEndian.PutUint64(place[8:], uint64(off))
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(place[:], table), table, from)
}

// putGroup fills in the header of a group: b has room for it, and then the records.
func putGroup(b []byte, segment uint64, off int64) {
	binary.LittleEndian.PutUint32(b, groupMagic)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(b)-groupHeaderBytes))
	binary.LittleEndian.PutUint32(b[12:], 0)
	binary.LittleEndian.PutUint32(b[4:], groupSum(segment, off, b[8:]))
}

// groupBytes is how long the group is whose header this is.
func groupBytes(header []byte) (int64, error) {
	if len(header) < groupHeaderBytes || binary.LittleEndian.Uint32(header) != groupMagic || binary.LittleEndian.Uint32(header[12:]) != 0 {
		return 0, errGroup
	}
	return groupHeaderBytes + int64(binary.LittleEndian.Uint32(header[8:])), nil
}

// group gives the records' bytes of the group at the beginning of b, and what it takes.
func group(b []byte, segment uint64, off int64) (records []byte, size int64, err error) {
	if size, err = groupBytes(b); err != nil {
		return nil, 0, err
	}
	if size > int64(len(b)) || binary.LittleEndian.Uint32(b[4:]) != groupSum(segment, off, b[8:size]) {
		return nil, 0, errGroup
	}
	return b[groupHeaderBytes:size], size, nil
}

// A ledger is what the records add up to: a fold over them, run when they are
// written and when they are read again. Its JSON begins each segment.
type ledger struct {
	Origin     string
	Principal  string
	Key        log.Hash // id of the key that signs
	Streams    map[string]*log.Stream
	Migrations map[string]*ledgerMigration // opened here
	Checkpoint []byte
}

// A ledgerMigration is a migration that this outbox opened. That it was closed is
// kept for good, so that a service that starts once more does not begin it again.
type ledgerMigration struct {
	Expected []log.StreamOwner
	Closed   bool
}

func (l *ledger) marshal() []byte {
	b, err := json.Marshal(l)
	if err != nil {
		panic("client: marshal ledger: " + err.Error())
	}
	return b
}

// same says whether two ledgers are at the same place. It compares no JSON: another version
// of the SDK may have written more, or in another order.
func (l *ledger) same(was *ledger) bool {
	return l.Origin == was.Origin && l.Principal == was.Principal && l.Key == was.Key && bytes.Equal(l.Checkpoint, was.Checkpoint) &&
		maps.EqualFunc(l.Streams, was.Streams, func(a, b *log.Stream) bool {
			return a.Name == b.Name && a.Migration == b.Migration && a.Seq == b.Seq && a.Hash == b.Hash && a.Closed == b.Closed
		}) &&
		maps.EqualFunc(l.Migrations, was.Migrations, func(a, b *ledgerMigration) bool {
			return a.Closed == b.Closed && slices.Equal(a.Expected, b.Expected)
		})
}

func parseLedger(b []byte) (*ledger, error) {
	l := &ledger{}
	if err := json.Unmarshal(b, l); err != nil {
		return nil, fmt.Errorf("%w snapshot: %w", log.ErrMalformed, err)
	}
	if l.Streams == nil || l.Migrations == nil {
		return nil, fmt.Errorf("%w snapshot", log.ErrMalformed)
	}
	return l, nil
}

// apply moves the ledger over a record.
func (l *ledger) apply(r *record) error {
	switch r.kind {
	case recordEvent:
		return l.event(r.made)
	case recordCheckpoint:
		l.Checkpoint = r.bytes
	case recordSnapshot:
		was, err := parseLedger(r.bytes)
		if err != nil {
			return err
		}
		if !l.same(was) {
			return fmt.Errorf("%w snapshot: it is not what the records before it add up to", log.ErrMalformed)
		}
	}
	return nil
}

// check says whether events can be applied, all of them and in their order.
func (l *ledger) check(ws []*write) error {
	after := &ledger{Origin: l.Origin, Principal: l.Principal, Streams: map[string]*log.Stream{}, Migrations: map[string]*ledgerMigration{}}
	touched := map[string]bool{} // a stream may be forgotten on the way
	for _, w := range ws {
		for i := range w.records {
			r := &w.records[i]
			if r.kind != recordEvent {
				continue
			}
			name, migration := r.made.event.Stream, r.made.event.Migration
			if s := l.Streams[name]; s != nil && !touched[name] {
				was := *s
				after.Streams[name] = &was
			}
			if m := l.Migrations[migration]; m != nil && after.Migrations[migration] == nil {
				was := *m
				after.Migrations[migration] = &was
			}
			touched[name] = true
			if err := after.apply(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *ledger) event(m made) error {
	e := m.event
	s := l.Streams[e.Stream]
	if s == nil {
		n := log.NewStream(l.Origin, e.Stream)
		s = &n
	}
	if err := s.Check(e, l.Principal); err != nil {
		return err
	}
	var open *log.StreamOpen
	switch {
	case m.payload == nil:
	case e.Kind == streamOpen:
		o, err := log.ParseStreamOpen(m.payload.Bytes)
		if err != nil {
			return err
		}
		open = &o
	case e.Kind == migrationOpen:
		o, err := log.ParseMigrationOpen(m.payload.Bytes)
		if err != nil {
			return err
		}
		l.Migrations[e.Migration] = &ledgerMigration{Expected: o.Streams}
	}
	s.Advance(e, m.hash, 0, open, false)
	l.Streams[e.Stream] = s
	if e.Kind == migrationClose && l.Migrations[e.Migration] != nil {
		l.Migrations[e.Migration].Closed = true
		maps.DeleteFunc(l.Streams, func(_ string, s *log.Stream) bool { return s.Migration == e.Migration })
	}
	return nil
}

// of gives the names of a migration's streams.
func (l *ledger) of(migration string) []string {
	var names []string
	for name, s := range l.Streams {
		if s.Migration == migration {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
