package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// testConfig is a small journal on the real file system.
func testConfig(t testing.TB) Config {
	return Config{
		Dir: filepath.Join(t.TempDir(), "j"), FS: disk.OS(), Logger: slog.New(slog.DiscardHandler),
		SegmentBytes: 64 << 10, SegmentSlots: 16, LargeBytes: 4 << 10, TailBytes: 128 << 10,
	}
}

func newTest(t testing.TB, c Config) *Journal {
	t.Helper()
	j, err := Create(c)
	if err != nil {
		t.Fatalf("Create() = %v", err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func reopen(t testing.TB, j *Journal) *Journal {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatalf("Close() = %v", err)
	}
	again, err := Open(j.c)
	if err != nil {
		t.Fatalf("Open() = %v", err)
	}
	t.Cleanup(func() { _ = again.Close() })
	return again
}

// story makes the record with this index; every third has a payload, every ninth a large one.
func story(index uint64) log.Record {
	r := log.Record{Entry: fmt.Appendf(nil, "entry %d %s", index, bytes.Repeat([]byte{'e'}, int(index*37%900)))}
	switch {
	case index%9 == 8:
		r.Payload = &log.Payload{Bytes: bytes.Repeat(fmt.Appendf(nil, "large %d ", index), 700)}
	case index%3 == 2:
		r.Payload = &log.Payload{Bytes: fmt.Appendf(nil, "payload %d", index)}
	}
	if r.Payload != nil {
		copy(r.Payload.Salt[:], fmt.Sprintf("salt of record %d, 32 bytes long ", index))
	}
	return r
}

// checkStory compares all that a journal holds with the story of size records.
func checkStory(t testing.TB, j *Journal, size uint64, erased map[uint64]bool) {
	t.Helper()
	if got := j.Size(); got != size {
		t.Fatalf("Size() = %d, want %d", got, size)
	}
	for from := uint64(0); from < size; {
		entries, err := j.Entries(from, 100, 1<<20)
		if err != nil || len(entries) == 0 {
			t.Fatalf("Entries(%d) = %d entries, %v", from, len(entries), err)
		}
		for _, e := range entries {
			if want := story(from); !bytes.Equal(e, want.Entry) {
				t.Fatalf("entry %d = %q, want %q", from, e, want.Entry)
			}
			from++
		}
	}
	for index := range size {
		want := story(index).Payload
		p, err := j.Payload(index)
		switch {
		case want == nil:
			if !errors.Is(err, ErrNoPayload) {
				t.Fatalf("Payload(%d) = %v, want ErrNoPayload", index, err)
			}
		case erased[index]:
			if !errors.Is(err, ErrErased) {
				t.Fatalf("Payload(%d) = %v, want ErrErased", index, err)
			}
		case err != nil || p.Salt != want.Salt || !bytes.Equal(p.Bytes, want.Bytes):
			t.Fatalf("Payload(%d) = %d bytes, %v, want %d bytes", index, len(p.Bytes), err, len(want.Bytes))
		}
	}
}

func appendStory(t testing.TB, j *Journal, n int) {
	t.Helper()
	first := j.Size()
	records := make([]log.Record, n)
	for i := range records {
		records[i] = story(first + uint64(i))
	}
	if got, err := j.Append(context.Background(), records); err != nil || got != first {
		t.Fatalf("Append(%d records) = %d, %v, want %d", n, got, err, first)
	}
}

func TestContract(t *testing.T) {
	c := testConfig(t)
	if _, err := Open(c); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open() of nothing = %v, want fs.ErrNotExist", err)
	}
	j := newTest(t, c)
	for n := range 60 {
		appendStory(t, j, 1+n%7)
	}
	size := j.Size()
	checkStory(t, j, size, nil)
	for range 3 {
		j = reopen(t, j)
		checkStory(t, j, size, nil)
	}
	if _, err := Create(c); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("Create() over an open journal = %v, want ErrLocked", err)
	}
	if _, err := Open(c); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("second Open() = %v, want ErrLocked", err)
	}
	erased := map[uint64]bool{2: true, 8: true, size - 1 - (size-1)%9 - 1: true}
	for index := range erased {
		for range 2 {
			if err := j.Erase(index); err != nil {
				t.Fatalf("Erase(%d) = %v", index, err)
			}
		}
	}
	checkStory(t, j, size, erased)
	j = reopen(t, j)
	appendStory(t, j, 5)
	checkStory(t, j, size+5, erased)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(c); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create() over a journal = %v, want fs.ErrExist", err)
	}
}

// TestLeaveOut: who learns late that a lasting payload is not needed leaves it out, but nothing that has a key.
func TestLeaveOut(t *testing.T) {
	j := newTest(t, testConfig(t))
	lasting, small := &log.Payload{Bytes: []byte("lasting"), Lasting: true}, &log.Payload{Bytes: []byte("small")}
	entries := [][]byte{[]byte("first"), []byte("second")}
	for _, payloads := range [][]*log.Payload{{small, small, nil}, {lasting, small, lasting, nil, nil}, {small}} {
		p, err := j.Prepare(payloads, 10)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Place(p, entries); err == nil {
			t.Errorf("Place() of 2 entries for %d payloads = nil", len(payloads))
		}
		j.Discard(p)
	}
	p, err := j.Prepare([]*log.Payload{lasting, nil, small, lasting}, 10)
	if err != nil {
		t.Fatal(err)
	}
	pending, err := j.Place(p, entries)
	if err != nil {
		t.Fatal(err)
	}
	<-pending.Done()
	for n, want := range []*log.Payload{small, lasting} {
		if p, err := j.Payload(uint64(n)); err != nil || !reflect.DeepEqual(p, *want) {
			t.Errorf("Payload(%d) = %+v, %v, want %+v", n, p, err, *want)
		}
	}
	if s := j.Stats(); j.Size() != 2 || s.QueuedRecords != 0 || s.QueuedBytes != 0 {
		t.Errorf("Stats() = %+v, want 2 records and an empty queue", s)
	}
}
