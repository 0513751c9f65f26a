package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log/disk"
)

// onSmallDisk serves a log on a file system of its own, with marks that fit it.
func onSmallDisk(t *testing.T, kind, size string, options ...string) (*running, *loopFS) {
	fs := newLoopFS(t, kind, size, options...)
	r := newLogIn(t, filepath.Join(fs.dir, "log"), fastPublish)
	r.tweak = func(c *Config) {
		c.space = disk.SpaceOf
		c.Storage = StorageConfig{WarnPercent: 80, RefusePercent: 90, MinFreeBytes: 16 << 20, BallastBytes: 32 << 20}
	}
	r.restart()
	return r, fs
}

// ballasted says whether the log has its ballast still. A neighbour that took what the log throws off as well would leave
// it nothing to write with: then it can only wait.
func ballasted(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "log", "data", "ballast", "00")) // the first to go
	return err == nil
}

// fillUp takes all bytes that are left, as a neighbour of the log might.
func fillUp(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "neighbour")
	f := must2(os.Create(name))
	block := make([]byte, 1<<20)
	for len(block) > 0 && ballasted(dir) {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else {
			must(t, err)
		}
	}
	must(t, f.Close())
	return func() { must(t, os.Remove(name)) }
}

// takeInodes takes all inodes that are left.
func takeInodes(t *testing.T, dir string) (free func()) {
	t.Helper()
	many := filepath.Join(dir, "neighbours")
	must(t, os.Mkdir(many, 0o700))
	free = func() { must(t, os.RemoveAll(many)) }
	for n := 0; ballasted(dir); n++ {
		f, err := os.Create(filepath.Join(many, fmt.Sprint(n)))
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		must(t, err)
		must(t, f.Close())
	}
	return free
}

// A crowd are submitters that append all the time, and remember what was acknowledged.
type crowd struct {
	r    *running
	stop chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex
	entries map[uint64][]byte
	answers map[int]int
}

func newCrowd(r *running, n int) *crowd {
	c := &crowd{r: r, stop: make(chan struct{}), entries: map[uint64][]byte{}, answers: map[int]int{}}
	for i := range n {
		s := r.submitter(fmt.Sprintf("s%d", i), fmt.Sprintf("m%d/s", i))
		s.append("stream.open", s.opening())
		c.wg.Go(func() { c.appendAll(s) })
	}
	return c
}

func (c *crowd) appendAll(s *submitter) {
	for {
		select {
		case <-c.stop:
			return
		default:
		}
		events := s.next("x.n", "", "x.customer", `{"name":"`+strings.Repeat("Zoë ", 500)+`"}`)
		sig := s.tail(events)
		got := s.r.do("POST", "/v1/events", s.token, ndjson, body(events, sig))
		c.mu.Lock()
		c.answers[got.status]++
		c.mu.Unlock()
		if got.status != http.StatusCreated && got.status != http.StatusOK {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		var a answer
		got.into(&a)
		for i, entry := range s.r.checkReceipt(a, events, sig) {
			c.mu.Lock()
			c.entries[a.Index+uint64(i)] = entry
			c.mu.Unlock()
		}
		last := events[len(events)-1].event
		s.stream.Seq, s.stream.Hash = last.Seq, last.Hash()
	}
}

func (c *crowd) count(status int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers[status]
}

// A disk that somebody else fills up under load, to the last byte or inode, again and again: nothing acknowledged is
// lost, all of it gets under a published checkpoint while the disk is full, the log says so, and goes on by itself when
// there is room.
func diskFull(t *testing.T, rounds int, full func(*testing.T, string) func(), kind, size string, options ...string) {
	r, fs := onSmallDisk(t, kind, size, options...)
	c := newCrowd(r, 4)
	for round := range rounds {
		before := c.count(201)
		await(t, "the ballast", func() bool { return ballasted(fs.dir) })
		await(t, "appends", func() bool { return c.count(201) > before+50 })
		free := full(t, fs.dir)
		refused := c.count(507)
		await(t, "refusals", func() bool { return c.count(507) > refused+50 })
		await(t, "the entry that says so", func() bool { return len(r.storageEntries()) == 2*round+1 })
		said := r.storageEntries()[2*round]
		await(t, "a checkpoint over that entry, while the disk is full", func() bool { return r.checkpoint().Size > said.Index })
		free()
		await(t, "room", func() bool { return r.state().Ready })
		await(t, "the entry that says so", func() bool { return len(r.storageEntries()) == 2*round+2 })
	}
	close(c.stop)
	c.wg.Wait()
	for status := range c.answers {
		if status != 201 && status != 200 && status != 507 && status != 503 {
			t.Errorf("%d answers %d", c.answers[status], status)
		}
	}
	head := r.checkpointOf(r.state().Size)
	for i, entry := range c.entries {
		if got := r.get(fmt.Sprintf("/v1/entries/%d", i), r.admin).want(200, ""); string(got.body) != string(entry) {
			t.Errorf("entry %d is not the one that was acknowledged", i)
		}
		if i >= head.Size {
			t.Errorf("entry %d is not under the checkpoint of size %d", i, head.Size)
		}
	}
	r.fsck(exitOK)
	left := must2(os.ReadDir(filepath.Join(r.dir, "data", "state", "tmp")))
	if len(left) > 0 {
		t.Errorf("%d temporary files are left over", len(left))
	}
	t.Logf("%d times full: %d acknowledged entries, answers %v", rounds, len(c.entries), c.answers)
}

func TestADiskFullOfBytesOnExt4(t *testing.T) {
	diskFull(t, 2, fillUp, "ext4", "640M", "-m", "0")
}

func TestADiskFullOfInodesOnExt4(t *testing.T) {
	diskFull(t, 2, takeInodes, "ext4", "640M", "-m", "0", "-N", "1000")
}

func TestADiskFullOfBytesNightly(t *testing.T) {
	t.Run("ext4", func(t *testing.T) { diskFull(t, 50, fillUp, "ext4", "2G", "-m", "0") })
	t.Run("xfs", func(t *testing.T) { diskFull(t, 50, fillUp, "xfs", "2G") })
}
