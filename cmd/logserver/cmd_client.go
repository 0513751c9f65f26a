package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/note"
)

// clientCommands are those that talk to a server.
func clientCommands() []command {
	return []command{
		{"append", "append a payload, or prepared events", cmdAppend},
		{"prove", "fetch and check a proof of inclusion or consistency", cmdProve},
		{"search", "list entries that match filters", cmdSearch},
		{"export", "write a directory of events with proofs, for an auditor", cmdExport},
		{"keys", "make, list, register and revoke submitters' keys", cmdKeys},
	}
}

// answerMaxBytes bounds any answer of a server.
const answerMaxBytes = 64 << 20

// A remote is a log as its clients see it.
type remote struct {
	url, tokenFile, vkeyFile  string
	caFile, certFile, keyFile string
	allowPlainHTTP            bool

	token string        // "": none is sent
	vkey  note.Verifier // nil: signatures of checkpoints are not checked
	http  *http.Client
}

// flags adds the flags that all clients have.
func (r *remote) flags(fs *flag.FlagSet) {
	fs.StringVar(&r.url, "url", "", "`address` of the log, such as https://log.example.com")
	fs.StringVar(&r.tokenFile, "token-file", "", "`file` with the access token")
	fs.StringVar(&r.vkeyFile, "log-vkey", "", "`file` with the log's public key; without it nobody checks who signed a checkpoint, and what needs one ends with exit code 3")
	fs.StringVar(&r.caFile, "ca", "", "`file` with the certificates, in PEM, that the server's must lead to; default the system's")
	fs.StringVar(&r.certFile, "cert", "", "`file` with a client certificate, in PEM, for a server that wants one")
	fs.StringVar(&r.keyFile, "key", "", "`file` with the client certificate's private key, in PEM")
	fs.BoolVar(&r.allowPlainHTTP, "allow-plain-http", false, "send the token over http to another machine, where whoever listens on the way can take it")
}

// open reads the files that the flags name.
func (r *remote) open() error {
	if r.url == "" || r.tokenFile == "" {
		return fmt.Errorf("%w: -url and -token-file are needed", errUsage)
	}
	if err := r.checkURL(); err != nil {
		return fmt.Errorf("%w: -url %q %w", errUsage, r.url, err)
	}
	token, err := os.ReadFile(r.tokenFile)
	if err != nil {
		return fmt.Errorf("%w: read token: %w", errUsage, err)
	}
	r.token = strings.TrimSpace(string(token))
	r.url = strings.TrimSuffix(r.url, "/")
	t, err := r.tls()
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	r.http = newHTTPClient(t, http.ProxyFromEnvironment)
	if r.vkeyFile == "" {
		return nil
	}
	vkey, err := os.ReadFile(r.vkeyFile)
	if err != nil {
		return fmt.Errorf("%w: read log's key: %w", errUsage, err)
	}
	if r.vkey, err = note.NewVerifier(string(trimLine(vkey))); err != nil {
		return fmt.Errorf("%w: log's key in %s: %w", errUsage, r.vkeyFile, err)
	}
	return nil
}

// checkURL holds the address to the rule of log/client: a token crosses no network in the clear, unless asked to.
func (r *remote) checkURL() error {
	u, err := url.Parse(r.url)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("is not the address of a log: want https://HOST or http://HOST")
	case u.Scheme == "http" && !r.allowPlainHTTP && !loopback(u.Hostname()):
		return errors.New("would send the token without TLS to another machine: use https, or give -allow-plain-http")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// tls is how the server is known, and how it knows the client.
func (r *remote) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if r.caFile != "" {
		pem, err := os.ReadFile(r.caFile)
		if err != nil {
			return nil, fmt.Errorf("read -ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read -ca: %s has no certificate in PEM", r.caFile)
		}
	}
	if r.certFile == "" && r.keyFile == "" {
		return c, nil
	}
	cert, err := tls.LoadX509KeyPair(r.certFile, r.keyFile)
	if err != nil {
		return nil, fmt.Errorf("read -cert and -key, which go together: %w", err)
	}
	c.Certificates = []tls.Certificate{cert}
	return c, nil
}

