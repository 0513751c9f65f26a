package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// heldFS is a file system whose segments are not synced while the test holds it.
type heldFS struct {
	disk.FS
	hold  *sync.RWMutex
	large *atomic.Int64 // files of large payloads made
}

func (h heldFS) Open(name string) (disk.File, error) { return h.file(name)(h.FS.Open(name)) }
func (h heldFS) Create(name string) (disk.File, error) {
	if strings.HasSuffix(name, ".sealed") {
		h.large.Add(1)
	}
	return h.file(name)(h.FS.Create(name))
}

func (h heldFS) file(name string) func(disk.File, error) (disk.File, error) {
	return func(f disk.File, err error) (disk.File, error) {
		if err != nil || !strings.Contains(name, ".seg") {
			return f, err
		}
		return heldFile{f, h.hold}, nil
	}
}

type heldFile struct {
	disk.File
	hold *sync.RWMutex
}

func (f heldFile) Sync() error {
	f.hold.RLock()
	defer f.hold.RUnlock()
	return f.File.Sync()
}

// TestOverload: a disk that stands still refuses thousands of callers. They cost it no key and no file, and once it
// goes on the journal takes payloads again.
func TestOverload(t *testing.T) {
	c := testConfig(t)
	hold, made := &sync.RWMutex{}, &atomic.Int64{}
	c.FS, c.QueueRecords, c.QueueBytes = heldFS{c.FS, hold, made}, 4, 8<<10
	j := newTest(t, c)
	small, large := &log.Payload{Bytes: []byte("small")}, &log.Payload{Bytes: make([]byte, c.LargeBytes)}
	hold.Lock()
	release := sync.OnceFunc(hold.Unlock)
	t.Cleanup(release) // also if the test fails
	pending, err := j.Enqueue([]log.Record{{Entry: make([]byte, 7<<10), Payload: small}})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 5000 {
		records := []log.Record{{Entry: make([]byte, 2<<10), Payload: []*log.Payload{small, large}[n%2]}}
		if _, err := j.Enqueue(records); !errors.Is(err, ErrBusy) {
			t.Fatalf("Enqueue() into a full queue = %v, want ErrBusy", err)
		}
		// Somebody who did not know how long the entry would be.
		p, err := j.Prepare([]*log.Payload{small, nil}, 0)
		if err != nil {
			t.Fatalf("Prepare() of what there is room for = %v", err)
		}
		if _, err := j.Place(p, [][]byte{make([]byte, 2<<10), []byte("e")}); !errors.Is(err, ErrBusy) {
			t.Fatalf("Place() into a full queue = %v, want ErrBusy", err)
		}
		j.Discard(p)
	}
	if n := made.Load(); n != 0 {
		t.Errorf("%d files of large payloads were written for refused callers", n)
	}
	if s := j.Stats(); s.QueuedRecords != 1 {
		t.Errorf("Stats() = %+v, want only the first record to wait", s)
	}
	release()
	<-pending.Done()
	records := []log.Record{{Entry: []byte("small"), Payload: small}, {Entry: []byte("large"), Payload: large}}
	first, err := j.Append(t.Context(), records)
	if err != nil {
		t.Fatalf("Append() when the disk goes on = %v", err)
	}
	for n, want := range []*log.Payload{small, small, large} {
		if p, err := j.Payload(uint64(n)); err != nil || !bytes.Equal(p.Bytes, want.Bytes) || first != 1 {
			t.Errorf("Payload(%d) = %d bytes, %v", n, len(p.Bytes), err)
		}
	}
	if s := j.Stats(); s.QueuedRecords != 0 || s.QueuedBytes != 0 {
		t.Errorf("Stats() = %+v, want an empty queue", s)
	}
}

