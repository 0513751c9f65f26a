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
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pipe-roll/piperoll/cmd/bench/engine"
	"github.com/pipe-roll/piperoll/cmd/bench/measure"
	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/note"
)

func buildServer(ctx context.Context, dir string) (string, error) {
	file := filepath.Join(dir, "logserver")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", file, "github.com/pipe-roll/piperoll/cmd/logserver")
	cmd.Stderr = os.Stderr
	return file, cmd.Run()
}

// A serverBinary is the path of the logserver.
type serverBinary string

// A server is the real logserver in a process of its own.
type server struct {
	dir   string
	url   string
	admin string // token
	http  *http.Client
	cmd   *exec.Cmd
}

// with serves a new log while f runs, and stops the server whatever happens.
func (binary serverBinary) with(ctx context.Context, e measure.Env, publish string, f func(*server) error) error {
	dir := filepath.Join(e.Dir, "log")
	if err := binary.create(ctx, dir, publish); err != nil {
		return err
	}
	s, err := binary.start(ctx, dir)
	if err != nil {
		return err
	}
	time.Sleep(engine.WarmUp)
	return errors.Join(f(s), s.stop())
}

// create makes a log, with this cadence of published checkpoints.
func (binary serverBinary) create(ctx context.Context, dir, publish string) error {
	init := exec.CommandContext(ctx, string(binary), "init", "-dir", dir, "-origin", engine.Origin, "-listen", "127.0.0.1:0")
	init.Stderr = os.Stderr
	if err := init.Run(); err != nil {
		return fmt.Errorf("init a log in %s: %w", dir, err)
	}
	config := filepath.Join(dir, "config.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	text = []byte(strings.Replace(string(text), "publish: 1s", "publish: "+publish, 1))
	return os.WriteFile(config, text, 0o600)
}

// start serves a log, and returns when the server says that it is ready.
func (binary serverBinary) start(ctx context.Context, dir string) (*server, error) {
	s := &server{dir: dir, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}
	if err := os.Remove(s.file("addr")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err // of a server that was killed
	}
	s.cmd = exec.CommandContext(ctx, string(binary), "serve", "-config", s.file("config.yaml"))
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = 10 * time.Second
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.await(ctx); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *server) file(name string) string { return filepath.Join(s.dir, name) }

// stop ends the server as an operator would.
func (s *server) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // if it has ended already, Wait says how
	return s.cmd.Wait()
}

// kill ends the server as a crash would.
func (s *server) kill() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = s.cmd.Wait() // it was killed
	return nil
}

// startMax is how long a server may take to come up.
const startMax = time.Minute

// await waits until the server is ready.
func (s *server) await(ctx context.Context) error {
	token, err := os.ReadFile(s.file("admin.token"))
	if err != nil {
		return err
	}
	s.admin = strings.TrimSpace(string(token))
	for began := time.Now(); time.Since(began) < startMax && ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
		addr, err := os.ReadFile(s.file("addr"))
		if err != nil {
			continue
		}
		s.url = "http://" + strings.TrimSpace(string(addr))
		if _, err := s.get(ctx, "/readyz", ""); err == nil {
			return nil
		}
	}
	return errors.Join(errors.New("the server does not come up"), ctx.Err())
}

// rss is the server's memory, in MiB.
func (s *server) rss() (float64, error) { return measure.RSS(s.cmd.Process.Pid) }

// vkey reads one of the log's public keys.
func (s *server) vkey(name string) (string, error) {
	b, err := os.ReadFile(s.file(name))
	return strings.TrimSpace(string(b)), err
}

func (s *server) logKey() (note.Verifier, error) {
	vkey, err := s.vkey("log.vkey")
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(vkey)
}

// checkpoint gives the published one, whose signature is verified.
func (s *server) checkpoint(ctx context.Context) (log.Checkpoint, error) {
	key, err := s.logKey()
	if err != nil {
		return log.Checkpoint{}, err
	}
	b, err := s.get(ctx, "/checkpoint", "")
	if err != nil {
		return log.Checkpoint{}, err
	}
	return log.OpenCheckpoint(b, key)
}

// get returns the body of a resource.
func (s *server) get(ctx context.Context, path, token string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, resp.Status, b)
	}
	return b, err
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
