package index

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pipe-roll/piperoll/log"
)

// Stream gives the state of a stream after the entries followed, and whether
// any of them was in it, or a refusal took a place in it.
func (x *Index) Stream(name string) (log.Stream, bool, error) {
	if err := x.enter(); err != nil {
		return log.Stream{}, false, err
	}
	defer x.leave()
	s, ok, err := x.stream(name)
	if err != nil {
		return log.Stream{}, false, fmt.Errorf("find stream %q: %w", name, x.judge(err))
	}
	return s, ok, nil
}

func (x *Index) stream(name string) (log.Stream, bool, error) {
	v, ok, err := x.get(nameKey(classStream, name))
	if err != nil || !ok {
		return log.Stream{}, false, err
	}
	s, err := log.UnmarshalStream(v)
	if err != nil {
		return log.Stream{}, false, fmt.Errorf("%w: stream %q: %w", ErrBroken, name, err)
	}
	return s, true, nil
}

// Migration gives the state of a migration after the entries followed, and
// whether any of them was in it.
func (x *Index) Migration(name string) (log.Migration, bool, error) {
	if err := x.enter(); err != nil {
		return log.Migration{}, false, err
	}
	defer x.leave()
	m, ok, err := x.migration(name)
	if err != nil {
		return log.Migration{}, false, fmt.Errorf("find migration %q: %w", name, x.judge(err))
	}
	return m, ok, nil
}

func (x *Index) migration(name string) (log.Migration, bool, error) {
	v, ok, err := x.get(nameKey(classMigration, name))
	if err != nil || !ok {
		return log.Migration{}, false, err
	}
	var m log.Migration
	if err := json.Unmarshal(v, &m); err != nil {
		return log.Migration{}, false, fmt.Errorf("%w: migration %q: %w", ErrBroken, name, err)
	}
	return m, true, nil
}

// ByHash gives the index of the entry that holds the event with this hash.
func (x *Index) ByHash(h log.Hash) (uint64, bool, error) {
	if err := x.enter(); err != nil {
		return 0, false, err
	}
	defer x.leave()
	v, ok, err := x.get(hashKey(h))
	if err != nil || !ok {
		return 0, false, x.judge(err)
	}
	index, err := parseNumber(v)
	return index, err == nil, x.judge(err)
}

// ByPlace gives the index of the entry at a place in a stream. If a refused
// event took the place, that is the log.refused entry.
func (x *Index) ByPlace(stream string, seq uint64) (uint64, bool, error) {
	if !log.ValidName(stream) {
		return 0, false, nil
	}
	if err := x.enter(); err != nil {
		return 0, false, err
	}
	defer x.leave()
	v, ok, err := x.get(windowKey(classPlace, stream, seq))
	if err != nil || !ok {
		return 0, false, x.judge(err)
	}
	index, ok, err := findPlace(v, byte(seq))
	return index, ok, x.judge(err)
}

// Kinds calls each, in order, with the indexes from from on of all entries of
// a kind, such as "payload.erased", or of all kinds that share their first
// word, such as "access.". It covers the entries followed when it was called,
// and stops at the first error of each.
func (x *Index) Kinds(kind string, from uint64, each func(index uint64) error) error {
	if !log.ValidName(kind) {
		return fmt.Errorf("%w: kind %q", ErrQuery, kind)
	}
	return x.walk(term{classKind, kind}, from, each)
}

// Control calls each, in order, with the indexes of all control entries
// ([log.Control]) followed when it was called. It stops at the first error of each.
func (x *Index) Control(each func(index uint64) error) error {
	return x.walk(term{classControl, ""}, 0, each)
}

func (x *Index) walk(t term, from uint64, each func(index uint64) error) (err error) {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	end := x.Cursor()
	p, err := x.openPosting(t)
	if err != nil {
		return x.judge(err)
	}
	defer func() { err = errors.Join(err, p.close()) }()
	for at := from >> windowBits; ; at = p.at + 1 {
		if ok, err := p.seek(at); err != nil || !ok {
			return x.judge(err)
		}
		for low := range windowWidth {
			index := p.at<<windowBits | uint64(low)
			if index < from || !p.members.has(byte(low)) {
				continue
			}
			if index >= end {
				return nil
			}
			if err := each(index); err != nil {
				return err
			}
		}
	}
}

// LastControl gives the index of the newest control entry, and whether there
// is one: the as_of of the next entry.
func (x *Index) LastControl() (uint64, bool, error) {
	if err := x.enter(); err != nil {
		return 0, false, err
	}
	defer x.leave()
	prefix := windowPrefix(classControl, "")
	key, ok, err := x.lastKey(prefix)
	if err != nil || !ok {
		return 0, false, x.judge(err)
	}
	at, err := parseNumber(key[len(prefix):])
	if err != nil {
		return 0, false, x.judge(err)
	}
	v, _, err := x.get(key)
	if err != nil {
		return 0, false, x.judge(err)
	}
	w, err := parseWindow(v)
	if err != nil {
		return 0, false, x.judge(err)
	}
	return at<<windowBits | uint64(w.last()), true, nil
}

// lastKey gives a copy of the last key that begins with prefix.
func (x *Index) lastKey(prefix []byte) (key []byte, ok bool, err error) {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Last() {
		return nil, false, it.Error()
	}
	return append([]byte(nil), it.Key()...), true, nil
}

// A posting walks the windows of a term.
type posting struct {
	it      *pebble.Iterator
	prefix  []byte // of its keys
	key     []byte // scratch
	started bool
	at      uint64 // number of the current window
	members window
}

func (x *Index) openPosting(t term) (*posting, error) {
	prefix := windowPrefix(t.class, t.name)
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return nil, err
	}
	return &posting{it: it, prefix: prefix}, nil
}

// seek goes to the first window at or after at, never back, and says whether
// there is one.
func (p *posting) seek(at uint64) (bool, error) {
	if p.started && p.at >= at {
		return true, nil
	}
	p.started = true
	p.key = binary.BigEndian.AppendUint64(append(p.key[:0], p.prefix...), at)
	if !p.it.SeekGE(p.key) {
		return false, p.it.Error()
	}
	n, err := parseNumber(p.it.Key()[len(p.prefix):])
	if err != nil {
		return false, err
	}
	v, err := p.it.ValueAndErr()
	if err != nil {
		return false, err
	}
	p.at = n
	p.members, err = parseWindow(v)
	return err == nil, err
}

func (p *posting) close() error { return p.it.Close() }