// TestDiscard: a large payload that is given up leaves nothing that opens, on disk or after a crash, and its slot
// serves the next one, any number of times.
func TestDiscard(t *testing.T) {
	e, f := &explorer{}, crashfs.New(13)
	j, err := Create(e.config(f))
	if err != nil {
		t.Fatal(err)
	}
	given := &log.Payload{Bytes: bytes.Repeat([]byte("given up "), 100)}
	for n := range 50 * j.c.SegmentSlots {
		p, err := j.Prepare([]*log.Payload{given, {Bytes: []byte("small")}}, 10)
		if err != nil {
			t.Fatalf("Prepare() number %d = %v", n, err)
		}
		key := p.seals[0].secret
		j.Discard(p)
		j.Discard(p) // does nothing
		for _, f := range []*crashfs.FS{f, f.After(uint64(n))} {
			for name, data := range f.Files() {
				if bytes.Contains(data, key[:]) {
					t.Fatalf("%s holds the key of a payload that was discarded", name)
				}
			}
		}
	}
	records := []log.Record{{Entry: []byte("e"), Payload: given}, {Entry: []byte("e"), Payload: &log.Payload{Bytes: []byte("small")}}}
	if _, err := j.Append(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	if err := j.Check(t.Context(), nil, nil); err != nil {
		t.Error(err)
	}
	if p, err := j.Payload(0); err != nil || !bytes.Equal(p.Bytes, given.Bytes) {
		t.Errorf("Payload(0) = %d bytes, %v", len(p.Bytes), err)
	}
}

// TestDiscardOnBadDisk: a slot that cannot get another key, or whose file stays, is not used again. If nobody knows
// which key it has, the journal stops.
func TestDiscardOnBadDisk(t *testing.T) {
	for n, stops := range []bool{false, false, true, false} { // open, write, sync, remove
		e, f := &explorer{}, crashfs.New(14)
		j, err := Create(e.config(f))
		if err != nil {
			t.Fatal(err)
		}
		p, err := j.Prepare([]*log.Payload{{Bytes: make([]byte, 1000)}}, 10)
		if err != nil {
			t.Fatal(err)
		}
		slot := p.seals[0].key.slot
		f.FailAt(1+n, crashfs.EIO, false)
		j.Discard(p)
		if stopped := j.Err() != nil; stopped != stops {
			t.Errorf("call %d: Err() = %v after Discard", n, j.Err())
		}
		if stops {
			continue
		}
		if p, err = j.Prepare([]*log.Payload{{Bytes: make([]byte, 1000)}}, 10); err != nil || p.seals[0].key.slot == slot {
			t.Errorf("call %d: Prepare() = %v after slot %d was given up", n, err, slot)
		}
	}
}

// watchedFS is a file system that tells which folders have changes that are not synced. Until they are, the system's
// keeps a handle of each.
type watchedFS struct {
	disk.FS
	changed map[string]bool
}

func (w watchedFS) Create(name string) (disk.File, error) {
	w.changed[filepath.Dir(name)] = true
	return w.FS.Create(name)
}

func (w watchedFS) Remove(name string) error {
	w.changed[filepath.Dir(name)] = true
	return w.FS.Remove(name)
}

func (w watchedFS) SyncDir(name string) error {
	delete(w.changed, name)
	return w.FS.SyncDir(name)
}

// TestDiscardKeepsNothingOpen: of a large payload that was given up nothing stays once its segment is looked after.
func TestDiscardKeepsNothingOpen(t *testing.T) {
	f := watchedFS{crashfs.New(17), map[string]bool{}}
	c := (&explorer{}).config(crashfs.New(17))
	c.FS, c.SegmentBytes, c.SegmentSlots = f, 16<<10, 64
	j, err := Create(c)
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(3) {
		p, err := j.Prepare([]*log.Payload{{Bytes: make([]byte, c.LargeBytes)}}, 10)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(j.names.payload(p.seals[0].key))
		j.Discard(p)
		if !f.changed[dir] {
			t.Fatalf("%s has no changes in it", dir)
		}
		for segment := j.Stats().Segment; j.Stats().Segment < segment+3; {
			if _, err := j.Append(t.Context(), []log.Record{plainStory(j.Size())}); err != nil {
				t.Fatal(err)
			}
		}
		if f.changed[dir] {
			t.Errorf("round %d: %s is kept open", n, dir)
		}
	}
}

// shortFS is a file system that lacks something: room, of which a file that was written once needs no more, or handles.
type shortFS struct {
	*crashfs.FS
	of    *atomic.Int64 // a syscall.Errno, or 0
	tries *atomic.Int64 // files that could not be made
}

func (s shortFS) lacks(errnos ...syscall.Errno) error {
	for _, errno := range errnos {
		if s.of.Load() == int64(errno) {
			s.tries.Add(1)
			return errno
		}
	}
	return nil
}

func (s shortFS) Open(name string) (disk.File, error) {
	if err := s.lacks(syscall.EMFILE); err != nil {
		return nil, err
	}
	f, err := s.FS.Open(name)
	return shortFile{f, s}, err
}

func (s shortFS) Create(name string) (disk.File, error) {
	if err := s.lacks(syscall.EMFILE); err != nil {
		return nil, err
	}
	f, err := s.FS.Create(name)
	return shortFile{f, s}, err
}

type shortFile struct {
	disk.File
	fs shortFS
}

func (f shortFile) WriteAt(b []byte, off int64) (int, error) {
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	if off+int64(len(b)) > size {
		if err := f.fs.lacks(syscall.ENOSPC); err != nil {
			return 0, err
		}
	}
	return f.File.WriteAt(b, off)
}

// TestFullDisk: a disk fills up, or file handles run out, while a segment fills. Callers are refused when the segment
// is full, not before, and nothing else happens: without a restart the journal goes on when there is room again, with
// all that it had acknowledged.
func TestFullDisk(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EMFILE} {
		for _, inline := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, inline %v", errno, inline), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { fillDisk(t, errno, inline) })
			})
		}
	}
}

