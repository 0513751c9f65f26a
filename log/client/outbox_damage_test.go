package client_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log/client"
)

// stopped is an outbox with events that are not in the log, in several groups.
func stopped(t *testing.T, f *fakeLog) (cfg client.Config, file string) {
	t.Helper()
	cfg = f.outboxConfig(filepath.Join(t.TempDir(), "outbox"))
	cfg.Outbox.Resubmit = time.Hour
	f.with(func() { f.held = true })
	c := openOutbox(t, cfg)
	_, s := open(t, c)
	if _, err := s.Append(t.Context(), events(2)...); err != nil {
		t.Fatal(err)
	}
	f.with(func() {
		f.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			f.problem(w, 503, "read-only", "away", nil)
			return true
		}
	})
	for range 3 {
		if err := s.Put(t.Context(), events(1)...); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg, filepath.Join(cfg.Outbox.Dir, "000000000001.outbox")
}

// A damaged outbox is not opened as if nothing were missing, and stays as it is.
// Only the last group can be lost unseen: a crash leaves the same.
func TestOutboxDamaged(t *testing.T) {
	f := newFake(t)
	cfg, file := stopped(t, f)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndex(whole, []byte("POX1"))
	for at := 0; at < last; at += 7 {
		spoilt := slices.Clone(whole)
		spoilt[at] ^= 0x10
		if err := os.WriteFile(file, spoilt, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := client.New(cfg)
		if err == nil {
			t.Fatalf("opened with byte %d changed; closing: %v", at, c.Close())
		}
		if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, spoilt) {
			t.Fatalf("byte %d: the file was changed, %v", at, err)
		}
	}
	// Torn as by a crash: what is before it is there.
	for _, size := range []int{last + 1, last + 20, len(whole) - 1} {
		if err := os.WriteFile(file, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		c := openOutbox(t, cfg)
		_, s := open(t, c)
		if got := s.End().Last; got < 5 || got > 6 {
			t.Errorf("torn at %d: the stream is at %d", size, got)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, spoil := range map[string]func() error{
		"is empty": func() error { return os.WriteFile(file, nil, 0o600) },
		"000000000002.outbox is missing": func() error {
			return errors.Join(os.WriteFile(file, whole, 0o600), os.WriteFile(filepath.Join(filepath.Dir(file), "000000000003.outbox"), whole, 0o600))
		},
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, err := client.New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("New = %v, want %q", err, name)
		}
	}
}

// Two copies of an outbox give other events the same places. The log takes those of
// one, and the other says so instead of going on.
func TestOutboxThatWasCopied(t *testing.T) {
	f := newFake(t)
	cfg, _ := stopped(t, f)
	f.with(func() { f.before, f.held = nil, false })
	copied := cfg
	other := *cfg.Outbox
	other.Dir = filepath.Join(t.TempDir(), "copy")
	copied.Outbox = &other
	if err := os.CopyFS(other.Dir, os.DirFS(cfg.Outbox.Dir)); err != nil {
		t.Fatal(err)
	}
	c := openOutbox(t, cfg)
	m, s := open(t, c)
	if _, err := s.Append(t.Context(), events(4)...); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	c2 := openOutbox(t, copied)
	_, s2 := open(t, c2)
	if _, err := s2.Append(t.Context(), events(1)...); !errors.Is(err, client.ErrAhead) || !errors.Is(err, client.ErrUnacknowledged) {
		t.Errorf("Append with the copy = %v, want ErrAhead", err)
	}
	if err := c2.Wait(t.Context()); !errors.Is(err, client.ErrAhead) || c2.Evidence() != nil {
		t.Errorf("Wait with the copy = %v, evidence %v: nobody lied", err, c2.Evidence())
	}
	if err := errors.Join(m.Close(t.Context()), c.Wait(t.Context())); err != nil {
		t.Fatal(err)
	}
	f.checkOurs(t, "crm-2026/customers", 1+2+3+4+1)
	f.checkAccount(t, "crm-2026")
}

// However much waits for a log that is away, memory holds a window of it.
func TestOutboxMemory(t *testing.T) {
	f := newFake(t)
	cfg, _ := stopped(t, f) // away
	cfg.BackoffMax = time.Minute
	c := openOutbox(t, cfg)
	_, s := open(t, c)
	const n, size = 60, 1 << 20
	payload := []byte(`"` + strings.Repeat("x", size) + `"`)
	for range n {
		if err := s.Put(t.Context(), client.Event{Kind: "x.large", Payload: payload}); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 40<<20 {
		t.Errorf("%d MiB are in memory, of %d MiB that wait", m.HeapAlloc>>20, n*size>>20)
	}
}

// What Keep does not take is not acknowledged: it is given to it again.
func TestOutboxKeep(t *testing.T) {
	f := newFake(t)
	cfg := f.outboxConfig(t.TempDir())
	kept, full := map[uint64]string{}, true
	cfg.Outbox.Keep = func(placed []client.Placed) error {
		if full {
			full = false
			return errors.New("no space")
		}
		for _, p := range placed {
			kept[p.Index] = string(p.Entry)
		}
		return nil
	}
	c := openOutbox(t, cfg)
	m, s := open(t, c)
	if err := s.Put(t.Context(), events(7)...); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Close(t.Context()), c.Wait(t.Context()), c.Close()); err != nil {
		t.Fatal(err)
	}
	for i, entry := range f.entries[1:] {
		if kept[uint64(i)+1] != string(entry) {
			t.Errorf("entry %d is not kept", i+1)
		}
	}
}

// What is wrong with an outbox's configuration, or its use, is said at once.
func TestOutboxRefusesMisuse(t *testing.T) {
	f := newFake(t)
	for _, tc := range []struct {
		outbox client.OutboxConfig
		want   string
	}{
		{client.OutboxConfig{}, "Outbox.Dir is empty"},
		{client.OutboxConfig{Dir: "x", MaxBytes: 5}, "Outbox.MaxBytes is 5"},
		{client.OutboxConfig{Dir: "x", BatchAge: -1}, "negative"},
		{client.OutboxConfig{Dir: "/dev/null/x"}, "open outbox"},
	} {
		cfg := f.config()
		cfg.Outbox = &tc.outbox
		if _, err := client.New(cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("New = %v, want %q", err, tc.want)
		}
	}
	other := newFake(nil)
	policy, _ := witnessed(t, other)
	cfg := f.config()
	cfg.Policy = policy
	if _, err := client.New(cfg); err == nil || !strings.Contains(err.Error(), "Policy does not list LogKey") {
		t.Errorf("New with another log's policy = %v", err)
	}

	_, plain := open(t, f.client(t))
	if err := plain.Put(t.Context(), events(1)...); err == nil || !strings.Contains(err.Error(), "no outbox") {
		t.Errorf("Put without an outbox = %v", err)
	}
	cfg = newFake(t).outboxConfig(t.TempDir())
	cfg.Outbox.MaxBytes = 1 << 20
	c := openOutbox(t, cfg)
	_, s := open(t, c)
	if err := s.Put(t.Context(), client.Event{Kind: "stream.close"}); err == nil {
		t.Error("Put takes stream.close")
	}
	if err := s.Put(t.Context(), client.Event{Kind: "no kind"}); err == nil {
		t.Error("Put takes what is no event")
	}
	if err := s.Put(t.Context()); err != nil {
		t.Errorf("Put of nothing = %v", err)
	}
	if err := s.Put(t.Context(), client.Event{Kind: "x.large", Payload: []byte(`"` + strings.Repeat("x", 1<<19) + `"`)}); err == nil || !strings.Contains(err.Error(), "raise Outbox.MaxBytes") {
		t.Errorf("Put of half of what the outbox holds = %v", err)
	}
	if placed, err := s.Flush(t.Context()); err != nil || len(placed) > 1 {
		t.Errorf("Flush = %v, %v", placed, err)
	}
	if _, err := c.JoinMigration("crm-2026").OpenStream(t.Context(), "customers"); err == nil || !strings.Contains(err.Error(), "open already") {
		t.Errorf("a stream was taken in hand twice: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openOutbox(t, cfg)
	if _, err := c.OpenMigration(t.Context(), "crm-2026", client.MigrationConfig{Streams: []string{"others"}}); err == nil || !strings.Contains(err.Error(), "other streams") {
		t.Errorf("a migration was resumed as another: %v", err)
	}
	joined := c.JoinMigration("crm-2026")
	again, err := joined.OpenStream(t.Context(), "customers")
	if err != nil || again.End().Last != 1 {
		t.Fatalf("OpenStream = %v", err)
	}
	if err := errors.Join(joined.Close(t.Context()), c.Wait(t.Context())); err != nil {
		t.Error(err)
	}
}
