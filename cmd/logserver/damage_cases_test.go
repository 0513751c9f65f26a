package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// A target is the files of one class. The log signs on top of those at its
// right edge: damage there is refused, or healed, and never carried on.
type target struct {
	class string
	edge  bool
	files []string // below the log's folder
}

// targets sorts the files of the specimen.
func (s *specimen) targets(t testing.TB) []target {
	t.Helper()
	classes := map[string]*target{}
	tail := s.tail(t)
	size := uint64(len(s.entries))
	must(t, fs.WalkDir(os.DirFS(s.dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		class, edge := classOf(name, tail, size)
		if class == "" {
			return nil
		}
		if classes[class] == nil {
			classes[class] = &target{class: class, edge: edge}
		}
		classes[class].files = append(classes[class].files, name)
		return nil
	}))
	var all []target
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		all = append(all, *classes[class])
	}
	return all
}

// tail finds the segment that the journal ends in: those behind it are spares, whose headers are zeros.
func (s *specimen) tail(t testing.TB) (name string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(s.dir, "data", "journal", "segments", "*.seg"))
	must(t, err)
	for _, segment := range segments {
		if read(t, segment)[0] != 0 {
			name = filepath.Base(segment)
		}
	}
	return name
}

func classOf(name, tail string, size uint64) (class string, edge bool) {
	dir, base := filepath.Split(name)
	switch dir {
	case "anchor/":
		return "anchor", base == "anchor"
	case "data/state/":
		return "recovery point", base == "recovery"
	case "data/state/checkpoints/":
		return "checkpoint store", true
	case "data/journal/":
		return "journal identity", base == "journal"
	case "data/journal/segments/":
		switch {
		case base == tail:
			return "journal, last segment", true
		case base > tail:
			return "journal, spare segments", true
		}
		return "journal, older segments", false
	case "data/journal/keys/":
		return "key slots", false
	case "data/journal/tables/":
		return "journal tables", false
	case "data/index/":
		return "index", false
	}
	switch {
	case strings.HasPrefix(name, "data/journal/large/"):
		return "large payloads", false
	case name == "data/tiles/checkpoint":
		return "published checkpoint", true
	case !strings.HasPrefix(name, "data/tiles/"):
		return "", false // configuration, signing keys, locks
	}
	id, err := log.ParseTilePath(strings.TrimPrefix(name, "data/tiles/"))
	kind := fmt.Sprintf("level %d", id.Level)
	if id.IsBundle() {
		kind = "bundles"
	}
	switch full := size >> ((max(id.Level, 0) + 1) * log.TileHeight); {
	case err != nil:
		return "", false
	case id.Width < log.TileWidth:
		return kind + ", partial", true
	case id.Index+1 == full:
		return kind + ", last full", true
	}
	return kind + ", older", false
}

// trials lists what is done to copies of the specimen: each thing that can
// befall a file as a whole, each mixture of ages, and as many flipped bits as
// make up the number, the same for each class of files.
func (s *specimen) trials(t testing.TB, number int, draw *rand.Rand) []trial {
	t.Helper()
	targets := s.targets(t)
	all := s.mixtures()
	all = append(all, forgeries(s)...)
	for _, target := range targets {
		for _, name := range target.files {
			all = append(all, s.misfortunes(t, target, name, targets, draw)...)
		}
	}
	if len(all) > number/2 {
		draw.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:number/2]
	}
	for i := 0; len(all) < number; i++ {
		target := targets[i%len(targets)]
		name := target.files[draw.IntN(len(target.files))]
		if used := s.used(t, name); used > 0 {
			at, bit := draw.IntN(used), draw.IntN(8)
			all = append(all, trial{target.class, fmt.Sprintf("bit %d of byte %d of %s flipped", bit, at, name), change(name, func(b []byte) []byte {
				b[at] ^= 1 << bit
				return b
			}), target.edge, false})
		} else {
			all = append(all, trial{"undamaged", "nothing", func(string) error { return nil }, true, false})
		}
	}
	return all
}

// used is the length of a file up to its last byte that is not zero, and a sector more.
func (s *specimen) used(t testing.TB, name string) int {
	t.Helper()
	b := read(t, filepath.Join(s.dir, name))
	return min(len(b), len(bytes.TrimRight(b, "\x00"))+512)
}

