package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// damagesMax bounds what Check reports.
const damagesMax = 100

// Wrapped beside ErrCorrupt by damage that no record or payload suffers from.
var (
	// ErrTable: a table is damaged, which is derived from its segment.
	ErrTable = errors.New("table does not fit its segment")
	// ErrPadding: the zeros between two groups are damaged.
	ErrPadding = errors.New("padding is not zero")
)

// Checked is one record as Check read it from disk.
type Checked struct {
	Index   uint64
	Entry   []byte       // valid until each returns
	State   PayloadState // what is left of the payload
	Payload *log.Payload // opened; nil unless State is PayloadSealed or PayloadOpen, or if it is damaged
}

// CheckConfig says how to check a segment. Fields may be nil.
type CheckConfig struct {
	// Heal writes again what is derived and damaged: tables.
	Heal bool
	// Keep is told of a damaged file before it is written again, and may keep a copy. Its error keeps it from that.
	Keep func(file string) error
	// Pace is told how many bytes were read, and may wait. Its error ends the check.
	Pace func(bytes int) error
	// Each is shown the records in order, also those with a damaged payload. Its error ends the check.
	Each func(Checked) error
	// Found is told of each damage, which wraps ErrCorrupt, and whether it was healed.
	Found func(damage error, healed bool)
}

func (c CheckConfig) withDefaults() CheckConfig {
	if c.Keep == nil {
		c.Keep = func(string) error { return nil }
	}
	if c.Pace == nil {
		c.Pace = func(int) error { return nil }
	}
	if c.Each == nil {
		c.Each = func(Checked) error { return nil }
	}
	if c.Found == nil {
		c.Found = func(error, bool) {}
	}
	return c
}

// Check reads every durable record and payload from disk: headers, the chain of CRCs from the first record to the last,
// tables, seals, key slots. It reports all damage it finds (up to a hundred places) as ErrCorrupt, joined. Records are
// shown to each in order, also those with a damaged payload; an error of each ends the check. progress is told how many
// of how many records are done, now and then. Both may be nil. The journal can be used meanwhile.
func (j *Journal) Check(ctx context.Context, progress func(done, total uint64), each func(Checked) error) error {
	if progress == nil {
		progress = func(uint64, uint64) {}
	}
	var damages []error
	c := CheckConfig{Each: each, Found: func(damage error, _ bool) { damages = append(damages, damage) }}
	total := j.Size()
	for n, segments := 0, j.where.segments(); n < len(segments) && len(damages) < damagesMax; n++ {
		progress(segments[n].first, total)
		if err := j.CheckSegment(ctx, segments[n].number, c); err != nil {
			return errors.Join(append(damages, err)...)
		}
	}
	progress(total, total)
	return errors.Join(damages...)
}

// Segments returns how many segments there are. The last one is being written to.
func (j *Journal) Segments() uint64 { return uint64(len(j.where.segments())) }

// CheckSegment does for one segment what Check does for all: the chain of CRCs in it begins and ends as the headers of
// this one and the next say. Damaged records end it. Its error means that it could not go on; ErrNotExist that there
// is no such segment.
func (j *Journal) CheckSegment(ctx context.Context, number uint64, c CheckConfig) error {
	c = c.withDefaults()
	segments := j.where.segments()
	if number >= uint64(len(segments)) {
		return fmt.Errorf("check segment %d: %w", number, ErrNotExist)
	}
	if number == 0 {
		if err := j.checkIdentity(); err != nil {
			c.Found(err, false)
		}
	}
	s := segments[number]
	if s.end == 0 {
		return nil
	}
	derived, err := j.checkRecords(ctx, s, c)
	switch {
	case errors.Is(err, ErrCorrupt):
		c.Found(err, false)
		return nil
	case err != nil || number == uint64(len(segments))-1:
		return err
	}
	return j.checkTable(s, derived, c)
}

// checkIdentity reads the identity again.
func (j *Journal) checkIdentity() error {
	text, err := disk.ReadFile(j.c.FS, j.names.identity(), 1024)
	if err == nil && string(text) != j.id.identity() {
		err = errBad
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w: restore the file from a backup", ErrCorrupt, j.names.identity(), err)
	}
	return nil
}

// checkRecords reads the records of a segment, and gives the table that they give. Damage in a payload is reported;
// damage in a record is the error.
func (j *Journal) checkRecords(ctx context.Context, s segment, c CheckConfig) (derived table, err error) {
	name := j.names.segment(s.number)
	h, err := j.readHeader(s.number)
	switch {
	case errors.Is(err, errBad), errors.Is(err, fs.ErrNotExist), err == nil && h != s.header(j.id):
		return derived, j.badHeader(s.number)
	case err != nil:
		return derived, err
	}
	f, err := j.c.FS.Open(name)
	if err != nil {
		return derived, fmt.Errorf("check segment %d: %w", s.number, err)
	}
	keys := keyReader{j: j}
	padding := func(off int64) {
		c.Found(fmt.Errorf("%w: %w: %s at offset %d: check the disk", ErrCorrupt, ErrPadding, name, off), false)
	}
	err = scanSealed(f, j.id, s, name, padding, func(r record, off int64) error {
		derived.add(r, off)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.Pace(r.headerBytes() + len(r.entry) + int(r.sealedLen)); err != nil {
			return err
		}
		p, state, err := j.open(r, &keys)
		if err == nil && state == PayloadNoKey && keys.file != nil {
			// Not a journal that was restored without its keys: the file is there, and was not cut before this slot.
			err = fmt.Errorf("%w: %s has no slot %d, with the key of record %d: restore the file from a backup", ErrCorrupt, keys.name, r.key.slot, r.index)
		}
		checked := Checked{Index: r.index, Entry: r.entry, State: state}
		switch {
		case errors.Is(err, ErrCorrupt):
			c.Found(err, false)
		case err != nil:
			return err
		case state == PayloadSealed, state == PayloadOpen:
			checked.Payload = &p
		}
		return c.Each(checked)
	})
	return derived, errors.Join(err, keys.close(), f.Close())
}

// checkTable compares a segment's table file, if it has one, with the segment.
func (j *Journal) checkTable(s segment, derived table, c CheckConfig) error {
	if j.caresFor(s.number) {
		return nil // it is written just now
	}
	t, err := j.readTable(s)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // derived when it is needed
	case err == nil && string(t.encode(j.id, s)) == string(derived.encode(j.id, s)):
		return nil
	}
	name := j.names.table(s.number)
	damage := fmt.Errorf("%w: %w: %s: delete it", ErrCorrupt, ErrTable, name)
	if err != nil {
		damage = fmt.Errorf("%w: %w", damage, err)
	}
	if !c.Heal {
		c.Found(damage, false)
		return nil
	}
	if err = c.Keep(name); err == nil {
		err = disk.WriteFile(j.c.FS, name+".new", name, derived.encode(j.id, s))
	}
	if err != nil {
		damage = fmt.Errorf("%w; and it was not written again: %v", damage, err) // not wrapped: not why it is damaged
	}
	c.Found(damage, err == nil)
	return nil
}

// caresFor tells whether the keeper has a segment still to look after.
func (j *Journal) caresFor(number uint64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range j.chores {
		if c.number == number {
			return true
		}
	}
	return false
}
