package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lock locks the first byte of a file, for this handle alone.
func lock(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
	switch {
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION):
		return ErrLocked
	case err != nil:
		return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return nil
}

// syncNames does nothing: the system has no sync of a directory, and its file systems keep names in a journal.
func syncNames(*os.File) error { return nil }
