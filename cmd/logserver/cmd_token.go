package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pipe-roll/piperoll/log/disk"
)

func cmdToken(ctx context.Context, args []string, out, errOut io.Writer, _ io.Reader) int {
	fs := newFlags("token", errOut, `logserver token -config FILE -principal NAME -role ROLE [-grant PERMISSION]… [-days N]

Makes an access token and prints it; the log keeps only its hash. Works while
the server runs and while it does not.

Roles: `+roleNames()+`.
Extra permissions: `+string(permAppendUnsigned)+` lets a client without a key, such as curl, append;
the log then says of those entries that nobody else attests them.

Examples:
  logserver token -config mylog/config.yaml -principal crm-migrator -role migration-service > crm.token
  logserver token -config mylog/config.yaml -principal curl -role migration-service -grant log:append-unsigned
`)
	config := fs.String("config", "", "configuration `file`")
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
	if *config == "" || req.Principal == "" || req.Role == "" || fs.NArg() != 0 {
		fs.Usage()
		return exitUsage
	}
	var a tokenAnswer
	err := onLog(ctx, *config, errOut, "POST", "/v1/access/tokens", req, &a, func(ctx context.Context, l *ledger) (err error) {
		a, err = l.createToken(ctx, "admin", "log", req)
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
	const help = `logserver key add -config FILE -principal NAME -vkey VKEY [-proof BASE64]

Registers a submitter's public key, as a logged event: from then on tails that
it signs in the principal's streams are taken. Works while the server runs and
while it does not. Make a key with: logserver keys new

Example:
  logserver key add -config mylog/config.yaml -principal crm-migrator -vkey "$(cat crm.vkey)"
`
	fs := newFlags("key", errOut, help)
	config := fs.String("config", "", "configuration `file`")
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
	if verb != "add" || *config == "" || req.Principal == "" || req.VKey == "" || fs.NArg() != 0 {
		fs.Usage()
		return exitUsage
	}
	var a keyAnswer
	err := onLog(ctx, *config, errOut, "POST", "/v1/keys", req, &a, func(ctx context.Context, l *ledger) (err error) {
		a, err = l.registerKey(ctx, "admin", "log", req)
		return err
	})
	if err != nil {
		printf(errOut, "logserver: register key for %q: %v\n", req.Principal, err)
		return exitCode(err)
	}
	printf(out, "key %s of %s, registered as entry %d\n", a.Key, req.Principal, a.Index)
	return exitOK
}

// onLog does something to a log that may be served or not: if a server has it,
// the request goes there with the administrator's token; else f does it here.
func onLog(ctx context.Context, config string, errOut io.Writer, method, path string, req, answer any, f func(context.Context, *ledger) error) error {
	c, err := readConfig(config)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	logger := slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: slog.LevelWarn}))
	err = withLedger(ctx, c, logger, f)
	if !errors.Is(err, disk.ErrLocked) {
		return err
	}
	return askServer(ctx, c, method, path, req, answer)
}

func askServer(ctx context.Context, c Config, method, path string, req, answer any) error {
	token, err := os.ReadFile(filepath.Join(c.dir, "admin.token"))
	if err != nil {
		return fmt.Errorf("the log is being served, and asking the server needs the administrator's token: %w", err)
	}
	addr, err := os.ReadFile(filepath.Join(c.dir, "addr"))
	if err != nil {
		return fmt.Errorf("the log is in use, but where is not known: %w", err)
	}
	client, scheme, err := localClient(c)
	if err != nil {
		return err
	}
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, method, scheme+"://"+string(trimLine(addr))+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	r.Header.Set("Authorization", bearer+string(trimLine(token)))
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // nothing depends on it
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	if resp.StatusCode >= 300 {
		var p problem
		if json.Unmarshal(b, &p) == nil && p.Detail != "" {
			return fmt.Errorf("%w: the server says: %s", errUsage, p.Detail)
		}
		return fmt.Errorf("the server says: %s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	return json.Unmarshal(b, answer)
}

// localClient trusts exactly the certificate that the server here is configured with.
func localClient(c Config) (*http.Client, string, error) {
	client := &http.Client{Timeout: 30 * time.Second}
	if c.TLS.Cert == "" {
		return client, "http", nil
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
	client.Transport = &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
	}}
	return client, "https", nil
}
