package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/log/disk"
)

// ScrubConfig says how a log is read again and again to find damage while there are good copies of what is damaged.
type ScrubConfig struct {
	// BytesPerSecond bounds how fast one log is read; a scrub also rests three times as long as it works. 0 scrubs only
	// when asked to. What was found damaged before a start is read again without a bound.
	BytesPerSecond int64 `yaml:"bytes_per_second"`
	// Every is the time from the beginning of a cycle to that of the next, if it has ended by then.
	Every time.Duration `yaml:"every"`
}

// A scrubber scrubs a log while it is served.
type scrubber struct {
	l      *ledger
	logger *slog.Logger
	now    chan struct{} // asks for a cycle

	mu    sync.Mutex
	state scrubState // guarded by mu, as all below
	stats scrubStats
}

// scrubState outlives a restart, in a file that can be deleted.
type scrubState struct {
	Began    int64  `json:"began"`    // the last cycle, or the one under way, Unix milliseconds
	Finished int64  `json:"finished"` // the last full one
	At       part   `json:"at"`       // what comes next; no name if no cycle is under way
	Damaged  []part `json:"damaged"`  // where truth was found damaged: a start looks there before it takes entries
}

// scrubStats are counts since the start.
type scrubStats struct{ bytes, truth, derived, healed uint64 }

const (
	scrubDelay    = time.Minute // after a start, which has enough to do
	scrubSave     = time.Minute // between savings of the position
	scrubRetry    = time.Minute // after a part that could not be read
	scrubStateMax = 64 << 10
	damagedMax    = 100
)

func (c Config) scrubFile() string { return filepath.Join(c.DataDir, "scrub.json") }

// newScrubber reads where the last process left off. A state that cannot be read is none: the cycle begins anew.
func newScrubber(l *ledger) *scrubber {
	s := &scrubber{l: l, logger: l.logger, now: make(chan struct{}, 1)}
	data, err := disk.ReadFile(l.c.fs, l.c.scrubFile(), scrubStateMax)
	if err == nil {
		err = json.Unmarshal(data, &s.state)
	}
	if err != nil {
		s.state = scrubState{}
		if !errors.Is(err, fs.ErrNotExist) {
			s.logger.Warn("scrub begins anew: its position cannot be read", "err", err)
		}
	}
	return s
}

// recheck looks again at what was found damaged, before the log takes entries and as fast as it goes: what is still
// damaged latches it again. What was found is forgotten only when all of it was looked at.
func (s *scrubber) recheck(ctx context.Context) error {
	damaged := s.state.Damaged
	if len(damaged) == 0 {
		return nil
	}
	var still []part
	c := s.scrub(func(int) error { return nil })
	c.found = func(f finding) {
		if f.truth && !slices.Contains(still, f.part) {
			still = append(still, f.part)
		}
		s.found(f)
	}
	for _, at := range damaged {
		if _, _, err := c.check(ctx, at); err != nil {
			return fmt.Errorf("look again at what a scrub found damaged: %w", err)
		}
	}
	s.state.Damaged = still
	s.save()
	return nil
}

// scrub makes a scrub whose findings are this scrubber's.
func (s *scrubber) scrub(pace func(int) error) *scrub {
	c := s.l.newScrub(s.found)
	c.pace = func(n int) error {
		s.mu.Lock()
		s.stats.bytes += uint64(n)
		s.mu.Unlock()
		return pace(n)
	}
	return c
}

// found takes what is found. Damage to truth makes the log read-only: nothing is to be built on it, and the operator
// has to look while there are good copies elsewhere.
func (s *scrubber) found(f finding) {
	s.logger.Error("scrub found damage", "part", f.part.String(), "truth", f.truth, "healed", f.healed, "err", f.err)
	s.mu.Lock()
	known := slices.Contains(s.state.Damaged, f.part)
	switch {
	case f.truth:
		s.stats.truth++
		if !known && len(s.state.Damaged) < damagedMax {
			s.state.Damaged = append(s.state.Damaged, f.part)
		}
	default:
		s.stats.derived++
		if f.healed {
			s.stats.healed++
		}
	}
	s.mu.Unlock()
	if f.truth && !known {
		s.save() // before anything else: a restart must know
	}
	if f.truth {
		s.l.latch(latchedScrub, f.err)
	}
}

// run scrubs until ctx is done.
func (s *scrubber) run(ctx context.Context) error {
	wait := max(scrubDelay, s.untilDue())
	for {
		due := time.After(wait)
		if s.l.c.Scrub.BytesPerSecond == 0 {
			due = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.now:
		case <-due:
		}
		err := s.cycle(ctx)
		s.save()
		wait = s.untilDue()
		if err != nil && ctx.Err() == nil {
			s.logger.Warn("scrub was held up", "err", err)
			wait = scrubRetry
		}
	}
}

// begin asks for a cycle now. One that is under way goes on first.
func (s *scrubber) begin() {
	select {
	case s.now <- struct{}{}:
	default:
	}
}

// untilDue is how long it is until the next cycle begins: none if one is under way.
func (s *scrubber) untilDue() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.At.Name != "" {
		return 0
	}
	return max(0, time.Until(time.UnixMilli(s.state.Began).Add(s.l.c.Scrub.Every)))
}

// cycle goes on where the last one was left, or begins, and ends with the log.
func (s *scrubber) cycle(ctx context.Context) error {
	s.mu.Lock()
	if s.state.At.Name == "" {
		s.state.At, s.state.Began = firstPart, time.Now().UnixMilli()
	}
	at := s.state.At
	s.mu.Unlock()
	pace := pacer{rate: s.l.c.Scrub.BytesPerSecond, since: time.Now()}
	c := s.scrub(func(n int) error { return pace.wait(ctx, n) })
	for saved := time.Now(); ; {
		next, done, err := c.check(ctx, at)
		if err != nil {
			return err
		}
		at = next
		s.mu.Lock()
		s.state.At = at
		if done {
			s.state.At, s.state.Finished = part{}, time.Now().UnixMilli()
		}
		s.mu.Unlock()
		if done {
			return nil
		}
		if time.Since(saved) > scrubSave {
			s.save()
			saved = time.Now()
		}
	}
}

// save writes the state. Where it cannot be written a cycle begins anew after a restart, and what was found damaged is
// found again.
func (s *scrubber) save() {
	s.mu.Lock()
	data, err := json.Marshal(s.state)
	s.mu.Unlock()
	if err != nil {
		panic("scrub state does not marshal: " + err.Error())
	}
	file := s.l.c.scrubFile()
	if err := disk.WriteFile(s.l.c.fs, file+".tmp", file, append(data, '\n')); err != nil {
		s.logger.Warn("position of the scrub was not saved", "err", err)
	}
}

// A pacer holds work to a rate, and to a part of a processor and of the disk.
type pacer struct {
	rate  int64 // bytes per second; 0 is no bound
	bytes int64
	since time.Time
}

const (
	paceStep  = 64 << 10    // bytes between two looks at the clock
	paceRests = 3           // for each time that it works
	paceMost  = time.Minute // whatever held the work up
)

// wait takes note of bytes, and waits when it is time to.
func (p *pacer) wait(ctx context.Context, bytes int) error {
	if p.bytes += int64(bytes); p.bytes < paceStep {
		return nil
	}
	worked := time.Since(p.since)
	rest := min(paceRests*worked, paceMost)
	if p.rate > 0 {
		due := time.Duration(float64(p.bytes) / float64(p.rate) * float64(time.Second))
		rest = max(rest, due-worked)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(rest):
	}
	p.bytes, p.since = 0, time.Now()
	return nil
}
