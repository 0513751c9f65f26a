package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A liar is a log of a few entries, in memory, that may answer something else
// than the truth.
type liar struct {
	t       *testing.T
	signer  note.Signer
	entries [][]byte
	hashes  liarHashes
	lie     func(path string, truth []byte) []byte // nil: says the truth; a number alone is a status
	dir     string                                 // with token and key of the log
}

type liarHashes []tlog.Hash

func (h liarHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, h[i])
	}
	return out, nil
}

// newLiar makes a log of these entries: log.open, rules that are in force, and
// what was done under them. The last is of another log.
func newLiar(t *testing.T) *liar {
	l := &liar{t: t, dir: t.TempDir()}
	skey, vkey, err := note.GenerateKey(rand.Reader, testOrigin)
	must(t, err)
	l.signer, err = note.NewSigner(skey)
	must(t, err)
	must(t, os.WriteFile(l.file("log.vkey"), []byte(vkey+"\n"), 0o600))
	must(t, os.WriteFile(l.file("token"), []byte("pr_secret\n"), 0o600))
	l.append(entryZero(Config{Origin: testOrigin}, vkey, vkey).Entry)
	for i, kind := range []string{"rules.activated", "x.done", "x.done", "x.done"} {
		e := log.Entry{
			Event: log.Event{Actor: "log", Kind: kind, Log: testOrigin, Migration: "m1", Stream: "m1/s", Seq: uint64(i + 1), Time: 1},
			Log:   log.Part{AsOf: min(uint64(i), 1), Attested: "log", Auth: "log", By: "log", Received: 1},
		}
		if kind == "rules.activated" {
			e.Event.Migration, e.Event.Stream = "log", "log/rules"
		}
		if i == 3 {
			e.Event.Log = "log.example/other"
		}
		l.append(e.Marshal())
	}
	return l
}

func (l *liar) file(name string) string { return filepath.Join(l.dir, name) }

func (l *liar) append(entry []byte) {
	more, err := tlog.StoredHashes(int64(len(l.entries)), entry, l.hashes)
	must(l.t, err)
	l.entries, l.hashes = append(l.entries, entry), append(l.hashes, more...)
}

func (l *liar) checkpoint(size int64, by note.Signer) []byte {
	root, err := tlog.TreeHash(size, l.hashes)
	must(l.t, err)
	msg, err := note.Sign(&note.Note{Text: log.Checkpoint{Origin: testOrigin, Head: log.Head{Size: uint64(size), Root: root}}.String()}, by)
	must(l.t, err)
	return msg
}

func (l *liar) growth(from, to int64) log.ConsistencyProof {
	path, err := tlog.ProveTree(to, from, l.hashes)
	must(l.t, err)
	return log.ConsistencyProof{Origin: testOrigin, Old: uint64(from), New: uint64(to), Path: path}
}

func (l *liar) inclusion(index, size int64) []byte {
	path, err := tlog.ProveRecord(size, index, l.hashes)
	must(l.t, err)
	return log.InclusionProof{Index: uint64(index), Path: path, Checkpoint: l.checkpoint(size, l.signer)}.Marshal()
}

// truth answers honestly; nil is 404. Checkpoints of sizes 2, 4 and 5 are published.
func (l *liar) truth(path string) []byte {
	parts := strings.Split(path, "/")[1:]
	var n []int64
	for _, p := range parts {
		if i, err := strconv.ParseInt(p, 10, 64); err == nil {
			n = append(n, i)
		}
	}
	switch {
	case path == "/checkpoint":
		return l.checkpoint(5, l.signer)
	case parts[0] == "checkpoint" && len(n) == 1 && slices.Contains([]int64{2, 4, 5}, n[0]):
		return l.checkpoint(n[0], l.signer)
	case strings.HasPrefix(path, "/v1/entries/") && n[0] < 5:
		return l.entries[n[0]]
	case strings.HasPrefix(path, "/v1/proofs/consistency/"):
		return l.growth(n[0], n[1]).Marshal()
	case strings.HasPrefix(path, "/v1/proofs/inclusion/"):
		return l.inclusion(n[0], n[1])
	case path == "/v1/events":
		return []byte(`{"items":[]}`)
	case strings.HasPrefix(path, "/v1/payloads/"):
		return []byte("403")
	}
	return nil
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b := l.truth(r.URL.Path)
	if l.lie != nil {
		b = l.lie(r.URL.Path, b)
	}
	status, err := strconv.Atoi(string(b))
	switch {
	case b == nil:
		status = http.StatusNotFound
	case err != nil:
		_, _ = w.Write(b)
		return
	}
	w.WriteHeader(status)
}

