package main

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// How often the server is killed.
const (
	killRounds        = 100
	killRoundsNightly = 5000
)

// lifeRounds is how many crashes one log goes through. Then a fresh one takes its place: a start takes longer the more
// was erased.
const lifeRounds = 20

// parts lets several machines share a night: each draws its own crashes.
var parts = flag.Int("parts", 1, "Nightly tests do one of so many `parts` of their rounds")

func nightly(rounds int) int { return max(1, rounds / *parts) }

// A process is the real server in a process of its own.
type process struct {
	cmd   *exec.Cmd
	dir   string
	url   string
	said  *bytes.Buffer // complete when it has ended
	ended chan struct{}
}

// launch starts a server on the log in dir. It may not be up yet.
func launch(t testing.TB, dir string, command ...string) *process {
	t.Helper()
	_ = os.Remove(filepath.Join(dir, "addr"))
	p := &process{cmd: exec.Command(command[0], append(command[1:], "-config", filepath.Join(dir, "config.yaml"))...), dir: dir, said: &bytes.Buffer{}, ended: make(chan struct{})} //nolint:noctx // it is killed
	p.cmd.Stderr = p.said
	must(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	return p
}

// up waits until the server serves. Its error is that it refuses to.
func (p *process) up() error {
	for {
		b, err := os.ReadFile(filepath.Join(p.dir, "addr"))
		if p.url = "http://" + strings.TrimSpace(string(b)); err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("the server ends with %v: %s", p.cmd.ProcessState, p.said)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// kill ends the process at once, and gives what it had said.
func (p *process) kill() string {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
	return p.said.String()
}

// A crash ends the server, and what it stands on, in the midst of things.
type crash struct {
	command []string       // that serves
	strike  func(*process) // ends the server as the crash would
	recover func()         // brings the machine back
}

// secondCrash is in how many rounds there is one that comes before the log has recovered from the one before.
const secondCrash = 5

// survive lets a log in dir go through rounds of a crash, and holds it each
// time to all that its clients know. Its error is what it had lost.
func survive(c *chronicle, dir string, rounds int, crash crash) error {
	for round := range rounds {
		p := launch(c.t, dir, crash.command...)
		if round%secondCrash == secondCrash-1 {
			time.Sleep(rand.N(60 * time.Millisecond))
			crash.strike(p)
			crash.recover()
			p = launch(c.t, dir, crash.command...)
		}
		err := p.up()
		if err == nil {
			err = c.check(p.url)
		}
		if err != nil {
			return fmt.Errorf("after crash %d of %d: %w\n%s", round, rounds, err, p.kill())
		}
		end := c.load(p.url)
		time.Sleep(rand.N(150 * time.Millisecond))
		crash.strike(p)
		end()
		crash.recover()
	}
	return nil
}

// inspect holds the log to everything once more, at leisure.
func (c *chronicle) inspect(r *running) {
	r.start()
	if err := c.checkAll(r.url); err != nil {
		c.t.Error(err)
	}
	r.fsck(exitOK)
	if c.counts.acks == 0 || c.counts.erasures == 0 {
		c.t.Errorf("the clients came to nothing: %v", c)
	}
}

// lives lets fresh logs go through rounds of a crash in all, as many at a time as there are processors.
func lives(t *testing.T, rounds int, live func(t *testing.T, rounds int)) {
	for done := 0; done < rounds; done += lifeRounds {
		t.Run(fmt.Sprintf("from %d", done), func(t *testing.T) {
			t.Parallel()
			live(t, min(lifeRounds, rounds-done))
		})
	}
}

func killed(t *testing.T, rounds int) {
	bin := binary(t)
	lives(t, rounds, func(t *testing.T, rounds int) {
		r := newLog(t, fastPublish)
		c := newChronicle(r, 4)
		must(t, r.stop())
		must(t, survive(c, r.dir, rounds, crash{command: []string{bin, "serve"}, strike: func(p *process) { p.kill() }, recover: func() {}}))
		c.inspect(r)
		if c.counts.failures > 0 {
			t.Errorf("%d requests got a 500", c.counts.failures)
		}
		t.Logf("%d kills of the server under load, %d at its start: %v: none lost, one history", rounds, rounds/secondCrash, c)
	})
}

func TestNothingAcknowledgedIsLostByKill9(t *testing.T) { killed(t, killRounds) }

func TestNothingAcknowledgedIsLostByKill9Nightly(t *testing.T) { killed(t, nightly(killRoundsNightly)) }
