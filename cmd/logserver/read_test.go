package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/note"
)

func TestPayloadsAreReadByThoseWhoMayAndTheReadIsLoggedFirst(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening(), "migration.extract", `{"rows":3}`)
	auditor := r.token("auditor", "auditor")
	path := fmt.Sprintf("/v1/payloads/%d", a.Index+1)
	r.get(path, crm.token).want(403, "forbidden")
	before := r.size()
	got := r.get(path, auditor).want(200, "")
	if string(got.body) != `{"rows":3}` || got.header.Get("Content-Type") != log.JSONType {
		t.Errorf("payload %s of type %s", got.body, got.header.Get("Content-Type"))
	}
	salt, err := base64.StdEncoding.DecodeString(got.header.Get(headerSalt))
	must(t, err)
	e, err := log.ParseEntry(r.get(fmt.Sprintf("/v1/entries/%d", a.Index+1), auditor).body)
	must(t, err)
	must(t, e.Event.Payload.Check(log.Payload{Salt: [32]byte(salt), Bytes: got.body}))
	trail, err := log.ParseEntry(r.get(fmt.Sprintf("/v1/entries/%d", before), auditor).want(200, "").body)
	must(t, err)
	if trail.Event.Kind != "access.read" || trail.Log.By != "auditor" || trail.Event.Objects[0].Name != fmt.Sprint(a.Index+1) {
		t.Errorf("the read is logged as %+v", trail)
	}
	r.get("/v1/payloads/99999", auditor).want(404, "not-found")
	r.get("/v1/payloads/x", auditor).want(400, "malformed")
	r.get("/v1/payloads/007", auditor).want(400, "malformed")
}

// secretsIn finds files below dir that hold any of the secrets.
func secretsIn(t *testing.T, dir string, secrets ...[]byte) (found []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, s := range secrets {
			if bytes.Contains(b, s) {
				found = append(found, path)
			}
		}
		return err
	}))
	return found
}

func TestAnErasedPayloadIsGoneFromEveryFileAndStaysProven(t *testing.T) {
	r := newLog(t, fastPublish)
	crm := r.submitter("crm", "m1/customers")
	secret := `{"name":"Zoë Quux-Unmistakable"}`
	opened := crm.append("stream.open", crm.opening())
	events := crm.next("x.customer", secret)
	var a answer
	crm.send(events).want(201, "").into(&a)
	officer := r.token("dpo", "compliance-officer")
	path := fmt.Sprintf("/v1/payloads/%d", a.Index)

	erase := func(path, token, body string) httpAnswer {
		return r.do("DELETE", path, token, "application/json", []byte(body))
	}
	erase(path, crm.token, `{"authority":"gdpr:art17"}`).want(403, "forbidden")
	erase(path, officer, `{}`).want(400, "malformed")
	erase(path, officer, `{"authority":"two words"}`).want(400, "malformed")
	erase(fmt.Sprintf("/v1/payloads/%d", opened.Index), officer, `{"authority":"x"}`).want(403, "forbidden")
	erase("/v1/payloads/0", officer, `{"authority":"x"}`).want(403, "forbidden")
	erase("/v1/payloads/12345", officer, `{"authority":"x"}`).want(404, "not-found")

	var done indexAnswer
	erase(path, officer, `{"authority":"gdpr:art17:case-81"}`).want(200, "").into(&done)
	r.get(path, officer).want(410, "gone")
	erase(path, officer, `{"authority":"gdpr:art17:case-81"}`).want(410, "gone")
	e, err := log.ParseEntry(r.get(fmt.Sprintf("/v1/entries/%d", done.Index), r.admin).want(200, "").body)
	must(t, err)
	if e.Event.Kind != "payload.erased" || e.Log.By != "dpo" {
		t.Errorf("the erasure is logged as %+v", e)
	}

	// The entry stays, and a retry stores nothing.
	r.get(fmt.Sprintf("/v1/entries/%d", a.Index), r.admin).want(200, "")
	crm.send(events).want(200, "")
	r.get(path, officer).want(410, "gone")
	r.restart()
	r.get(path, officer).want(410, "gone")
	must(t, r.stop())
	salt := events[0].payload.Salt
	if found := secretsIn(t, r.dir, []byte("Unmistakable"), salt[:], []byte(base64.StdEncoding.EncodeToString(salt[:]))); len(found) > 0 {
		t.Errorf("the payload or its salt is still in %v", found)
	}
	r.start()
}