func fillDisk(t *testing.T, errno syscall.Errno, inline bool) {
	short := shortFS{crashfs.New(15), &atomic.Int64{}, &atomic.Int64{}}
	c := (&explorer{}).config(short.FS)
	c.FS, c.inline, c.SegmentBytes, c.SegmentSlots = short, inline, 16<<10, 64
	j, err := Create(c)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for range 5 {
		settle(inline)
		short.of.Store(int64(errno))
		for err = nil; err == nil; {
			_, err = j.Append(t.Context(), []log.Record{plainStory(j.Size())})
		}
		for range 100 {
			if !errors.Is(err, ErrBusy) || !errors.Is(err, errno) || j.Err() != nil {
				t.Fatalf("Append() with the segment full = %v, Err() %v, want ErrBusy and %v", err, j.Err(), errno)
			}
			refused++
			_, err = j.Append(t.Context(), []log.Record{plainStory(j.Size())})
		}
		settle(inline)
		for name := range short.Files() {
			if strings.HasSuffix(name, ".tmp") {
				t.Errorf("%s takes the last room", name)
			}
		}
		short.of.Store(0)
		for range 20 { // callers come back a little later
			if _, err = j.Append(t.Context(), []log.Record{plainStory(j.Size())}); err == nil {
				break
			}
			settle(inline)
		}
		if err != nil {
			t.Fatalf("Append() with room again = %v", err)
		}
	}
	if tries := int(short.tries.Load()); !inline && tries > refused/4 {
		t.Errorf("%d tries to make a segment for %d refused callers", tries, refused)
	}
	settle(inline)
	sealed := j.where.segments()
	sealed = sealed[1 : len(sealed)-1]
	if len(sealed) < 5 {
		t.Errorf("only %d segments were filled", len(sealed))
	}
	for _, s := range sealed {
		if size, err := c.FS.Size(j.names.segment(s.number)); size != s.end || err != nil {
			t.Errorf("segment %d has %d bytes, %v, want it cut to %d", s.number, size, err, s.end)
		}
		if _, err := j.readTable(s); err != nil {
			t.Errorf("table of segment %d: %v", s.number, err)
		}
	}
	again := reopen(t, j)
	for index := range again.Size() {
		e, err := again.Entries(index, 1, 1)
		if err != nil || !bytes.Equal(e[0], plainStory(index).Entry) {
			t.Fatalf("entry %d is %q, %v", index, e, err)
		}
	}
	if err := errors.Join(again.Check(t.Context(), nil, nil), again.Close()); err != nil {
		t.Error(err)
	}
}

// TestKeeperRests: a preparation failed, and then the batches that asked for it shared a group and left room.
func TestKeeperRests(t *testing.T) {
	j, err := Create((&explorer{}).config(crashfs.New(18)))
	if err != nil {
		t.Fatal(err)
	}
	j.prepareErr, j.prepareAfter = syscall.ENOSPC, time.Now().Add(-time.Second)
	if again := j.retry(); again != nil {
		t.Error("the keeper tries again what nobody needs")
	}
	j.preparedTo-- // now it is due
	select {
	case <-j.retry():
	case <-t.Context().Done():
		t.Error("the keeper does not try again what is due")
	}
}

// settle lets the keeper do what it can do, and try again what failed.
func settle(inline bool) {
	if !inline {
		time.Sleep(2 * retryPause)
		synctest.Wait()
	}
}

// plainStory makes a record of about a tenth of a segment, with a payload.
func plainStory(index uint64) log.Record {
	return log.Record{Entry: fmt.Appendf(nil, "entry %d %1000d", index, index), Payload: &log.Payload{Bytes: fmt.Appendf(nil, "payload %d", index)}}
}

