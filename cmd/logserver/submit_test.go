package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/note"
)

func TestASignedEventIsProvenUnderAPublishedCheckpoint(t *testing.T) {
	r := newLog(t, fastPublish)
	crm := r.submitter("crm", "m1/customers")
	events := crm.next("stream.open", crm.opening(), "migration.extract", `{"rows":3}`)
	var a answer
	r.do("POST", "/v1/events", crm.token, ndjson, body(events, crm.tail(events)), "Prefer", "wait=30").want(201, "").into(&a)
	entries := r.checkReceipt(a, events, crm.tail(events))
	if len(a.Proofs) != 2 {
		t.Fatalf("%d proofs, want 2", len(a.Proofs))
	}
	v, err := note.NewVerifier(strings.TrimSpace(string(read(t, filepath.Join(r.dir, "log.vkey")))))
	must(t, err)
	for i, text := range a.Proofs {
		p, err := log.ParseInclusionProof([]byte(text))
		must(t, err)
		c, err := log.OpenCheckpoint(p.Checkpoint, v)
		must(t, err)
		must(t, log.CheckInclusion(c.Head, p.Index, log.LeafHash(entries[i]), p.Path))

		index := a.Index + uint64(i)
		got := r.get(fmt.Sprintf("/v1/entries/%d", index), crm.token).want(200, "")
		if !bytes.Equal(got.body, entries[i]) || got.header.Get(headerIndex) != fmt.Sprint(index) {
			t.Errorf("entry %d is %s, want %s", index, got.body, entries[i])
		}
		h := events[i].event.Hash()
		if got := r.get(fmt.Sprintf("/v1/events/%x", h[:]), crm.token).want(200, ""); !bytes.Equal(got.body, entries[i]) {
			t.Errorf("event %x is not entry %d", h[:], index)
		}
		again := r.get(fmt.Sprintf("/v1/proofs/inclusion/%d/%d", index, c.Size), crm.token).want(200, "")
		if string(again.body) != text {
			t.Error("the proof at the same size is another")
		}
	}
}

func TestARetryGetsTheSameReceipt(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	events := crm.next("stream.open", crm.opening(), "migration.extract", `{"rows":3}`)
	first := crm.send(events).want(201, "")
	again := crm.send(events).want(200, "")
	if !bytes.Equal(first.body, again.body) {
		t.Errorf("retry answers %s, want %s", again.body, first.body)
	}
	r.restart()
	late := crm.send(events).want(200, "")
	if !bytes.Equal(first.body, late.body) {
		t.Errorf("retry after a restart answers %s, want %s", late.body, first.body)
	}
}

func TestCurlAppendsWithoutAKey(t *testing.T) {
	r := newLog(t, nil)
	curl := r.token("curl", "migration-service", "log:append-unsigned")
	var a answer
	r.do("POST", "/v1/events", curl, "application/json", []byte("{\n  \"event\": {\"kind\": \"audit.note\", \"migration\": \"m1\", \"objects\":[{\"role\":\"table\",\"name\":\"t\"}]},\n  \"payload\": {\"b\": 1e3, \"a\": \"\\u00fc\"}\n}\n")).want(201, "").into(&a)
	if a.Count != 2 || len(a.Events) != 2 || len(a.Salts) != 2 {
		t.Fatalf("answer %+v, want stream.open and the event", a)
	}
	var events []wire
	for _, raw := range a.Events {
		e, err := log.ParseEvent(raw)
		must(t, err)
		events = append(events, wire{event: e})
	}
	r.checkReceipt(a, events, nil)
	salt, err := base64.StdEncoding.DecodeString(*a.Salts[1])
	must(t, err)
	must(t, events[1].event.Payload.Check(log.Payload{Salt: [32]byte(salt), Bytes: []byte(`{"a":"ü","b":1000}`)}))

	// With a type and bytes of its own, a second time in the same stream.
	r.do("POST", "/v1/events", curl, "application/json", []byte(`{"event":{"kind":"x.csv","migration":"m1","type":"text/csv","time":5},"payload_b64":"YSxi"}`)).want(201, "").into(&a)
	if a.Count != 1 {
		t.Errorf("%d entries, want 1", a.Count)
	}
	bare := r.token("bare", "migration-service")
	r.do("POST", "/v1/events", bare, "application/json", []byte(`{"event":{"kind":"audit.note","migration":"m1"}}`)).want(403, "forbidden")
}

