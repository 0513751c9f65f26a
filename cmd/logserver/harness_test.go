package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"golang.org/x/mod/sumdb/note"
)

const testOrigin = "log.example/test"

// A running is a server in this process, on a real directory and a real port.
type running struct {
	t     *testing.T
	dir   string
	url   string
	admin string  // token
	fs    disk.FS // if not nil, from the next start on
	stop  func() error
}

// newLog makes a log and serves it. change, if not nil, edits the configuration file.
func newLog(t *testing.T, change func(string) string) *running {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	if code := run(t.Context(), []string{"init", "-dir", dir, "-origin", testOrigin, "-listen", "127.0.0.1:0"}, io.Discard, t.Output(), nil); code != 0 {
		t.Fatalf("init exits with %d", code)
	}
	if change != nil {
		file := filepath.Join(dir, "config.yaml")
		must(t, os.WriteFile(file, []byte(change(string(read(t, file)))), 0o644))
	}
	r := &running{t: t, dir: dir, admin: strings.TrimSpace(string(read(t, filepath.Join(dir, "admin.token"))))}
	r.start()
	t.Cleanup(func() {
		if r.stop != nil {
			must(t, r.stop())
		}
	})
	return r
}

// fastPublish makes published checkpoints come at once.
func fastPublish(config string) string {
	return strings.NewReplacer("publish: 1s", "publish: 20ms", "round: 50ms", "round: 10ms").Replace(config)
}

func (r *running) config() Config {
	r.t.Helper()
	c, err := readConfig(filepath.Join(r.dir, "config.yaml"))
	must(r.t, err)
	if r.fs != nil {
		c.fs = r.fs
	}
	return c
}

func (r *running) start() {
	r.t.Helper()
	addr := filepath.Join(r.dir, "addr")
	_ = os.Remove(addr)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	logger := slog.New(slog.NewTextHandler(r.t.Output(), nil))
	go func() { ended <- serve(ctx, r.config(), logger) }()
	for {
		if b, err := os.ReadFile(addr); err == nil {
			r.url = "http://" + strings.TrimSpace(string(b))
			break
		}
		select {
		case err := <-ended:
			r.t.Fatalf("serve: %v", err)
		case <-time.After(2 * time.Millisecond):
		}
	}
	r.stop = func() error {
		cancel()
		r.stop = nil
		return <-ended
	}
}

func (r *running) restart() {
	r.t.Helper()
	must(r.t, r.stop())
	r.start()
}

// await waits until ok holds, for as long as any machine needs.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 30_000 {
		if ok() {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatalf("waited a minute for %s", what)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	return b
}

// An httpAnswer is a response with its body.
type httpAnswer struct {
	t      testing.TB
	status int
	header http.Header
	body   []byte
}

func (r *running) do(method, path, token, contentType string, body []byte, header ...string) httpAnswer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, bytes.NewReader(body))
	must(r.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	must(r.t, err)
	defer func() { _ = resp.Body.Close() }() // read to the end
	b, err := io.ReadAll(resp.Body)
	must(r.t, err)
	return httpAnswer{r.t, resp.StatusCode, resp.Header, b}
}

func (r *running) get(path, token string) httpAnswer {
	r.t.Helper()
	return r.do("GET", path, token, "", nil)
}

// want checks the status, and that an error is a proper problem of that name.
func (a httpAnswer) want(status int, name string) httpAnswer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	if name == "" {
		return a
	}
	var p problem
	must(a.t, json.Unmarshal(a.body, &p))
	if p.Type != "urn:piperoll:problem:"+name || p.Status != status || p.Title == "" || p.Detail == "" || p.Hint == "" ||
		a.header.Get("Content-Type") != "application/problem+json" {
		a.t.Errorf("problem %s, want %s", a.body, name)
	}
	return a
}

func (a httpAnswer) into(v any) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		a.t.Fatalf("%v: %s", err, a.body)
	}
}

func (r *running) token(principal, role string, grants ...string) string {
	r.t.Helper()
	b, err := json.Marshal(tokenRequest{Principal: principal, Role: role, Permissions: grants})
	must(r.t, err)
	var a tokenAnswer
	r.do("POST", "/v1/access/tokens", r.admin, "application/json", b).want(201, "").into(&a)
	return a.Token
}

// A submitter is a migration service with its own key, that chains one stream.
type submitter struct {
	r      *running
	name   string
	token  string
	key    ed25519.PrivateKey
	stream log.Stream
}

func (r *running) submitter(name, stream string) *submitter {
	r.t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	must(r.t, err)
	s := &submitter{r: r, name: name, key: key, stream: log.NewStream(testOrigin, stream), token: r.token(name, "migration-service")}
	vkey, err := s.public().VKey(name)
	must(r.t, err)
	b, err := json.Marshal(keyRequest{Principal: name, VKey: vkey})
	must(r.t, err)
	r.do("POST", "/v1/keys", r.admin, "application/json", b).want(201, "")
	return s
}

