package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/pipe-roll/piperoll/log/sequencer"
)

func TestExitCodes(t *testing.T) {
	file := func(errno syscall.Errno) error {
		return fmt.Errorf("open log: %w", &fs.PathError{Op: "open", Path: "x", Err: errno})
	}
	refusal := func(status int, kind string) error {
		return &remoteProblem{problem{Type: "urn:piperoll:problem:" + kind, Status: status}, "POST /v1/events"}
	}
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errUsage, exitUsage},
		{errCheck, exitFailed},
		{errNotEstablished, exitNotEstablished},
		{fmt.Errorf("%w: entry 7: %w", errCheck, log.ErrVersion), exitVersion},
		{fmt.Errorf("%w: proof: %w", errCheck, log.ErrMalformed), exitFailed},
		{fmt.Errorf("payload: %w", log.ErrMalformed), exitUsage},
		{fmt.Errorf("key: %w", log.ErrKey), exitUsage},
		{fmt.Errorf("audit: %w", log.ErrLimit), exitLimit},
		{fmt.Errorf("submit: %w", sequencer.ErrReadOnly), exitIO},
		{errors.New("the cable is out"), exitIO},
		{refusal(400, "malformed"), exitUsage},
		{&remoteProblem{problemOf(log.ErrVersion), "POST /v1/events"}, exitVersion},
		{refusal(401, "unauthenticated"), exitUsage},
		{refusal(404, "not-found"), exitFailed},
		{refusal(409, "fork"), exitFailed},
		{refusal(413, "too-large"), exitLimit},
		{refusal(429, "rate"), exitIO},
		{refusal(503, "read-only"), exitIO},
		{fault(nil), exitOK},
		{fault(file(syscall.EACCES)), exitIO},
		{fault(file(syscall.EIO)), exitIO},
		{fault(file(syscall.ENOENT)), exitFailed},
		{fault(fmt.Errorf("open log: %w", disk.ErrLocked)), exitIO},
		{fault(context.Canceled), exitIO},
		{fault(journal.ErrCorrupt), exitFailed},
		{fault(errors.New("the key is not the one that entry 0 names")), exitFailed},
		{errors.Join(fmt.Errorf("%w: a gap", errCheck), fault(context.Canceled)), exitFailed},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%v: exit code %d, want %d", tc.err, got, tc.want)
		}
	}
}

func TestALogThatCannotBeReadIsNotCalledBroken(t *testing.T) {
	r := newLog(t, nil)
	must(t, r.stop())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	if code := run(ctx, []string{"fsck", "-config", filepath.Join(r.dir, "config.yaml")}, &out, &out, nil); code != exitIO || strings.Contains(out.String(), "FAIL") {
		t.Errorf("an interrupted fsck exits with %d: %s", code, &out)
	}
	out.Reset()
	must(t, os.Remove(filepath.Join(r.dir, "data", "journal", "journal")))
	if code := run(t.Context(), []string{"fsck", "-config", filepath.Join(r.dir, "config.yaml")}, &out, &out, nil); code != exitFailed || !strings.Contains(out.String(), "FAIL") {
		t.Errorf("fsck of a log without its identity exits with %d: %s", code, &out)
	}
}
