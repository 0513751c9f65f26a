package journal

import (
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// A server that fails soon after each start, and is started again at once, never comes to what can wait. It must not
// fill the disk with segments of zeros meanwhile.
func TestStartsThatEndAtOnceLeaveNoSegmentsOfZeros(t *testing.T) {
	c := testConfig(t)
	j := newTest(t, c)
	for i := range uint64(20) {
		if _, err := j.Append(t.Context(), []log.Record{story(i)}); err != nil {
			t.Fatal(err)
		}
		// Killed before the keeper came to anything: sealed segments are as long as they were prepared.
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		for _, s := range j.where.segments() {
			lengthen(t, j, s)
		}
		var err error
		if j, err = Open(c); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = j.Close() })
	segments := j.where.segments()
	for _, s := range segments[:len(segments)-3] {
		size, err := c.FS.Size(j.names.segment(s.number))
		if err != nil || size != s.end {
			t.Errorf("segment %d has %d bytes, and uses %d: %v", s.number, size, s.end, err)
		}
	}
	if err := j.Check(t.Context(), nil, nil); err != nil || j.Size() != 20 {
		t.Errorf("%d records: %v", j.Size(), err)
	}
}

// lengthen gives a segment back the zeros behind its end, if it is the newest that lost them.
func lengthen(t *testing.T, j *Journal, s segment) {
	t.Helper()
	segments := j.where.segments()
	if s.number == 0 || s.number+2 < uint64(len(segments)) {
		return
	}
	f, err := j.c.FS.Open(j.names.segment(s.number))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(j.c.SegmentBytes); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
