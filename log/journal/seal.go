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
	"maps"
	"slices"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// Prepared are payloads sealed under keys of their own, ready to be placed. What is large is on disk already, and the
// queue has room for them.
type Prepared struct {
	seals   []*sealed // nil where there is no payload
	file    uint64    // key file of the keys; meaningless if there is none
	any     bool
	records int // room in the queue
	bytes   int64
}

// sealed is a payload as it will lie on disk.
type sealed struct {
	kind   uint32 // kindFile from the moment that something may be on disk
	key    keyPos
	secret [keyBytes]byte // of key
	length uint32
	crc    uint32
	inline []byte // kindInline and kindOpen
}

// Prepare seals payloads (nil where a record has none), and writes and syncs those that get files of their own. It is
// the slow part of Enqueue, for callers that must place records quickly, in an order of their own; entryBytes is what
// their entries will have together, about. Room in the queue comes first, so that a busy journal costs its callers
// nothing. What is prepared is either placed or discarded. Errors: ErrTooLarge, ErrBusy, ErrStopped.
func (j *Journal) Prepare(payloads []*log.Payload, entryBytes int) (*Prepared, error) {
	p := &Prepared{seals: make([]*sealed, len(payloads))}
	n, length := 0, int64(entryBytes)+int64(len(payloads))*recordHeaderBytes
	for _, payload := range payloads {
		if payload == nil {
			continue
		}
		if len(payload.Bytes) > payloadMaxBytes {
			return nil, fmt.Errorf("%w: payload of %d bytes, limit %d", ErrTooLarge, len(payload.Bytes), payloadMaxBytes)
		}
		length += sealHeaderBytes
		if payload.Lasting {
			length += int64(saltBytes + len(payload.Bytes))
			continue
		}
		n++
		if len(payload.Bytes) < j.c.LargeBytes {
			length += int64(sealedOverBytes + len(payload.Bytes))
		}
	}
	if err := j.refuseTooLarge(len(payloads), length); err != nil {
		return nil, err
	}
	if n > j.c.SegmentSlots {
		return nil, fmt.Errorf("%w: %d payloads in a batch, limit %d", ErrTooLarge, n, j.c.SegmentSlots)
	}
	if err := j.reserve(p, len(payloads), length); err != nil {
		return nil, err
	}
	if err := j.drawFor(p, payloads, n); err != nil {
		j.Discard(p)
		return nil, err
	}
	for i, payload := range payloads {
		if payload == nil || payload.Lasting {
			continue
		}
		if err := j.seal(p.seals[i], payload); err != nil {
			j.Discard(p)
			return nil, err
		}
	}
	return p, nil
}

// drawFor gives each of the n payloads that are sealed a key, and makes the lasting ones ready.
func (j *Journal) drawFor(p *Prepared, payloads []*log.Payload, n int) error {
	var drawn []*sealed
	var err error
	if n > 0 {
		if drawn, err = j.draw(n); err != nil {
			return err
		}
		p.any, p.file = true, uint64(drawn[0].key.file)
	}
	for i, payload := range payloads {
		switch {
		case payload == nil:
		case payload.Lasting:
			p.seals[i] = lasting(payload)
		default:
			p.seals[i], drawn = drawn[0], drawn[1:]
		}
	}
	return nil
}

// lasting makes a payload ready that is not sealed: the folds need it, and a backup that leaves out the keys has it.
func lasting(p *log.Payload) *sealed {
	b := append(append(make([]byte, 0, saltBytes+len(p.Bytes)), p.Salt[:]...), p.Bytes...)
	return &sealed{kind: kindOpen, length: uint32(len(b)), crc: crc32.Checksum(b, castagnoli()), inline: b}
}

// lastOf returns the last n payloads. Those before them must need no key: nobody would give it back.
func (p *Prepared) lastOf(n int) ([]*sealed, error) {
	front := len(p.seals) - n
	if n == 0 || front < 0 || slices.ContainsFunc(p.seals[:front], func(s *sealed) bool { return s != nil && s.kind != kindOpen }) {
		return nil, fmt.Errorf("place records: %d entries with %d prepared payloads", n, len(p.seals))
	}
	return p.seals[front:], nil
}

