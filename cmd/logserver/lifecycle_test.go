package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/note"
)

// killRounds is how often the server is killed under load; nightly does 500.
const killRounds = 50

// binary builds the real command.
func binary(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "logserver")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", file, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return file
}

// A process is the real server in a process of its own.
type process struct {
	cmd *exec.Cmd
	url string
	log *bytes.Buffer
}

func startProcess(t *testing.T, bin, dir string) *process {
	t.Helper()
	addr := filepath.Join(dir, "addr")
	_ = os.Remove(addr)
	p := &process{cmd: exec.CommandContext(context.Background(), bin, "serve", "-config", filepath.Join(dir, "config.yaml")), log: &bytes.Buffer{}}
	p.cmd.Stderr = p.log
	must(t, p.cmd.Start())
	await(t, "the server to come up", func() bool {
		b, err := os.ReadFile(addr)
		p.url = "http://" + strings.TrimSpace(string(b))
		return err == nil
	})
	return p
}

// An acked is an acknowledged entry.
type acked struct {
	index uint64
	entry []byte
}

// load appends to one stream until the server is gone, retrying the request
// whose answer it missed when it is back. It gives what was acknowledged.
func (s *submitter) load(url string, stop <-chan struct{}, pending *[]wire) (all []acked) {
	for {
		select {
		case <-stop:
			return all
		default:
		}
		if *pending == nil {
			if s.stream.Seq == 0 {
				*pending = s.next("stream.open", s.opening())
			} else {
				*pending = s.next("migration.load", `{"n":1}`, "migration.load", `{"n":2}`)
			}
		}
		events, sig := *pending, s.tail(*pending)
		req, err := http.NewRequestWithContext(context.Background(), "POST", url+"/v1/events", bytes.NewReader(body(events, sig)))
		if err != nil {
			s.r.t.Error(err)
			return all
		}
		req.Header.Set("Authorization", "Bearer "+s.token)
		req.Header.Set("Content-Type", ndjson)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return all
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode == 503 {
			return all
		}
		var a answer
		if resp.StatusCode != 201 && resp.StatusCode != 200 || json.Unmarshal(b, &a) != nil {
			s.r.t.Errorf("append answers %d: %s", resp.StatusCode, b)
			return all
		}
		for i, e := range s.r.checkReceipt(a, events, sig) {
			all = append(all, acked{a.Index + uint64(i), e})
		}
		last := events[len(events)-1].event
		s.stream.Seq, s.stream.Hash, *pending = last.Seq, last.Hash(), nil
	}
}

func TestNothingAcknowledgedIsLostByKill9(t *testing.T) {
	r := newLog(t, fastPublish)
	var services []*submitter
	for i := range 4 {
		services = append(services, r.submitter(fmt.Sprintf("svc%d", i), fmt.Sprintf("m%d/s", i)))
	}
	must(t, r.stop())
	bin := binary(t)
	pending := make([][]wire, len(services))
	var all []acked
	var heads []log.Checkpoint
	v, err := note.NewVerifier(strings.TrimSpace(string(read(t, filepath.Join(r.dir, "log.vkey")))))
	must(t, err)
	for round := range killRounds {
		p := startProcess(t, bin, r.dir)
		stop := make(chan struct{})
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i, s := range services {
			wg.Go(func() {
				got := s.load(p.url, stop, &pending[i])
				mu.Lock()
				defer mu.Unlock()
				all = append(all, got...)
			})
		}
		time.Sleep(time.Duration(20+round*7%150) * time.Millisecond)
		if resp, err := http.Get(p.url + "/checkpoint/signed"); err == nil { //nolint:noctx // the process is about to be killed
			b, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err == nil {
				c, err := log.OpenCheckpoint(b, v)
				must(t, err)
				heads = append(heads, c)
			}
		}
		must(t, p.cmd.Process.Kill())
		_ = p.cmd.Wait()
		close(stop)
		wg.Wait()
	}
	r.start()
	for _, a := range all {
		got := r.get(fmt.Sprintf("/v1/entries/%d", a.index), r.admin).want(200, "")
		if !bytes.Equal(got.body, a.entry) {
			t.Errorf("entry %d is not the one that was acknowledged", a.index)
		}
	}
	// Every signed head that anyone saw is one history.
	for i, h := range heads {
		if i > 0 {
			p, err := log.ParseConsistencyProof(r.get(fmt.Sprintf("/v1/proofs/consistency/%d/%d", heads[i-1].Size, h.Size), r.admin).want(200, "").body)
			must(t, err)
			must(t, log.CheckConsistency(heads[i-1].Head, h.Head, p.Path))
		}
	}
	must(t, r.stop())
	var out bytes.Buffer
	if code := run(t.Context(), []string{"fsck", "-config", filepath.Join(r.dir, "config.yaml")}, &out, t.Output(), nil); code != exitOK {
		t.Errorf("fsck after %d kills exits with %d:\n%s", killRounds, code, &out)
	}
	t.Logf("%d kills, %d acknowledged entries, %d signed heads: none lost, one history", killRounds, len(all), len(heads))
	r.start()
}

