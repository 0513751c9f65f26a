package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
)

func cmdToken(ctx context.Context, args []string, out, errOut io.Writer, _ io.Reader) int {
	fs := newFlags("token", errOut, `logserver token -config FILE [-log NAME] -principal NAME -role ROLE [-grant PERMISSION]… [-days N]

Makes an access token and prints it; the log keeps only its hash. Works while
the server runs and while it does not. Of a log that another's server hosts, give
the configuration of that server, and the log's name there as -log.

Roles: `+roleNames()+`.
Extra permissions: `+string(permAppendUnsigned)+` lets a client without a key, such as curl, append;
the log then says of those entries that nobody else attests them.

Examples:
  logserver token -config mylog/config.yaml -principal crm-migrator -role migration-service > crm.token
  logserver token -config mylog/config.yaml -principal curl -role migration-service -grant log:append-unsigned
`)
	var at place
	at.flags(fs)
	var req tokenRequest
	fs.StringVar(&req.Principal, "principal", "", "who the token is for, a `name`")
	fs.StringVar(&req.Role, "role", "", "what they may do, a `role`")
	fs.IntVar(&req.ExpiresDays, "days", tokenDaysDefault, "`days` until it expires")
	fs.Func("grant", "an extra `permission`; may be repeated", func(v string) error {
		req.Permissions = append(req.Permissions, v)
		return nil
	})
	if code, done := parseFlags(fs, args, out); done {
		return code
	}
	if at.config == "" || req.Principal == "" || req.Role == "" || fs.NArg() != 0 {
		fs.Usage()
		return exitUsage
	}
	var a tokenAnswer
	err := at.do(ctx, errOut, "/v1/access/tokens", req, &a, func(ctx context.Context, l *ledger) (err error) {
		a, err = l.createToken(ctx, local("admin"), req)
		return err
	})
	if err != nil {
		printf(errOut, "logserver: make token for %q: %v\n", req.Principal, err)
		return exitCode(err)
	}
	printf(out, "%s\n", a.Token)
	printf(errOut, "token %s of %s, role %s, until %s, logged as entry %d\n",
		a.ID, req.Principal, req.Role, time.UnixMilli(int64(a.Expires)).UTC().Format(time.DateOnly), a.Index)
	return exitOK
}

func cmdKey(ctx context.Context, args []string, out, errOut io.Writer, _ io.Reader) int {
	const help = `logserver key add -config FILE [-log NAME] -principal NAME -vkey VKEY [-proof BASE64]

Registers a submitter's public key, as a logged event: from then on tails that
it signs in the principal's streams are taken. Works while the server runs and
while it does not. Of a log that another's server hosts, give the configuration of
that server, and the log's name there as -log. Make a key with: logserver keys new

Example:
  logserver key add -config mylog/config.yaml -principal crm-migrator -vkey "$(cat crm.vkey)"
`
	fs := newFlags("key", errOut, help)
	var at place
	at.flags(fs)
	var req keyRequest
	fs.StringVar(&req.Principal, "principal", "", "whose key it is, a `name`")
	fs.StringVar(&req.VKey, "vkey", "", "public `key`, as NAME+HASH+BASE64 (c2sp.org/signed-note)")
	fs.StringVar(&req.Proof, "proof", "", "`signature` that proves possession, as logserver keys new prints it; without it, first use proves it")
	if len(args) == 0 {
		fs.Usage()
		return exitUsage
	}
	verb := args[0]
	if verb == "add" {
		args = args[1:]
	}
	if code, done := parseFlags(fs, args, out); done {
		return code
	}
	if verb != "add" || at.config == "" || req.Principal == "" || req.VKey == "" || fs.NArg() != 0 {
		fs.Usage()
		return exitUsage
	}
	var a keyAnswer
	err := at.do(ctx, errOut, "/v1/keys", req, &a, func(ctx context.Context, l *ledger) (err error) {
		a, err = l.registerKey(ctx, local("admin"), req)
		return err
	})
	if err != nil {
		printf(errOut, "logserver: register key for %q: %v\n", req.Principal, err)
		return exitCode(err)
	}
	printf(out, "key %s of %s, registered as entry %d\n", a.Key, req.Principal, a.Index)
	return exitOK
}

