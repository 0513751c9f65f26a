package measure

import (
	"context"
	"crypto/rand"
	"os"
)

const (
	// EntryBytes is the size of an entry where a line of the table does not give another.
	EntryBytes = 1024
	// The file is written round and round: what counts is that its blocks are
	// there and hold zeros or older entries, never that it is long.
	rawFileBytes = 256 << 20
	rawGroupMax  = 4096
)

// A Raw is the least that is durable: what waits is written at the end of a
// file that was filled with zeros before, then synced, then acknowledged. One
// file serves all rounds.
type Raw struct {
	f     *os.File
	entry []byte
	queue chan rawAppend
	done  chan struct{}
}

type rawAppend struct {
	entry []byte
	done  chan error
}

// NewRaw makes the file.
func NewRaw(file string) (*Raw, error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < rawFileBytes && err == nil; off += int64(len(zeros)) {
		_, err = f.WriteAt(zeros, off)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		_ = f.Close() // the write's error says more
		return nil, err
	}
	l := &Raw{f: f, entry: make([]byte, EntryBytes), queue: make(chan rawAppend, 1<<16), done: make(chan struct{})}
	rand.Read(l.entry)
	go l.write()
	return l, nil
}

func (l *Raw) add(context.Context, int) error {
	a := rawAppend{l.entry, make(chan error, 1)}
	l.queue <- a
	return <-a.done
}

func (l *Raw) write() {
	defer close(l.done)
	var buf []byte
	var group []rawAppend
	off := int64(0)
	for a := range l.queue {
		buf, group = append(buf[:0], a.entry...), append(group[:0], a)
		for len(l.queue) > 0 && len(group) < rawGroupMax {
			a = <-l.queue
			buf, group = append(buf, a.entry...), append(group, a)
		}
		if off+int64(len(buf)) > rawFileBytes {
			off = 0
		}
		_, err := l.f.WriteAt(buf, off)
		if err == nil {
			err = dataSync(l.f)
		}
		off += int64(len(buf))
		for _, a := range group {
			a.done <- err
		}
	}
}

// Close ends the writer and closes the file.
func (l *Raw) Close() error {
	close(l.queue)
	<-l.done
	return l.f.Close()
}

// Under makes a bench of the raw limit under a load.
func (l *Raw) Under(run Load) func(context.Context, Env) (Figures, error) {
	return func(ctx context.Context, e Env) (Figures, error) { return run(ctx, e, l.add) }
}
