package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// audit runs verify with the pin file, and gives what is in it afterwards.
func (s *scene) audit(code int, parts ...string) string {
	s.t.Helper()
	pin := filepath.Join(s.dir, "pin")
	got, text := s.verify("-pin", pin)
	check(s.t, got, text, code, parts...)
	now, err := os.ReadFile(pin)
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	return string(now)
}

// again replaces the directory, as at the next audit.
func (s *scene) again(f files) {
	s.t.Helper()
	if err := os.RemoveAll(s.out); err != nil {
		s.t.Fatal(err)
	}
	f.write(s.out)
}

// The first audit remembers; the second checks that the log only grew.
func TestPinFollowsAGrowingLog(t *testing.T) {
	l, svc := smallLog()
	s := newScene(t, l, "g", l.export())
	first := string(l.checkpoint(9))
	if got := s.audit(exitOK, "first audit of log.example/crm: nothing to compare with; its checkpoint of size 9 is remembered if this ends with exit 0"); got != first {
		t.Errorf("pin = %q, want %q", got, first)
	}
	if info, err := os.Stat(filepath.Join(s.dir, "pin")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("pin file: %v, %v, want mode 0600", info, err)
	}
	s.audit(exitOK, "the same tree as at the last audit, size 9")

	l.migrate(svc, "erp")
	s.again(l.export())
	if got := s.audit(exitNotEstablished, "ask for consistency/9.proof to size 16"); got != first {
		t.Errorf("pin moved without proof: %q", got)
	}
	f := l.export()
	f["consistency/9.proof"] = l.consistency(9, 16)
	s.again(f)
	if got, want := s.audit(exitOK, "extends the tree of your last audit, from size 9 to 16"), string(l.checkpoint(16)); got != want {
		t.Errorf("pin = %q, want %q", got, want)
	}
}

// An old package is audited after a newer one: it must be part of it, and the
// pin does not go back.
func TestPinOfANewerAudit(t *testing.T) {
	l, svc := smallLog()
	old := l.export()
	l.migrate(svc, "erp")
	newer := string(l.checkpoint(16))
	s := newScene(t, l, "g", old)
	s.file("pin", newer)
	s.audit(exitNotEstablished, "ask for consistency/9.proof to size 16")
	old["consistency/9.proof"] = l.consistency(9, 16)
	s.again(old)
	if got := s.audit(exitOK, "older than your last audit, and part of it"); got != newer {
		t.Errorf("pin went back: %q", got)
	}
}

// The operator shows a second history: the pin convicts it, and stays.
func TestPinFindsAFork(t *testing.T) {
	l, _ := smallLog()
	fork := l.forked()
	fork.migrate(fork.register("svc:crm"), "crm")
	s := newScene(t, l, "g", l.export())
	pin := s.audit(exitOK)

	// It is one without any witness too, and whatever else is wrong beside it.
	fork.cosignAt = []uint64{0, 0, 0}
	f := fork.export()
	f["events/000000000099.json"] = make([]byte, log.EntryMaxBytes+1)
	f["payloads/000000000000.salt"] = append(f["payloads/000000000000.salt"], '\n')
	s.again(f)
	if got := s.audit(exitFailed, "FORK: the log has signed two trees of size 9", "events/000000000099.json has 65536 bytes, at most 65535", "payloads/000000000000.salt has 46 bytes"); got != pin {
		t.Errorf("pin changed by a fork: %q", got)
	}
	fork.cosignAt = nil
	f = fork.export()
	s.again(f)
	if got := s.audit(exitFailed, "FORK: the log has signed two trees of size 9"); got != pin {
		t.Errorf("pin changed by a fork: %q", got)
	}
	fork.migrate(fork.register("svc:b"), "erp")
	f = fork.export()
	f["consistency/9.proof"] = fork.consistency(9, uint64(len(fork.records)))
	s.again(f)
	if got := s.audit(exitFailed, "the log was changed since your last audit"); got != pin {
		t.Errorf("pin changed by a fork: %q", got)
	}
}

