package journal

import "sync"

// recent keeps the latest entries in memory, in a ring of fixed size.
type recent struct {
	mu    sync.RWMutex
	ring  []byte // guarded by mu, as all below
	pos   uint64 // where the next entry goes, counted from the beginning of time; modulo len(ring) in the ring
	first uint64 // index of the first entry kept
	spans []span // of the entries kept; a ring too
	head  int    // place in spans of the first
	count int    // of spans in use
}

type span struct {
	pos    uint64
	length uint32
}

// spansPerByte: entries shorter than this on average leave part of the ring unused.
const bytesPerSpan = 256

func newRecent(bytes int) recent {
	return recent{ring: make([]byte, bytes), spans: make([]span, bytes/bytesPerSpan+1)}
}

// add takes the entries of a group as it was written.
func (c *recent) add(written []byte, g group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == 0 {
		c.first = g.first
	}
	for _, off := range g.offsets {
		b := written[int64(off)-g.at:]
		r, _, err := decodeRecord(b)
		if err != nil {
			panic("journal: wrote a record that it cannot read")
		}
		c.push(r.entry)
	}
}

func (c *recent) push(entry []byte) {
	size := uint64(len(c.ring))
	if at := c.pos % size; at+uint64(len(entry)) > size {
		c.pos += size - at // an entry is kept in one piece
	}
	for c.count > 0 && (c.count == len(c.spans) || c.spans[c.head].pos+size < c.pos+uint64(len(entry))) {
		c.head = (c.head + 1) % len(c.spans)
		c.count--
		c.first++
	}
	copy(c.ring[c.pos%size:], entry)
	c.spans[(c.head+c.count)%len(c.spans)] = span{c.pos, uint32(len(entry))}
	c.count++
	c.pos += uint64(len(entry))
}

// get returns copies of entries beginning with index from, none if it is not kept.
func (c *recent) get(from uint64, maxEntries, maxBytes int) [][]byte {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if from < c.first || from >= c.first+uint64(c.count) {
		return nil
	}
	skip := int(from - c.first)
	maxEntries = min(maxEntries, c.count-skip)
	total, n := 0, 0
	for ; n < maxEntries; n++ {
		length := int(c.at(skip + n).length)
		if n > 0 && total+length > maxBytes {
			break
		}
		total += length
	}
	entries, all := make([][]byte, n), make([]byte, 0, total)
	for i := range n {
		s := c.at(skip + i)
		at := s.pos % uint64(len(c.ring))
		begin := len(all)
		all = append(all, c.ring[at:at+uint64(s.length)]...)
		entries[i] = all[begin:len(all):len(all)]
	}
	return entries
}

func (c *recent) at(n int) span { return c.spans[(c.head+n)%len(c.spans)] }
