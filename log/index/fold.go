package index

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pipe-roll/piperoll/log"
)

// cachedNames is how many streams, and how many migrations, the fold remembers
// between batches. A stream's state is about 400 bytes.
const cachedNames = 16 << 10

// A fold is the state of an Index that follows. What a batch changes is
// gathered here and written at its end: one state per stream, and one merge
// per name and window.
type fold struct {
	limit    int                    // of names remembered: cachedNames
	streams  map[string]*log.Stream // cache, and what dirty changed
	known    map[string]bool        // migrations that have a state
	second   uint64                 // of the newest classSecond key, plus 1; 0 is unknown
	dirty    map[string]*log.Stream
	changed  map[string]*log.Migration
	postings map[term]*run
	free     []*run
}

// A term is a posting's name.
type term struct {
	class byte
	name  string
}

// A run is what a batch appends to one window of a term.
type run struct {
	window uint64
	last   uint64
	value  []byte
}

// reset forgets everything; the database is the state again.
func (f *fold) reset() {
	*f = fold{
		limit:    cachedNames,
		streams:  make(map[string]*log.Stream),
		known:    make(map[string]bool),
		dirty:    make(map[string]*log.Stream),
		changed:  make(map[string]*log.Migration),
		postings: make(map[term]*run),
	}
}

// A changes is what one Apply writes. The first error is kept to the end.
type changes struct {
	batch *pebble.Batch
	err   error
}

func (c *changes) set(key, value []byte) {
	if c.err == nil {
		c.err = c.batch.Set(key, value, nil)
	}
}

// merge appends to a value.
func (c *changes) merge(key, value []byte) {
	if c.err == nil {
		c.err = c.batch.Merge(key, value, nil)
	}
}

// flush writes what was gathered.
func (f *fold) flush(c *changes) {
	for t, r := range f.postings {
		c.merge(windowKey(t.class, t.name, r.window<<windowBits), r.value)
	}
	for name, s := range f.dirty {
		v, err := log.MarshalStream(*s)
		c.err = errors.Join(c.err, err)
		c.set(nameKey(classStream, name), v)
	}
	for name, m := range f.changed {
		v, err := json.Marshal(m)
		c.err = errors.Join(c.err, err)
		c.set(nameKey(classMigration, name), v)
	}
}

// settle keeps what the next batch can use, within the limits.
func (f *fold) settle() {
	for _, r := range f.postings {
		r.value = r.value[:0]
		f.free = append(f.free, r)
	}
	// Terms share memory with whole entries; none may stay.
	clear(f.postings)
	clear(f.dirty)
	clear(f.changed)
	if len(f.free) > f.limit {
		f.free = nil
	}
	if len(f.streams) > f.limit {
		clear(f.streams)
	}
	if len(f.known) > f.limit {
		clear(f.known)
	}
}

// foldItem folds one entry in.
func (x *Index) foldItem(c *changes, it *Item) error {
	n := binary.BigEndian.AppendUint64(nil, it.Index)
	c.set(hashKey(it.Hash), n)
	if err := x.foldSecond(c, it, n); err != nil {
		return err
	}
	if err := x.foldStream(c, it); err != nil {
		return err
	}
	if err := x.foldMigration(it); err != nil {
		return err
	}
	if err := x.foldRefusal(c, it); err != nil {
		return err
	}
	x.fold.post(c, it)
	return nil
}

// foldSecond marks the first entry of each second.
func (x *Index) foldSecond(c *changes, it *Item, n []byte) error {
	f := &x.fold
	if f.second == 0 {
		last, ok, err := x.lastKey([]byte{classSecond})
		if err != nil {
			return err
		}
		if ok {
			second, err := parseNumber(last[1:])
			if err != nil {
				return err
			}
			f.second = second + 1
		}
	}
	second := it.Entry.Log.Received / 1000
	if second < f.second {
		return nil
	}
	f.second = second + 1
	c.set(secondKey(second), n)
	return nil
}

func (x *Index) foldStream(c *changes, it *Item) error {
	e := &it.Entry.Event
	s, err := x.foldedStream(e.Stream)
	if err != nil {
		return err
	}
	var open *log.StreamOpen
	if e.Kind == "stream.open" && e.Payload != nil {
		o, err := log.ParseStreamOpen(it.Payload)
		if err != nil {
			return err
		}
		open = &o
	}
	s.Advance(*e, it.Hash, it.Index, open, it.Entry.Sig != nil || it.Entry.Log.Attested == log.AttestedByLog)
	// A stream's name begins with its migration's: the cached state shares no
	// memory with the entry.
	s.Migration = s.Name[:len(s.Migration)]
	x.fold.dirty[s.Name] = s
	x.fold.place(c, e.Stream, e.Seq, it.Index)
	return nil
}