// run runs a client command against the log, and gives what it says.
func (l *liar) run(ctx context.Context, url string, want int, args ...string) string {
	l.t.Helper()
	verb := 1
	if args[0] == "keys" {
		verb = 2
	}
	args = slices.Concat(args[:verb], []string{"-url", url, "-token-file", l.file("token")}, args[verb:])
	var out, errOut bytes.Buffer
	if code := run(ctx, args, &out, &errOut, nil); code != want || strings.Contains(errOut.String(), "%!") {
		l.t.Errorf("%q exits with %d, want %d:\n%s%s", args, code, want, &out, &errOut)
	}
	return errOut.String()
}

func TestALogThatLiesIsFoundOut(t *testing.T) {
	l := newLiar(t)
	srv := httptest.NewServer(l)
	t.Cleanup(srv.Close)
	skey, _, err := note.GenerateKey(rand.Reader, testOrigin)
	must(t, err)
	forger, err := note.NewSigner(skey)
	must(t, err)
	say := func(b []byte) func([]byte) []byte { return func([]byte) []byte { return b } }
	swap := func(old, new string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
	}
	grown := []string{"prove", "-from", "2", "-to", "4"}
	entry := []string{"prove", "-index", "1"}
	export := []string{"export", "-from", "2", "-to", "3", "-since", "2"}
	for name, tc := range map[string]struct {
		path string
		lie  func(truth []byte) []byte
		args []string
		want int
	}{
		"growth from another tree": {"/v1/proofs/consistency/2/4", func(b []byte) []byte {
			p, err := log.ParseConsistencyProof(b)
			must(t, err)
			p.Path[0][0] ^= 1
			return p.Marshal()
		}, grown, exitFailed},
		"growth of other sizes":         {"/v1/proofs/consistency/2/4", say(l.growth(2, 5).Marshal()), grown, exitFailed},
		"growth that says other sizes":  {"/v1/proofs/consistency/2/4", swap("old 2", "old 1"), grown, exitFailed},
		"growth of another log":         {"/v1/proofs/consistency/2/4", swap(testOrigin, "log.example/other"), grown, exitFailed},
		"growth that is no proof":       {"/v1/proofs/consistency/2/4", say([]byte("welcome")), grown, exitFailed},
		"an old checkpoint's forgery":   {"/checkpoint/2", say(l.checkpoint(2, forger)), grown, exitFailed},
		"a new checkpoint's forgery":    {"/checkpoint/4", say(l.checkpoint(4, forger)), grown, exitFailed},
		"a checkpoint of another size":  {"/checkpoint/2", say(l.checkpoint(4, l.signer)), grown, exitFailed},
		"a checkpoint that is none":     {"/checkpoint/2", say([]byte("welcome")), grown, exitFailed},
		"no such checkpoint":            {"/checkpoint/2", say(nil), grown, exitNotEstablished},
		"a server that is away":         {"/checkpoint/2", say([]byte("503")), grown, exitIO},
		"a redirect":                    {"/checkpoint/2", say([]byte("302")), grown, exitIO},
		"a proxy's limit":               {"/checkpoint/2", say([]byte("413")), grown, exitLimit},
		"inclusion of another entry":    {"/v1/proofs/inclusion/1/5", say(l.inclusion(2, 5)), entry, exitFailed},
		"the path of another entry":     {"/v1/proofs/inclusion/1/5", say(bytes.Replace(l.inclusion(2, 5), []byte("index 2"), []byte("index 1"), 1)), entry, exitFailed},
		"inclusion that is no proof":    {"/v1/proofs/inclusion/1/5", say([]byte("welcome")), entry, exitFailed},
		"another entry":                 {"/v1/entries/1", say(l.entries[2]), entry, exitFailed},
		"no entry":                      {"/v1/entries/1", say([]byte("welcome")), entry, exitFailed},
		"an entry of version 2":         {"/v1/entries/1", func(b []byte) []byte { return append(bytes.TrimSuffix(bytes.Clone(b), []byte("1}")), "2}"...) }, entry, exitVersion},
		"a checkpoint by somebody else": {"/checkpoint", say(l.checkpoint(5, forger)), entry, exitFailed},
		"an entry not published yet":    {"/checkpoint", say(l.checkpoint(1, l.signer)), entry, exitNotEstablished},
		"an entry of another log":       {"", nil, []string{"prove", "-index", "4"}, exitFailed},
		"exported growth":               {"/v1/proofs/consistency/2/5", say(l.growth(4, 5).Marshal()), export, exitFailed},
		"exported since nothing":        {"/checkpoint/2", say(nil), export, exitNotEstablished},
		"exported rules left out":       {"/v1/entries/4", swap(`"as_of":1`, `"as_of":3`), export, exitFailed},
		"exported without end":          {"/v1/entries/4", swap(`"as_of":1`, `"as_of":4`), export, exitFailed},
		"the truth of growth":           {"", nil, grown, exitOK},
		"the truth of an entry":         {"", nil, entry, exitOK},
	} {
		t.Run(name, func(t *testing.T) {
			l.lie = func(path string, truth []byte) []byte {
				if path == tc.path {
					return tc.lie(truth)
				}
				return truth
			}
			out := filepath.Join(t.TempDir(), "out")
			l.run(t.Context(), srv.URL, tc.want, append(slices.Clone(tc.args), "-log-vkey", l.file("log.vkey"), "-out", out)...)
			names, err := os.ReadDir(filepath.Dir(out))
			must(t, err)
			if written := len(names) > 0; written != (tc.want == exitOK) {
				t.Errorf("exit code %d, and there is %v", tc.want, names)
			}
		})
	}
	l.lie = func(string, []byte) []byte { return []byte("[]") }
	l.run(t.Context(), srv.URL, exitFailed, "search", "-migration", "m1")
	l.lie = func(string, []byte) []byte { return []byte(`{"items":[{"entry":{},"index":7}]}`) }
	l.run(t.Context(), srv.URL, exitFailed, "keys", "list")
}

