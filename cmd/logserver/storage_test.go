package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// A gauge is a disk whose room is what the test says.
type gauge struct {
	mu    sync.Mutex
	space disk.Space
}

func (g *gauge) read(string) (disk.Space, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.space, nil
}

// percent sets how much of 100 GiB, or of 100,000 inodes, is used.
func (g *gauge) percent(bytes, inodes uint64) {
	g.set(disk.Space{UsedBytes: bytes << 30, FreeBytes: (100 - bytes) << 30, UsedInodes: inodes * 1000, FreeInodes: (100 - inodes) * 1000})
}

func (g *gauge) set(s disk.Space) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.space = s
}

// gauged serves a log whose disk the test fills.
func gauged(t *testing.T) (*running, *gauge) {
	g := &gauge{}
	g.percent(50, 10)
	r := newLog(t, fastPublish)
	r.tweak = func(c *Config) { c.space = g.read }
	r.restart()
	return r, g
}

// state gives what /readyz says.
func (r *running) state() readyJSON {
	r.t.Helper()
	var state []readyJSON
	r.get("/readyz", "").into(&state)
	return state[0]
}

// storageEntries gives the indexes of what the log has said about the room on its disk.
func (r *running) storageEntries() []foundJSON {
	r.t.Helper()
	var page struct{ Items []foundJSON }
	r.get("/v1/events?kind=log.storage", r.admin).want(200, "").into(&page)
	return page.Items
}

// storageSays gives the payload of one of them.
func (r *running) storageSays(n int) log.Storage {
	r.t.Helper()
	p, err := log.ParseStorage(r.get(fmt.Sprintf("/v1/payloads/%d", r.storageEntries()[n].Index), r.admin).want(200, "").body)
	must(r.t, err)
	return p
}

// A disk that fills up: a warning first, then submitted events are refused while everything that the log owes goes on;
// and when there is room again it takes events, without a restart. The log says in entries since when and until when.
func TestAFullDiskRefusesSubmittedEventsAndSaysSoInTheLog(t *testing.T) {
	r, full := gauged(t)
	crm := r.submitter("crm", "m1/customers")
	other := r.submitter("erp", "m2/orders")
	a := crm.append("stream.open", crm.opening(), "x.customer", `{"name":"Zoë"}`)
	other.append("stream.open", other.opening())

	full.percent(80, 10)
	await(t, "the warning", func() bool { s := r.state(); return s.Ready && strings.Contains(s.Warning, "80 % of its bytes") })
	sent := crm.next("x.n", "")
	retry := body(sent, crm.tail(sent))
	crm.append("x.n", "")

	full.percent(90, 10)
	await(t, "the refusal", func() bool { s := r.state(); return !s.Ready && strings.Contains(s.Reason, "90 % of its bytes") })
	refused := crm.next("x.customer", `{"name":"Ada"}`)
	if got := crm.send(refused).want(507, "storage").header.Get("Retry-After"); got == "" {
		t.Error("the refusal has no Retry-After")
	}
	crm.send(crm.next("x.n", "")).want(507, "storage")
	crm.send(crm.next("x.n", "", "stream.close", "")).want(507, "storage")
	other.append("stream.close", "")
	r.token("late", "auditor")
	r.do("DELETE", fmt.Sprintf("/v1/payloads/%d", a.Index+1), r.admin, "application/json", []byte(`{"authority":"gdpr:art17"}`)).want(200, "")
	r.checkpointOf(r.state().Size)
	await(t, "the entry that says so", func() bool { return len(r.storageEntries()) == 1 })
	if e := r.storageSays(0); e.Until != nil || e.Reason != log.StorageBytes || e.Free != 10<<30 {
		t.Errorf("the log says %+v", e)
	}

	full.percent(89, 10) // not far enough below
	await(t, "a look at the disk", func() bool { return strings.Contains(r.state().Reason, "89 %") })
	crm.send(refused).want(507, "storage")
	r.restart() // which knows it from the log
	crm.send(refused).want(507, "storage")
	r.do("POST", "/v1/events", crm.token, ndjson, retry).want(200, "") // is in the log already

	full.percent(87, 10)
	await(t, "room", func() bool { return r.state().Ready })
	crm.send(refused).want(201, "")
	await(t, "the entry that says so", func() bool { return len(r.storageEntries()) == 2 })
	first, last := r.storageSays(0), r.storageSays(1)
	if last.Until == nil || last.Since != first.Since || last.Reason != first.Reason || last.Free != 13<<30 {
		t.Errorf("the log says %+v, then %+v", first, last)
	}
	r.fsck(exitOK)
}

