package main

import (
	"os"
	"testing"
	"time"
)

func TestStat(t *testing.T) {
	busy, steal, all := parseStat("cpu  100 10 40 800 50 3 7 20 60 0\ncpu0 1 2 3\n")
	if busy != 1600*time.Millisecond || steal != 200*time.Millisecond || all != 10300*time.Millisecond {
		t.Errorf("parseStat = %v, %v, %v, want 1.6 s busy, 0.2 s stolen, 10.3 s in all", busy, steal, all)
	}
	u := readUsage()
	if u.busy < u.own || u.own <= 0 || u.all < u.busy {
		t.Errorf("readUsage = %+v, want more in all than busy, and more busy than ours", u)
	}
	if dir := fileSystem(os.TempDir()); dir == "" || kernel() == "unknown" || loadAverage() == "unknown" {
		t.Errorf("file system %q, kernel %q, load average %q", dir, kernel(), loadAverage())
	}
}
