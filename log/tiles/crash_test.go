package tiles

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// A verdict takes the place of a test in a world of which there are many: it collects what is wrong.
type verdict struct {
	testing.TB
	bad []error
}

// fatal is what a verdict panics with.
type fatal struct{ error }

func (v *verdict) Helper() {}

func (v *verdict) Errorf(format string, args ...any) {
	v.bad = append(v.bad, fmt.Errorf(format, args...))
}

func (v *verdict) Fatal(args ...any) { panic(fatal{errors.New(fmt.Sprint(args...))}) }

// judge calls do with a verdict and returns what is wrong.
func judge(do func(*verdict) error) (err error) {
	v := &verdict{}
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(fatal)
			if !ok {
				panic(p)
			}
			err = errors.Join(append(v.bad, f.error)...)
		}
	}()
	err = do(v)
	return errors.Join(append(v.bad, err)...)
}

// seal signs in no time: crash tests sign millions of heads, and whoever could forge one is not what they look for.
type seal struct{}

func (seal) Name() string    { return testOrigin }
func (seal) KeyHash() uint32 { return 7 }

func (seal) Sign(msg []byte) ([]byte, error) {
	sum := sha256.Sum256(msg)
	return sum[:], nil
}

func (seal) Verify(msg, sig []byte) bool { return sha256.Sum256(msg) == [32]byte(sig) }

// explorer looks at crashes.
type explorer struct {
	wrap   func(*crashfs.FS) disk.FS // between tree and file system, to plant faults
	kill   bool                      // every other crash is the end of the process alone
	fails  bool                      // a call of each life fails; nothing is looked at before
	damage func(*crashfs.FS)         // done to every state
	seeds  int                       // crash states per change
	crashfs.Count
}

func (e *explorer) config(w *world, f *crashfs.FS) Config {
	c := w.config(f)
	c.KeepPartials, c.storeBytes = 2, 1024
	if e.wrap != nil {
		c.FS = e.wrap(f)
	}
	return c
}

// newCrashWorld is a world with a fast signer, and a log of some entries in a file system.
func (e *explorer) newCrashWorld(t testing.TB, seed uint64, size int) (*world, *crashfs.FS) {
	w := &world{t: t, src: newSource(), roots: map[uint64]log.Hash{}, signer: seal{}, verifier: seal{}}
	f := crashfs.New(seed)
	must(t, Create(e.config(w, f)))
	s, err := w.open(e.config(w, f))
	must(t, err)
	must(t, s.all(size))
	must(t, s.tree.Close())
	return w, f
}

// after returns what the world knows, for one of the futures that it may have.
func (w *world) after(t testing.TB) *world {
	w.src.mu.Lock()
	defer w.src.mu.Unlock()
	src := newSource()
	src.entries, src.hashes = slices.Clip(w.src.entries), slices.Clip(w.src.hashes)
	return &world{
		t: t, signer: w.signer, verifier: w.verifier, src: src,
		roots: maps.Clone(w.roots), largest: w.largest, published: w.published, seen: slices.Clip(w.seen),
	}
}

// explore runs one life, and at each of its changes looks at states that a crash could leave.
func (e *explorer) explore(seed uint64, moves int) {
	rng := rand.New(rand.NewPCG(seed, 2))
	err := judge(func(v *verdict) error {
		w, f := e.newCrashWorld(v, seed, []int{3, 250, 254, 508}[rng.IntN(4)])
		f.OnOp(func(op int, name string) {
			if !e.fails || f.Failed() > 0 {
				e.look(f, w, seed, op, name)
			}
		})
		if e.fails {
			f.FailAt(1+rng.IntN(300), crashfs.EIO, false)
		}
		s, err := w.open(e.config(w, f))
		if err == nil {
			err = errors.Join(e.live(s, rng, moves), s.tree.Close())
		}
		if e.fails && errors.Is(err, syscall.EIO) {
			f.OnOp(nil)
			e.look(f, w, seed, f.Ops(), f.Changed())
			return nil
		}
		return err
	})
	if err != nil {
		e.Bad = append(e.Bad, fmt.Errorf("seed %d: %w", seed, err))
	}
}

func (e *explorer) look(f *crashfs.FS, w *world, seed uint64, op int, name string) {
	for n := range e.seeds {
		s := seed<<32 | uint64(op)<<12 | uint64(n)
		e.Add(part(name), false)
		after := f.After(s)
		if e.kill && n%2 == 0 {
			after = f.Restart(s)
		}
		if e.damage != nil {
			e.damage(after)
		}
		err := judge(func(v *verdict) error { return e.survive(after, w.after(v), rand.New(rand.NewPCG(s, 3)), 0) })
		if err != nil {
			e.Bad = append(e.Bad, fmt.Errorf("seed %d, change %d of %s, state %d: %w", seed, op, name, n, err))
		}
	}
}

