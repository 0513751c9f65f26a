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

// SpaceOf gives the room on the file system of a directory.
func SpaceOf(dir string) (Space, error) {
	var s unix.Statfs_t
	for {
		err := unix.Statfs(dir, &s)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return Space{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
	}
	unit := uint64(s.Frsize)
	return Space{
		UsedBytes: (s.Blocks - s.Bfree) * unit, FreeBytes: s.Bavail * unit,
		UsedInodes: s.Files - s.Ffree, FreeInodes: s.Ffree,
	}, nil
}

// allocate makes a file take up its room on the disk, without writing all of it where the file system can do that.
func allocate(f *os.File, size int64) error {
	err := control(f, "fallocate", func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return writeZeros(f, size)
	}
	return err
}
