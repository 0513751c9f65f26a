package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// batchEntries is how many entries are handed over at a time.
const batchEntries = 16

// lineageType is the type of payloads that may have log.LineageMaxBytes.
const lineageType = "application/vnd.openlineage+json"

// A loaded entry is one that was read, with what is wrong with it.
type loaded struct {
	index       uint64
	leaf        log.Hash
	proven      bool         // the leaf is in the tree
	exhibit     *log.Exhibit // nil if it could not be parsed or is not proven
	unsupported error        // in the tree, but of a version that we do not know
	faults      []fault
}

type fault struct{ check, text string }

func (l *loaded) fail(check, format string, args ...any) {
	l.faults = append(l.faults, fault{check, fmt.Sprintf(format, args...)})
}

// A loader reads and checks entries on their own: parsing, inclusion, payload.
// One goroutine uses it at a time. It holds no more of a payload than buf has
// place for: a directory has as many as it likes, of 32 MiB each.
type loader struct {
	d          *directory
	checkpoint []byte // exact bytes: every proof has to carry them
	head       log.Head
	buf        []byte // for one file at a time
	salt       []byte // for a salt, while buf has its payload
}

func newLoader(d *directory, checkpoint []byte, head log.Head) *loader {
	// Large enough for every entry and proof.
	return &loader{d, checkpoint, head, make([]byte, 0, 160<<10), make([]byte, 0, 64)}
}

// load checks one entry with its payload, unless that is structural: then it
// is checked when its turn in the audit comes, so that only one is in memory.
// The error is for files that cannot be read.
func (l *loader) load(index uint64) (*loaded, error) {
	x, err := l.entry(index)
	if err != nil || x.exhibit == nil || log.Structural(x.exhibit.Entry.Event.Kind) {
		return x, err
	}
	return x, l.payload(x)
}

// entry checks one entry without its payload.
func (l *loader) entry(index uint64) (*loaded, error) {
	x := &loaded{index: index}
	text, err := l.d.readInto(l.buf, log.ExportEvent, index)
	if err != nil {
		return nil, err
	}
	x.leaf = log.LeafHash(text)
	entry, parseErr := log.ParseEntry(text)
	if l.d.has(log.ExportProof, index) {
		if err := l.inclusion(x); err != nil {
			return nil, err
		}
	}
	switch {
	case errors.Is(parseErr, log.ErrVersion) && x.proven:
		x.unsupported = parseErr
	case parseErr != nil:
		x.fail("integrity.entry", "entry %d: %v", index, parseErr)
	case x.proven: // else nothing it says counts
		x.exhibit = &log.Exhibit{Index: index, Entry: entry}
	}
	return x, nil
}

func (l *loader) inclusion(x *loaded) error {
	text, err := l.d.readInto(l.buf, log.ExportProof, x.index)
	if err != nil {
		return err
	}
	p, err := log.ParseInclusionProof(text)
	switch {
	case err != nil:
		x.fail("integrity.proof", "entry %d: %v", x.index, err)
	case p.Index != x.index:
		x.fail("integrity.proof", "entry %d: its proof is of entry %d", x.index, p.Index)
	case !bytes.Equal(p.Checkpoint, l.checkpoint):
		x.fail("integrity.proof", "entry %d: its proof is under another checkpoint than the directory's", x.index)
	default:
		if err := log.CheckInclusion(l.head, x.index, x.leaf, p.Path); err != nil {
			x.fail("integrity.proof", "entry %d: %v", x.index, err)
		} else {
			x.proven = true
		}
	}
	return nil
}

