package tiles

import (
	"context"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// A fullFS has no room for new files, while it is full.
type fullFS struct {
	disk.FS
	full  atomic.Bool
	tries atomic.Int64
}

func (f *fullFS) Create(name string) (disk.File, error) {
	if f.full.Load() {
		f.tries.Add(1)
		return nil, syscall.ENOSPC
	}
	return f.FS.Create(name)
}

// A full disk holds a tree up and does not end it: rounds and publications go on where they were when there is room, and
// no temporary file is left behind.
func TestAFullDiskHoldsTheTreeUp(t *testing.T) {
	w := newWorld(t)
	fsys := &fullFS{FS: crashfs.New(1)}
	c := w.config(fsys)
	c.Round, c.Publish, c.Idle = time.Millisecond, 2*time.Millisecond, 20*time.Millisecond
	c.StopTimeout = 100 * time.Millisecond
	var told atomic.Int64
	c.NoSpace = func() { told.Add(1) }
	must(t, Create(c))
	tree, err := Open(c)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tree.Run(ctx) }()
	w.src.add(300)
	if _, err := tree.WaitPublished(ctx, 300); err != nil {
		t.Fatal(err)
	}
	fsys.full.Store(true)
	w.src.add(600)
	for told.Load() < 4 {
		time.Sleep(time.Millisecond)
	}
	if err := tree.Err(); err != nil || tree.Stats().NoSpace == 0 {
		t.Errorf("a full disk ends the tree: %v, %+v", err, tree.Stats())
	}
	fsys.full.Store(false)
	if _, err := tree.WaitPublished(ctx, 900); err != nil {
		t.Fatal(err)
	}
	w.check(tree)

	// A stop waits for no longer than it may.
	fsys.full.Store(true)
	w.src.add(1)
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		t.Errorf("a tree that cannot publish stops with %v", err)
	}
	must(t, tree.Close())
}
