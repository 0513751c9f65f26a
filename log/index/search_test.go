package index

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// Every combination of filters, page by page of every size, gives what looking
// at all entries gives.
func TestSearchCombinations(t *testing.T) {
	o := randomOrder(11, 1500)
	x := open(t, t.TempDir())
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	m := modelOf(o.items)
	middle := o.items[700].Entry.Log.Received
	for combination := range 1 << 8 {
		q := Query{Limit: 1 + combination*7%60}
		set := func(bit int, field *string, name string) {
			if combination>>bit&1 == 1 {
				*field = name
			}
		}
		set(0, &q.Migration, "crm")
		set(1, &q.Stream, "crm/a")
		set(2, &q.Kind, []string{"migration.load", "migration."}[combination>>3&1])
		set(3, &q.Actor, "ann")
		set(4, &q.Object, "row")
		set(5, &q.By, "svc-1")
		if combination>>6&1 == 1 {
			q.FromMS = middle
		}
		if combination>>7&1 == 1 {
			q.ToMS = middle + 4000
		}
		want := m.search(q)
		if got := allPages(t, x, o, q); !slices.Equal(got, want) {
			t.Errorf("Search(%+v) = %v, want %v", q, got, want)
		}
		if combination < 1<<6 && len(want) == 0 {
			t.Errorf("Search(%+v): the test has no such entries", q)
		}
	}
}

// Bounds on received are exact to the millisecond, at the edges of seconds,
// in empty seconds and beyond both ends.
func TestSearchTimes(t *testing.T) {
	o := newOrder()
	for i := range 400 {
		o.add(log.Event{Actor: "ann", Kind: "x.tick", Migration: "crm", Stream: "crm/a"}, "svc", nil, []uint64{0, 1, 250, 999, 3001}[i*i%5])
	}
	x := open(t, t.TempDir())
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	m := modelOf(o.items)
	times := []uint64{1, o.items[0].Entry.Log.Received - 1, o.received + 1, o.received + 5000, 1 << 62}
	for _, it := range o.items {
		times = append(times, it.Entry.Log.Received, it.Entry.Log.Received+1, it.Entry.Log.Received/1000*1000)
	}
	for i, ms := range times {
		for _, q := range []Query{{FromMS: ms}, {ToMS: ms}, {FromMS: ms, ToMS: ms + uint64(i%1500)}} {
			q.Limit = 500
			if got, want := allPages(t, x, o, q), m.search(q); !slices.Equal(got, want) {
				t.Fatalf("Search(%+v) = %v, want %v", q, got, want)
			}
		}
	}
}

// Terms that never meet cost a bounded amount per call, and the walk gets to
// the end all the same.
func TestSearchIsBounded(t *testing.T) {
	o := newOrder()
	for i := range 3 * searchSeeks {
		// Windows of even number hold one stream, those of odd number the actor.
		e := log.Event{Actor: "bob", Kind: "x.tick", Migration: "crm", Stream: "crm/a"}
		if i>>windowBits&1 == 1 {
			e.Actor, e.Stream = "ann", "crm/b"
		}
		o.add(e, "svc", nil, 0)
	}
	o.add(log.Event{Actor: "ann", Kind: "x.tick", Migration: "crm", Stream: "crm/a"}, "svc", nil, 0)
	x := open(t, t.TempDir())
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 7, 40, searchSeeks} {
		q := Query{Actor: "ann", Stream: "crm/a", Limit: 10}
		pages := 0
		for more := true; more; pages++ {
			s := search{x: x, q: q, entry: o.entry, end: x.Cursor(), seeks: searchSeeks - limit}
			if err := s.open(); err != nil {
				t.Fatal(err)
			}
			next, err := s.run(t.Context())
			if err := errors.Join(err, s.close()); err != nil {
				t.Fatal(err)
			}
			if s.seeks > searchSeeks+8 {
				t.Errorf("%d seeks, at most %d", s.seeks, searchSeeks)
			}
			if next <= q.After && next < s.end {
				t.Fatalf("search from %d goes on at %d: it would never end", q.After, next)
			}
			q.After, more = next, next < s.end
			if !more && !slices.Equal(s.found, []uint64{o.Size() - 1}) {
				t.Errorf("last page is %v, want the last entry", s.found)
			}
		}
		if limit < 10 && pages < 5 {
			t.Errorf("%d pages with %d seeks each: not bounded", pages, limit)
		}
	}
}

