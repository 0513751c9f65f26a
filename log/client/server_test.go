package client_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
)

// eventsNightly is how many events the long test moves.
const (
	eventsEveryTime = 4_000
	eventsNightly   = 100_000
)

// A realServer is the real binary on a real directory.
type realServer struct {
	bin, dir string
	cfg      client.Config
	cmd      *exec.Cmd
}

// newServer builds and starts a server with a principal and its key.
func newServer(t *testing.T) *realServer {
	t.Helper()
	tmp := t.TempDir()
	s := &realServer{bin: filepath.Join(tmp, "logserver"), dir: filepath.Join(tmp, "log")}
	if runtime.GOOS == "windows" {
		s.bin += ".exe"
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", s.bin, "../../cmd/logserver")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	s.run(t, "init", "-dir", s.dir, "-origin", origin, "-listen", "127.0.0.1:0")
	key, err := client.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	vkey, err := client.VKey(principal, key)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(s.dir, "config.yaml")
	token := s.run(t, "token", "-config", config, "-principal", principal, "-role", "migration-service")
	proof := base64.StdEncoding.EncodeToString(client.PossessionProof(origin, principal, key))
	s.run(t, "key", "add", "-config", config, "-principal", principal, "-vkey", vkey, "-proof", proof)
	s.cfg = client.Config{
		Token: strings.TrimSpace(token), LogKey: s.file(t, "log.vkey"), ReceiptKey: s.file(t, "receipt.vkey"),
		Principal: principal, Key: key, BackoffMin: 50 * time.Millisecond, BackoffMax: 500 * time.Millisecond, Attempts: 40,
	}
	s.start(t)
	t.Cleanup(func() { s.stop(t, syscall.SIGTERM) })
	return s
}

// run runs a subcommand and returns what it prints.
func (s *realServer) run(t *testing.T, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(t.Context(), s.bin, args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("logserver %s: %v\n%s", strings.Join(args, " "), err, &errOut)
	}
	return out.String()
}

func (s *realServer) file(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// start starts the server and waits until it listens.
func (s *realServer) start(t *testing.T) {
	t.Helper()
	addr := filepath.Join(s.dir, "addr")
	if err := os.Remove(addr); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	s.cmd = exec.Command(s.bin, "serve", "-config", filepath.Join(s.dir, "config.yaml"))
	s.cmd.Stderr = t.Output()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(addr)
		if err == nil && len(text) > 0 {
			s.cfg.URL = "http://" + strings.TrimSpace(string(text))
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not start: %v", err)
		}
	}
}

func (s *realServer) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Error(err)
	}
	if err := s.cmd.Wait(); err != nil && sig == syscall.SIGTERM {
		t.Errorf("server: %v", err)
	}
}

// fixListen keeps the port that was bound, so that the next start has the same.
func (s *realServer) fixListen(t *testing.T) {
	t.Helper()
	path := filepath.Join(s.dir, "config.yaml")
	text := s.file(t, "config.yaml")
	text = strings.Replace(text, "listen: 127.0.0.1:0", "listen: "+strings.TrimPrefix(s.cfg.URL, "http://"), 1)
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// move logs n events in four streams at once, and proves them all.
func move(ctx context.Context, c *client.Client, name string, n int) error {
	streams := []string{"customers", "orders", "invoices", "items"}
	m, err := c.OpenMigration(ctx, name, client.MigrationConfig{Streams: streams})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make(chan error, len(streams))
	for _, stream := range streams {
		wg.Go(func() {
			s, err := m.OpenStream(ctx, stream)
			for sent := 0; err == nil && sent < n/len(streams); sent += 1000 {
				_, err = s.Append(ctx, events(min(1000, n/len(streams)-sent))...)
			}
			errs <- err
		})
	}
	wg.Wait()
	for range streams {
		if err := <-errs; err != nil {
			return err
		}
	}
	if err := m.Close(ctx); err != nil {
		return err
	}
	return c.Wait(ctx)
}

// The SDK against the real server, from the first event to the last proof.
func TestServer(t *testing.T) { testServer(t, eventsEveryTime) }

// TestServerNightly is TestServer with the number of events that the figures are for.
func TestServerNightly(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	testServer(t, eventsNightly)
}

func testServer(t *testing.T, n int) {
	s := newServer(t)
	c, err := client.New(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := move(t.Context(), c, "crm-2026", n); err != nil {
		t.Fatal(err)
	}
	elapsed := time.Since(start)
	if got := c.Pending(); got != 0 {
		t.Errorf("%d events have no proof", got)
	}
	t.Logf("%d events, each proven: %v, %.0f events/s", n, elapsed, float64(n)/elapsed.Seconds())
	if n == eventsNightly && elapsed > 15*time.Second {
		t.Errorf("%d events took %v, want less than 15 s", n, elapsed)
	}
}

// A server that is killed and started again under load: the SDK goes on, and
// nothing that was acknowledged is lost.
func TestServerKilled(t *testing.T) {
	s := newServer(t)
	s.fixListen(t)
	c, err := client.New(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- move(t.Context(), c, "crm-2026", eventsEveryTime) }()
	for range 3 {
		time.Sleep(150 * time.Millisecond)
		s.stop(t, syscall.SIGKILL)
		s.start(t)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// The order of all streams is in the log: another client that knows only the checkpoint agrees with it.
	cfg := s.cfg
	cfg.Checkpoint = c.Checkpoint()
	after, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := move(t.Context(), after, "crm-2027", 8); err != nil {
		t.Error(err)
	}
}

// What the real server refuses comes out as the SDK says.
func TestServerRefuses(t *testing.T) {
	s := newServer(t)
	c, err := client.New(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, stream := open(t, c)
	late := client.Event{Kind: "x.late", Time: time.Now().Add(time.Hour)}
	stranger := s.cfg
	if stranger.Key, err = client.NewKey(); err != nil {
		t.Fatal(err)
	}
	nobody := s.cfg
	nobody.Token = "pr_unknown"
	for name, try := range map[string]func() error{
		"clock 400":           func() error { _, err := stream.Append(t.Context(), late); return err },
		"key 403":             func() error { return openWith(t.Context(), stranger, "other") },
		"fork 409":            func() error { return openWith(t.Context(), s.cfg, "crm-2026") },
		"unauthenticated 401": func() error { return openWith(t.Context(), nobody, "other") },
	} {
		err := try()
		problem, status, _ := strings.Cut(name, " ")
		want := fmt.Sprintf("refused with status %s", status)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(fmt.Sprint(refusedType(err)), problem) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	placed, err := stream.Append(t.Context(), client.Event{Kind: "x.after", Objects: []log.Object{{Name: "a", Role: "b"}}})
	if err != nil || len(placed) != 1 {
		t.Errorf("Append = %d placed, %v", len(placed), err)
	}
}

func openWith(ctx context.Context, cfg client.Config, name string) error {
	c, err := client.New(cfg)
	if err != nil {
		return err
	}
	_, err = c.OpenMigration(ctx, name, client.MigrationConfig{})
	return err
}

func refusedType(err error) string {
	var r *client.Refused
	if errors.As(err, &r) {
		return r.Type
	}
	return ""
}
