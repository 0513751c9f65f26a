package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// How often the power is cut.
const (
	cutsExt4, cutsExt4Nightly = 60, 2500
	cutsXFS, cutsXFSNightly   = 30, 1000
)

// underPowerCuts lets a log on a file system of its own go through power cuts.
// Its error is what it had lost by then.
func underPowerCuts(t *testing.T, kind string, rounds int, command ...string) (*chronicle, *running, error) {
	disk := newLoopFS(t, kind, "1G")
	r := newLogIn(t, filepath.Join(disk.dir, "log"), fastPublish)
	c := newChronicle(r, 4)
	must(t, r.stop())
	return c, r, survive(c, r.dir, rounds, crash{
		command: command,
		strike: func(p *process) {
			disk.cutPower()
			p.kill()
		},
		recover: func() {
			disk.unmount()
			disk.mount()
		},
	})
}

func powerCuts(t *testing.T, kind string, rounds int) {
	bin := binary(t)
	lives(t, rounds, func(t *testing.T, rounds int) {
		c, r, err := underPowerCuts(t, kind, rounds, bin, "serve")
		must(t, err)
		c.inspect(r)
		t.Logf("%d power cuts on %s under load, %d at the start of the server: %v: none lost, one history", rounds, kind, rounds/secondCrash, c)
	})
}

func TestNothingAcknowledgedIsLostByPowerCutsOnExt4(t *testing.T) { powerCuts(t, "ext4", cutsExt4) }
func TestNothingAcknowledgedIsLostByPowerCutsOnXFS(t *testing.T)  { powerCuts(t, "xfs", cutsXFS) }

func TestNothingAcknowledgedIsLostByPowerCutsOnExt4Nightly(t *testing.T) {
	powerCuts(t, "ext4", nightly(cutsExt4Nightly))
}

func TestNothingAcknowledgedIsLostByPowerCutsOnXFSNightly(t *testing.T) {
	powerCuts(t, "xfs", nightly(cutsXFSNightly))
}

// The same on a disk that syncs nothing must be found to lose something: else
// the rounds above would show nothing.
func TestPowerCutsFindADiskThatDoesNotSync(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			_, _, err := underPowerCuts(t, kind, 10, os.Args[0], serveUnsynced)
			if err == nil {
				t.Fatal("ten power cuts lose nothing of what was never synced")
			}
			t.Logf("found: %v", err)
		})
	}
}

// serveUnsynced as the first argument makes this test a server on a disk that syncs nothing.
const serveUnsynced = "serve-unsynced"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == serveUnsynced {
		c, err := readConfig(os.Args[3])
		if err == nil {
			c.fs = unsyncedFS{c.fs}
			err = serve(context.Background(), c, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		}
		panic(err) // it ends only by a failure, or by being killed
	}
	os.Exit(m.Run())
}
