package tiles

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// A disk gives back anything. What the tree takes for its own is, to the byte, what it would have written. The checksums
// of inputs are made right: else hardly one would come further.

func FuzzSegment(f *testing.F) {
	f.Add(segment{7, 1 << 40}.name())
	f.Fuzz(func(t *testing.T, name string) {
		if s, ok := parseSegment(name); ok && s.name() != name {
			t.Errorf("%q comes back as %q", name, s.name())
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(marshalRecord(7, []byte("log.example/test\n")))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		mendRecord(b)
		r, n, ok := parseRecord(b)
		if !ok {
			return
		}
		// What follows the note is there to align the next record, and not read.
		end := recordHeadBytes + len(r.note)
		if again := marshalRecord(r.size, r.note); int64(len(again)) != n || !bytes.Equal(again[:end], b[:end]) {
			t.Errorf("%x comes back as %x", b[:end], again)
		}
	})
}

// mendRecord makes the checksum of a record right, and gives its size; 0 if it is none.
func mendRecord(b []byte) int {
	if len(b) < recordHeadBytes {
		return 0
	}
	n := recordHeadBytes + int(binary.BigEndian.Uint32(b))
	if n <= recordHeadBytes || n > len(b) {
		return 0
	}
	binary.BigEndian.PutUint32(b[4:], recordSum(b[:n]))
	return min((n+recordAlign-1)/recordAlign*recordAlign, len(b))
}

func FuzzSegmentData(f *testing.F) {
	whole := append(marshalRecord(7, []byte("seven\n")), marshalRecord(9, []byte("nine\n"))...)
	f.Add(whole, uint64(7))
	f.Add(append(whole, make([]byte, 2*recordAlign)...), uint64(7))
	f.Fuzz(func(t *testing.T, data []byte, first uint64) {
		data = bytes.Clone(data)
		for rest := data; len(rest) > 0; {
			n := mendRecord(rest)
			if n == 0 {
				break
			}
			rest = rest[n:]
		}
		records, end, err := parseSegmentData(data, segment{1, first})
		if err != nil {
			return
		}
		at, size := int64(0), first
		for _, r := range records {
			found, n, ok := parseRecord(data[min(at, int64(len(data))):])
			if !ok || found.size != r.size || r.size < size || !bytes.Equal(found.note, r.note) {
				t.Fatalf("%x: at %d there is %+v, not %+v", data, at, found, r)
			}
			at, size = at+n, r.size
		}
		if at != end {
			t.Errorf("%x ends at %d, its records at %d", data, end, at)
		}
	})
}

func FuzzSlots(f *testing.F) {
	s := &slots{label: anchorLabel, origin: sha256.Sum256([]byte("log.example/test"))}
	f.Add(s.marshal(3, Anchor{log.Head{Size: 7, Root: log.Hash{1}}, time.UnixMilli(5)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < slotBytes {
			return // a slot has its size
		}
		b = bytes.Clone(b[:slotBytes])
		sum := sha256.Sum256(b[:slotSumAt])
		copy(b[slotSumAt:], sum[:])
		if seq, state, ok := s.parse(b); ok && !bytes.Equal(s.marshal(seq, state), b) {
			t.Errorf("%x comes back as %x", b, s.marshal(seq, state))
		}
	})
}
