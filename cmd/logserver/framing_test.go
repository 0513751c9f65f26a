package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
)

// newTLSLog makes a log that is served over TLS. It gives what a client needs to trust it.
func newTLSLog(t *testing.T, change func(string) string) (*running, *tls.Config) {
	t.Helper()
	lent := httptest.NewTLSServer(nil) // it has a certificate for 127.0.0.1
	lent.Close()
	key, err := x509.MarshalPKCS8PrivateKey(lent.TLS.Certificates[0].PrivateKey)
	must(t, err)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: lent.Certificate().Raw}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	r := newLog(t, func(c string) string {
		if change != nil {
			c = change(c)
		}
		return c + fmt.Sprintf("tls: {cert: %s, key: %s}\n", certFile, keyFile)
	})
	r.url = strings.Replace(r.url, "http://", "https://", 1)
	pool := x509.NewCertPool()
	pool.AddCert(lent.Certificate())
	return r, &tls.Config{RootCAs: pool}
}

// An attacker speaks to a server byte by byte.
type attacker struct {
	t    *testing.T
	dial func() (net.Conn, error)
}

func (r *running) attacker(config *tls.Config) attacker {
	_, addr, _ := strings.Cut(r.url, "://")
	return attacker{r.t, func() (net.Conn, error) {
		if config != nil {
			return tls.Dial("tcp", addr, config)
		}
		return net.Dial("tcp", addr)
	}}
}

const healthRequest = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

// send writes bytes and reads answers, as many as come before the connection ends or as are wanted. It says whether
// the connection is still good for a request after those.
func (a attacker) send(raw string, want int) (statuses []int, bodies []string, open bool) {
	a.t.Helper()
	c, err := a.dial()
	must(a.t, err)
	defer func() { _ = c.Close() }() // it may be closed by the other side
	must(a.t, c.SetDeadline(time.Now().Add(20*time.Second)))
	if _, err := io.WriteString(c, raw); err != nil {
		a.t.Logf("the server does not wait for all of it: %v", err)
	}
	method, _, _ := strings.Cut(raw, " ")
	in := bufio.NewReader(c)
	next := func() error {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return err
		}
		b, err := io.ReadAll(resp.Body)
		statuses, bodies = append(statuses, resp.StatusCode), append(bodies, string(b))
		return err
	}
	for len(statuses) < want {
		if err := next(); errors.Is(err, os.ErrDeadlineExceeded) {
			a.t.Errorf("no answer to %.300q after %v", raw, statuses)
			return statuses, bodies, true
		} else if err != nil {
			return statuses, bodies, false
		}
	}
	method = "GET"
	if _, err := io.WriteString(c, healthRequest); err != nil || next() != nil {
		return statuses, bodies, false
	}
	last := len(statuses) - 1
	open = statuses[last] == 200 && bodies[last] == "ok\n"
	return statuses[:last], bodies[:last], open
}

// A rawRequest is what an attacker writes, and how the server takes it.
type rawRequest struct {
	name string
	raw  string // {token} stands for a good token, {events} for a body that would be taken, {n} for its length, {append} for all of a request with it
	want []int  // statuses of the answers
	open bool   // whether the connection goes on
	// alone says that net/http by itself takes it, or goes on with the connection: the control finds that.
	alone bool
}

const (
	auth  = "Host: x\r\nAuthorization: Bearer {token}\r\n"
	post  = "POST /v1/events HTTP/1.1\r\n" + auth + "Content-Type: application/x-ndjson\r\n"
	entry = "GET /v1/entries/0 HTTP/1.1\r\n"
)

func lf(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }

