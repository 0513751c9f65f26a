package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncData leaves out the times of the file, which nobody needs and which would cost a commit of the file system's
// own journal; the size it does not leave out.
func syncData(f *os.File) error { return control(f, "fdatasync", unix.Fdatasync) }

// writeBack writes the data of a file, and nothing of what the file system keeps about it: a sync of a new file
// commits the file system's own journal, and every other sync waits for that.
func writeBack(f *os.File) error {
	return control(f, "sync_file_range", func(fd int) error {
		const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
		err := unix.SyncFileRange(fd, 0, 0, all)
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ESPIPE) {
			return nil // not on this system or file: Sync does all of it
		}
		return err
	})
}

func control(f *os.File, op string, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		for {
			failed = call(int(fd))
			// Interrupted means not begun: the kernel reports no lost page by it.
			if !errors.Is(failed, unix.EINTR) {
				return
			}
		}
	}); err != nil {
		return err
	}
	if failed != nil {
		return &os.PathError{Op: op, Path: f.Name(), Err: failed}
	}
	return nil
}
