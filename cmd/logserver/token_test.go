package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// An addr that is left over, or wrong, names somebody else: who gets no token.
func TestTheAdministratorsTokenIsForTheLogAlone(t *testing.T) {
	r := newLog(t, nil)
	addr := filepath.Join(r.dir, "addr")
	var sent []string
	status := 0 // of a POST; 0 passes it on
	show := r.url
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		sent = append(sent, req.Header.Get("Authorization"))
		if req.Method == http.MethodPost && status != 0 {
			w.WriteHeader(status)
			return
		}
		resp, err := http.Get(show + req.URL.Path) //nolint:noctx // a test's
		must(t, err)
		defer func() { _ = resp.Body.Close() }() // written on as it comes
		w.WriteHeader(resp.StatusCode)
		_, err = io.Copy(w, resp.Body)
		must(t, err)
	}))
	t.Cleanup(other.Close)
	must(t, os.WriteFile(addr, []byte(strings.TrimPrefix(other.URL, "http://")+"\n"), 0o644))
	token := func(want int) string {
		t.Helper()
		sent = nil
		var out, errOut bytes.Buffer
		args := []string{"token", "-config", filepath.Join(r.dir, "config.yaml"), "-principal", "a", "-role", "auditor"}
		if code := run(t.Context(), args, &out, &errOut, nil); code != want {
			t.Errorf("token exits with %d, want %d: %s", code, want, &errOut)
		}
		return errOut.String()
	}
	another := newLog(t, nil)
	show = another.url // the same origin, another key
	if said := token(exitFailed); !strings.Contains(said, addr) || !slices.Equal(sent, []string{""}) {
		t.Errorf("token says %q, and the stranger got %q", said, sent)
	}
	show = r.url
	status = http.StatusServiceUnavailable
	token(exitIO)
	if want := []string{"", "Bearer " + r.admin}; !slices.Equal(sent, want) {
		t.Errorf("the log's server got %q, want %q", sent, want)
	}
	status = http.StatusForbidden
	token(exitUsage)
	must(t, os.Remove(addr))
	if said := token(exitIO); !strings.Contains(said, "-log NAME") {
		t.Errorf("token says %q", said)
	}
	// A server that stops is asked no more.
	r.restart()
	if _, err := os.Stat(addr); err != nil {
		t.Error(err)
	}
	must(t, r.stop())
	if _, err := os.Stat(addr); !os.IsNotExist(err) {
		t.Errorf("after a stop addr: %v", err)
	}
	token(exitOK)
}

func TestTokensAndKeysOfAHostedLog(t *testing.T) {
	dir := t.TempDir()
	hosted := filepath.Join(dir, "hr", "config.yaml")
	if code := run(t.Context(), []string{"init", "-dir", filepath.Join(dir, "hr"), "-origin", "log.example/hr"}, t.Output(), t.Output(), nil); code != 0 {
		t.Fatal("init fails")
	}
	r := newLog(t, func(c string) string { return c + "logs:\n  - {name: hr, config: " + hosted + "}\n" })
	config := filepath.Join(r.dir, "config.yaml")
	token := func(want int, flags ...string) string {
		t.Helper()
		var out, errOut bytes.Buffer
		if code := run(t.Context(), append([]string{"token", "-principal", "a", "-role", "auditor"}, flags...), &out, &errOut, nil); code != want {
			t.Errorf("token %q exits with %d, want %d: %s", flags, code, want, &errOut)
		}
		return strings.TrimSpace(out.String())
	}
	served := token(exitOK, "-config", config, "-log", "hr")
	r.get("/logs/hr/v1/entries/0", served).want(200, "")
	r.get("/v1/entries/0", served).want(401, "unauthenticated")
	token(exitIO, "-config", hosted)
	token(exitUsage, "-config", config, "-log", "finance")
	must(t, r.stop())
	offline := token(exitOK, "-config", config, "-log", "hr")
	r.start()
	r.get("/logs/hr/v1/entries/0", offline).want(200, "")
}