// TestFailedJournal: a sync fails while many wait, each in another way. All are told, at once, and later callers too.
func TestFailedJournal(t *testing.T) {
	hold, f := &sync.RWMutex{}, crashfs.New(16)
	c := (&explorer{}).config(f)
	c.inline, c.FS = false, heldFS{f, hold, &atomic.Int64{}}
	j, err := Create(c)
	if err != nil {
		t.Fatal(err)
	}
	hold.Lock()
	var pending []*Pending
	for range 3 {
		p, err := j.Enqueue([]log.Record{{Entry: []byte("waits"), Payload: &log.Payload{Bytes: []byte("p")}}})
		if err != nil {
			t.Fatal(err)
		}
		pending = append(pending, p)
	}
	waited, appended := make(chan error), make(chan error)
	go func() { waited <- j.Wait(t.Context(), 3) }()
	go func() {
		_, err := j.Append(t.Context(), []log.Record{{Entry: []byte("waits too")}})
		appended <- err
	}()
	f.FailAt(1, crashfs.EIO, true)
	hold.Unlock()
	for _, p := range pending {
		if <-p.Done(); !errors.Is(p.Err(), ErrStopped) || !errors.Is(p.Err(), syscall.EIO) {
			t.Errorf("Pending.Err() = %v, want ErrStopped and EIO", p.Err())
		}
	}
	for name, err := range map[string]error{"Wait": <-waited, "Append": <-appended, "a late Wait": j.Wait(t.Context(), 9), "a late Erase": j.Erase(0)} {
		if !errors.Is(err, ErrStopped) && !errors.Is(err, ErrNotExist) {
			t.Errorf("%s = %v, want ErrStopped", name, err)
		}
	}
	<-j.Failed()
	if _, err := j.Enqueue([]log.Record{{Entry: []byte("late"), Payload: &log.Payload{}}}); !errors.Is(err, ErrStopped) {
		t.Errorf("Enqueue() after it = %v, want ErrStopped", err)
	}
	if err := j.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("Close() = %v, want the error that stopped the journal", err)
	}
}

// TestLimits: what can never be placed is refused before it costs anything, and so is what comes too late.
func TestLimits(t *testing.T) {
	j := newTest(t, testConfig(t))
	small := &log.Payload{Bytes: []byte("small")}
	many := make([]log.Record, j.c.SegmentSlots+1)
	for i := range many {
		many[i] = log.Record{Entry: []byte("e"), Payload: small}
	}
	for name, records := range map[string][]log.Record{
		"an entry":              {{Entry: make([]byte, log.EntryMaxBytes+1)}},
		"an empty entry":        {{Payload: small}},
		"a payload":             {{Entry: []byte("e"), Payload: &log.Payload{Bytes: make([]byte, payloadMaxBytes+1)}}},
		"a batch for a segment": {{Entry: make([]byte, 40<<10)}, {Entry: make([]byte, 40<<10)}},
		"payloads of a batch":   many,
		"records of a batch":    make([]log.Record, j.c.QueueRecords+1),
	} {
		if _, err := j.Append(t.Context(), records); !errors.Is(err, ErrTooLarge) {
			t.Errorf("Append() of %s over the limit = %v, want ErrTooLarge", name, err)
		}
	}
	if _, err := j.Enqueue(nil); err == nil {
		t.Error("Enqueue() of nothing = nil")
	}
	old, err := j.Prepare([]*log.Payload{small, {Bytes: make([]byte, j.c.LargeBytes)}}, 10)
	if err != nil {
		t.Fatal(err)
	}
	for j.Stats().Segment < 4 {
		appendStory(t, j, 4)
	}
	if _, err := j.Place(old, [][]byte{[]byte("e"), []byte("e")}); !errors.Is(err, ErrStale) {
		t.Errorf("Place() three segments later = %v, want ErrStale", err)
	}
	j.Discard(old)
	if s := j.Stats(); s.QueuedRecords != 0 || s.QueuedBytes != 0 {
		t.Errorf("Stats() = %+v, want an empty queue", s)
	}
	checkStory(t, j, j.Size(), nil)
	ended, end := context.WithCancel(t.Context())
	end()
	if err := j.Wait(ended, 1<<40); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait() without time = %v, want Canceled", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Wait(t.Context(), 1<<40); !errors.Is(err, ErrStopped) {
		t.Errorf("Wait() after Close() = %v, want ErrStopped", err)
	}
	if _, err := j.Append(t.Context(), []log.Record{story(0)}); !errors.Is(err, ErrStopped) {
		t.Errorf("Append() after Close() = %v, want ErrStopped", err)
	}
}
