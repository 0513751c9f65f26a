package client_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	origin    = "log.example.com/test"
	principal = "crm-migration"
	token     = "pr_test"
	promiseMS = 60_000
)

// A fakeLog is a log in memory. It checks what it takes with the pure package,
// as the server does. The hooks make it lie or fail.
type fakeLog struct {
	url                   string
	signer, receiptSigner note.Signer
	vkey, receiptVKey     string
	key                   ed25519.PrivateKey

	mu         sync.Mutex
	entries    [][]byte
	payloads   map[uint64]log.Payload
	hashes     hashes
	streams    map[string]*log.Stream
	migrations map[string]*log.Migration
	retries    map[string][2]uint64 // request body -> first index, count
	held       bool                 // publish nothing new
	published  uint64
	requests   int // of events

	// hooks, all may be nil; called with mu held
	before     func(n int, w http.ResponseWriter, r *http.Request) bool // of a POST, the nth; true: it has answered
	after      func(n int, w http.ResponseWriter, status int, body []byte) bool
	part       func(i int, p *log.Part)
	receipt    func(r *log.Receipt) note.Signer // may return another signer
	checkpoint func(c *log.Checkpoint) note.Signer
	tile       func(t tlog.Tile, data []byte) []byte
	withheld   bool // entries are not given out
}

// hashes are the stored hashes of the tree, and its reader.
type hashes []tlog.Hash

func (h hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x >= int64(len(h)) {
			return nil, fmt.Errorf("no hash %d", x)
		}
		out[i] = h[x]
	}
	return out, nil
}

// newFake starts a log in which the principal's key is taken for registered.
func newFake(t testing.TB) *fakeLog {
	f := &fakeLog{payloads: map[uint64]log.Payload{}, streams: map[string]*log.Stream{}, migrations: map[string]*log.Migration{}, retries: map[string][2]uint64{}}
	f.signer, f.vkey = newSigner(origin)
	f.receiptSigner, f.receiptVKey = newSigner(log.ReceiptKeyName(origin))
	key, err := client.NewKey()
	if err != nil {
		panic(err)
	}
	f.key = key
	f.append([]byte("entry 0 stands for log.open"))
	if t != nil {
		srv := httptest.NewServer(f)
		t.Cleanup(srv.Close)
		f.url = srv.URL
	}
	return f
}

func newSigner(name string) (note.Signer, string) {
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		panic(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		panic(err)
	}
	return s, vkey
}

// config is that of a client in a hurry.
func (f *fakeLog) config() client.Config {
	return client.Config{
		URL: f.url, Token: token, LogKey: f.vkey, ReceiptKey: f.receiptVKey, Principal: principal, Key: f.key,
		BackoffMin: time.Millisecond, BackoffMax: 5 * time.Millisecond, Attempts: 4,
	}
}

