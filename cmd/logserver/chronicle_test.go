package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

// A chronicle is what the clients of a log hold against it: what it
// acknowledged to them, the heads that they saw signed, what it told them is
// erased, which tokens are good. A log that comes back from a crash is held to
// all of it. They are clients on another machine: they look at no file of it.
type chronicle struct {
	t               testing.TB
	client          *http.Client
	admin, auditor  string // tokens
	signed, receipt note.Verifier
	services        []*service

	mu       sync.Mutex
	acked    map[uint64]log.Hash   // leaf hashes, by index
	controls map[uint64]string     // kinds of acknowledged entries that the log made itself
	payloads map[uint64]log.Hash   // SHA-256 of those whose erasure was never asked for
	erased   map[uint64]bool       // the erasure was acknowledged
	tokens   map[string]bool       // good or revoked, where that is known
	heads    map[log.Head]bool     // that anyone saw signed
	again    map[*service]httpSent // the last acknowledged request of each
	counts   struct{ acks, controls, erasures, payloads, retries, failures int }

	// What was read of the log: its leaves, the roots of all its sizes.
	leaves []log.Hash
	roots  []log.Hash
	grown  *compact.Range
}

// A service is a submitter through crashes: it sends a request again whose answer it missed.
type service struct {
	*submitter
	n       int
	pending []wire
}

type httpSent struct {
	body   []byte
	answer answer
}

// newChronicle makes clients for a log, which is running.
func newChronicle(r *running, services int) *chronicle {
	c := &chronicle{
		t: r.t, client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
		admin: r.admin, auditor: r.token("auditor", "auditor"),
		acked: map[uint64]log.Hash{}, controls: map[uint64]string{}, payloads: map[uint64]log.Hash{}, erased: map[uint64]bool{},
		tokens: map[string]bool{}, heads: map[log.Head]bool{}, again: map[*service]httpSent{},
	}
	for file, v := range map[string]*note.Verifier{"log.vkey": &c.signed, "receipt.vkey": &c.receipt} {
		var err error
		*v, err = note.NewVerifier(strings.TrimSpace(string(read(r.t, filepath.Join(r.dir, file)))))
		must(r.t, err)
	}
	for i := range services {
		c.services = append(c.services, &service{submitter: r.submitter(fmt.Sprintf("svc%d", i), fmt.Sprintf("m%d/s", i))})
	}
	c.forget()
	return c
}

