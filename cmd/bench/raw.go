package main

import (
	"context"
	"crypto/rand"
	"os"
)

const (
	entryBytes = 1024
	// The file is written round and round: what counts is that its blocks are
	// there and hold zeros or older entries, never that it is long.
	rawFileBytes = 256 << 20
	rawGroupMax  = 4096
)

// A rawLog is the least that is durable: what waits is written at the end of a
// file that was filled with zeros before, then synced, then acknowledged. One
// file serves all rounds.
type rawLog struct {
	f     *os.File
	entry []byte
	queue chan rawAppend
	done  chan struct{}
}

type rawAppend struct {
	entry []byte
	done  chan error
}

func newRawLog(file string) (*rawLog, error) {
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
	l := &rawLog{f: f, entry: make([]byte, entryBytes), queue: make(chan rawAppend, 1<<16), done: make(chan struct{})}
	rand.Read(l.entry)
	go l.write()
	return l, nil
}

func (l *rawLog) add(context.Context, int) error {
	a := rawAppend{l.entry, make(chan error, 1)}
	l.queue <- a
	return <-a.done
}

func (l *rawLog) write() {
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

func (l *rawLog) close() error {
	close(l.queue)
	<-l.done
	return l.f.Close()
}

func rawOpen(ctx context.Context, e env) (figures, error) { return openLoop(ctx, e, e.raw.add) }

func rawSaturated(ctx context.Context, e env) (figures, error) { return saturate(ctx, e, e.raw.add) }