func TestWithoutTheLogsKeyNothingIsEstablished(t *testing.T) {
	l := newLiar(t)
	srv := httptest.NewServer(l)
	t.Cleanup(srv.Close)
	for _, args := range [][]string{
		{"prove", "-from", "2", "-to", "4"}, {"prove", "-index", "1"}, {"export", "-from", "2", "-to", "3"},
	} {
		out := filepath.Join(t.TempDir(), "out")
		said := l.run(t.Context(), srv.URL, exitNotEstablished, append(args, "-out", out)...)
		if !strings.Contains(said, "-log-vkey") {
			t.Errorf("%q says %q, and not what to do", args, said)
		}
		if _, err := os.Stat(out); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
	// What can be wrong without a key is found without one.
	l.lie = func(path string, truth []byte) []byte {
		return bytes.Replace(truth, []byte("log "+testOrigin), []byte("log other"), 1)
	}
	l.run(t.Context(), srv.URL, exitFailed, "prove", "-from", "2", "-to", "4")
}

func TestAnExportHasEveryControlEntryOfWhateverKind(t *testing.T) {
	l := newLiar(t)
	srv := httptest.NewServer(l)
	t.Cleanup(srv.Close)
	out := l.file("evidence")
	l.run(t.Context(), srv.URL, 0, "export", "-from", "2", "-to", "3", "-out", out, "-log-vkey", l.file("log.vkey"))
	var got []string
	for _, f := range must2(os.ReadDir(filepath.Join(out, "events"))) {
		got = append(got, strings.TrimLeft(f.Name(), "0"))
	}
	if want := []string{".json", "1.json", "2.json"}; !slices.Equal(got, want) {
		t.Errorf("the export has %v, want log.open, the rules and what was asked for", got)
	}
}

func TestAnExportThatIsCutOffLeavesNothingInTheWay(t *testing.T) {
	l := newLiar(t)
	srv := httptest.NewServer(l)
	t.Cleanup(srv.Close)
	out := l.file("evidence")
	export := func(ctx context.Context, want int) string {
		return l.run(ctx, srv.URL, want, "export", "-from", "2", "-to", "3", "-out", out, "-log-vkey", l.file("log.vkey"))
	}
	there := func() (names []string) {
		for _, f := range must2(os.ReadDir(l.dir)) {
			if strings.HasPrefix(f.Name(), "evidence") {
				names = append(names, f.Name())
			}
		}
		return names
	}
	ctx, cancel := context.WithCancel(t.Context())
	l.lie = func(path string, truth []byte) []byte {
		if strings.HasPrefix(path, "/v1/proofs/") {
			cancel() // somebody presses Ctrl-C
		}
		return truth
	}
	export(ctx, exitIO)
	if got := there(); got != nil {
		t.Errorf("after an interrupt there is %v", got)
	}
	// Somebody pulls the plug.
	must(t, os.MkdirAll(out+".part/events", 0o755))
	must(t, os.WriteFile(out+".part/events/000000000000.json", []byte(`{"eve`), 0o600))
	// But what is no export's is not removed.
	must(t, os.WriteFile(out+".part/thesis.tex", nil, 0o600))
	if said := export(t.Context(), exitUsage); !strings.Contains(said, "thesis.tex") {
		t.Errorf("export says %q", said)
	}
	must(t, os.Remove(out+".part/thesis.tex"))
	if said := export(t.Context(), exitOK); !strings.Contains(said, "begins anew") {
		t.Errorf("export says %q", said)
	}
	if got := there(); !slices.Equal(got, []string{"evidence"}) {
		t.Errorf("after an export there is %v", got)
	}
}

func TestCommandsReachALogBehindMutualTLS(t *testing.T) {
	l := newLiar(t)
	srv := httptest.NewUnstartedServer(l)
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	key, err := x509.MarshalPKCS8PrivateKey(srv.TLS.Certificates[0].PrivateKey)
	must(t, err)
	cert, keyFile := l.file("cert.pem"), l.file("key.pem")
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	for _, tc := range []struct {
		want  int
		flags []string
	}{
		{exitOK, []string{"-ca", cert, "-cert", cert, "-key", keyFile}},
		{exitIO, []string{"-ca", cert}},                             // no certificate of the client's
		{exitIO, []string{"-cert", cert, "-key", keyFile}},          // nobody vouches for the server's
		{exitUsage, []string{"-ca", cert, "-cert", cert}},           // half a pair
		{exitUsage, []string{"-ca", keyFile}},                       // no certificate
		{exitUsage, []string{"-ca", l.file("none")}},                // no file
		{exitUsage, []string{"-cert", l.file("none"), "-key", "x"}}, // no files
	} {
		l.run(t.Context(), srv.URL, tc.want, append([]string{"search", "-migration", "m1"}, tc.flags...)...)
		l.run(t.Context(), srv.URL, tc.want, append([]string{"prove", "-index", "1", "-log-vkey", l.file("log.vkey")}, tc.flags...)...)
	}
}
