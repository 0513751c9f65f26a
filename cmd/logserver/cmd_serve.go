package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/pipe-roll/piperoll/docs/api"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

// processorsMin is how many processors the Go runtime is told of at least. The
// journal's writer and keeper and the tree's rounds and syncs wait in system
// calls, each with a processor that the runtime takes back only after a while:
// on two cores all could be waiting, and nobody serve requests.
const processorsMin = 4

func cmdServe(ctx context.Context, args []string, out, errOut io.Writer, _ io.Reader) int {
	fs := newFlags("serve", errOut, `logserver serve -config FILE

Runs the server until SIGTERM or SIGINT; then it takes no more requests,
answers those it has, publishes everything, and exits with 0. It writes the
address it serves on to the file addr beside the configuration.

Example:
  logserver serve -config mylog/config.yaml
`)
	config := fs.String("config", "", "configuration `file`")
	if code, done := parseFlags(fs, args, out); done {
		return code
	}
	if *config == "" || fs.NArg() != 0 {
		fs.Usage()
		return exitUsage
	}
	c, err := readConfig(*config)
	if err != nil {
		printf(errOut, "logserver: %v\n", err)
		return exitUsage
	}
	if runtime.GOMAXPROCS(0) < processorsMin {
		runtime.GOMAXPROCS(processorsMin)
	}
	logger := slog.New(slog.NewJSONHandler(errOut, nil))
	if err := serve(ctx, c, logger); err != nil {
		logger.Error("server stopped", "err", err)
		return exitCode(err)
	}
	return exitOK
}

// serve runs the server until ctx is done or a part fails.
func serve(ctx context.Context, c Config, logger *slog.Logger) (err error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	h, err := openHost(ctx, c, logger, reg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()

	listener, err := listen(c.Listen, c.dir, "addr")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(filepath.Join(c.dir, "addr")) }() // nobody is to be asked there any more
	srv, err := h.server(c)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	g, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	running, stopLogs := context.WithCancel(failed)
	defer stopLogs()
	h.start(running, g)
	g.Go(func() error { return h.serveHTTP(srv, netutil.LimitListener(listener, c.Limits.Connections)) })
	stopAdmin, err := serveAdmin(c, reg, g)
	if err != nil {
		stopLogs()
		return errors.Join(err, srv.Close(), g.Wait())
	}
	logger.Info("serving", "origin", c.Origin, "addr", listener.Addr().String(), "size", h.sites[0].ledger.journal.Size())

	select {
	case <-ctx.Done():
	case <-failed.Done():
	}
	// First everyone who waits gets an answer, while the logs still run; then
	// the logs publish what they have.
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Limits.ShutdownTimeout)
	defer cancel()
	logger.Info("stopping", "origin", c.Origin)
	if err := srv.Shutdown(deadline); err != nil {
		logger.Warn("requests were cut off", "err", err)
	}
	stopAdmin(deadline)
	stopLogs()
	return g.Wait()
}

// A host is the logs of a server. The first is the default one.
type host struct {
	sites  []*site
	names  []string // "" for the default one
	logger *slog.Logger
	mux    *http.ServeMux
	bodies *semaphore.Weighted
}

func openHost(ctx context.Context, c Config, logger *slog.Logger, reg prometheus.Registerer) (*host, error) {
	h := &host{logger: logger, mux: http.NewServeMux(), bodies: semaphore.NewWeighted(c.Limits.BodiesBytes)}
	configs := []Config{c}
	h.names = []string{""}
	for _, hosted := range c.Logs {
		file := hosted.Config
		if !filepath.IsAbs(file) {
			file = filepath.Join(c.dir, file)
		}
		other, err := readConfig(file)
		if err != nil {
			return nil, fmt.Errorf("log %q: %w", hosted.Name, err)
		}
		other.Limits = c.Limits
		configs = append(configs, other)
		h.names = append(h.names, hosted.Name)
	}
	for i, c := range configs {
		l, err := openLedger(ctx, c, logger.With("origin", c.Origin))
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
		s := &site{
			ledger: l, limits: c.Limits, logger: logger.With("origin", c.Origin), metrics: newMetrics(reg, l),
			trail: newTrail(l.record, logger.With("origin", c.Origin)), rates: make(map[string]*rate.Limiter),
		}
		h.sites = append(h.sites, s)
		if h.names[i] == "" {
			h.mux.Handle("/", s.routes(h.table()...))
			continue
		}
		prefix := "/logs/" + h.names[i]
		h.mux.Handle(prefix+"/", http.StripPrefix(prefix, s.routes()))
	}
	return h, nil
}

