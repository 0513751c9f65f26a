package journal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// A disk gives back anything. What the journal takes for its own is, to the byte, what it would have written there. The
// checksums of inputs are made right: else hardly one would come further.

func FuzzSegmentHeader(f *testing.F) {
	f.Add(segmentHeader{journal: id{1}, number: 3, epoch: 2, first: 7, sizeBytes: 1 << 26, prevEnd: 4096, synced: 512, prev: 2, seed: 9}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		if len(b) >= sectorBytes {
			binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[16:sectorBytes], castagnoli()))
		}
		if h, err := parseSegmentHeader(b); err == nil && !bytes.Equal(h.encode(), b[:sectorBytes]) {
			t.Errorf("%x comes back as %x", b, h.encode())
		}
	})
}

func FuzzGroupHeader(f *testing.F) {
	var b [groupHeaderBytes]byte
	groupHeader{epoch: 2, first: 7, synced: 512, length: 100, count: 1, seed: 9, last: 8}.put(b[:], id{1}, 3, 4096)
	f.Add(b[:], uint64(3), int64(4096))
	f.Fuzz(func(t *testing.T, b []byte, number uint64, off int64) {
		b = bytes.Clone(b)
		if len(b) >= groupHeaderBytes {
			binary.LittleEndian.PutUint32(b[4:], selfCRC(id{1}, number, off, b))
		}
		h, err := parseGroupHeader(b, id{1}, number, off)
		if err != nil {
			return
		}
		var again [groupHeaderBytes]byte
		if h.put(again[:], id{1}, number, off); !bytes.Equal(again[:], b[:groupHeaderBytes]) {
			t.Errorf("%x comes back as %x", b, again)
		}
		if _, err := parseGroupHeader(b, id{1}, number, off+sectorBytes); err == nil {
			t.Errorf("%x is a group at another place, too", b)
		}
	})
}

func FuzzRecord(f *testing.F) {
	for _, p := range []*sealed{
		nil,
		{kind: kindInline, key: keyPos{1, 2}, length: sealedOverBytes + 2, crc: 5, inline: make([]byte, sealedOverBytes+2)},
		{kind: kindOpen, length: saltBytes, inline: make([]byte, saltBytes)},
		{kind: kindFile, key: keyPos{1, 3}, length: 1 << 20, crc: 6},
	} {
		b := appendRecord(nil, []byte(`{"v":1}`), p)
		place(b, 9, 7, 2)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, size, err := decodeRecord(b)
		if err != nil {
			if _, _, err := parseRecord(b); err == nil {
				t.Fatalf("%x is a record that cannot be taken apart", b)
			}
			return
		}
		b = bytes.Clone(b)
		place(b, 9, 7, 2)
		r, _, err := parseRecord(b)
		if err != nil {
			t.Fatalf("%x with its CRC made right: %v", b, err)
		}
		var p *sealed
		if r.kind != kindPlain {
			p = &sealed{kind: r.kind, key: r.key, length: r.sealedLen, crc: r.sealedCRC, inline: r.sealed}
		}
		again := appendRecord(nil, r.entry, p)
		if place(again, r.prev, r.index, r.epoch); !bytes.Equal(again, b[:size]) {
			t.Errorf("%x comes back as %x", b[:size], again)
		}
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add([]byte(id{1, 2, 3}.identity()))
	f.Fuzz(func(t *testing.T, text []byte) {
		if j, err := parseIdentity(text); err == nil && j.identity() != string(text) {
			t.Errorf("%q comes back as %q", text, j.identity())
		}
	})
}

func FuzzTable(f *testing.F) {
	s := segment{number: 3, first: 7, count: 2, end: 4096, last: 9}
	f.Add(table{offsets: []uint32{512, 700}, refs: []keyPos{{1, 2}}}.encode(id{1}, s))
	f.Add(table{offsets: []uint32{512, 700}}.encode(id{1}, s))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		if body := len(b) - 4; body >= 0 {
			binary.LittleEndian.PutUint32(b[body:], crc32.Checksum(b[:body], castagnoli()))
		}
		if got, err := parseTable(b, id{1}, s); err == nil && !bytes.Equal(got.encode(id{1}, s), b) {
			t.Errorf("%x comes back as %x", b, got.encode(id{1}, s))
		}
	})
}
