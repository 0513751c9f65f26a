package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/journal"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// How many copies of a log are damaged, or put together from copies of several ages.
const (
	damages        = 3000
	damagesNightly = 200_000
)

// A specimen is a log at rest, with all that is true of it.
type specimen struct {
	dir      string
	entries  [][]byte
	payloads map[uint64][]byte // nil for erased ones
	notes    map[uint64][]byte // published checkpoints, by size
	tiles    map[string][]byte // full and partial ones of the last size, by path
	ids      map[string]log.TileID
	older    []string // copies of its folder, made earlier
	verifier note.Verifier
}

// An outcome is what became of a damaged log.
type outcome string

const (
	refused outcome = "refused" // it does not open, and so signs nothing
	whole   outcome = "whole"   // it opens, and gives out all that it should: healed, or nothing that counts was hit
	found   outcome = "found"   // some of it is not to be had, and one scrub says so
)

// small makes the journal's segments small, and the disk one that costs no
// time: nothing is cut short here.
func small(c Config) Config {
	c.fs, c.segmentBytes, c.segmentSlots = unsyncedFS{c.fs}, 64<<10, 256
	return c
}

func (s *specimen) open(ctx context.Context, dir string) (*ledger, error) {
	c, err := readConfig(filepath.Join(dir, "config.yaml"))
	if err != nil {
		return nil, err
	}
	return openLedger(ctx, small(c), slog.New(slog.DiscardHandler))
}

// newSpecimen makes a log of all sorts of entries, over several segments, with
// erasures. It was closed, or killed just after its last entry was signed.
func newSpecimen(t *testing.T, killed bool) *specimen {
	t.Helper()
	s := &specimen{payloads: map[uint64][]byte{}, notes: map[uint64][]byte{}}
	r := newLogIn(t, filepath.Join(memoryDir(t), "log"), fastPublish)
	must(t, r.stop())
	r.small = true
	r.start()
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	for n := 0; n < 600; {
		a := crm.append("migration.load", fmt.Sprintf(`{"n":%d}`, n), "x.note", "", "migration.load", `"`+strings.Repeat("b", n%1000)+`"`)
		n = int(a.Index)
		s.notes[r.checkpointOf(a.Index+3).Size] = nil
		if n%97 < 3 {
			crm.append("migration.load", `"`+strings.Repeat("c", 70_000)+`"`)
			r.do("DELETE", fmt.Sprintf("/v1/payloads/%d", n), r.admin, "application/json", []byte(`{"authority":"gdpr:art17"}`)).want(200, "")
		}
		if n%211 < 3 {
			must(t, r.stop())
			s.older = append(s.older, s.keep(t, r.dir, fmt.Sprintf("older%d", n)))
			r.start()
		}
	}
	r.checkpointOf(r.size())
	if !killed {
		must(t, r.stop())
	}
	s.dir = s.keep(t, r.dir, "specimen") // all of it is signed, and a killed process leaves what the page cache has
	s.learn(t)
	return s
}

// memoryDir is a folder in memory, where there is one.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "piperoll-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// keep copies a log that is at rest.
func (s *specimen) keep(t testing.TB, dir, name string) string {
	t.Helper()
	kept := filepath.Join(filepath.Dir(dir), name)
	must(t, copyTree(kept, dir))
	return kept
}

// copyTree copies a file or a folder, with its modes: signing keys that others can read are refused.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := to + strings.TrimPrefix(name, from)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o600)
	})
}

// learn reads the whole log, and derives what follows from its entries.
func (s *specimen) learn(t testing.TB) {
	t.Helper()
	l, err := s.open(t.Context(), s.keep(t, s.dir, "learn"))
	must(t, err)
	defer func() { must(t, l.close()) }()
	s.verifier = l.checkpoints.verifier
	must(t, eachEntry(l, l.journal.Size(), func(_ uint64, entry []byte) { s.entries = append(s.entries, entry) }))
	for i := range s.entries {
		p, err := l.journal.Payload(uint64(i))
		switch {
		case err == nil:
			s.payloads[uint64(i)] = p.Bytes
		case errors.Is(err, journal.ErrErased):
			s.payloads[uint64(i)] = nil
		case !errors.Is(err, journal.ErrNoPayload):
			t.Fatal(err)
		}
	}
	for size := range s.notes {
		s.notes[size], err = l.tree.PublishedAt(size)
		must(t, err)
	}
	s.tiles, s.ids = tilesOf(s.entries)
}

