package crashfs

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The suite of all parts together; see the share crash of the Makefile.
var (
	suitePoints = flag.Int("crashpoints", 0, "crash points of the suite, of which each part takes its share; 0 is what the test takes by itself")
	suiteSeed   = flag.Uint64("crashseed", 1, "first seed to explore: shards of a long run take seeds far from each other")
)

// Points returns how many crash points a test is to look at: a share, in percent, of what the flag says or, without it,
// of all. Short tests take a tenth.
func Points(all, percent int) int {
	if *suitePoints > 0 {
		all = *suitePoints
	}
	if testing.Short() {
		all /= 10
	}
	return (all*percent + 99) / 100
}

// A Count is what was looked at: states that a crash left, which were recovered from and compared with a model.
type Count struct {
	Points int            // crashes
	Second int            // of them those in the middle of a recovery from a crash
	During map[string]int // crashes by the folder or file that was being changed
	Bad    []error        // states that were not as they should be
}

// Add counts one crash in the middle of a change of name.
func (c *Count) Add(name string, second bool) {
	if c.During == nil {
		c.During = map[string]int{}
	}
	c.Points++
	c.During[name]++
	if second {
		c.Second++
	}
}

func (c *Count) join(d Count) {
	c.Points += d.Points
	c.Second += d.Second
	for name, n := range d.During {
		c.During[name] += n
	}
	c.Bad = append(c.Bad, d.Bad...)
}

func (c *Count) String() string {
	names := slices.SortedFunc(maps.Keys(c.During), func(a, b string) int { return cmp.Compare(c.During[b], c.During[a]) })
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %d", name, c.During[name]))
	}
	return fmt.Sprintf("%d points, of them %d in a recovery (%s)", c.Points, c.Second, strings.Join(parts, ", "))
}

// Explore looks at lives, each with a seed of its own, on all processors until there were as many crash points, or some
// were bad. It reports what is bad, and logs one line that the share crash of the Makefile adds up.
func Explore(t *testing.T, part string, points int, life func(seed uint64, c *Count)) {
	t.Helper()
	Hurry(t)
	began := time.Now()
	var mu sync.Mutex
	all, next := Count{During: map[string]int{}}, *suiteSeed // guarded by mu
	var exploring sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		exploring.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			for all.Points < points && len(all.Bad) == 0 {
				seed := next
				next++
				mu.Unlock()
				var c Count
				life(seed, &c)
				mu.Lock()
				all.join(c)
			}
		})
	}
	exploring.Wait()
	for _, err := range all.Bad[:min(5, len(all.Bad))] {
		t.Error(err)
	}
	took := time.Since(began)
	t.Logf("crash points: %s: %v, %d seeds from %d, in %v, %.0f a second",
		part, &all, next-*suiteSeed, *suiteSeed, took.Round(time.Millisecond), float64(all.Points)/took.Seconds())
}

// Hurry makes a test of many small worlds fast: what lives is little and what dies is much, so that to collect it as
// often as usual would take most of the time. It is, where memory gets scarce.
func Hurry(t *testing.T) {
	t.Helper()
	percent, limit := debug.SetGCPercent(1600), debug.SetMemoryLimit(1<<30)
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
}