// mutate makes the JSON text of a line wrong.
func mutate(events []wire, sig *log.Sig, old, replacement string) []byte {
	b := body(events, sig)
	if !bytes.Contains(b, []byte(old)) {
		panic("mutation does not apply: " + old)
	}
	return bytes.Replace(b, []byte(old), []byte(replacement), 1)
}

func TestBadInputIsRefusedAndLeavesNothing(t *testing.T) {
	r := newLog(t, func(c string) string { return c + "limits:\n  body_bytes: 8388608\n  events: 50\n" })
	crm, erp := r.submitter("crm", "m1/customers"), r.submitter("erp", "m1/orders")
	crm.append("stream.open", crm.opening())
	erp.append("stream.open", erp.opening())
	other := *crm
	other.stream = log.NewStream(testOrigin, "m1/addresses")
	other.append("stream.open", other.opening())
	good := func() []wire { return crm.next("migration.load", `{"rows":1}`, "migration.load", `{"rows":2}`) }
	before := r.size()

	send := func(name string, status int, problemName, contentType string, b []byte) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			counted := r.problems(problemName)
			a := r.do("POST", "/v1/events", crm.token, contentType, b)
			a.t = t
			a.want(status, problemName)
			if n := r.problems(problemName) - counted; n != 1 {
				t.Errorf("the metric of %s counts %g, want 1", problemName, n)
			}
		})
	}
	edit := func(name string, status int, problemName, old, replacement string) {
		t.Helper()
		events := good()
		send(name, status, problemName, ndjson, mutate(events, crm.tail(events), old, replacement))
	}
	edit("wrong type", 400, "malformed", `"seq":2`, `"seq":"2"`)
	edit("float", 400, "malformed", `"seq":2`, `"seq":2.0`)
	edit("negative", 400, "malformed", `"seq":2`, `"seq":-2`)
	edit("duplicate key in the event", 400, "malformed", `"seq":2`, `"seq":2,"seq":2`)
	edit("duplicate key in the line", 400, "malformed", `{"event":`, `{"event":{},"event":`)
	edit("duplicate key in the payload", 400, "malformed", `{"rows":1}`, `{"rows":1,"rows":1}`)
	edit("unknown key in the event", 400, "malformed", `"v":1}`, `"v":1,"w":1}`)
	edit("unknown key in the line", 400, "malformed", `{"event":`, `{"note":"x","event":`)
	edit("white space in the event", 400, "malformed", `{"actor":`, `{ "actor":`)
	edit("keys out of order", 400, "malformed", `"actor":"crm","kind":"migration.load"`, `"kind":"migration.load","actor":"crm"`)
	edit("invalid UTF-8 in the event", 400, "malformed", `"actor":"crm"`, "\"actor\":\"c\xffm\"")
	edit("invalid UTF-8 in the payload", 400, "malformed", `{"rows":1}`, "{\"rows\":\"\xff\"}")
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	edit("deep event", 400, "malformed", `"objects":[]`, `"objects":`+deep)
	edit("deep payload", 400, "malformed", `{"rows":1}`, deep)
	edit("escape in a name", 400, "malformed", `"actor":"crm"`, `"actor":"cr\u006d"`)
	edit("space in a name", 400, "malformed", `"actor":"crm"`, `"actor":"c m"`)
	edit("unknown kind", 400, "malformed", `migration.load`, `migration.lode`)
	edit("other version", 400, "version", `"v":1}`, `"v":2}`)
	edit("wrong commitment", 400, "commitment", `{"rows":1}`, `{"rows":9}`)
	edit("other log", 400, "malformed", `"log":"log.example/test"`, `"log":"log.example/prod"`)

	flip := func(name string, status int, problemName string, f func([]wire, *log.Sig) ([]wire, *log.Sig)) {
		t.Helper()
		events := good()
		events, sig := f(events, crm.tail(events))
		send(name, status, problemName, ndjson, body(events, sig))
	}
	flip("unsigned tail in a signed stream", 400, "signature", func(w []wire, _ *log.Sig) ([]wire, *log.Sig) { return w, nil })
	flip("bad signature", 400, "signature", func(w []wire, s *log.Sig) ([]wire, *log.Sig) { s.Sig[9] ^= 1; return w, s })
	flip("unknown key", 403, "key", func(w []wire, s *log.Sig) ([]wire, *log.Sig) { s.Key[0] ^= 1; return w, s })
	flip("key of somebody else", 400, "signature", func(w []wire, _ *log.Sig) ([]wire, *log.Sig) { return w, erp.tail(w) })
	flip("gap", 409, "gap", func(w []wire, _ *log.Sig) ([]wire, *log.Sig) { return w[1:], crm.tail(w[1:]) })
	flip("broken chain", 409, "fork", func(w []wire, _ *log.Sig) ([]wire, *log.Sig) {
		w[1].event.Prev[3] ^= 1
		return w, crm.tail(w)
	})
	flip("taken seq", 409, "fork", func(w []wire, _ *log.Sig) ([]wire, *log.Sig) {
		w = w[:1]
		w[0].event.Seq = 1
		return w, crm.tail(w)
	})
	flip("clock far ahead", 400, "clock", func(w []wire, _ *log.Sig) ([]wire, *log.Sig) {
		w = w[:1]
		w[0].event.Time += 10 * 60 * 1000
		return w, crm.tail(w)
	})
	flip("two streams", 400, "malformed", func(w []wire, _ *log.Sig) ([]wire, *log.Sig) {
		w[1].event.Stream = "m1/other"
		return w, crm.tail(w)
	})
	flip("somebody else's stream", 403, "owner", func([]wire, *log.Sig) ([]wire, *log.Sig) {
		w := erp.next("migration.load", "")
		return w, crm.tail(w)
	})
	flip("server kind", 403, "forbidden", func(w []wire, _ *log.Sig) ([]wire, *log.Sig) {
		w = w[:1]
		w[0].event.Kind, w[0].event.Migration, w[0].event.Stream = "key.registered", "log", "log/keys"
		return w, crm.tail(w)
	})

	flip("no payload", 400, "commitment", func(w []wire, s *log.Sig) ([]wire, *log.Sig) { w[0].payload = nil; return w, s })
	flip("a payload that nothing commits to", 400, "commitment", func(w []wire, _ *log.Sig) ([]wire, *log.Sig) {
		w[0].event.Payload = nil
		return w, crm.tail(w)
	})
	flip("replay into another stream of the same owner", 400, "signature", func(w []wire, s *log.Sig) ([]wire, *log.Sig) {
		for i := range w {
			w[i].event.Stream = other.stream.Name
			w[i].event.Prev = other.stream.Hash
		}
		return w, s
	})
	flip("signature of another request", 400, "signature", func(w []wire, _ *log.Sig) ([]wire, *log.Sig) { return w, crm.tail(w[:1]) })

	whole := body(good(), nil)
	send("empty", 400, "malformed", ndjson, nil)
	send("truncated", 400, "malformed", ndjson, whole[:len(whole)-5])
	send("no event", 400, "malformed", "application/json", []byte(`{}`))
	send("not an object", 400, "malformed", "application/json", []byte(`[]`))
	send("other media type", 415, "media-type", "text/plain", whole)
	send("too many events", 413, "too-large", ndjson, bytes.Repeat([]byte("{}\n"), 51))
	send("too large a body", 413, "too-large", "application/json", bytes.Repeat([]byte(" "), 9<<20))
	large := crm.next("migration.load", `"`+strings.Repeat("x", 5<<20)+`"`)
	send("too large a payload", 413, "too-large", ndjson, body(large, crm.tail(large)))
	fat := crm.next("migration.load", "")
	for range 64 {
		fat[0].event.Objects = append(fat[0].event.Objects, log.Object{Name: strings.Repeat("n", 128), Role: strings.Repeat("r", 128)})
	}
	send("too large an event", 400, "malformed", ndjson, body(fat, crm.tail(fat)))

	// Only refusals by authenticated principals of three sorts became entries.
	for i := before; i < r.size(); i++ {
		e, err := log.ParseEntry(r.get(fmt.Sprintf("/v1/entries/%d", i), r.admin).want(200, "").body)
		must(t, err)
		if e.Event.Kind != "log.refused" || e.Log.By != "crm" {
			t.Errorf("bad input left entry %d of kind %s", i, e.Event.Kind)
		}
	}
	crm.append("migration.load", `{"rows":1}`) // the stream is where it was
}

