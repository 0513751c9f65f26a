package tiles

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// troubled is a life on a disk that fails: the tree says so and signs and publishes nothing more, or is unharmed. It
// returns what is left.
func (e *explorer) troubled(v *verdict, x crashfs.Trouble) (*crashfs.FS, *world, error) {
	w, f := e.newCrashWorld(v, 5, 254)
	f.Trouble(x)
	s, err := w.open(e.config(w, f))
	if err != nil {
		if errors.Is(err, ErrRefused) && f.Failed() == 0 {
			return f, w, err
		}
		return f, w, nil
	}
	if err := e.live(s, rand.New(rand.NewPCG(6, 2)), 20); err != nil {
		if f.Failed() == 0 {
			return f, w, err
		}
		f.Heal()
		signed := len(w.roots)
		w.src.add(1)
		if err := s.round(); err == nil || s.tree.Err() == nil || len(w.roots) != signed {
			return f, w, fmt.Errorf("a tree that has failed goes on: round() = %w, Err() = %w", err, s.tree.Err())
		}
	}
	f.Heal()
	_ = s.tree.Close() // it may repeat what failed
	return f, w, nil
}

// recovered opens after a fault, in a machine that lost power or in a new process, lives on, loses power and is whole.
func (e *explorer) recovered(v *verdict, f *crashfs.FS, w *world, x crashfs.Trouble, state uint64) error {
	after := f.After(state)
	if state%2 == 0 {
		after = f.Restart(state)
	}
	rng := rand.New(rand.NewPCG(state, uint64(x.Call)))
	w = w.after(v)
	s, err := w.open(e.config(w, after))
	if err == nil {
		w.src.add(1)
		err = errors.Join(e.live(s, rng, 3), s.round(), s.publish())
	}
	if err == nil {
		err = w.whole(e.config(w, after.After(rng.Uint64())), x.Call%8 == 0)
	}
	return err
}

// TestFaults makes each call of a life fail, in each way, once or from then on. Then the power is lost, or the process is
// killed and the next one loses it.
func TestFaults(t *testing.T) {
	crashfs.Hurry(t)
	e, tried := &explorer{}, 0
	crashfs.EachTrouble(func(x crashfs.Trouble) (more bool) {
		err := judge(func(v *verdict) error {
			f, w, err := e.troubled(v, x)
			more = f.Failed() > 0
			for state := uint64(0); state < 2 && err == nil; state++ {
				tried++
				err = e.recovered(v, f, w, x, state)
			}
			return err
		})
		if err != nil {
			t.Fatalf("%v: %v", x, err)
		}
		return more
	})
	t.Logf("%d states after a fault", tried)
}

// TestFaultsInRecovery makes each call of an opening fail, after a crash at several places, and opens again.
func TestFaultsInRecovery(t *testing.T) {
	crashfs.Hurry(t)
	e, tried := &explorer{}, 0
	for _, at := range []int{5, 25, 45, 1 << 20} {
		err := judge(func(v *verdict) error {
			w, f := e.newCrashWorld(v, 5, 254)
			f.CrashAt(at)
			s, err := w.open(e.config(w, f))
			if err == nil {
				err = e.live(s, rand.New(rand.NewPCG(6, 2)), 20)
			}
			if err != nil && !errors.Is(err, crashfs.ErrCrashed) {
				return err
			}
			crashfs.EachTrouble(func(x crashfs.Trouble) bool {
				tried++
				g, err := e.unwell(v, f, w, x)
				if err != nil {
					v.Errorf("crash at change %d, %v: %w", at, x, err)
				}
				return g.Failed() > 0
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d states after a fault in a recovery", tried)
}

// unwell opens after a crash on a disk that fails, then heals: it opens and goes on, or refuses, and opens the next time.
func (e *explorer) unwell(v *verdict, f *crashfs.FS, w *world, x crashfs.Trouble) (*crashfs.FS, error) {
	after := f.After(uint64(x.Call))
	if x.Call%2 == 0 {
		after = f.Restart(uint64(x.Call))
	}
	w = w.after(v)
	after.Trouble(x)
	s, err := w.open(e.config(w, after))
	after.Heal()
	if err == nil {
		err = errors.Join(s.publish(), s.tree.Close())
	} else {
		err = nil // it refused: the next start tells whether for good
	}
	if err == nil {
		err = e.recovered(v, after, w, x, uint64(x.Call+1))
	}
	return after, err
}

// TestPairsOfFaultsNightly makes each call of a life fail and, in the recovery from that, each call of the opening.
func TestPairsOfFaultsNightly(t *testing.T) {
	crashfs.Hurry(t)
	e, pairs := &explorer{}, 0
	crashfs.EachTrouble(func(x crashfs.Trouble) (more bool) {
		err := judge(func(v *verdict) error {
			f, w, err := e.troubled(v, x)
			more = f.Failed() > 0
			if err != nil {
				return err
			}
			crashfs.EachTrouble(func(y crashfs.Trouble) bool {
				pairs++
				g, err := e.unwell(v, f, w, y)
				if err != nil {
					v.Errorf("then %v: %w", y, err)
				}
				return g.Failed() > 0
			})
			return nil
		})
		if err != nil {
			t.Fatalf("%v: %v", x, err)
		}
		return more
	})
	t.Logf("%d pairs of faults", pairs)
}

// TestKilledThenPowerLost kills the process at each change of a life. What it left is in memory only; the next process
// builds on it, and loses power.
func TestKilledThenPowerLost(t *testing.T) {
	crashfs.Hurry(t)
	e := &explorer{}
	for n, killed := 1, true; killed; n++ {
		err := judge(func(v *verdict) error {
			w, f := e.newCrashWorld(v, 7, 250)
			f.CrashAt(n)
			s, err := w.open(e.config(w, f))
			for range 6 {
				if err == nil {
					w.src.add(2)
					err = errors.Join(s.round(), s.publish(), s.sync())
				}
			}
			if killed = errors.Is(err, crashfs.ErrCrashed); err != nil && !killed {
				return err
			}
			next := f.Restart(1)
			if s, err = w.open(e.config(w, next)); err == nil {
				w.src.add(1)
				err = errors.Join(s.round(), s.publish(), s.sync())
			}
			for state := uint64(0); state < 8 && err == nil; state++ {
				err = w.after(v).whole(e.config(w, next.After(state)), false)
			}
			return err
		})
		if err != nil {
			t.Fatalf("killed at change %d: %v", n, err)
		}
	}
}
