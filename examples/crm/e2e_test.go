package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/examples/crm/migrate"
	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const principal = "crm-migrator"

// A server is a real log server, built from this tree.
type server struct {
	binary, dir, url string
}

func startServer(t *testing.T) *server {
	t.Helper()
	home := t.TempDir()
	s := &server{binary: filepath.Join(home, "logserver"), dir: filepath.Join(home, "log")}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", s.binary, "./cmd/logserver")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build logserver: %v\n%s", err, out)
	}
	s.command(t, "init", "-dir", s.dir, "-origin", "log.example.com/crm", "-listen", "127.0.0.1:0")

	// The context of a test ends before its cleanups: the server outlives it, to be stopped in order.
	serve := exec.CommandContext(context.WithoutCancel(t.Context()), s.binary, "serve", "-config", filepath.Join(s.dir, "config.yaml"))
	var said bytes.Buffer
	serve.Stderr = &said
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := serve.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := serve.Wait(); err != nil {
			t.Errorf("server stopped with %v\n%s", err, said.String())
		}
	})
	for range 200 {
		if addr, err := os.ReadFile(filepath.Join(s.dir, "addr")); err == nil && len(addr) > 0 {
			s.url = "http://" + strings.TrimSpace(string(addr))
			return s
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the server wrote no address within 10 s")
	return nil
}

// command runs a command of the server and gives what it prints.
func (s *server) command(t *testing.T, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	c := exec.CommandContext(t.Context(), s.binary, args...)
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Run(); err != nil {
		t.Fatalf("logserver %s: %v\n%s", strings.Join(args, " "), err, errOut.String())
	}
	return out.String()
}

// admit registers the service and gives the flags with which it connects.
func (s *server) admit(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	config, keyFile, tokenFile := filepath.Join(s.dir, "config.yaml"), filepath.Join(dir, "key"), filepath.Join(dir, "token")
	key, err := client.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	vkey, err := client.VKey(principal, key)
	if err := errors.Join(err, client.WriteKeyFile(keyFile, principal, key)); err != nil {
		t.Fatal(err)
	}
	s.command(t, "key", "add", "-config", config, "-principal", principal, "-vkey", vkey)
	token := s.command(t, "token", "-config", config, "-principal", principal, "-role", "migration-service")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{
		"-dir", filepath.Join(dir, "data"), "-url", s.url, "-token-file", tokenFile,
		"-log-vkey", filepath.Join(s.dir, "log.vkey"), "-principal", principal, "-key", keyFile,
	}
}

// kept reads what the command kept of the log's answers, and checks that it
// would stand up: the receipts are the log's, and over the entries that are kept.
func (s *server) kept(t *testing.T, dir string) []log.Entry {
	t.Helper()
	vkey, err := os.ReadFile(filepath.Join(s.dir, "receipt.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewVerifier(strings.TrimSpace(string(vkey)))
	if err != nil {
		t.Fatal(err)
	}
	receipts, err := filepath.Glob(filepath.Join(dir, "receipts", "*.receipt"))
	if err != nil || len(receipts) == 0 {
		t.Fatalf("%d receipts in %s, %v", len(receipts), dir, err)
	}
	var all []log.Entry
	for _, name := range receipts {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := log.OpenReceipt(text, key)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var leaves []log.Hash
		for i := range r.Count {
			entry, err := os.ReadFile(filepath.Join(dir, log.ExportFile{Kind: log.ExportEvent, Number: r.First + i}.Path()))
			if err != nil {
				t.Fatalf("entry of %s: %v", name, err)
			}
			e, err := log.ParseEntry(entry)
			if err != nil {
				t.Fatalf("entry %d: %v", r.First+i, err)
			}
			all = append(all, e)
			leaves = append(leaves, tlog.RecordHash(entry))
		}
		if log.LeavesHash(leaves) != r.Leaves {
			t.Errorf("%s is over other entries than those that are kept", name)
		}
	}
	if files, err := os.ReadDir(filepath.Join(dir, "events")); err != nil || len(files) != len(all) {
		t.Errorf("%d entries are kept, %v; the receipts are over %d", len(files), err, len(all))
	}
	return all
}

// A service migrates, and replays what its other tools said of their runs; the
// log holds all of it, and the service holds what convicts the log if not.
func TestServiceAgainstARealLog(t *testing.T) {
	s := startServer(t)
	flags := s.admit(t)
	dir := t.TempDir()
	var out, errOut bytes.Buffer
	crm := func(want int, args ...string) {
		t.Helper()
		out.Reset()
		errOut.Reset()
		if code := run(t.Context(), args, &out, &errOut); code != want {
			t.Fatalf("crm %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, out.String(), errOut.String())
		}
	}
	with := func(more ...string) []string { return append(append([]string{}, flags...), more...) }

	crm(exitDone, with("-customers", "3000", "-out", filepath.Join(dir, "migration"))...)
	if !strings.Contains(out.String(), "balanced: ") {
		t.Errorf("crm said %q, want its account balanced", out.String())
	}
	kinds := map[string]int{}
	for _, e := range s.kept(t, filepath.Join(dir, "migration")) {
		kinds[e.Event.Kind]++
	}
	// 3 + 5 + 4 batches.
	for kind, n := range map[string]int{"migration.start": 1, "migration.extract": 12, "migration.reject": 12, "migration.load": 12, "migration.verify": 3, "migration.cutover": 1} {
		if kinds[kind] != n {
			t.Errorf("%d entries of kind %s, want %d", kinds[kind], kind, n)
		}
	}
	var report migrate.Report
	text, err := os.ReadFile(filepath.Join(dir, "migration", "report.json"))
	if err := errors.Join(err, json.Unmarshal(text, &report)); err != nil || !report.Balanced || report.Tables["customers"].Source.Rows != 3000 {
		t.Errorf("report.json: %v, %+v", err, report)
	}

	crm(exitDone, append([]string{"replay"}, with(append([]string{"-out", filepath.Join(dir, "replay")}, lineageFiles(t)...)...)...)...)
	if entries := s.kept(t, filepath.Join(dir, "replay")); len(entries) != 79 {
		t.Errorf("%d entries of the replay, want 79", len(entries))
	}

	// The log takes each migration once, and says so before anything is moved.
	if err := os.Rename(filepath.Join(flags[1], "crm-new.db"), filepath.Join(dir, "crm-new.db")); err != nil {
		t.Fatal(err)
	}
	crm(exitFailed, with()...)
	if _, err := os.Stat(filepath.Join(flags[1], "crm-new.db")); err == nil {
		t.Error("a second migration of the same name was cut over")
	}
}

// An append that fails half-way leaves acknowledged events in the log: their
// entries and receipts are kept like all others.
func TestWhatIsAcknowledgedIsKeptWhenTheRestFails(t *testing.T) {
	s := startServer(t)
	flags := s.admit(t)
	to, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	through := httputil.NewSingleHostReverseProxy(to)
	var posts atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && posts.Add(1) == 4 { // after both openings, and the first hundred events
			http.Error(w, "not through here", http.StatusForbidden)
			return
		}
		through.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	keep, err := newKeeper(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := openAudit(t.Context(), connection{
		url: proxy.URL, tokenFile: flags[5], logKeyFile: flags[7], receiptKeyFile: filepath.Join(s.dir, "receipt.vkey"),
		principal: principal, keyFile: flags[11], checkpointFile: filepath.Join(t.TempDir(), "checkpoint"),
	}, "half-way", []string{"customers"}, keep)
	if err != nil {
		t.Fatal(err)
	}
	var refused *client.Refused
	if err := a.Append(t.Context(), "customers", slices.Repeat([]migrate.Event{{Kind: "migration.load"}}, 150)...); !errors.As(err, &refused) {
		t.Errorf("Append = %v, want the refusal", err)
	}
	if entries := s.kept(t, keep.dir); len(entries) != 100 || a.events != 100 {
		t.Errorf("%d entries are kept of %d that were acknowledged, want 100", len(entries), a.events)
	}
}
