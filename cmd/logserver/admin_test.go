package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// host stops the server and opens its logs again, without listeners, for tests
// that reach inside. Until start is called, nobody serves the queues.
func (r *running) host() (h *host, start func()) {
	r.t.Helper()
	must(r.t, r.stop())
	h, err := openHost(r.t.Context(), r.config(), slog.New(slog.NewTextHandler(r.t.Output(), nil)), prometheus.NewRegistry())
	must(r.t, err)
	var g errgroup.Group
	ctx, stop := context.WithCancel(context.Background())
	r.t.Cleanup(func() {
		stop()
		must(r.t, errors.Join(g.Wait(), h.close()))
	})
	return h, func() { h.start(ctx, &g) }
}

// ask serves one request without a network.
func (h *host) ask(ctx context.Context, method, path, token, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	h.mux.ServeHTTP(w, r)
	return w
}

// heldBack sends a request but for its body. When it returns, the server waits
// for the body: the token has been looked up. send sends it.
func (r *running) heldBack(method, path, token, body string) (send func() httpAnswer) {
	r.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	must(r.t, err)
	_, err = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
		method, path, token, len(body))
	must(r.t, err)
	answer := bufio.NewReader(c)
	line, err := answer.ReadString('\n')
	must(r.t, err)
	if !strings.Contains(line, " 100 ") {
		r.t.Fatalf("%s %s is answered before its body: %s", method, path, line)
	}
	return func() httpAnswer {
		r.t.Helper()
		defer func() { _ = c.Close() }() // read to the end
		_, err := io.WriteString(c, body)
		must(r.t, err)
		_, err = answer.ReadString('\n') // the end of 100 Continue
		must(r.t, err)
		resp, err := http.ReadResponse(answer, nil)
		must(r.t, err)
		b, err := io.ReadAll(resp.Body)
		must(r.t, err)
		return httpAnswer{r.t, resp.StatusCode, resp.Header, b}
	}
}

// kindsFrom counts the kinds of the entries from index from on.
func (r *running) kindsFrom(from uint64) map[string]int {
	r.t.Helper()
	kinds := map[string]int{}
	for i := from; i < r.size(); i++ {
		e, err := log.ParseEntry(r.get(fmt.Sprintf("/v1/entries/%d", i), r.admin).want(200, "").body)
		must(r.t, err)
		kinds[e.Event.Kind]++
	}
	return kinds
}

// fsck stops the server, checks everything, and starts it again.
func (r *running) fsck(want int) string {
	r.t.Helper()
	must(r.t, r.stop())
	var out bytes.Buffer
	if code := run(r.t.Context(), []string{"fsck", "-config", filepath.Join(r.dir, "config.yaml")}, &out, &out, nil); code != want {
		r.t.Errorf("fsck exits with %d, want %d: %s", code, want, &out)
	}
	r.start()
	return out.String()
}

func newKey(t testing.TB) (ed25519.PrivateKey, log.PublicKey) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	return key, log.PublicKey(key.Public().(ed25519.PublicKey))
}

// keyBody is the body that registers a key, with the word of the previous one if there is one.
func keyBody(t testing.TB, principal string, key log.PublicKey, previous ed25519.PrivateKey) string {
	t.Helper()
	vkey, err := key.VKey(principal)
	must(t, err)
	req := keyRequest{Principal: principal, VKey: vkey}
	if previous != nil {
		req.Previous = log.Sign(previous, log.SuccessionText(testOrigin, principal, key)).Marshal()
	}
	b, err := json.Marshal(req)
	must(t, err)
	return string(b)
}

// statuses sends requests at once, and counts what comes.
func (r *running) statuses(n int, method, path string, body func(int) string) map[int]int {
	var mu sync.Mutex
	var wg sync.WaitGroup
	all := map[int]int{}
	for i := range n {
		wg.Go(func() {
			a := r.do(method, path, r.admin, "application/json", []byte(body(i)))
			mu.Lock()
			defer mu.Unlock()
			all[a.status]++
		})
	}
	wg.Wait()
	return all
}

