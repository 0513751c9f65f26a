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
	queueFiles   = 1024            // written and not written back; beyond, rounds wait
	recoverEvery = 2 * time.Second // recovery point
	recoverFiles = 512             // or after so many files, which are open until then
	smallBytes   = 32 << 10        // a file's data up to here need not be written before its sync
)

// A dirty thing is a file to be synced, or the head up to which all files were written before it.
type dirty struct {
	file  disk.File
	path  string
	bytes int
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

// A debt is what was written back since the recovery point moved, and is not durable: the files, and the head up to
// which all files are among them.
type debt struct {
	files []dirty
	point *log.Head
}

// trickle writes the data of one file at a time to the disk and pauses as long as that took, so that the commits that
// callers wait for find the disk free half of the time. Every two seconds it makes all of them durable, and moves the
// recovery point. A new file's sync commits the file system's own journal, for which every other sync waits: done
// together, and with the data on the disk already, the syncs of hundreds of files need one such commit, not one each.
// It ends when the queue is closed.
func (t *Tree) trickle() error {
	var owed debt
	defer t.drain(&owed)
	tick := time.NewTicker(recoverEvery)
	defer tick.Stop()
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
			if len(owed.files) >= recoverFiles {
				if err := t.settle(&owed); err != nil {
					return err
				}
			}
			t.pause(took)
		case <-tick.C:
			if err := t.settle(&owed); err != nil {
				return err
			}
		}
	}
}

// pay takes d off the queue: it writes a file back and says how long that took.
func (t *Tree) pay(owed *debt, d dirty) (took time.Duration, err error) {
	if d.point != nil {
		owed.point = d.point
		return 0, nil
	}
	owed.files = append(owed.files, d)
	// When the rounds are far ahead there is no pause to save: the sync writes the data as well.
	if d.bytes <= smallBytes || len(t.queue) > queueFiles/4 {
		return 0, nil
	}
	began := time.Now()
	if err := d.file.WriteBack(); err != nil {
		return 0, fmt.Errorf("write back %s: %w", d.path, err)
	}
	took = time.Since(began)
	t.count(func(s *Stats) { s.SyncTime += took })
	return took, nil
}

// sync makes the files of a debt durable, by the handles that wrote them, and returns their directories.
func (t *Tree) sync(owed *debt) (dirs map[string]bool, err error) {
	dirs = map[string]bool{}
	for len(owed.files) > 0 {
		d := owed.files[0]
		began := time.Now()
		owed.files = owed.files[1:]
		if err := errors.Join(d.file.Sync(), d.file.Close()); err != nil {
			return nil, fmt.Errorf("sync %s: %w", d.path, err)
		}
		dirs[filepath.Dir(filepath.Join(t.c.Dir, filepath.FromSlash(d.path)))] = true
		took := time.Since(began)
		t.count(func(s *Stats) { s.Synced++; s.SyncTime += took })
		t.pause(took)
	}
	owed.files = nil
	return dirs, t.Err()
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

// drain closes the files that a failure left behind.
func (t *Tree) drain(owed *debt) {
	for d := range t.queue {
		owed.files = append(owed.files, d)
	}
	for _, d := range owed.files {
		if d.file != nil {
			// Nothing relies on this file: it is derived again at the next start.
			_ = d.file.Close()
		}
	}
}

// settle makes durable what is owed and moves the recovery point. A point without new full tiles is not worth a sync:
// a start derives the few entries behind it again.
func (t *Tree) settle(owed *debt) error {
	if err := t.Err(); err != nil || len(owed.files) == 0 || owed.point == nil {
		return err
	}
	point := *owed.point
	dirs, err := t.sync(owed)
	if err == nil {
		err = t.recover(dirs, point)
	}
	if err != nil {
		return t.fail(err)
	}
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