func TestARestoredOldBackupRefusesToSign(t *testing.T) {
	for name, restore := range map[string][]string{
		"the data without the anchor": {"data"},
		"the anchor without the data": {"anchor"},
		"the journal alone":           {"data/journal"},
		"the tiles and their state":   {"data/tiles", "data/state"}, // derived, too
		"the tiles alone":             {"data/tiles"},
		"the state alone":             {"data/state"},
		"the index alone":             {"data/index"}, // derived: this one heals
	} {
		t.Run(name, func(t *testing.T) {
			r := newLog(t, fastPublish)
			crm := r.submitter("crm", "m1/customers")
			crm.append("stream.open", crm.opening())
			must(t, r.stop())
			backup := filepath.Join(t.TempDir(), "backup")
			must(t, os.CopyFS(backup, os.DirFS(r.dir)))
			r.start()
			for range 300 {
				crm.append("migration.load", `{}`)
			}
			before := r.checkpointOf(crm.stream.Seq)
			must(t, r.stop())
			for _, part := range restore {
				must(t, os.RemoveAll(filepath.Join(r.dir, part)))
				must(t, os.CopyFS(filepath.Join(r.dir, part), os.DirFS(filepath.Join(backup, part))))
			}
			if name == "the index alone" || name == "the tiles and their state" {
				r.start()
				crm.append("migration.load", `{}`)
				after := r.checkpointOf(before.Size + 1)
				p, err := log.ParseConsistencyProof(r.get(fmt.Sprintf("/v1/proofs/consistency/%d/%d", before.Size, after.Size), r.admin).want(200, "").body)
				must(t, err)
				must(t, log.CheckConsistency(before.Head, after.Head, p.Path))
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var logged bytes.Buffer
			err := serve(ctx, r.config(), slog.New(slog.NewTextHandler(&logged, nil)))
			if err == nil || ctx.Err() != nil {
				t.Fatalf("the server runs on an old backup: %v\n%s", err, &logged)
			}
			t.Logf("refused: %v", err)
		})
	}
}

// fill appends n events without payloads.
func (s *submitter) fill(n int) {
	s.r.t.Helper()
	for n > 0 {
		step := min(n, 2000)
		pairs := make([]string, 2*step)
		for i := range step {
			pairs[2*i] = "x.n"
		}
		s.append(pairs...)
		n -= step
	}
}

// A restored log with the index of its longer life: what the index says is
// about another history, and it is grown again before anything relies on it.
func TestARestoredLogStartsFromItsJournalAndNotFromAnIndexAheadOfIt(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening(), "x.customer", `{"name":"Zoë"}`)
	crm.fill(5000)
	auditor := r.token("aud", "auditor") // late in the journal
	must(t, r.stop())
	whole := filepath.Join(t.TempDir(), "keys")
	keys := filepath.Join(r.dir, "data", "journal", "keys")
	must(t, os.CopyFS(whole, os.DirFS(keys)))
	r.start()
	payload := fmt.Sprintf("/v1/payloads/%d", a.Index+1)
	r.do("DELETE", payload, r.admin, "application/json", []byte(`{"authority":"gdpr:art17"}`)).want(200, "")
	crm.fill(1000)
	must(t, r.stop())
	backup := filepath.Join(t.TempDir(), "backup")
	must(t, os.CopyFS(backup, os.DirFS(r.dir)))
	at := crm.stream

	r.start()
	crm.fill(4000)
	must(t, r.stop())
	index := filepath.Join(r.dir, "data", "index")
	for _, part := range []string{"data/journal", "data/tiles", "data/state", "anchor"} {
		must(t, os.RemoveAll(filepath.Join(r.dir, part)))
		must(t, os.CopyFS(filepath.Join(r.dir, part), os.DirFS(filepath.Join(backup, part))))
	}
	if _, err := os.Stat(index); err != nil {
		t.Fatal(err)
	}
	// The keys come from a backup of before the erasure.
	for _, f := range must2(os.ReadDir(whole)) {
		old, now := read(t, filepath.Join(whole, f.Name())), read(t, filepath.Join(keys, f.Name()))
		if zeroed(old, now) {
			must(t, os.WriteFile(filepath.Join(keys, f.Name()), old, 0o600))
		}
	}
	r.start()
	r.get(payload, auditor).want(410, "gone")
	crm.stream = at
	crm.append("migration.load", "") // its head was not lost
	r.fsck(exitOK)
}

