package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// TestCrashesOfRecoveries kills the process at each change of the first opening of a journal, loses power at each change
// of the recovery from that, and again at each of the next: each builds on what the one before has left half done.
func TestCrashesOfRecoveries(t *testing.T) {
	crashfs.Hurry(t)
	e, tried := &explorer{power: true}, 0
	recoverUntil := func(f *crashfs.FS, m *model, change int) (done bool, err error) {
		f.CrashAt(change)
		if _, err = e.open(f, m); errors.Is(err, crashfs.ErrCrashed) {
			return false, nil
		}
		return true, err
	}
	for first := 20; ; first++ {
		f, m := crashfs.New(1), newModel()
		last, err := recoverUntil(f, m, first)
		if err != nil {
			t.Fatal(err)
		}
		for second := 1; ; second++ {
			g := f.Restart(1)
			done, err := recoverUntil(g, m.clone(), second)
			if err != nil {
				t.Fatalf("killed at change %d: %v", first, err)
			}
			for third := 1; ; third++ {
				s := uint64(first<<16 | second<<8 | third)
				h := g.After(s)
				done, err := recoverUntil(h, m.clone(), third)
				if err == nil {
					err = e.survive(h.After(s), m.clone(), rand.New(rand.NewPCG(s, 1)), 2)
				}
				if err != nil {
					t.Fatal(fmt.Errorf("killed at change %d, power lost at change %d, and at change %d: %w", first, second, third, err))
				}
				tried++
				if done {
					break
				}
			}
			if done {
				break
			}
		}
		if last {
			break
		}
	}
	t.Logf("%d states after three crashes", tried)
}
