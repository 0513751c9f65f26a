package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

const (
	normalClients = 9
	normalPeriod  = 40 * time.Millisecond // between two requests of a normal client; a flooder sends ten
	floodTime     = 3 * time.Second
	floodBytes    = 512 << 10 // of a flooder's body
	floodPause    = 300 * time.Millisecond
	floodAtOnce   = 100 // requests of a flooder that wait for an answer
)

// floodLimits leave room for the bodies that one principal may send at its rate, and not for ten times as many.
const floodLimits = "limits: {body_bytes: 1048576, bodies_bytes: 16777216%s}\n"

// A normal client appends one event per period, whether or not the one before was answered in time.
type normal struct {
	*submitter
	times []time.Duration // from when a request was due to its answer
	busy  int             // answers 503
}

func (n *normal) run(d time.Duration) {
	due, end := time.Now(), time.Now().Add(d)
	for ; due.Before(end) && time.Now().Before(end); due = due.Add(normalPeriod) {
		time.Sleep(time.Until(due))
		events := n.next("migration.load", `{"n":1}`)
		a := n.send(events)
		for ; a.status == 429; a = n.send(events) { // it has fallen behind, and hurries too much
			time.Sleep(normalPeriod)
		}
		if n.times = append(n.times, time.Since(due)); a.status == 503 {
			n.busy++
			continue
		}
		a.want(201, "")
		n.stream.Seq, n.stream.Hash = events[0].event.Seq, events[0].event.Hash()
	}
}

// A flooder sends large and slow bodies, ten times as often as a normal client.
type flooder struct {
	r     *running
	token string

	sent, answered, refused atomic.Int64
	all                     sync.WaitGroup
}

func (f *flooder) run(stop <-chan struct{}) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	defer f.all.Wait()
	tick := time.NewTicker(normalPeriod / 10)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if f.sent.Load()-f.answered.Load() < floodAtOnce {
			f.sent.Add(1)
			f.all.Go(func() { f.send(client) })
		}
	}
}

// pausing is a reader that has nothing for a while.
type pausing struct{ time.Duration }

func (p pausing) Read([]byte) (int, error) {
	time.Sleep(p.Duration)
	return 0, io.EOF
}

func (f *flooder) send(client *http.Client) {
	defer f.answered.Add(1)
	part := strings.Repeat("x", floodBytes/2)
	slow := io.MultiReader(strings.NewReader(part), pausing{floodPause}, strings.NewReader(part))
	req, err := http.NewRequestWithContext(context.Background(), "POST", f.r.url+"/v1/events", slow)
	if err != nil {
		f.r.t.Error(err)
		return
	}
	req.ContentLength = floodBytes
	req.Header.Set("Authorization", "Bearer "+f.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return // the server closed the connection, after an answer that went by
	}
	_ = resp.Body.Close() // its status is all that counts
	if resp.StatusCode == 429 && resp.Header.Get("Retry-After") != "" {
		f.refused.Add(1)
	}
}

// flooded gives the p99 of nine normal clients, alone and beside a flooder, and how many of theirs were turned away.
func flooded(t *testing.T, limits string) (alone, beside time.Duration, busy int, f *flooder) {
	r := newLog(t, nil)
	var normals []*normal
	for i := range normalClients {
		n := &normal{submitter: r.submitter(fmt.Sprintf("svc%d", i), fmt.Sprintf("m%d/customers", i))}
		n.append("stream.open", n.opening())
		normals = append(normals, n)
	}
	token := r.token("flooder", "migration-service")
	must(t, r.stop())
	file := filepath.Join(r.dir, "config.yaml")
	must(t, os.WriteFile(file, append(read(t, file), limits...), 0o644))
	r.start()
	together := func() time.Duration {
		var all sync.WaitGroup
		for _, n := range normals {
			n.times = nil
			all.Go(func() { n.run(floodTime) })
		}
		all.Wait()
		var times []time.Duration
		for _, n := range normals {
			times, busy = append(times, n.times...), busy+n.busy
		}
		return quantile(times, .99)
	}
	if alone = together(); busy > 0 {
		t.Fatalf("%d requests are turned away without a flooder", busy)
	}
	f = &flooder{r: r, token: token}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); f.run(stop) }()
	beside = together()
	close(stop)
	<-ended
	return alone, beside, busy, f
}