// forget forgets what was read, and nothing of what was acknowledged.
func (c *chronicle) forget() {
	c.leaves, c.roots = nil, []log.Hash{log.EmptyHead().Root}
	c.grown = (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
}

// ask does one request. Its error is that nobody answered.
func (c *chronicle) ask(method, url, token string, body []byte) (status int, answered []byte, err error) {
	req, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if strings.HasSuffix(url, "/v1/events") {
		req.Header.Set("Content-Type", ndjson)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	answered, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answered, errors.Join(err, resp.Body.Close())
}

// errLater: the log takes nothing now, and may later.
var errLater = errors.New("not now")

// order asks for something that the log acknowledges, and is told more about
// what it refuses than a client that only wants it done.
func (c *chronicle) order(method, url, token string, body []byte, into any) error {
	status, answered, err := c.ask(method, url, token, body)
	switch {
	case err != nil:
		return err
	case status == 200, status == 201:
		return json.Unmarshal(answered, into)
	case status == 503 && !bytes.Contains(answered, []byte(":read-only")), status == 507:
		return errLater
	case status == 503:
		return errors.New("it is read-only")
	case status == 500:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.counts.failures++
		return errors.New("it fails")
	}
	c.t.Errorf("%s %s answers %d: %s", method, url, status, answered)
	return errors.New("refused")
}

// load starts all clients on the server at url. They end when it is gone or
// read-only, or when end is called, which waits for them.
func (c *chronicle) load(url string) (end func()) {
	stop := make(chan struct{})
	var clients sync.WaitGroup
	run := func(step func() error) {
		clients.Go(func() {
			for {
				err := step()
				if err != nil && !errors.Is(err, errLater) {
					return
				}
				pause := time.Duration(0)
				if err != nil {
					pause = 10 * time.Millisecond
				}
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
			}
		})
	}
	for _, s := range c.services {
		run(func() error { return c.append(url, s) })
	}
	turn := 0
	run(func() error { turn++; return c.administer(url, turn) })
	run(func() error { return c.observe(url) })
	return func() {
		close(stop)
		clients.Wait()
		c.client.CloseIdleConnections()
	}
}

// request makes the next request of a service: small events, now and then one whose payload gets a file of its own.
func (s *service) request() []wire {
	s.n++
	switch {
	case s.stream.Seq == 0:
		return s.next("stream.open", s.opening())
	case s.n%16 == 0:
		return s.next("migration.load", fmt.Sprintf(`{"text":%q}`, strings.Repeat("a", 70_000)))
	case s.n%5 == 0:
		return s.next("migration.load", "")
	}
	return s.next("migration.load", fmt.Sprintf(`{"n":%d}`, s.n), "migration.load", fmt.Sprintf(`{"n":-%d}`, s.n))
}

func (c *chronicle) append(url string, s *service) error {
	if s.pending == nil {
		s.pending = s.request()
	}
	events, sig := s.pending, s.tail(s.pending)
	sent := httpSent{body: body(events, sig)}
	if err := c.order("POST", url+"/v1/events", s.token, sent.body, &sent.answer); err != nil {
		return err
	}
	entries, err := openReceipt(c.receipt, sent.answer, events, sig)
	if err != nil {
		c.t.Error(err)
		return err
	}
	last := events[len(events)-1].event
	s.stream.Seq, s.stream.Hash, s.pending = last.Seq, last.Hash(), nil
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range entries {
		index := sent.answer.Index + uint64(i)
		c.acked[index] = log.LeafHash(e)
		if p := events[i].payload; p != nil && log.Erasable(events[i].event.Kind) {
			c.payloads[index] = sha256Sum(p.Bytes)
		}
	}
	c.again[s] = sent
	c.counts.acks += len(entries)
	return nil
}

// administer lets control entries come between the events, and erasures.
func (c *chronicle) administer(url string, turn int) error {
	var at indexAnswer
	kind := ""
	var err error
	switch turn % 4 {
	case 0:
		var a tokenAnswer
		err = c.order("POST", url+"/v1/access/tokens", c.admin, []byte(`{"principal":"guest","role":"auditor"}`), &a)
		if err == nil {
			c.mu.Lock()
			c.tokens[a.Token] = true
			c.mu.Unlock()
		}
		kind, at.Index = "access.token.created", a.Index
	case 1:
		kind, err = "access.token.revoked", c.revoke(url, &at)
	case 2:
		kind, err = "payload.erased", c.erase(url, &at)
	case 3:
		_, key := newKey(c.t)
		vkey, keyErr := key.VKey("guest")
		must(c.t, keyErr)
		kind, err = "key.registered", c.order("POST", url+"/v1/keys", c.admin, fmt.Appendf(nil, `{"principal":"guest","vkey":%q}`, vkey), &at)
	}
	if err != nil {
		return err
	}
	if at.Index > 0 { // there was something to do
		c.mu.Lock()
		defer c.mu.Unlock()
		c.controls[at.Index] = kind
		c.counts.controls++
	}
	return errLater
}

// revoke revokes a token. Until the answer nobody knows whether it is good.
func (c *chronicle) revoke(url string, at *indexAnswer) error {
	c.mu.Lock()
	token := ""
	for t, good := range c.tokens {
		if good {
			token = t
		}
	}
	delete(c.tokens, token)
	c.mu.Unlock()
	if token == "" {
		return nil
	}
	hash := sha256Sum([]byte(token))
	err := c.order("DELETE", fmt.Sprintf("%s/v1/access/tokens/%x", url, hash[:16]), c.admin, nil, at)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tokens[token] = false
	}
	return err
}

// erase erases a payload. Until the answer nobody knows whether it is gone.
func (c *chronicle) erase(url string, at *indexAnswer) error {
	c.mu.Lock()
	index := uint64(0)
	for i := range c.payloads {
		index = i
		break
	}
	delete(c.payloads, index)
	c.mu.Unlock()
	if index == 0 {
		return nil
	}
	err := c.order("DELETE", fmt.Sprintf("%s/v1/payloads/%d", url, index), c.admin, []byte(`{"authority":"gdpr:art17"}`), at)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.erased[index] = true
		c.counts.erasures++
	}
	return err
}