func eachEntry(l *ledger, size uint64, each func(index uint64, entry []byte)) error {
	for i := uint64(0); i < size; {
		entries, err := l.journal.Entries(i, 4096, 1<<20)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			each(i, entry)
			i++
		}
	}
	return nil
}

// rootsOf computes the root of every size.
func rootsOf(t testing.TB, entries [][]byte) []log.Hash {
	t.Helper()
	c := &chronicle{t: t}
	c.forget()
	for _, entry := range entries {
		must(t, c.grow(entry))
	}
	return c.roots
}

// tilesOf makes all tiles and bundles of the tree over the entries.
func tilesOf(entries [][]byte) (tiles map[string][]byte, ids map[string]log.TileID) {
	tiles, ids = map[string][]byte{}, map[string]log.TileID{}
	put := func(id log.TileID, data []byte) { tiles[id.Path()], ids[id.Path()] = data, id }
	var hashes []log.Hash
	for n := 0; n < len(entries); n += log.TileWidth {
		var bundle []byte
		chunk := entries[n:min(n+log.TileWidth, len(entries))]
		for _, entry := range chunk {
			bundle = log.AppendBundle(bundle, entry)
			hashes = append(hashes, log.LeafHash(entry))
		}
		put(log.BundleID(uint64(n/log.TileWidth), len(chunk)), bundle)
	}
	for level := 0; len(hashes) > 0; level++ {
		var above []log.Hash
		for n := 0; n < len(hashes); n += log.TileWidth {
			chunk := hashes[n:min(n+log.TileWidth, len(hashes))]
			var data []byte
			for _, h := range chunk {
				data = append(data, h[:]...)
			}
			put(log.TileID{Level: level, Index: uint64(n / log.TileWidth), Width: len(chunk)}, data)
			if len(chunk) == log.TileWidth {
				above = append(above, treeHash(chunk))
			}
		}
		hashes = above
	}
	return tiles, ids
}

// treeHash hashes a power of two of hashes into one.
func treeHash(h []log.Hash) log.Hash {
	for len(h) > 1 {
		var up []log.Hash
		for i := 0; i < len(h); i += 2 {
			up = append(up, tlog.NodeHash(h[i], h[i+1]))
		}
		h = up
	}
	return h[0]
}

// A trial is a copy of a specimen to which something was done.
type trial struct {
	class string // of the files that were hit
	what  string
	do    func(dir string) error
	edge  bool // refused or whole, and nothing else
	older bool // the published checkpoints are those of an older copy
}

// run opens the damaged log, as a server does, and lets it go on. Its error is what must never be.
func (s *specimen) run(ctx context.Context, t testing.TB, dir string, tr trial) (what outcome, why, wrong error) {
	if err := errors.Join(os.RemoveAll(dir), copyTree(dir, s.dir), tr.do(dir)); err != nil {
		return "", nil, err
	}
	l, err := s.open(ctx, dir)
	if err != nil {
		return refused, err, nil
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- l.run(running) }()
	missing, wrong := error(nil), s.goOn(ctx, t, l)
	if wrong == nil {
		missing, wrong = s.verify(ctx, l, tr)
	}
	what = whole
	if missing != nil || rand.N(16) == 0 { // now and then, to see that it does not cry wolf
		clean := scrubOnce(ctx, l) == nil
		switch {
		case missing != nil && clean:
			wrong = errors.Join(wrong, fmt.Errorf("a scrub does not find that %w", missing))
		case missing != nil:
			what = found
		}
	}
	stop()
	_ = errors.Join(<-ended, l.close()) // what it says of its damage does not count here
	if tr.edge && what == found {
		wrong = errors.Join(wrong, fmt.Errorf("it serves and signs although %w", missing))
	}
	return what, missing, wrong
}

