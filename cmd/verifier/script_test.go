package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"verifier": main})
}

// TestScripts runs the command as an auditor does: one behaviour, one file.
// Each finds in its directory
//
//	out/            an honest log of 9 entries: 0 log.open, 1 key, 2 and 3 the control stream
//	                and its migration.open, 4 to 7 the data stream, 8 migration.close
//	grown/          the same log with a second migration, and consistency/9.proof
//	fork/           another tree of 9 entries by the same keys
//	policy.txt      the log's keys and two of three witnesses; none.txt no witness
//	submitters.txt  the submitters' keys
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			l, svc := smallLog()
			l.export().write(filepath.Join(e.WorkDir, "out"))
			fork, _ := smallLog()
			fork.key, fork.receiptKey, fork.witnesses = l.key, l.receiptKey, l.witnesses
			fork.export().write(filepath.Join(e.WorkDir, "fork"))
			files{
				"policy.txt": []byte(l.policy("g")), "none.txt": []byte(l.policy("none")), "submitters.txt": []byte(l.submitters()),
			}.write(e.WorkDir)
			l.migrate(svc, "erp")
			grown := l.export()
			grown["consistency/9.proof"] = l.consistency(9, 16)
			grown.write(filepath.Join(e.WorkDir, "grown"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits},
	})
}

// exits CODE COMMAND ARGS... runs a command and wants its exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v: %v", args[1:], err)
	}
	if code != want {
		ts.Fatalf("%v: exit %d, want %d", args[1:], code, want)
	}
}