// change rewrites a file.
func change(name string, f func([]byte) []byte) func(dir string) error {
	return func(dir string) error {
		file := filepath.Join(dir, name)
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return os.WriteFile(file, f(b), 0o600)
	}
}

// misfortunes are what happens to a file as a whole.
func (s *specimen) misfortunes(t testing.TB, of target, name string, targets []target, draw *rand.Rand) (all []trial) {
	t.Helper()
	used := s.used(t, name)
	if used == 0 {
		return nil
	}
	add := func(what string, f func([]byte) []byte) {
		all = append(all, trial{of.class, name + " " + what, change(name, f), of.edge, false})
	}
	at := draw.IntN(used)
	add(fmt.Sprintf("cut to %d bytes", at), func(b []byte) []byte { return b[:at] })
	add("cut by a byte", func(b []byte) []byte { return b[:len(b)-1] })
	add("emptied", func([]byte) []byte { return nil })
	add("all zeros", func(b []byte) []byte { return make([]byte, len(b)) })
	sector := at / 512 * 512
	add(fmt.Sprintf("with zeros in sector %d", sector), func(b []byte) []byte { clear(b[sector:min(sector+512, len(b))]); return b })
	add("grown by a sector", func(b []byte) []byte { return append(b, make([]byte, 512)...) })
	all = append(all, trial{of.class, name + " deleted", func(dir string) error { return os.Remove(filepath.Join(dir, name)) }, of.edge, false})
	other := targets[draw.IntN(len(targets))]
	for _, with := range []string{of.files[draw.IntN(len(of.files))], other.files[draw.IntN(len(other.files))]} {
		b := read(t, filepath.Join(s.dir, with))
		add("with the bytes of "+with, func([]byte) []byte { return b })
	}
	for _, older := range s.older {
		if b, err := os.ReadFile(filepath.Join(older, name)); err == nil {
			add("as in "+filepath.Base(older), func([]byte) []byte { return b })
		}
	}
	return all
}

// agedParts are the parts of a log's folder that may come from backups of different ages.
var agedParts = []string{"anchor", "data/journal", "data/state/recovery", "data/state/checkpoints", "data/tiles", "data/index", "data/journal/keys"}

// mixtures are all ways to restore some parts from an older copy, and to lose
// them. Where everything that is not derived is of one age, nothing on this
// machine can tell (SECURITY.md).
func (s *specimen) mixtures() (all []trial) {
	const truth = 1<<0 | 1<<1 | 1<<3 | 1<<4 // a recovery point moves seldom, and need not be newer
	for set := 1; set < 1<<len(agedParts); set++ {
		var names []string
		for i, name := range agedParts {
			if set>>i&1 == 1 {
				names = append(names, name)
			}
		}
		for _, older := range s.older {
			if set&truth == truth {
				continue
			}
			all = append(all, trial{"mixture of ages", fmt.Sprintf("%v as in %s", names, filepath.Base(older)), func(dir string) error {
				// Keys lie inside the journal, and are of the age that their own bit says.
				keep := filepath.Join(dir, "keys.kept")
				if err := os.Rename(filepath.Join(dir, "data/journal/keys"), keep); err != nil {
					return err
				}
				for _, name := range names[:len(names)-set>>6] {
					if err := replace(filepath.Join(dir, name), filepath.Join(older, name)); err != nil {
						return err
					}
				}
				if set>>6 == 1 {
					keep = filepath.Join(older, "data/journal/keys")
				}
				return replace(filepath.Join(dir, "data/journal/keys"), keep)
			}, set>>6 == 0, set>>3&1 == 1})
		}
		all = append(all, trial{"parts lost", fmt.Sprintf("%v lost", names), func(dir string) error {
			for _, name := range names {
				if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
					return err
				}
			}
			return nil
		}, set>>6 == 0, set>>3&1 == 1})
	}
	return all
}

// replace puts a copy of a file or folder in the place of another.
func replace(name, by string) error {
	if err := os.RemoveAll(name); err != nil {
		return err
	}
	return copyTree(name, by)
}

