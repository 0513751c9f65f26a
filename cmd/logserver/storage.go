package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// StorageConfig says how full the disks of a log may get. What counts is the
// fuller of DataDir's and AnchorDir's, in bytes or in inodes.
type StorageConfig struct {
	// WarnPercent used is logged, and told in /readyz.
	WarnPercent int `yaml:"warn_percent"`
	// RefusePercent used refuses submitted events; stream.close, control
	// entries, erasures and publishing go on.
	RefusePercent int `yaml:"refuse_percent"`
	// MinFreeBytes refuses them too, when less is free.
	MinFreeBytes int64 `yaml:"min_free_bytes"`
	// BallastBytes are taken up by files that are thrown off when not half as
	// much is left, so that what the log owes can be written. From then on it
	// takes nothing.
	BallastBytes int64 `yaml:"ballast_bytes"`
}

// errStorage refuses what there is no room for.
var errStorage = errors.New("the log's disk is full")

// A fill is how full the disks are.
type fill int

const (
	fillFine      fill = iota
	fillWarned         // above WarnPercent
	fillRefusing       // above RefusePercent: no submitted events
	fillExhausted      // the ballast is thrown off: nothing
)

func (f fill) String() string { return [...]string{"fine", "warned", "refusing", "exhausted"}[f] }

const (
	kindStorage       = "log.storage"
	storagePeriod     = time.Second
	storageWait       = 5 * time.Second // for an entry
	hysteresisPercent = 2
	exhaustedBytes    = 4 << 20 // that must be free at least where nothing was
)

// storage watches over the room on the disks of a log.
type storage struct {
	l       *ledger
	logger  *slog.Logger
	ballast *disk.Ballast
	full    chan struct{} // told when there was no room for a file

	mu    sync.Mutex
	level fill     // guarded by mu, as all below
	left  roomLeft // by the fuller disk
	blind bool     // the last look failed
	// serving: the ballast is taken on when there is room.
	serving bool

	// Owned by run: what the log says in its entries.
	since  uint64 // Unix milliseconds, from which on it refuses; 0 if it does not
	reason string
	told   bool   // there is an entry without an end
	failed string // why the last entry was not written
}

// roomLeft is what is left of a disk, of bytes or of inodes, whichever is less.
type roomLeft struct {
	percent int // used
	reason  string
	bytes   uint64 // free
	inodes  uint64 // free
	counted bool   // inodes are
}

func newStorage(l *ledger) *storage {
	dir := filepath.Join(l.c.DataDir, "ballast")
	s := &storage{l: l, logger: l.logger, ballast: disk.NewBallast(dir, l.c.Storage.BallastBytes), full: make(chan struct{}, 1)}
	if s.ballast.Dropped() {
		s.level = fillExhausted // until there is room for it again
	}
	return s
}

// noRoom hears that there was no room for a file of the log.
func (s *storage) noRoom() {
	select {
	case s.full <- struct{}{}:
	default:
	}
}

// look finds out how full the disks are and what follows from it. It throws off the ballast, also at a start: where
// nothing can be written not even a log that is whole could be opened. wasFull: something did not find room.
func (s *storage) look(wasFull bool) {
	left, err := s.measure()
	s.mu.Lock()
	defer s.mu.Unlock()
	if (err != nil) != s.blind {
		s.blind = err != nil
		s.logger.Warn("room on the disk was measured", "err", err)
	}
	if err != nil {
		return
	}
	before := s.level
	s.left, s.level = left, s.judge(left, wasFull)
	switch {
	case s.level == fillExhausted && before != fillExhausted:
		err = s.ballast.Drop()
	case s.level != fillExhausted && s.serving && !s.ballast.Held():
		err = s.ballast.Take()
	}
	if err != nil {
		s.logger.Error("ballast was not moved", "err", err)
	}
	if s.level != before {
		level := slog.LevelInfo
		if s.level > before {
			level = slog.LevelError
		}
		s.logger.Log(context.Background(), level, "room on the disk changed", "state", s.level.String(), "used_percent", left.percent,
			"of", left.reason, "free_bytes", left.bytes, "free_inodes", left.inodes)
	}
}

// measure looks at the disks, and gives what is left of the fuller one.
func (s *storage) measure() (worst roomLeft, err error) {
	for i, dir := range []string{s.l.c.DataDir, s.l.c.AnchorDir} {
		space, err := s.l.c.space(dir)
		if err != nil {
			return worst, err
		}
		if left := leftOf(space); i == 0 || left.percent > worst.percent {
			worst = left
		}
	}
	return worst, nil
}

func leftOf(s disk.Space) roomLeft {
	left := roomLeft{
		reason: log.StorageBytes, percent: percentUsed(s.UsedBytes, s.FreeBytes),
		bytes: s.FreeBytes, inodes: s.FreeInodes, counted: s.UsedInodes+s.FreeInodes > 0,
	}
	if p := percentUsed(s.UsedInodes, s.FreeInodes); left.counted && p > left.percent {
		left.reason, left.percent = log.StorageInodes, p
	}
	return left
}