// framings leave in doubt where a request ends.
var framings = []rawRequest{
	{name: "length beside chunks", raw: post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{append}", alone: true},
	{name: "chunks beside length", raw: post + "Transfer-Encoding: chunked\r\nContent-Length: {n}\r\n\r\n0\r\n\r\n{append}", alone: true},
	{name: "chunks beside a length of 0", raw: post + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", alone: true},
	{name: "two lengths", raw: post + "Content-Length: {n}\r\nContent-Length: 0\r\n\r\n{events}"},
	{name: "the same length twice", raw: post + "Content-Length: {n}\r\nContent-Length: {n}\r\n\r\n{events}", alone: true},
	{name: "a list of lengths", raw: post + "Content-Length: {n}, {n}\r\n\r\n{events}"},
	{name: "a length with a sign", raw: post + "Content-Length: +{n}\r\n\r\n{events}"},
	{name: "a negative length", raw: post + "Content-Length: -1\r\n\r\n{events}"},
	{name: "a hexadecimal length", raw: post + "Content-Length: 0x10\r\n\r\n{events}"},
	{name: "an empty length", raw: post + "Content-Length:\r\n\r\n{events}"},
	{name: "a length beyond 63 bits", raw: post + "Content-Length: 9223372036854775808\r\n\r\n{events}"},
	{name: "a length with a vertical tab", raw: post + "Content-Length: \v{n}\r\n\r\n{events}"},
	{name: "an unknown coding", raw: post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
	{name: "a compressed coding", raw: post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
	{name: "a coding after chunks", raw: post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"},
	{name: "the coding identity", raw: post + "Transfer-Encoding: identity\r\nContent-Length: {n}\r\n\r\n{events}"},
	{name: "a quoted coding", raw: post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"},
	{name: "two codings", raw: post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{name: "a folded coding", raw: post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{append}", alone: true},
	{name: "a coding with a space before the colon", raw: post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"},
	{name: "chunks in HTTP/1.0", raw: strings.Replace(post, "1.1", "1.0", 1) + "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{append}", alone: true},
	{name: "bare LF everywhere", raw: lf(post+"Content-Length: {n}\r\n\r\n") + "{events}", alone: true},
	{name: "bare LF after the request line", raw: strings.Replace(post, "\r\n", "\n", 1) + "Content-Length: {n}\r\n\r\n{events}", alone: true},
	{name: "bare LF hides a header from some", raw: post + "X: y\nContent-Length: {n}\r\n\r\n{events}", alone: true},
	{name: "bare LF at the end of the head", raw: post + "Content-Length: {n}\r\n\n{events}", alone: true},
	{name: "bare LF on a read", raw: lf(entry + auth + "\r\n"), alone: true},
	{name: "bare CR in a value", raw: post + "X: a\rContent-Length: 0\r\nContent-Length: {n}\r\n\r\n{events}"},
	{name: "bare CR as the end of a line", raw: post + "Content-Length: {n}\r\rX: y\r\n\r\n{events}"},
	{name: "two CR before a LF", raw: post + "Content-Length: {n}\r\r\n\r\n{events}"},
	{name: "NUL in a value", raw: post + "X: a\x00b\r\nContent-Length: {n}\r\n\r\n{events}"},
	{name: "NUL in a name", raw: post + "X\x00: b\r\nContent-Length: {n}\r\n\r\n{events}"},
	{name: "DEL in a value", raw: post + "X: \x7f\r\nContent-Length: {n}\r\n\r\n{events}"},
	{name: "a folded header", raw: post + "X: a\r\n b\r\nContent-Length: {n}\r\n\r\n{events}", alone: true},
	{name: "a first header that is folded", raw: "POST /v1/events HTTP/1.1\r\n X: y\r\n" + auth + "Content-Length: {n}\r\n\r\n{events}"},
	{name: "a header without a colon", raw: post + "X\r\nContent-Length: {n}\r\n\r\n{events}"},
	{name: "a header without a name", raw: post + ": x\r\nContent-Length: {n}\r\n\r\n{events}"},
	{name: "a name with a space in it", raw: post + "Content Length: 3\r\nContent-Length: {n}\r\n\r\n{events}"},
	{name: "a tab before the colon", raw: post + "Content-Length\t: {n}\r\n\r\n{events}"},
	{name: "no host", raw: strings.Replace(entry+auth, "Host: x\r\n", "", 1) + "\r\n"},
	{name: "two hosts", raw: entry + "Host: y\r\n" + auth + "\r\n"},
	{name: "a host with a space", raw: strings.Replace(entry+auth, "Host: x", "Host: x y", 1) + "\r\n"},
	{name: "HTTP/0.9", raw: "GET /v1/entries/0\r\n\r\n"},
	{name: "HTTP/1.2", raw: strings.Replace(entry, "1.1", "1.2", 1) + auth + "\r\n", alone: true},
	{name: "HTTP/3.0", raw: strings.Replace(entry, "1.1", "3.0", 1) + auth + "\r\n"},
	{name: "http/1.1 in lower case", raw: strings.Replace(entry, "HTTP", "http", 1) + auth + "\r\n"},
	{name: "HTTP/2 without TLS", raw: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	{name: "a space after the version", raw: strings.Replace(entry, "\r\n", " \r\n", 1) + auth + "\r\n"},
	{name: "an empty line first", raw: "\r\n" + entry + auth + "\r\n"},
	{name: "tabs in the request line", raw: strings.ReplaceAll(entry, " ", "\t") + auth + "\r\n"},
	{name: "a target with a space", raw: "GET /v1/entries/0 0 HTTP/1.1\r\n" + auth + "\r\n"},
	{name: "a target with NUL", raw: "GET /v1/entries/0\x00 HTTP/1.1\r\n" + auth + "\r\n"},
	{name: "a body nobody announced", raw: post + "\r\n{events}\n", want: []int{400, 400}},
	{name: "more body than announced", raw: "GET /v1/entries/0 HTTP/1.1\r\n" + auth + "Content-Length: 2\r\n\r\n{}{events}\n", want: []int{200, 400}},
	{name: "a good request before a doubtful one", raw: entry + auth + "\r\n" + lf(entry+auth+"\r\n"), want: []int{200, 400}, alone: true},
	{name: "a doubtful request before a good one", raw: lf(entry+auth+"\r\n") + "{append}", alone: true},
	{name: "chunks, and a request behind them", raw: "GET /v1/entries/0 HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{append}", want: []int{200}, alone: true},
	{name: "chunks for the server as a whole, and a request behind them", raw: "OPTIONS * HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{append}", alone: true},
	{name: "a chunk's size that ends in a bare LF", raw: post + "Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n{append}"},
	{name: "a chunk without an end", raw: post + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n{append}"},
	{name: "a negative chunk", raw: post + "Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n{append}"},
	{name: "a chunk beyond 64 bits", raw: post + "Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n{append}"},
	{name: "a chunk with a sign of C", raw: post + "Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n{append}"},
	{name: "trailers that would be headers", raw: entry + auth + "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\nContent-Length: 9\r\nAuthorization: Bearer x\r\n\r\n{append}", want: []int{400}},
}

// odd requests are clear, and must do nothing but what they say.
var odd = []rawRequest{
	{name: "a request inside a body", raw: entry + auth + "Content-Length: {n}\r\n\r\n{events}", want: []int{200}, open: true},
	{name: "pipelined requests", raw: strings.Repeat(entry+auth+"\r\n", 3), want: []int{200, 200, 200}, open: true},
	{name: "pipelined in HTTP/1.0", raw: strings.Repeat("GET /v1/entries/0 HTTP/1.0\r\n"+auth+"Connection: keep-alive\r\n\r\n", 2), want: []int{200, 200}, open: true},
	{name: "HTTP/1.0", raw: "GET /v1/entries/0 HTTP/1.0\r\n" + auth + "\r\n", want: []int{200}},
	{name: "absolute form", raw: "GET http://evil.example/v1/entries/0 HTTP/1.1\r\n" + auth + "\r\n", want: []int{200}, open: true},
	{name: "absolute form of a file", raw: "GET file:///etc/passwd HTTP/1.1\r\n" + auth + "\r\n", want: []int{404}, open: true},
	{name: "authority form", raw: "GET evil.example:80 HTTP/1.1\r\n" + auth + "\r\n", want: []int{307}, open: true},
	{name: "CONNECT", raw: "CONNECT evil.example:80 HTTP/1.1\r\n" + auth + "\r\n", want: []int{404}, open: true},
	{name: "TRACE", raw: "TRACE /v1/events HTTP/1.1\r\n" + auth + "\r\n", want: []int{405}, open: true},
	{name: "OPTIONS *", raw: "OPTIONS * HTTP/1.1\r\n" + auth + "\r\n", want: []int{400}},
	{name: "GET *", raw: "GET * HTTP/1.1\r\n" + auth + "\r\n", want: []int{400}},
	{name: "a method of its own", raw: "APPEND /v1/events HTTP/1.1\r\n" + auth + "\r\n", want: []int{405}, open: true},
	{name: "another method in a header", raw: entry + auth + "X-HTTP-Method-Override: DELETE\r\n\r\n", want: []int{200}, open: true},
	{name: "upgrade to h2c", raw: entry + auth + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAA\r\n\r\n", want: []int{200}, open: true},
	{name: "upgrade to a web socket", raw: entry + auth + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", want: []int{200}, open: true},
	{name: "an expectation of its own", raw: post + "Expect: 200-ok\r\nContent-Length: 300000\r\n\r\n", want: []int{417}},
	{name: "a body held back until it is asked for, by nobody", raw: "POST /v1/events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 300000\r\n\r\n", want: []int{401}},
	{name: "a coding of the content", raw: post + "Content-Encoding: gzip\r\nContent-Length: {n}\r\n\r\n{events}", want: []int{415}, open: true},
	{name: "a second coding of the content", raw: post + "Content-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: {n}\r\n\r\n{events}", want: []int{415}, open: true},
	{name: "an answer in any coding", raw: entry + auth + "Accept-Encoding: gzip, br, zstd\r\nTE: trailers, gzip\r\n\r\n", want: []int{200}, open: true},
	{name: "many conditions", raw: "GET /checkpoint HTTP/1.1\r\n" + auth + "If-None-Match: " + strings.Repeat(`"x", `, 2000) + "*\r\nIf-Modified-Since: x\r\nIf-Match: x\r\nIf-Range: x\r\n\r\n", want: []int{200}, open: true},
	{name: "many ranges", raw: "GET /tile/0/000.p/2 HTTP/1.1\r\n" + auth + "Range: bytes=0-" + strings.Repeat(",0-", 2000) + "\r\n\r\n", want: []int{200}, open: true},
	{name: "two tokens", raw: entry + auth + "Authorization: Bearer x\r\n\r\n", want: []int{401}, open: true},
	{name: "malformed percent encoding", raw: "GET /v1/entries/%zz HTTP/1.1\r\n" + auth + "\r\n", want: []int{400}},
	{name: "malformed percent encoding in a query", raw: "GET /v1/events?kind=%zz HTTP/1.1\r\n" + auth + "\r\n", want: []int{400}, open: true},
	{name: "an id with NUL", raw: "GET /v1/streams/%00 HTTP/1.1\r\n" + auth + "\r\n", want: []int{400}, open: true},
	{name: "an id that is no UTF-8", raw: "GET /v1/streams/%ff%fe HTTP/1.1\r\n" + auth + "\r\n", want: []int{400}, open: true},
	{name: "an id with a slash", raw: "GET /v1/entries/0%2f0 HTTP/1.1\r\n" + auth + "\r\n", want: []int{400}, open: true},
	{name: "a second spelling of an id", raw: "GET /v1/entries/00 HTTP/1.1\r\n" + auth + "\r\n", want: []int{400}, open: true},
	{name: "an id beyond 64 bits", raw: "GET /v1/entries/99999999999999999999 HTTP/1.1\r\n" + auth + "\r\n", want: []int{400}, open: true},
	{name: "dots up and out", raw: "GET /tile/../../config.yaml HTTP/1.1\r\n" + auth + "\r\n", want: []int{307}, open: true},
	{name: "encoded dots up and out", raw: "GET /tile/%2e%2e/%2e%2e/config.yaml HTTP/1.1\r\n" + auth + "\r\n", want: []int{404}, open: true},
	{name: "encoded slashes up and out", raw: "GET /tile/..%2f..%2fconfig.yaml HTTP/1.1\r\n" + auth + "\r\n", want: []int{404}, open: true},
	{name: "back slashes up and out", raw: "GET /tile/..%5c..%5cconfig.yaml HTTP/1.1\r\n" + auth + "\r\n", want: []int{404}, open: true},
	{name: "a checkpoint that is a path", raw: "GET /checkpoint/..%2f..%2fkeys%2fcheckpoint.key HTTP/1.1\r\n" + auth + "\r\n", want: []int{404}, open: true},
	{name: "entries by an encoded name", raw: "GET /tile/%65ntries/000.p/1 HTTP/1.1\r\nHost: x\r\n\r\n", want: []int{404}, open: true},
}

// filled puts the parts of an attack in.
func (c rawRequest) filled(token string, events []byte) string {
	raw := strings.ReplaceAll(c.raw, "{append}", post+"Content-Length: {n}\r\n\r\n{events}")
	return strings.NewReplacer("{token}", token, "{events}", string(events), "{n}", strconv.Itoa(len(events))).Replace(raw)
}

// clientOf is a client that speaks TLS, and HTTP/2 if the server does.
func clientOf(t *testing.T, config *tls.Config) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config.Clone()
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// served serves a log over plain TCP and over TLS.
func served(t *testing.T, test func(*testing.T, *running, attacker)) {
	t.Run("TCP", func(t *testing.T) {
		r := newLog(t, nil)
		test(t, r, r.attacker(nil))
	})
	t.Run("TLS", func(t *testing.T) {
		r, config := newTLSLog(t, nil)
		r.client = clientOf(t, config)
		test(t, r, r.attacker(config))
	})
}

// opened gives a service with an open stream, and a request's body that would go into it.
func (r *running) opened() (*submitter, []byte) {
	r.t.Helper()
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	events := crm.next("migration.load", `{"n":1}`)
	return crm, body(events, crm.tail(events))
}

func TestDoubtfulFramingIsRefusedAndTheConnectionClosed(t *testing.T) {
	served(t, func(t *testing.T, r *running, a attacker) {
		crm, events := r.opened()
		before := r.size()
		for _, c := range framings {
			want := c.want
			if want == nil {
				want = []int{400}
			}
			got, bodies, open := a.send(c.filled(crm.token, events), len(want))
			if !slices.Equal(got, want) || open {
				t.Errorf("%s: answers %v %q, open: %t; want %v and a closed connection", c.name, got, bodies, open, want)
			}
			if size := r.size(); size != before {
				t.Fatalf("%s: something was appended", c.name)
			}
		}
		t.Logf("%d requests in doubt were refused", len(framings))
		r.do("POST", "/v1/events", crm.token, ndjson, events).want(201, "") // it would have gone in
	})
}

// A server that has too much to do answers at once: also then nothing is read behind chunks.
func TestNothingIsReadBehindChunksThatAreRefusedForTooManyRequests(t *testing.T) {
	limits := Limits{BodyBytes: 1 << 20, HeaderTimeout: time.Minute, RequestTimeout: time.Minute} // no request at once
	fail := func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusServiceUnavailable) }
	l := must2(net.Listen("tcp", "127.0.0.1:0"))
	srv := limitedServer(http.NotFoundHandler(), limits, semaphore.NewWeighted(1<<20), fail, slog.New(slog.DiscardHandler))
	go func() { _ = srv.Serve(framedListener{l}) }() // until it is closed
	t.Cleanup(func() { must(t, srv.Close()) })
	a := attacker{t, func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }}
	got, _, _ := a.send("POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+lf(healthRequest), 2)
	if !slices.Equal(got, []int{503}) {
		t.Errorf("answers %v, want one 503 and a closed connection", got)
	}
}

func TestOddRequestsDoOnlyWhatTheySay(t *testing.T) {
	served(t, func(t *testing.T, r *running, a attacker) {
		crm, events := r.opened()
		secret := strings.TrimSpace(string(read(t, filepath.Join(r.dir, "keys", "checkpoint.key"))))
		before := r.size()
		for _, c := range odd {
			got, bodies, open := a.send(c.filled(crm.token, events), len(c.want))
			if !slices.Equal(got, c.want) || open != c.open {
				t.Errorf("%s: answers %v %q, open: %t; want %v, %t", c.name, got, bodies, open, c.want, c.open)
			}
			for _, b := range bodies {
				if strings.Contains(b, secret) || strings.Contains(b, "data_dir") || strings.Contains(b, crm.token) {
					t.Errorf("%s: the answer has what is not to be told: %s", c.name, b)
				}
			}
		}
		if size := r.size(); size != before {
			t.Errorf("%d entries were appended", size-before)
		}
		r.do("POST", "/v1/events", crm.token, ndjson, events).want(201, "")
	})
}

// The control: without the checks, requests that are in doubt do get through.
func TestNetHTTPAloneTakesDoubtfulFraming(t *testing.T) {
	r := newLog(t, nil)
	crm, _ := r.opened()
	must(t, r.stop())
	srv := httptest.NewServer(r.inside().mux)
	t.Cleanup(srv.Close)
	r.url = srv.URL
	a, taken, size := r.attacker(nil), 0, r.size()
	for _, c := range framings {
		want := c.want
		if want == nil {
			want = []int{400}
		}
		events := crm.next("migration.load", "")
		got, _, open := a.send(c.filled(crm.token, body(events, crm.tail(events))), len(want))
		appended := r.size() > size
		if appended {
			crm.stream.Seq, crm.stream.Hash, size = events[0].event.Seq, events[0].event.Hash(), r.size()
		}
		took := open || appended || slices.ContainsFunc(got[min(len(got), len(want)-1):], func(status int) bool { return status < 400 })
		if took != c.alone {
			t.Errorf("%s: net/http answers %v, open: %t; it takes it: %t, want %t", c.name, got, open, took, c.alone)
		}
		if took {
			taken++
		}
	}
	t.Logf("net/http alone takes %d of %d", taken, len(framings))
}

// A scripted connection reads what it is given, in pieces, and forgets what is written.
type scripted struct {
	net.Conn // nil
	left     []byte
	piece    int
	closed   chan struct{}
}

func (c *scripted) Read(p []byte) (int, error) {
	if len(c.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.piece)], c.left)
	c.left = c.left[n:]
	return n, nil
}

func (c *scripted) Write(p []byte) (int, error)      { return len(p), nil }
func (c *scripted) Close() error                     { close(c.closed); return nil }
func (c *scripted) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *scripted) SetReadDeadline(time.Time) error  { return nil }
func (c *scripted) SetWriteDeadline(time.Time) error { return nil }

// Accept gives the connection, and then waits for its end.
func (c *scripted) Accept() (net.Conn, error) {
	if c.Conn == nil {
		c.Conn = c
		return c, nil
	}
	<-c.closed
	return nil, net.ErrClosed
}

func (c *scripted) Addr() net.Addr { return c.LocalAddr() }

// once is a listener of one connection.
type once struct{ *scripted }

func (once) Close() error { return nil }

// seenBy gives the requests that get to a handler, with their bodies.
func seenBy(data []byte, piece int) (seen []string) {
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := readBody(r)
		if err == nil {
			seen = append(seen, fmt.Sprintf("%s %s %s %s", r.Method, r.RequestURI, r.Proto, b))
		}
	})
	fail := func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusRequestEntityTooLarge) }
	limits := Limits{BodyBytes: 1 << 20, Connections: 1}
	srv := limitedServer(h, limits, semaphore.NewWeighted(1<<20), fail, slog.New(slog.DiscardHandler))
	_ = srv.Serve(framedListener{once{&scripted{left: data, piece: piece, closed: make(chan struct{})}}}) // the end of the one connection
	return seen
}

// A strict head, and its only ways to say that there is a body.
var (
	strictHead    = regexp.MustCompile(`^([^ \x00-\x1f\x7f]+) ([^ \x00-\x1f\x7f]+) (HTTP/1\.[01])\r\n((?:[!#$%&'*+.^_|~0-9A-Za-z\x60-]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*)\r\n`)
	strictLength  = regexp.MustCompile(`(?i)(?:^|\n)content-length:([^\r]*)`)
	strictChunked = regexp.MustCompile(`(?i)(?:^|\n)transfer-encoding:[ \t]*([^\r]*?)[ \t]*\r`)
)

// strictly gives the requests at the beginning of data that nobody can read otherwise: the last may be chunked, and
// then only its head is given.
func strictly(data []byte) (all []string) {
	for {
		m := strictHead.FindSubmatch(data)
		if m == nil {
			return all
		}
		data = data[len(m[0]):]
		lengths, codings := strictLength.FindAllSubmatch(m[4], -1), strictChunked.FindAllSubmatch(m[4], -1)
		one := fmt.Sprintf("%s %s %s ", m[1], m[2], m[3])
		switch {
		case len(lengths)+len(codings) > 1 || len(codings) == 1 && (string(m[3]) != "HTTP/1.1" || !strings.EqualFold(string(codings[0][1]), "chunked")):
			return all
		case len(codings) == 1:
			return append(all, one)
		case len(lengths) == 1:
			n, err := strconv.ParseUint(strings.Trim(string(lengths[0][1]), " \t"), 10, 63)
			if err != nil || n > uint64(len(data)) {
				return all
			}
			one += string(data[:n])
			data = data[n:]
		}
		all = append(all, one)
	}
}

// Whatever comes over a connection, in whatever pieces: what is served is what everybody reads there.
func FuzzRequestHeads(f *testing.F) {
	for _, c := range slices.Concat(framings, odd) {
		f.Add([]byte(c.filled("pr_x", []byte("{}\n"))), uint8(len(c.raw)))
	}
	f.Fuzz(func(t *testing.T, data []byte, piece uint8) {
		seen, want := seenBy(bytes.Clone(data), int(piece)+1), strictly(data)
		for i, got := range seen {
			if i >= len(want) || got != want[i] && !(i == len(want)-1 && strings.HasPrefix(got, want[i])) {
				t.Fatalf("request %d is served as %q; strictly there are %q", i+1, got, want)
			}
		}
	})
}
