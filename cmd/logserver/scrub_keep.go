package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// keptMax bounds how many damaged files are kept; the first tell how it began.
const keptMax = 100

// keepDamaged keeps what a file holds before it is healed, in damaged/ under the data, named by its SHA-256: who changed
// it may have had it served, and these bytes are the only trace. The operator may delete them.
func (l *ledger) keepDamaged(file string) error {
	data, err := disk.ReadFile(l.c.fs, file, log.BundleMaxBytes)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, disk.ErrTooLarge) {
		return nil // nothing there, or nothing that a log wrote
	}
	if err != nil {
		return fmt.Errorf("keep a copy of what is damaged: %w", err)
	}
	dir := filepath.Join(l.c.DataDir, "damaged")
	names, err := l.c.fs.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = l.c.fs.MkdirAll(dir)
	}
	if err == nil && len(names) < keptMax {
		kept := filepath.Join(dir, fmt.Sprintf("%x", sha256.Sum256(data)))
		l.logger.Warn("keep a copy of a damaged file", "file", file, "copy", kept)
		err = disk.WriteFile(l.c.fs, kept+".tmp", kept, data)
	}
	if err != nil {
		return fmt.Errorf("keep a copy of %s, which is damaged: %w", file, err)
	}
	return nil
}
