package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
)

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	full := []string{"-dir", dir, "-url", "http://127.0.0.1:1", "-token-file", "t", "-log-vkey", "v", "-principal", "p", "-key", "k"}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-help"}, exitDone, "-customers"},
		{[]string{"replay", "-help"}, exitDone, "-events"},
		{nil, exitUsage, "-dir, -url, -token-file, -log-vkey, -principal, -key missing"},
		{[]string{"-nonsense"}, exitUsage, "nonsense"},
		{append(slices.Clone(full), "more"), exitUsage, "no arguments"},
		{append(slices.Clone(full), "-limit", "-1"), exitUsage, "-limit"},
		{append([]string{"replay"}, full...), exitUsage, "no files of events"},
		{append([]string{"replay"}, append(slices.Clone(full), "none.json")...), exitFailed, "none.json"},
		{append(slices.Clone(full), "-customers", "10"), exitFailed, "at least"},
		{append(slices.Clone(full), "-customers", "200"), exitFailed, "open log"},
	} {
		var out, errOut bytes.Buffer
		if code := run(t.Context(), c.args, &out, &errOut); code != c.code || !strings.Contains(errOut.String(), c.says) {
			t.Errorf("crm %s: exit %d, want %d; said %q, want %q in it", strings.Join(c.args, " "), code, c.code, errOut.String(), c.says)
		}
	}
}

func TestOwnKeyIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	first, err := ownKey(path)
	if err != nil || len(first) != 32 {
		t.Fatalf("ownKey = %x, %v", first, err)
	}
	if again, err := ownKey(path); err != nil || !bytes.Equal(again, first) {
		t.Errorf("ownKey again = %x, %v, want %x", again, err, first)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if key, err := ownKey(path); err == nil {
		t.Errorf("ownKey of a spoilt file = %x, want an error: a new key would give everybody a second name", key)
	}
	if _, err := ownKey(filepath.Join(path, "under")); err == nil {
		t.Error("ownKey where no file can be: no error")
	}
}

// lineageFiles are the events of real runs that are kept in the tree.
func lineageFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir("../openlineage/testdata", func(path string, d fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); ext == ".json" || ext == ".jsonl" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// What a producer wrote is kept byte for byte, and nothing lies there of which
// the list does not speak. The hash of README.md is not kept: it is ours to mend.
func TestLineageIsKeptAsItWasWritten(t *testing.T) {
	dir := os.DirFS("../openlineage/testdata")
	list, err := fs.ReadFile(dir, "SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	var now strings.Builder
	err = fs.WalkDir(dir, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == "SHA256SUMS" || path == "README.md" {
			return err
		}
		data, err := fs.ReadFile(dir, path)
		fmt.Fprintf(&now, "%x  %s\n", sha256.Sum256(data), path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if now.String() != string(list) {
		t.Errorf("SHA256SUMS has\n%s\nand the files are\n%s", list, now.String())
	}
}

func TestRealLineageBecomesEvents(t *testing.T) {
	key := bytes.Repeat([]byte{1}, 32)
	events, err := readLineage(lineageFiles(t), key)
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 79 {
		t.Errorf("%d events, want 79", len(events))
	}
	datasets := 0
	for i, e := range events {
		if e.Kind != "lineage.run" || e.Type != lineageType || !json.Valid(e.Payload) {
			t.Errorf("event %d: kind %s, type %s", i, e.Kind, e.Type)
		}
		for _, o := range e.Objects {
			if !strings.HasPrefix(o.Name, "o:") || len(o.Name) != 34 || !log.ValidName(o.Role) {
				t.Errorf("event %d: object %+v is not opaque", i, o)
			}
			if o.Role == "input" || o.Role == "output" {
				datasets++
			}
		}
	}
	if datasets == 0 {
		t.Error("no event is about a dataset")
	}
	// The file's own bytes are the payload: not a copy that was written anew.
	raw, err := os.ReadFile("../openlineage/testdata/airflow/line_01.json")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(events, func(e client.Event) bool { return bytes.Equal(e.Payload, bytes.TrimSpace(raw)) }) {
		t.Error("no payload is the first Airflow event, byte for byte")
	}
}

func TestLineageEvent(t *testing.T) {
	key := bytes.Repeat([]byte{1}, 32)
	many := `{"producer":"p","run":{"runId":"r"},"job":{"namespace":"n","name":"j"},"inputs":[` + strings.TrimSuffix(strings.Repeat(`{"namespace":"n","name":"same"},`, 3), ",") + `],"outputs":[`
	for i := range 100 {
		many += `{"namespace":"n","name":"` + strings.Repeat("x", i+1) + `"},`
	}
	many = strings.TrimSuffix(many, ",") + "]}"
	for _, c := range []struct {
		raw, kind string
		objects   int
	}{
		{`{"producer":"p","run":{"runId":"r"},"job":{"namespace":"n","name":"j"}}`, "lineage.run", 2},
		{`{"producer":"p","job":{"namespace":"n","name":"j"},"inputs":[{"namespace":"n","name":"d"}]}`, "lineage.job", 2},
		{`{"producer":"p","dataset":{"namespace":"n","name":"d"}}`, "lineage.dataset", 1},
		{many, "lineage.run", log.ObjectsMax},
	} {
		e, err := lineageEvent([]byte(c.raw), key)
		if err != nil || e.Kind != c.kind || len(e.Objects) != c.objects || string(e.Payload) != c.raw {
			t.Errorf("lineageEvent(%.90s) = %s with %d objects, %v, want %s with %d", c.raw, e.Kind, len(e.Objects), err, c.kind, c.objects)
		}
	}
	for _, bad := range []string{`[]`, `{}`, `{"producer":"p"}`, `{"producer":"p","run":{"runId":"r"}}`, `{"producer":"p","run":{},"job":{"name":"j"}}`, `{"run":{"runId":"r"},"job":{"name":"j"}}`} {
		if e, err := lineageEvent([]byte(bad), key); err == nil {
			t.Errorf("lineageEvent(%s) = %s, want an error", bad, e.Kind)
		}
	}
	if opaque(key, "job", "x") == opaque(key, "dataset", "x") || opaque(key, "job", "x") == opaque([]byte("other"), "job", "x") {
		t.Error("opaque ids do not depend on the kind and the key")
	}
}

// A bad file is found before anything is logged, and all bad files are named.
func TestBadLineageFilesAreAllNamed(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for name, text := range map[string]string{
		"good.json": `{"producer":"p","dataset":{"namespace":"n","name":"d"}}`, "cut.json": `{"producer":`, "other.json": `{"a":1}`,
	} {
		files = append(files, filepath.Join(dir, name))
		if err := os.WriteFile(files[len(files)-1], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := readLineage(append(files, filepath.Join(dir, "none")), nil)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("readLineage = %v, want all errors", err)
	}
	for _, want := range []string{"cut.json", "other.json: event 1", "none"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("readLineage says %q, want %q in it", err, want)
		}
	}
}

func TestKeeperTakesANewDirectoryOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "out")
	if _, err := newKeeper(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := newKeeper(dir); err == nil {
		t.Error("newKeeper on what is there: no error; two runs would be mixed")
	}
}