func TestARestoredBackupAppliesErasuresBeforeServing(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening(), "x.customer", `{"name":"Zoë"}`)
	path := fmt.Sprintf("/v1/payloads/%d", a.Index+1)
	must(t, r.stop())
	keys := filepath.Join(r.dir, "data", "journal", "keys")
	backup := filepath.Join(t.TempDir(), "keys")
	must(t, os.CopyFS(backup, os.DirFS(keys)))
	r.start()
	r.do("DELETE", path, r.admin, "application/json", []byte(`{"authority":"gdpr:art17"}`)).want(200, "")
	must(t, r.stop())
	// Somebody puts the key file of the backup back: the one that lost a key.
	restored := 0
	for _, f := range must2(os.ReadDir(backup)) {
		old, now := read(t, filepath.Join(backup, f.Name())), read(t, filepath.Join(keys, f.Name()))
		if zeroed(old, now) {
			must(t, os.WriteFile(filepath.Join(keys, f.Name()), old, 0o600))
			restored++
		}
	}
	if restored != 1 {
		t.Fatalf("%d key files lost a key, want 1", restored)
	}
	r.start()
	r.get(path, r.admin).want(410, "gone")
}

// zeroed says whether now is old with some bytes zeroed.
func zeroed(old, now []byte) bool {
	changed := false
	for i := range min(len(old), len(now)) {
		if old[i] != now[i] && now[i] != 0 {
			return false
		}
		changed = changed || old[i] != now[i]
	}
	return changed
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestSearchFindsByEveryFilterAndPages(t *testing.T) {
	r := newLog(t, nil)
	crm, erp := r.submitter("crm", "m1/customers"), r.submitter("erp", "m2/orders")
	crm.append("stream.open", crm.opening(), "migration.start", "", "migration.load", `{}`, "migration.load", `{}`)
	erp.append("stream.open", erp.opening(), "migration.load", "")
	count := func(query string) int {
		t.Helper()
		n, cursor := 0, ""
		for {
			var page pageJSON
			r.get("/v1/events?limit=2&"+query+cursor, r.admin).want(200, "").into(&page)
			n += len(page.Items)
			for _, item := range page.Items {
				if _, err := log.ParseEntry(item.Entry); err != nil {
					t.Error(err)
				}
			}
			if page.NextCursor == "" {
				return n
			}
			cursor = "&cursor=" + url.QueryEscape(page.NextCursor)
		}
	}
	for query, want := range map[string]int{
		"migration=m1": 4, "stream=m2/orders": 2, "kind=migration.load": 3, "actor=crm": 4, "by=erp": 2,
		"migration=m1&kind=migration.load": 2, "kind=key.registered": 2, "object=crm": 2, "migration=m3": 0,
		"from=1": int(r.size()), "to=1": 0,
	} {
		if got := count(query); got != want {
			t.Errorf("search %s finds %d, want %d", query, got, want)
		}
	}
	for _, bad := range []string{
		"kind=a%20b", "limit=0", "limit=x", "from=x", "flavour=x", "kind=a&kind=b", "kind=", "migration=%zz", "migration=m1;kind=x", "from=5&to=4", "to=0",
	} {
		r.get("/v1/events?"+bad, r.admin).want(400, "malformed")
	}
}

func TestHeadsAndProofsAndTheirErrors(t *testing.T) {
	r := newLog(t, fastPublish)
	crm := r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening())
	var head headJSON
	r.get("/v1/streams/m1/customers", crm.token).want(200, "").into(&head)
	if head.Seq != 1 || head.Owner != "crm" || head.Index != a.Index || head.Closed {
		t.Errorf("head %+v", head)
	}
	r.get("/v1/streams/m1/nothing", crm.token).want(404, "not-found")
	r.get("/v1/streams/m1/a%20b", crm.token).want(400, "malformed")
	crm.append("stream.close", "")
	crm.send(crm.next("migration.load", "")).want(409, "closed")

	r.do("POST", "/v1/events", crm.token, ndjson, nil, "Prefer", "wait=1").want(400, "malformed")
	size := r.size()
	for {
		if c := r.checkpoint(); c.Size >= size {
			break
		}
	}
	c := r.checkpoint()
	old := log.Head{Size: 2, Root: r.rootAt(2)}
	p, err := log.ParseConsistencyProof(r.get(fmt.Sprintf("/v1/proofs/consistency/2/%d", c.Size), crm.token).want(200, "").body)
	must(t, err)
	must(t, log.CheckConsistency(old, c.Head, p.Path))
	rp, err := log.ParseRangeProof(r.get(fmt.Sprintf("/v1/proofs/range/1/4/%d", c.Size), crm.token).want(200, "").body)
	must(t, err)
	var leaves []log.Hash
	for i := range 3 {
		leaves = append(leaves, log.LeafHash(r.get(fmt.Sprintf("/v1/entries/%d", i+1), crm.token).body))
	}
	must(t, log.CheckRange(c.Head, 1, leaves, rp.Path))
	r.get("/v1/proofs/range/1/4", crm.token).want(200, "")

	for path, status := range map[string]int{
		"/v1/proofs/consistency/3/2": 400, "/v1/proofs/consistency/0/99999": 404, "/v1/proofs/consistency/x/2": 400, "/v1/proofs/consistency/2/x": 400,
		"/v1/proofs/range/4/4": 400, "/v1/proofs/range/4/99999": 400, "/v1/proofs/range/1/2/99999": 404, "/v1/proofs/range/x/2": 400,
		"/v1/proofs/range/1/x": 400, "/v1/proofs/range/1/2/x": 400,
		"/v1/proofs/inclusion/99999": 404, "/v1/proofs/inclusion/x": 400, "/v1/proofs/inclusion/1/x": 400, "/v1/proofs/inclusion/1/99999": 404,
		"/v1/entries/99999": 404, "/v1/entries/-1": 400, "/v1/events/zz": 400, "/v1/events/" + strings.Repeat("0", 64): 404, "/v1/nothing": 404,
		"/tile/entries/000.p/2": 200, "/tile/0/000.p/2": 200, "/checkpoint/signed": 200,
	} {
		if got := r.get(path, crm.token); got.status != status {
			t.Errorf("GET %s = %d, want %d", path, got.status, status)
		}
	}
	r.get("/tile/0/000.p/2", "").want(200, "")
	r.get("/tile/entries/000.p/2", "").want(401, "unauthenticated")
}

// checkpoint opens the published checkpoint.
func (r *running) checkpoint() log.Checkpoint {
	r.t.Helper()
	v, err := note.NewVerifier(strings.TrimSpace(string(read(r.t, filepath.Join(r.dir, "log.vkey")))))
	must(r.t, err)
	c, err := log.OpenCheckpoint(r.get("/checkpoint", "").want(200, "").body, v)
	must(r.t, err)
	return c
}

// rootAt computes the root of the first size entries from the entries.
func (r *running) rootAt(size uint64) log.Hash {
	r.t.Helper()
	hashes := make([]log.Hash, size)
	for i := range hashes {
		hashes[i] = log.LeafHash(r.get(fmt.Sprintf("/v1/entries/%d", i), r.admin).want(200, "").body)
	}
	if size != 2 {
		r.t.Fatal("rootAt knows size 2 only")
	}
	both, err := hex.DecodeString("01" + hex.EncodeToString(hashes[0][:]) + hex.EncodeToString(hashes[1][:]))
	must(r.t, err)
	return sha256Sum(both)
}