// Backups that outlive an erasure leave out the keys. What the folds need is
// in them all the same: only payloads that could be erased are lost.
func TestALogRestoredWithoutItsKeysServesAllButErasablePayloads(t *testing.T) {
	r := newLog(t, fastPublish)
	crm := r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening(), "x.customer", `{"name":"Zoë"}`)
	auditor := r.token("auditor", "auditor")
	must(t, r.stop())
	must(t, os.RemoveAll(filepath.Join(r.dir, "data", "journal", "keys")))
	must(t, os.RemoveAll(filepath.Join(r.dir, "data", "index"))) // it grows back from payloads too
	r.start()
	if out := r.fsck(exitOK); !strings.Contains(out, "1 payloads cannot be opened") {
		t.Errorf("fsck says nothing of the missing keys: %s", out)
	}
	opening := r.get(fmt.Sprintf("/v1/payloads/%d", a.Index), auditor)
	opening.want(200, "")
	r.do("DELETE", fmt.Sprintf("/v1/payloads/%d", a.Index), r.admin, "application/json", []byte(`{"authority":"gdpr:art17"}`)).want(403, "forbidden")
	crm.append("x.customer", `{"name":"Ann"}`) // its token, its key and its stream are known
	keyless := fmt.Sprintf("/v1/payloads/%d", a.Index+1)
	r.get(keyless, auditor).want(410, "key-missing")
	s := newShell(t, r, auditor)
	if said := s.run(0, "", "export", "-migration", "m1", "-out", s.file("before")); !strings.Contains(said, "1 withheld, 0 erased") {
		t.Errorf("of a payload without its key, which nobody has erased, an export says %q", said)
	}

	before := r.size()
	erase := func() httpAnswer {
		return r.do("DELETE", keyless, r.admin, "application/json", []byte(`{"authority":"gdpr:art17"}`))
	}
	erase().want(200, "")
	erase().want(410, "gone")
	r.restart()
	erase().want(410, "gone")
	r.get(keyless, auditor).want(410, "gone")
	if n := r.kindsFrom(before)["payload.erased"]; n != 1 {
		t.Errorf("the log has %d entries payload.erased, want 1", n)
	}
	s = newShell(t, r, auditor)
	if said := s.run(0, "", "export", "-migration", "m1", "-out", s.file("after")); !strings.Contains(said, "0 withheld, 1 erased") {
		t.Errorf("of an erased payload an export says %q", said)
	}
	r.fsck(exitOK)
}

func TestFsckFindsAnErasureThatWasNotDone(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	a := crm.append("stream.open", crm.opening(), "x.customer", `{"name":"Zoë"}`)
	must(t, r.stop())
	backup := filepath.Join(t.TempDir(), "journal")
	journal := filepath.Join(r.dir, "data", "journal")
	must(t, os.CopyFS(backup, os.DirFS(journal)))
	r.start()
	payload := fmt.Sprintf("/v1/payloads/%d", a.Index+1)
	r.do("DELETE", payload, r.admin, "application/json", []byte(`{"authority":"gdpr:art17"}`)).want(200, "")
	must(t, r.stop())
	// Back is what was zeroed, the key and the sealed bytes, and nothing else.
	for _, part := range []string{"keys", "segments"} {
		for _, f := range must2(os.ReadDir(filepath.Join(backup, part))) {
			name := filepath.Join(journal, part, f.Name())
			if _, err := os.Stat(name); err != nil {
				continue // a spare that was being made
			}
			old, now := read(t, filepath.Join(backup, part, f.Name())), read(t, name)
			for i := range min(len(old), len(now)) {
				if now[i] == 0 {
					now[i] = old[i]
				}
			}
			must(t, os.WriteFile(name, now, 0o600))
		}
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"fsck", "-config", filepath.Join(r.dir, "config.yaml")}, &out, t.Output(), nil); code != exitFailed || !strings.Contains(out.String(), "still there") {
		t.Errorf("fsck exits with %d: %s", code, &out)
	}
	r.start()
	r.get(payload, r.admin).want(410, "gone")
	r.fsck(exitOK)
}

