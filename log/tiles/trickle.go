package tiles

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

const (
	queueFiles   = 1024            // written and not synced; beyond, rounds wait
	recoverEvery = 2 * time.Second // recovery point
)

// A dirty thing is a file to be synced, or the head up to which all files were written before it.
type dirty struct {
	file  disk.File
	path  string
	point *log.Head
}

// enqueue gives d to the trickle, and waits if that is far behind: publication gets later, commits do not.
func (t *Tree) enqueue(d dirty) error {
	select {
	case t.queue <- d:
		return nil
	case <-t.failed:
		if d.file != nil {
			return errors.Join(t.Err(), d.file.Close())
		}
		return t.Err()
	}
}

// A debt is what was synced since the recovery point moved: the directories of those files, and the head up to which
// all files were.
type debt struct {
	dirs  map[string]bool
	point *log.Head
}

// trickle syncs one file at a time and pauses as long as that took, so that the commits that callers wait for find
// the disk free half of the time. Then the directories, then the recovery point. It ends when the queue is closed.
func (t *Tree) trickle() error {
	defer t.drain()
	tick := time.NewTicker(recoverEvery)
	defer tick.Stop()
	owed := debt{dirs: map[string]bool{}}
	for {
		select {
		case <-t.failed:
			return t.Err()
		case d, more := <-t.queue:
			if !more {
				return t.settle(&owed)
			}
			took, err := t.pay(&owed, d)
			if err != nil {
				return t.fail(err)
			}
			t.pause(took)
		case <-tick.C:
			if err := t.settle(&owed); err != nil {
				return err
			}
		}
	}
}

// pay takes d off the queue: it syncs a file and says how long that took.
func (t *Tree) pay(owed *debt, d dirty) (took time.Duration, err error) {
	if d.point != nil {
		owed.point = d.point
		return 0, nil
	}
	if took, err = t.syncFile(d); err != nil {
		return 0, err
	}
	owed.dirs[filepath.Dir(filepath.Join(t.c.Dir, filepath.FromSlash(d.path)))] = true
	return took, nil
}

func (t *Tree) syncFile(d dirty) (took time.Duration, err error) {
	began := time.Now()
	if err := errors.Join(d.file.Sync(), d.file.Close()); err != nil {
		return 0, fmt.Errorf("sync %s: %w", d.path, err)
	}
	took = time.Since(began)
	t.count(func(s *Stats) { s.Synced++; s.SyncTime += took })
	return took, nil
}

// pause leaves the disk alone for as long as it was used, unless the queue gets long.
func (t *Tree) pause(took time.Duration) {
	if len(t.queue) > queueFiles/4 {
		return
	}
	select {
	case <-time.After(min(took, 50*time.Millisecond)):
	case <-t.failed:
	}
}

// drain closes the files that a failure left in the queue.
func (t *Tree) drain() {
	for d := range t.queue {
		if d.file != nil {
			// Nothing relies on this file: it is derived again at the next start.
			_ = d.file.Close()
		}
	}
}

// settle moves the recovery point if files were synced since it moved last. A point without new full tiles is not
// worth a sync: a start derives the few entries behind it again.
func (t *Tree) settle(owed *debt) error {
	if err := t.Err(); err != nil || len(owed.dirs) == 0 || owed.point == nil {
		return err
	}
	if err := t.recover(owed.dirs, *owed.point); err != nil {
		return t.fail(err)
	}
	clear(owed.dirs)
	return nil
}

// recover makes the names of the synced files durable, then the recovery point:
//
//	files synced -> directories synced, each with those above it -> recovery point durable
func (t *Tree) recover(dirs map[string]bool, point log.Head) error {
	all := map[string]bool{}
	for dir := range dirs {
		for ; !all[dir] && len(dir) >= len(filepath.Clean(t.c.Dir)); dir = filepath.Dir(dir) {
			all[dir] = true
		}
	}
	var order []string
	for dir := range all {
		order = append(order, dir)
	}
	slices.Sort(order)
	for _, dir := range order {
		if err := t.c.FS.SyncDir(dir); err != nil {
			return fmt.Errorf("sync directory %s: %w", dir, err)
		}
	}
	if point != t.recovery.last.Head {
		next := Anchor{point, t.c.Now().Truncate(time.Millisecond)}
		if err := t.recovery.swap(t.recovery.last, next); err != nil {
			return fmt.Errorf("move recovery point to size %d: %w", point.Size, err)
		}
	}
	t.count(func(s *Stats) { s.Recovery = point.Size })
	return nil
}