// table has the resources of the server, which are of no log.
func (h *host) table() []route {
	return []route{
		{"GET", "/healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { printf(w, "ok\n") })},
		{"GET", "/readyz", http.HandlerFunc(h.ready)},
		{"GET", "/openapi.yaml", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/yaml")
			_ = ignoreWriteN(w.Write(api.OpenAPI))
		})},
	}
}

func ignoreWriteN(_ int, err error) error { return ignoreWrite(err) }

func (h *host) start(ctx context.Context, g *errgroup.Group) {
	for _, s := range h.sites {
		logCtx, stopLog := context.WithCancel(context.WithoutCancel(ctx))
		g.Go(func() error {
			defer stopLog()
			return s.trail.run(ctx) // its last flush needs the log to run still
		})
		g.Go(func() error { return s.ledger.run(logCtx) })
		g.Go(func() error { return s.watchPublication(ctx) })
	}
}

func (h *host) close() error {
	var errs []error
	for _, s := range h.sites {
		errs = append(errs, s.ledger.close())
	}
	return errors.Join(errs...)
}

// server makes the HTTP server with all its limits.
func (h *host) server(c Config) (*http.Server, error) {
	limits := c.Limits
	srv := &http.Server{
		Handler:           limitBodies(h.mux, limits, h.bodies, h.sites[0].fail),
		ReadHeaderTimeout: limits.HeaderTimeout,
		ReadTimeout:       limits.RequestTimeout,
		WriteTimeout:      limits.RequestTimeout + waitMax,
		IdleTimeout:       2 * limits.RequestTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(h.logger.Handler(), slog.LevelWarn),
	}
	if c.TLS.Cert == "" {
		return srv, nil
	}
	cert, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
	if err != nil {
		return nil, fmt.Errorf("read TLS certificate: %w", err)
	}
	srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	if c.TLS.ClientCA != "" {
		pem, err := os.ReadFile(c.TLS.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("read client CA: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("client CA %s has no certificate in PEM", c.TLS.ClientCA)
		}
		srv.TLSConfig.ClientCAs, srv.TLSConfig.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return srv, nil
}

func (h *host) serveHTTP(srv *http.Server, l net.Listener) error {
	var err error
	if srv.TLSConfig != nil {
		err = srv.ServeTLS(l, "", "")
	} else {
		err = srv.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve HTTP: %w", err)
}

// serveAdmin serves /metrics on its own listener, which is not for the world.
func serveAdmin(c Config, reg *prometheus.Registry, g *errgroup.Group) (stop func(context.Context), err error) {
	if c.AdminListen == "" {
		return func(context.Context) {}, nil
	}
	l, err := listen(c.AdminListen, c.dir, "admin.addr")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve metrics: %w", err)
		}
		return nil
	})
	return func(ctx context.Context) {
		if err := srv.Shutdown(ctx); err != nil {
			_ = srv.Close() // it has been told; nothing is lost with a metric
		}
	}, nil
}

// listen binds an address and writes it to a file for scripts.
func listen(addr, dir, name string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	file := filepath.Join(dir, name)
	if err := disk.WriteFile(disk.OS(), file+".tmp", file, []byte(l.Addr().String()+"\n")); err != nil {
		return nil, errors.Join(fmt.Errorf("write bound address to %s: %w", file, err), l.Close())
	}
	return l, nil
}
