package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/pipe-roll/piperoll/docs/api"
	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/index"
	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/pipe-roll/piperoll/log/tiles"
	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// An inside is a log that runs without a listener, so that a test reaches what no client can.
type inside struct {
	t *testing.T
	*host
	*site
	reg    *prometheus.Registry
	logged *lockedBuffer
}

// lockedBuffer is what a server logs, while it runs.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// inside opens a log that is stopped.
func (r *running) inside() *inside {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	in := &inside{t: r.t, reg: prometheus.NewRegistry(), logged: &lockedBuffer{}}
	var err error
	in.host, err = openHost(ctx, r.config(), slog.New(slog.NewTextHandler(in.logged, nil)), in.reg)
	must(r.t, err)
	in.site = in.sites[0]
	var g errgroup.Group
	in.start(ctx, &g)
	r.t.Cleanup(func() {
		cancel()
		must(r.t, errors.Join(g.Wait(), in.host.close()))
	})
	return in
}

func (in *inside) do(method, path, token string) httpAnswer {
	in.t.Helper()
	req := httptest.NewRequestWithContext(in.t.Context(), method, path, nil)
	req.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	in.mux.ServeHTTP(w, req)
	return httpAnswer{in.t, w.Code, w.Header(), w.Body.Bytes()}
}

// metric gives the sum of a metric over those of its series that have the label's value.
func (in *inside) metric(name, label, value string) (sum float64) {
	in.t.Helper()
	families, err := in.reg.Gather()
	must(in.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			matches := label == ""
			for _, l := range m.GetLabel() {
				matches = matches || l.GetName() == label && l.GetValue() == value
			}
			if f.GetName() == name && matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// serveHandler serves one handler of a log on a real port.
func (in *inside) serveHandler(h handler) string {
	srv := httptest.NewServer(in.watch(in.allow(h, permAdmin)))
	in.t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// halfClosed sends a request, closes its half of the connection, and reads what comes.
func halfClosed(t *testing.T, addr, token string) (*http.Response, []byte, error) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	must(t, err)
	defer func() { _ = c.Close() }() // read to its end
	_, err = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", token)
	must(t, err)
	must(t, c.(*net.TCPConn).CloseWrite())
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

// A 200 with nothing in it would say "in the log already".
func TestAClientThatHasClosedItsHalfIsNeverToldOK(t *testing.T) {
	r := newLog(t, nil)
	must(t, r.stop())
	in := r.inside()
	addr := in.serveHandler(func(_ http.ResponseWriter, r *http.Request, _ principal) error {
		<-r.Context().Done()
		return fmt.Errorf("wait for the index: %w", r.Context().Err())
	})
	resp, b, err := halfClosed(t, addr, r.admin)
	must(t, err)
	httpAnswer{t, resp.StatusCode, resp.Header, b}.want(503, "timeout")
}

func TestARequestThatTakesTooLongIsToldToTryAgain(t *testing.T) {
	r := newLog(t, func(c string) string { return c + "limits: {request_timeout: 30ms}\n" })
	must(t, r.stop())
	in := r.inside()
	addr := in.serveHandler(func(_ http.ResponseWriter, r *http.Request, _ principal) error {
		return in.ledger.index.Wait(r.Context(), 1<<40)
	})
	r.url = "http://" + addr
	a := r.get("/", r.admin).want(503, "timeout")
	if a.header.Get("Retry-After") == "" || !bytes.Contains(a.body, []byte("may or may not be in the log")) {
		t.Errorf("%v %s does not say what to do", a.header, a.body)
	}
}

func TestAPanicIsAnErrorWithAnAnswer(t *testing.T) {
	r := newLog(t, nil)
	must(t, r.stop())
	in := r.inside()
	var began atomic.Bool
	addr := in.serveHandler(func(w http.ResponseWriter, _ *http.Request, _ principal) error {
		if began.Load() {
			_, _ = w.Write(make([]byte, 1<<16)) // it leaves the buffers
		}
		panic("bad index math")
	})
	resp, b, err := halfClosed(t, addr, r.admin)
	must(t, err)
	a := httpAnswer{t, resp.StatusCode, resp.Header, b}.want(500, "internal")
	if bytes.Contains(a.body, []byte("index math")) || !bytes.Contains(a.body, []byte("may or may not be in the log")) {
		t.Errorf("the answer to a panic is %s", a.body)
	}
	began.Store(true)
	if _, _, err := halfClosed(t, addr, r.admin); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an answer that a panic cut short ends with %v, want an unexpected EOF", err)
	}
	if n := in.metric("piperoll_problems_total", "type", "urn:piperoll:problem:internal"); n != 2 {
		t.Errorf("%v internal problems are counted, want 2", n)
	}
	if text := in.logged.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "bad index math") {
		t.Errorf("the server's log says of a panic: %s", text)
	}
}

func TestAPayloadIsNotGivenOutWithoutItsRecord(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening(), "migration.extract", `{"rows":3}`)
	must(t, r.stop())
	in := r.inside()
	path := fmt.Sprintf("/v1/payloads/%d", a.Index+1)
	in.do("GET", path, r.admin).want(200, "")
	in.ledger.seq.Latch(fmt.Errorf("write %s: disk is gone", r.dir))
	refused := in.do("GET", path, r.admin).want(503, "read-only")
	if bytes.Contains(refused.body, []byte("rows")) || refused.header.Get(headerSalt) != "" {
		t.Errorf("the payload of a log that records nothing: %s", refused.body)
	}
	ready := in.do("GET", "/readyz", "").want(503, "")
	for _, text := range [][]byte{refused.body, ready.body} {
		if bytes.Contains(text, []byte(r.dir)) {
			t.Errorf("anyone can read where the log's files are: %s", text)
		}
	}
	in.do("GET", fmt.Sprintf("/v1/entries/%d", a.Index), r.admin).want(200, "") // reads go on
}

