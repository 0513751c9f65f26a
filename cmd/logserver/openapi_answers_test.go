package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

// exampleOrigin is the log that the examples of the description are of.
const exampleOrigin = "log.example.com/2026"

// A caller calls the operations of the description, with its examples.
type caller struct {
	*running
	d *description
}

// call sends a request to an operation as the description shows it: the examples of its parameters, and its last
// example of a body. values replace those of parameters in the path.
func (c caller) call(name, token string, values ...string) httpAnswer {
	c.t.Helper()
	example := ""
	for _, e := range c.d.examples(name) {
		example = e.key
	}
	return c.send(name, example, token, values)
}

// send is call with an example of the body by its name, and headers.
func (c caller) send(name, example, token string, values []string, header ...string) httpAnswer {
	c.t.Helper()
	method, path, _ := strings.Cut(name, " ")
	for param, p := range c.d.parameters(name, "path") {
		value := fmt.Sprint(c.d.get(p, "example").value)
		if i := slices.Index(values, param); i >= 0 {
			value = values[i+1]
		}
		path = strings.Replace(path, "{"+param+"}", value, 1)
	}
	var body requestExample
	if i := slices.IndexFunc(c.d.examples(name), func(e requestExample) bool { return e.key == example }); i >= 0 {
		body = c.d.examples(name)[i]
	}
	a := c.do(method, path, token, body.contentType, body.text, header...)
	if a.status < 300 {
		c.d.note(body.name(name), nil)
	}
	return a
}

// A requestExample is one of an operation's examples of a body.
type requestExample struct {
	key, contentType string
	text             []byte // as it is sent
}

func (e requestExample) name(operation string) string { return operation + " example " + e.key }

// examples gives an operation's examples of bodies, sorted.
func (d *description) examples(operation string) (all []requestExample) {
	content := d.get(d.operation(operation), "requestBody", "content")
	for _, contentType := range content.keys() {
		examples := d.get(content, contentType, "examples")
		for _, key := range examples.keys() {
			all = append(all, requestExample{key, contentType, asSent(d.get(examples, key, "value"))})
		}
	}
	return all
}

// asSent gives the bytes of an example. The keys of events are sorted as they must be.
func asSent(value node) []byte {
	if text, ok := value.value.(string); ok {
		return []byte(text)
	}
	b, err := json.Marshal(value.value)
	if err != nil {
		panic(err)
	}
	return b
}

// TestTheServerGivesEveryAnswerThatIsDescribed provokes all of them. That each is as described, and that there are no
// others, the harness sees to, here and in all tests.
func TestTheServerGivesEveryAnswerThatIsDescribed(t *testing.T) {
	d := described()
	d.forget()
	for name, part := range map[string]func(*testing.T, *description){
		"what is asked for": successes, "what is wrong": mistakes, "what is not there": absences, "what does not fit": conflicts,
		"limits": limitsOfClients, "a log that takes nothing": readOnly, "a log without room": noRoom, "a log that is slow": slowIndex, "a log that is broken": broken,
		"a log whose tiles are damaged": damaged, "a log without keys": withoutKeys, "no HTTP": notHTTP,
	} {
		t.Run(name, func(t *testing.T) { part(t, d) })
	}
	for _, missing := range d.unseen() {
		t.Errorf("%s is described, and was not seen", missing)
	}
}

// exampleLog calls a new log of the examples' origin.
func exampleLog(t *testing.T, d *description) caller {
	t.Helper()
	r := newLogOf(t, exampleOrigin, filepath.Join(t.TempDir(), "log"), func(c string) string { return fastPublish(c) + "limits: {body_bytes: 65536, bodies_bytes: 65536}\n" })
	return caller{r, d}
}

func (d *description) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.seen)
}

