package journal

import (
	"context"
	"errors"
	"fmt"

	"github.com/pipe-roll/piperoll/log"
)

// damagesMax bounds what Check reports.
const damagesMax = 100

// Checked is one record as Check read it from disk.
type Checked struct {
	Index   uint64
	Entry   []byte       // valid until each returns
	State   PayloadState // what is left of the payload
	Payload *log.Payload // opened; nil unless State is PayloadSealed or PayloadOpen, or if it is damaged
}

// Check reads every durable record and payload from disk: headers, the chain of CRCs from the first record to the last,
// tables, seals, key slots. It reports all damage it finds (up to a hundred places) as ErrCorrupt, joined. Records are
// shown to each in order, also those with a damaged payload; an error of each ends the check. progress is told how many
// of how many records are done, now and then. Both may be nil. The journal can be used meanwhile.
func (j *Journal) Check(ctx context.Context, progress func(done, total uint64), each func(Checked) error) error {
	if progress == nil {
		progress = func(uint64, uint64) {}
	}
	if each == nil {
		each = func(Checked) error { return nil }
	}
	total := j.Size()
	var damages []error
	segments := j.where.segments()
	for n, s := range segments {
		if s.end == 0 {
			continue
		}
		progress(s.first, total)
		err := j.checkSegment(ctx, s, n == len(segments)-1, each, &damages)
		switch {
		case errors.Is(err, ErrCorrupt):
			damages = append(damages, err)
		case err != nil:
			return errors.Join(append(damages, err)...)
		}
		if len(damages) >= damagesMax {
			break
		}
	}
	progress(total, total)
	return errors.Join(damages...)
}

// checkSegment reads one segment. Damaged payloads go to damages; damaged records end it.
func (j *Journal) checkSegment(ctx context.Context, s segment, isTail bool, each func(Checked) error, damages *[]error) error {
	name := j.names.segment(s.number)
	if h, err := j.readHeader(s.number); errors.Is(err, errBad) || err == nil && h != s.header(j.id) {
		return j.badHeader(s.number)
	} else if err != nil {
		return err
	}
	f, err := j.c.FS.Open(name)
	if err != nil {
		return fmt.Errorf("check segment %d: %w", s.number, err)
	}
	keys := keyReader{j: j}
	var derived table
	err = scanSealed(f, j.id, s, name, func(r record, off int64) error {
		derived.add(r, off)
		if err := ctx.Err(); err != nil {
			return err
		}
		c := Checked{Index: r.index, Entry: r.entry}
		p, state, err := j.open(r, &keys)
		switch {
		case errors.Is(err, ErrCorrupt):
			*damages = append(*damages, err)
		case err != nil:
			return err
		case state == PayloadSealed, state == PayloadOpen:
			c.Payload = &p
		}
		c.State = state
		return each(c)
	})
	if err = errors.Join(err, keys.close(), f.Close()); err != nil || isTail {
		return err
	}
	return j.checkTable(s, derived)
}

// checkTable compares a segment's table file, if it has one, with the segment. It is only derived, so a bad one is
// told and left to be derived again.
func (j *Journal) checkTable(s segment, derived table) error {
	t, err := j.readTable(s)
	if err == nil && string(t.encode(j.id, s)) != string(derived.encode(j.id, s)) {
		return fmt.Errorf("%w: %s does not fit its segment: delete it", ErrCorrupt, j.names.table(s.number))
	}
	if err != nil {
		j.c.Logger.Info("found no usable table", "segment", s.number, "err", err)
	}
	return nil
}