func TestAPayloadErasedWhileItsReadIsRecordedIsNotGivenOut(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening(), "migration.extract", `{"rows":3}`)
	must(t, r.stop())
	faults := newFaultyFS()
	r.fs = faults
	in := r.inside()
	recording, release := faults.hold(filepath.Join("journal", "segments"))
	answer, erased := make(chan httpAnswer, 1), make(chan error, 1)
	go func() { answer <- in.do("GET", fmt.Sprintf("/v1/payloads/%d", a.Index+1), r.admin) }()
	<-recording
	go func() { erased <- in.ledger.journal.Erase(a.Index + 1) }()
	for {
		if _, err := in.ledger.journal.Payload(a.Index + 1); errors.Is(err, journal.ErrErased) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	release()
	(<-answer).want(410, "gone")
	must(t, <-erased)
}

// Between the entry of an erasure and its deed, nobody who comes later gets the payload.
func TestAPayloadWhoseErasureIsInTheLogIsNotGivenOut(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening(), "migration.extract", `{"rows":3}`)
	must(t, r.stop())
	in := r.inside()
	in.ledger.erasing.Lock()
	size := in.ledger.journal.Size()
	answer := make(chan httpAnswer, 1)
	go func() { answer <- in.do("GET", fmt.Sprintf("/v1/payloads/%d", a.Index+1), r.admin) }()
	for in.ledger.journal.Size() == size {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond) // its record is durable: it would answer now
	must(t, in.ledger.journal.Erase(a.Index+1))
	in.ledger.erasing.Unlock()
	(<-answer).want(410, "gone")
}

func TestAPanicInAReadStopsNoErasure(t *testing.T) {
	l := &ledger{} // its journal is missing
	func() {
		defer func() {
			if recover() == nil {
				t.Error("nothing panics")
			}
		}()
		_, _ = l.openPayload(0)
	}()
	if !l.erasing.TryLock() {
		t.Error("after a panic in a read no payload can be erased any more")
	}
}

func TestLateOrReadOnlyIsNotReady(t *testing.T) {
	for _, c := range []struct {
		readOnly        error
		behind, publish time.Duration
		ready           bool
	}{
		{nil, 0, time.Second, true},
		{nil, 3 * time.Second, time.Second, true},
		{nil, 3*time.Second + 1, time.Second, false},
		{nil, time.Second, 10 * time.Millisecond, true}, // a slow disk
		{nil, time.Minute, 30 * time.Second, true},
		{errors.New("latched"), 0, time.Second, false},
	} {
		if reason := notReady(c.readOnly, c.behind, c.publish); (reason == "") != c.ready {
			t.Errorf("%+v: reason %q", c, reason)
		}
	}
}

