package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pipe-roll/piperoll/log/disk"
)

// faultyFS is the machine's file system, whose syncs of some files fail or hang.
type faultyFS struct {
	disk.FS
	mu   sync.Mutex
	what string        // part of the names whose syncs fail or hang; "" for none
	held chan struct{} // if not nil, they hang until it is closed
	seen chan struct{} // closed at the first
}

var errDisk = errors.New("input/output error (planted)")

func newFaultyFS() *faultyFS { return &faultyFS{FS: disk.OS()} }

// fail makes syncs of files with what in their names fail.
func (f *faultyFS) fail(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.what, f.held, f.seen = what, nil, make(chan struct{})
}

// hold makes them hang until release is called. seen is closed when one does.
func (f *faultyFS) hold(what string) (seen <-chan struct{}, release func()) {
	f.fail(what)
	f.mu.Lock()
	defer f.mu.Unlock()
	held := make(chan struct{})
	f.held = held
	return f.seen, func() {
		f.fail("")
		close(held)
	}
}

func (f *faultyFS) sync(name string) error {
	f.mu.Lock()
	hit := f.what != "" && strings.Contains(name, f.what)
	held := f.held
	if hit {
		select {
		case <-f.seen:
		default:
			close(f.seen)
		}
	}
	f.mu.Unlock()
	switch {
	case !hit:
		return nil
	case held == nil:
		return errDisk
	}
	<-held
	return nil
}

type faultyFile struct {
	disk.File
	fs   *faultyFS
	name string
}

func (f faultyFile) Sync() error {
	if err := f.fs.sync(f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultyFS) Open(name string) (disk.File, error) {
	file, err := f.FS.Open(name)
	return faultyFile{file, f, name}, err
}

func (f *faultyFS) Create(name string) (disk.File, error) {
	file, err := f.FS.Create(name)
	return faultyFile{file, f, name}, err
}

func TestAfterAFailedSyncTheLogIsReadOnlyAndReadsGoOn(t *testing.T) {
	for what, part := range map[string]string{"the journal": filepath.Join("journal", "segments"), "the tree": filepath.Join("data", "state")} {
		t.Run(what, func(t *testing.T) {
			r := newLog(t, fastPublish)
			faults := newFaultyFS()
			r.fs = faults
			r.restart()
			crm := r.submitter("crm", "m1/customers")
			a := crm.append("stream.open", crm.opening())
			published := r.checkpointOf(a.Index + 1)
			faults.fail(part)
			events := crm.next("migration.load", "")
			got := crm.send(events)
			if what == "the tree" { // it fails a moment after the acknowledgement
				await(t, "the log to be read-only", func() bool {
					got = crm.send(events)
					return got.status == 503
				})
			}
			got.want(503, "read-only")
			r.get(fmt.Sprintf("/v1/entries/%d", a.Index), r.admin).want(200, "")
			r.get(fmt.Sprintf("/tile/0/000.p/%d", published.Size), "").want(200, "")
			r.get(fmt.Sprintf("/v1/proofs/inclusion/%d/%d", a.Index, published.Size), r.admin).want(200, "")
			r.get("/v1/streams/m1/customers", r.admin).want(200, "")
			r.get("/checkpoint", "").want(200, "")
			r.get("/readyz", "").want(503, "")
			r.do("POST", "/v1/access/tokens", r.admin, "application/json", []byte(`{"principal":"a","role":"auditor"}`)).want(503, "read-only")
			if err := r.stop(); err == nil {
				t.Error("the server exits as if all were published")
			} else {
				t.Logf("exits with %v", err)
			}

			faults.fail("")
			r.start()
			if got := crm.send(events); got.status != 200 && got.status != 201 {
				t.Errorf("after a restart an event gets %d: %s", got.status, got.body)
			}
			r.fsck(exitOK)
		})
	}
}

func TestOneLogWhoseIndexFailsStopsNoOther(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hr")
	if code := run(t.Context(), []string{"init", "-dir", dir, "-origin", "log.example/hr"}, t.Output(), t.Output(), nil); code != 0 {
		t.Fatal("init fails")
	}
	r := newLog(t, func(c string) string {
		return c + "logs:\n  - {name: hr, config: " + filepath.Join(dir, "config.yaml") + "}\n"
	})
	hr := strings.TrimSpace(string(read(t, filepath.Join(dir, "admin.token"))))
	h, start := r.host()
	start()
	broken := h.sites[0].ledger
	token := `{"principal":"a","role":"auditor"}`
	if w := h.ask(t.Context(), "POST", "/v1/access/tokens", r.admin, token); w.Code != 201 {
		t.Fatalf("a token before the index fails: %d: %s", w.Code, w.Body)
	}
	// Whoever follows has followed all, and hears of the failure by no entry.
	must(t, broken.index.Wait(t.Context(), broken.journal.Size()))
	must(t, broken.index.Close())
	await(t, "read-only log", func() bool { return broken.seq.ReadOnly() != nil })
	for _, ask := range []struct {
		method, path, token, body string
		want                      int
	}{
		{"POST", "/v1/access/tokens", r.admin, token, 503},
		{"GET", "/v1/entries/0", r.admin, "", 200},
		{"GET", "/checkpoint", r.admin, "", 200},
		{"POST", "/logs/hr/v1/access/tokens", hr, token, 201},
		{"GET", "/logs/hr/v1/streams/log/access", hr, "", 200},
	} {
		if w := h.ask(t.Context(), ask.method, ask.path, ask.token, ask.body); w.Code != ask.want {
			t.Errorf("%s %s answers %d, want %d: %s", ask.method, ask.path, w.Code, ask.want, w.Body)
		}
	}
}

func TestALogThatCannotBeLockedIsSaidToBeInUseOnlyIfItIs(t *testing.T) {
	r := newLog(t, nil)
	open := func() error {
		_, err := openLedger(t.Context(), r.config(), slog.New(slog.DiscardHandler))
		return err
	}
	if err := open(); !errors.Is(err, disk.ErrLocked) || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("opening a log that is served: %v", err)
	}
	must(t, r.stop())
	must(t, os.RemoveAll(filepath.Join(r.dir, "data")))
	if err := open(); !errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), "another process") {
		t.Errorf("opening a log whose folder is missing: %v", err)
	}
}

func TestAFileThatDoesNotFitIsNotLeftInTheWay(t *testing.T) {
	key := filepath.Join(t.TempDir(), "svc.key")
	keysNew := []string{"keys", "new", "-principal", "svc", "-origin", testOrigin, "-out", key}
	full := exec.CommandContext(t.Context(), "sh", append([]string{"-c", `ulimit -f 0; exec "$0" "$@"`, binary(t)}, keysNew...)...)
	out, err := full.CombinedOutput()
	if full.ProcessState.ExitCode() != exitIO || !bytes.Contains(out, []byte("write "+key)) {
		t.Fatalf("a key that cannot be written: %v: %s", err, out)
	}
	if code := run(t.Context(), keysNew, io.Discard, t.Output(), nil); code != exitOK {
		t.Errorf("once there is room it exits with %d", code)
	}
}
