package index

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// troubled is a life on a disk that fails: whatever the index answers is right, and where it does not answer it says
// why. Nothing panics.
func (e *explorer) troubled(f *crashfs.FS, r *reference, x crashfs.Trouble) error {
	f.Trouble(x)
	index, err := Open(e.config(f))
	if err != nil {
		if f.Failed() == 0 {
			return err
		}
		return nil
	}
	err = e.live(index, f, r, rand.New(rand.NewPCG(6, 2)), 8)
	if err != nil && f.Failed() == 0 {
		return err
	}
	f.Heal()
	// What it holds it still holds; after damage or a lost manifest it is stopped instead.
	err = r.check(index)
	if err != nil && index.Err() == nil {
		err = r.check(index) // it met somebody in the background, to whom the disk said so before it healed
	}
	if err != nil && index.Err() == nil {
		return fmt.Errorf("read after the disk has healed: %w", err)
	}
	_ = index.Close() // it may repeat what failed
	return nil
}

// recovered opens after a fault, in a machine that lost power or in a new process.
func (e *explorer) recovered(f *crashfs.FS, r *reference, x crashfs.Trouble) error {
	for state := range uint64(2) {
		e.durable = 0 // a failing disk may cost the index
		after := f.After(state)
		if state == 0 {
			after = f.Restart(state)
		}
		if err := e.survive(after, r, rand.New(rand.NewPCG(state, uint64(x.Call))), 1); err != nil {
			return fmt.Errorf("state %d: %w", state, err)
		}
	}
	return nil
}

// TestFaults makes each call of a life fail, in each way, once or from then on, with an index there already or not, and
// then loses power or kills the process.
func TestFaults(t *testing.T) {
	crashfs.Hurry(t)
	r, tried := newReference(t, randomOrder(78, 100)), 0
	for _, kept := range []bool{false, true} {
		base := crashfs.New(1)
		e := &explorer{}
		if kept {
			index, err := Open(e.config(base))
			if err == nil {
				err = errors.Join(r.follow(index), r.follow(index), index.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		crashfs.EachTrouble(func(x crashfs.Trouble) bool {
			f := base.Restart(uint64(x.Call))
			err := e.troubled(f, r, x)
			if err == nil {
				err = e.recovered(f, r, x)
			}
			if err != nil {
				t.Fatalf("an index kept: %v, %v: %v", kept, x, err)
			}
			tried++
			return f.Failed() > 0
		})
	}
	t.Logf("%d faults", tried)
}

// TestPlantedBugs shows that TestCrashes finds what it is there to find.
func TestPlantedBugs(t *testing.T) {
	crashfs.Hurry(t)
	r := newReference(t, randomOrder(77, 100))
	for name, l := range map[string]crashfs.Liar{"no sync": {NoSync: true}, "no sync of folders": {NoSyncDir: true}} {
		e := &explorer{seeds: 2, wrap: func(f *crashfs.FS) disk.FS { return l.Over(f) }}
		for seed := uint64(1); len(e.Bad) == 0; seed++ {
			if e.Points > 5_000 {
				t.Fatalf("%s: not found in %d crash points", name, e.Points)
			}
			e.explore(r, seed, 10)
		}
		t.Logf("%s: found after %d crash points: %v", name, e.Points, e.Bad[0])
	}
}

// TestPairsOfFaultsNightly makes two calls of a life fail, and one of the recovery from it.
func TestPairsOfFaultsNightly(t *testing.T) {
	crashfs.Hurry(t)
	r, e := newReference(t, randomOrder(78, 100)), &explorer{}
	rng := rand.New(rand.NewPCG(1, 1))
	some := func(calls int) crashfs.Trouble {
		return crashfs.Trouble{Call: 1 + rng.IntN(calls), Fault: crashfs.Faults()[rng.IntN(len(crashfs.Faults()))], Lasting: rng.IntN(2) == 0}
	}
	for range 20_000 {
		f, x, y, z := crashfs.New(rng.Uint64()), some(200), some(200), some(100)
		f.Trouble(y)
		err := e.troubled(f, r, x)
		next := f.Restart(1)
		if err == nil {
			err = e.troubled(next, r, z)
		}
		if err == nil {
			err = e.recovered(next, r, z)
		}
		if err != nil {
			t.Fatalf("%v and %v, then %v: %v", x, y, z, err)
		}
	}
}
