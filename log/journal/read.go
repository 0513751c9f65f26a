package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// PayloadState tells what is left of a record's payload.
type PayloadState int

// States of a payload.
const (
	PayloadNone   PayloadState = iota // the record was written without one
	PayloadSealed                     // it is there, as far as can be told without opening it
	PayloadErased                     // its key slot is zero; or its key is missing, and its bytes are zero or gone
	PayloadNoKey                      // its key is missing: restored without keys
	PayloadOpen                       // it is there, lasting and not sealed
)

// position is where a record is.
type position struct {
	segment uint64
	off     int64
}

// Entries returns durable entries in order, beginning with index from: at most maxEntries, and at most maxBytes, but at
// least one if there is one. None if from is Size. ErrNotExist if from is beyond, ErrCorrupt if one is damaged.
func (j *Journal) Entries(from uint64, maxEntries, maxBytes int) ([][]byte, error) {
	size := j.Size()
	if from > size {
		return nil, fmt.Errorf("read entries from %d: %w", from, ErrNotExist)
	}
	maxEntries = int(min(uint64(max(maxEntries, 1)), size-from))
	if maxEntries == 0 {
		return nil, nil
	}
	if entries := j.recent.get(from, maxEntries, maxBytes); len(entries) > 0 {
		return entries, nil
	}
	var entries [][]byte
	err := j.withRecords(from, maxEntries, maxBytes, func(r record, _ position) bool {
		if maxBytes -= len(r.entry); maxBytes < 0 && len(entries) > 0 {
			return false
		}
		entries = append(entries, append([]byte(nil), r.entry...))
		return true
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// withRecords reads records of one segment, about maxBytes of it, and calls each until it returns false.
func (j *Journal) withRecords(from uint64, maxRecords, maxBytes int, each func(record, position) bool) error {
	s := j.where.find(from)
	t, err := j.tableOf(s)
	if err != nil {
		return err
	}
	first := from - s.first
	// The table may have grown since size was read.
	count := min(uint64(maxRecords), uint64(len(t.offsets))-first)
	end := func(i uint64) int64 {
		if i+1 < uint64(len(t.offsets)) {
			return int64(t.offsets[i+1])
		}
		return s.end
	}
	begin := int64(t.offsets[first])
	n := uint64(1)
	for n < count && end(first+n)-begin <= int64(max(maxBytes, 0))+int64(n)*recordHeaderBytes && end(first+n)-begin <= windowBytes {
		n++
	}
	name := j.names.segment(s.number)
	b, err := readPart(j.c.FS, name, begin, end(first+n-1)-begin)
	if err != nil {
		return fmt.Errorf("read record %d: %w", from, err)
	}
	for i := range n {
		off := int64(t.offsets[first+i])
		r, _, err := parseRecord(b[min(off-begin, int64(len(b))):])
		if err != nil || r.index != from+i {
			return fmt.Errorf("%w: %s: record %d at offset %d is damaged: restore the file from a backup or mirror", ErrCorrupt, name, from+i, off)
		}
		if !each(r, position{s.number, off}) {
			return nil
		}
	}
	return nil
}

// readPart returns up to length bytes of a file, fewer only at its end.
func readPart(fsys disk.FS, name string, off, length int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, length)
	n, err := f.ReadAt(b, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], errors.Join(err, f.Close())
}

// locate reads one durable record.
func (j *Journal) locate(index uint64) (r record, at position, err error) {
	if index >= j.Size() {
		return r, at, fmt.Errorf("record %d: %w", index, ErrNotExist)
	}
	err = j.withRecords(index, 1, 0, func(found record, p position) bool {
		r, at = found, p
		return true
	})
	return r, at, err
}

// Payload opens the payload of a durable record. Errors: ErrNotExist, ErrNoPayload, ErrErased, ErrNoKey, ErrCorrupt.
func (j *Journal) Payload(index uint64) (log.Payload, error) {
	r, _, err := j.locate(index)
	if err != nil {
		return log.Payload{}, err
	}
	keys := keyReader{j: j}
	p, state, err := j.open(r, &keys)
	if err = errors.Join(err, keys.close()); err != nil {
		return log.Payload{}, err
	}
	switch state {
	case PayloadNone:
		err = ErrNoPayload
	case PayloadErased:
		err = ErrErased
	case PayloadNoKey:
		err = ErrNoKey
	}
	if err != nil {
		return log.Payload{}, fmt.Errorf("record %d: %w", index, err)
	}
	return p, nil
}

// HasPayload tells what is left of a durable record's payload, without opening it. ErrNotExist.
func (j *Journal) HasPayload(index uint64) (PayloadState, error) {
	r, _, err := j.locate(index)
	if err != nil {
		return PayloadNone, err
	}
	keys := keyReader{j: j}
	_, state, err := keys.state(r)
	return state, errors.Join(err, keys.close())
}

// state returns the key of a record's payload and what it tells.
func (k *keyReader) state(r record) ([keyBytes]byte, PayloadState, error) {
	switch r.kind {
	case kindPlain:
		return [keyBytes]byte{}, PayloadNone, nil
	case kindOpen:
		return [keyBytes]byte{}, PayloadOpen, nil
	}
	key, err := k.key(r.key)
	switch {
	case errors.Is(err, ErrNoKey):
		// An erasure since the restore had no key to destroy, and shows in the bytes alone.
		gone, err := k.j.bytesGone(r)
		if gone {
			return key, PayloadErased, nil
		}
		return key, PayloadNoKey, err
	case err == nil && key == [keyBytes]byte{}:
		return key, PayloadErased, nil
	}
	return key, PayloadSealed, err
}

// bytesGone tells whether an erasure has been at the sealed bytes of a record.
func (j *Journal) bytesGone(r record) (bool, error) {
	if r.kind == kindFile {
		_, err := j.c.FS.Size(j.names.payload(r.key))
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
		return false, err
	}
	return !slices.ContainsFunc(r.sealed, func(c byte) bool { return c != 0 }), nil
}

// open unseals the payload of a record if its key is there. ErrCorrupt if it does not open.
func (j *Journal) open(r record, keys *keyReader) (log.Payload, PayloadState, error) {
	key, state, err := keys.state(r)
	if err == nil && state == PayloadOpen {
		p, err := j.unfold(r)
		return p, state, err
	}
	if err != nil || state != PayloadSealed {
		return log.Payload{}, state, err
	}
	box := r.sealed
	if r.kind == kindFile {
		box, err = disk.ReadFile(j.c.FS, j.names.payload(r.key), payloadMaxBytes+sealedOverBytes)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, disk.ErrTooLarge) {
			return log.Payload{}, state, err
		}
	}
	p, err := j.id.unseal(r.key, key[:], box)
	if err == nil && r.sealedIntact(box) {
		return p, state, nil
	}
	// The key was read before the bytes; an erasure meanwhile has zeroed it before it touched them.
	if _, now, err := keys.state(r); err != nil || now != PayloadSealed {
		return log.Payload{}, now, err
	}
	return log.Payload{}, state, fmt.Errorf("%w: sealed payload of record %d does not open with key slot %d of %s: restore both from a backup or mirror",
		ErrCorrupt, r.index, r.key.slot, j.names.key(uint64(r.key.file)))
}

// unfold takes a lasting payload out of its record. ErrCorrupt if it is damaged.
func (j *Journal) unfold(r record) (log.Payload, error) {
	if !r.sealedIntact(r.sealed) {
		return log.Payload{}, fmt.Errorf("%w: payload of record %d is damaged: restore its segment from a backup or mirror", ErrCorrupt, r.index)
	}
	p := log.Payload{Bytes: append([]byte(nil), r.sealed[saltBytes:]...), Lasting: true}
	copy(p.Salt[:], r.sealed)
	return p, nil
}
