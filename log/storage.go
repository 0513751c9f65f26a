package log

import "fmt"

// A Storage is the payload of log.storage: that the log refuses submitted events for want of room on its disk, or that it
// takes them again.
type Storage struct {
	Free   uint64  // bytes or inodes left when the entry was written
	Reason string  // StorageBytes or StorageInodes
	Since  uint64  // Unix milliseconds
	Until  *uint64 // the same; nil as long as they are refused
}

// What there is no room for.
const (
	StorageBytes  = "bytes"
	StorageInodes = "inodes"
)

// Marshal gives the canonical bytes (RFC 8785).
func (s Storage) Marshal() []byte {
	b := appendNum(nil, `{"free":`, s.Free)
	b = appendStr(b, `,"reason":`, s.Reason)
	b = appendNum(b, `,"since":`, s.Since)
	if s.Until != nil {
		b = appendNum(b, `,"until":`, *s.Until)
	}
	return append(b, `,"v":1}`...)
}

// ParseStorage parses what Marshal of a valid Storage returns.
func ParseStorage(text []byte) (Storage, error) {
	var p Storage
	s := newScanner("log.storage payload", text)
	s.lit(`{"free":`)
	p.Free = s.num()
	s.lit(`,"reason":`)
	p.Reason = s.str("a reason", func(t string) bool { return t == StorageBytes || t == StorageInodes })
	s.lit(`,"since":`)
	p.Since = s.num()
	if s.has(`,"until":`) {
		until := s.num()
		p.Until = &until
	}
	s.lit(`,"v":`)
	s.version()
	s.lit(`}`)
	if err := s.end(); err != nil {
		return Storage{}, err
	}
	if p.Until != nil && *p.Until < p.Since {
		return Storage{}, fmt.Errorf("%w log.storage payload: until %d is before since %d", ErrMalformed, *p.Until, p.Since)
	}
	return p, nil
}