func (l *loader) payload(x *loaded) error {
	ref, structural := x.exhibit.Entry.Event.Payload, log.Structural(x.exhibit.Entry.Event.Kind)
	if !l.d.has(log.ExportPayload, x.index) || !l.d.has(log.ExportSalt, x.index) {
		return nil
	}
	if ref == nil {
		x.fail("integrity.payload", "entry %d: the event commits to no payload, but there is one", x.index)
		return nil
	}
	saltText, err := l.d.readInto(l.salt, log.ExportSalt, x.index)
	if err != nil {
		return err
	}
	salt, err := log.ParseSalt(saltText)
	if err != nil {
		x.fail("integrity.payload", "entry %d: %v", x.index, err)
		return nil
	}
	most := int64(log.PayloadMaxBytes)
	if ref.Type == lineageType && !structural {
		most = log.LineageMaxBytes
	}
	commit := log.NewCommit(salt, ref.Type)
	var kept bytes.Buffer
	to := io.Writer(commit)
	if structural {
		to = io.MultiWriter(commit, &kept)
	}
	n, err := l.stream(to, log.ExportFile{Kind: log.ExportPayload, Number: x.index}, most+1)
	switch {
	case err != nil:
		return err
	case n > most:
		x.fail("integrity.payload", "entry %d: payload of more than %d bytes", x.index, most)
	case log.Hash(commit.Sum(nil)) != ref.Commitment:
		x.fail("integrity.payload", "entry %d: %v: %d bytes of type %q", x.index, log.ErrCommitment, n, ref.Type)
	default:
		x.exhibit.Disclosed = true
		if structural {
			x.exhibit.Payload = kept.Bytes()
		}
	}
	return nil
}

// stream copies up to most bytes of a file, through buf.
func (l *loader) stream(to io.Writer, file log.ExportFile, most int64) (n int64, err error) {
	f, err := l.d.open(file)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // read only
	if n, err = io.CopyBuffer(to, io.LimitReader(f, most), l.buf[:cap(l.buf)]); err != nil {
		return n, fmt.Errorf("read %s: %w", file.Path(), err)
	}
	return n, nil
}

// A batch is a run of indexes on its way through a worker.
type batch struct {
	indexes []uint64
	entries []*loaded
	err     error
	done    chan struct{}
}

// loadAll loads entries on all processors and gives them to do in order. At
// most a few batches are in memory.
func (l *loader) loadAll(indexes []uint64, do func(*loaded) error) error {
	workers := runtime.GOMAXPROCS(0)
	work, order := make(chan *batch), make(chan *batch, 2*workers)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range workers {
		mine := newLoader(l.d, l.checkpoint, l.head)
		wg.Go(func() {
			for b := range work {
				mine.run(b)
			}
		})
	}
	wg.Go(func() {
		defer close(work)
		defer close(order)
		for begin := 0; begin < len(indexes); begin += batchEntries {
			b := &batch{indexes: indexes[begin:min(begin+batchEntries, len(indexes))], done: make(chan struct{})}
			select {
			case order <- b:
			case <-stop:
				return
			}
			work <- b
		}
	})
	err := consume(order, do)
	close(stop)
	for range order { // lets the other goroutines end
	}
	wg.Wait()
	return err
}

func consume(order <-chan *batch, do func(*loaded) error) error {
	for b := range order {
		<-b.done
		if b.err != nil {
			return b.err
		}
		for _, x := range b.entries {
			if err := do(x); err != nil {
				return err
			}
		}
	}
	return nil
}

// run loads a batch. A panic here would end the program past run's recover.
func (l *loader) run(b *batch) {
	defer close(b.done)
	defer func() {
		if r := recover(); r != nil {
			b.err = &codedError{exitBug, fmt.Errorf("this is a bug, and nothing was established: %v\n%s", r, debug.Stack())}
		}
	}()
	for _, index := range b.indexes {
		x, err := l.load(index)
		if err != nil {
			b.err = err
			return
		}
		b.entries = append(b.entries, x)
	}
}

// A progress tells a person who waits how far it is.
type progress struct {
	out        io.Writer
	total      int
	count      int
	said       time.Time
	entryCheck int // how often to look at the clock
}

func newProgress(out io.Writer, total int) *progress {
	return &progress{out: out, total: total, said: time.Now(), entryCheck: 256}
}

// step counts an entry; it prints a line about every two seconds.
func (p *progress) step() {
	p.count++
	if p.count%p.entryCheck == 0 && time.Since(p.said) > 2*time.Second {
		p.said = time.Now()
		say(p.out, "verified %d of %d entries\n", p.count, p.total)
	}
}
