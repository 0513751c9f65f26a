package journal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// Prepared are payloads sealed under keys of their own, ready to be placed. What is large is on disk already.
type Prepared struct {
	seals []*sealed // nil where there is no payload
	file  uint64    // key file of the keys; meaningless if there is none
	any   bool
}

// sealed is a payload as it will lie on disk.
type sealed struct {
	kind   uint32
	key    keyPos
	length uint32
	crc    uint32
	inline []byte // kindInline
}

// Prepare seals payloads (nil where a record has none), and writes and syncs those that get files of their own. It is
// the slow part of Enqueue, for callers that must place records quickly, in an order of their own. What is prepared
// is either placed or discarded. Errors: ErrTooLarge, ErrBusy, ErrStopped.
func (j *Journal) Prepare(payloads []*log.Payload) (*Prepared, error) {
	p := &Prepared{seals: make([]*sealed, len(payloads))}
	n := 0
	for _, payload := range payloads {
		if payload == nil {
			continue
		}
		if len(payload.Bytes) > payloadMaxBytes {
			return nil, fmt.Errorf("%w: payload of %d bytes, limit %d", ErrTooLarge, len(payload.Bytes), payloadMaxBytes)
		}
		n++
	}
	if n == 0 {
		return p, nil
	}
	p.any = true
	file, slot, keys, err := j.draw(n)
	if err != nil {
		return nil, err
	}
	defer clear(keys)
	p.file = file
	for i, payload := range payloads {
		if payload == nil {
			continue
		}
		pos := keyPos{uint32(file), uint32(slot)}
		if p.seals[i], err = j.seal(pos, keys[:keyBytes], payload); err != nil {
			j.Discard(p)
			return nil, err
		}
		slot, keys = slot+1, keys[keyBytes:]
	}
	return p, nil
}

// Discard gives up prepared payloads that will not be placed.
func (j *Journal) Discard(p *Prepared) {
	for i, s := range p.seals {
		if s != nil && s.kind == kindFile {
			// If it stays, the settling of its key file removes it.
			_ = j.c.FS.Remove(j.names.payload(s.key))
		}
		p.seals[i] = nil
	}
	p.seals = nil
}

// draw takes n keys that nobody else gets. They come from the key file of the segment that is being filled or, when
// its slots are used up, of the next one.
func (j *Journal) draw(n int) (file uint64, slot int, keys []byte, err error) {
	if n > j.c.SegmentSlots {
		return 0, 0, nil, fmt.Errorf("%w: %d payloads in a batch, limit %d", ErrTooLarge, n, j.c.SegmentSlots)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		if file, slot, err = j.nextSlots(n); err != nil {
			return 0, 0, nil, err
		}
		if j.keys[file] != nil {
			break
		}
		if err := j.awaitPreparation(); err != nil {
			return 0, 0, nil, err
		}
	}
	j.drawFile, j.drawSlot = file, slot
	j.drawSlot += n
	keys = make([]byte, n*keyBytes)
	drawn := j.keys[file][slot*keyBytes:][:len(keys)]
	copy(keys, drawn)
	clear(drawn)
	return file, slot, keys, nil
}

// nextSlots tells where the next n keys come from. The caller holds mu.
func (j *Journal) nextSlots(n int) (file uint64, slot int, err error) {
	switch {
	case j.drawFile < j.placeSegment:
		return j.placeSegment, 0, nil
	case j.drawSlot+n <= j.c.SegmentSlots:
		return j.drawFile, j.drawSlot, nil
	case j.drawFile == j.placeSegment:
		return j.drawFile + 1, 0, nil
	}
	// Keys two segments ahead would outlive the window in which settle looks for their records.
	return 0, 0, fmt.Errorf("%w: key slots are used up", ErrBusy)
}

