package main

import (
	"errors"
	"log/slog"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"
)

// What the server needs of file descriptors beside connections. Whoever opens
// connections must not be able to take them: a log that cannot open a file
// cannot go on.
const (
	descriptorsOfServer = 64      // listeners, standard streams, certificates, and a reserve
	descriptorsOfLog    = 2 << 10 // 1,536 tiles that wait for their sync, 256 of the index, segments, keys
	connectionsMin      = 64      // that are served all the same, if there are too few
	adminConnections    = 32
)

// connectionsFor gives how many connections may be open beside the files of so
// many logs, at most most, if the process may have limit descriptors. enough is
// false if a flood could take some that the logs need.
func connectionsFor(most, logs int, limit uint64) (connections int, enough bool) {
	spare := int(min(limit, math.MaxInt32)) - descriptorsOfServer - adminConnections - logs*descriptorsOfLog
	return min(most, max(spare, connectionsMin)), spare >= min(most, connectionsMin)
}

// limitConnections bounds the connections of a listener below the limit of
// descriptors, and counts them.
func limitConnections(l net.Listener, most, logs int, logger *slog.Logger, reg prometheus.Registerer) (net.Listener, error) {
	var rlimit syscall.Rlimit
	// The Go runtime has raised the soft limit to the hard one.
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &rlimit); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	connections, enough := connectionsFor(most, logs, rlimit.Cur)
	switch {
	case !enough:
		logger.Error("too few file descriptors: a flood of connections could take those of the log; raise the limit (LimitNOFILE)", "limit", rlimit.Cur, "connections", connections)
	case connections < most:
		logger.Warn("fewer connections are served than limits.connections says: the log needs the other file descriptors", "limit", rlimit.Cur, "connections", connections)
	}
	c := &countedListener{Listener: netutil.LimitListener(l, connections)}
	for name, g := range map[string]struct {
		help string
		f    func() float64
	}{
		"piperoll_connections":     {"Open connections.", func() float64 { return float64(c.open.Load()) }},
		"piperoll_connections_max": {"How many may be open: limits.connections, or fewer, so that the logs keep the file descriptors that they need.", func() float64 { return float64(connections) }},
	} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: g.help}, g.f))
	}
	return c, nil
}

// A countedListener knows how many of its connections are open.
type countedListener struct {
	net.Listener
	open atomic.Int64
}

func (c *countedListener) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return &countedConn{Conn: conn, closed: sync.OnceFunc(func() { c.open.Add(-1) })}, nil
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}