func TestSlowBodiesDoNotStopOthers(t *testing.T) {
	const most = 1 << 20
	r := newLog(t, func(c string) string { return c + "limits: {body_bytes: 1048576, bodies_bytes: 1048576}\n" })
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	auditor := r.token("ann", "auditor")
	must(t, r.stop())
	in := r.inside()
	srv := httptest.NewServer(limitBodies(in.mux, in.limits, in.bodies, in.fail))
	t.Cleanup(srv.Close)
	r.url = srv.URL
	send := func(token, framing string, sent int) net.Conn {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		must(t, err)
		t.Cleanup(func() { _ = c.Close() }) // most are closed before
		_, err = fmt.Fprintf(c, "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n%s", token, framing, make([]byte, sent))
		must(t, err)
		return c
	}
	// holds waits until all bodies hold that much.
	holds := func(want int64) {
		free := func(n int64) bool {
			ok := in.bodies.TryAcquire(n)
			if ok {
				in.bodies.Release(n)
			}
			return ok
		}
		for !free(most-want) || free(most-want+1) {
			time.Sleep(time.Millisecond)
		}
	}
	declared := fmt.Sprintf("Content-Length: %d", most)
	var slow []net.Conn
	for _, framing := range []string{declared, declared, declared, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"} {
		slow = append(slow, send(crm.token, framing, 0))
	}
	holds(5 * bodyStep)
	crm.append("migration.load", `{}`)

	// Who may not append is told so before a byte of the body was asked for.
	resp, err := http.ReadResponse(bufio.NewReader(send(auditor, declared, 0)), nil)
	must(t, err)
	if resp.StatusCode != 403 {
		t.Errorf("an auditor's body is answered with %d", resp.StatusCode)
	}

	// What has come counts, as long as it is there.
	for _, c := range slow {
		must(t, c.Close())
	}
	holds(0)
	large := send(crm.token, declared, most-1)
	holds(most)
	crm.send(crm.next("migration.load", `{}`)).want(503, "overloaded")
	must(t, large.Close())
	holds(0)
	crm.append("migration.load", `{}`)
}

// neverPublish leaves whoever waits for proofs waiting.
func neverPublish(config string) string {
	return strings.NewReplacer("idle_publish: 10m", "idle_publish: 1h", "\npublish: 1s", "\npublish: 1h").Replace(config)
}

// waitForProofs sends events and waits for their proofs, until stop is called; it gives the answer.
func (in *inside) waitForProofs(token string, text []byte) (done <-chan struct{}, stop func() httpAnswer) {
	ctx, cancel := context.WithCancel(in.t.Context())
	req := httptest.NewRequestWithContext(ctx, "POST", "/v1/events", bytes.NewReader(text))
	for key, value := range map[string]string{"Authorization": "Bearer " + token, "Content-Type": ndjson, "Prefer": "wait=30"} {
		req.Header.Set(key, value)
	}
	w := httptest.NewRecorder()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		limitBodies(in.mux, in.limits, in.bodies, in.fail).ServeHTTP(w, req)
	}()
	return answered, func() httpAnswer {
		cancel()
		<-answered
		return httpAnswer{in.t, w.Code, w.Header(), w.Body.Bytes()}
	}
}

func TestWhoWaitsForProofsHoldsNoBody(t *testing.T) {
	r := newLog(t, func(c string) string {
		return neverPublish(c) + "limits: {body_bytes: 65536, bodies_bytes: 65536}\n"
	})
	crm := r.submitter("crm", "m1/customers")
	must(t, r.stop())
	in := r.inside()
	events := crm.next("stream.open", crm.opening())
	size := in.ledger.journal.Size()
	done, stop := in.waitForProofs(crm.token, body(events, crm.tail(events)))
	await(t, "the events to be durable", func() bool { return in.ledger.journal.Size() > size })
	await(t, "the body's budget", func() bool {
		free := in.bodies.TryAcquire(in.limits.BodiesBytes)
		if free {
			in.bodies.Release(in.limits.BodiesBytes)
		}
		return free
	})
	select {
	case <-done:
		t.Error("it did not wait")
	default:
	}
	stop().want(201, "")
}

