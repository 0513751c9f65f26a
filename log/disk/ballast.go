package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// BallastInodes is in how many files a ballast lies: so many inodes are freed with it.
const BallastInodes = 64

// A Ballast takes up room on a disk, in bytes and inodes, to be thrown off when the disk is full: then there is room for
// what must still be written. It holds nothing, so it is neither synced nor simulated. Its methods are not safe for
// concurrent use.
type Ballast struct {
	dir   string
	bytes int64
}

// NewBallast makes nothing yet. dir is the ballast's own directory.
func NewBallast(dir string, bytes int64) *Ballast { return &Ballast{dir, bytes} }

func (b *Ballast) piece(n int) string { return filepath.Join(b.dir, fmt.Sprintf("%02d", n)) }

// Take takes up the room, as far as it is not taken up. Where it fails it has taken none.
func (b *Ballast) Take() error {
	err := b.take()
	if err != nil {
		err = errors.Join(fmt.Errorf("take on ballast in %s: %w", b.dir, err), b.Drop())
	}
	return err
}

func (b *Ballast) take() error {
	if b.bytes == 0 {
		return b.Drop()
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	each := (b.bytes + BallastInodes - 1) / BallastInodes
	for n := range BallastInodes {
		if info, err := os.Stat(b.piece(n)); err == nil && info.Size() == each {
			continue
		}
		f, err := os.OpenFile(b.piece(n), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		if err := errors.Join(allocate(f, each), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Drop frees the room.
func (b *Ballast) Drop() error {
	for n := range BallastInodes {
		if err := os.Remove(b.piece(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("drop ballast: %w", err)
		}
	}
	return nil
}

// Held tells whether the whole ballast is there.
func (b *Ballast) Held() bool {
	_, err := os.Stat(b.piece(BallastInodes - 1)) // the last one made, and only when all of it is
	return b.bytes == 0 || err == nil
}

// Dropped tells whether there was a ballast, and is none now.
func (b *Ballast) Dropped() bool {
	_, err := os.Stat(b.dir)
	return err == nil && !b.Held()
}

// writeZeros is how a file takes up room where it cannot be had for the asking.
func writeZeros(f *os.File, size int64) error {
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return err
		}
	}
	return nil
}
