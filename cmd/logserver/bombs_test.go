package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// bomb writes a request for as long as the server takes it, and reads the answer meanwhile. It gives how much the
// server took; a status of 0 is a connection that ended without an answer.
func (a attacker) bomb(head string, write func(io.Writer) error) (status, taken int, answer string) {
	a.t.Helper()
	c, err := a.dial()
	must(a.t, err)
	must(a.t, c.SetDeadline(time.Now().Add(time.Minute)))
	counted := &counting{Conn: c}
	written := make(chan struct{})
	go func() {
		defer close(written)
		if _, err := io.WriteString(counted, head); err == nil {
			_ = write(counted) // the server ends the connection
		}
	}()
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
		b, _ := io.ReadAll(resp.Body) // a part is enough
		status, answer = resp.StatusCode, string(b)
	}
	_ = c.Close() // the server has
	<-written
	return status, counted.n, answer
}

// repeat writes text over and over, n times.
func repeat(text string, n int) func(io.Writer) error {
	block := []byte(strings.Repeat(text, max(1, min(n, (32<<10)/len(text)))))
	return func(w io.Writer) error {
		for left := n * len(text); left > 0; left -= len(block) {
			if _, err := w.Write(block[:min(left, len(block))]); err != nil {
				return err
			}
		}
		return nil
	}
}

const forever = 1 << 30

func TestBombsAreRefusedBeforeTheyCost(t *testing.T) {
	r := newLog(t, func(c string) string {
		return c + "limits: {body_bytes: 4194304, bodies_bytes: 8388608, events: 1000}\n"
	})
	crm, _ := r.opened()
	before := r.size()
	signed := strings.ReplaceAll(strings.ReplaceAll(post, "{token}", crm.token), "application/x-ndjson", "application/json")
	const chunked = "Transfer-Encoding: chunked\r\n\r\n"
	inBody := func(text string, n int) (string, func(io.Writer) error) {
		return signed + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(text)*n), repeat(text, n)
	}
	zipped := func() []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		must(t, repeat("\x00", 64<<20)(z))
		must(t, z.Close())
		return b.Bytes()
	}()
	nested, nestedBody := inBody("[", 1<<20)
	objects, objectsBody := inBody(`{"event":`, 400_000)
	for _, tc := range []struct {
		name  string
		want  int
		takes int // bytes at most, with what buffers hold on the way
		head  string
		write func(io.Writer) error
	}{
		{"a header of 1 MB", 431, 8 << 20, entry + "X: ", repeat("x", 1<<20)},
		{"1 MB of headers", 431, 8 << 20, entry, repeat("X: y\r\n", 1<<20/6)},
		{"headers without an end", 431, 8 << 20, entry, repeat("X: y\r\n", forever)},
		{"a line without an end", 431, 8 << 20, "", repeat("x", forever)},
		{"a target of 1 MB", 431, 8 << 20, "GET /", repeat("x", 1<<20)},
		{"a query of 15 KB", 400, 8 << 20, strings.Replace(strings.ReplaceAll(post, "{token}", crm.token), "POST /v1/events", "GET /v1/events?"+query(15<<10), 1) + "\r\n", repeat("x", 0)},
		{"a body beyond the limit", 413, 8 << 20, signed + "Content-Length: 4194305\r\n\r\n", repeat("x", 4194305)},
		{"a terabyte, as it says", 413, 8 << 20, signed + "Content-Length: 1099511627776\r\n\r\n", repeat("x", forever)},
		{"chunks without an end", 413, 16 << 20, signed + chunked, repeat("1000\r\n"+strings.Repeat("x", 4096)+"\r\n", forever)},
		{"chunks of a byte with much around", 400, 16 << 20, signed + chunked, repeat("1;"+strings.Repeat("x", 4000)+"\r\nx\r\n", forever)},
		{"a chunk's size without an end", 400, 16 << 20, signed + chunked, repeat("0", forever)},
		{"a trailer without an end", 400, 16 << 20, signed + chunked + "2\r\n{}\r\n0\r\n", repeat("X: y\r\n", forever)},
		{"brackets", 400, 8 << 20, nested, nestedBody},
		{"objects in objects", 400, 8 << 20, objects, objectsBody},
		{"a body of empty lines", 413, 8 << 20, strings.ReplaceAll(signed, "application/json", ndjson) + "Content-Length: 4000000\r\n\r\n", repeat("\n", 4_000_000)},
		{"64 MB of zeros, zipped", 415, 8 << 20, signed + fmt.Sprintf("Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", len(zipped)), func(w io.Writer) error {
			_, err := w.Write(zipped)
			return err
		}},
	} {
		var was, is runtime.MemStats
		runtime.ReadMemStats(&was)
		start := time.Now()
		status, taken, answer := r.attacker(nil).bomb(tc.head, tc.write)
		elapsed := time.Since(start)
		runtime.ReadMemStats(&is)
		cost := is.TotalAlloc - was.TotalAlloc // in all, this test's side included
		t.Logf("%s: %d after %d KB and %v, %d KB allocated", tc.name, status, taken>>10, elapsed.Round(time.Millisecond), cost>>10)
		if status != tc.want || len(answer) > 4<<10 {
			t.Errorf("%s: %d, want %d; an answer of %d bytes: %.1000s", tc.name, status, tc.want, len(answer), answer)
		}
		if taken > tc.takes || cost > 32<<20 {
			t.Errorf("%s: the server took %d bytes, and allocated %d", tc.name, taken, cost)
		}
	}
	if r.size() != before {
		t.Error("a bomb was appended")
	}
}

