package index

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pipe-roll/piperoll/log"
)

// A Query asks for entries that fit all of its fields. Empty fields fit all.
type Query struct {
	Migration string
	Stream    string
	Kind      string // a kind, or the first word of kinds with its dot: "access."
	Actor     string
	Object    string // the name of an object, in any role
	By        string // the principal that sent it
	FromMS    uint64 // received at or after, Unix milliseconds
	ToMS      uint64 // received at or before, Unix milliseconds; 0 is open
	After     uint64 // the first index to consider: next of the page before
	Limit     int    // entries per page, 1 to [LimitMax]
}

// LimitMax is the largest Query.Limit.
const LimitMax = 10_000

// searchSeeks bounds the work of one Search, in postings looked up: some 20 ms
// when nothing has to be read from the disk.
const searchSeeks = 8192

// Search gives indexes of entries that fit q, in order, from those followed
// when it was called. entry reads an entry of the log: every hit is compared
// with its entry, and [ErrBroken] if they disagree.
//
// If more, the search goes on with After set to next; a page can be empty, as
// the work per call is bounded. Otherwise next is where entries that come
// later may be found. [ErrQuery] if q is malformed.
//
// The postings of q's terms are walked together, each going to the first
// window that the others allow, so the rarest term sets the pace.
func (x *Index) Search(ctx context.Context, q Query, entry func(index uint64) (log.Entry, error)) (indexes []uint64, next uint64, more bool, err error) {
	if err := q.validate(); err != nil {
		return nil, q.After, false, err
	}
	if err := x.enter(); err != nil {
		return nil, q.After, false, err
	}
	defer x.leave()
	s := search{x: x, q: q, entry: entry, end: x.Cursor()}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(); err != nil {
		return nil, q.After, false, fmt.Errorf("search: %w", x.judge(err))
	}
	next, err = s.run(ctx)
	if err != nil {
		return nil, q.After, false, fmt.Errorf("search: %w", x.judge(err))
	}
	return s.found, next, next < s.end, nil
}

func (q Query) validate() error {
	var errs []error
	for _, t := range q.terms() {
		// A name with a zero byte would reach into another name's keys.
		if !log.ValidName(t.name) {
			errs = append(errs, fmt.Errorf("%w: %q is not a name", ErrQuery, t.name))
		}
	}
	if q.Limit < 1 || q.Limit > LimitMax {
		errs = append(errs, fmt.Errorf("%w: limit %d, want 1 to %d", ErrQuery, q.Limit, LimitMax))
	}
	if q.ToMS != 0 && q.ToMS < q.FromMS {
		errs = append(errs, fmt.Errorf("%w: times from %d to %d", ErrQuery, q.FromMS, q.ToMS))
	}
	return errors.Join(errs...)
}

func (q Query) terms() []term {
	all := []term{
		{classObject, q.Object},
		{classInStream, q.Stream},
		{classActor, q.Actor},
		{classInMig, q.Migration},
		{classKind, q.Kind},
		{classBy, q.By},
	}
	return slices.DeleteFunc(all, func(t term) bool { return t.name == "" })
}

// fits compares an entry with the query. Times are apart: see inTime.
func (q Query) fits(e log.Entry) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	return is(q.Migration, e.Event.Migration) && is(q.Stream, e.Event.Stream) &&
		is(q.Actor, e.Event.Actor) && is(q.By, e.Log.By) &&
		(is(q.Kind, e.Event.Kind) || q.Kind == kindSpace(e.Event.Kind)) &&
		(q.Object == "" || slices.ContainsFunc(e.Event.Objects, func(o log.Object) bool { return o.Name == q.Object }))
}

// A search is one call of Search.
type search struct {
	x        *Index
	q        Query
	entry    func(index uint64) (log.Entry, error)
	begin    uint64 // first index to look at
	end      uint64 // first index not to look at
	postings []*posting
	found    []uint64
	seeks    int
}

func (s *search) open() error {
	s.begin = s.q.After
	if s.q.FromMS > 0 {
		from, err := s.firstAt(s.q.FromMS)
		if err != nil {
			return err
		}
		s.begin = max(s.begin, from)
	}
	if s.q.ToMS > 0 {
		end, err := s.firstAt(s.q.ToMS + 1)
		if err != nil {
			return err
		}
		s.end = end
	}
	for _, t := range s.q.terms() {
		p, err := s.x.openPosting(t)
		if err != nil {
			return err
		}
		s.postings = append(s.postings, p)
	}
	return nil
}

