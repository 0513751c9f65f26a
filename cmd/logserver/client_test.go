package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// A shell runs commands against a log, as a person would.
type shell struct {
	t     *testing.T
	r     *running
	dir   string
	flags []string // of every client command
}

func newShell(t *testing.T, r *running, token string) *shell {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	must(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
	return &shell{t, r, dir, []string{"-url", r.url, "-token-file", file, "-log-vkey", filepath.Join(r.dir, "log.vkey")}}
}

// run runs a command, with in on its standard input, and wants an exit code.
func (s *shell) run(want int, in string, args ...string) string {
	s.t.Helper()
	verb := 1
	if args[0] == "keys" {
		verb = 2
	}
	args = slices.Concat(args[:verb], s.flags, args[verb:])
	var out, errOut bytes.Buffer
	if code := run(s.t.Context(), args, &out, &errOut, strings.NewReader(in)); code != want {
		s.t.Fatalf("%q exits with %d, want %d:\n%s%s", args, code, want, &out, &errOut)
	}
	return out.String()
}

func (s *shell) file(name string) string { return filepath.Join(s.dir, name) }

func TestAPersonAppendsSearchesAndProvesFromTheShell(t *testing.T) {
	r := newLog(t, fastPublish)
	s := newShell(t, r, r.token("curl", "migration-service", "log:append-unsigned", "payload:read"))
	var a answer
	must(t, json.Unmarshal([]byte(s.run(0, `{"rows": 3}`, "append", "-migration", "m1", "-object", "crm:customers:source", "-")), &a))
	s.run(0, "approved\n", "append", "-migration", "m1", "-kind", "audit.approval", "-type", "text/plain", "-")
	s.run(exitUsage, "", "append", "-")
	s.run(exitUsage, "", "append", "-migration", "m1", s.file("nothing"))
	s.run(exitUsage, "{", "append", "-migration", "m1", "-")
	s.run(exitUsage, "{}", "append", "-migration", "m1", "-kind", "nonsense", "-")
	s.run(exitUsage, "{}", "append", "-migration", "m1", "-object", "nonsense", "-")

	lines := strings.Split(strings.TrimSpace(s.run(0, "", "search", "-migration", "m1")), "\n")
	if len(lines) != 3 {
		t.Errorf("search finds %d lines, want stream.open and two events", len(lines))
	}
	if n := strings.Count(s.run(0, "", "search", "-object", "crm:customers", "-limit", "1"), "\n"); n != 1 {
		t.Errorf("search by object finds %d", n)
	}
	s.run(exitUsage, "", "search", "-kind", "two words")
	s.run(exitUsage, "", "search", "more")

	size := r.size()
	r.checkpointOf(size)
	s.run(0, "", "prove", "-index", fmt.Sprint(a.Index), "-entry-out", s.file("e.json"), "-out", s.file("e.tlog-proof"))
	p, err := log.ParseInclusionProof(read(t, s.file("e.tlog-proof")))
	must(t, err)
	var rem remote
	c, err := rem.checkpoint(p.Checkpoint)
	must(t, err)
	must(t, log.CheckInclusion(c.Head, a.Index, log.LeafHash(read(t, s.file("e.json"))), p.Path))
	if got := s.run(0, "", "prove", "-from", "2", "-to", fmt.Sprint(size)); !strings.HasPrefix(got, "piperoll/consistency-proof/v1\n") {
		t.Errorf("consistency proof %q", got)
	}
	s.run(exitUsage, "", "prove")
	s.run(exitFailed, "", "prove", "-index", "99999")
	s.run(exitUsage, "", "prove", "-from", "9", "-to", "3")

	s.flags[1] = "http://127.0.0.1:1"
	s.run(exitIO, "", "search", "-migration", "m1")
}

func TestPreparedLinesAreAppendedAsTheyAre(t *testing.T) {
	r := newLog(t, nil)
	crm := r.submitter("crm", "m1/customers")
	s := newShell(t, r, crm.token)
	events := crm.next("stream.open", crm.opening())
	var a answer
	must(t, json.Unmarshal([]byte(s.run(0, string(body(events, crm.tail(events))), "append", "-lines", "-")), &a))
	r.checkReceipt(a, events, crm.tail(events))
}

func TestAnExportHoldsTheWholeMigrationWithItsProofs(t *testing.T) {
	r := newLog(t, fastPublish)
	crm := r.submitter("crm", "m1/customers")
	crm.append("stream.open", crm.opening())
	gone := crm.append("x.customer", `{"name":"Zoë"}`)
	crm.append("stream.close", "")
	r.do("DELETE", fmt.Sprintf("/v1/payloads/%d", gone.Index), r.admin, "application/json", []byte(`{"authority":"gdpr:art17"}`)).want(200, "")
	auditor := newShell(t, r, r.token("auditor", "auditor"))
	out := auditor.file("evidence")
	said := auditor.run(0, "", "export", "-migration", "m1", "-since", "2", "-out", out)
	if !strings.Contains(said, "0 withheld, 1 erased") {
		t.Errorf("export says %q", said)
	}
	var rem remote
	c, err := rem.checkpoint(read(t, filepath.Join(out, "checkpoint")))
	must(t, err)
	kinds := map[string]int{}
	for _, f := range must2(os.ReadDir(filepath.Join(out, "events"))) {
		b := read(t, filepath.Join(out, "events", f.Name()))
		e, err := log.ParseEntry(b)
		must(t, err)
		kinds[e.Event.Kind]++
		file, err := log.ParseExportName("events", f.Name())
		must(t, err)
		p, err := log.ParseInclusionProof(read(t, filepath.Join(out, log.ExportFile{Kind: log.ExportProof, Number: file.Number}.Path())))
		must(t, err)
		must(t, log.CheckInclusion(c.Head, file.Number, log.LeafHash(b), p.Path))
	}
	for _, kind := range []string{"log.open", "key.registered", "stream.open", "x.customer", "stream.close", "payload.erased"} {
		if kinds[kind] != 1 {
			t.Errorf("%d entries of kind %s in the export, want 1", kinds[kind], kind)
		}
	}
	if _, err := log.ParseConsistencyProof(read(t, filepath.Join(out, "consistency", "2.proof"))); err != nil {
		t.Error(err)
	}
	auditor.run(exitUsage, "", "export", "-migration", "m1", "-out", out) // there already
	auditor.run(exitFailed, "", "export", "-migration", "m2", "-out", auditor.file("none"))
	auditor.run(exitUsage, "", "export", "-out", auditor.file("none"))
	auditor.run(0, "", "export", "-from", "0", "-to", "3", "-no-payloads", "-out", auditor.file("range"))
	bare := newShell(t, r, r.token("op", "operator"))
	if said := bare.run(0, "", "export", "-migration", "m1", "-out", bare.file("bare")); !strings.Contains(said, " 0 payloads") {
		t.Errorf("an export without payload:read says %q", said)
	}
	for _, dir := range []string{auditor.dir, bare.dir} {
		for _, f := range must2(os.ReadDir(dir)) {
			if strings.HasSuffix(f.Name(), ".part") {
				t.Errorf("%s was left behind", f.Name())
			}
		}
	}
	// A log that is not the one whose key the auditor has.
	must(t, os.WriteFile(auditor.file("other.vkey"), []byte(must3(crm.public().VKey(testOrigin))), 0o600))
	auditor.flags[5] = auditor.file("other.vkey")
	auditor.run(exitFailed, "", "export", "-migration", "m1", "-out", auditor.file("forged"))
}

func must3(s string, err error) string {
	if err != nil {
		panic(err)
	}
	return s
}

func TestKeysAreMadeRegisteredListedAndRevoked(t *testing.T) {
	r := newLog(t, nil)
	s := newShell(t, r, r.admin)
	var out bytes.Buffer
	key := s.file("svc.key")
	if code := run(t.Context(), []string{"keys", "new", "-principal", "svc", "-out", key, "-origin", testOrigin}, &out, io.Discard, nil); code != 0 {
		t.Fatalf("keys new exits with %d", code)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("private key: %v, %v", info, err)
	}
	var a keyAnswer
	must(t, json.Unmarshal([]byte(s.run(0, "", "keys", "add", "-principal", "svc", "-vkey", lines[0], "-proof", lines[1])), &a))
	if !a.Proven {
		t.Error("the proof of possession was not taken")
	}
	_, public, err := log.ParseVKey(lines[0])
	must(t, err)
	id := public.ID()
	listed := s.run(0, "", "keys", "list")
	if !strings.Contains(listed, fmt.Sprintf("%x svc registered by entry %d, valid", id[:], a.Index)) {
		t.Errorf("keys list: %s", listed)
	}
	s.run(0, "", "keys", "revoke", "-id", fmt.Sprintf("%x", id[:]), "-compromised-since", "1")
	if listed := s.run(0, "", "keys", "list"); !strings.Contains(listed, "revoked by entry") {
		t.Errorf("keys list: %s", listed)
	}
	s.run(exitFailed, "", "keys", "revoke", "-id", fmt.Sprintf("%x", id[:]))
	for _, args := range [][]string{{"keys"}, {"keys", "mend"}, {"keys", "new"}, {"keys", "new", "-principal", "svc", "-out", filepath.Join(s.dir, "no", "dir")}, {"keys", "list"}} {
		if code := run(t.Context(), args, io.Discard, io.Discard, nil); code == 0 {
			t.Errorf("logserver %q exits with 0", args)
		}
	}
	// A proof by another key convinces nobody.
	out.Reset()
	_ = run(t.Context(), []string{"keys", "new", "-principal", "svc2", "-out", s.file("svc2.key"), "-origin", "another.log"}, &out, io.Discard, nil)
	lines = strings.Split(strings.TrimSpace(out.String()), "\n")
	s.run(exitUsage, "", "keys", "add", "-principal", "svc2", "-vkey", lines[0], "-proof", lines[1])
}

func TestATokenIsNotSentInTheClearToAnotherMachine(t *testing.T) {
	for url, want := range map[string]struct{ asked, unasked bool }{
		"https://log.example.com": {true, true}, "http://127.0.0.1:8080": {true, true}, "http://localhost": {true, true},
		"http://[::1]:8080/logs/hr": {true, true}, "http://log.example.com": {true, false}, "http://10.0.0.7:8080": {true, false},
		"http://localhost.example.com": {true, false}, "log.example.com": {}, "ftp://127.0.0.1": {}, "http://": {},
	} {
		asked, unasked := (&remote{url: url, allowPlainHTTP: true}).checkURL(), (&remote{url: url}).checkURL()
		if (asked == nil) != want.asked || (unasked == nil) != want.unasked {
			t.Errorf("%s: %v, with -allow-plain-http %v", url, unasked, asked)
		}
	}
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte("pr_x"), 0o600))
	var errOut bytes.Buffer
	code := run(t.Context(), []string{"search", "-url", "http://log.example.com", "-token-file", token}, io.Discard, &errOut, nil)
	if code != exitUsage || !strings.Contains(errOut.String(), "give -allow-plain-http") {
		t.Errorf("search exits with %d: %s", code, &errOut)
	}
}