// seal encrypts one payload and writes it if it is large.
func (j *Journal) seal(pos keyPos, key []byte, p *log.Payload) (*sealed, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return nil, fmt.Errorf("seal payload: %w", err)
	}
	plain := make([]byte, 0, saltBytes+len(p.Bytes))
	plain = append(append(plain, p.Salt[:]...), p.Bytes...)
	box := gcm.Seal(make([]byte, 0, sealedOverBytes+len(p.Bytes)), nil, plain, j.id.additional(pos))
	clear(plain)
	s := &sealed{kind: kindInline, key: pos, length: uint32(len(box)), crc: crc32.Checksum(box, castagnoli()), inline: box}
	if len(p.Bytes) < j.c.LargeBytes {
		return s, nil
	}
	s.kind, s.inline = kindFile, nil
	if err := j.writeLarge(pos, box); err != nil {
		return nil, fmt.Errorf("store large payload: %w", err)
	}
	return s, nil
}

// newGCM returns the sealing of one key, with a random nonce in front. A key seals once, so the nonce is only a
// second line of defence, should a key ever be drawn twice.
func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// additional is what a seal is bound to: journal and slot. Sealed bytes moved to another record do not open.
func (j id) additional(pos keyPos) []byte {
	b := append([]byte("piperoll/sealed/v1\n"), j[:]...)
	b = binary.BigEndian.AppendUint32(b, pos.file)
	return binary.BigEndian.AppendUint32(b, pos.slot)
}

// unseal opens sealed bytes. Its error is errBad.
func (j id) unseal(pos keyPos, key, box []byte) (log.Payload, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return log.Payload{}, err
	}
	plain, err := gcm.Open(nil, nil, box, j.additional(pos))
	if err != nil || len(plain) < saltBytes {
		return log.Payload{}, errBad
	}
	var p log.Payload
	copy(p.Salt[:], plain)
	p.Bytes = plain[saltBytes:]
	return p, nil
}

// writeLarge writes sealed bytes to a file of their own. It returns before any record refers to them, with file and
// names durable. A write that fails is the caller's trouble alone; a sync that fails stops the journal.
//
// The order of durable steps: folder made, its parent synced, file written, file synced, folder synced.
func (j *Journal) writeLarge(pos keyPos, box []byte) error {
	if err := j.makeLargeDir(uint64(pos.file)); err != nil {
		return err
	}
	name := j.names.payload(pos)
	f, err := j.c.FS.Create(name)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(box, 0); err != nil {
		return errors.Join(err, f.Close(), j.c.FS.Remove(name))
	}
	if err = f.Sync(); err == nil {
		err = j.c.FS.SyncDir(j.names.largeDir(uint64(pos.file)))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		err = fmt.Errorf("sync %s: %w", name, err)
		j.fail(err)
	}
	return err
}

func (j *Journal) makeLargeDir(file uint64) error {
	j.dirMu.Lock()
	defer j.dirMu.Unlock()
	if j.dirs[file] {
		return nil
	}
	if err := j.c.FS.MkdirAll(j.names.largeDir(file)); err != nil {
		return err
	}
	if err := j.c.FS.SyncDir(j.names.large()); err != nil {
		j.fail(err)
		return err
	}
	// Later files cannot be far: draw never goes back.
	clear(j.dirs)
	j.dirs[file] = true
	return nil
}

// makeKeys writes a fresh key file for a segment that has no records yet. Keys that an earlier, crashed opening drew
// from the same file were never acknowledged; they are overwritten, which makes what they sealed unreadable.
func (j *Journal) makeKeys(number uint64) ([]byte, error) {
	keys := make([]byte, j.c.SegmentSlots*keyBytes)
	if _, err := rand.Read(keys); err != nil {
		return nil, err
	}
	name := j.names.key(number)
	f, err := j.c.FS.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = j.c.FS.Create(name)
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(writeKeys(f, keys), f.Close()); err != nil {
		return nil, fmt.Errorf("write keys: %w", err)
	}
	if err := j.c.FS.SyncDir(j.names.keys()); err != nil {
		return nil, fmt.Errorf("sync key folder: %w", err)
	}
	return keys, nil
}

func writeKeys(f disk.File, keys []byte) error {
	if _, err := f.WriteAt(keys, 0); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(keys))); err != nil {
		return err
	}
	return f.Sync()
}
