package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
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
	url, tokenFile, vkeyFile string

	token string
	vkey  note.Verifier // nil: signatures of checkpoints are not checked
	http  *http.Client
}

// flags adds the flags that all clients have.
func (r *remote) flags(fs *flag.FlagSet) {
	fs.StringVar(&r.url, "url", "", "`address` of the log, such as https://log.example.com")
	fs.StringVar(&r.tokenFile, "token-file", "", "`file` with the access token")
	fs.StringVar(&r.vkeyFile, "log-vkey", "", "`file` with the log's public key; without it, checkpoints' signatures are left to the verifier")
}

// open reads the files that the flags name.
func (r *remote) open() error {
	if r.url == "" || r.tokenFile == "" {
		return fmt.Errorf("%w: -url and -token-file are needed", errUsage)
	}
	token, err := os.ReadFile(r.tokenFile)
	if err != nil {
		return fmt.Errorf("%w: read token: %w", errUsage, err)
	}
	r.token = strings.TrimSpace(string(token))
	r.url = strings.TrimSuffix(r.url, "/")
	r.http = &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: exportWorkers, ForceAttemptHTTP2: true,
	}}
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

// A remoteProblem is what a server answers instead of what was asked.
type remoteProblem struct {
	problem
	what string
}

func (p *remoteProblem) Error() string {
	return fmt.Sprintf("%s: the log says %d: %s", p.what, p.Status, p.Detail)
}

// do asks the server. An answer that is a problem is a *remoteProblem.
func (r *remote) do(ctx context.Context, method, path, contentType string, body []byte) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	req.Header.Set("Authorization", bearer+r.token)
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
		return nil, nil, fmt.Errorf("%s %s: the answer has more than %d bytes", method, path, answerMaxBytes)
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
func (r *remote) checkpoint(signed []byte) (log.Checkpoint, error) {
	if r.vkey != nil {
		c, err := log.OpenCheckpoint(signed, r.vkey)
		if err != nil {
			return c, fmt.Errorf("%w: %w", errCheck, err)
		}
		return c, nil
	}
	text, _, ok := bytes.Cut(signed, []byte("\n\n"))
	if !ok {
		return log.Checkpoint{}, fmt.Errorf("%w: the checkpoint has no signature", errCheck)
	}
	return log.ParseCheckpoint(string(text) + "\n")
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
	if err == nil {
		err = log.CheckInclusion(head, index, leaf, p.Path)
	}
	if err != nil || p.Index != index {
		return p, fmt.Errorf("%w: proof of entry %d: %w", errCheck, index, errors.Join(err))
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
