package index

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/pipe-roll/piperoll/log"
)

// Keys and values. A key begins with its class. Names hold no zero byte, so
// that a zero byte ends them and no key is the beginning of another.
//
//	v                            format version and origin
//	n                            cursor, 8 bytes; leaf hash of the last entry followed
//	h HASH                       index of the event, 8 bytes
//	t SECOND                     first index received in that second, 8 bytes
//	S STREAM                     log.Stream, as log.MarshalStream writes it
//	M MIGRATION                  log.Migration, as JSON
//	p STREAM 0 WINDOW            places: for each seq of the window its low byte and index, 8 bytes
//	c 0 WINDOW                   postings of control entries: the low bytes of their indexes
//	k KIND 0 WINDOW              postings of a kind, and of its first word with a dot: "access."
//	m MIGRATION 0 WINDOW         postings of a migration; and so on for
//	s STREAM, a ACTOR, b BY, o OBJECT
//
// Numbers are big endian. A window is 256 indexes (or seqs): its key holds the
// number without its low byte. Low bytes arrive through Pebble's merge, which
// appends: a window's value is the same however the entries were batched, and
// a dense posting costs a byte per entry.
const (
	classVersion   = 'v'
	classCursor    = 'n'
	classHash      = 'h'
	classSecond    = 't'
	classStream    = 'S'
	classMigration = 'M'
	classPlace     = 'p'
	classControl   = 'c'
	classKind      = 'k'
	classInMig     = 'm'
	classInStream  = 's'
	classActor     = 'a'
	classBy        = 'b'
	classObject    = 'o'
)

// formatVersion changes with the layout, and with the meaning of what is stored.
const formatVersion = "piperoll/index/v2\n"

const (
	windowBits  = 8
	windowWidth = 1 << windowBits
	placeBytes  = 1 + 8 // a place in the value of a window of places
)

// windowKey is the key of the window that n is in.
func windowKey(class byte, name string, n uint64) []byte {
	return binary.BigEndian.AppendUint64(windowPrefix(class, name), n>>windowBits)
}

// windowPrefix is what the keys of all windows of a name begin with.
func windowPrefix(class byte, name string) []byte {
	b := make([]byte, 0, 1+len(name)+1+8)
	b = append(b, class)
	b = append(b, name...)
	return append(b, 0)
}

// prefixEnd is the first key after all keys that begin with prefix. Its last
// byte is a class or a zero, never 0xff.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	end[len(end)-1]++
	return end
}

func hashKey(h log.Hash) []byte { return append([]byte{classHash}, h[:]...) }

func secondKey(second uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{classSecond}, second)
}

func nameKey(class byte, name string) []byte { return append([]byte{class}, name...) }

// parseNumber reads a value, or the end of a key, of 8 bytes.
func parseNumber(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: number of %d bytes", ErrBroken, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// A window is a set of 256 indexes.
type window [windowWidth / 64]uint64

func (w *window) set(low byte)      { w[low/64] |= 1 << (low % 64) }
func (w *window) has(low byte) bool { return w[low/64]&(1<<(low%64)) != 0 }

func (w *window) and(o *window) {
	for i := range w {
		w[i] &= o[i]
	}
}

// last is the largest member; the window is not empty.
func (w *window) last() byte {
	for i := len(w) - 1; i > 0; i-- {
		if w[i] != 0 {
			return byte(64*i + bits.Len64(w[i]) - 1)
		}
	}
	return byte(bits.Len64(w[0]) - 1)
}

// fullWindow has all members.
func fullWindow() window {
	return window{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
}

// parseWindow reads the value of a posting: low bytes that ascend, one or more.
func parseWindow(value []byte) (window, error) {
	var w window
	if len(value) == 0 {
		return w, fmt.Errorf("%w: empty posting", ErrBroken)
	}
	for i, low := range value {
		if i > 0 && low <= value[i-1] {
			return w, fmt.Errorf("%w: posting does not ascend", ErrBroken)
		}
		w.set(low)
	}
	return w, nil
}

// findPlace looks for a seq's low byte in a window of places.
func findPlace(value []byte, low byte) (uint64, bool, error) {
	if len(value) == 0 || len(value)%placeBytes != 0 {
		return 0, false, fmt.Errorf("%w: places of %d bytes", ErrBroken, len(value))
	}
	for ; len(value) > 0; value = value[placeBytes:] {
		if value[0] == low {
			return binary.BigEndian.Uint64(value[1:placeBytes]), true, nil
		}
	}
	return 0, false, nil
}
