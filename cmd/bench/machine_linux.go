package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dataSync is what the journal's commits cost: fdatasync.
func dataSync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// fileSystem names the type of a folder's file system.
func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "file system unknown"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.NFS_SUPER_MAGIC: "nfs",
		unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs",
	}
	if name := names[int64(st.Type)]; name != "" {
		return name
	}
	return fmt.Sprintf("file system 0x%x", st.Type)
}

// settle waits until the disk has all that was written.
func settle() { unix.Sync() }

// room is how many bytes are free for a folder.
func room(dir string) uint64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0
	}
	return st.Bavail * uint64(st.Bsize)
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// loadAverage of the last 1, 5 and 15 minutes.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(text))
	if err != nil || len(f) < 3 {
		return "unknown"
	}
	return strings.Join(f[:3], " ")
}

// readUsage adds up what the machine's cores did so far, and what of it this
// process and those of its children did that it has waited for.
func readUsage() usage {
	u := usage{at: time.Now()}
	if text, err := os.ReadFile("/proc/stat"); err == nil {
		u.busy, u.steal, u.all = parseStat(string(text))
	}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if err := unix.Getrusage(who, &r); err == nil {
			u.own += time.Duration(r.Utime.Nano() + r.Stime.Nano())
		}
	}
	return u
}

// parseStat reads the first line of /proc/stat, whose unit is 1/100 s:
// cpu user nice system idle iowait irq softirq steal, and guests, which are in user.
func parseStat(text string) (busy, steal, all time.Duration) {
	line, _, _ := strings.Cut(text, "\n")
	for i, field := range strings.Fields(line) {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil || i > 8 {
			continue
		}
		d := time.Duration(n) * time.Second / 100
		all += d
		switch i {
		case 4, 5: // idle, iowait
		case 8:
			steal += d
		default:
			busy += d
		}
	}
	return busy, steal, all
}
