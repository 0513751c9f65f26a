package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/pipe-roll/piperoll/log"
)

// writeLarge writes a directory of one migration with many events in requests
// of a hundred: one stream, a payload each.
func writeLarge(t *testing.T, events int) *scene {
	t.Helper()
	l := newLog("log.example/crm")
	svc := l.register("svc:crm")
	l.migrateOpen(svc, "crm")
	const request = 100
	for n := 0; n < events; n += request {
		drafts := make([]draft, request)
		for i := range drafts {
			drafts[i] = draft{kind: "migration.load", payload: bytes.Repeat([]byte("row "), 64), objects: []log.Object{{Name: "crm.customers", Role: "target"}}}
		}
		l.send(svc, "crm/data", drafts...)
	}
	l.migrateClose(svc, "crm")
	l.cosign = l.now / 1000
	s := newScene(t, l, "g", files{})
	size := uint64(len(l.records))
	note := l.checkpoint(size)
	files{"checkpoint": note, "events/x": nil, "proofs/x": nil, "payloads/x": nil}.write(s.out)
	for _, folder := range []string{"events", "proofs", "payloads"} {
		if err := os.Remove(filepath.Join(s.out, folder, "x")); err != nil {
			t.Fatal(err)
		}
	}
	put := func(kind log.ExportKind, i int, text []byte) {
		name := filepath.Join(s.out, log.ExportFile{Kind: kind, Number: uint64(i)}.Path())
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range l.records {
		put(log.ExportEvent, i, r.Entry)
		path := must(tlog.ProveRecord(int64(size), int64(i), l.reader()))
		put(log.ExportProof, i, log.InclusionProof{Index: uint64(i), Path: path, Checkpoint: note}.Marshal())
		if r.Payload != nil {
			put(log.ExportPayload, i, r.Payload.Bytes)
			put(log.ExportSalt, i, log.MarshalSalt(r.Payload.Salt))
		}
	}
	return s
}

// A log of some size passes, in order, through all workers.
func TestThousandsOfEvents(t *testing.T) {
	s := writeLarge(t, 3000)
	s.want(exitOK, "3009 entries are in the tree", "1 migrations with 3007 entries")
	if err := os.Remove(filepath.Join(s.out, "events", "000000002000.json")); err != nil {
		t.Fatal(err)
	}
	s.want(exitFailed, "seq 1997 to 1997 are missing")
}

// What an auditor waits for: 100,000 events with their proofs and payloads in
// less than 15 s, in memory that does not grow with the payloads.
func TestHundredThousandEventsNightly(t *testing.T) {
	if testing.Short() {
		t.Skip("400,000 files take a while to write")
	}
	s := writeLarge(t, 100_000)
	runtime.GC()
	begin := time.Now()
	code, text := s.verify()
	elapsed := time.Since(begin)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	check(t, code, text, exitOK, "1 migrations with 100007 entries")
	t.Logf("100,009 entries in %v, %d MiB from the system\n%s", elapsed, m.Sys>>20, strings.TrimSpace(text))
	if elapsed > 15*time.Second {
		t.Errorf("verify took %v, want at most 15 s", elapsed)
	}
}