// forgeries change what the anchor and the recovery point say, with a sum that fits.
func forgeries(s *specimen) (all []trial) {
	slots := func(name string, f func(slot []byte)) func(string) error {
		return change(name, func(b []byte) []byte {
			for _, at := range []int{0, 4096} {
				slot := b[at:][:512]
				f(slot)
				sum := sha256.Sum256(slot[:512-32])
				copy(slot[512-32:], sum[:])
			}
			return b
		})
	}
	for _, file := range []string{"anchor/anchor", "data/state/recovery"} {
		for what, f := range map[string]func([]byte){
			"another root":       func(slot []byte) { slot[40] ^= 1 },
			"a size one less":    func(slot []byte) { slot[39]-- },
			"a size one more":    func(slot []byte) { slot[39]++ },
			"size 0":             func(slot []byte) { clear(slot[32:40]) },
			"a time to come":     func(slot []byte) { slot[73] = 1 },
			"another log's name": func(slot []byte) { slot[80] ^= 1 },
		} {
			all = append(all, trial{"forged state", file + " with " + what, slots(file, f), true, false})
		}
	}
	return all
}

// A tally counts outcomes.
type tally struct {
	mu     sync.Mutex
	counts map[string]map[outcome]int
	why    map[string]string // an example of each
}

func (y *tally) add(class string, o outcome, why error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.counts[class] == nil {
		y.counts[class] = map[outcome]int{}
	}
	y.counts[class][o]++
	if why != nil {
		first, _, _ := strings.Cut(why.Error(), "\n")
		y.why[class+": "+string(o)] = first
	}
}

// expected are outcomes that must be among those of a class: else the trials do not hit what they mean to.
var expected = map[string]outcome{
	"anchor": refused, "recovery point": refused, "checkpoint store": refused, "journal identity": refused, "journal, last segment": refused,
	"level 0, last full": refused, "bundles, last full": refused, "forged state": refused, "mixture of ages": refused, "parts lost": refused,
	"key slots": found, "large payloads": found, "bundles, older": found, "journal, older segments": found,
}

// damageCopies runs trials on copies of a log that was closed and of one that was killed.
func damageCopies(t *testing.T, number int) {
	y := tally{counts: map[string]map[outcome]int{}, why: map[string]string{}}
	t.Run("copies", func(t *testing.T) {
		for name, killed := range map[string]bool{"closed": false, "killed": true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				newSpecimen(t, killed).damage(t, number/2, &y)
			})
		}
	})
	for _, class := range slices.Sorted(maps.Keys(y.counts)) {
		t.Logf("%-26s %v", class, y.counts[class])
	}
	for _, what := range slices.Sorted(maps.Keys(y.why)) {
		t.Logf("%s, for one: %.250s", what, y.why[what])
	}
	for class, want := range expected {
		if y.counts[class][want] == 0 {
			t.Errorf("none was %s of class %q", want, class)
		}
	}
	if undamaged := y.counts["undamaged"]; undamaged[whole] == 0 || undamaged[refused]+undamaged[found] > 0 {
		t.Errorf("of undamaged copies: %v", undamaged)
	}
	t.Logf("%d copies, damaged or of mixed ages: no head of another history, no damage at the right edge that is served", number)
}

// damage runs trials, as many at a time as there are processors.
func (s *specimen) damage(t *testing.T, number int, y *tally) {
	seed := rand.Uint64()
	t.Logf("drawn with seed %d", seed)
	work := make(chan trial)
	var wg sync.WaitGroup
	for n := range runtime.GOMAXPROCS(0) {
		dir := filepath.Join(filepath.Dir(s.dir), fmt.Sprintf("trial%d", n))
		wg.Go(func() {
			for tr := range work {
				o, why, err := s.run(t.Context(), t, dir, tr)
				if err != nil {
					t.Errorf("%s: %s: %v", tr.class, tr.what, err)
				}
				y.add(tr.class, o, why)
			}
		})
	}
	for _, tr := range s.trials(t, number, rand.New(rand.NewPCG(seed, 0))) {
		work <- tr
	}
	close(work)
	wg.Wait()
}

func TestADamagedLogNeverSignsAnotherHistory(t *testing.T) { damageCopies(t, damages) }

func TestADamagedLogNeverSignsAnotherHistoryNightly(t *testing.T) {
	damageCopies(t, nightly(damagesNightly))
}