// What an administrator asks is checked before it becomes an entry: an entry
// that the fold does not take would be there for ever.
func TestNoAdministratorBreaksTheLog(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	id := crm.public().ID()
	path := fmt.Sprintf("/v1/keys/%x", id[:])
	begin := r.size()
	for _, since := range []uint64{begin + 100, 1 << 53, math.MaxUint64} {
		r.do("DELETE", path, r.admin, "application/json", fmt.Appendf(nil, `{"compromised_since":%d}`, since)).want(400, "malformed")
	}
	if n := r.size(); n != begin {
		t.Fatalf("refused requests left %d entries", n-begin)
	}

	_, key := newKey(t)
	if got := r.statuses(8, "POST", "/v1/keys", func(int) string { return keyBody(t, "erp", key, nil) }); got[201] != 1 || got[409] != 7 {
		t.Errorf("8 registrations of one key answer %v, want one 201 and seven 409", got)
	}
	r.do("POST", "/v1/keys", r.admin, "application/json", []byte(keyBody(t, "eve", key, nil))).want(409, "exists")

	// Keys that name a previous one, while that is revoked: either way round.
	var revoked map[int]int
	var wg sync.WaitGroup
	wg.Go(func() { revoked = r.statuses(8, "DELETE", path, func(int) string { return `{"compromised_since":3}` }) })
	got := r.statuses(8, "POST", "/v1/keys", func(int) string {
		_, next := newKey(t)
		return keyBody(t, "crm", next, crm.key)
	})
	wg.Wait()
	if got[201]+got[403] != 8 {
		t.Errorf("8 successors answer %v, want 201 before the revocation and 403 after it", got)
	}
	if revoked[200] != 1 || revoked[404] != 7 {
		t.Errorf("8 revocations of one key answer %v, want one 200 and seven 404", revoked)
	}
	kinds := r.kindsFrom(begin)
	if kinds["key.registered"] != 1+got[201] || kinds["key.revoked"] != 1 {
		t.Errorf("the log has %v for registrations %v and one revocation", kinds, got)
	}

	var a tokenAnswer
	r.do("POST", "/v1/access/tokens", r.admin, "application/json", []byte(`{"principal":"aud","role":"auditor"}`)).want(201, "").into(&a)
	if got := r.statuses(8, "DELETE", "/v1/access/tokens/"+a.ID, func(int) string { return "" }); got[200] != 1 || got[404] != 7 {
		t.Errorf("8 revocations of one token answer %v, want one 200 and seven 404", got)
	}
	r.fsck(exitOK)
	erp := r.submitter("erp", "m1/orders")
	erp.append("stream.open", erp.opening())
}

func TestAnEntryThatTheFoldDoesNotTakeIsAFindingAndNoEnd(t *testing.T) {
	a := newAccess(time.Now)
	apply := func(kind string, payload []byte) error {
		e := log.Entry{Event: log.Event{Kind: kind, Log: testOrigin, Migration: "log"}, Log: log.Part{Attested: log.AttestedByLog}}
		checked, applied := a.Check(7, e, payload), a.Apply(7, e, payload)
		if (checked == nil) != (applied == nil) {
			t.Errorf("Check of %s = %v, Apply = %v", kind, checked, applied)
		}
		return applied
	}
	_, created, err := newToken("svc", "operator", nil, time.Now().Add(time.Hour))
	must(t, err)
	must(t, apply("access.token.created", created.Marshal()))
	key, public := newKey(t)
	must(t, apply("key.registered", log.KeyRegistered{Key: public, Principal: "svc"}.Marshal()))
	for _, bad := range []struct {
		kind    string
		payload []byte
	}{
		{"access.token.created", nil},
		{"access.token.created", created.Marshal()},
		{"access.token.revoked", nil},
		{"access.token.revoked", log.TokenRevoked{ID: "other"}.Marshal()},
		{"key.registered", nil},
		{"key.registered", log.KeyRegistered{Key: public, Principal: "eve"}.Marshal()},
		{"key.revoked", nil},
		{"key.revoked", log.KeyRevoked{}.Marshal()},
	} {
		if err := apply(bad.kind, bad.payload); err == nil {
			t.Errorf("%s with %q is taken", bad.kind, bad.payload)
		}
	}
	if _, ok := a.tokens[created.Hash]; !ok || len(a.tokens) != 1 || len(a.byID) != 1 {
		t.Errorf("what was not taken changed the tokens: %v", a.tokens)
	}
	if err := a.KeyValid(log.Sign(key, nil).Key, "svc", 8); err != nil {
		t.Errorf("what was not taken changed the keys: %v", err)
	}
}