// observe looks at the heads that the log signs and publishes.
func (c *chronicle) observe(url string) error {
	for _, path := range []string{"/checkpoint", "/checkpoint/signed"} {
		if _, err := c.head(url + path); err != nil {
			return err
		}
	}
	return errLater
}

func (c *chronicle) head(url string) (log.Checkpoint, error) {
	status, msg, err := c.ask("GET", url, c.admin, nil)
	if err != nil {
		return log.Checkpoint{}, err
	}
	if status != 200 {
		return log.Checkpoint{}, fmt.Errorf("%s answers %d: %s", url, status, msg)
	}
	cp, err := log.OpenCheckpoint(msg, c.signed)
	if err != nil {
		return cp, fmt.Errorf("%s: %w", url, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heads[cp.Head] = true
	return cp, nil
}

// extent is how many entries the log must have at least.
func (c *chronicle) extent() (size uint64) {
	for i := range c.acked {
		size = max(size, i+1)
	}
	for i := range c.controls {
		size = max(size, i+1)
	}
	for h := range c.heads {
		size = max(size, h.Size)
	}
	return max(size, uint64(len(c.leaves)))
}

// check holds a log that has come back, at url, to everything since the last
// check, and to some of what is older. The clients are at rest.
func (c *chronicle) check(url string) error {
	cp, err := c.covering(url)
	if err == nil {
		err = c.follow(url, cp)
	}
	if err != nil {
		return err
	}
	var errs []error
	for h := range c.heads {
		if c.roots[h.Size] != h.Root {
			errs = append(errs, fmt.Errorf("a head of size %d was signed that is not of this history", h.Size))
		}
	}
	for i, leaf := range c.acked {
		if c.leaves[i] != leaf {
			errs = append(errs, fmt.Errorf("entry %d is not the one that was acknowledged", i))
		}
	}
	if len(c.controls) > 0 {
		errs = append(errs, fmt.Errorf("acknowledged control entries are not there: %v", c.controls))
	}
	clear(c.acked)    // its leaves are known now, and under a root
	clear(c.controls) // follow has taken out those it met
	clear(c.heads)
	c.heads[cp.Head] = true
	return errors.Join(append(errs, c.checkPayloads(url), c.checkTokens(url), c.checkRetries(url))...)
}

// covering waits for a published checkpoint over all that was acknowledged.
func (c *chronicle) covering(url string) (log.Checkpoint, error) {
	extent := c.extent()
	status, state, err := c.ask("GET", url+"/readyz", "", nil)
	var ready []readyJSON
	if err != nil || json.Unmarshal(state, &ready) != nil || len(ready) != 1 {
		return log.Checkpoint{}, fmt.Errorf("GET /readyz answers %d: %s: %w", status, state, err)
	}
	if ready[0].Size < extent {
		return log.Checkpoint{}, fmt.Errorf("it has %d entries, and had acknowledged or signed %d", ready[0].Size, extent)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		cp, err := c.head(url + "/checkpoint")
		if err != nil || cp.Size >= extent {
			return cp, err
		}
		if time.Now().After(deadline) {
			return cp, fmt.Errorf("the newest checkpoint has size %d, and %d entries are acknowledged", cp.Size, extent)
		}
	}
}

// follow reads the entries behind those it knows, up to a checkpoint.
func (c *chronicle) follow(url string, cp log.Checkpoint) error {
	for known := uint64(len(c.leaves)); known < cp.Size; known = uint64(len(c.leaves)) {
		id := log.BundleID(known/log.TileWidth, int(min(log.TileWidth, cp.Size-known/log.TileWidth*log.TileWidth)))
		status, data, err := c.ask("GET", url+"/"+id.Path(), c.admin, nil)
		if err != nil || status != 200 {
			return fmt.Errorf("GET %s answers %d: %s: %w", id.Path(), status, data, err)
		}
		entries, err := log.ParseBundle(data, id.Width)
		if err != nil {
			return fmt.Errorf("%s: %w", id.Path(), err)
		}
		for _, entry := range entries[known%log.TileWidth:] {
			if err := c.grow(entry); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *chronicle) grow(entry []byte) error {
	index, leaf := uint64(len(c.leaves)), log.LeafHash(entry)
	if kind := c.controls[index]; kind != "" {
		e, err := log.ParseEntry(entry)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if e.Event.Kind == kind {
			delete(c.controls, index)
		}
	}
	if err := c.grown.Append(leaf[:], nil); err != nil {
		return err
	}
	root, err := c.grown.GetRootHash(nil)
	if err != nil {
		return err
	}
	c.leaves, c.roots = append(c.leaves, leaf), append(c.roots, log.Hash(root))
	return nil
}

// checkSome is how many things of a sort, in no order, a check looks at: fsck reads every payload in the end.
const checkSome = 6

// checkPayloads reads some payloads, and asks for some that are erased.
func (c *chronicle) checkPayloads(url string) error {
	var errs []error
	read := func(i uint64) (int, []byte) {
		status, b, err := c.ask("GET", fmt.Sprintf("%s/v1/payloads/%d", url, i), c.auditor, nil)
		if err != nil {
			errs = append(errs, err)
		}
		c.counts.payloads++
		return status, b
	}
	for _, i := range some(c.payloads) {
		if status, b := read(i); status != 200 || sha256Sum(b) != c.payloads[i] {
			errs = append(errs, fmt.Errorf("payload %d: status %d: %.100q", i, status, b))
		}
	}
	for _, i := range some(c.erased) {
		if status, b := read(i); status != 410 {
			errs = append(errs, fmt.Errorf("the erased payload %d: status %d: %.100q", i, status, b))
		}
	}
	return errors.Join(errs...)
}

func some[K comparable, V any](all map[K]V) []K {
	keys := slices.Collect(maps.Keys(all))
	rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys[:min(len(keys), checkSome)]
}

func (c *chronicle) checkTokens(url string) error {
	var errs []error
	for _, token := range some(c.tokens) {
		status, _, err := c.ask("GET", url+"/v1/entries/0", token, nil)
		if want := map[bool]int{true: 200, false: 401}[c.tokens[token]]; err != nil || status != want {
			errs = append(errs, fmt.Errorf("a token that is good: %v: status %d: %w", c.tokens[token], status, err))
		}
	}
	return errors.Join(errs...)
}

// checkRetries sends again what was acknowledged last: the receipt is the same.
func (c *chronicle) checkRetries(url string) error {
	var errs []error
	for s, sent := range c.again {
		status, b, err := c.ask("POST", url+"/v1/events", s.token, sent.body)
		var a answer
		if err != nil || status != 200 || json.Unmarshal(b, &a) != nil || a.Receipt != sent.answer.Receipt {
			errs = append(errs, fmt.Errorf("a retry answers %d: %s: %w", status, b, err))
		}
		c.counts.retries++
	}
	return errors.Join(errs...)
}

// checkAll reads the whole log again.
func (c *chronicle) checkAll(url string) error {
	known, roots := c.leaves, c.roots
	c.forget()
	if err := c.check(url); err != nil {
		return err
	}
	if len(c.leaves) < len(known) || !slices.Equal(c.roots[:len(roots)], roots) {
		return errors.New("the log has another history now")
	}
	return nil
}

func (c *chronicle) String() string {
	n := c.counts
	return fmt.Sprintf("%d entries of %d acknowledged (%d retried), %d control entries among them, %d erasures, %d payloads read",
		n.acks+n.controls, len(c.leaves), n.retries, n.controls, n.erasures, n.payloads)
}
