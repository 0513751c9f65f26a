package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

type readyJSON struct {
	Origin string `json:"origin"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	// Warning is what will make it not ready, if nobody does anything.
	Warning string `json:"warning,omitempty"`
	Size    uint64 `json:"size"`
}

// ready says for each log whether it takes events and publishes them, and if not, why.
func (h *host) ready(w http.ResponseWriter, _ *http.Request) {
	code := http.StatusOK
	var logs []readyJSON
	for _, s := range h.sites {
		l := s.ledger
		reason := notReady(l.seq.ReadOnly(), l.behind(), l.c.Publish)
		state := readyJSON{Origin: l.c.Origin, Size: l.journal.Size()}
		switch level, words := l.storage.state(); {
		case reason == "" && level >= fillRefusing:
			reason = errStorage.Error() + ": " + words
		case level == fillWarned:
			state.Warning = "the log's disk fills up: " + words
		}
		state.Ready, state.Reason = reason == "", reason
		if !state.Ready {
			code = http.StatusServiceUnavailable
		}
		logs = append(logs, state)
	}
	if err := writeJSON(w, code, logs); err != nil {
		h.logger.Error("request failed", "route", "GET /readyz", "err", err)
	}
}

// Publication is behind when entries wait for more than some periods, and longer than a busy disk explains.
const (
	behindPeriods = 3
	behindAtLeast = 3 * time.Second
)

func isBehind(behind, publish time.Duration) bool {
	return behind > max(behindPeriods*publish, behindAtLeast)
}

// notReady gives a reason that anyone may read: causes have file names in them, and stay in our log.
func notReady(readOnly error, behind, publish time.Duration) string {
	cause := latchCause(readOnly)
	switch {
	case cause != "":
		return fmt.Sprintf("it takes no entries until it is restarted: %s (%s); the server's log says more", latchCauses[cause], cause)
	case readOnly != nil:
		return "it is stopping"
	case isBehind(behind, publish):
		return fmt.Sprintf("it has published no new checkpoint for %v, although there are new entries; the server's log says why", behind.Round(time.Second))
	}
	return ""
}

// A watchdog knows since when there are entries without a new published checkpoint, by the monotonic clock. What it
// looks at are the two ends, so that it bites whatever stands still between them: rounds, a disk, witnesses.
type watchdog struct {
	mu        sync.Mutex
	since     time.Time // guarded by mu, as all below; zero if all is published
	published uint64
}

// look tells for how long there has been no new checkpoint although there was something to publish.
func (w *watchdog) look(now time.Time, size, published uint64) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case size == published:
		w.since = time.Time{}
		return 0
	case w.since.IsZero(), published != w.published:
		w.since, w.published = now, published
	}
	return now.Sub(w.since)
}

// behind tells for how long the log has not published what it should have. watchPublication looks often enough for it to
// be known to a period.
func (l *ledger) behind() time.Duration {
	stats := l.tree.Stats() // before the size, which only grows
	return max(stats.Behind, l.watch.look(time.Now(), l.journal.Size(), stats.Published))
}

// watchPublication says in our log when publication falls behind, and when it is back.
func (s *site) watchPublication(ctx context.Context) error {
	tick := time.NewTicker(s.ledger.c.Publish)
	defer tick.Stop()
	late := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		behind := s.ledger.behind()
		if isBehind(behind, s.ledger.c.Publish) == late {
			continue
		}
		stats, size := s.ledger.tree.Stats(), s.ledger.journal.Size()
		if late = !late; late {
			s.logger.Error("publication fell behind", "size", size, "signed", stats.Signed, "published", stats.Published, "elapsed", behind, "err", s.ledger.tree.Err())
		} else {
			s.logger.Info("publication caught up", "size", size, "signed", stats.Signed, "published", stats.Published)
		}
	}
}
