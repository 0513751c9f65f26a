package journal

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// Errors that a caller branches on.
var (
	// ErrBusy: the queue is full, or the next segment is not ready, as on a full disk. Nothing was placed; try again a
	// little later.
	ErrBusy = errors.New("journal is busy")
	// ErrStopped: the journal was closed, or has failed (then Err tells why). Nothing more is accepted.
	ErrStopped = errors.New("journal has stopped")
	// ErrCorrupt: what is on disk is not what the journal wrote. The text names the place and what to do.
	ErrCorrupt = errors.New("journal is corrupt")
	// ErrTooLarge: an entry, a payload or a batch is over its limit.
	ErrTooLarge = errors.New("too large for the journal")
	// ErrStale: the payloads were prepared too many segments ago. Prepare them again.
	ErrStale = errors.New("prepared payloads are too old")
	// ErrNotExist: no durable record has this index.
	ErrNotExist = errors.New("no such record")
	// ErrNoPayload: the record was written without a payload.
	ErrNoPayload = errors.New("record has no payload")
	// ErrLasting: the payload was written as one that is never erased.
	ErrLasting = errors.New("payload is not erasable")
	// ErrErased: the payload was erased.
	ErrErased = errors.New("payload was erased")
	// ErrNoKey: the file with the payload's key is not there, as after a restore from a backup without the keys.
	ErrNoKey = errors.New("key of the payload is missing")
)

// Limits.
const (
	payloadMaxBytes = log.LineageMaxBytes
	segmentMinBytes = 4 << 10
	segmentMaxBytes = 1 << 30 // offsets within a segment fit 32 bits with room to spare
	slotsMax        = 1 << 20
	groupMaxBytes   = 4 << 20 // a group takes more only if a single batch does
)

// Config is what a journal needs. A zero number means its default.
type Config struct {
	// Dir is the journal's own folder. Required.
	Dir string
	// FS is where Dir is. Required.
	FS disk.FS
	// Logger takes what an operator should know. Required.
	Logger *slog.Logger
	// AtLeast is the number of records that something outside the journal (anchor, tiles, index) knows to have been
	// durable. Open refuses with ErrCorrupt to come up with fewer: a damaged last group looks like a torn one.
	AtLeast uint64
	// SegmentBytes is the size of a segment file. Default 64 MiB.
	SegmentBytes int64
	// SegmentSlots is the number of key slots per segment, 32 bytes each. Default 65,536: enough for records of 1 KiB
	// that all have a payload, so that a segment is full before its slots run out.
	SegmentSlots int
	// QueueBytes bounds the encoded bytes of records that wait for their sync. Default 32 MiB, at most half a
	// segment counts. A single batch is always let into an empty queue.
	QueueBytes int64
	// QueueRecords bounds the number of records that wait. Default 65,536.
	QueueRecords int
	// LargeBytes is the size of payload from which it gets a file of its own. Default 64 KiB.
	LargeBytes int
	// TailBytes is the memory for recent entries, which followers read without going to disk. Default 8 MiB.
	TailBytes int

	// inline runs all work in the caller's goroutine, for tests that replay a schedule exactly.
	inline bool
	// bugs plants faults that the crash tests must find.
	bugs bugs
}

// bugs are errors one could have made. Tests set them to show that the crash harness would have found them; nothing
// outside the tests of this package can.
type bugs struct {
	noCRC           bool // recovery takes records without looking at their CRCs
	noCopy          bool // recovery trusts the page cache for the last group
	noEvidence      bool // recovery does not look for groups behind a bad one
	sameEpoch       bool // recovery goes on with the epoch that it found
	eraseBytesFirst bool // erasure zeroes the bytes before the key
	cutFirst        bool // recovery cuts the old tail before it copies the doubtful records
}

func (c Config) withDefaults() Config {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	defInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.SegmentBytes, 64<<20)
	def(&c.QueueBytes, 32<<20)
	defInt(&c.SegmentSlots, 65536)
	defInt(&c.QueueRecords, 65536)
	defInt(&c.LargeBytes, 64<<10)
	defInt(&c.TailBytes, 8<<20)
	c.QueueBytes = min(c.QueueBytes, c.SegmentBytes/2)
	return c
}

// validate reports everything that is wrong with a configuration whose defaults are filled in.
func (c Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Dir != "", "Dir is empty")
	check(c.FS != nil, "FS is nil")
	check(c.Logger != nil, "Logger is nil")
	check(c.SegmentBytes >= segmentMinBytes && c.SegmentBytes <= segmentMaxBytes && c.SegmentBytes%sectorBytes == 0,
		"SegmentBytes is %d, want a multiple of %d from %d to %d", c.SegmentBytes, sectorBytes, segmentMinBytes, segmentMaxBytes)
	check(c.SegmentSlots >= 1 && c.SegmentSlots <= slotsMax, "SegmentSlots is %d, want 1 to %d", c.SegmentSlots, slotsMax)
	check(c.QueueBytes >= 1, "QueueBytes is %d, want at least 1", c.QueueBytes)
	check(c.QueueRecords >= 1, "QueueRecords is %d, want at least 1", c.QueueRecords)
	check(c.LargeBytes >= 1 && c.LargeBytes <= payloadMaxBytes, "LargeBytes is %d, want 1 to %d", c.LargeBytes, payloadMaxBytes)
	check(c.TailBytes >= log.EntryMaxBytes, "TailBytes is %d, want at least %d", c.TailBytes, log.EntryMaxBytes)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("journal configuration: %w", err)
	}
	return nil
}
