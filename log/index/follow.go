package index

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pipe-roll/piperoll/log"
)

// A Source is the order of entries, such as the journal.
type Source interface {
	// Size gives the number of durable entries. It never decreases.
	Size() uint64
	// Wait returns when Size is size or more.
	Wait(ctx context.Context, size uint64) error
	// Entries gives durable entries from from on: at least one if there is one,
	// at most count, and no more after maxBytes.
	Entries(from uint64, count, maxBytes int) ([][]byte, error)
	// Payload gives the payload of an entry.
	Payload(index uint64) (log.Payload, error)
}

// Limits of a batch, and how often a long catching-up is reported.
const (
	followEntries = 4096
	followBytes   = 4 << 20
	reportPeriod  = 5 * time.Second
	stalledPeriod = time.Second // between two tries to go on
)

// Follow folds in the entries of src as they come, until ctx ends or an error
// stops it. Like [Index.CatchUp] it compares histories first.
func (x *Index) Follow(ctx context.Context, src Source) error {
	if err := x.checkHistory(src); err != nil {
		return err
	}
	for {
		err := x.advance(ctx, src, src.Size())
		if err == nil {
			err = src.Wait(ctx, x.Cursor()+1)
		} else if errors.Is(err, ErrStalled) {
			// The log's own watermarks make room or stop the log.
			err = pause(ctx, stalledPeriod)
		}
		if err != nil {
			return fmt.Errorf("follow entry %d: %w", x.Cursor(), err)
		}
	}
}

// CatchUp folds in the entries that src has when it is called. Before that it
// compares the newest entry followed with src: an index of another history, as
// after a restore of src from a backup, starts afresh. So answers are those of
// src once CatchUp has returned. [ErrStalled] if the disk does not take them.
func (x *Index) CatchUp(ctx context.Context, src Source) error {
	if err := x.checkHistory(src); err != nil {
		return err
	}
	return x.advance(ctx, src, src.Size())
}

// advance folds in the entries below size, and reports when it takes long.
func (x *Index) advance(ctx context.Context, src Source, size uint64) error {
	began := time.Now()
	for reported := began; x.Cursor() < size; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("index entry %d: %w", x.Cursor(), err)
		}
		if err := x.applyBatch(src, size); err != nil {
			return err
		}
		if time.Since(reported) >= reportPeriod {
			reported = time.Now()
			x.logger.Info("indexed entries", "index", x.Cursor(), "size", size, "elapsed", time.Since(began))
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (x *Index) applyBatch(src Source, size uint64) error {
	from := x.Cursor()
	count := int(min(size-from, followEntries))
	texts, err := src.Entries(from, count, followBytes)
	if err != nil {
		return fmt.Errorf("read entries from %d: %w", from, err)
	}
	if len(texts) == 0 || len(texts) > count {
		return fmt.Errorf("read entries from %d: got %d of %d", from, len(texts), count)
	}
	items := make([]Item, len(texts))
	for i, text := range texts {
		if items[i], err = readItem(src, from+uint64(i), text); err != nil {
			return err
		}
	}
	return x.Apply(items)
}

// readItem parses an entry, and reads the payload if the fold needs it.
func readItem(src Source, index uint64, text []byte) (Item, error) {
	e, err := log.ParseEntry(text)
	if err != nil {
		return Item{}, fmt.Errorf("entry %d: %w", index, err)
	}
	it := Item{Index: index, Entry: e, Hash: e.Event.Hash()}
	if e.Event.Payload != nil && (e.Event.Kind == "stream.open" || e.Event.Kind == "migration.open") {
		p, err := src.Payload(index)
		if err != nil {
			return Item{}, fmt.Errorf("payload of entry %d: %w", index, err)
		}
		it.Payload = p.Bytes
	}
	return it, nil
}

// checkHistory starts the index afresh if src does not have the newest entry
// followed where it was.
func (x *Index) checkHistory(src Source) error {
	cursor, last, err := x.history()
	if err != nil || cursor == 0 {
		return err
	}
	if size := src.Size(); cursor > size {
		x.logger.Warn("emptied index: it has followed more entries than there are", "index", cursor, "size", size)
		return x.empty()
	}
	texts, err := src.Entries(cursor-1, 1, followBytes)
	if err != nil || len(texts) != 1 {
		return fmt.Errorf("read entry %d: got %d: %w", cursor-1, len(texts), err)
	}
	if log.LeafHash(texts[0]) != last {
		x.logger.Warn("emptied index: it has followed other entries", "index", cursor, "size", src.Size())
		return x.empty()
	}
	return nil
}

func (x *Index) history() (uint64, log.Hash, error) {
	if err := x.enter(); err != nil {
		return 0, log.Hash{}, err
	}
	defer x.leave()
	cursor, last, err := x.lastFollowed()
	return cursor, last, x.judge(err)
}

// empty removes all keys but the version, in one batch.
func (x *Index) empty() error {
	x.writer.Lock()
	defer x.writer.Unlock()
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	b := x.db.NewBatch()
	err := errors.Join(
		b.DeleteRange([]byte{0}, []byte{0xff}, nil),
		b.Set([]byte{classVersion}, []byte(formatVersion+x.origin), nil),
		b.Commit(pebble.NoSync),
		b.Close(),
	)
	if err != nil {
		return fmt.Errorf("empty index: %w", x.judge(err))
	}
	x.fold.reset()
	x.move(0)
	return nil
}
