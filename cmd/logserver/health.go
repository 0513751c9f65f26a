package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

type readyJSON struct {
	Origin string `json:"origin"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	Size   uint64 `json:"size"`
}

// ready says for each log whether it takes events and publishes them, and if not, why.
func (h *host) ready(w http.ResponseWriter, _ *http.Request) {
	code := http.StatusOK
	var logs []readyJSON
	for _, s := range h.sites {
		l := s.ledger
		reason := notReady(l.seq.ReadOnly(), l.tree.Stats().Behind, l.c.Publish)
		state := readyJSON{Origin: l.c.Origin, Ready: reason == "", Reason: reason, Size: l.journal.Size()}
		if !state.Ready {
			code = http.StatusServiceUnavailable
		}
		logs = append(logs, state)
	}
	if err := writeJSON(w, code, logs); err != nil {
		h.logger.Error("request failed", "route", "GET /readyz", "err", err)
	}
}

// Publication is behind when a signed head waits for more than some periods, and longer than a busy disk explains.
const (
	behindPeriods = 3
	behindAtLeast = 3 * time.Second
)

func isBehind(behind, publish time.Duration) bool {
	return behind > max(behindPeriods*publish, behindAtLeast)
}

// notReady gives a reason that anyone may read: causes have file names in them, and stay in our log.
func notReady(readOnly error, behind, publish time.Duration) string {
	switch {
	case readOnly != nil:
		return "it takes no entries; the server's log says why"
	case isBehind(behind, publish):
		return fmt.Sprintf("it has not published what it signed for %v; the server's log says why", behind.Round(time.Second))
	}
	return ""
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
		stats := s.ledger.tree.Stats()
		if isBehind(stats.Behind, s.ledger.c.Publish) == late {
			continue
		}
		if late = !late; late {
			s.logger.Error("publication fell behind", "signed", stats.Signed, "published", stats.Published, "elapsed", stats.Behind, "err", s.ledger.tree.Err())
		} else {
			s.logger.Info("publication caught up", "signed", stats.Signed, "published", stats.Published)
		}
	}
}
