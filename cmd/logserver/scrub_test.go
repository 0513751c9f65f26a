package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// open opens the log of a server that was stopped, as a start does.
func (r *running) open() *ledger {
	r.t.Helper()
	l, err := openLedger(r.t.Context(), r.config(), slog.New(slog.NewTextHandler(r.t.Output(), nil)))
	must(r.t, err)
	return l
}

// damage flips a bit of a file of the log.
func (r *running) damage(name string, off int64) {
	r.t.Helper()
	f := must2(os.OpenFile(filepath.Join(r.dir, name), os.O_RDWR, 0))
	b := make([]byte, 1)
	must2(f.ReadAt(b, off))
	b[0] ^= 0x10
	must2(f.WriteAt(b, off))
	must(r.t, f.Close())
}

// aged makes a log with a sealed segment, full tiles, erased and large payloads.
func aged(t *testing.T) (r *running, crm *submitter, segment uint64) {
	r = newLog(t, fastPublish)
	crm = r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening(), "x.customer", `{"name":"Zoë"}`, "x.customer", `{"name":"Ada"}`,
		"x.scan", `"`+strings.Repeat("large ", 20_000)+`"`)
	r.do("DELETE", fmt.Sprintf("/v1/payloads/%d", a.Index+1), r.admin, "application/json", []byte(`{"authority":"gdpr:art17"}`)).want(200, "")
	crm.fill(700)
	r.checkpointOf(crm.stream.Seq)
	r.restart() // begins a segment
	crm.append("x.n", "")
	r.checkpointOf(crm.stream.Seq)
	must(t, r.stop())
	for ; ; segment++ {
		if info := must2(os.Stat(filepath.Join(r.dir, segmentFile(segment)))); info.Size() > 100<<10 {
			return r, crm, segment
		}
	}
}

func segmentFile(n uint64) string { return fmt.Sprintf("data/journal/segments/%010d.seg", n) }

// One scrub finds a flipped bit wherever it is: what is derived it heals, what was acknowledged or signed it reports.
func TestOneScrubFindsDamageInEachKindOfFileAndHealsWhatIsDerived(t *testing.T) {
	r, _, segment := aged(t)
	l := r.open()
	found, err := l.scrub(t.Context())
	if len(found) > 0 || err != nil {
		t.Fatalf("a scrub of a good log finds %v, %v", found, err)
	}
	large := must2(filepath.Glob(filepath.Join(r.dir, "data/journal/large/*/*.sealed")))
	stored := must2(filepath.Glob(filepath.Join(r.dir, "data/state/checkpoints/*")))
	if len(large) != 1 || len(stored) != 1 {
		t.Fatalf("%d large payloads and %d files of checkpoints, want 1", len(large), len(stored))
	}
	healed := 0
	for _, c := range []struct {
		file  string
		off   int64
		truth bool
		heals bool
	}{
		{segmentFile(segment), 70, true, false},    // header
		{segmentFile(segment), 2000, false, false}, // padding
		{segmentFile(segment), 1100, true, false},  // a record
		{segmentFile(segment), 40000, true, false}, // another
		{fmt.Sprintf("data/journal/keys/%010d.key", segment), 40, true, false},
		{strings.TrimPrefix(large[0], r.dir+"/"), 500, true, false},
		{"data/journal/journal", 30, true, false},
		{fmt.Sprintf("data/journal/tables/%010d.tab", segment), 90, false, true},
		{"data/tiles/tile/0/000", 32, false, true},
		{"data/tiles/tile/0/001", 8191, false, true},
		{"data/tiles/tile/entries/001", 77, false, true},
		{"data/tiles/checkpoint", 50, false, false}, // the next publication
		{strings.TrimPrefix(stored[0], r.dir+"/"), 20, true, false},
		{"data/state/recovery", 30, false, false},
		{"anchor/anchor", 4100, true, false},
		{"keys/checkpoint.key", 40, false, false},
		{"keys/receipt.key", 40, false, false},
	} {
		r.damage(c.file, c.off)
		found, err := l.scrub(t.Context())
		if err != nil || len(found) == 0 {
			t.Errorf("%s, byte %d: found %v, %v", c.file, c.off, found, err)
			continue
		}
		for _, f := range found {
			if f.truth != c.truth || f.healed != c.heals {
				t.Errorf("%s, byte %d: truth %v, healed %v, want %v, %v: %v", c.file, c.off, f.truth, f.healed, c.truth, c.heals, f.err)
			}
		}
		if kept := must2(filepath.Glob(filepath.Join(r.dir, "data/damaged/*"))); c.heals {
			healed++
			if len(kept) != healed {
				t.Errorf("%s: healed, and of %d healed files %d are kept", c.file, healed, len(kept))
			}
		} else {
			r.damage(c.file, c.off)
		}
		if found, err := l.scrub(t.Context()); len(found) > 0 || err != nil {
			t.Fatalf("%s, byte %d: mended, and a scrub finds %v, %v", c.file, c.off, found, err)
		}
	}
	must(t, l.close())
	r.start()
	r.fsck(exitOK)
}

