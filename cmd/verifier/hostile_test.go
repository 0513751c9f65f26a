package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// What is in the directory and is not checked must not travel with what is.
func TestStrangeFilesAreRefused(t *testing.T) {
	l, _ := smallLog()
	f := l.export()
	for _, tc := range []struct {
		name string
		make func(out string) error
		want string
	}{
		{"unknown file", func(out string) error { return os.WriteFile(out+"/README", nil, 0o600) }, `name "README"`},
		{"hidden file", func(out string) error { return os.WriteFile(out+"/events/.x", nil, 0o600) }, `name ".x"`},
		{"unknown folder", func(out string) error { return os.Mkdir(out+"/more", 0o700) }, `folder "more"`},
		{"deep folder", func(out string) error {
			return os.MkdirAll(out+"/events/000000000001.json.d/"+strings.Repeat("d/", 200), 0o700)
		}, "000000000001.json.d"},
		{"folder with a file's name", func(out string) error { return os.Mkdir(out+"/events/000000000099.json", 0o700) }, "no regular file"},
		{"second spelling", func(out string) error { return os.WriteFile(out+"/events/1.json", nil, 0o600) }, `name "1.json"`},
		{"control characters", func(out string) error { return os.WriteFile(out+"/events/\x1b[2J.json", nil, 0o600) }, `\x1b[2J.json`},
		{"symlink to a file", func(out string) error {
			name := out + "/events/000000000005.json"
			if err := os.Rename(name, out+"/../elsewhere"); err != nil {
				return err
			}
			return os.Symlink("../../elsewhere", name)
		}, "000000000005.json is no regular file"},
		{"symlink as folder", func(out string) error {
			if err := os.Rename(out+"/receipts", out+"/../receipts"); err != nil {
				return err
			}
			return os.Symlink("../receipts", out+"/receipts")
		}, `name "receipts"`},
		{"symlink as checkpoint", func(out string) error {
			if err := os.Rename(out+"/checkpoint", out+"/../checkpoint"); err != nil {
				return err
			}
			return os.Symlink("../checkpoint", out+"/checkpoint")
		}, "checkpoint is no regular file"},
		{"receipt in the wrong folder", func(out string) error {
			return os.Rename(out+"/receipts/000000000000.receipt", out+"/events/000000000000.receipt")
		}, "000000000000.receipt"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t, l, "g", f)
			if err := tc.make(s.out); err != nil {
				t.Fatal(err)
			}
			s.want(exitFailed, "integrity.layout", tc.want)
		})
	}
}

// A file larger than any that a log writes is not read, and the rest is.
func TestHugeFiles(t *testing.T) {
	l, _ := smallLog()
	f := l.export()
	for _, path := range f.paths() {
		s := newScene(t, l, "g", f)
		if err := os.Truncate(filepath.Join(s.out, path), 1<<40); err != nil { // sparse
			t.Skipf("NOT RUN: this file system has no sparse files: %v", err)
		}
		s.want(exitFailed, "integrity.layout", path+" has 1099511627776 bytes, at most")
		if path == "payloads/000000000000.salt" {
			break // one of each kind
		}
	}
}

// A payload over the limit of its type was never to be taken.
func TestPayloadOverTheLimitOfItsType(t *testing.T) {
	l, svc := smallLog()
	l.send(svc, "x/a", openStream(log.ModeSigned, svc.name, svc.public()), draft{kind: "x.big", payload: make([]byte, log.PayloadMaxBytes+1)})
	newScene(t, l, "g", l.export()).want(exitFailed, "payload of more than 4194304 bytes")
}

// However many payloads there are, and however large, they are never in memory
// together: those that the audit reads are small, the others pass through.
func TestPayloadsAreNotHeld(t *testing.T) {
	const payloads = 8
	l, svc := smallLog()
	l.send(svc, "x/a", openStream(log.ModeSigned, svc.name, svc.public()))
	l.tamper = func(e *log.Entry) { e.Event.Payload.Type = lineageType }
	l.own("payloads", "payload.erased", make([]byte, log.LineageMaxBytes))
	for range payloads - 1 {
		l.send(svc, "x/a", draft{kind: "x.note", payload: make([]byte, log.LineageMaxBytes)})
	}
	s := newScene(t, l, "g", l.export())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	code, text := s.verify()
	runtime.ReadMemStats(&after)
	check(t, code, text, exitFailed, "payload of payload.erased has type", "payload is not the one committed to: 33554432 bytes")
	if got := (after.TotalAlloc - before.TotalAlloc) >> 20; got > log.LineageMaxBytes>>20 {
		t.Errorf("verify of %d payloads of 32 MiB allocated %d MiB, want less than one of them", payloads, got)
	}
}

// A payload for an event that commits to none.
func TestPayloadOfNothing(t *testing.T) {
	l, _ := smallLog()
	f := l.export()
	f["payloads/000000000005.payload"] = []byte("{}")
	f["payloads/000000000005.salt"] = log.MarshalSalt([32]byte{})
	newScene(t, l, "g", f).want(exitFailed, "commits to no payload")
}

// A thousand faults print twenty and a number.
func TestReportIsBounded(t *testing.T) {
	l, f, _ := mutantLog()
	for i := uint64(100); i < 1100; i++ {
		f[log.ExportFile{Kind: log.ExportSalt, Number: i}.Path()] = log.MarshalSalt([32]byte{})
	}
	s := newScene(t, l, "g", f)
	s.want(exitFailed, "and 980 more")
}

// A terminal must not obey what a hostile log or file says.
func TestPrintable(t *testing.T) {
	if got, want := printable("a\x1b[31m\nb\x7f\u0085é"), "a?[31m;b??é"; got != want {
		t.Errorf("printable = %q, want %q", got, want)
	}
}

func TestUnreadableFiles(t *testing.T) {
	if os.Geteuid() == 0 {
		// Root reads everything: take away what was listed instead.
		l, _ := smallLog()
		f := log.NewFindings()
		s := newScene(t, l, "g", l.export())
		d := must(openDirectory(s.out, f))
		defer d.close()
		if err := os.RemoveAll(s.out); err != nil {
			t.Fatal(err)
		}
		ld := newLoader(d, l.checkpoint(9), log.Head{})
		if err := ld.loadAll(d.numbers[log.ExportEvent], func(*loaded) error { return nil }); err == nil {
			t.Error("loadAll of removed files: no error")
		}
	}
	code, text := runAll("verify", filepath.Join(t.TempDir(), "nowhere"))
	check(t, code, text, exitIO, "hint:")
}

// The verifier needs no network: it runs in a namespace that has none. A user
// namespace (-r) makes that possible without being root, where the system allows it.
func TestWorksWithoutNetwork(t *testing.T) {
	if err := exec.Command("unshare", "-rn", "true").Run(); err != nil {
		t.Logf("NOT RUN: verifier without a network: unshare -rn: %v", err)
		return
	}
	l, _ := smallLog()
	s := newScene(t, l, "g", l.export())
	bin := filepath.Join(t.TempDir(), "verifier")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	out, err := exec.Command("unshare", "-rn", bin, "verify", "-policy", s.policy, "-submitters", s.submitters, s.out).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "(exit 0)") {
		t.Errorf("verifier without a network: %v\n%s", err, out)
	}
}
