package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A loopFS is a file system of its own, on a loop device. Its power can be
// cut, and it can be filled, without harm to the machine's.
type loopFS struct {
	t       testing.TB
	kind    string // ext4, xfs; or tmpfs, which needs no device, and loses all when it is unmounted
	image   string
	dir     string
	mounted bool
}

// newLoopFS makes a file system and mounts it. It needs root; the packages that it needs are made sure of by make deps.
func newLoopFS(t testing.TB, kind, size string, options ...string) *loopFS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("NOT RUN: %s: only root can mount a file system", t.Name())
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("NOT RUN: %s: no loop devices: %v", t.Name(), err)
	}
	l := &loopFS{t: t, kind: kind, image: filepath.Join(t.TempDir(), "image"), dir: filepath.Join(t.TempDir(), "mnt")}
	must(t, os.Mkdir(l.dir, 0o700))
	if kind == "tmpfs" {
		l.run("mount", "-t", kind, "-o", "size="+size, "none", l.dir)
		l.mounted = true
	} else {
		l.run("truncate", "-s", size, l.image)
		l.run("mkfs."+kind, append(options, "-q", l.image)...)
		l.mount()
	}
	t.Cleanup(func() {
		if l.mounted {
			must(t, unix.Unmount(l.dir, unix.MNT_DETACH)) // whoever has something open still: a device must not be left behind
		}
	})
	return l
}

func (l *loopFS) run(command string, args ...string) {
	l.t.Helper()
	if out, err := exec.Command(command, args...).CombinedOutput(); err != nil { //nolint:noctx // also in the cleanup, after the test's context
		l.t.Fatalf("%s %s: %v: %s", command, strings.Join(args, " "), err, out)
	}
}

func (l *loopFS) mount() {
	l.t.Helper()
	l.run("mount", "-t", l.kind, "-o", "loop", l.image, l.dir)
	l.mounted = true
}

// unmount waits for whoever has something open still: a log that ran in this
// process leaves handles of directories to the collector, and a child that is
// just being started has all of ours.
func (l *loopFS) unmount() {
	l.t.Helper()
	for range 500 {
		if unix.Unmount(l.dir, 0) == nil {
			l.mounted = false
			return
		}
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	l.run("umount", l.dir) // says why not
}

// cutPower loses everything that is not on the medium yet, what the file
// system has in its own log's buffers too, and fails whatever comes after.
// Mounting again is what a machine does after it.
func (l *loopFS) cutPower() {
	l.t.Helper()
	const (
		shutdown   = 0x8004587d // FS_IOC_SHUTDOWN
		noLogFlush = 2
	)
	f, err := os.Open(l.dir)
	must(l.t, err)
	must(l.t, unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush))
	must(l.t, f.Close())
}