// foldedStream gives the state of a stream; who changes it makes it dirty.
func (x *Index) foldedStream(name string) (*log.Stream, error) {
	f := &x.fold
	s := f.streams[name]
	if s == nil {
		name = strings.Clone(name)
		got, ok, err := x.stream(name)
		if err != nil {
			return nil, err
		}
		if !ok {
			got = log.NewStream(x.origin, name)
		}
		s = &got
		f.streams[name] = s
	}
	return s, nil
}

// foldMigration moves the migration. Events other than open and close change
// nothing once there is a state, which may be large: it is not written again.
func (x *Index) foldMigration(it *Item) error {
	f, e := &x.fold, &it.Entry.Event
	if f.known[e.Migration] && e.Kind != "migration.open" && e.Kind != "migration.close" {
		return nil
	}
	m := f.changed[e.Migration]
	if m == nil {
		got, ok, err := x.migration(e.Migration)
		if err != nil {
			return err
		}
		if ok && e.Kind != "migration.open" && e.Kind != "migration.close" {
			f.known[strings.Clone(e.Migration)] = true
			return nil
		}
		m = &got
	}
	var opened *log.MigrationOpen
	if e.Kind == "migration.open" && e.Payload != nil {
		o, err := log.ParseMigrationOpen(it.Payload)
		if err != nil {
			return err
		}
		opened = &o
	}
	m.Advance(*e, it.Entry.Log.By, opened)
	f.changed[e.Migration] = m
	f.known[strings.Clone(e.Migration)] = true
	return nil
}

// foldRefusal moves a stream over a refused event, if that was the next one. An
// audit takes the same refusals: those that the log made itself, of an open
// stream that it has seen.
func (x *Index) foldRefusal(c *changes, it *Item) error {
	r, took := log.RefusalOf(it.Entry.Event)
	if !took || it.Entry.Log.Attested != log.AttestedByLog {
		return nil
	}
	s, err := x.foldedStream(r.Stream)
	if err != nil || s.Seq == 0 || s.Closed || r.Seq != s.Seq+1 {
		return err
	}
	s.Refuse(r.Seq, r.Hash, it.Index)
	x.fold.dirty[s.Name] = s
	x.fold.place(c, r.Stream, r.Seq, it.Index)
	return nil
}

// post adds the entry to the postings of all its names.
func (f *fold) post(c *changes, it *Item) {
	e := &it.Entry.Event
	for _, t := range [...]term{
		{classKind, e.Kind},
		{classKind, kindSpace(e.Kind)},
		{classInMig, e.Migration},
		{classInStream, e.Stream},
		{classActor, e.Actor},
		{classBy, it.Entry.Log.By},
	} {
		f.postTerm(c, t, it.Index)
	}
	for _, o := range e.Objects {
		f.postTerm(c, term{classObject, o.Name}, it.Index)
	}
	if log.Control(e.Kind) {
		f.postTerm(c, term{classControl, ""}, it.Index)
	}
}

// kindSpace is the first word of a kind with its dot: "access.".
func kindSpace(kind string) string {
	return kind[:strings.IndexByte(kind, '.')+1]
}

func (f *fold) postTerm(c *changes, t term, index uint64) {
	r := f.run(c, t, index)
	if len(r.value) > 0 && r.last == index {
		return // an object in two roles
	}
	r.last = index
	r.value = append(r.value, byte(index))
}

func (f *fold) place(c *changes, stream string, seq, index uint64) {
	r := f.run(c, term{classPlace, stream}, seq)
	r.value = append(r.value, byte(seq))
	r.value = binary.BigEndian.AppendUint64(r.value, index)
}

// run gives the run of a term for the window that n is in. The run of another
// window is written first.
func (f *fold) run(c *changes, t term, n uint64) *run {
	r := f.postings[t]
	switch {
	case r == nil:
		if last := len(f.free) - 1; last >= 0 {
			r, f.free = f.free[last], f.free[:last]
		} else {
			r = new(run)
		}
		f.postings[t] = r
	case r.window != n>>windowBits:
		c.merge(windowKey(t.class, t.name, r.window<<windowBits), r.value)
		r.value = r.value[:0]
	}
	r.window = n >> windowBits
	return r
}