// Discard gives up prepared payloads that will not be placed, and gives back their room and their keys.
func (j *Journal) Discard(p *Prepared) {
	var back []*sealed
	for _, s := range p.seals {
		if s != nil && s.kind != kindOpen && (s.kind != kindFile || j.rekey(s)) {
			back = append(back, s)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range back {
		if k := j.keys[uint64(s.key.file)]; k != nil {
			k.giveBack(s.key.slot, s.secret)
		}
		clear(s.secret[:])
	}
	j.queuedRecords -= p.records
	j.queuedBytes -= p.bytes
	*p = Prepared{}
}

// rekey gives the slot of a large payload that is discarded another key, so that its file, of which nobody knows how
// much is on disk, and which a crash may bring back, never opens again. A slot that it cannot give another key, or
// whose file it cannot remove, stays drawn, until settle destroys it.
func (j *Journal) rekey(s *sealed) bool {
	rand.Read(s.secret[:])
	j.eraseMu.Lock()
	defer j.eraseMu.Unlock()
	err := j.writeKey(s.key, s.secret)
	if errors.Is(err, errSync) {
		j.fail(fmt.Errorf("discard key: %w", err))
	}
	// If it stays, the settling of its key file removes it; until then nobody can make a file of that name.
	stays := j.removeIfThere(j.names.payload(s.key))
	return err == nil && stays == nil
}

// writeKey writes a key and syncs it. The caller holds eraseMu.
func (j *Journal) writeKey(pos keyPos, key [keyBytes]byte) error {
	f, err := j.c.FS.Open(j.names.key(uint64(pos.file)))
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(key[:], int64(pos.slot)*keyBytes); err == nil {
		err = synced(f)
	}
	return errors.Join(err, f.Close())
}

// errSync: a sync failed. What it was to make durable may or may not be on the medium, and must not be asked for again.
var errSync = errors.New("sync failed")

// synced syncs a file. Its error is an errSync.
func synced(f disk.File) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%w: %w", errSync, err)
	}
	return nil
}

// keyFile are the keys of one segment, for payloads to take.
type keyFile struct {
	keys  []byte   // those that were taken are zero
	drawn int      // slots from the front that were ever taken
	free  []uint32 // of these, the ones given back
}

// left is how many keys can be taken.
func (k *keyFile) left() int { return len(k.keys)/keyBytes - k.drawn + len(k.free) }

// take takes a key that nobody else has. There must be one left.
func (k *keyFile) take() (slot uint32, secret [keyBytes]byte) {
	if last := len(k.free) - 1; last >= 0 {
		slot, k.free = k.free[last], k.free[:last]
	} else {
		slot = uint32(k.drawn)
		k.drawn++
	}
	key := k.keys[slot*keyBytes:][:keyBytes]
	secret = [keyBytes]byte(key)
	clear(key)
	return slot, secret
}

// giveBack takes back a key that sealed nothing that is, or may come back, on disk.
func (k *keyFile) giveBack(slot uint32, secret [keyBytes]byte) {
	copy(k.keys[slot*keyBytes:], secret[:])
	k.free = append(k.free, slot)
}

// draw takes n keys that nobody else gets, all of one file: that of the segment that is being filled or, when its slots
// are used up, that of the next one. Keys two segments ahead would outlive the window in which settle looks for their
// records.
func (j *Journal) draw(n int) ([]*sealed, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for file := j.placeSegment; file <= j.placeSegment+1; {
		k := j.keys[file]
		switch {
		case k == nil:
			if err := j.awaitPreparation(); err != nil {
				return nil, err
			}
			file = j.placeSegment // it may have moved
			continue
		case k.left() < n:
			file++
			continue
		}
		drawn := make([]*sealed, n)
		for i := range drawn {
			slot, secret := k.take()
			drawn[i] = &sealed{kind: kindInline, key: keyPos{uint32(file), slot}, secret: secret}
		}
		return drawn, nil
	}
	return nil, fmt.Errorf("%w: key slots are used up", ErrBusy)
}

// seal encrypts one payload under the key that was drawn for it, and writes it if it is large.
func (j *Journal) seal(s *sealed, p *log.Payload) error {
	gcm, err := newGCM(s.secret[:])
	if err != nil {
		return fmt.Errorf("seal payload: %w", err)
	}
	plain := make([]byte, 0, saltBytes+len(p.Bytes))
	plain = append(append(plain, p.Salt[:]...), p.Bytes...)
	box := gcm.Seal(make([]byte, 0, sealedOverBytes+len(p.Bytes)), nil, plain, j.id.additional(s.key))
	clear(plain)
	s.length, s.crc = uint32(len(box)), crc32.Checksum(box, castagnoli())
	if len(p.Bytes) < j.c.LargeBytes {
		s.inline = box
		return nil
	}
	if err := j.writeLarge(s, box); err != nil {
		return fmt.Errorf("store large payload: %w", err)
	}
	return nil
}

// newGCM returns the sealing of one key, with a random nonce in front. A key seals once, unless the first payload was
// given up before it reached the disk; the nonce is the second line of defence.
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
func (j *Journal) writeLarge(s *sealed, box []byte) error {
	pos := s.key
	if err := j.makeLargeDir(uint64(pos.file)); err != nil {
		return err
	}
	name := j.names.payload(pos)
	f, err := j.c.FS.Create(name)
	if err != nil {
		return err
	}
	s.kind = kindFile
	if _, err = f.WriteAt(box, 0); err != nil {
		return errors.Join(err, f.Close())
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
	// draw goes back by no more than one.
	maps.DeleteFunc(j.dirs, func(old uint64, _ bool) bool { return old+1 < file })
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
	if err := j.syncDir(j.names.keys()); err != nil {
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