// verify reads all that the log gives out: missing is what it does not give, wrong what it gives and is not so.
func (s *specimen) verify(ctx context.Context, l *ledger, tr trial) (missing, wrong error) {
	var absent, untrue []error
	see := func(what string, err error, got, want []byte) {
		switch {
		case err != nil:
			absent = append(absent, fmt.Errorf("%s is not to be had: %w", what, err))
		case !bytes.Equal(got, want):
			untrue = append(untrue, fmt.Errorf("%s is not what it was", what))
		}
	}
	if n := l.journal.Size(); n < uint64(len(s.entries)) {
		return nil, fmt.Errorf("%d entries of %d are left, and it signs", n, len(s.entries))
	}
	err := eachEntry(l, uint64(len(s.entries)), func(i uint64, entry []byte) {
		if i < uint64(len(s.entries)) {
			see(fmt.Sprintf("entry %d", i), nil, entry, s.entries[i])
		}
	})
	see("an entry", err, nil, nil)
	for path, id := range s.ids {
		data, err := l.tree.Tile(ctx, id)
		see(path, err, data, s.tiles[path])
	}
	for i, want := range s.payloads {
		p, err := l.journal.Payload(i)
		if want == nil && !errors.Is(err, journal.ErrErased) {
			untrue = append(untrue, fmt.Errorf("the erased payload %d is there: %w", i, err))
		}
		if want != nil {
			see(fmt.Sprintf("payload %d", i), err, p.Bytes, want)
		}
	}
	for _, size := range some(s.notes) { // to find one costs a read of the whole store
		msg, err := l.tree.PublishedAt(size)
		if tr.older && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		see(fmt.Sprintf("checkpoint of size %d", size), err, msg, s.notes[size])
	}
	return errors.Join(absent...), errors.Join(untrue...)
}

// goOn appends to the log, and holds every head that it signs to the history.
func (s *specimen) goOn(ctx context.Context, t testing.TB, l *ledger) error {
	first := l.tree.Signed()
	a, err := l.createToken(ctx, local("log"), tokenRequest{Principal: "guest", Role: "auditor"})
	if err != nil {
		a.Index = 0 // it has latched read-only: it signs what it has, or nothing
	}
	for deadline := time.Now().Add(10 * time.Second); l.tree.Head().Size <= a.Index && l.tree.Err() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("entry %d is under no head after ten seconds", a.Index)
		}
	}
	entries := slices.Clone(s.entries)
	err = eachEntry(l, l.journal.Size(), func(i uint64, entry []byte) {
		if i >= uint64(len(s.entries)) {
			entries = append(entries, entry)
		}
	})
	roots := rootsOf(t, entries)
	for _, msg := range [][]byte{first, l.tree.Signed(), l.tree.Published()} {
		cp, cpErr := log.OpenCheckpoint(msg, s.verifier)
		switch {
		case msg == nil:
		case cpErr != nil:
			return cpErr
		case cp.Size < uint64(len(roots)) && cp.Root != roots[cp.Size], cp.Size >= uint64(len(roots)) && err == nil:
			return fmt.Errorf("FORK: it signs a head of size %d that is of another history", cp.Size)
		}
	}
	return nil
}

// scrubOnce is one scrub of everything.
func scrubOnce(ctx context.Context, l *ledger) error {
	f := &fsck{l: l, out: io.Discard, errOut: io.Discard, findings: log.NewFindings(), gone: make(map[uint64]bool), keyless: make(map[uint64]bool), ordered: make(map[uint64]uint64)}
	if err := f.run(ctx); err != nil {
		return err
	}
	if len(f.keyless) > 0 {
		return fmt.Errorf("%d payloads cannot be opened", len(f.keyless))
	}
	return nil
}
