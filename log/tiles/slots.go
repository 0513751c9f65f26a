package tiles

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// An Anchor is the head that was signed last, and when.
type Anchor struct {
	log.Head
	Time time.Time // wall clock, in milliseconds; never goes back
}

// A pair of slots holds one small durable state. They lie in different pages and different physical sectors, so that
// a write torn by a crash damages only the slot that it writes. The file never grows, so a sync costs no commit of the
// file system's own journal.
type slots struct {
	file   disk.File
	label  string
	origin log.Hash
	seq    uint64
	last   Anchor
	twin   bool // both slots hold last
}

const (
	slotBytes     = 512
	slotStride    = 4096
	slotFileBytes = slotStride + slotBytes
	slotSumAt     = slotBytes - sha256.Size

	anchorLabel   = "piperoll/anchor/v1\n"
	recoveryLabel = "piperoll/recovery/v1\n"
)

var (
	errSlots = errors.New("neither slot is valid")
	errMoved = errors.New("the file is not what was written last: another hand changed it")
)

// createSlots writes a new file with the empty head in both slots, durably. Its directory exists.
func createSlots(fsys disk.FS, tmp, name, label, origin string, now time.Time) error {
	s := &slots{label: label, origin: sha256.Sum256([]byte(origin))}
	slot := s.marshal(1, Anchor{log.EmptyHead(), now})
	data := make([]byte, slotFileBytes)
	copy(data, slot)
	copy(data[slotStride:], slot)
	return disk.WriteFile(fsys, tmp, name, data)
}

// openSlots reads the state. It returns errSlots if there is none, fs.ErrNotExist if there is no file.
func openSlots(fsys disk.FS, name, label, origin string) (*slots, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	s := &slots{file: f, label: label, origin: sha256.Sum256([]byte(origin))}
	if s.seq, s.last, s.twin, err = s.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", name, err), f.Close())
	}
	return s, nil
}

func (s *slots) read() (seq uint64, last Anchor, twin bool, err error) {
	data := make([]byte, slotFileBytes)
	// A slot that is cut off is a damaged slot.
	if _, err := s.file.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, last, false, err
	}
	a, b := data[:slotBytes], data[slotStride:]
	for _, slot := range [][]byte{a, b} {
		if n, state, ok := s.parse(slot); ok && n > seq {
			seq, last = n, state
		}
	}
	if seq == 0 {
		return 0, last, false, errSlots
	}
	return seq, last, bytes.Equal(a, b), nil
}

func (s *slots) marshal(seq uint64, state Anchor) []byte {
	b := make([]byte, slotBytes)
	copy(b, s.label)
	binary.BigEndian.PutUint64(b[24:], seq)
	binary.BigEndian.PutUint64(b[32:], state.Size)
	copy(b[40:], state.Root[:])
	binary.BigEndian.PutUint64(b[72:], uint64(state.Time.UnixMilli()))
	copy(b[80:], s.origin[:])
	sum := sha256.Sum256(b[:slotSumAt])
	copy(b[slotSumAt:], sum[:])
	return b
}

func (s *slots) parse(b []byte) (seq uint64, state Anchor, ok bool) {
	seq = binary.BigEndian.Uint64(b[24:])
	state.Size = binary.BigEndian.Uint64(b[32:])
	state.Root = log.Hash(b[40:72])
	state.Time = time.UnixMilli(int64(binary.BigEndian.Uint64(b[72:])))
	return seq, state, bytes.Equal(b, s.marshal(seq, state))
}

// swap replaces old by next, durably: it fails if old is not what the file holds.
func (s *slots) swap(old, next Anchor) error {
	seq, found, _, err := s.read()
	if err != nil {
		return err
	}
	if seq != s.seq || found != s.last || found != old {
		return errMoved
	}
	s.twin = false
	if err := s.write(seq+1, next); err != nil {
		return err
	}
	s.seq, s.last = seq+1, next
	return nil
}

// settle writes the state into the other slot too, so that neither slot alone can lose it.
func (s *slots) settle() error {
	if s.twin {
		return nil
	}
	// The other slot is the one that the next number would go to.
	if err := s.writeAt(s.marshal(s.seq, s.last), s.seq+1); err != nil {
		return err
	}
	s.twin = true
	return nil
}

func (s *slots) write(seq uint64, state Anchor) error { return s.writeAt(s.marshal(seq, state), seq) }

func (s *slots) writeAt(slot []byte, seq uint64) error {
	if _, err := s.file.WriteAt(slot, int64(seq%2)*slotStride); err != nil {
		return err
	}
	return s.file.Sync()
}

func (s *slots) close() error { return s.file.Close() }
