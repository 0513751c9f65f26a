package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"time"
)

// A tlsListener accepts TLS connections after their handshake, each made in a goroutine of its own: only then it is
// known whether HTTP/2 is spoken on a connection, which net/http wants as a *tls.Conn, or HTTP/1, whose heads are to be
// checked between TLS and net/http.
type tlsListener struct {
	net.Listener
	config  *tls.Config
	timeout time.Duration
	logger  *slog.Logger

	running context.Context // ends with Close
	stop    context.CancelFunc
	all     sync.WaitGroup
	ready   chan accepted
}

type accepted struct {
	conn net.Conn
	err  error
}

func newTLSListener(l net.Listener, config *tls.Config, timeout time.Duration, logger *slog.Logger) *tlsListener {
	t := &tlsListener{Listener: l, config: config, timeout: timeout, logger: logger, ready: make(chan accepted)}
	t.running, t.stop = context.WithCancel(context.Background())
	t.all.Go(t.accept)
	return t
}

func (t *tlsListener) Accept() (net.Conn, error) {
	select {
	case a := <-t.ready:
		return a.conn, a.err
	case <-t.running.Done():
		return nil, net.ErrClosed
	}
}

// Close ends also the handshakes, and waits for them.
func (t *tlsListener) Close() error {
	t.stop()
	err := t.Listener.Close()
	t.all.Wait()
	return err
}

// accept runs until Close. As many handshakes can be under way as connections can be open.
func (t *tlsListener) accept() {
	for t.running.Err() == nil {
		conn, err := t.Listener.Accept()
		if err != nil {
			t.give(accepted{err: err}) // net/http waits a little before it asks again
			continue
		}
		t.all.Go(func() { t.handshake(tls.Server(conn, t.config)) })
	}
}

func (t *tlsListener) handshake(conn *tls.Conn) {
	ctx, cancel := context.WithTimeout(t.running, t.timeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		t.logger.Debug("TLS handshake failed", "addr", conn.RemoteAddr().String(), "err", err)
		_ = conn.Close() // nothing was said on it
		return
	}
	if conn.ConnectionState().NegotiatedProtocol == "h2" {
		t.give(accepted{conn: conn})
		return
	}
	t.give(accepted{conn: framedTLS{framed(conn), conn}})
}

func (t *tlsListener) give(a accepted) {
	select {
	case t.ready <- a:
	case <-t.running.Done():
		if a.conn != nil {
			_ = a.conn.Close() // nobody takes it any more
		}
	}
}

// A framedTLS is a framedConn that tells net/http of its TLS.
type framedTLS struct {
	*framedConn
	conn *tls.Conn
}

func (c framedTLS) ConnectionState() tls.ConnectionState { return c.conn.ConnectionState() }
