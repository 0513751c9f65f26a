package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// How often a disk fills up under load, and the server is killed then.
const (
	fullKills        = 2
	fullKillsNightly = 50
)

// killedWhenFull kills the server while its disk is full to the last byte.
func killedWhenFull(t *testing.T, rounds int) {
	bin := binary(t)
	for _, kind := range []string{"ext4", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			fs := newLoopFS(t, kind, "1G")
			r := newLogIn(t, filepath.Join(fs.dir, "log"), fastPublish)
			c := newChronicle(r, 4)
			must(t, r.stop())
			for range rounds {
				throughAFullDisk(t, c, fs.dir, launch(t, r.dir, bin, "serve"), func() *process { return launch(t, r.dir, bin, "serve") })
			}
			c.inspect(r)
			t.Logf("%d times full and killed: %v: none lost, one history", rounds, c)
		})
	}
}

func throughAFullDisk(t *testing.T, c *chronicle, dir string, p *process, again func() *process) {
	must(t, p.up())
	must(t, c.check(p.url))
	end := c.load(p.url)
	time.Sleep(300 * time.Millisecond)
	free := fillUp(t, dir)
	time.Sleep(500 * time.Millisecond)
	end()
	if _, err := c.covering(p.url); err != nil {
		t.Errorf("while the disk is full: %v\n%s", err, p.kill())
	}
	p.kill()
	// It may want room to start. But it says so, and nothing else.
	p = again()
	err := p.up()
	if err == nil {
		_, err = c.covering(p.url)
	}
	if said := p.kill(); err != nil && !strings.Contains(said, "no space left") {
		t.Errorf("on the full disk: %v\n%s", err, said)
	}
	free()
	p = again()
	err = errors.Join(p.up(), c.check(p.url))
	before := c.counts.acks
	end = c.load(p.url)
	await(t, "the log to take events again", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return err != nil || c.counts.acks > before
	})
	end()
	if said := p.kill(); err != nil {
		t.Errorf("with room again: %v\n%s", err, said)
	}
}

func TestNothingAcknowledgedIsLostByKill9OnAFullDisk(t *testing.T) { killedWhenFull(t, fullKills) }

func TestNothingAcknowledgedIsLostByKill9OnAFullDiskNightly(t *testing.T) {
	killedWhenFull(t, nightly(fullKillsNightly))
}
