package disk

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A ballast takes up real room, in bytes and inodes, and gives it back.
func TestABallastTakesUpRoomAndGivesItBack(t *testing.T) {
	dir := t.TempDir()
	b := NewBallast(filepath.Join(dir, "ballast"), 64<<20)
	if b.Held() || b.Dropped() {
		t.Error("a ballast is there before it is taken on")
	}
	must(t, b.Take())
	taken, inodes := roomOf(t, filepath.Join(dir, "ballast"))
	if taken < 64<<20 || inodes != BallastInodes || !b.Held() || b.Dropped() {
		t.Errorf("%d bytes in %d files are taken up; held %v", taken, inodes, b.Held())
	}
	must(t, os.Truncate(b.piece(3), 5))
	must(t, b.Take()) // mends it
	if again, _ := roomOf(t, filepath.Join(dir, "ballast")); again != taken {
		t.Errorf("%d bytes are taken up, before %d", again, taken)
	}
	must(t, os.WriteFile(filepath.Join(dir, "ballast", "mine"), nil, 0o600))
	must(t, b.Drop())
	if left, n := roomOf(t, filepath.Join(dir, "ballast")); left != 0 || n != 1 || b.Held() || !b.Dropped() {
		t.Errorf("%d bytes in %d files are left, want the one that is not the ballast's", left, n)
	}
}

// Where there is no room for all of it, it takes none.
func TestABallastThatDoesNotFitTakesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ballast")
	must(t, os.WriteFile(file, nil, 0o600))
	if err := NewBallast(file, 1<<20).Take(); err == nil {
		t.Error("a ballast was taken on where its folder cannot be")
	}
	dir := filepath.Join(t.TempDir(), "ballast")
	// Larger than any file system lets a file be: refused at once, without filling the machine's disk.
	if err := NewBallast(dir, 1<<62).Take(); err == nil {
		t.Error("a ballast was taken on that is larger than any disk")
	}
	if left, _ := roomOf(t, dir); left != 0 {
		t.Errorf("%d bytes of it are left", left)
	}
}

// roomOf gives what the files of a folder take up on the disk.
func roomOf(t *testing.T, dir string) (bytes int64, files int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		must(t, err)
		bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		files++
	}
	return bytes, files
}

func TestTheRoomOnADiskIsThatOfStatfs(t *testing.T) {
	s, err := SpaceOf(t.TempDir())
	must(t, err)
	if s.UsedBytes+s.FreeBytes < 1<<20 {
		t.Errorf("SpaceOf = %+v", s)
	}
	if _, err := SpaceOf("/no/such/folder"); err == nil {
		t.Error("a folder that is not there has room")
	}
}