// live does what rounds, publisher and trickle do, in some order.
func (e *explorer) live(s *steps, rng *rand.Rand, moves int) error {
	for range moves {
		var err error
		switch roll := rng.IntN(10); {
		case roll < 4:
			s.w.src.add([]int{1, 2, 5, 60}[rng.IntN(4)])
			err = s.round()
		case roll < 7:
			err = s.publish()
		case roll < 9:
			err = s.sync()
		default:
			if err = s.tree.anchor.settle(); err != nil {
				err = s.tree.fail(err)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// survive opens, which nothing that a crash leaves may hinder, looks at everything, lives on a little, and sometimes
// crashes again in the middle of that.
func (e *explorer) survive(f *crashfs.FS, w *world, rng *rand.Rand, depth int) error {
	again := depth < 2 && rng.IntN(2) == 0
	if again {
		f.CrashAt(1 + rng.IntN(25))
	}
	s, err := w.open(e.config(w, f))
	recovering := err != nil
	if err == nil {
		err = errors.Join(e.live(s, rng, 1+rng.IntN(4)), s.tree.Close())
	}
	if again && (err == nil || errors.Is(err, crashfs.ErrCrashed)) {
		e.Add(part(f.Changed()), recovering)
		return e.survive(f.After(rng.Uint64()), w, rng, depth+1)
	}
	if err != nil {
		return err
	}
	return w.whole(e.config(w, f), rng.IntN(8) == 0)
}

// whole opens a log once more and compares it with everything that anybody has seen of it. A thorough look also derives
// it again.
func (w *world) whole(c Config, thorough bool) error {
	s, err := w.open(c)
	if err != nil {
		return err
	}
	for _, size := range w.seen {
		msg, err := s.tree.PublishedAt(size)
		if err != nil {
			return fmt.Errorf("checkpoint that was published: %w", err)
		}
		if cp, err := log.OpenCheckpoint(msg, w.verifier); err != nil || cp.Size != size || cp.Root != w.src.rootAt(w.t, size) {
			return fmt.Errorf("checkpoint of size %d that was published is now %v, %w", size, cp, err)
		}
	}
	if thorough {
		w.check(s.tree)
	} else {
		w.checkTiles(s.tree)
	}
	return s.tree.Close()
}

// checkTiles compares what is served with the entries, without a proof for each.
func (w *world) checkTiles(tree *Tree) {
	head := tree.Head()
	if want := w.src.rootAt(w.t, head.Size); head.Root != want {
		w.t.Errorf("Head() = %v, the entries give root %v", head, want)
	}
	for index := uint64(0); index*log.TileWidth < head.Size; index++ {
		width := int(min(head.Size-index*log.TileWidth, log.TileWidth))
		data, err := tree.Tile(context.Background(), log.BundleID(index, width))
		if err != nil {
			w.t.Errorf("bundle %d: %v", index, err)
			return
		}
		entries, err := log.ParseBundle(data, width)
		must(w.t, err)
		for i, entry := range entries {
			if want := w.src.at(index*log.TileWidth + uint64(i)); string(entry) != string(want) {
				w.t.Errorf("entry %d of bundle %d is %q, want %q", i, index, entry, want)
			}
		}
	}
}

// part names what a file is of.
func part(name string) string {
	switch base := filepath.Base(name); {
	case strings.HasPrefix(base, "anchor"), strings.HasPrefix(base, "recovery"):
		return strings.TrimSuffix(base, tmpSuffix)
	case strings.Contains(name, "checkpoint"):
		return "checkpoints"
	}
	return "tiles"
}

// The tiles' share of the suite, in percent.
const crashShare = 18

// TestCrashes explores lives and the states that crashes in them leave, among them a second and third crash in the
// recovery from the first, and wants the log back: nothing refused without cause, no fork (the signer watches), every
// published checkpoint as it was.
func TestCrashes(t *testing.T) { explore(t, crashfs.Points(10_000, crashShare)) }

// TestCrashesNightly is TestCrashes at length.
func TestCrashesNightly(t *testing.T) { explore(t, crashfs.Points(20_000_000, crashShare)) }

func explore(t *testing.T, points int) {
	crashfs.Explore(t, "anchor and tiles", points, func(seed uint64, c *crashfs.Count) {
		e := explorer{seeds: 4, kill: seed%3 == 0, fails: seed%5 == 0}
		e.explore(seed, 12)
		*c = e.Count
	})
}

var (
	_ note.Signer   = seal{}
	_ note.Verifier = seal{}
)