// A damaged record makes the log read-only, and tells why wherever somebody asks; so it stays over a restart, until the
// damage is mended.
func TestDamageToWhatWasAcknowledgedLatchesTheLogUntilItIsMended(t *testing.T) {
	r, crm, segment := aged(t)
	file, off := segmentFile(segment), int64(40000)
	r.damage(file, off)
	r.start() // only the end of the journal is looked at
	crm.append("x.n", "")
	r.scrubNow()
	latched := func() {
		t.Helper()
		var p problem
		crm.send(crm.next("x.n", "")).want(503, "read-only").into(&p)
		var state []readyJSON
		r.get("/readyz", "").want(503, "").into(&state)
		for what, text := range map[string]string{"the problem": p.Detail, "/readyz": state[0].Reason} {
			if !strings.Contains(text, "(scrub)") || strings.Contains(text, "segments") {
				t.Errorf("%s says %q, want the cause and no file names", what, text)
			}
		}
		metrics := string(r.metrics())
		for _, want := range []string{`piperoll_latched{cause="scrub",origin="log.example/test"} 1`, `piperoll_read_only{origin="log.example/test"} 1`} {
			if !strings.Contains(metrics, want) {
				t.Errorf("metrics have no %s", want)
			}
		}
	}
	latched()
	r.get("/v1/entries/0", r.admin).want(200, "")
	r.restart()
	latched()
	must(t, r.stop())
	r.damage(file, off)
	r.start()
	crm.append("x.n", "")
	r.fsck(exitOK)
}

// A cycle goes on over a restart where it was left.
func TestAScrubGoesOnWhereTheLastProcessLeftOff(t *testing.T) {
	r, _, segment := aged(t)
	l := r.open()
	before := scrubState{Began: time.Now().UnixMilli(), At: part{partJournal, segment + 1}}
	must(t, os.WriteFile(l.c.scrubFile(), must2(json.Marshal(before)), 0o600))
	must(t, l.close())
	r.damage(segmentFile(segment), 40000)
	l = r.open()
	must(t, l.scrubs.cycle(t.Context()))
	if s := l.scrubs.state; s.stats() || s.Finished < before.Began || s.At.Name != "" {
		t.Errorf("the rest of a cycle ends with %+v, want no damage found", s)
	}
	must(t, l.scrubs.cycle(t.Context()))
	if s := l.scrubs.state; !s.stats() {
		t.Errorf("the next cycle ends with %+v, want the damage", s)
	}
	must(t, l.close())
}

func (s scrubState) stats() bool { return len(s.Damaged) > 0 }

// A state that a restore has left from a longer life, or that is no state, does no harm.
func TestAScrubBeginsAnewFromAPositionThatIsNone(t *testing.T) {
	r, _, _ := aged(t)
	for _, text := range []string{`{`, `{"began":1,"at":{"name":"journal","n":99}}`, `{"at":{"name":"checkpoints","n":99}}`, `{"damaged":[{"name":"journal","n":99}]}`} {
		must(t, os.WriteFile(filepath.Join(r.dir, "data", "scrub.json"), []byte(text), 0o600))
		l := r.open()
		if err := l.scrubs.cycle(t.Context()); err != nil || l.scrubs.state.Finished == 0 || l.seq.ReadOnly() != nil {
			t.Errorf("from %s: %v, state %+v, latched %v", text, err, l.scrubs.state, l.seq.ReadOnly())
		}
		must(t, l.close())
	}
}

// A scrub reads at the rate that it is told, and rests three times as long as it works.
func TestAScrubKeepsToItsRate(t *testing.T) {
	began := time.Now()
	p := pacer{rate: 1 << 20, since: began}
	for range 4 {
		must(t, p.wait(t.Context(), 64<<10))
	}
	if took := time.Since(began); took < 250*time.Millisecond {
		t.Errorf("256 KiB at 1 MiB a second took %v", took)
	}
	began = time.Now()
	p = pacer{rate: 1 << 40, since: began.Add(-50 * time.Millisecond)}
	must(t, p.wait(t.Context(), 64<<10))
	if took := time.Since(began); took < 150*time.Millisecond {
		t.Errorf("after 50 ms of work it rested for %v", took)
	}
}

// scrubNow asks for a cycle, and waits until one has ended that began after that.
func (r *running) scrubNow() {
	r.t.Helper()
	finished := regexp.MustCompile(`piperoll_scrub_finished_timestamp_seconds\{.*`)
	before := string(finished.Find(r.metrics()))
	resp := must2(http.Post("http://"+strings.TrimSpace(string(read(r.t, filepath.Join(r.dir, "admin.addr"))))+"/scrub", "", nil))
	must(r.t, resp.Body.Close())
	must(r.t, described().check("POST", adminListener+"/scrub", httpAnswer{r.t, resp.StatusCode, resp.Header, nil}))
	await(r.t, "the end of a scrub", func() bool { return string(finished.Find(r.metrics())) != before })
}
