package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"go.yaml.in/yaml/v3"
)

// Config is the configuration file, in YAML. Unknown keys are refused. Paths
// are relative to the folder of the file.
type Config struct {
	// Origin is the log's name in checkpoints, such as "log.example.com/2026".
	Origin string `yaml:"origin"`
	// Listen is the address to serve on. Port 0 takes a free one; the file
	// "addr" beside the configuration has the address that was bound.
	Listen string `yaml:"listen"`
	// AdminListen is the address of /metrics; empty for none. The file
	// "admin.addr" has the address that was bound.
	AdminListen string `yaml:"admin_listen"`
	// TLS, if set, serves HTTPS.
	TLS TLSConfig `yaml:"tls"`

	// DataDir holds the journal, the tiles and the index.
	DataDir string `yaml:"data_dir"`
	// AnchorDir holds what was signed last. Put it on another disk than
	// DataDir: it is what finds out that DataDir was restored from a backup.
	AnchorDir string `yaml:"anchor_dir"`
	// CheckpointKey and ReceiptKey are files with the log's two signing keys.
	CheckpointKey string `yaml:"checkpoint_key"`
	ReceiptKey    string `yaml:"receipt_key"`

	// Round is the time between two signed checkpoints while there is work.
	Round time.Duration `yaml:"round"`
	// Publish is the time between two published checkpoints while there is work.
	Publish time.Duration `yaml:"publish"`
	// IdlePublish is the time between two published checkpoints when idle.
	IdlePublish time.Duration `yaml:"idle_publish"`
	// PublicEntries lets anyone read entry bundles; else they need log:read.
	PublicEntries bool `yaml:"public_entries"`

	// Limits bound what one client and all together can ask for.
	Limits Limits `yaml:"limits"`
	// Logs are more logs to host, each at /logs/NAME/.
	Logs []HostedLog `yaml:"logs"`

	dir     string  // of the file
	rebuild bool    // derive all tiles again at start; see fsck
	examine bool    // leave what was erased as it is on disk; see fsck
	fs      disk.FS // the machine's; tests put another in its place
}

// TLSConfig names the files of TLS, in PEM.
type TLSConfig struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// ClientCA, if set, demands client certificates signed by one of these,
	// beside the token.
	ClientCA string `yaml:"client_ca"`
}

// HostedLog is another log of the same server: its own directory, made by
// logserver init, whose listen addresses, TLS and logs are not used.
type HostedLog struct {
	Name   string `yaml:"name"`
	Config string `yaml:"config"`
}

// Limits of the server.
type Limits struct {
	// BodyBytes bounds a request's body.
	BodyBytes int64 `yaml:"body_bytes"`
	// BodiesBytes bounds the bodies of all requests being read or committed.
	BodiesBytes int64 `yaml:"bodies_bytes"`
	// Events bounds the events of a request.
	Events int `yaml:"events"`
	// Queue bounds the requests that wait to be sequenced.
	Queue int `yaml:"queue"`
	// RequestsPerSecond and Burst bound each principal. 0 is no bound.
	RequestsPerSecond float64 `yaml:"requests_per_second"`
	Burst             int     `yaml:"burst"`
	// Connections bounds open connections.
	Connections int `yaml:"connections"`
	// HeaderTimeout and RequestTimeout bound the time for a request's header and for all of it.
	HeaderTimeout  time.Duration `yaml:"header_timeout"`
	RequestTimeout time.Duration `yaml:"request_timeout"`
	// ShutdownTimeout bounds the time to answer everyone when stopping.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"`
}

// defaults is the configuration of an empty file, but for the origin.
func defaults() Config {
	return Config{
		fs:     disk.OS(),
		Listen: "127.0.0.1:8080", AdminListen: "127.0.0.1:9090",
		DataDir: "data", AnchorDir: "anchor",
		CheckpointKey: "keys/checkpoint.key", ReceiptKey: "keys/receipt.key",
		Round: 50 * time.Millisecond, Publish: time.Second, IdlePublish: 10 * time.Minute,
		Limits: Limits{
			BodyBytes: 48 << 20, BodiesBytes: 256 << 20, Events: 10_000, Queue: 4096, Connections: 4096,
			HeaderTimeout: 5 * time.Second, RequestTimeout: time.Minute, ShutdownTimeout: 30 * time.Second,
		},
	}
}

// readConfig reads a configuration file and reports everything wrong with it.
func readConfig(file string) (Config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c := defaults()
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("configuration %s: %w", file, err)
	}
	if c.dir, err = filepath.Abs(filepath.Dir(file)); err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", file, err)
	}
	for _, p := range []*string{
		&c.DataDir, &c.AnchorDir, &c.CheckpointKey, &c.ReceiptKey,
		&c.TLS.Cert, &c.TLS.Key, &c.TLS.ClientCA,
	} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(c.dir, *p)
		}
	}
	if err := c.validate(); err != nil {
		return Config{}, fmt.Errorf("configuration %s:\n%w", file, err)
	}
	return c, nil
}

var hostedName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// validate reports everything that is wrong, so that it is fixed in one go.
func (c Config) validate() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(log.ValidName(c.Origin), "origin %q: want 1 to 128 of A-Z a-z 0-9 . _ : / -, such as log.example.com/2026", c.Origin)
	for key, addr := range map[string]string{"listen": c.Listen, "admin_listen": c.AdminListen} {
		_, _, err := net.SplitHostPort(addr)
		want(err == nil || key == "admin_listen" && addr == "", "%s %q: want HOST:PORT", key, addr)
	}
	want((c.TLS.Cert == "") == (c.TLS.Key == ""), "tls: cert and key go together")
	want(c.TLS.ClientCA == "" || c.TLS.Cert != "", "tls: client_ca needs cert and key")
	want(c.Round >= 10*time.Millisecond && c.Round <= 10*time.Second, "round %v: want 10ms to 10s", c.Round)
	want(c.Publish >= c.Round && c.Publish <= time.Hour, "publish %v: want from round to 1h", c.Publish)
	want(c.IdlePublish >= c.Publish && c.IdlePublish <= 24*time.Hour, "idle_publish %v: want from publish to 24h", c.IdlePublish)
	l := c.Limits
	want(l.BodyBytes >= 64<<10 && l.BodyBytes <= 1<<30, "limits.body_bytes %d: want 64 KiB to 1 GiB", l.BodyBytes)
	want(l.BodiesBytes >= l.BodyBytes, "limits.bodies_bytes %d: want at least body_bytes", l.BodiesBytes)
	want(l.Events >= 1 && l.Events <= 65_536, "limits.events %d: want 1 to 65536", l.Events)
	want(l.Queue >= 1 && l.Connections >= 1, "limits.queue and limits.connections: want at least 1")
	want(l.RequestsPerSecond >= 0 && l.Burst >= 0, "limits.requests_per_second and limits.burst: want 0 or more")
	want(l.HeaderTimeout > 0 && l.RequestTimeout > 0 && l.ShutdownTimeout > 0, "limits: timeouts must be above 0")
	seen := map[string]bool{}
	for _, h := range c.Logs {
		want(hostedName.MatchString(h.Name) && !seen[h.Name], "logs: name %q: want a-z 0-9 -, once", h.Name)
		want(h.Config != "", "logs: %q has no config", h.Name)
		seen[h.Name] = true
	}
	return errors.Join(errs...)
}