// heap gives the bytes that are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestWhoWaitsForProofsHoldsNoPayload(t *testing.T) {
	r := newLog(t, neverPublish)
	crm := r.submitter("crm", "m1/customers")
	must(t, r.stop())
	in := r.inside()
	pairs := []string{"stream.open", crm.opening()}
	for range 8 {
		pairs = append(pairs, "x.blob", fmt.Sprintf("%q", strings.Repeat("x", 2<<20)))
	}
	events := crm.next(pairs...)
	text := body(events, crm.tail(events))
	size, before := in.ledger.journal.Size(), heap()
	done, stop := in.waitForProofs(crm.token, text)
	await(t, "the events to be durable", func() bool { return in.ledger.journal.Size() > size })
	await(t, "their payloads to be garbage", func() bool { return heap() < before+int64(len(text))/4 })
	select {
	case <-done:
		t.Error("it did not wait")
	default:
	}
	runtime.KeepAlive(events)
	stop().want(201, "")
}

func TestEvery403OfAPrincipalIsInTheLog(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	vkey, err := log.PublicKey{1}.VKey("eve") // of small order
	must(t, err)
	bad, err := json.Marshal(keyRequest{Principal: "eve", VKey: vkey})
	must(t, err)
	r.do("DELETE", "/v1/payloads/0", r.admin, "application/json", []byte(`{"authority":"x"}`)).want(403, "forbidden")
	r.do("POST", "/v1/keys", r.admin, "application/json", bad).want(403, "key")
	r.get("/v1/payloads/0", crm.token).want(403, "forbidden")
	r.get("/tile/entries/000.p/1", r.token("wit", "witness")).want(403, "forbidden")
	fork := crm.next("migration.load", "")
	fork[0].event.Prev[0] ^= 1
	crm.send(fork).want(409, "fork")
	crm.send(fork).want(409, "fork")

	var page pageJSON
	r.get("/v1/events?kind=log.refused", r.admin).want(200, "").into(&page)
	var got []string
	for _, item := range page.Items {
		e, err := log.ParseEntry(item.Entry)
		must(t, err)
		p, err := log.ParseRefused(r.get(fmt.Sprintf("/v1/payloads/%d", item.Index), r.admin).want(200, "").body)
		must(t, err)
		got = append(got, fmt.Sprintf("%s %s %s %d", e.Log.By, p.Reason, p.Route, p.Count))
		if p.Reason == "key" && p.Request != log.Commit(log.Payload{Salt: p.Salt, Bytes: bad}, "application/octet-stream") {
			t.Error("the refusal does not commit to the request")
		}
	}
	want := []string{
		"admin forbidden delete:/v1/payloads/index 1", "admin key post:/v1/keys 1", "crm forbidden get:/v1/payloads/index 1",
		"wit forbidden get:/tile/entries/ 1", "crm fork post:/v1/events 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("refusals %q, want %q", got, want)
	}
}

func TestADamagedTileIsAnErrorThatTheOperatorHears(t *testing.T) {
	r := newLog(t, fastPublish)
	crm := r.submitter("crm", "m1/customers")
	pairs := []string{"stream.open", crm.opening()}
	for range 600 {
		pairs = append(pairs, "migration.load", "")
	}
	crm.append(pairs...)
	must(t, r.stop())
	in := r.inside()
	in.do("GET", "/tile/0/999", r.admin).want(404, "not-found")
	file := filepath.Join(r.dir, "data", "tiles", "tile", "entries", "001")
	b := read(t, file)
	b[777] ^= 1
	must(t, os.WriteFile(file, b, 0o600))
	a := in.do("GET", "/tile/entries/001", r.admin).want(500, "internal")
	if a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("caches are told %q of damage", a.header.Get("Cache-Control"))
	}
	if n := in.metric("piperoll_problems_total", "type", "urn:piperoll:problem:internal"); n != 1 {
		t.Errorf("%v internal problems are counted, want 1", n)
	}
	if text := in.logged.String(); !strings.Contains(text, "tile/entries/001: tile is damaged") {
		t.Errorf("the server's log says of a damaged tile: %s", text)
	}
	in.do("GET", "/tile/0/000", r.admin).want(200, "")
	for route, n := range map[string]float64{"/tile/": 2, "/tile/entries/": 1} {
		if got := in.metric("piperoll_requests_total", "route", route); got != n {
			t.Errorf("%v requests of %s are counted, want %v", got, route, n)
		}
	}
}

