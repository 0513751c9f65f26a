package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The alarm is for entries that get under no checkpoint: neither an idle log nor one that publishes all the time is late.
func TestTheWatchdogBitesWhenNothingIsPublishedWhileTheLogGrows(t *testing.T) {
	var w watchdog
	now := time.Now()
	for _, c := range []struct {
		after           time.Duration
		size, published uint64
		behind          time.Duration
	}{
		{0, 5, 5, 0},
		{time.Hour, 5, 5, 0},
		{time.Second, 6, 5, 0}, // since now
		{2 * time.Second, 7, 5, 2 * time.Second},
		{time.Second, 9, 7, 0}, // there was a new one
		{3 * time.Second, 9, 7, 3 * time.Second},
		{time.Second, 9, 9, 0},
		{time.Second, 10, 9, 0},
	} {
		now = now.Add(c.after)
		if got := w.look(now, c.size, c.published); got != c.behind {
			t.Errorf("size %d, published %d: behind %v, want %v", c.size, c.published, got, c.behind)
		}
	}
}

// A flood of connections gets no descriptor that the log needs.
func TestConnectionsStayBelowTheLimitOfDescriptors(t *testing.T) {
	for _, c := range []struct {
		most, logs  int
		limit       uint64
		connections int
		enough      bool
	}{
		{4096, 1, 1 << 20, 4096, true},
		{4096, 1, 1<<64 - 1, 4096, true}, // no limit
		{4096, 1, 4096, 4096 - 64 - 32 - 2048, true},
		{4096, 3, 20000, 4096, true},
		{4096, 3, 8192, 8192 - 64 - 32 - 3*2048, true},
		{4096, 1, 1024, 64, false},
		{10, 1, 1024, 10, false},
		{10, 1, 4096, 10, true},
	} {
		if n, enough := connectionsFor(c.most, c.logs, c.limit); n != c.connections || enough != c.enough {
			t.Errorf("%+v: %d connections, enough %v", c, n, enough)
		}
	}
	r := newLog(t, nil)
	if m := string(r.metrics()); !strings.Contains(m, "piperoll_connections 1\n") && !strings.Contains(m, "piperoll_connections 0\n") || !strings.Contains(m, "piperoll_connections_max 4096\n") {
		t.Errorf("metrics do not count connections")
	}
}

// What a process that was killed has left half done is gone after a start, and nothing else is.
func TestAStartSweepsWhatTheLogHasLeftHalfDoneAndNothingElse(t *testing.T) {
	r := newLog(t, nil)
	must(t, r.stop())
	mine := []string{"data/journal/segments/0000000099.seg.tmp", "data/journal/tables/0000000001.tab.tmp", "data/journal/tables/0000000001.tab.new", "data/state/tmp/7"}
	others := []string{"data/journal/segments/notes.tmp", "data/journal/notes", "data/state/tmp/notes", "data/notes.tmp"}
	for _, name := range append(mine, others...) {
		must(t, os.WriteFile(filepath.Join(r.dir, name), []byte("half"), 0o600))
	}
	must(t, os.MkdirAll(filepath.Join(r.dir, "data/fsck.tmp/index"), 0o700))
	r.start()
	for _, name := range append(mine, "data/fsck.tmp") {
		if _, err := os.Stat(filepath.Join(r.dir, name)); err == nil {
			t.Errorf("%s is there still", name)
		}
	}
	for _, name := range others {
		if string(read(t, filepath.Join(r.dir, name))) != "half" {
			t.Errorf("%s was changed", name)
		}
	}
}
