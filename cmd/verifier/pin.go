package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/pipe-roll/piperoll/log"
)

// pinMaxBytes bounds the pin file.
const pinMaxBytes = 16 << 20

// pins are the checkpoints that the auditor accepted before, one note for each
// origin, the newest last. The file is the auditor's own memory: it is what
// shows a log that goes back on what it said.
type pins struct {
	file  string
	notes [][]byte
	heads []log.Checkpoint
	used  uint64 // the consistency proof, by its old size, that was checked; 0 if none
}

// readPins reads a pin file; a missing one is that of the first audit.
func readPins(file string) (*pins, error) {
	p := &pins{file: file}
	text, err := readFile(file, pinMaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	for len(text) > 0 {
		note, rest, ok := cutNote(text)
		c, err := unverified(note)
		if !ok || err != nil {
			return nil, usagef("pin file %s: note %d is no checkpoint: %w; restore the file, do not delete it", file, len(p.notes)+1, errors.Join(log.ErrMalformed, err))
		}
		if _, _, again := p.of(c.Origin); again {
			return nil, usagef("pin file %s: two checkpoints of %q", file, c.Origin)
		}
		p.notes, p.heads = append(p.notes, note), append(p.heads, c)
		text = rest
	}
	return p, nil
}

// cutNote takes one note off a list of notes: text, an empty line, signature
// lines; an empty line stands between two notes.
func cutNote(text []byte) (note, rest []byte, ok bool) {
	body := bytes.Index(text, []byte("\n\n"))
	if body < 0 {
		return nil, nil, false
	}
	end := bytes.Index(text[body+2:], []byte("\n\n"))
	if end < 0 {
		return text, nil, true
	}
	end += body + 2
	return text[:end+1], text[end+2:], end+2 < len(text)
}

// of gives the pinned note of an origin.
func (p *pins) of(origin string) (log.Checkpoint, []byte, bool) {
	for i, c := range p.heads {
		if c.Origin == origin {
			return c, p.notes[i], true
		}
	}
	return log.Checkpoint{}, nil, false
}

// keep pins the checkpoint, if it is newer than what is pinned. The file is
// replaced in one step: there is never half a memory.
func (p *pins) keep(c log.Checkpoint, note []byte) error {
	if old, _, ok := p.of(c.Origin); ok && old.Size >= c.Size {
		return nil
	}
	var parts [][]byte
	for i, head := range p.heads {
		if head.Origin != c.Origin {
			parts = append(parts, p.notes[i])
		}
	}
	text := bytes.Join(append(parts, note), []byte("\n"))
	f, err := os.CreateTemp(filepath.Dir(p.file), ".pin-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), p.file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFolder(filepath.Dir(p.file))
}

// syncFolder makes a rename durable: without it a crash can bring the old pin
// back, and with it the tree that the log would like to be forgotten.
func syncFolder(name string) error {
	if runtime.GOOS == "windows" {
		return nil // folders cannot be synced there; NTFS keeps a journal of names
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// pinned holds the checkpoint to the one of the last audit.
func (v *verification) pinned() error {
	if v.pins == nil {
		return nil
	}
	now := v.opened.Checkpoint
	before, note, ok := v.pins.of(now.Origin)
	if !ok {
		v.f.Pass("integrity.pin", "first audit of %s: nothing to compare with; its checkpoint of size %d is remembered if this ends with exit 0", now.Origin, now.Size)
		return nil
	}
	// The file is the auditor's, but keys change, and files get mixed up.
	if _, err := v.policy.OpenLog(note); err != nil {
		return usagef("pin file %s: the policy does not know who signed the checkpoint of %q: %w", v.pin, now.Origin, err)
	}
	old, next := before, now
	if now.Size < before.Size {
		old, next = now, before
	}
	switch {
	case old.Size == next.Size && old.Root != next.Root:
		v.f.Fail("integrity.pin", "FORK: the log has signed two trees of size %d: your pin file and DIR/checkpoint are the evidence, keep both", now.Size)
		return nil
	case old.Size == next.Size:
		v.f.Pass("integrity.pin", "the same tree as at the last audit, size %d", now.Size)
		return nil
	case !v.d.has(log.ExportConsistency, old.Size):
		v.f.Skip("integrity.pin", "nothing shows that the tree of size %d extends that of size %d: ask for consistency/%d.proof to size %d", next.Size, old.Size, old.Size, next.Size)
		return nil
	}
	p, err := v.consistencyProof(old.Size)
	switch {
	case errors.Is(err, log.ErrMalformed):
		return nil // consistency, which comes after, reads it too and says so
	case err != nil:
		return err
	case p.New != next.Size:
		v.f.Skip("integrity.pin", "consistency/%d.proof leads to size %d, not to %d", p.Old, p.New, next.Size)
		return nil
	}
	v.pins.used = p.Old
	if err := log.CheckConsistency(old.Head, next.Head, p.Path); err != nil {
		v.f.Fail("integrity.pin", "%v: the log was changed since your last audit, or the proof is not its own", err)
		return nil
	}
	v.f.Pass("integrity.pin", "%s", pinText(before, now))
	return nil
}

func pinText(before, now log.Checkpoint) string {
	if now.Size < before.Size {
		return fmt.Sprintf("older than your last audit, and part of it: size %d of %d; the pin stays", now.Size, before.Size)
	}
	return fmt.Sprintf("extends the tree of your last audit, from size %d to %d", before.Size, now.Size)
}
