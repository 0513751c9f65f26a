package journal

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// TestManyWriters appends from many goroutines while others read, erase, check and wait, and compares all at the end.
func TestManyWriters(t *testing.T) {
	j := newTest(t, testConfig(t))
	const writers, each = 8, 40
	var mu sync.Mutex
	want := map[uint64]string{}
	var writing, reading sync.WaitGroup
	stop := make(chan struct{})
	for w := range writers {
		writing.Go(func() {
			for n := range each {
				text := fmt.Sprintf("writer %d entry %d", w, n)
				records := []log.Record{{Entry: []byte(text)}, {Entry: []byte(text + "+"), Payload: &log.Payload{Bytes: bytes.Repeat([]byte(text), 1+n*10)}}}
				first, err := j.Append(t.Context(), records)
				for errors.Is(err, ErrBusy) {
					time.Sleep(time.Millisecond)
					first, err = j.Append(t.Context(), records)
				}
				if err != nil {
					t.Errorf("Append() = %v", err)
					return
				}
				if n%5 == 0 {
					if err := j.Erase(first + 1); err != nil {
						t.Errorf("Erase(%d) = %v", first+1, err)
					}
				}
				mu.Lock()
				want[first], want[first+1] = text, text+"+"
				mu.Unlock()
			}
		})
	}
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := j.Check(t.Context(), nil, nil); err != nil {
				t.Errorf("Check() under load = %v", err)
				return
			}
			_ = j.Stats()
		}
	})
	if err := j.Wait(t.Context(), 2*writers*each); err != nil {
		t.Fatalf("Wait() = %v", err)
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	again := reopen(t, j)
	for from := uint64(0); from < again.Size(); {
		entries, err := again.Entries(from, 50, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if want[from] != string(e) {
				t.Fatalf("entry %d = %q, want %q", from, e, want[from])
			}
			from++
		}
	}
	if s := again.Stats(); s.Size != 2*writers*each || s.QueuedRecords != 0 || s.Segment == 0 {
		t.Errorf("Stats() = %+v", s)
	}
}
