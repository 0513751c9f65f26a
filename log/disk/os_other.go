//go:build !linux

package disk

import (
	"errors"
	"os"
)

func syncData(f *os.File) error { return f.Sync() }

// writeBack has no counterpart here: Sync does all of it.
func writeBack(*os.File) error { return nil }

// SpaceOf is not known here: errors.ErrUnsupported.
func SpaceOf(string) (Space, error) { return Space{}, errors.ErrUnsupported }

func allocate(f *os.File, size int64) error { return writeZeros(f, size) }
