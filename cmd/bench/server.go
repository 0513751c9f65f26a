package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

const benchOrigin = "log.example/bench"

func buildServer(ctx context.Context, dir string) (string, error) {
	file := filepath.Join(dir, "logserver")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", file, "github.com/pipe-roll/piperoll/cmd/logserver")
	cmd.Stderr = os.Stderr
	return file, cmd.Run()
}

// A server is the real logserver in a process of its own.
type server struct {
	dir   string
	url   string
	admin string // token
	http  *http.Client
}

// withServer serves a new log while f runs, and stops the server whatever happens.
func withServer(ctx context.Context, e env, publish string, f func(*server) error) error {
	s := &server{dir: filepath.Join(e.dir, "log"), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}
	init := exec.CommandContext(ctx, e.server, "init", "-dir", s.dir, "-origin", benchOrigin, "-listen", "127.0.0.1:0")
	init.Stderr = os.Stderr
	if err := init.Run(); err != nil {
		return fmt.Errorf("init a log in %s: %w", s.dir, err)
	}
	config := filepath.Join(s.dir, "config.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	text = []byte(strings.Replace(string(text), "publish: 1s", "publish: "+publish, 1))
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, e.server, "serve", "-config", config)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	err = s.await(ctx)
	if err == nil {
		err = f(s)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM) // if it has ended already, Wait says how
	return errors.Join(err, cmd.Wait())
}

// await waits until the server serves.
func (s *server) await(ctx context.Context) error {
	for range 500 {
		if addr, err := os.ReadFile(filepath.Join(s.dir, "addr")); err == nil {
			s.url = "http://" + strings.TrimSpace(string(addr))
			token, err := os.ReadFile(filepath.Join(s.dir, "admin.token"))
			s.admin = strings.TrimSpace(string(token))
			time.Sleep(warmUp)
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.Join(errors.New("the server does not come up"), ctx.Err())
}

func (s *server) post(ctx context.Context, path, token, contentType string, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, "POST", s.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", contentType)
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err == nil && resp.StatusCode != 201 {
		err = fmt.Errorf("POST %s: %s: %s", path, resp.Status, b)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(b, answer)
	}
	return err
}

// principal makes a token and registers a key.
func (s *server) principal(ctx context.Context, name string) (token string, key ed25519.PrivateKey, err error) {
	var a struct{ Token string }
	body := fmt.Appendf(nil, `{"principal":%q,"role":"migration-service"}`, name)
	if err := s.post(ctx, "/v1/access/tokens", s.admin, "application/json", body, &a); err != nil {
		return "", nil, err
	}
	_, key, err = ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", nil, err
	}
	vkey, err := log.PublicKey(key.Public().(ed25519.PublicKey)).VKey(name)
	if err != nil {
		return "", nil, err
	}
	body = fmt.Appendf(nil, `{"principal":%q,"vkey":%q}`, name, vkey)
	return a.Token, key, s.post(ctx, "/v1/keys", s.admin, "application/json", body, nil)
}
