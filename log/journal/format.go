package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/pipe-roll/piperoll/log"
)

// Sizes in the segment format, in bytes.
const (
	sectorBytes       = 512
	groupHeaderBytes  = 64
	recordHeaderBytes = 32
	sealHeaderBytes   = 16
	// A sealed payload is nonce || ciphertext of (salt || bytes) || tag.
	saltBytes       = 32
	sealedOverBytes = 12 + saltBytes + 16
	keyBytes        = 32
)

const (
	segmentMagic = "prjseg/1"
	groupMagic   = uint32('P') | uint32('R')<<8 | uint32('G')<<16 | uint32('1')<<24
)

// Kinds of record.
const (
	kindPlain  = 0 // no payload
	kindInline = 1 // sealed payload behind the entry
	kindFile   = 2 // sealed payload in a file of its own
	kindOpen   = 3 // lasting payload behind the entry, not sealed
)

// errBad: these bytes are not what they should be. The caller decides whether that means torn or corrupt.
var errBad = errors.New("bad bytes")

// castagnoli is what the processor computes in hardware; MakeTable returns the one shared table for it.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// id is drawn once per journal. It is mixed into every header and every seal.
type id [16]byte

// keyPos is the place of a payload's key: its key file, numbered as the segment it was drawn for, and the slot in it.
type keyPos struct{ file, slot uint32 }

func roundUp(n int64) int64 { return (n + sectorBytes - 1) &^ (sectorBytes - 1) }

// segmentHeader is the first sector of a segment. It is what ends the segment before it.
type segmentHeader struct {
	journal   id
	number    uint64
	epoch     uint64
	first     uint64 // index of the first record
	sizeBytes uint64 // of the file as prepared
	prevEnd   uint64 // bytes used of the segment before; 0 in segment 0
	synced    uint64 // offset up to which this segment was synced when the header was written
	prev      uint64 // number of the segment before; those between, begun and never confirmed, are void
	seed      uint32 // CRC of the last record of the segments before
}

func (h segmentHeader) encode() []byte {
	b := make([]byte, sectorBytes)
	copy(b, segmentMagic)
	copy(b[16:32], h.journal[:])
	for i, v := range []uint64{h.number, h.epoch, h.first, h.sizeBytes, h.prevEnd, h.synced, h.prev} {
		binary.LittleEndian.PutUint64(b[32+8*i:], v)
	}
	binary.LittleEndian.PutUint32(b[88:], h.seed)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[16:], castagnoli()))
	return b
}

