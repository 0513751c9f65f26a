package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// An h2 is an HTTP/2 connection that is spoken frame by frame.
type h2 struct {
	t       *testing.T
	conn    net.Conn
	frames  *http2.Framer
	fields  bytes.Buffer
	encoder *hpack.Encoder
	streams uint32 // the server's limit
}

func (r *running) h2(config *tls.Config) *h2 {
	r.t.Helper()
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := r.attacker(config).dial()
	must(r.t, err)
	r.t.Cleanup(func() { _ = conn.Close() }) // the server may have
	must(r.t, conn.SetDeadline(time.Now().Add(time.Minute)))
	h := &h2{t: r.t, conn: conn, frames: http2.NewFramer(conn, conn)}
	h.frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.encoder = hpack.NewEncoder(&h.fields)
	_, err = io.WriteString(conn, http2.ClientPreface)
	must(r.t, err)
	must(r.t, h.frames.WriteSettings())
	f, err := h.frames.ReadFrame()
	must(r.t, err)
	h.streams, _ = f.(*http2.SettingsFrame).Value(http2.SettingMaxConcurrentStreams)
	must(r.t, h.frames.WriteSettingsAck())
	return h
}

// block encodes header fields, given as name and value.
func (h *h2) block(fields ...string) []byte {
	h.fields.Reset()
	for i := 0; i < len(fields); i += 2 {
		must(h.t, h.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return h.fields.Bytes()
}

// headers begins a request. Its error is that of the connection.
func (h *h2) headers(stream uint32, end bool, block []byte) error {
	const most = 16 << 10
	first := block[:min(most, len(block))]
	block = block[len(first):]
	err := h.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: end, EndHeaders: len(block) == 0})
	for len(block) > 0 && err == nil {
		first = block[:min(most, len(block))]
		block = block[len(first):]
		err = h.frames.WriteContinuation(stream, len(block) == 0, first)
	}
	return err
}