func TestAFlooderDoesNotSlowOthersDown(t *testing.T) {
	timed(t)
	alone, beside, busy, f := flooded(t, fmt.Sprintf(floodLimits, ", requests_per_second: 40, burst: 10"))
	t.Logf("p99 of %d normal clients: %v alone, %v beside a flooder, who sent %d, of which %d got 429", normalClients, alone, beside, f.sent.Load(), f.refused.Load())
	if busy > 0 || beside > 5*alone+100*time.Millisecond {
		t.Errorf("beside a flooder %d requests of others are turned away, and their p99 is %v, alone %v", busy, beside, alone)
	}
	if f.refused.Load() < f.sent.Load()/4 {
		t.Errorf("of %d requests of a flooder %d got 429", f.sent.Load(), f.refused.Load())
	}
	// The control: without a limit for each principal the flooder does harm.
	_, beside, busy, f = flooded(t, fmt.Sprintf(floodLimits, ""))
	t.Logf("without a limit for each principal: p99 %v, %d requests of others turned away, %d sent", beside, busy, f.sent.Load())
	if busy == 0 {
		t.Error("without a limit for each principal nobody is turned away: this test finds nothing")
	}
}

// A discarding response writer keeps the status.
type discarding struct {
	header http.Header
	status int
}

func (d *discarding) Header() http.Header         { return d.header }
func (d *discarding) Write(b []byte) (int, error) { return len(b), nil }
func (d *discarding) WriteHeader(status int)      { d.status = status }

// ask sends a request from inside, and gives the status.
func (in *inside) ask(method, path, token string) int {
	req := &http.Request{
		Method: method, URL: &url.URL{Path: path}, RequestURI: path, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: "x",
		Header: http.Header{"Authorization": {"Bearer " + token}}, Body: http.NoBody,
	}
	w := &discarding{header: make(http.Header)}
	in.mux.ServeHTTP(w, req)
	return w.status
}

// series counts the series of all metrics.
func (in *inside) series() (n int) {
	in.t.Helper()
	families, err := in.reg.Gather()
	must(in.t, err)
	for _, f := range families {
		n += len(f.GetMetric())
	}
	return n
}

func TestAMillionPrincipalsTakeNoMemory(t *testing.T) {
	many := 1_000_000
	if testing.Short() {
		many = 50_000
	}
	r := newLog(t, func(c string) string { return c + "limits: {requests_per_second: 1, burst: 5}\n" })
	must(t, r.stop())
	in := r.inside()
	// Somebody comes with a token, asks for an entry that is not there, now and then for what is not allowed, and the token
	// is revoked.
	known := func(i int) {
		name, token := fmt.Sprintf("somebody%d", i), fmt.Sprintf("pr_%d", i)
		hash := sha256.Sum256([]byte(token))
		created := log.TokenCreated{ExpiresMS: 1 << 50, Hash: hash, ID: fmt.Sprintf("%x", hash[:16]), Principal: name, Role: "auditor"}
		must(t, in.ledger.access.Apply(0, log.Entry{Event: log.Event{Kind: "access.token.created"}}, created.Marshal()))
		if status := in.ask("GET", "/v1/entries/1000000", token); status != 404 {
			t.Fatalf("%s reads: %d", name, status)
		}
		if i%5000 == 0 {
			if status := in.ask("POST", "/v1/keys", token); status != 403 {
				t.Fatalf("%s registers a key: %d", name, status)
			}
		}
		must(t, in.ledger.access.Apply(0, log.Entry{Event: log.Event{Kind: "access.token.revoked"}}, log.TokenRevoked{ID: created.ID}.Marshal()))
	}
	unknown := func(i int) {
		method, path := "GET", fmt.Sprintf("/v1/streams/junk%d", i)
		switch i % 4 {
		case 1:
			path = fmt.Sprintf("/junk/%d", i)
		case 2:
			method = fmt.Sprintf("JUNK%d", i)
		}
		if status := in.ask(method, path, fmt.Sprintf("junk%d", i)); status < 400 || status >= 500 {
			t.Fatalf("%s %s: %d", method, path, status)
		}
	}
	for i := range 25_000 { // what is bounded is full
		known(i)
		unknown(i)
	}
	before, series := heap(), in.series()
	start := time.Now()
	for i := range many {
		known(i + 25_000)
		unknown(i + 25_000)
	}
	elapsed := time.Since(start)
	more := heap() - before
	t.Logf("%d principals and as many who are unknown: %d KB of heap more, %d series of metrics, %v", many, more>>10, in.series(), elapsed.Round(time.Millisecond))
	if more > 8<<20 {
		t.Errorf("%d bytes of heap more", more)
	}
	if now := in.series(); now != series {
		t.Errorf("%d series of metrics, there were %d", now, series)
	}
}

func TestAFlooderIsNotForgottenForTheSakeOfOthers(t *testing.T) {
	r := newRates(Limits{RequestsPerSecond: 1e-9, Burst: 3})
	allowed := 0
	for i := range 20 * ratesMax {
		r.allow(fmt.Sprint("somebody", i))
		if i%1000 == 0 && r.allow("flooder") {
			allowed++
		}
	}
	if allowed != 3 {
		t.Errorf("a flooder with a burst of 3 is allowed %d requests beside %d others", allowed, 20*ratesMax)
	}
	if n := len(r.late) + len(r.old); n > 2*ratesMax {
		t.Errorf("%d rates are remembered", n)
	}
}
