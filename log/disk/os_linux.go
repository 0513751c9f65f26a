package disk

import (
	"errors"
	"os"
	"syscall"
)

// syncData leaves out the times of the file, which nobody needs and which would cost a commit of the file system's
// own journal; the size it does not leave out.
func syncData(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		for {
			failed = syscall.Fdatasync(int(fd))
			// Interrupted means not begun: the kernel reports no lost page by it.
			if !errors.Is(failed, syscall.EINTR) {
				return
			}
		}
	}); err != nil {
		return err
	}
	if failed != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: failed}
	}
	return nil
}