// checkpointOf waits for a published checkpoint that covers at least size entries.
func (r *running) checkpointOf(size uint64) log.Checkpoint {
	r.t.Helper()
	for {
		if c := r.checkpoint(); c.Size >= size {
			return c
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestDamagedTilesAreDerivedAgainOnRequest(t *testing.T) {
	r := newLog(t, fastPublish)
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	for range 300 {
		crm.append("migration.load", "")
	}
	before := r.checkpointOf(crm.stream.Seq)
	must(t, r.stop())
	tile := filepath.Join(r.dir, "data", "tiles", "tile", "0", "000")
	good := read(t, tile)
	bad := bytes.Clone(good)
	bad[77] ^= 1
	must(t, os.Chmod(tile, 0o600))
	must(t, os.WriteFile(tile, bad, 0o600))
	fsck := func(want int, more ...string) {
		t.Helper()
		var out bytes.Buffer
		args := append([]string{"fsck", "-config", filepath.Join(r.dir, "config.yaml")}, more...)
		if code := run(t.Context(), args, &out, &out, nil); code != want {
			t.Errorf("fsck %v exits with %d, want %d: %s", more, code, want, &out)
		}
	}
	fsck(exitFailed)
	fsck(exitOK, "-rebuild")
	fsck(exitOK)
	if !bytes.Equal(read(t, tile), good) {
		t.Error("the tile is not what it was")
	}
	r.start()
	if c := r.checkpointOf(before.Size); c.Size == before.Size && c != before {
		t.Errorf("checkpoint %v after a rebuild, %v before", c, before)
	}
}

func TestASecondProcessRefuses(t *testing.T) {
	r := newLog(t, nil)
	err := serve(t.Context(), r.config(), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second server on one directory: %v", err)
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"fsck", "-config", filepath.Join(r.dir, "config.yaml")}, &out, &out, nil); code != exitIO {
		t.Errorf("fsck beside a server exits with %d: %s", code, &out)
	}
	r.get("/v1/entries/0", r.admin).want(200, "")
}

func TestInitMakesAWholeLogOrNothing(t *testing.T) {
	dir := t.TempDir()
	initIn := func(args ...string) (int, string) {
		var out bytes.Buffer
		return run(t.Context(), append([]string{"init"}, args...), &out, &out, nil), out.String()
	}
	for _, args := range [][]string{
		{},
		{"-dir", filepath.Join(dir, "a")},
		{"-dir", filepath.Join(dir, "a"), "-origin", "two words"},
		{"-dir", filepath.Join(dir, "a"), "-origin", "TEST.example/log"},
		{"-dir", filepath.Join(dir, "a"), "-origin", "x", "-listen", "nowhere"},
		{"-dir", filepath.Join(dir, "a"), "-origin", "x", "more"},
		{"-flag"},
	} {
		if code, out := initIn(args...); code != exitUsage {
			t.Errorf("init %q exits with %d: %s", args, code, out)
		}
	}
	if names := must2(os.ReadDir(dir)); len(names) != 0 {
		t.Errorf("failed inits left %v", names)
	}
	if code, out := initIn("-dir", filepath.Join(dir, "a"), "-origin", "log.example/a"); code != 0 {
		t.Fatalf("init exits with %d: %s", code, out)
	}
	for _, name := range []string{"admin.token", "keys/checkpoint.key", "keys/receipt.key"} {
		info, err := os.Stat(filepath.Join(dir, "a", name))
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", name, info.Mode())
		}
	}
	if code, _ := initIn("-dir", filepath.Join(dir, "a"), "-origin", "log.example/a"); code != exitUsage {
		t.Errorf("a second init exits with %d", code)
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"fsck", "-config", filepath.Join(dir, "a", "config.yaml")}, &out, &out, nil); code != 0 {
		t.Errorf("fsck of a new log exits with %d: %s", code, &out)
	}
}