// client gives a client of the log.
func (f *fakeLog) client(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.New(f.config())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// with runs do under the log's lock: hooks are set while requests may be under way.
func (f *fakeLog) with(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// append adds a leaf to the tree.
func (f *fakeLog) append(entry []byte) uint64 {
	n := int64(len(f.entries))
	f.entries = append(f.entries, entry)
	more, err := tlog.StoredHashes(n, entry, f.hashes)
	if err != nil {
		panic(err)
	}
	f.hashes = append(f.hashes, more...)
	return uint64(n)
}

// rewrite puts other bytes at an index: what a log must never do.
func (f *fakeLog) rewrite(index uint64, entry []byte) {
	all := f.entries
	f.entries, f.hashes = nil, nil
	for i, e := range all {
		if uint64(i) == index {
			e = entry
		}
		f.append(e)
	}
}

func (f *fakeLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+token {
		f.problem(w, http.StatusUnauthorized, "unauthenticated", "no valid token", nil)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/v1/events":
		f.submit(w, r)
	case r.Method == http.MethodGet && r.URL.Path == "/checkpoint":
		f.serveCheckpoint(w)
	case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/tile/"):
		f.serveTile(w, r.URL.Path[1:])
	default:
		f.problem(w, http.StatusNotFound, "not-found", "no such resource", nil)
	}
}

func (f *fakeLog) serveCheckpoint(w http.ResponseWriter) {
	if !f.held {
		f.published = uint64(len(f.entries))
	}
	c := log.Checkpoint{Origin: origin, Head: f.head(f.published)}
	signer := f.signer
	if f.checkpoint != nil {
		if s := f.checkpoint(&c); s != nil {
			signer = s
		}
	}
	msg, err := note.Sign(&note.Note{Text: c.String()}, signer)
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(msg)
}

func (f *fakeLog) head(size uint64) log.Head {
	root, err := tlog.TreeHash(int64(size), f.hashes)
	if err != nil {
		panic(err)
	}
	return log.Head{Size: size, Root: root}
}

func (f *fakeLog) serveTile(w http.ResponseWriter, path string) {
	id, err := log.ParseTilePath(path)
	if err != nil || id.IsBundle() && f.withheld {
		f.problem(w, http.StatusNotFound, "not-found", "no such tile", nil)
		return
	}
	if id.IsBundle() {
		var bundle []byte
		for i := range id.Width {
			bundle = log.AppendBundle(bundle, f.entries[id.Index*log.TileWidth+uint64(i)])
		}
		_, _ = w.Write(bundle)
		return
	}
	t := tlog.Tile{H: log.TileHeight, L: id.Level, N: int64(id.Index), W: id.Width}
	data, err := tlog.ReadTileData(t, f.hashes)
	if err != nil {
		f.problem(w, http.StatusNotFound, "not-found", "no such tile", nil)
		return
	}
	if f.tile != nil {
		data = f.tile(t, data)
	}
	_, _ = w.Write(data)
}

func (f *fakeLog) submit(w http.ResponseWriter, r *http.Request) {
	f.requests++
	n := f.requests
	var body bytes.Buffer
	if _, err := body.ReadFrom(r.Body); err != nil {
		f.problem(w, http.StatusBadRequest, "malformed", err.Error(), nil)
		return
	}
	if f.before != nil && f.before(n, w, r) {
		return
	}
	status := http.StatusOK
	place, retry := f.retries[body.String()]
	if !retry {
		status = http.StatusCreated
		var err error
		if place, err = f.commit(body.Bytes()); err != nil {
			f.refuse(w, err)
			return
		}
		f.retries[body.String()] = place
	}
	answer := f.answer(place)
	if f.after != nil && f.after(n, w, status, answer) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

// A refused is why the fake takes nothing.
type refused struct {
	status int
	name   string
	err    error
	head   *log.Stream
}

func (r *refused) Error() string { return r.err.Error() }

func (f *fakeLog) refuse(w http.ResponseWriter, err error) {
	r, ok := err.(*refused)
	if !ok {
		r = &refused{status: http.StatusBadRequest, name: "malformed", err: err}
	}
	f.problem(w, r.status, r.name, r.Error(), r.head)
}

func (f *fakeLog) problem(w http.ResponseWriter, status int, name, detail string, head *log.Stream) {
	p := map[string]any{"type": "urn:piperoll:problem:" + name, "title": name, "status": status, "detail": detail, "hint": "do it right"}
	if head != nil {
		p["head"] = map[string]any{"closed": head.Closed, "hash": head.Hash.String(), "seq": head.Seq, "stream": head.Name}
	}
	text, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

type line struct {
	Event      json.RawMessage `json:"event"`
	Payload    json.RawMessage `json:"payload"`
	PayloadB64 *string         `json:"payload_b64"`
	Salt       []byte          `json:"salt"`
	Sig        json.RawMessage `json:"sig"`
}

// commit takes a request, all or nothing.
func (f *fakeLog) commit(body []byte) (place [2]uint64, err error) {
	text := bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
	var stream log.Stream
	var migration log.Migration
	entries := make([]log.Entry, 0, len(text))
	payloads := make([]*log.Payload, 0, len(text))
	var keys []log.PublicKey
	received := uint64(time.Now().UnixMilli())
	for i, t := range text {
		if _, err := log.Members(t); err != nil {
			return place, err
		}
		var l line
		if err := json.Unmarshal(t, &l); err != nil {
			return place, err
		}
		e, err := log.ParseEvent(l.Event)
		if err != nil {
			return place, err
		}
		payload, err := l.payload(e)
		if err != nil {
			return place, err
		}
		if i == 0 {
			stream, migration = log.NewStream(origin, e.Stream), log.Migration{Name: e.Migration}
			if s := f.streams[e.Stream]; s != nil {
				stream = *s
			}
			if m := f.migrations[e.Migration]; m != nil {
				migration = *m
			}
		}
		head := stream
		if err := stream.Check(e, principal); err != nil {
			return place, &refused{http.StatusConflict, "fork", err, &head}
		}
		var open *log.StreamOpen
		var opened *log.MigrationOpen
		switch e.Kind {
		case "stream.open":
			o, err := log.ParseStreamOpen(payload.Bytes)
			if err != nil {
				return place, err
			}
			open, keys = &o, o.Keys
		case "migration.open":
			o, err := log.ParseMigrationOpen(payload.Bytes)
			if err != nil {
				return place, err
			}
			opened = &o
		}
		if err := migration.Check(e, principal, open); err != nil {
			return place, &refused{http.StatusConflict, "migration", err, nil}
		}
		entry := log.Entry{Event: e, Log: log.Part{Auth: "token:1", By: principal, Received: received, SkewMS: int64(received) - int64(e.Time)}}
		if _, err := rand.Read(entry.Log.Blind[:]); err != nil {
			return place, err
		}
		if f.part != nil {
			f.part(i, &entry.Log)
		}
		last := i == len(text)-1
		if last {
			sig, err := log.ParseSig(l.Sig)
			if err != nil {
				return place, err
			}
			if keys == nil {
				keys = stream.Keys
			}
			if err := stream.CheckTail(origin, keys, stream.TailFirst(), e, e.Hash(), &sig); err != nil {
				return place, err
			}
			entry.Sig = &sig
		}
		stream.Advance(e, e.Hash(), uint64(len(f.entries)+i), open, last)
		migration.Advance(e, principal, opened)
		entries, payloads = append(entries, entry), append(payloads, payload)
	}
	place = [2]uint64{uint64(len(f.entries)), uint64(len(entries))}
	for i, e := range entries {
		index := f.append(e.Marshal())
		if payloads[i] != nil {
			f.payloads[index] = *payloads[i]
		}
	}
	f.streams[stream.Name], f.migrations[migration.Name] = &stream, &migration
	return place, nil
}

// payload gives the checked payload of a line.
func (l line) payload(e log.Event) (*log.Payload, error) {
	if e.Payload == nil {
		if l.Payload != nil || l.PayloadB64 != nil || l.Salt != nil {
			return nil, fmt.Errorf("payload without a commitment")
		}
		return nil, nil
	}
	p := &log.Payload{Salt: [32]byte(l.Salt)}
	var err error
	if l.PayloadB64 != nil {
		p.Bytes, err = base64.StdEncoding.Strict().DecodeString(*l.PayloadB64)
	} else {
		p.Bytes, err = log.Canonical(l.Payload)
	}
	if err != nil {
		return nil, err
	}
	return p, e.Payload.Check(*p)
}

func (f *fakeLog) answer(place [2]uint64) []byte {
	var parts []json.RawMessage
	var leaves []log.Hash
	var first log.Part
	for i := range place[1] {
		text := f.entries[place[0]+i]
		e, err := log.ParseEntry(text)
		if err != nil && f.part == nil {
			panic(err)
		}
		if i == 0 {
			first = e.Log
		}
		parts, leaves = append(parts, e.Log.Marshal()), append(leaves, log.LeafHash(text))
	}
	r := log.Receipt{Origin: origin, First: place[0], Count: place[1], Leaves: log.LeavesHash(leaves), Received: first.Received, By: first.Received + promiseMS}
	signer := f.receiptSigner
	if f.receipt != nil {
		if s := f.receipt(&r); s != nil {
			signer = s
		}
	}
	msg, err := note.Sign(&note.Note{Text: r.String()}, signer)
	if err != nil {
		panic(err)
	}
	text, err := json.Marshal(map[string]any{"count": place[1], "index": place[0], "log": parts, "receipt": string(msg)})
	if err != nil {
		panic(err)
	}
	return text
}

// check says whether the log holds exactly these events of a stream, in their
// order and chained, and returns the entries.
func (f *fakeLog) check(t testing.TB, stream string, kinds ...string) []log.Entry {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	var got []string
	var entries []log.Entry
	prev := log.StreamStart(origin, stream)
	for i, text := range f.entries[1:] {
		e, err := log.ParseEntry(text)
		if err != nil {
			t.Fatalf("entry %d: %v", i+1, err)
		}
		if e.Event.Stream != stream {
			continue
		}
		if e.Event.Prev != prev || e.Event.Seq != uint64(len(got))+1 {
			t.Errorf("%s: event %d has seq %d and does not follow", stream, len(got)+1, e.Event.Seq)
		}
		prev = e.Event.Hash()
		got, entries = append(got, e.Event.Kind), append(entries, e)
	}
	if strings.Join(got, " ") != strings.Join(kinds, " ") {
		t.Errorf("%s holds %v, want %v", stream, got, kinds)
	}
	return entries
}

// times repeats a kind.
func times(n int, kind string) []string {
	return strings.Fields(strings.Repeat(kind+" ", n))
}

// events makes n events with payloads.
func events(n int) []client.Event {
	out := make([]client.Event, n)
	for i := range out {
		out[i] = client.Event{
			Kind: "migration.load", Objects: []log.Object{{Name: "crm.customers", Role: "target"}},
			Payload: []byte(`{"row": ` + strconv.Itoa(i) + `}`),
		}
	}
	return out
}
