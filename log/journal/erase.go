package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/pipe-roll/piperoll/log/disk"
)

// Erase destroys the payload of a durable record: its key, then its bytes. It is called after the entry that orders
// the erasure is durable, and again for all such entries after a crash or a restore; again is cheap and harmless.
// Errors: ErrNotExist, ErrNoPayload, ErrLasting, ErrStopped; any error of the disk is fatal.
//
// The order of durable steps:
//
//	key slot zeroed and synced -> sealed bytes zeroed and synced -> own file removed and its folder synced
//
// From the first step on nobody can read the payload. A crash at any later point leaves sealed bytes that are damaged
// but excused by their zero key; a crash in the first leaves a damaged key, which the repeated call zeroes.
func (j *Journal) Erase(index uint64) error {
	r, at, err := j.locate(index)
	if err != nil {
		return err
	}
	switch r.kind {
	case kindPlain:
		return fmt.Errorf("erase payload of record %d: %w", index, ErrNoPayload)
	case kindOpen:
		return fmt.Errorf("erase payload of record %d: %w", index, ErrLasting)
	}
	j.eraseMu.Lock()
	defer j.eraseMu.Unlock()
	if err := j.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrStopped, err)
	}
	steps := []func() error{
		func() error {
			err := j.blank(j.names.key(uint64(r.key.file)), int64(r.key.slot)*keyBytes, keyBytes)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // restored without its keys: nobody can read it
			}
			return err
		},
		func() error { return j.eraseBytes(r, at) },
	}
	if j.c.bugs.eraseBytesFirst {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			err = fmt.Errorf("erase payload of record %d: %w", index, err)
			j.fail(err)
			return err
		}
	}
	j.counts.erased.Add(1)
	return nil
}

func (j *Journal) eraseBytes(r record, at position) error {
	if r.kind == kindInline {
		return j.blank(j.names.segment(at.segment), at.off+int64(recordHeaderBytes+sealHeaderBytes+len(r.entry)), int64(r.sealedLen))
	}
	name := j.names.payload(r.key)
	err := j.blank(name, 0, int64(r.sealedLen))
	if err == nil {
		delete(j.synced, name)
		err = j.c.FS.Remove(name)
		if err == nil {
			delete(j.synced, filepath.Dir(name))
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(name)
	if j.synced[dir] {
		return nil
	}
	if err := j.c.FS.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	j.synced[dir] = true
	return nil
}

// blank zeroes part of a file and syncs it. Zeros that it finds may be in the page cache only, left by a run that
// crashed before its sync, so the first visit to a file always syncs. The caller holds eraseMu.
func (j *Journal) blank(name string, off, length int64) error {
	f, err := j.c.FS.Open(name)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err == nil {
		err = j.blankOpen(f, name, off, max(0, min(length, size-off)))
	}
	return errors.Join(err, f.Close())
}

func (j *Journal) blankOpen(f disk.File, name string, off, length int64) error {
	b := make([]byte, length)
	if n, err := f.ReadAt(b, off); n < len(b) {
		return err
	}
	dirty := slices.ContainsFunc(b, func(c byte) bool { return c != 0 })
	if !dirty && j.synced[name] {
		return nil
	}
	clear(b)
	// Written even if it reads as zeros: after a sync that failed, pages count as clean that never reached the medium.
	if _, err := f.WriteAt(b, off); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if !dirty {
		j.synced[name] = true
	}
	return nil
}

// settle destroys the keys of a key file that no record uses, now that none can come: they were drawn by callers that
// gave up, or by a run that crashed. Whatever they sealed was never acknowledged, so no erasure will ever be asked for
// it. It also removes their files.
func (j *Journal) settle(file uint64) error {
	used := map[uint32]bool{}
	slots := uint32(0)
	// A record is in the segment of its key file or the next, or was copied on by a recovery, or by two.
	for _, s := range j.where.segments() {
		if s.number < file || s.number > file+4 || s.end == 0 {
			continue
		}
		t, err := j.tableOf(s)
		if err != nil {
			return fmt.Errorf("settle key file %d: %w", file, err)
		}
		for _, k := range t.refs {
			if uint64(k.file) == file {
				used[k.slot] = true
				slots = max(slots, k.slot+1)
			}
		}
	}
	if err := j.blankUnused(file, used, int64(slots)*keyBytes); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("settle key file %d: %w", file, err)
	}
	if err := j.removeUnused(file, used); err != nil {
		return fmt.Errorf("settle key file %d: %w", file, err)
	}
	return nil
}

// blankUnused zeroes unused slots, makes that durable, and cuts off those behind the last used one.
func (j *Journal) blankUnused(file uint64, used map[uint32]bool, length int64) error {
	j.eraseMu.Lock()
	defer j.eraseMu.Unlock()
	f, err := j.c.FS.Open(j.names.key(file))
	if err != nil {
		return err
	}
	err = blankSlots(f, used)
	if err == nil {
		err = f.Truncate(length)
	}
	if err == nil {
		err = synced(f)
	}
	return errors.Join(err, f.Close())
}

func blankSlots(f disk.File, used map[uint32]bool) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	slots := uint32((size + keyBytes - 1) / keyBytes)
	dirty := false
	for from := uint32(0); from < slots; {
		to := from
		for to < slots && !used[to] {
			to++
		}
		if to > from {
			length := min(int64(to)*keyBytes, size) - int64(from)*keyBytes
			if _, err := f.WriteAt(make([]byte, length), int64(from)*keyBytes); err != nil {
				return err
			}
			dirty = true
		}
		from = to + 1
	}
	if !dirty {
		return nil
	}
	// Before the file is cut: blocks given back to the file system keep what was last written to them.
	return synced(f)
}

// removeUnused removes the files of large payloads that no record uses.
func (j *Journal) removeUnused(file uint64, used map[uint32]bool) error {
	dir := j.names.largeDir(file)
	files, err := j.c.FS.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	keep := map[string]bool{}
	for slot := range used {
		keep[filepath.Base(j.names.payload(keyPos{uint32(file), slot}))] = true
	}
	for _, name := range files {
		if keep[name] {
			continue
		}
		if err := j.c.FS.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	// Also if nothing was left: what Discard removed is not synced yet, and until then the folder is kept open.
	return j.syncDir(dir)
}
