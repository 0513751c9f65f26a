package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/pipe-roll/piperoll/log"
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

// TestErasedForGood: a sync in an erasure fails, and the process is killed. Its pages read as zeros, and no sync writes
// them any more. The next process repeats all erasures, as a server does, and then the power is lost.
func TestErasedForGood(t *testing.T) {
	e := &explorer{power: true}
	for seed := range uint64(8) {
		for call := 1; ; call++ {
			failed, err := e.erasedForGood(t, seed, call)
			if err != nil {
				t.Fatalf("seed %d, call %d of an erasure failed: %v", seed, call, err)
			}
			if !failed {
				break
			}
		}
	}
}

func (e *explorer) erasedForGood(t *testing.T, seed uint64, call int) (failed bool, err error) {
	f := crashfs.New(seed)
	j, err := Create(e.config(f))
	if err != nil {
		return false, err
	}
	var records []log.Record
	for range 3 {
		records = append(records, log.Record{Entry: []byte("entry"), Payload: &log.Payload{Bytes: []byte("a name")}})
	}
	if _, err := j.Append(t.Context(), append(records, log.Record{Entry: []byte("what orders the erasures")})); err != nil {
		return false, err
	}
	if err := j.Erase(0); err != nil {
		return false, err
	}
	f.FailAt(call, crashfs.EIO, false)
	failed = j.Erase(1) != nil
	again := f.Restart(1)
	if j, err = Open(e.config(again)); err != nil {
		return failed, err
	}
	for index := range uint64(2) {
		if err := j.Erase(index); err != nil {
			return failed, fmt.Errorf("repeat Erase(%d): %w", index, err)
		}
	}
	for state := range uint64(8) {
		after, err := Open(e.config(again.After(state)))
		if err != nil {
			return failed, fmt.Errorf("state %d: %w", state, err)
		}
		for index := range uint64(2) {
			if _, err := after.Payload(index); !errors.Is(err, ErrErased) {
				return failed, fmt.Errorf("state %d: Payload(%d) = %w, want ErrErased", state, index, err)
			}
		}
	}
	return failed, nil
}