func TestTheMachineryIsInTheMetrics(t *testing.T) {
	r := newLog(t, fastPublish)
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	must(t, r.stop())
	in := r.inside()
	in.do("GET", "/v1/entries/0", r.admin).want(200, "")
	in.do("GET", "/v1/entries/x", r.admin).want(400, "malformed")
	size := float64(in.ledger.journal.Size())
	for name, want := range map[string]float64{
		"piperoll_size": size, "piperoll_signed_size": size, "piperoll_index_cursor": size,
		"piperoll_index_lag": 0, "piperoll_behind_seconds": 0, "piperoll_unpublished_total": 0, "piperoll_read_only": 0,
		"piperoll_tile_backlog": 0, "piperoll_queue_requests": 0, "piperoll_journal_queued_records": 0, "piperoll_journal_queued_bytes": 0,
		"piperoll_published_size": size, "piperoll_requests_total": 2, "piperoll_request_seconds": 2, "piperoll_append_seconds": 0,
	} {
		if got := in.metric(name, "", ""); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for code, want := range map[string]float64{"2xx": 1, "4xx": 1, "5xx": 0} {
		if got := in.metric("piperoll_requests_total", "code", code); got != want {
			t.Errorf("%v requests answered %s, want %v", got, code, want)
		}
	}
}

func TestAPathSaysWhichMethodsItTakes(t *testing.T) {
	r := newLog(t, nil)
	for path, allow := range map[string]string{
		"/v1/events": "GET, HEAD, POST", "/v1/payloads/1": "GET, HEAD, DELETE", "/v1/keys": "POST", "/checkpoint": "GET, HEAD",
		"/tile/0/000": "GET, HEAD", "/readyz": "GET, HEAD", "/v1/streams/m1/customers": "GET, HEAD",
	} {
		a := r.do("PUT", path, r.admin, "", nil).want(405, "method")
		if got := a.header.Get("Allow"); got != allow {
			t.Errorf("PUT %s: Allow is %q, want %q", path, got, allow)
		}
	}
}

func TestTheDescriptionHasEveryRouteAndEveryProblem(t *testing.T) {
	var doc struct {
		Paths      map[string]map[string]yaml.Node
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Enum []string }
			}
		}
	}
	must(t, yaml.Unmarshal(api.OpenAPI, &doc))
	var described, served []string
	for path, item := range doc.Paths {
		for method, node := range item {
			if method == "parameters" {
				continue
			}
			described = append(described, strings.ToUpper(method)+" "+path)
			var operation struct {
				RequestBody any `yaml:"requestBody"`
				Responses   map[string]any
			}
			must(t, node.Decode(&operation))
			for _, status := range []string{"413", "415"} {
				if _, ok := operation.Responses[status]; ok != (operation.RequestBody != nil) {
					t.Errorf("%s %s: response %s is described: %t, a body: %t", method, path, status, ok, operation.RequestBody != nil)
				}
			}
		}
	}
	for _, route := range append((&site{ledger: &ledger{}}).table(), (&host{}).table()...) {
		served = append(served, route.method+" "+strings.Replace(route.path, "...}", "}", 1))
	}
	slices.Sort(described)
	slices.Sort(served)
	if !slices.Equal(described, served) {
		t.Errorf("described: %q\nserved: %q", described, served)
	}
	problems := []string{problemOf(errors.New("anything")).Type}
	for _, k := range kinds {
		problems = append(problems, problemPrefix+k.name)
		if k.hint == "" {
			t.Errorf("%s does not say what to do", k.name)
		}
	}
	slices.Sort(problems)
	if want := doc.Components.Schemas["Problem"].Properties["type"].Enum; !slices.Equal(slices.Compact(problems), want) {
		t.Errorf("described: %q\nin use: %q", want, slices.Compact(problems))
	}
}