func TestTokensAndKeysAreMadeWhileTheServerRunsAndWhileNot(t *testing.T) {
	r := newLog(t, nil)
	config := filepath.Join(r.dir, "config.yaml")
	vkey := func() string {
		v, err := (&submitter{key: r.submitter(fmt.Sprint("k", r.size()), "m/s").key}).public().VKey("x")
		must(t, err)
		return v
	}
	command := func(want int, args ...string) string {
		t.Helper()
		var out, errOut bytes.Buffer
		if code := run(t.Context(), args, &out, &errOut, nil); code != want {
			t.Fatalf("%q exits with %d, want %d: %s%s", args, code, want, &out, &errOut)
		}
		return strings.TrimSpace(out.String())
	}
	online := command(0, "token", "-config", config, "-principal", "a", "-role", "auditor")
	r.get("/v1/entries/0", online).want(200, "")
	command(2, "token", "-config", config, "-principal", "a", "-role", "king")
	command(exitFailed, "key", "add", "-config", config, "-principal", "a", "-vkey", vkey()) // registered already
	must(t, r.stop())
	offline := command(0, "token", "-config", config, "-principal", "b", "-role", "auditor", "-grant", "admin", "-days", "3")
	command(2, "token", "-config", config, "-principal", "b", "-role", "king")
	command(2, "token", "-config", config+"x", "-principal", "b", "-role", "auditor")
	command(2, "token", "-principal", "b")
	command(2, "key")
	command(2, "key", "mend")
	command(0, "key", "-help")
	_, key, err := note.GenerateKey(rand.Reader, "c")
	must(t, err)
	command(0, "key", "add", "-config", config, "-principal", "c", "-vkey", key)
	r.start()
	r.get("/v1/entries/0", offline).want(200, "")
	r.get("/v1/entries/0", online).want(200, "")
	_, key, err = note.GenerateKey(rand.Reader, "d")
	must(t, err)
	command(0, "key", "add", "-config", config, "-principal", "d", "-vkey", key)
}

func TestConfigurationIsStrictAndReportsAllErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	must(t, os.WriteFile(file, []byte("origin: two words\nround: 1ms\nlisten: nowhere\ntls: {cert: a}\nlogs: [{name: Bad}]\n"), 0o600))
	_, err := readConfig(file)
	for _, want := range []string{"origin", "round", "listen", "tls", "logs"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("configuration error %v does not name %s", err, want)
		}
	}
	must(t, os.WriteFile(file, []byte("origin: x\nflavour: y\n"), 0o600))
	if _, err := readConfig(file); err == nil || !strings.Contains(err.Error(), "flavour") {
		t.Errorf("an unknown key gives %v", err)
	}
	var out bytes.Buffer
	for _, args := range [][]string{{}, {"dance"}, {"serve"}, {"serve", "-config", file}, {"serve", "-config", file + "x"}, {"fsck"}} {
		if code := run(t.Context(), args, &out, &out, nil); code != exitUsage {
			t.Errorf("logserver %q exits with %d", args, code)
		}
	}
	for _, args := range [][]string{{"help"}, {"serve", "-help"}, {"init", "--help"}, {"token", "-h"}, {"fsck", "-help"}} {
		if code := run(t.Context(), args, &out, &out, nil); code != 0 {
			t.Errorf("logserver %q exits with %d", args, code)
		}
	}
}