func (s *search) close() error {
	var errs []error
	for _, p := range s.postings {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// run finds a page, and gives the index from which to go on; s.end if all is
// found. A page that begins behind the end goes on where it was to begin.
func (s *search) run(ctx context.Context) (next uint64, err error) {
	for at := s.begin >> windowBits; at<<windowBits < s.end; at++ {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		members := fullWindow()
		at, err = s.align(at, &members)
		if err != nil {
			return 0, err
		}
		if at<<windowBits >= s.end || at == endOfPostings {
			break
		}
		if next, full, err := s.collect(at, members); err != nil || full {
			return next, err
		}
		if s.seeks > searchSeeks {
			return min(max(s.begin, (at+1)<<windowBits), s.end), nil
		}
	}
	return max(s.q.After, s.end), nil
}

// endOfPostings is beyond the window of any index.
const endOfPostings = ^uint64(0) >> windowBits

// align gives the first window at or after at that all postings have, and
// leaves in members the indexes that all of them have there.
func (s *search) align(at uint64, members *window) (uint64, error) {
	for settled := 0; settled < len(s.postings); {
		settled = 0
		for _, p := range s.postings {
			s.seeks++
			ok, err := p.seek(at)
			if err != nil {
				return 0, err
			}
			if !ok {
				return endOfPostings, nil
			}
			if p.at > at {
				at = p.at
				break
			}
			settled++
		}
		if s.seeks > searchSeeks && settled < len(s.postings) {
			*members = window{}
			// Nothing before at can fit: go on from there.
			return at - 1, nil
		}
	}
	for _, p := range s.postings {
		members.and(&p.members)
	}
	return at, nil
}

// collect adds the members of a window that fit, and says whether the page is
// full and where the next begins.
func (s *search) collect(at uint64, members window) (next uint64, full bool, err error) {
	for i, word := range members {
		for ; word != 0; word &= word - 1 {
			index := at<<windowBits | uint64(64*i+bits.TrailingZeros64(word))
			if index < s.begin || index >= s.end {
				continue
			}
			if len(s.postings) > 0 {
				e, err := s.entry(index)
				if err != nil {
					return 0, false, fmt.Errorf("read entry %d: %w", index, err)
				}
				if !s.q.fits(e) {
					return 0, false, fmt.Errorf("%w: entry %d does not have the names it is found by", ErrBroken, index)
				}
			}
			s.found = append(s.found, index)
			if len(s.found) == s.q.Limit {
				return index + 1, true, nil
			}
		}
	}
	return 0, false, nil
}

// firstAt gives the index of the first entry received at or after ms, s.end if
// there is none. Of each second the first entry is known; within the second
// the entries are asked.
func (s *search) firstAt(ms uint64) (index uint64, err error) {
	low, high, err := s.second(ms / 1000)
	if err != nil {
		return 0, err
	}
	for low < high {
		middle := low + (high-low)/2
		e, err := s.entry(middle)
		if err != nil {
			return 0, fmt.Errorf("read entry %d: %w", middle, err)
		}
		if e.Log.Received >= ms {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low, nil
}

// second gives the entries [low, high) received in a second; low == high, where
// they would be, if there are none.
func (s *search) second(second uint64) (low, high uint64, err error) {
	it, err := s.x.db.NewIter(&pebble.IterOptions{LowerBound: secondKey(second), UpperBound: prefixEnd([]byte{classSecond})})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	low, high = s.end, s.end
	if !it.First() {
		return low, high, it.Error()
	}
	begins, err := parseNumber(it.Key()[1:])
	if err != nil {
		return 0, 0, err
	}
	if low, err = parseNumber(it.Value()); err != nil {
		return 0, 0, err
	}
	low = min(low, s.end)
	if begins != second {
		return low, low, nil
	}
	if !it.Next() {
		return low, high, it.Error()
	}
	high, err = parseNumber(it.Value())
	return low, min(high, s.end), err
}