func TestErrorsOfTheMachineryAreWhatTheyAreOverHTTP(t *testing.T) {
	for err, want := range map[error]string{
		journal.ErrNoKey: "key-missing", log.ErrKeyTaken: "exists", index.ErrQuery: "malformed", journal.ErrTooLarge: "too-large", journal.ErrStale: "overloaded", journal.ErrErased: "gone",
		errors.New("open /srv/log/x"): "internal", journal.ErrStopped: "read-only",
	} {
		p := problemOf(fmt.Errorf("deed: %w", err))
		if p.name() != want || p.Status >= 500 && strings.Contains(p.Detail, "deed") {
			t.Errorf("%v is %+v, want %s", err, p, want)
		}
	}
}

func TestAServerThatRefusesItsFilesExitsWithAFailedCheck(t *testing.T) {
	r := newLog(t, nil)
	must(t, r.stop())
	anchor := filepath.Join(r.dir, "anchor", "anchor")
	good := read(t, anchor)
	must(t, os.WriteFile(anchor, make([]byte, len(good)), 0o600))
	var out bytes.Buffer
	if code := run(t.Context(), []string{"serve", "-config", filepath.Join(r.dir, "config.yaml")}, &out, &out, nil); code != exitFailed {
		t.Errorf("serve without an anchor exits with %d: %s", code, &out)
	}
	for _, err := range []error{tiles.ErrRefused, journal.ErrCorrupt} {
		if code := exitCode(fmt.Errorf("open log: %w", err)); code != exitFailed {
			t.Errorf("%v exits with %d", err, code)
		}
	}
	must(t, os.WriteFile(anchor, good, 0o600))
}

func TestABodyOfAnySizeIsReadWhole(t *testing.T) {
	all := semaphore.NewWeighted(1 << 20)
	var failed error
	h := limitBodies(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := readBody(r)
		must(t, err)
		if kept := bodyText(r); !bytes.Equal(b, kept) {
			t.Errorf("%d bytes were read, %d are committed to", len(b), len(kept))
		}
		_, err = w.Write(b)
		must(t, err)
	}), Limits{BodyBytes: 1 << 20}, all, func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err })
	for _, size := range []int{1, 511, 512, 513, bodyStep - 1, bodyStep, bodyStep + 1, 3 * bodyStep, 1<<20 - 1, 1 << 20} {
		want := bytes.Repeat([]byte("piperoll"), size/8+1)[:size]
		for declared, reader := range map[int64]func(io.Reader) io.Reader{
			int64(size): iotest.DataErrReader, -1: iotest.HalfReader, // with its end in the last read, and after it
		} {
			req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", reader(bytes.NewReader(want)))
			req.ContentLength = declared
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if !bytes.Equal(w.Body.Bytes(), want) {
				t.Errorf("a body of %d bytes, declared %d, is read as %d bytes", size, declared, w.Body.Len())
			}
			if !all.TryAcquire(1 << 20) {
				t.Fatalf("a body of %d bytes, declared %d, was not given back", size, declared)
			}
			all.Release(1 << 20)
		}
	}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(make([]byte, 1<<20+1)))
	if h.ServeHTTP(httptest.NewRecorder(), req); !errors.Is(failed, errTooLarge) {
		t.Errorf("a body of a byte too many: %v", failed)
	}
}

func TestACommandSaysWhatTheLogAdvises(t *testing.T) {
	r := newLog(t, nil)
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte("pr_forgotten"), 0o600))
	var errOut bytes.Buffer
	code := run(t.Context(), []string{"search", "-url", r.url, "-token-file", token}, io.Discard, &errOut, nil)
	if code != exitUsage || !strings.Contains(errOut.String(), "logserver token makes one") {
		t.Errorf("a search with a wrong token exits with %d: %s", code, &errOut)
	}
}