// outcome says how the server takes a request: with a status, or with the error that ends the stream or the
// connection.
func (h *h2) outcome(stream uint32) string {
	h.t.Helper()
	for {
		f, err := h.frames.ReadFrame()
		var code http2.ErrCode
		switch f := f.(type) {
		case nil:
			if errors.Is(err, io.EOF) || strings.Contains(err.Error(), "reset") {
				return "closed"
			}
			h.t.Fatalf("read frame: %v", err)
		case *http2.MetaHeadersFrame:
			if f.StreamID == stream {
				return f.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if code = f.ErrCode; f.StreamID == stream {
				return code.String()
			}
		case *http2.GoAwayFrame:
			if code = f.ErrCode; code != http2.ErrCodeNo {
				return code.String()
			}
		}
	}
}

func TestHTTP2IsHeldToTheSame(t *testing.T) {
	r, config := newTLSLog(t, nil)
	r.client = clientOf(t, config)
	crm, events := r.opened()
	before := r.size()
	length := strconv.Itoa(len(events))
	head := []string{
		":method", "POST", ":scheme", "https", ":path", "/v1/events", ":authority", "x",
		"authorization", "Bearer " + crm.token, "content-type", ndjson,
	}
	for name, tc := range map[string]struct {
		fields []string
		want   string
	}{
		"a transfer coding":          {[]string{"transfer-encoding", "chunked"}, "400"},
		"a connection header":        {[]string{"connection", "close"}, "400"},
		"an upgrade":                 {[]string{"upgrade", "h2c"}, "400"},
		"another TE than trailers":   {[]string{"te", "gzip"}, "400"},
		"a length that is too short": {[]string{"content-length", "1"}, "PROTOCOL_ERROR"},
		"a length that is too long":  {[]string{"content-length", length + "0"}, "400"},
		"a length beyond the limit":  {[]string{"content-length", "1" + strings.Repeat("0", 12)}, "413"},
		"LF in a value":              {[]string{"x", "a\ncontent-length: 0"}, "PROTOCOL_ERROR"},
		"CR in a value":              {[]string{"x", "a\rb"}, "PROTOCOL_ERROR"},
		"NUL in a value":             {[]string{"x", "a\x00b"}, "PROTOCOL_ERROR"},
		"a colon in a name":          {[]string{"content-length:", "0"}, "PROTOCOL_ERROR"},
		"an upper-case name":         {[]string{"Content-Length", "0"}, "PROTOCOL_ERROR"},
		"a late pseudo-header":       {[]string{":path", "/healthz"}, "PROTOCOL_ERROR"},
		"an unknown pseudo-header":   {[]string{":x", "y"}, "PROTOCOL_ERROR"},
		"a second token":             {[]string{"authorization", "Bearer x"}, "401"},
		"a coding of the content":    {[]string{"content-encoding", "gzip"}, "415"},
		"a head of 100 KB":           {[]string{"x", strings.Repeat("x", 100<<10)}, "COMPRESSION_ERROR"},
		"a head of 10,000 fields":    {strings.Split(strings.Repeat("x y ", 10_000)+"x y", " "), "431"},
	} {
		h := r.h2(config)
		must(t, h.headers(1, false, h.block(append(head[:len(head):len(head)], tc.fields...)...)))
		if err := h.frames.WriteData(1, true, events); err != nil {
			t.Logf("%s: the server does not wait for the body: %v", name, err)
		}
		if got := h.outcome(1); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
		if r.size() != before {
			t.Fatalf("%s: something was appended", name)
		}
	}
	h := r.h2(config)
	must(t, h.headers(1, false, h.block(append(head, "content-length", length)...)))
	must(t, h.frames.WriteData(1, true, events))
	if got := h.outcome(1); got != "201" {
		t.Errorf("a good request over HTTP/2: %s", got)
	}
}

// get are the fields of a request that anyone may send.
var get = []string{":method", "GET", ":scheme", "https", ":path", "/checkpoint", ":authority", "x"}

// still says that another client is served as ever, and that nothing is left over of an attack.
func (r *running) still(goroutines int) {
	r.t.Helper()
	r.get("/v1/entries/0", r.admin).want(200, "")
	await(r.t, "the attack's goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines+20 })
}

// hang begins requests whose bodies do not come.
func (h *h2) hang(token string, n uint32) {
	h.t.Helper()
	for i := range n {
		must(h.t, h.headers(2*i+1, false, h.block(":method", "POST", ":scheme", "https", ":path", "/v1/events", ":authority", "x",
			"authorization", "Bearer "+token, "content-type", ndjson)))
	}
}

func TestStreamsOfAConnectionAreBounded(t *testing.T) {
	r, config := newTLSLog(t, nil)
	r.client = clientOf(t, config)
	crm := r.submitter("crm", "m1/customers")
	h := r.h2(config)
	if h.streams != streamsMax {
		t.Fatalf("the server allows %d streams, want %d", h.streams, streamsMax)
	}
	h.hang(crm.token, h.streams+1)
	if got := h.outcome(2*h.streams + 1); got != "PROTOCOL_ERROR" && got != "REFUSED_STREAM" {
		t.Errorf("a stream too many: %s", got)
	}
	r.get("/v1/entries/0", r.admin).want(200, "")
}

func TestRequestsOfAllConnectionsAreBounded(t *testing.T) {
	r, config := newTLSLog(t, func(c string) string { return c + "limits: {connections: 2}\n" })
	r.client = clientOf(t, config)
	crm := r.submitter("crm", "m1/customers")
	h := r.h2(config)
	h.hang(crm.token, 2*requestsPerConnection+1)
	if got := h.outcome(4*requestsPerConnection + 1); got != "503" {
		t.Errorf("a request too many: %s", got)
	}
	must(t, h.frames.WriteRSTStream(1, http2.ErrCodeCancel))
	await(t, "a place for another", func() bool { return r.get("/healthz", "").status == 200 })
}

func TestRapidResetsEndTheConnectionOrDoNothing(t *testing.T) {
	r, config := newTLSLog(t, nil)
	r.client = clientOf(t, config)
	r.get("/v1/entries/0", r.admin).want(200, "")
	goroutines, most := runtime.NumGoroutine(), 0
	h := r.h2(config)
	go func() { _, _ = io.Copy(io.Discard, h.conn) }() // until the connection ends
	sent := 0
	for ; sent < 20_000; sent++ {
		id := uint32(2*sent + 1)
		if h.headers(id, true, h.block(get...)) != nil || h.frames.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break
		}
		most = max(most, runtime.NumGoroutine()-goroutines)
	}
	t.Logf("%d streams were opened and reset, at most %d goroutines more than before", sent, most)
	if most > streamsMax+20 {
		t.Errorf("%d goroutines for one connection", most)
	}
	must(t, h.conn.Close())
	r.still(goroutines)
}

func TestFloodsOfFramesEndTheConnection(t *testing.T) {
	// No stream is ever open on these connections: what is not refused ends with the time for idle ones.
	r, config := newTLSLog(t, func(c string) string { return c + "limits: {request_timeout: 500ms}\n" })
	r.client = clientOf(t, config)
	r.get("/v1/entries/0", r.admin).want(200, "")
	goroutines := runtime.NumGoroutine()
	const mostBytes = 256 << 20
	for name, flood := range map[string]func(h *h2, n int) error{
		"continuations": func(h *h2, n int) error {
			block := h.block("x"+strconv.Itoa(n), strings.Repeat("y", 4000))
			if n == 0 {
				return h.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block})
			}
			return h.frames.WriteContinuation(1, false, block)
		},
		"empty continuations": func(h *h2, n int) error {
			if n == 0 {
				return h.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.block(get...)})
			}
			return h.frames.WriteContinuation(1, false, nil)
		},
		"pings whose answers nobody reads": func(h *h2, _ int) error { return h.frames.WritePing(false, [8]byte{}) },
		"settings whose answers nobody reads": func(h *h2, _ int) error {
			return h.frames.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
		},
	} {
		h, start, before := r.h2(config), time.Now(), heap()
		counted := &counting{Conn: h.conn}
		h.frames = http2.NewFramer(counted, h.conn)
		n := 0
		for ; counted.n < mostBytes; n++ {
			if flood(h, n) != nil {
				break
			}
		}
		t.Logf("%s: the connection ends after %d frames, %d KB, %v; %d KB of heap more", name, n, counted.n>>10, time.Since(start).Round(time.Millisecond), (heap()-before)>>10)
		if counted.n >= mostBytes {
			t.Errorf("%s: the connection goes on", name)
		}
		_ = h.conn.Close() // the server has
	}
	r.still(goroutines)
}

// counting counts what is written.
type counting struct {
	net.Conn
	n int
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n += n
	return n, err
}