func percentUsed(used, free uint64) int {
	if used+free == 0 {
		return 0
	}
	return int(float64(used) / float64(used+free) * 100)
}

// judge says what follows. A mark is left a little below where it was met, so that nothing flutters. The caller holds mu.
func (s *storage) judge(left roomLeft, wasFull bool) fill {
	c := s.l.c.Storage
	ballast := uint64(c.BallastBytes)
	exhausted := left.bytes < ballast/2 || left.counted && left.inodes < disk.BallastInodes/2
	if s.level == fillExhausted {
		exhausted = left.bytes < max(2*ballast, exhaustedBytes) || left.counted && left.inodes < 2*disk.BallastInodes
	}
	above := func(percent int, level fill) bool {
		if s.level >= level {
			percent -= hysteresisPercent
		}
		return left.percent >= percent
	}
	least := uint64(c.MinFreeBytes)
	if s.level >= fillRefusing {
		least += least / 10
	}
	switch {
	case exhausted || wasFull:
		return fillExhausted
	case above(c.RefusePercent, fillRefusing), left.bytes < least:
		return fillRefusing
	case above(c.WarnPercent, fillWarned):
		return fillWarned
	}
	return fillFine
}

// admit says why events are not taken now: there is no room for them. A stream may still be closed, so that what was
// moved before can be shown to be complete.
func (s *storage) admit(events []log.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	closes := !slices.ContainsFunc(events, func(e log.Event) bool { return e.Kind != "stream.close" })
	if s.level == fillExhausted || s.level == fillRefusing && !closes {
		return fmt.Errorf("%w: %s", errStorage, s.left)
	}
	return nil
}

// admitAsked says why the log makes no entries that somebody asks it for. Those that it makes by itself are few, and say
// what has happened.
func (s *storage) admitAsked() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.level == fillExhausted {
		return fmt.Errorf("%w: %s", errStorage, s.left)
	}
	return nil
}

func (r roomLeft) String() string {
	return fmt.Sprintf("%d %% of its %s are used, %d bytes and %d inodes are left", r.percent, r.reason, r.bytes, r.inodes)
}

// state says how full the disks are, in words.
func (s *storage) state() (level fill, words string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.level, s.left.String()
}

// resume learns from the log itself whether it refuses events: the process that said so may be gone.
func (s *storage) resume() error {
	err := s.l.index.Kinds(kindStorage, 0, func(i uint64) error {
		_, payload, err := s.l.structural(i)
		if err != nil {
			return err
		}
		p, err := log.ParseStorage(payload)
		if err != nil {
			s.l.ignore(i, fmt.Errorf("entry %d: %w", i, err))
			return nil
		}
		s.since, s.reason, s.told = p.Since, p.Reason, true
		if p.Until != nil {
			s.since, s.told = 0, false
		}
		return nil
	})
	if err == nil && s.told {
		s.mu.Lock()
		s.level = max(s.level, fillRefusing)
		s.mu.Unlock()
		s.look(false)
	}
	return err
}

// run keeps looking until ctx is done.
func (s *storage) run(ctx context.Context) error {
	s.mu.Lock()
	s.serving = true
	s.mu.Unlock()
	tick := time.NewTicker(storagePeriod)
	defer tick.Stop()
	for wasFull := false; ; {
		s.look(wasFull)
		s.declare(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-s.full:
			wasFull = true
		case <-tick.C:
			wasFull = false
		}
	}
}

// declare writes the entry that says that events are refused, or that they are taken again, if it is owed. Who was
// refused can prove by it that it was for want of room, and since when.
func (s *storage) declare(ctx context.Context) {
	s.mu.Lock()
	refusing, left := s.level >= fillRefusing, s.left
	s.mu.Unlock()
	now := uint64(time.Now().UnixMilli())
	p := log.Storage{Free: left.bytes}
	switch {
	case refusing && s.since == 0:
		if s.since, s.reason = now, left.reason; left.bytes < uint64(s.l.c.Storage.MinFreeBytes) {
			s.reason = log.StorageBytes
		}
	case refusing && s.told:
		return
	case !refusing && s.since == 0:
		return
	}
	if p.Since, p.Reason = s.since, s.reason; p.Reason == log.StorageInodes {
		p.Free = left.inodes
	}
	if !refusing {
		until := max(now, s.since)
		p.Until = &until
	}
	ctx, cancel := context.WithTimeout(ctx, storageWait)
	defer cancel()
	e := serverEvent{kind: kindStorage, stream: streamStorage, by: "log", auth: authLog, payload: p.Marshal()}
	if _, err := s.l.seq.Submit(ctx, e.request()); err != nil {
		s.undeclared(err)
		return
	}
	s.failed = ""
	if s.told = refusing; !refusing {
		s.since = 0
	}
}

// undeclared takes note of an entry that was not written, and makes room for it.
func (s *storage) undeclared(err error) {
	if errors.Is(err, errStorage) {
		s.noRoom()
	}
	if err.Error() != s.failed {
		s.failed = err.Error()
		s.logger.Warn("entry about the room on the disk was not written, and is tried again", "err", err)
	}
}