func TestSearchRefusesMalformedQueries(t *testing.T) {
	o := randomOrder(12, 10)
	x := open(t, t.TempDir())
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for _, q := range []Query{
		{},
		{Limit: LimitMax + 1},
		{Limit: 1, FromMS: 2, ToMS: 1},
		{Limit: 1, Stream: "crm/a\x00\x00\x00\x00\x00\x00\x00\x00\x01"},
		{Limit: 1, Actor: "Zoë"},
	} {
		if _, _, _, err := x.Search(t.Context(), q, o.entry); !errors.Is(err, ErrQuery) {
			t.Errorf("Search(%+v) = %v, want ErrQuery", q, err)
		}
	}
	if err := x.Kinds("a\x00b", 0, func(uint64) error { return nil }); !errors.Is(err, ErrQuery) {
		t.Errorf("Kinds of no name = %v, want ErrQuery", err)
	}
	if _, ok, err := x.ByPlace("crm/a\x00", 1); ok || err != nil {
		t.Errorf("ByPlace of no name = %v, %v, want none", ok, err)
	}
}

// Errors of the reader of entries are passed on; an entry that is not what it
// was found by shows that the index is not the log's.
func TestSearchComparesWithEntries(t *testing.T) {
	o := randomOrder(13, 500)
	x := open(t, t.TempDir())
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("lost")
	none := func(uint64) (log.Entry, error) { return log.Entry{}, lost }
	received := o.items[250].Entry.Log.Received
	for _, q := range []Query{{Actor: "ann"}, {FromMS: received}, {ToMS: received}} {
		q.Limit = 10
		if got, next, more, err := x.Search(t.Context(), q, none); got != nil || next != 0 || more || !errors.Is(err, lost) {
			t.Errorf("Search(%+v) = %v, %d, %v, %v, want its reader's error", q, got, next, more, err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, _, _, err := x.Search(ended, Query{Limit: 1}, o.entry); !errors.Is(err, context.Canceled) {
		t.Errorf("Search without time = %v, want Canceled", err)
	}
	other := func(uint64) (log.Entry, error) { return o.items[0].Entry, nil }
	if _, _, _, err := x.Search(t.Context(), Query{Actor: "ann", Limit: 10}, other); !errors.Is(err, ErrBroken) {
		t.Errorf("Search with other entries = %v, want ErrBroken", err)
	}
	if _, _, err := x.LastControl(); !errors.Is(err, ErrBroken) {
		t.Errorf("LastControl of a broken index = %v, want ErrBroken", err)
	}
}

// Kinds lists a kind, or all that share a first word, from any place on.
func TestKinds(t *testing.T) {
	o := randomOrder(14, 2000)
	x := open(t, t.TempDir())
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"access.", "payload.erased", "migration.", "x.own.kind", "x.own.", "access", "log.open"} {
		for _, from := range []uint64{0, 1, 255, 256, 1000, 5000} {
			var want []uint64
			for _, it := range o.items {
				if k := it.Entry.Event.Kind; it.Index >= from && (k == kind || kindSpace(k) == kind) {
					want = append(want, it.Index)
				}
			}
			got := listed(t, func(each func(uint64) error) error { return x.Kinds(kind, from, each) })
			if !slices.Equal(got, want) {
				t.Errorf("Kinds(%q, %d) = %v, want %v", kind, from, got, want)
			}
		}
	}
	enough := errors.New("enough")
	if err := x.Control(func(uint64) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Control = %v, want the callback's error", err)
	}
	// Entries that come while the list is walked are left for the next time.
	count := 0
	if err := x.Kinds("log.", 0, func(uint64) error {
		if count++; count == 1 {
			for i := range 300 {
				o.add(log.Event{Actor: "log", Kind: "log.note", Migration: "log", Stream: fmt.Sprintf("log/n%d", i)}, "log", nil, 0)
			}
		}
		return x.CatchUp(t.Context(), o)
	}); err != nil {
		t.Fatal(err)
	}
	if all := listed(t, func(each func(uint64) error) error { return x.Kinds("log.", 0, each) }); len(all) != count+300 {
		t.Errorf("Kinds listed %d, then %d: want 300 more", count, len(all))
	}
}
