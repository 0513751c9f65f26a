package source

// A random is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom
// Number Generators, 2014). It is written out here so that the data never
// changes with a library.
type random struct{ state uint64 }

// newRandom gives every row of every table a sequence of its own: a row does
// not depend on how many are made before it.
func newRandom(seed uint64, table string, id int64) *random {
	r := &random{state: seed}
	for _, c := range []byte(table) {
		r.state = r.next() ^ uint64(c)
	}
	r.state = r.next() ^ uint64(id)
	r.next()
	return r
}

func (r *random) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below gives a number in [0, n). The bias of the remainder is below 2^-40 here.
func (r *random) below(n int) int { return int(r.next() % uint64(n)) }

// chance is true in perMille of a thousand cases.
func (r *random) chance(perMille int) bool { return r.below(1000) < perMille }

func pick[T any](r *random, from []T) T { return from[r.below(len(from))] }
