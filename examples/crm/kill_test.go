package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log/client"
)

// build builds a command of this tree.
func build(t *testing.T, from, what string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "command")
	b := exec.CommandContext(t.Context(), "go", "build", "-o", binary, what)
	b.Dir = from
	if out, err := b.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", what, err, out)
	}
	return binary
}

// A service that is killed again and again, and run again with the same command line,
// ends with one whole history: what an auditor who takes nothing on trust calls complete,
// with each batch in it once.
func TestKilledServiceEndsWithOneHistory(t *testing.T) { testKilled(t, 8, 3000) }

// TestKilledServiceEndsWithOneHistoryNightly is the same with more kills.
func TestKilledServiceEndsWithOneHistoryNightly(t *testing.T) { testKilled(t, 200, 20_000) }

func testKilled(t *testing.T, kills, customers int) {
	s := startServer(t)
	flags := s.admit(t)
	crm, verifier := build(t, ".", "."), build(t, "../..", "./cmd/verifier")
	kept, evidence := filepath.Join(t.TempDir(), "kept"), filepath.Join(t.TempDir(), "evidence")
	args := append([]string{"-customers", strconv.Itoa(customers), "-out", kept}, flags...)
	killed, resumed := 0, 0
	for run := 0; ; run++ {
		var out bytes.Buffer
		c := exec.CommandContext(t.Context(), crm, args...)
		c.Stdout, c.Stderr = &out, &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		if killed < kills {
			select {
			case err := <-ended:
				ended <- err
			case <-time.After(time.Duration(50+rand.IntN(250)) * time.Millisecond):
				killed++
				if err := c.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Fatal(err)
				}
			}
		}
		err := <-ended
		if strings.Contains(out.String(), "going on with") {
			resumed++
		}
		if err == nil {
			t.Logf("done after %d kills, %d runs went on with what was there\n%s", killed, resumed, &out)
			break
		}
		if err.Error() != "signal: killed" {
			t.Fatalf("run %d: %v\n%s", run, err, &out)
		}
	}
	s.audit(t, verifier, flags, evidence)
	kinds := map[string]int{}
	for _, e := range s.kept(t, kept) {
		kinds[e.Event.Kind]++
	}
	batches := kinds["migration.extract"]
	for kind, n := range map[string]int{
		"migration.open": 1, "migration.start": 1, "migration.transform": batches, "migration.reject": batches, "migration.load": batches,
		"migration.verify": 3, "migration.reconcile": 1, "migration.cutover": 1, "migration.close": 1, "stream.open": 4, "stream.close": 3,
	} {
		if kinds[kind] != n {
			t.Errorf("%d entries of kind %s, want %d", kinds[kind], kind, n)
		}
	}
	if customers == 3000 && batches != 12 {
		t.Errorf("%d batches, want 12", batches)
	}
}

// audit is what an external auditor does.
func (s *server) audit(t *testing.T, verifier string, flags []string, evidence string) {
	t.Helper()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	made := s.command(t, "token", "-config", filepath.Join(s.dir, "config.yaml"), "-principal", "auditor", "-role", "auditor")
	_, key, err := client.ReadKeyFile(flags[11])
	if err != nil {
		t.Fatal(err)
	}
	vkey, err := client.VKey(principal, key)
	if err != nil {
		t.Fatal(err)
	}
	submitters := filepath.Join(dir, "submitters")
	if err := errors.Join(os.WriteFile(token, []byte(made), 0o600), os.WriteFile(submitters, []byte(principal+" "+vkey+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s.command(t, "export", "-url", s.url, "-token-file", token, "-log-vkey", filepath.Join(s.dir, "log.vkey"), "-migration", "crm-2026", "-out", evidence)
	v := exec.CommandContext(t.Context(), verifier, "verify", "-policy", filepath.Join(s.dir, "policy"), "-submitters", submitters, evidence)
	if out, err := v.CombinedOutput(); err != nil {
		t.Errorf("verifier: %v\n%s", err, out)
	}
}