// The pin of one log is nothing to another: all others stay as they are.
func TestPinOfSeveralLogs(t *testing.T) {
	l, svc := smallLog()
	b, c := newLog("log.example/b"), newLog("log.example/c")
	first := string(b.checkpoint(1)) + "\n" + string(l.checkpoint(9)) + "\n" + string(c.checkpoint(1))
	l.migrate(svc, "erp")
	f := l.export()
	f["consistency/9.proof"] = l.consistency(9, 16)
	s := newScene(t, l, "g", f)
	s.file("pin", first)
	want := string(b.checkpoint(1)) + "\n" + string(c.checkpoint(1)) + "\n" + string(l.checkpoint(16))
	if got := s.audit(exitOK); got != want {
		t.Errorf("pin = %q, want %q", got, want)
	}
}

// A pin file that is damaged is the auditor's to mend: nothing is guessed.
func TestDamagedPinFile(t *testing.T) {
	l, _ := smallLog()
	note := string(l.checkpoint(9))
	s := newScene(t, l, "g", l.export())
	for _, bad := range []string{"x", "x\n", note[:30], note + "\n", note + "\n\n" + note, "\n" + note, note + "\n" + note, strings.Replace(note, "9\n", "09\n", 1)} {
		s.file("pin", bad)
		if got := s.audit(exitUsage, "pin file"); got != bad {
			t.Errorf("damaged pin file was changed")
		}
	}
	other, _ := smallLog()
	s.file("pin", string(other.checkpoint(9)))
	s.audit(exitUsage, "the policy does not know who signed")
	s.file("pin", strings.Repeat("x", pinMaxBytes+1))
	s.audit(exitLimit)
}

func TestPinNeedsAPolicy(t *testing.T) {
	l, _ := smallLog()
	s := newScene(t, l, "g", l.export())
	code, text := runAll("verify", "-pin", filepath.Join(s.dir, "pin"), s.out)
	check(t, code, text, exitUsage, "-pin without -policy")
}

// A pin that cannot be written is no audit that can be followed.
func TestPinCannotBeWritten(t *testing.T) {
	l, _ := smallLog()
	s := newScene(t, l, "g", l.export())
	code, text := s.verify("-pin", filepath.Join(s.dir, "nowhere", "pin"))
	check(t, code, text, exitIO, "write pin file")
	pin := filepath.Join(s.dir, "pin")
	if err := os.Mkdir(pin, 0o700); err != nil {
		t.Fatal(err)
	}
	code, text = s.verify("-pin", pin)
	check(t, code, text, exitIO, "hint:")
}

// The pin is the memory of what an auditor was told: it does not move before.
func TestPinStaysIfTheReportIsLost(t *testing.T) {
	l, _ := smallLog()
	s := newScene(t, l, "g", l.export())
	pin := filepath.Join(s.dir, "pin")
	var stderr strings.Builder
	if code := run([]string{"verify", "-policy", s.policy, "-pin", pin, s.out}, brokenWriter{}, &stderr); code != exitIO {
		t.Errorf("verify into a full disk: exit %d, want %d", code, exitIO)
	}
	if _, err := os.Stat(pin); !os.IsNotExist(err) {
		t.Errorf("pin file after a lost report: %v, want none", err)
	}
}

// A consistency proof that no pin calls for is read, and said not to be checked;
// one that is not what its name says is a fault.
func TestConsistencyProofs(t *testing.T) {
	l, _ := smallLog()
	f := l.export()
	f["consistency/4.proof"] = l.consistency(4, 9)
	newScene(t, l, "g", f).want(exitOK, "consistency/4.proof: no pinned checkpoint of that size")
	for name, bad := range map[string][]byte{
		"another size":  l.consistency(5, 9),
		"not to here":   l.consistency(4, 8),
		"another log":   newLog("log.example/b").consistency(1, 1),
		"no proof":      []byte("x"),
		"from the pin":  l.consistency(4, 9)[:60],
		"nothing in it": nil,
	} {
		f["consistency/4.proof"] = bad
		s := newScene(t, l, "g", f)
		s.want(exitFailed, "integrity.consistency")
		s.file("pin", string(l.checkpoint(4)))
		if got := s.audit(exitFailed); got != string(l.checkpoint(4)) {
			t.Errorf("%s: pin moved", name)
		}
	}
	// A proof from here to a newer tree than the one pinned.
	l2, svc := smallLog()
	old := l2.export()
	l2.migrate(svc, "erp")
	old["consistency/9.proof"] = l2.consistency(9, 16)
	s := newScene(t, l2, "g", old)
	s.file("pin", string(l2.checkpoint(12)))
	s.audit(exitNotEstablished, "leads to size 16, not to 12")
}