func (s *submitter) public() log.PublicKey { return log.PublicKey(s.key.Public().(ed25519.PublicKey)) }

// A wire is an event as it is sent.
type wire struct {
	event   log.Event
	payload *log.Payload
}

// next makes the events that follow: pairs of a kind and a JSON payload ("" for none).
func (s *submitter) next(pairs ...string) []wire {
	var events []wire
	prev := s.stream.Hash
	for i := 0; i < len(pairs); i += 2 {
		w := wire{event: log.Event{
			Actor: s.name, Kind: pairs[i], Log: testOrigin, Migration: strings.Split(s.stream.Name, "/")[0],
			Stream: s.stream.Name, Seq: s.stream.Seq + uint64(i/2) + 1, Prev: prev, Time: uint64(time.Now().UnixMilli()),
		}}
		if pairs[i+1] != "" {
			w.payload = newPayload([]byte(pairs[i+1]))
			w.event.Payload = &log.Ref{Commitment: log.Commit(*w.payload, log.JSONType), Type: log.JSONType}
		}
		prev = w.event.Hash()
		events = append(events, w)
	}
	return events
}

func (s *submitter) opening() string {
	return string(log.StreamOpen{Keys: []log.PublicKey{s.public()}, Mode: log.ModeSigned, Owner: s.name}.Marshal())
}

func (s *submitter) tail(events []wire) *log.Sig {
	first, last := events[0].event, events[len(events)-1].event
	sig := log.Sign(s.key, log.TailText(testOrigin, last.Stream, first.Seq, last.Seq, last.Hash()))
	return &sig
}

// body writes events as NDJSON lines, with the tail signature on the last.
func body(events []wire, sig *log.Sig) []byte {
	var b bytes.Buffer
	for i, w := range events {
		fmt.Fprintf(&b, `{"event":%s`, w.event.Marshal())
		if w.payload != nil {
			fmt.Fprintf(&b, `,"payload":%s,"salt":%q`, w.payload.Bytes, base64.StdEncoding.EncodeToString(w.payload.Salt[:]))
		}
		if sig != nil && i == len(events)-1 {
			fmt.Fprintf(&b, `,"sig":%s`, sig.Marshal())
		}
		b.WriteString("}\n")
	}
	return b.Bytes()
}

const ndjson = "application/x-ndjson"

func (s *submitter) send(events []wire) httpAnswer {
	s.r.t.Helper()
	return s.r.do("POST", "/v1/events", s.token, ndjson, body(events, s.tail(events)))
}

// append sends events that fit, checks the receipt, and moves the head.
func (s *submitter) append(pairs ...string) answer {
	s.r.t.Helper()
	events := s.next(pairs...)
	var a answer
	s.send(events).want(201, "").into(&a)
	s.r.checkReceipt(a, events, s.tail(events))
	last := events[len(events)-1].event
	s.stream.Seq, s.stream.Hash = last.Seq, last.Hash()
	return a
}

// checkReceipt rebuilds the entries from what was sent and the log parts, and
// compares the receipt with them. It gives the entries' bytes.
func (r *running) checkReceipt(a answer, events []wire, sig *log.Sig) [][]byte {
	r.t.Helper()
	v, err := note.NewVerifier(strings.TrimSpace(string(read(r.t, filepath.Join(r.dir, "receipt.vkey")))))
	must(r.t, err)
	receipt, err := log.OpenReceipt([]byte(a.Receipt), v)
	must(r.t, err)
	var leaves []log.Hash
	var entries [][]byte
	for i, raw := range a.Log {
		part, err := log.ParsePart(raw)
		must(r.t, err)
		e := log.Entry{Event: events[i].event, Log: part}
		if i == len(events)-1 {
			e.Sig = sig
		}
		entries = append(entries, e.Marshal())
		leaves = append(leaves, log.LeafHash(e.Marshal()))
		if part.Received != receipt.Received {
			r.t.Errorf("receipt says received %d, the entry %d", receipt.Received, part.Received)
		}
	}
	if receipt.First != a.Index || receipt.Count != uint64(len(events)) || receipt.Leaves != log.LeavesHash(leaves) ||
		receipt.By != receipt.Received+uint64(promise.Milliseconds()) {
		r.t.Errorf("receipt %+v does not fit the answer %+v", receipt, a)
	}
	return entries
}

// size gives the number of durable entries.
func (r *running) size() uint64 {
	r.t.Helper()
	var state []readyJSON
	r.get("/readyz", "").want(200, "").into(&state)
	return state[0].Size
}

func sha256Sum(b []byte) log.Hash { return sha256.Sum256(b) }