// unseen lists the described answers that were not given, of each operation and of each sort of problem, and the examples
// of requests that were not taken.
func (d *description) unseen() (missing []string) {
	var all []string
	for _, name := range append(d.operations(), everyPath) {
		for _, status := range d.get(d.operation(name), "responses").keys() {
			all = append(all, name+" "+status)
		}
		for _, e := range d.examples(name) {
			all = append(all, e.name(name))
		}
	}
	for status, types := range d.problems() {
		for _, t := range types {
			all = append(all, status+" "+t)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, answer := range all {
		if !d.seen[answer] {
			missing = append(missing, answer)
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

// problems gives the described types of problems, by status.
func (d *description) problems() map[string][]string {
	found := make(map[string][]string)
	for _, name := range append(d.operations(), everyPath) {
		responses := d.get(d.operation(name), "responses")
		for _, status := range responses.keys() {
			schema := d.get(responses, status, "content", "application/problem+json", "schema", "allOf")
			parts, _ := schema.value.([]any)
			if len(parts) == 0 {
				continue
			}
			types, _ := d.get(node{"", parts[1]}, "properties", "type", "enum").value.([]any)
			for _, t := range types {
				found[status] = append(found[status], fmt.Sprint(t))
			}
		}
	}
	return found
}

// tell runs the story of the examples, in which those of parameters come true: entry 5 has a payload, and a checkpoint
// of size 6 is published.
func (c caller) tell() (signed answer) {
	c.t.Helper()
	var service tokenAnswer
	c.send("POST /v1/access/tokens", "service", c.admin, nil).want(201, "").into(&service)
	c.call("POST /v1/keys", c.admin).want(201, "")
	c.send("POST /v1/events", "signed", service.Token, nil).want(201, "").into(&signed)
	if signed.Index != 4 {
		c.t.Fatalf("the signed example is entry %d, want 4", signed.Index)
	}
	c.published(6)
	return signed
}

func successes(t *testing.T, d *description) {
	c := exampleLog(t, d)
	c.tell()
	var curl tokenAnswer
	c.send("POST /v1/access/tokens", "curl", c.admin, nil).want(201, "").into(&curl)
	c.send("POST /v1/events", "draft", curl.Token, nil, "Prefer", "wait=5").want(201, "")
	c.send("POST /v1/events", "signed", c.token("crm-migrator", "migration-service"), nil).want(200, "")
	for _, name := range c.d.operations() {
		if method, path, _ := strings.Cut(name, " "); method == "GET" && path != "/metrics" {
			c.call(name, c.admin).want(200, "")
		}
	}
	c.do("HEAD", "/checkpoint", "", "", nil).want(200, "")
	for _, path := range []string{"/checkpoint", "/checkpoint/signed", "/checkpoint/6"} {
		tag := c.get(path, "").want(200, "").header.Get("ETag")
		c.do("GET", path, "", "", nil, "If-None-Match", tag).want(304, "")
	}
	c.metrics()
	c.scrubNow()
	c.call("DELETE /v1/payloads/{index}", c.admin).want(200, "")
	c.call("GET /v1/payloads/{index}", c.admin).want(410, "gone")
	c.call("DELETE /v1/payloads/{index}", c.admin).want(410, "gone")
	c.call("DELETE /v1/keys/{id}", c.admin).want(200, "")
	c.call("DELETE /v1/access/tokens/{id}", c.admin, "id", curl.ID).want(200, "")
}

// published waits until the entries below size are published.
func (c caller) published(size uint64) {
	c.t.Helper()
	await(c.t, "a checkpoint", func() bool { return c.get(fmt.Sprintf("/checkpoint/%d", size), "").status == 200 })
}

// everyone calls every operation that is for some, with a token, and wants one answer of all.
func (c caller) everyone(token string, status int, problem string) {
	c.t.Helper()
	for _, name := range c.d.operations() {
		if security, _ := c.d.get(c.d.operation(name), "security").value.([]any); c.d.get(c.d.operation(name), "security").value == nil || len(security) > 0 {
			c.call(name, token).want(status, problem)
		}
	}
}

func mistakes(t *testing.T, d *description) {
	c := exampleLog(t, d)
	c.tell()
	c.everyone("", 401, "unauthenticated")
	c.everyone(c.token("wit", "witness"), 403, "forbidden")
	for _, name := range c.d.operations() {
		method, path, _ := strings.Cut(name, " ")
		for param := range c.d.parameters(name, "path") {
			if strings.HasPrefix(path, "/v1/") && param != "id" || path == "/v1/keys/{id}" {
				c.call(name, c.admin, param, "%20").want(400, "malformed")
			}
		}
		if c.d.get(c.d.operation(name), "requestBody").value == nil {
			continue
		}
		path = strings.NewReplacer("{index}", "5", "{id}", strings.Repeat("0", 64)).Replace(path)
		c.do(method, path, c.admin, "application/json", []byte("{")).want(400, "malformed")
		c.do(method, path, c.admin, "application/json", []byte("{}"), "Content-Encoding", "gzip").want(415, "media-type")
		c.do(method, path, c.admin, "application/json", make([]byte, 1<<17)).want(413, "too-large")
	}
	c.get("/v1/events?limit=0", c.admin).want(400, "malformed")
	c.do("GET", "/v1/nothing", c.admin, "", make([]byte, 1<<17)).want(413, "too-large")
	c.do("PUT", "/v1/events", c.admin, "", nil).want(405, "method")
	c.get("/v1/nothing", c.admin).want(404, "not-found")
}

func absences(t *testing.T, d *description) {
	c := exampleLog(t, d)
	c.tell()
	for name, values := range map[string][]string{
		"GET /checkpoint/{size}": {"size", "99"}, "GET /tile/{path}": {"path", "0/099"}, "GET /v1/events/{hash}": {"hash", strings.Repeat("0", 64)},
		"GET /v1/entries/{index}": {"index", "99"}, "GET /v1/payloads/{index}": {"index", "99"}, "DELETE /v1/payloads/{index}": {"index", "99"},
		"GET /v1/proofs/inclusion/{index}": {"index", "99"}, "GET /v1/proofs/inclusion/{index}/{size}": {"size", "99"},
		"GET /v1/proofs/consistency/{from}/{to}": {"to", "99"}, "GET /v1/proofs/range/{begin}/{end}/{size}": {"size", "99"},
		"GET /v1/streams/{stream}": {"stream", "crm-2026/nothing"}, "DELETE /v1/access/tokens/{id}": nil, "DELETE /v1/keys/{id}": {"id", strings.Repeat("0", 64)},
	} {
		c.call(name, c.admin, values...).want(404, "not-found")
	}
}

func conflicts(t *testing.T, d *description) {
	c := caller{newLog(t, fastPublish), d}
	crm := c.submitter("crm", "m1/customers/new")
	vkey, err := crm.public().VKey("crm")
	must(c.t, err)
	register := func(text string) httpAnswer {
		return c.do("POST", "/v1/keys", c.admin, "application/json", []byte(text))
	}
	register(fmt.Sprintf(`{"principal":"eve","vkey":%q}`, vkey)).want(409, "exists")
	crm.append("stream.open", crm.opening())

	send := func(status int, problem string, change func(w []wire) *log.Sig) {
		c.t.Helper()
		w := crm.next("migration.load", `{"rows":1}`)
		sig := change(w)
		c.do("POST", "/v1/events", crm.token, ndjson, body(w, sig)).want(status, problem)
	}
	send(400, "clock", func(w []wire) *log.Sig { w[0].event.Time += 3_600_000; return crm.tail(w) })
	send(400, "commitment", func(w []wire) *log.Sig { w[0].payload.Bytes = []byte("{}"); return crm.tail(w) })
	send(400, "signature", func([]wire) *log.Sig { return nil })
	send(409, "gap", func(w []wire) *log.Sig { w[0].event.Seq++; return crm.tail(w) })
	send(409, "fork", func(w []wire) *log.Sig { w[0].event.Prev[0] ^= 1; return crm.tail(w) })
	send(409, "migration", func(w []wire) *log.Sig {
		w[0].event.Migration = "m1/customers" // a stream stays in the migration in which it was opened
		return crm.tail(w)
	})
	send(403, "key", func(w []wire) *log.Sig { sig := crm.tail(w); sig.Key[0] ^= 1; return sig })
	w := crm.next("migration.load", "")
	c.do("POST", "/v1/events", crm.token, ndjson, mutate(w, crm.tail(w), `"v":1}`, `"v":2}`)).want(400, "version")
	c.do("POST", "/v1/events", c.token("erp", "migration-service"), ndjson, body(w, crm.tail(w))).want(403, "owner")
	crm.append("stream.close", "")
	crm.send(crm.next("migration.load", "")).want(409, "closed")
}

func limitsOfClients(t *testing.T, d *description) {
	c := exampleLog(t, d)
	must(t, c.stop())
	file := filepath.Join(c.dir, "config.yaml")
	config := strings.Replace(string(read(t, file)), "limits: {", "limits: {requests_per_second: 0.0001, burst: 1, ", 1)
	must(t, os.WriteFile(file, []byte(config), 0o644))
	c.start()
	c.get("/v1/entries/0", c.admin).want(200, "")
	c.everyone(c.admin, 429, "rate")
}

// within serves the log with a handler that the test reaches inside. Nothing of it runs but what the test starts.
func (c caller) within() *host {
	c.t.Helper()
	h, _ := c.host()
	srv := httptest.NewServer(limitBodies(h.mux, h.sites[0].limits, h.bodies, h.sites[0].fail))
	c.t.Cleanup(srv.Close)
	c.url = srv.URL
	return h
}

func readOnly(t *testing.T, d *description) {
	c := exampleLog(t, d)
	c.tell()
	h := c.within()
	h.sites[0].ledger.seq.Latch(errors.New("the disk is gone"))
	for _, name := range c.d.operations() {
		if writes(name) {
			c.call(name, c.admin).want(503, "read-only")
		}
	}
	c.get("/readyz", "").want(503, "")
	must(c.t, acquireAll(h))
	c.call("POST /v1/access/tokens", c.admin).want(503, "overloaded")
	srv := httptest.NewServer(limitRequests(h.mux, 0, h.sites[0].fail))
	c.t.Cleanup(srv.Close)
	c.url = srv.URL
	c.get("/v1/nothing", "").want(503, "overloaded")
}

// writes says whether an operation makes an entry.
func writes(name string) bool {
	method, path, _ := strings.Cut(name, " ")
	return strings.HasPrefix(path, "/v1/") && method != "GET" || path == "/v1/payloads/{index}"
}

// noRoom leaves no byte on the disk.
func noRoom(t *testing.T, d *description) {
	c := exampleLog(t, d)
	c.tell()
	c.tweak = func(c *Config) {
		c.space = func(string) (disk.Space, error) { return disk.Space{UsedBytes: 1 << 40}, nil }
	}
	curl := c.token("curl", "migration-service", string(permAppendUnsigned))
	h := c.within()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.sites[0].ledger.seq.Run(ctx) }()
	for _, name := range c.d.operations() {
		if writes(name) && name != "POST /v1/events" {
			c.call(name, c.admin).want(507, "storage")
		}
	}
	c.do("POST", "/v1/events", curl, "application/json", []byte(`{"event":{"kind":"audit.note","migration":"m"}}`)).want(507, "storage")
	cancel()
	must(t, <-done)
}

// acquireAll leaves no byte for bodies.
func acquireAll(h *host) error {
	return h.bodies.Acquire(context.Background(), h.sites[0].limits.BodiesBytes)
}

// slowIndex lets the journal grow, while the index does not follow.
func slowIndex(t *testing.T, d *description) {
	c := exampleLog(t, d)
	c.tell()
	h := c.within()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.sites[0].ledger.seq.Run(ctx) }()
	c.call("POST /v1/access/tokens", c.admin).want(201, "")
	h.sites[0].limits.RequestTimeout = time.Nanosecond
	for _, name := range []string{"GET /v1/events", "GET /v1/events/{hash}", "GET /v1/streams/{stream}"} {
		c.call(name, c.admin).want(503, "timeout")
	}
	cancel()
	must(t, <-done)
}

// broken takes the parts of a log away, so that its handlers fail.
func broken(t *testing.T, d *description) {
	c := exampleLog(t, d)
	c.tell()
	l := c.within().sites[0].ledger
	seq, journal, tree, index, reader := l.seq, l.journal, l.tree, l.index, l.reader
	t.Cleanup(func() { l.seq, l.journal, l.tree, l.index, l.reader = seq, journal, tree, index, reader })
	l.seq, l.journal, l.tree, l.index, l.reader = nil, nil, nil, nil, nil
	for _, name := range c.d.operations() {
		if _, path, _ := strings.Cut(name, " "); strings.HasPrefix(path, "/v1/") {
			c.call(name, c.admin).want(500, "internal")
		}
	}
}

func damaged(t *testing.T, d *description) {
	c := caller{newLog(t, fastPublish), d}
	crm := c.submitter("crm", "m1/customers")
	pairs := []string{"stream.open", crm.opening()}
	for range 600 {
		pairs = append(pairs, "migration.load", "")
	}
	crm.append(pairs...) // at once: what has been published in parts is in memory
	c.published(c.size())
	c.within()
	for _, pattern := range []string{"tiles/tile/entries/001", "state/*/00000001-*"} {
		files, err := filepath.Glob(filepath.Join(c.dir, "data", filepath.FromSlash(pattern)))
		must(t, err)
		if len(files) != 1 {
			t.Fatalf("%s matches %q", pattern, files)
		}
		b := read(t, files[0])
		b[77] ^= 1
		must(t, os.WriteFile(files[0], b, 0o600))
	}
	c.call("GET /tile/{path}", c.admin, "path", "entries/001").want(500, "internal")
	c.call("GET /checkpoint/{size}", "", "size", "30").want(500, "internal")
}

func withoutKeys(t *testing.T, d *description) {
	c := exampleLog(t, d)
	c.tell()
	must(t, c.stop())
	must(t, os.RemoveAll(filepath.Join(c.dir, "data", "journal", "keys")))
	must(t, os.RemoveAll(filepath.Join(c.dir, "data", "index")))
	c.start()
	c.call("GET /v1/payloads/{index}", c.admin).want(410, "key-missing")
}

// notHTTP sends what has no path, or not one that is cleaned.
func notHTTP(t *testing.T, d *description) {
	c := exampleLog(t, d)
	for text, want := range map[string]int{
		"GET\r\n\r\n": 400, "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n\r\n": 431,
		"POST /v1/keys HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: more\r\n\r\n": 417,
		"GET /v1//entries/0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":            307,
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(c.url, "http://"))
		must(t, err)
		_, err = io.WriteString(conn, text)
		must(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		b, err := io.ReadAll(resp.Body)
		if reset := errors.Is(err, syscall.ECONNRESET) && len(b) > 0; err != nil && !reset { // what it did not read
			t.Fatalf("%.60q: %v", text, err)
		}
		must(t, conn.Close())
		a := httpAnswer{t, resp.StatusCode, resp.Header, b}
		if err := c.d.check("GET", "/nothing", a); err != nil {
			t.Error(err)
		}
		if a.status != want {
			t.Errorf("%.60q is answered with %d, want %d: %s", text, a.status, want, bytes.TrimSpace(b))
		}
	}
}
