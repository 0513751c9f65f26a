package client_test

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
	"golang.org/x/mod/sumdb/note"
)

// Opening is safe to repeat after a lost answer, and refused twice otherwise.
func TestOpenAgain(t *testing.T) {
	f := newFake(t)
	cfg := f.config()
	cfg.Attempts = 1
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	lose := func() {
		f.with(func() {
			lost := f.requests + 1
			f.after = func(n int, _ http.ResponseWriter, _ int, _ []byte) bool {
				if n == lost {
					panic(http.ErrAbortHandler)
				}
				return false
			}
		})
	}
	lose()
	config := client.MigrationConfig{Streams: []string{"customers"}}
	if _, err := c.OpenMigration(t.Context(), "crm-2026", config); !errors.Is(err, client.ErrUnacknowledged) {
		t.Fatalf("OpenMigration = %v, want ErrUnacknowledged", err)
	}
	m, err := c.OpenMigration(t.Context(), "crm-2026", config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.OpenMigration(t.Context(), "crm-2026", config); err == nil {
		t.Error("a migration was opened twice")
	}
	if err := m.Close(t.Context()); err == nil || !strings.Contains(err.Error(), `"crm-2026/customers" was announced and never opened`) {
		t.Errorf("Close = %v, want what is missing", err)
	}
	lose()
	if _, err := m.OpenStream(t.Context(), "customers"); !errors.Is(err, client.ErrUnacknowledged) {
		t.Fatalf("OpenStream = %v, want ErrUnacknowledged", err)
	}
	s, err := m.OpenStream(t.Context(), "customers")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.OpenStream(t.Context(), "customers"); err == nil {
		t.Error("a stream was opened twice")
	}
	if _, err := m.OpenStream(t.Context(), "control"); err == nil {
		t.Error("the control stream was opened twice")
	}
	if err := m.Control().Close(t.Context()); err == nil {
		t.Error("the control stream was closed by itself")
	}
	lose()
	if err := s.Close(t.Context()); !errors.Is(err, client.ErrUnacknowledged) {
		t.Errorf("stream Close = %v, want ErrUnacknowledged", err)
	}
	if err := errors.Join(s.Close(t.Context()), s.Close(t.Context())); err != nil {
		t.Error(err)
	}
	if _, err := s.Append(t.Context(), events(1)...); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Append to a closed stream = %v", err)
	}
	lose()
	if err := m.Close(t.Context()); !errors.Is(err, client.ErrUnacknowledged) {
		t.Errorf("migration Close = %v, want ErrUnacknowledged", err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := m.OpenStream(t.Context(), "late"); !errors.Is(err, client.ErrClosed) {
		t.Errorf("OpenStream of a closed migration = %v", err)
	}
	if _, err := m.Control().Append(t.Context(), client.Event{Kind: "migration.cutover"}); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Append after migration.close = %v", err)
	}
	if err := c.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if m.Name() != "crm-2026" || s.Name() != "crm-2026/customers" || c.Origin() != origin {
		t.Errorf("names are %q, %q, %q", m.Name(), s.Name(), c.Origin())
	}
	f.check(t, "crm-2026/customers", "stream.open", "stream.close")
	f.check(t, "crm-2026/control", "stream.open", "migration.open", "migration.close")
	f.checkAccount(t, "crm-2026")
}

// A refused opening leaves nothing, and can be done right.
func TestOpenRefused(t *testing.T) {
	f := newFake(t)
	c := f.client(t)
	if _, err := c.OpenMigration(t.Context(), "crm-2026", client.MigrationConfig{Streams: []string{"a", "a"}}); err == nil {
		t.Error("a stream was announced twice")
	}
	if _, err := c.OpenMigration(t.Context(), "no name", client.MigrationConfig{}); err == nil {
		t.Error("a migration has a name that is none")
	}
	m, err := c.OpenMigration(t.Context(), "crm-2026", client.MigrationConfig{Streams: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	f.with(func() {
		f.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			f.problem(w, 403, "key", "key is not registered", nil)
			return true
		}
	})
	var r *client.Refused
	if _, err := m.OpenStream(t.Context(), "a"); !errors.As(err, &r) {
		t.Errorf("OpenStream = %v, want a refusal", err)
	}
	f.with(func() { f.before = nil })
	if _, err := m.OpenStream(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	f.with(func() {
		f.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			f.problem(w, 403, "forbidden", "no", nil)
			return true
		}
	})
	if err := m.Close(t.Context()); !errors.As(err, &r) {
		t.Errorf("Close = %v, want a refusal", err)
	}
}

// Two principals in one migration. The fake has one principal, so this shows
// what each side says and that the account has both.
func TestOthersStreams(t *testing.T) {
	f := newFake(t)
	c := f.client(t)
	m, err := c.OpenMigration(t.Context(), "crm-2026", client.MigrationConfig{
		Streams: []string{"mine"}, Others: []log.StreamOwner{{Owner: "loader", Stream: "crm-2026/theirs"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	joined := f.client(t).JoinMigration("crm-2026")
	if joined.Control() != nil {
		t.Error("who joins has the control stream")
	}
	theirs, err := joined.OpenStream(t.Context(), "theirs")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.OpenStream(t.Context(), "mine"); err != nil {
		t.Fatal(err)
	}
	if err := joined.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(t.Context()); err == nil || !strings.Contains(err.Error(), `"crm-2026/theirs"`) {
		t.Errorf("Close = %v, want the other's stream missing", err)
	}
	if err := m.Close(t.Context(), theirs.End(), theirs.End()); err == nil {
		t.Error("a stream was listed twice")
	}
	if err := m.Close(t.Context(), theirs.End()); err != nil {
		t.Fatal(err)
	}
	f.checkAccount(t, "crm-2026")
}

func TestConfig(t *testing.T) {
	f := newFake(t)
	_, other := newSigner("elsewhere/receipt")
	_, spaced := newSigner("no,name")
	small := ed25519.PrivateKey(make([]byte, ed25519.PrivateKeySize))
	for _, tc := range []struct {
		change func(c *client.Config)
		want   []string
	}{
		{func(c *client.Config) { *c = client.Config{} }, []string{"URL", "Token", "Principal", "Key has 0 bytes", "LogKey", "ReceiptKey"}},
		{func(c *client.Config) { c.URL = "ftp://log.example.com" }, []string{"URL"}},
		{func(c *client.Config) { c.URL = "https://" }, []string{"URL"}},
		{func(c *client.Config) { c.URL = "http://log.example.com/logs/hr/" }, []string{"without TLS", "AllowPlainHTTP"}},
		{func(c *client.Config) { c.HTTP, c.TLS = &http.Client{}, &tls.Config{} }, []string{"TLS"}},
		{func(c *client.Config) { c.Token = "a b" }, []string{"Token"}},
		{func(c *client.Config) { c.ReceiptKey = other }, []string{`named "elsewhere/receipt"`}},
		{func(c *client.Config) { c.LogKey = strings.Replace(spaced, ",", "=", 1) }, []string{"LogKey"}},
		{func(c *client.Config) { c.LogKey = spaced }, []string{"LogKey: origin"}},
		{func(c *client.Config) { c.Key = small }, []string{"small order"}},
		{func(c *client.Config) { c.Attempts, c.BatchEvents = -1, -5 }, []string{"is -1", "is -5"}},
		{func(c *client.Config) { c.Checkpoint = []byte("none") }, []string{"Checkpoint"}},
	} {
		cfg := f.config()
		tc.change(&cfg)
		_, err := client.New(cfg)
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("New = %v, want it to say %q", err, want)
			}
		}
	}
	for _, change := range []func(c *client.Config){
		func(c *client.Config) { c.URL = "https://log.example.com/logs/hr/" },
		func(c *client.Config) { c.URL, c.AllowPlainHTTP = "http://log.example.com/logs/hr/", true },
		func(c *client.Config) { c.URL = "http://[::1]:8080" },
	} {
		cfg := f.config()
		change(&cfg)
		if _, err := client.New(cfg); err != nil {
			t.Error(err)
		}
	}
}

// A receipt that promises for the year 9999 promises nothing.
func TestLatePromise(t *testing.T) {
	f := newFake(t)
	cfg := f.config()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, s := open(t, c)
	f.with(func() { f.receipt = func(r *log.Receipt) note.Signer { r.By = r.Received + 25*3600*1000; return nil } })
	before := f.requests
	if placed, err := s.Append(t.Context(), events(1)...); !errors.Is(err, client.ErrPromise) || !errors.Is(err, client.ErrUnacknowledged) || len(placed) != 0 || !strings.Contains(err.Error(), "PromiseMax") {
		t.Errorf("Append = %d placed, %v, want ErrPromise", len(placed), err)
	}
	// The log says the same of the same request: it is not sent again for nothing, and kept.
	if f.requests != before+1 {
		t.Errorf("the request was sent %d times", f.requests-before)
	}
	if s.Unacknowledged() != 1 || c.Evidence() != nil {
		t.Errorf("%d unacknowledged, evidence %v", s.Unacknowledged(), c.Evidence())
	}
	refuseNext(f, 403, false) // which says nothing of the first time
	if _, err := s.Flush(t.Context()); !errors.Is(err, client.ErrUnacknowledged) || s.Unacknowledged() != 1 {
		t.Errorf("Flush = %v with %d unacknowledged, want it kept", err, s.Unacknowledged())
	}
	cfg.PromiseMax = 48 * time.Hour
	if c, err = client.New(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := c.OpenMigration(t.Context(), "crm-2027", client.MigrationConfig{}); err != nil {
		t.Errorf("with a longer promise expected: %v", err)
	}
}

// The application may have wrapped the transport of the whole process.
func TestAnotherDefaultTransport(t *testing.T) {
	was := http.DefaultTransport
	defer func() { http.DefaultTransport = was }()
	http.DefaultTransport = struct{ http.RoundTripper }{was}
	f := newFake(t)
	open(t, f.client(t))
}

// A log that knows its clients by their certificates, and is known by its own.
func TestMutualTLS(t *testing.T) {
	f := newFake(nil)
	srv := httptest.NewUnstartedServer(f)
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	f.url = srv.URL
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	for name, tc := range map[string]struct {
		tls  *tls.Config
		done bool
	}{
		"an unknown server":        {nil, false},
		"a client of no name":      {&tls.Config{RootCAs: roots}, false},
		"who know each other well": {&tls.Config{RootCAs: roots, Certificates: srv.TLS.Certificates}, true},
	} {
		cfg := f.config()
		cfg.TLS, cfg.Attempts = tc.tls, 1
		c, err := client.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.OpenMigration(t.Context(), "crm-2026", client.MigrationConfig{})
		if tc.done {
			err = errors.Join(err, c.Wait(t.Context()))
		}
		if done := err == nil; done != tc.done {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.check(t, "crm-2026/control", "stream.open", "migration.open")
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "crm.key")
	for range 50 { // half of all keys have a plus sign in their base64
		key, err := client.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		if err := client.WriteKeyFile(path, principal, key); err != nil {
			t.Fatal(err)
		}
		name, got, err := client.ReadKeyFile(path)
		if err != nil || name != principal || !slices.Equal(got, key) {
			t.Fatalf("ReadKeyFile = %q, %v, want what was written", name, err)
		}
		vkey, err := client.VKey(principal, key)
		if err != nil {
			t.Fatal(err)
		}
		// The log's own library reads the file, and what it signs verifies under the vkey.
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := note.NewSigner(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		verifier, err := note.NewVerifier(vkey)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := signer.Sign([]byte("text"))
		if err != nil || !verifier.Verify([]byte("text"), sig) {
			t.Errorf("a signature by the file's key does not verify: %v", err)
		}
		proof := client.PossessionProof(origin, principal, key)
		_, public, err := log.ParseVKey(vkey)
		if err != nil {
			t.Fatal(err)
		}
		var ring log.Keyring
		if err := ring.CheckRegistration(origin, log.KeyRegistered{Key: public, Principal: principal, Proof: (*[64]byte)(proof)}); err != nil {
			t.Error(err)
		}
		if err := client.WriteKeyFile(path, principal, key); !errors.Is(err, os.ErrExist) {
			t.Errorf("WriteKeyFile over a key = %v", err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 0 {
			t.Fatalf("beside the key there is %v, %v", names, err)
		}
	}
}

func TestBadKeyFiles(t *testing.T) {
	dir := t.TempDir()
	key, err := client.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good.key")
	if err := client.WriteKeyFile(good, principal, key); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty": "", "vkey": "crm+12345678+AQID", "cut": string(text[:len(text)-9]), "two lines": string(text) + "\n",
		"flipped": strings.Replace(string(text), "crm", "CRM", 1), "long": string(text) + strings.Repeat("x", 5000),
	} {
		path := filepath.Join(dir, "bad.key")
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := client.ReadKeyFile(path); !errors.Is(err, log.ErrMalformed) {
			t.Errorf("%s: ReadKeyFile = %v, want ErrMalformed", name, err)
		} else if len(text) > 60 && strings.Contains(err.Error(), string(text[len(text)-20:])) {
			t.Errorf("%s: the error tells the key", name)
		}
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(good, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, _, err := client.ReadKeyFile(good); err == nil || !strings.Contains(err.Error(), "others can read it") {
			t.Errorf("ReadKeyFile of a file that others can read = %v", err)
		}
	}
	if _, _, err := client.ReadKeyFile(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ReadKeyFile of no file = %v", err)
	}
	if _, _, err := client.ReadKeyFile(dir); err == nil {
		t.Error("ReadKeyFile reads a folder")
	}
	if err := client.WriteKeyFile(good+"2", "no name", key); err == nil {
		t.Error("WriteKeyFile takes a name with a space")
	}
	if _, err := client.VKey(principal, key[:5]); !errors.Is(err, log.ErrKey) {
		t.Errorf("VKey of 5 bytes = %v", err)
	}
}

// Times of events are the caller's clock, if it gives none of its own.
func TestClock(t *testing.T) {
	f := newFake(t)
	cfg := f.config()
	at := time.UnixMilli(1_700_000_000_000)
	cfg.Now = func() time.Time { return at }
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, s := open(t, c)
	if _, err := s.Append(t.Context(), events(1)...); err != nil {
		t.Fatal(err)
	}
	for _, e := range f.check(t, "crm-2026/customers", "stream.open", "migration.load") {
		if e.Event.Time != uint64(at.UnixMilli()) {
			t.Errorf("seq %d is at %d", e.Event.Seq, e.Event.Time)
		}
	}
}