func TestABodyThatWasHeldBackDoesNothingAfterARevocation(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening(), "x.customer", `{"name":"Zoë"}`)
	_, key := newKey(t)
	id := crm.public().ID()
	var eve tokenAnswer
	r.do("POST", "/v1/access/tokens", r.admin, "application/json", []byte(`{"principal":"eve","role":"admin"}`)).want(201, "").into(&eve)
	events := crm.next("migration.load", "")
	held := []func() httpAnswer{
		r.heldBack("POST", "/v1/access/tokens", eve.Token, `{"principal":"eve","role":"admin"}`),
		r.heldBack("POST", "/v1/keys", eve.Token, keyBody(t, "eve", key, nil)),
		r.heldBack("DELETE", fmt.Sprintf("/v1/keys/%x", id[:]), eve.Token, `{"compromised_since":1}`),
		r.heldBack("DELETE", fmt.Sprintf("/v1/payloads/%d", a.Index+1), eve.Token, `{"authority":"x"}`),
		r.heldBack("POST", "/v1/events", eve.Token, string(body(events, crm.tail(events)))),
	}
	r.do("DELETE", "/v1/access/tokens/"+eve.ID, r.admin, "", nil).want(200, "")
	before := r.size()
	for _, send := range held {
		send().want(401, "unauthenticated")
	}
	if after := r.size(); after != before {
		t.Errorf("a revoked token made entries: %v", r.kindsFrom(before))
	}
	r.get(fmt.Sprintf("/v1/payloads/%d", a.Index+1), r.admin).want(200, "")
	crm.append("migration.load", "")
}

func TestWhatWaitsInTheQueueDoesNothingAfterARevocation(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening(), "x.customer", `{"name":"Zoë"}`)
	var eve tokenAnswer
	r.do("POST", "/v1/access/tokens", r.admin, "application/json", []byte(`{"principal":"eve","role":"admin"}`)).want(201, "").into(&eve)
	_, key := newKey(t)
	h, start := r.host()
	l := h.sites[0].ledger
	before := l.journal.Size()
	payload := fmt.Sprintf("/v1/payloads/%d", a.Index+1)
	var answers [5]*httptest.ResponseRecorder
	var wg sync.WaitGroup
	for i, q := range [][4]string{
		{"DELETE", "/v1/access/tokens/" + eve.ID, r.admin, ""},
		{"POST", "/v1/access/tokens", eve.Token, `{"principal":"eve","role":"admin"}`},
		{"POST", "/v1/keys", eve.Token, keyBody(t, "eve", key, nil)},
		{"GET", payload, eve.Token, ""},
		{"DELETE", payload, eve.Token, `{"authority":"x"}`},
	} {
		wg.Go(func() { answers[i] = h.ask(t.Context(), q[0], q[1], q[2], q[3]) })
		for l.seq.Queued() <= i {
			time.Sleep(time.Millisecond)
		}
	}
	start()
	wg.Wait()
	for i, w := range answers {
		if want := map[bool]int{true: 200, false: 401}[i == 0]; w.Code != want {
			t.Errorf("request %d answers %d, want %d: %s", i, w.Code, want, w.Body)
		}
	}
	if n := l.journal.Size() - before; n != 1 {
		t.Errorf("%d entries, want the revocation alone", n)
	}
	if _, err := l.journal.Payload(a.Index + 1); err != nil {
		t.Errorf("payload: %v", err)
	}
}

