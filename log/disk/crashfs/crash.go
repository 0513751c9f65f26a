package crashfs

import (
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
)

// After returns the file system that a machine finds which loses power now. f is not changed.
func (f *FS) After(seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := New(seed)
	mode := a.rng.IntN(4)
	names := maps.Clone(f.durable)
	f.keepNames(a.rng, mode, names)
	for name, n := range names {
		if !reachable(names, name) {
			continue
		}
		c := &node{dir: n.dir, medium: n.medium, shared: true}
		n.shared = true
		if len(n.pending) > 0 {
			c.medium, c.shared = slices.Clone(n.medium), false
			for _, w := range n.pending {
				c.medium = w.tear(a.rng, mode, c.medium)
			}
		}
		c.live = c.medium
		a.live[name], a.durable[name] = c, c
	}
	return a
}

// Restart returns the file system that a new process finds after the old one was killed: nothing is lost, also not the
// page cache's memory of writes whose sync failed.
func (f *FS) Restart(seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := New(seed)
	copies := map[*node]*node{}
	clone := func(n *node) *node {
		if copies[n] == nil {
			n.shared, n.own = true, false
			c := *n
			c.pending = slices.Clone(n.pending)
			copies[n] = &c
		}
		return copies[n]
	}
	for name, n := range f.live {
		a.live[name] = clone(n)
	}
	for name, n := range f.durable {
		a.durable[name] = clone(n)
	}
	for _, c := range f.pending {
		a.pending = append(a.pending, &change{c.from, c.to, clone(c.node)})
	}
	return a
}

// modes of a crash, besides the mixed one: nothing unsynced survives, all of it does.
const (
	loseAll = 0
	keepAll = 1
)

// keepNames applies the surviving changes of names.
func (f *FS) keepNames(rng *rand.Rand, mode int, names map[string]*node) {
	keep := map[string]int{} // per directory, how many changes survive
	for _, c := range f.pending {
		for _, dir := range c.dirs() {
			keep[dir]++
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(keep)) {
		switch mode {
		case loseAll:
			keep[dir] = 0
		case keepAll:
		default:
			keep[dir] = rng.IntN(keep[dir] + 1)
		}
	}
	for _, c := range f.pending {
		survives := false
		for _, dir := range c.dirs() {
			survives = survives || keep[dir] > 0
			keep[dir]--
		}
		if survives {
			c.apply(names)
		}
	}
}

func (c *change) dirs() []string {
	switch {
	case c.from == "":
		return []string{filepath.Dir(c.to)}
	case c.to == "" || filepath.Dir(c.from) == filepath.Dir(c.to):
		return []string{filepath.Dir(c.from)}
	}
	return []string{filepath.Dir(c.from), filepath.Dir(c.to)}
}

func (c *change) apply(names map[string]*node) {
	if c.from != "" && names[c.from] == c.node {
		delete(names, c.from)
	}
	if c.to != "" {
		names[c.to] = c.node
	}
}

func reachable(names map[string]*node, name string) bool {
	for dir := filepath.Dir(name); dir != "." && dir != "/"; dir = filepath.Dir(dir) {
		if names[dir] == nil {
			return false
		}
	}
	return true
}

// tear applies what survives of a write.
func (w write) tear(rng *rand.Rand, mode int, b []byte) []byte {
	if mode == keepAll {
		return w.apply(b)
	}
	if w.data == nil {
		if mode != loseAll && rng.IntN(2) == 0 {
			return w.apply(b)
		}
		return b
	}
	for off, data := w.off, w.data; len(data) > 0; {
		n := min(int64(len(data)), sectorBytes-off%sectorBytes)
		part := write{off, data[:n]}
		switch roll := rng.IntN(8); {
		case mode == loseAll || roll < 3:
		case roll == 3:
			noise := make([]byte, n)
			for i := range noise {
				noise[i] = byte(rng.Uint32())
			}
			b = write{off, noise}.apply(b)
		default:
			b = part.apply(b)
		}
		off, data = off+n, data[n:]
	}
	return b
}

func (w write) apply(b []byte) []byte {
	if w.data == nil {
		if w.off <= int64(len(b)) {
			return b[:w.off]
		}
		return append(b, make([]byte, w.off-int64(len(b)))...)
	}
	if end := w.off + int64(len(w.data)); end > int64(len(b)) {
		b = append(b, make([]byte, end-int64(len(b)))...)
	}
	copy(b[w.off:], w.data)
	return b
}