// newHTTPClient is a client that follows no redirects: the token goes where it
// was meant to go.
func newHTTPClient(t *tls.Config, proxy func(*http.Request) (*url.URL, error)) *http.Client {
	return &http.Client{
		Timeout: 2 * time.Minute,
		Transport: &http.Transport{
			Proxy: proxy, MaxIdleConnsPerHost: exportWorkers, ForceAttemptHTTP2: true, TLSClientConfig: t,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// A remoteProblem is what a server answers instead of what was asked.
type remoteProblem struct {
	problem
	what string
}

func (p *remoteProblem) Error() string {
	text := fmt.Sprintf("%s: the log says %d: %s", p.what, p.Status, p.Detail)
	if p.Hint != "" {
		text += "; " + p.Hint
	}
	return text
}

// do asks the server. An answer that is a problem is a *remoteProblem.
func (r *remote) do(ctx context.Context, method, path, contentType string, body []byte) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	if r.token != "" {
		req.Header.Set("Authorization", bearer+r.token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("reach the log: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, answerMaxBytes+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if len(b) > answerMaxBytes {
		return nil, nil, fmt.Errorf("%w: %s %s: the answer has more than %d bytes", log.ErrLimit, method, path, answerMaxBytes)
	}
	if resp.StatusCode >= 300 {
		p := &remoteProblem{what: method + " " + path}
		if json.Unmarshal(b, &p.problem) != nil || p.Detail == "" {
			p.Status, p.Detail = resp.StatusCode, strings.TrimSpace(string(b[:min(len(b), 200)]))
		}
		return nil, nil, p
	}
	return b, resp.Header, nil
}

func (r *remote) get(ctx context.Context, path string) ([]byte, error) {
	b, _, err := r.do(ctx, http.MethodGet, path, "", nil)
	return b, err
}

// checkpoint parses a signed checkpoint, and verifies it if the key is known.
func (r *remote) checkpoint(signed []byte) (c log.Checkpoint, err error) {
	if r.vkey != nil {
		c, err = log.OpenCheckpoint(signed, r.vkey)
	} else {
		text, _, _ := bytes.Cut(signed, []byte("\n\n"))
		if err = log.CheckNote(signed); err == nil {
			c, err = log.ParseCheckpoint(string(text) + "\n")
		}
	}
	if err != nil {
		return c, fmt.Errorf("%w: %w", errCheck, err)
	}
	return c, nil
}

// established says whether checkpoints were held to the log's own key.
func (r *remote) established() error {
	if r.vkey == nil {
		return fmt.Errorf("%w: nobody checked who signed the checkpoint; give the log's key with -log-vkey, or run verifier with a policy", errNotEstablished)
	}
	return nil
}

// published fetches the checkpoint that the log published at a size.
func (r *remote) published(ctx context.Context, size uint64) (log.Checkpoint, error) {
	signed, err := r.get(ctx, fmt.Sprintf("/checkpoint/%d", size))
	var refused *remoteProblem
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return log.Checkpoint{}, fmt.Errorf("%w: the log published no checkpoint of size %d; give the size of one that you have", errNotEstablished, size)
	}
	if err != nil {
		return log.Checkpoint{}, err
	}
	c, err := r.checkpoint(signed)
	if err == nil && c.Size != size {
		err = fmt.Errorf("%w: asked for the checkpoint of size %d, the log answers with that of size %d", errCheck, size, c.Size)
	}
	return c, err
}

// consistency fetches the proof that the tree of a checkpoint extends that of
// an older one, and checks it.
func (r *remote) consistency(ctx context.Context, old, next log.Checkpoint) ([]byte, error) {
	b, err := r.get(ctx, fmt.Sprintf("/v1/proofs/consistency/%d/%d", old.Size, next.Size))
	if err != nil {
		return nil, err
	}
	p, err := log.ParseConsistencyProof(b)
	switch {
	case err != nil:
	case p.Origin != old.Origin || p.Origin != next.Origin:
		err = fmt.Errorf("it is of log %q, the checkpoints of %q and %q", p.Origin, old.Origin, next.Origin)
	case p.Old != old.Size || p.New != next.Size:
		err = fmt.Errorf("it is from size %d to %d", p.Old, p.New)
	default:
		err = log.CheckConsistency(old.Head, next.Head, p.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: consistency proof from size %d to %d: %w", errCheck, old.Size, next.Size, err)
	}
	return b, nil
}

// entry fetches an entry's bytes and parses them.
func (r *remote) entry(ctx context.Context, index uint64) ([]byte, log.Entry, error) {
	b, err := r.get(ctx, fmt.Sprintf("/v1/entries/%d", index))
	if err != nil {
		return nil, log.Entry{}, err
	}
	e, err := log.ParseEntry(b)
	if err != nil {
		return nil, e, fmt.Errorf("%w: entry %d: %w", errCheck, index, err)
	}
	return b, e, nil
}

// inclusion fetches the proof of an entry under the checkpoint of a size, and
// checks that it leads to head.
func (r *remote) inclusion(ctx context.Context, head log.Head, index uint64, leaf log.Hash) (log.InclusionProof, error) {
	b, err := r.get(ctx, fmt.Sprintf("/v1/proofs/inclusion/%d/%d", index, head.Size))
	if err != nil {
		return log.InclusionProof{}, err
	}
	p, err := log.ParseInclusionProof(b)
	if err == nil && p.Index != index {
		err = fmt.Errorf("it is of entry %d", p.Index)
	}
	if err == nil {
		err = log.CheckInclusion(head, index, leaf, p.Path)
	}
	if err != nil {
		return p, fmt.Errorf("%w: proof of entry %d: %w", errCheck, index, err)
	}
	return p, nil
}

// clientCommand runs the common part of a client: flags, files, errors.
func clientCommand(name string, args []string, out, errOut io.Writer, help string, r *remote, more func(*flag.FlagSet), run func(fs *flag.FlagSet) error) int {
	fs := newFlags(name, errOut, help)
	r.flags(fs)
	if more != nil {
		more(fs)
	}
	if code, done := parseFlags(fs, args, out); done {
		return code
	}
	err := r.open()
	if err == nil {
		err = run(fs)
	}
	if err != nil {
		printf(errOut, "logserver %s: %v\n", name, err)
		if errors.Is(err, errUsage) {
			printf(errOut, "hint: logserver %s -help\n", name)
		}
	}
	return exitCode(err)
}