// parseSegmentHeader accepts only what encode writes; anything else is errBad.
func parseSegmentHeader(b []byte) (segmentHeader, error) {
	if len(b) < sectorBytes {
		return segmentHeader{}, errBad
	}
	b = b[:sectorBytes]
	u64 := func(off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
	h := segmentHeader{
		number: u64(32), epoch: u64(40), first: u64(48), sizeBytes: u64(56), prevEnd: u64(64), synced: u64(72),
		prev: u64(80), seed: binary.LittleEndian.Uint32(b[88:]),
	}
	copy(h.journal[:], b[16:32])
	if !bytes.Equal(h.encode(), b) {
		return segmentHeader{}, errBad
	}
	return h, nil
}

// groupHeader begins a group: the records of one write, which are all there or not at all.
type groupHeader struct {
	epoch  uint64
	first  uint64 // index of the first record
	synced uint32 // offset in the segment up to which was synced when this group was written; 0: not even the header
	length uint32 // bytes of records
	count  uint32 // records; 0 in a mark
	seed   uint32 // CRC of the record before
	last   uint32 // CRC of the last record; seed in a mark
}

// selfCRC ties a group header to its journal, segment and offset, so that it is known for valid on its own, without
// what comes before it, and cannot be made by someone who does not know the journal's id.
func selfCRC(journal id, number uint64, off int64, header []byte) uint32 {
	var place [32]byte
	copy(place[:], journal[:])
	binary.LittleEndian.PutUint64(place[16:], number)
	binary.LittleEndian.PutUint64(place[24:], uint64(off))
	return crc32.Update(crc32.Checksum(place[:], castagnoli()), castagnoli(), header[8:groupHeaderBytes])
}

func (h groupHeader) put(b []byte, journal id, number uint64, off int64) {
	clear(b[:groupHeaderBytes])
	binary.LittleEndian.PutUint32(b, groupMagic)
	binary.LittleEndian.PutUint64(b[8:], h.epoch)
	binary.LittleEndian.PutUint64(b[16:], h.first)
	for i, v := range [...]uint32{h.synced, h.length, h.count, h.seed, h.last} {
		binary.LittleEndian.PutUint32(b[24+4*i:], v)
	}
	binary.LittleEndian.PutUint32(b[4:], selfCRC(journal, number, off, b))
}

// parseGroupHeader accepts a header that was written at this place of this journal; anything else is errBad.
func parseGroupHeader(b []byte, journal id, number uint64, off int64) (groupHeader, error) {
	if len(b) < groupHeaderBytes || binary.LittleEndian.Uint32(b) != groupMagic ||
		binary.LittleEndian.Uint32(b[4:]) != selfCRC(journal, number, off, b) {
		return groupHeader{}, errBad
	}
	u32 := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	h := groupHeader{
		epoch: binary.LittleEndian.Uint64(b[8:]), first: binary.LittleEndian.Uint64(b[16:]),
		synced: u32(24), length: u32(28), count: u32(32), seed: u32(36), last: u32(40),
	}
	if !bytes.Equal(b[44:groupHeaderBytes], make([]byte, groupHeaderBytes-44)) {
		return groupHeader{}, errBad
	}
	return h, nil
}

// record is one record as it lies in a segment. Its slices point into the bytes it was parsed from.
type record struct {
	prev      uint32 // CRC of the record before
	crc       uint32
	index     uint64
	epoch     uint64
	kind      uint32
	key       keyPos
	sealedLen uint32
	sealedCRC uint32
	entry     []byte
	sealed    []byte // kindInline and kindOpen
}

// keyed tells whether a record has a key slot.
func (r record) keyed() bool { return r.kind == kindInline || r.kind == kindFile }

func (r record) headerBytes() int {
	if r.kind == kindPlain {
		return recordHeaderBytes
	}
	return recordHeaderBytes + sealHeaderBytes
}

// recordBytes is the space that a record takes in a segment.
func recordBytes(entry int, p *sealed) int64 {
	n := int64(recordHeaderBytes) + int64(entry)
	if p != nil {
		n += int64(sealHeaderBytes + len(p.inline))
	}
	return n
}

// appendRecord appends what is known of a record before its place is: all but prev, crc, index and epoch.
func appendRecord(b []byte, entry []byte, p *sealed) []byte {
	var h [recordHeaderBytes + sealHeaderBytes]byte
	binary.LittleEndian.PutUint32(h[24:], uint32(len(entry)))
	if p == nil {
		return append(append(b, h[:recordHeaderBytes]...), entry...)
	}
	binary.LittleEndian.PutUint32(h[28:], p.kind)
	for i, v := range [...]uint32{p.key.file, p.key.slot, p.length, p.crc} {
		binary.LittleEndian.PutUint32(h[32+4*i:], v)
	}
	return append(append(append(b, h[:]...), entry...), p.inline...)
}

// place completes the record at the start of b and returns its CRC and size. b is of our own making.
func place(b []byte, prev uint32, index, epoch uint64) (crc uint32, size int) {
	entry, kind := int(binary.LittleEndian.Uint32(b[24:])), binary.LittleEndian.Uint32(b[28:])
	checked := recordHeaderBytes + entry
	size = checked
	if kind != kindPlain {
		checked += sealHeaderBytes
		size = checked
	}
	if kind == kindInline || kind == kindOpen {
		size += int(binary.LittleEndian.Uint32(b[40:]))
	}
	binary.LittleEndian.PutUint32(b, prev)
	binary.LittleEndian.PutUint64(b[8:], index)
	binary.LittleEndian.PutUint64(b[16:], epoch)
	crc = crc32.Update(prev, castagnoli(), b[8:checked])
	binary.LittleEndian.PutUint32(b[4:], crc)
	return crc, size
}

// parseRecord parses the record at the start of b and returns its size. The CRC covers header and entry, not the
// sealed bytes, so that it survives their erasure. Anything that the journal would not have written is errBad.
func parseRecord(b []byte) (record, int, error) {
	r, size, err := decodeRecord(b)
	if err != nil {
		return record{}, 0, err
	}
	if crc32.Update(r.prev, castagnoli(), b[8:r.headerBytes()+len(r.entry)]) != r.crc {
		return record{}, 0, errBad
	}
	return r, size, nil
}

// decodeRecord takes a record apart without looking at its CRC.
func decodeRecord(b []byte) (record, int, error) {
	if len(b) < recordHeaderBytes {
		return record{}, 0, errBad
	}
	u32 := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	r := record{prev: u32(0), crc: u32(4), index: binary.LittleEndian.Uint64(b[8:]), epoch: binary.LittleEndian.Uint64(b[16:]), kind: u32(28)}
	entry, head := u32(24), r.headerBytes()
	if r.kind > kindOpen || entry == 0 || entry > log.EntryMaxBytes || len(b) < head+int(entry) {
		return record{}, 0, errBad
	}
	size := head + int(entry)
	r.entry = b[head:size:size]
	if r.kind == kindPlain {
		return r, size, nil
	}
	r.key, r.sealedLen, r.sealedCRC = keyPos{u32(32), u32(36)}, u32(40), u32(44)
	over := uint32(sealedOverBytes)
	if r.kind == kindOpen {
		over = saltBytes
	}
	if r.sealedLen < over || r.sealedLen > payloadMaxBytes+over || r.kind == kindOpen && r.key != (keyPos{}) {
		return record{}, 0, errBad
	}
	if r.kind != kindFile {
		if uint64(len(b)-size) < uint64(r.sealedLen) {
			return record{}, 0, errBad
		}
		r.sealed = b[size : size+int(r.sealedLen)]
		size += int(r.sealedLen)
	}
	return r, size, nil
}

// keyOf returns the key of the record at the start of b, which is of our own making.
func keyOf(b []byte) (keyPos, bool) {
	if kind := binary.LittleEndian.Uint32(b[28:]); kind == kindPlain || kind == kindOpen {
		return keyPos{}, false
	}
	return keyPos{binary.LittleEndian.Uint32(b[32:]), binary.LittleEndian.Uint32(b[36:])}, true
}

// identity is the text of the file that makes a folder a journal.
func (j id) identity() string {
	return fmt.Sprintf("piperoll journal 1\n%x\n%08x\n", j[:], crc32.Checksum(j[:], castagnoli()))
}

func parseIdentity(text []byte) (id, error) {
	var j id
	var crc uint32
	var raw []byte
	if _, err := fmt.Sscanf(string(text), "piperoll journal 1\n%32x\n%08x\n", &raw, &crc); err != nil || len(raw) != len(j) {
		return id{}, errBad
	}
	copy(j[:], raw)
	if j.identity() != string(text) {
		return id{}, errBad
	}
	return j, nil
}