// A place is where on this machine a log is.
type place struct {
	config string // file of the server
	log    string // name under which the server hosts it; "" for the server's own
}

func (p *place) flags(fs *flag.FlagSet) {
	fs.StringVar(&p.config, "config", "", "configuration `file`")
	fs.StringVar(&p.log, "log", "", "`name` of one of the logs that the configuration lists under logs")
}

// open reads the configuration of the server and of the log.
func (p *place) open() (server, c Config, err error) {
	server, err = readConfig(p.config)
	if err != nil || p.log == "" {
		return server, server, err
	}
	i := slices.IndexFunc(server.Logs, func(h HostedLog) bool { return h.Name == p.log })
	if i < 0 {
		return server, c, fmt.Errorf("configuration %s hosts no log %q", p.config, p.log)
	}
	file := server.Logs[i].Config
	if !filepath.IsAbs(file) {
		file = filepath.Join(server.dir, file)
	}
	c, err = readConfig(file)
	return server, c, err
}

// do does something to a log that may be served or not: if a server has it, the
// request goes there with the administrator's token; else f does it here.
func (p *place) do(ctx context.Context, errOut io.Writer, path string, req, answer any, f func(context.Context, *ledger) error) error {
	server, c, err := p.open()
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	logger := slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: slog.LevelWarn}))
	err = withLedger(ctx, c, logger, f)
	if !errors.Is(err, disk.ErrLocked) {
		return err
	}
	r, err := p.server(ctx, server, c)
	if err != nil {
		return fmt.Errorf("the log is in use, and its server is not to be asked: %w", err)
	}
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	b, _, err := r.do(ctx, http.MethodPost, path, "application/json", body)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, answer)
}

// server finds the log's server. The file addr may be an old one, and somebody
// else listen there: the token is for a server that shows a checkpoint of this
// log's key, and for no other.
func (p *place) server(ctx context.Context, server, c Config) (*remote, error) {
	addr, err := os.ReadFile(filepath.Join(server.dir, "addr"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w; if another log's server hosts it, give that one's -config, and -log NAME", err)
	}
	if err != nil {
		return nil, err
	}
	client, scheme, err := localClient(server)
	if err != nil {
		return nil, err
	}
	r := &remote{url: scheme + "://" + string(trimLine(addr)), http: client}
	if p.log != "" {
		r.url += "/logs/" + p.log
	}
	key, err := readKey(c.CheckpointKey, c.Origin)
	if err != nil {
		return nil, err
	}
	signed, err := r.get(ctx, "/checkpoint/signed")
	if err != nil {
		return nil, err
	}
	if _, err := log.OpenCheckpoint(signed, key.verifier); err != nil {
		return nil, fmt.Errorf("%w: %s, which %s names, is not this log: %w", errCheck, r.url, filepath.Join(server.dir, "addr"), err)
	}
	token, err := os.ReadFile(filepath.Join(c.dir, "admin.token"))
	if err != nil {
		return nil, fmt.Errorf("asking it needs the administrator's token: %w", err)
	}
	r.token = string(trimLine(token))
	return r, nil
}

// localClient trusts exactly the certificate that the server here is configured with.
func localClient(c Config) (*http.Client, string, error) {
	if c.TLS.Cert == "" {
		return newHTTPClient(nil, nil), "http", nil
	}
	pem, err := os.ReadFile(c.TLS.Cert)
	if err != nil {
		return nil, "", fmt.Errorf("read TLS certificate: %w", err)
	}
	cert, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
	if err != nil {
		return nil, "", fmt.Errorf("read TLS certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, "", fmt.Errorf("TLS certificate %s is not in PEM", c.TLS.Cert)
	}
	name := ""
	if len(cert.Leaf.DNSNames) > 0 {
		name = cert.Leaf.DNSNames[0]
	}
	return newHTTPClient(&tls.Config{
		RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
	}, nil), "https", nil
}
