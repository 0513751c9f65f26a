package main

import (
	"bytes"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"

	"golang.org/x/net/http/httpguts"
)

// net/http takes request heads that others read otherwise: lines that end in a bare LF, folded lines, a Content-Length
// beside a Transfer-Encoding, a Transfer-Encoding of HTTP/1.0 that it does not follow. If a proxy before this server
// reads one of them its own way, then what is a body to the one is a request to the other: an attacker's request would
// come with somebody else's connection, and its effect would be logged under somebody else's token. So each head is
// looked at before net/http sees its end, and a doubtful one is spoiled.
//
// This needs to know where the next head begins, without a second opinion on that: a body with a Content-Length is
// counted, and after a chunked body, whose end only net/http knows, no head is read: closeAfterChunks ends the connection.

// A framedListener accepts connections whose HTTP/1 request heads are checked.
type framedListener struct{ net.Listener }

func (l framedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return framed(c), nil
}

// A framedConn is a connection whose HTTP/1 request heads are checked as they are read.
type framedConn struct {
	net.Conn
	head  head   // the one that is being read
	part  []byte // of a line of it, whose end has not come
	body  uint64 // bytes of the body that are still to come before the next head
	spoil []byte // what is left to read of a spoiled head; nil while all is well
}

func framed(c net.Conn) *framedConn { return &framedConn{Conn: c} }

// lineMaxBytes bounds a line of a head. net/http refuses sooner a head that is longer than its MaxHeaderBytes.
const lineMaxBytes = 64 << 10

// spoiled comes in the place of the LF that ends a doubtful line. Whatever it follows is no head: net/http answers 400
// to it and closes, and not before it has answered the requests that came before.
var spoiled = []byte("\x00\r\n\r\n")

func (c *framedConn) Read(p []byte) (int, error) {
	if c.spoil != nil {
		n := copy(p, c.spoil)
		c.spoil = c.spoil[n:]
		if n == 0 && len(p) > 0 {
			return 0, io.EOF
		}
		return n, nil
	}
	n, err := c.Conn.Read(p)
	good := c.follow(p[:n])
	if good == n {
		return n, err
	}
	put := copy(p[good:], spoiled)
	c.spoil = spoiled[put:]
	return good + put, nil
}

// follow reads heads and counts bodies, and gives how many bytes come before the end of the first doubtful line.
func (c *framedConn) follow(b []byte) int {
	for at := 0; at < len(b); {
		if c.body > 0 {
			skip := min(c.body, uint64(len(b)-at))
			c.body -= skip
			at += int(skip)
			continue
		}
		size := bytes.IndexByte(b[at:], '\n')
		if size < 0 {
			if len(c.part)+len(b)-at > lineMaxBytes {
				return at
			}
			c.part = append(c.part, b[at:]...)
			return len(b)
		}
		line := b[at : at+size]
		at += size
		if len(c.part) > 0 {
			line = append(c.part, line...)
		}
		c.part = nil
		ended, ok := c.head.add(line)
		if !ok {
			return at
		}
		if ended {
			c.body, c.head = c.head.body(), head{}
		}
		at++
	}
	return len(b)
}

// A head is what the lines of a request say about where its body ends.
type head struct {
	began   bool
	old     bool // HTTP/1.0
	length  *uint64
	chunked bool
}

// add takes the next line, without its LF. It says whether the head ends with it, and whether everybody reads it alike.
func (h *head) add(line []byte) (ended, ok bool) {
	line, ok = bytes.CutSuffix(line, []byte("\r"))
	if !ok || bytes.ContainsFunc(line, isControl) {
		return false, false
	}
	if !h.began {
		h.began = true
		h.old = bytes.HasSuffix(line, []byte(" HTTP/1.0"))
		return false, h.old || bytes.HasSuffix(line, []byte(" HTTP/1.1"))
	}
	if len(line) == 0 {
		return true, !h.chunked || !h.old && h.length == nil
	}
	name, value, _ := bytes.Cut(line, []byte(":"))
	if len(name) == len(line) || !httpguts.ValidHeaderFieldName(string(name)) {
		return false, false // also a folded line, and a space before the colon
	}
	value = bytes.Trim(value, " \t")
	switch {
	case bytes.EqualFold(name, []byte("Content-Length")):
		n, err := strconv.ParseUint(string(value), 10, 63)
		if err != nil || h.length != nil {
			return false, false
		}
		h.length = &n
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		if !bytes.EqualFold(value, []byte("chunked")) || h.chunked {
			return false, false
		}
		h.chunked = true
	}
	return false, true
}

// body gives for how long no head comes after one that has ended.
func (h *head) body() uint64 {
	switch {
	case h.chunked:
		return math.MaxUint64 // the connection ends with it
	case h.length != nil:
		return *h.length
	}
	return 0
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// closeAfterChunks closes a connection with the answer to a chunked request, whatever that is. So it is the outermost
// handler.
func closeAfterChunks(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 && r.ContentLength < 0 {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}