// problems gives how often a problem was counted.
func (r *running) problems(name string) (n float64) {
	r.t.Helper()
	text := string(r.metrics())
	_, rest, ok := strings.Cut(text, `type="urn:piperoll:problem:`+name+`"} `)
	if ok {
		_, err := fmt.Sscan(rest, &n)
		must(r.t, err)
	}
	return n
}

// A body of nothing but line ends would be split into slices of 24 times its size.
func TestABodyOfEmptyLinesCostsNoMoreThanItself(t *testing.T) {
	lines := bytes.Repeat(newline, 8<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := splitBody(ndjson, lines, 10_000)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, errTooLarge) {
		t.Errorf("splitBody = %v, want too large", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("a body of 8 MiB takes another %d bytes to be refused", n)
	}
}

func TestWhoMayNotAppendIsNotListenedTo(t *testing.T) {
	r := newLog(t, nil)
	auditor := r.token("aud", "auditor")
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	must(t, err)
	defer func() { _ = c.Close() }() // its answer was read
	_, err = fmt.Fprintf(c, "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", auditor)
	must(t, err)
	line, err := bufio.NewReader(c).ReadString('\n')
	must(t, err)
	if !strings.Contains(line, " 403 ") {
		t.Errorf("before its body a request by an auditor gets %q, want 403", line)
	}
}

func TestALateEventIsTakenWithItsLateness(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	events := crm.next("migration.load", "")
	events[0].event.Time -= 3 * 24 * 3600 * 1000
	var a answer
	crm.send(events).want(201, "").into(&a)
	part, err := log.ParsePart(a.Log[0])
	must(t, err)
	if part.SkewMS < 3*24*3600*1000 || part.SkewMS > 3*24*3600*1000+60_000 {
		t.Errorf("skew_ms is %d, want three days", part.SkewMS)
	}
}

func TestOfTwoEventsForOneSeqOneIsAForkWithTheHead(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	var mu sync.Mutex
	statuses := map[int]int{}
	var wg sync.WaitGroup
	for i := range 8 {
		events := crm.next("x.n", fmt.Sprint(i))
		wg.Go(func() {
			a := crm.send(events)
			mu.Lock()
			defer mu.Unlock()
			statuses[a.status]++
			if a.status == http.StatusConflict {
				var p problem
				if err := json.Unmarshal(a.body, &p); err != nil || p.Head == nil || p.Head.Seq != 2 {
					t.Errorf("a fork answers %s, want the head", a.body)
				}
			}
		})
	}
	wg.Wait()
	if statuses[201] != 1 || statuses[409] != 7 {
		t.Errorf("statuses %v, want one 201 and seven 409", statuses)
	}
}

func TestRefusalsAreInTheLogWithoutTheirText(t *testing.T) {
	r := newLog(t, nil)
	auditor := r.token("auditor", "auditor")
	before := r.size()
	for range 5 {
		r.do("POST", "/v1/events", auditor, "application/json", []byte(`{"event":{"kind":"x.secret","migration":"m9-secret"}}`)).want(403, "forbidden")
	}
	r.do("POST", "/v1/access/tokens", auditor, "application/json", []byte(`{"principal":"eve","role":"admin"}`)).want(403, "forbidden")
	if n := r.size() - before; n != 2 {
		t.Errorf("%d entries, want one for each reason and route", n)
	}
	must(t, r.stop()) // ends the window: the repeats are counted
	r.start()
	var page pageJSON
	r.get("/v1/events?kind=log.refused", r.admin).want(200, "").into(&page)
	counts := uint64(0)
	for _, item := range page.Items {
		if bytes.Contains(item.Entry, []byte("m9-secret")) {
			t.Errorf("a refusal repeats the request: %s", item.Entry)
		}
		a := r.get(fmt.Sprintf("/v1/payloads/%d", item.Index), r.admin).want(200, "")
		p, err := log.ParseRefused(a.body)
		must(t, err)
		counts += p.Count
	}
	if counts != 6 {
		t.Errorf("refusals count %d, want 6", counts)
	}
}

func TestTokensExpireAndAreRevoked(t *testing.T) {
	r := newLog(t, nil)
	var a tokenAnswer
	r.do("POST", "/v1/access/tokens", r.admin, "application/json", []byte(`{"principal":"aud","role":"auditor","expires_days":1}`)).want(201, "").into(&a)
	r.get("/v1/entries/0", a.Token).want(200, "")
	r.get("/v1/entries/0", "").want(401, "unauthenticated")
	r.get("/v1/entries/0", "pr_nonsense").want(401, "unauthenticated")
	r.do("DELETE", "/v1/access/tokens/"+a.ID, r.admin, "", nil).want(200, "")
	r.do("DELETE", "/v1/access/tokens/"+a.ID, r.admin, "", nil).want(404, "not-found")
	r.get("/v1/entries/0", a.Token).want(401, "unauthenticated")
	r.restart()
	r.get("/v1/entries/0", a.Token).want(401, "unauthenticated")

	now := time.Now()
	acc := newAccess(func() time.Time { return now })
	token, created, err := newToken("svc", "operator", nil, now.Add(time.Hour))
	must(t, err)
	e := log.Entry{Event: log.Event{Kind: "access.token.created", Migration: "log"}, Log: log.Part{Attested: log.AttestedByLog}}
	must(t, acc.Apply(3, e, created.Marshal()))
	if _, err := acc.authenticate("Bearer " + token); err != nil {
		t.Error(err)
	}
	now = now.Add(time.Hour)
	if _, err := acc.authenticate("Bearer " + token); err == nil {
		t.Error("an expired token is taken")
	}
	for _, bad := range []string{
		`{"principal":"a b","role":"auditor"}`, `{"principal":"a","role":"king"}`, `{"principal":"log","role":"admin"}`,
		`{"principal":"a","role":"auditor","permissions":["all"]}`, `{"principal":"a","role":"auditor","expires_days":-1}`,
		`{"principal":"a","role":"auditor","extra":1}`, `{"principal":"a","principal":"b","role":"auditor"}`, `{`,
	} {
		r.do("POST", "/v1/access/tokens", r.admin, "application/json", []byte(bad)).want(400, "malformed")
	}
}

func TestKeysThatMustNotBeUsedAreRefused(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	register := func(req keyRequest) httpAnswer {
		b, err := json.Marshal(req)
		must(t, err)
		return r.do("POST", "/v1/keys", r.admin, "application/json", b)
	}
	small := log.PublicKey{1}
	vkey, err := small.VKey("eve")
	must(t, err)
	register(keyRequest{Principal: "eve", VKey: vkey}).want(403, "key")
	vkey, err = crm.public().VKey("crm")
	must(t, err)
	register(keyRequest{Principal: "eve", VKey: vkey}).want(409, "exists") // somebody's already
	register(keyRequest{Principal: "eve", VKey: "nonsense"}).want(400, "malformed")
	register(keyRequest{Principal: "e e", VKey: vkey}).want(400, "malformed")

	next := r.submitter("other", "m1/x")
	vkey, err = next.public().VKey("TEST-vectors")
	must(t, err)
	register(keyRequest{Principal: "eve", VKey: vkey}).want(403, "key")
}

func TestARevokedKeySignsNoMore(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	id := crm.public().ID()
	r.do("DELETE", fmt.Sprintf("/v1/keys/%x", id[:]), r.admin, "application/json", []byte(`{"compromised_since":3}`)).want(200, "")
	crm.send(crm.next("migration.load", "")).want(403, "key")
	r.do("DELETE", fmt.Sprintf("/v1/keys/%x", id[:]), r.admin, "", nil).want(404, "not-found")
	r.do("DELETE", "/v1/keys/zz", r.admin, "", nil).want(400, "malformed")
}