func TestAnErasureIsDoneWhetherSomebodyWaitsOrNot(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening(), "x.customer", `{"name":"Zoë"}`)
	faults := newFaultyFS()
	r.fs = faults
	h, start := r.host()
	start()
	l := h.sites[0].ledger
	before := l.journal.Size()
	synced, release := faults.hold(filepath.Join("journal", "segments"))
	ctx, hangUp := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ask(ctx, "DELETE", fmt.Sprintf("/v1/payloads/%d", a.Index+1), r.admin, `{"authority":"gdpr:art17"}`)
	}()
	<-synced // the entry is being written
	hangUp()
	time.Sleep(20 * time.Millisecond) // whoever looks at the context has seen it
	release()
	<-done
	if err := l.journal.Wait(t.Context(), before+1); err != nil {
		t.Fatal(err)
	}
	if _, err := l.journal.Payload(a.Index + 1); !errors.Is(err, journal.ErrErased) {
		t.Errorf("the log says that the payload is erased, and reading it gives %v", err)
	}
}

func TestOfManyErasuresOfOnePayloadOneIsLogged(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening(), "x.customer", `{"name":"Zoë"}`)
	before := r.size()
	got := r.statuses(8, "DELETE", fmt.Sprintf("/v1/payloads/%d", a.Index+1), func(int) string { return `{"authority":"gdpr:art17"}` })
	if got[200] != 1 || got[410] != 7 {
		t.Errorf("8 erasures of one payload answer %v, want one 200 and seven 410", got)
	}
	if kinds := r.kindsFrom(before); kinds["payload.erased"] != 1 {
		t.Errorf("the log has %v, want one payload.erased", kinds)
	}
	r.fsck(exitOK)
}

func TestKeysOfARequestAreTakenAsSpelled(t *testing.T) {
	r := newLog(t, nil)
	for _, bad := range []string{
		`{"principal":"a","PRINCIPAL":"b","role":"auditor"}`, `{"Principal":"a","role":"auditor"}`, `{"principal":"a","role":"auditor","ſ":1}`,
	} {
		r.do("POST", "/v1/access/tokens", r.admin, "application/json", []byte(bad)).want(400, "malformed")
	}
}

func TestEveryRefusalOfSomebodyKnownIsLogged(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	opened := crm.append("stream.open", crm.opening())
	small, err := log.PublicKey{1}.VKey("eve")
	must(t, err)
	_, key := newKey(t)
	stranger, _ := newKey(t)
	for name, ask := range map[string]struct{ method, path, token, body string }{
		"a key of small order":             {"POST", "/v1/keys", r.admin, fmt.Sprintf(`{"principal":"eve","vkey":%q}`, small)},
		"a successor of no key":            {"POST", "/v1/keys", r.admin, keyBody(t, "eve", key, stranger)},
		"an erasure of what must stay":     {"DELETE", fmt.Sprintf("/v1/payloads/%d", opened.Index), r.admin, `{"authority":"x"}`},
		"a token by a migration service":   {"POST", "/v1/access/tokens", crm.token, `{"principal":"eve","role":"admin"}`},
		"a payload to a migration service": {"GET", fmt.Sprintf("/v1/payloads/%d", opened.Index), crm.token, ""},
		"an event by an auditor":           {"POST", "/v1/events", r.token("aud", "auditor"), `{"event":{}}`},
	} {
		t.Run(name, func(t *testing.T) {
			before := r.size()
			if a := r.do(ask.method, ask.path, ask.token, "application/json", []byte(ask.body)); a.status != 403 {
				t.Fatalf("answers %d: %s", a.status, a.body)
			}
			// The second of a kind in one window is only counted.
			if n := r.size() - before; n > 1 || n == 1 && r.kindsFrom(before)["log.refused"] != 1 {
				t.Errorf("the refusal left %v", r.kindsFrom(before))
			}
		})
	}
	must(t, r.stop())
	r.start()
	var page pageJSON
	r.get("/v1/events?kind=log.refused", r.admin).want(200, "").into(&page)
	count := uint64(0)
	for _, item := range page.Items {
		p, err := log.ParseRefused(r.get(fmt.Sprintf("/v1/payloads/%d", item.Index), r.admin).want(200, "").body)
		must(t, err)
		count += p.Count
	}
	if count != 6 {
		t.Errorf("the log counts %d refusals, want 6", count)
	}
}