// query is one of many parameters.
func query(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "x%d&", i)
	}
	return b.String()
}

// A body that ends before its Content-Length says so is no event.
func TestABodyThatIsCutShortIsNotTaken(t *testing.T) {
	r := newLog(t, nil)
	crm, events := r.opened()
	before := r.size()
	for _, framing := range []string{fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(events)+1, events), fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(events), events)} {
		c, err := r.attacker(nil).dial()
		must(t, err)
		_, err = io.WriteString(c, strings.ReplaceAll(post, "{token}", crm.token)+framing)
		must(t, err)
		must(t, c.(interface{ CloseWrite() error }).CloseWrite())
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil && resp.StatusCode != 400 {
			t.Errorf("a body that is cut short is answered %d", resp.StatusCode)
		}
		must(t, c.Close())
	}
	if r.size() != before {
		t.Error("a body that was cut short is in the log")
	}
}

// manyMembers is a JSON object of many small members, in the worst order.
func manyMembers(size int) []byte {
	b := []byte("{")
	for i := 1 << 28; len(b) < size; i-- {
		b = fmt.Appendf(b, "%q:0,", strconv.FormatInt(int64(i), 36))
	}
	return append(b, `"":0}`...)
}

// Parsed, such a body takes many times its size: not all bodies that may be held are parsed at once.
func TestLargeBodiesAreParsedFewAtOnceAndSmallOnesDoNotWait(t *testing.T) {
	r := newLog(t, func(c string) string { return c + "limits: {body_bytes: 2097152, bodies_bytes: 268435456}\n" })
	crm, _ := r.opened()
	must(t, r.stop())
	in := r.inside()
	srv := httptest.NewServer(limitBodies(in.mux, in.limits, in.bodies, in.fail))
	t.Cleanup(srv.Close)
	r.url = srv.URL
	must(t, in.parsing.Acquire(t.Context(), in.limits.BodyBytes)) // somebody parses the largest body
	const large = 16
	answers := make(chan httpAnswer, large)
	text := fmt.Appendf(nil, `{"event":{"seq":1},"payload":%s}`, manyMembers(2<<20-100))
	for range large {
		go func() { answers <- r.do("POST", "/v1/events", crm.token, "application/json", text) }()
	}
	await(t, "all large bodies to be there", func() bool {
		free := in.bodies.TryAcquire(in.limits.BodiesBytes - large*int64(len(text)) + 1)
		if free {
			in.bodies.Release(in.limits.BodiesBytes - large*int64(len(text)) + 1)
		}
		return !free
	})
	crm.append("migration.load", `{"small":true}`)
	if n := len(answers); n > 0 {
		t.Errorf("%d large bodies were parsed beside the largest", n)
	}
	before := heap()
	var most uint64
	in.parsing.Release(in.limits.BodyBytes)
	for got := 0; got < large; {
		select {
		case a := <-answers:
			a.want(400, "malformed")
			got++
		case <-time.After(time.Millisecond):
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
	}
	t.Logf("%d bodies of %d KB take %d MB more while they are parsed", large, len(text)>>10, (int64(most)-before)>>20)
	if more := int64(most) - before; more > 128<<20 {
		t.Errorf("%d bytes more", more)
	}
}