// The distress entry can be proven, is in every export, and nobody can submit one.
func TestAnAuditorLearnsThatEventsWereRefused(t *testing.T) {
	r, full := gauged(t)
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	full.percent(50, 95)
	await(t, "the entry that says so", func() bool { return len(r.storageEntries()) == 1 })
	if e := r.storageSays(0); e.Reason != log.StorageInodes || e.Free != 5000 {
		t.Errorf("the log says %+v", e)
	}
	full.percent(50, 10)
	await(t, "the entry that says so", func() bool { return len(r.storageEntries()) == 2 })
	crm.append("x.n", "", "stream.close", "")
	auditor := newShell(t, r, r.token("auditor", "auditor"))
	out := auditor.file("evidence")
	auditor.run(0, "", "export", "-migration", "m1", "-out", out)
	var rem remote
	c, err := rem.checkpoint(read(t, filepath.Join(out, "checkpoint")))
	must(t, err)
	found := 0
	for _, name := range must2(filepath.Glob(filepath.Join(out, "events", "*.json"))) {
		b := read(t, name)
		e, err := log.ParseEntry(b)
		must(t, err)
		if e.Event.Kind != "log.storage" {
			continue
		}
		found++
		file, err := log.ParseExportName("events", filepath.Base(name))
		must(t, err)
		p, err := log.ParseInclusionProof(read(t, filepath.Join(out, log.ExportFile{Kind: log.ExportProof, Number: file.Number}.Path())))
		must(t, err)
		must(t, log.CheckInclusion(c.Head, file.Number, log.LeafHash(b), p.Path))
	}
	if found != 2 {
		t.Errorf("%d entries about room on the disk in the export, want 2", found)
	}

	mine := newSubmitted(crm, "log.storage", "log", "log/storage")
	r.do("POST", "/v1/events", crm.token, ndjson, body(mine, crm.tail(mine))).want(403, "forbidden")
}

// newSubmitted makes an event of a kind and a place that are not the submitter's to choose.
func newSubmitted(s *submitter, kind, migration, stream string) []wire {
	e := s.next(kind, "")
	e[0].event.Migration, e[0].event.Stream = migration, stream
	return e
}

// A disk that has filled up all the way, whoever it was: the ballast is thrown off, what the log owes gets out, and
// nothing else is taken until there is room for the ballast again.
func TestADiskThatIsReallyFullFreesTheBallastForTheLastEntries(t *testing.T) {
	r, gauge := gauged(t)
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	ballast := disk.NewBallast(filepath.Join(r.dir, "data", "ballast"), 1<<20)
	await(t, "the ballast", ballast.Held)

	gauge.set(disk.Space{UsedBytes: 100 << 30, FreeBytes: 500 << 10})
	await(t, "the entry that says so", func() bool { return len(r.storageEntries()) == 1 })
	if ballast.Held() || !ballast.Dropped() {
		t.Error("the ballast was not thrown off")
	}
	crm.send(crm.next("stream.close", "")).want(507, "storage")
	b := must2(json.Marshal(tokenRequest{Principal: "late", Role: "auditor"}))
	r.do("POST", "/v1/access/tokens", r.admin, "application/json", b).want(507, "storage")
	r.checkpointOf(r.state().Size)

	gauge.set(disk.Space{UsedBytes: 100 << 30, FreeBytes: 1500 << 10}) // with what the ballast left
	r.restart()
	crm.send(crm.next("stream.close", "")).want(507, "storage")
	gauge.set(disk.Space{UsedBytes: 100 << 30, FreeBytes: 5 << 20})
	await(t, "the ballast", ballast.Held)
	crm.append("stream.close", "")
	if n := len(r.storageEntries()); n != 1 {
		t.Errorf("%d entries about room on the disk, want 1: it is nearly full still", n)
	}
	gauge.percent(50, 10)
	await(t, "the entry that says so", func() bool { return len(r.storageEntries()) == 2 })
	r.fsck(exitOK)
}