func TestKeysThatOthersCanReadAreRefused(t *testing.T) {
	r := newLog(t, nil)
	must(t, r.stop())
	key := filepath.Join(r.dir, "keys", "checkpoint.key")
	fails := func(want string) {
		t.Helper()
		if err := serve(t.Context(), r.config(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("serve = %v, want %q", err, want)
		}
	}
	must(t, os.Chmod(key, 0o644))
	fails("chmod 600")
	must(t, os.Chmod(key, 0o600))
	good := read(t, key)
	other, _, err := note.GenerateKey(rand.Reader, testOrigin)
	must(t, err)
	must(t, os.WriteFile(key, []byte(other), 0o600))
	fails("does not verify") // not the one that signed before
	other, _, err = note.GenerateKey(rand.Reader, "another")
	must(t, err)
	must(t, os.WriteFile(key, []byte(other), 0o600))
	fails("another")
	must(t, os.WriteFile(key, []byte("nonsense"), 0o600))
	fails("signing key")
	must(t, os.Remove(key))
	fails("signing key")
	must(t, os.WriteFile(key, good, 0o600))
	r.start()
}

func TestOneServerHostsSeveralLogs(t *testing.T) {
	dir := t.TempDir()
	if code := run(t.Context(), []string{"init", "-dir", filepath.Join(dir, "hr"), "-origin", "log.example/hr"}, io.Discard, t.Output(), nil); code != 0 {
		t.Fatal("init fails")
	}
	r := newLog(t, func(c string) string {
		return c + "logs:\n  - {name: hr, config: " + filepath.Join(dir, "hr", "config.yaml") + "}\n"
	})
	hr := strings.TrimSpace(string(read(t, filepath.Join(dir, "hr", "admin.token"))))
	r.get("/logs/hr/v1/entries/0", hr).want(200, "")
	r.get("/logs/hr/v1/entries/0", r.admin).want(401, "unauthenticated")
	r.get("/v1/entries/0", hr).want(401, "unauthenticated")
	if b := r.get("/logs/hr/checkpoint", "").want(200, "").body; !bytes.HasPrefix(b, []byte("log.example/hr\n")) {
		t.Errorf("checkpoint %s", b)
	}
	r.get("/logs/hr/tile/0/000.p/2", "").want(200, "")
}

func TestRatesAndBodiesAreBounded(t *testing.T) {
	r := newLog(t, func(c string) string {
		return c + "limits: {requests_per_second: 0.001, burst: 2}\n"
	})
	r.get("/v1/entries/0", r.admin).want(200, "")
	r.get("/v1/entries/0", r.admin).want(200, "")
	a := r.get("/v1/entries/0", r.admin).want(429, "rate")
	if a.header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
}

func TestBodiesAreBoundedOneByOne(t *testing.T) {
	r := newLog(t, func(c string) string { return c + "limits: {body_bytes: 65536, bodies_bytes: 65536}\n" })
	r.do("POST", "/v1/events", r.admin, "application/json", make([]byte, 1<<17)).want(413, "too-large")
	r.do("POST", "/v1/events", r.admin, "application/json", make([]byte, 1<<16)).want(400, "malformed") // as large as may be
	r.do("POST", "/v1/events", r.admin, "application/json", []byte("{}"), "Content-Encoding", "gzip").want(415, "media-type")
}

func TestTLSWithClientCertificates(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	must(t, os.WriteFile(certFile, certPEM, 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	r := newLog(t, func(c string) string {
		return c + fmt.Sprintf("tls: {cert: %s, key: %s, client_ca: %s}\n", certFile, keyFile, certFile)
	})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	url := strings.Replace(r.url, "http://", "https://", 1) + "/checkpoint"
	get := func(certs ...tls.Certificate) error {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
		must(t, err)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	if err := get(); err == nil {
		t.Error("a client without a certificate is served")
	}
	must(t, get(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}))
	// The commands beside the server find their way too.
	var out bytes.Buffer
	if code := run(t.Context(), []string{"token", "-config", filepath.Join(r.dir, "config.yaml"), "-principal", "a", "-role", "auditor"}, &out, t.Output(), nil); code != 0 {
		t.Errorf("token beside a TLS server exits with %d", code)
	}
}

func TestMetricsHealthAndDescription(t *testing.T) {
	r := newLog(t, nil)
	r.get("/v1/entries/0", "").want(401, "unauthenticated")
	r.get("/healthz", "").want(200, "")
	if b := r.get("/openapi.yaml", "").want(200, "").body; !bytes.Contains(b, []byte("openapi: 3.1")) {
		t.Error("no description of the API")
	}
	r.get("/metrics", "").want(404, "not-found") // not on the public listener
	b := r.metrics()
	for _, want := range []string{"piperoll_size{", "piperoll_problems_total{", `type="urn:piperoll:problem:unauthenticated"`, "piperoll_read_only{"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// metrics reads what the admin listener shows.
func (r *running) metrics() []byte {
	r.t.Helper()
	addr := filepath.Join(r.dir, "admin.addr")
	await(r.t, "the admin listener, which is bound just after the other", func() bool {
		_, err := os.Stat(addr)
		return err == nil
	})
	resp, err := http.Get("http://" + strings.TrimSpace(string(read(r.t, addr))) + "/metrics") //nolint:noctx // a test's
	must(r.t, err)
	defer func() { _ = resp.Body.Close() }() // read to the end
	b, err := io.ReadAll(resp.Body)
	must(r.t, err)
	return b
}

func TestAStoppedServerAnswersEveryone(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	done := make(chan int, 1)
	events := crm.next("migration.load", `{}`)
	before := r.size()
	go func() {
		a := r.do("POST", "/v1/events", crm.token, ndjson, body(events, crm.tail(events)), "Prefer", "wait=30")
		done <- a.status
	}()
	await(t, "the event to be durable", func() bool { return r.size() > before }) // and to wait for the next publication
	must(t, r.stop())
	if status := <-done; status != 201 {
		t.Errorf("the request that was waiting got %d, want 201", status)
	}
	r.start()
	if c := r.checkpoint(); c.Size != r.size() {
		t.Errorf("the last checkpoint has size %d, the log %d", c.Size, r.size())
	}
}
