package index

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// A migration is opened, worked on and closed; what the index says of it is
// what the order holds.
func TestStory(t *testing.T) {
	o := newOrder()
	opened := log.MigrationOpen{Streams: []log.StreamOwner{{Owner: "mover", Stream: "crm/rows"}}}
	streamOpen := log.StreamOpen{Mode: log.ModeLogKept, Owner: "mover"}
	o.add(log.Event{Actor: "ann", Kind: "stream.open", Migration: "crm", Stream: "crm/control"}, "boss", streamOpen.Marshal(), 5)
	o.add(log.Event{Actor: "ann", Kind: "migration.open", Migration: "crm", Stream: "crm/control"}, "boss", opened.Marshal(), 5)
	o.add(log.Event{Actor: "ann", Kind: "stream.open", Migration: "crm", Stream: "crm/rows"}, "mover", streamOpen.Marshal(), 5)
	for i := range 600 {
		o.add(log.Event{
			Actor: "ann", Kind: "migration.load", Migration: "crm", Stream: "crm/rows",
			Objects: []log.Object{{Name: fmt.Sprintf("row:%d", i%7), Role: "source"}, {Name: fmt.Sprintf("row:%d", i%7), Role: "target"}},
		}, "mover", nil, 7)
	}
	o.add(log.Event{Actor: "ann", Kind: "access.token.created", Migration: "log", Stream: "log/access"}, "boss", nil, 5)
	x := open(t, t.TempDir())
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := x.Cursor(); got != o.Size() {
		t.Fatalf("Cursor() = %d, want %d", got, o.Size())
	}
	for _, it := range o.items {
		if got, ok, err := x.ByHash(it.Hash); got != it.Index || !ok || err != nil {
			t.Errorf("ByHash of entry %d = %d, %v, %v", it.Index, got, ok, err)
		}
		if got, ok, err := x.ByPlace(it.Entry.Event.Stream, it.Entry.Event.Seq); got != it.Index || !ok || err != nil {
			t.Errorf("ByPlace of entry %d = %d, %v, %v", it.Index, got, ok, err)
		}
	}
	s, ok, err := x.Stream("crm/rows")
	if err != nil || !ok || s.Seq != 601 || s.Owner != "mover" || s.Tail != 600 {
		t.Errorf("Stream(crm/rows) = %+v, %v, %v", s, ok, err)
	}
	m, ok, err := x.Migration("crm")
	if err != nil || !ok || m.Owner != "boss" || len(m.Expected) != 1 {
		t.Errorf("Migration(crm) = %+v, %v, %v", m, ok, err)
	}
	if last, ok, err := x.LastControl(); last != 604 || !ok || err != nil {
		t.Errorf("LastControl() = %d, %v, %v, want 604", last, ok, err)
	}
	var control []uint64
	if err := x.Control(func(i uint64) error { control = append(control, i); return nil }); err != nil || !slices.Equal(control, []uint64{0, 604}) {
		t.Errorf("Control() = %v, %v, want 0 and 604", control, err)
	}
	found, next, more, err := x.Search(t.Context(), Query{Object: "row:3", Kind: "migration.", Limit: 10}, o.entry)
	if err != nil || len(found) != 10 || found[0] != 7 || !more || next != found[9]+1 {
		t.Errorf("Search() = %v, %d, %v, %v", found, next, more, err)
	}
}

// A refusal moves a stream exactly where an audit moves it.
func TestRefusals(t *testing.T) {
	refused := log.Hash{0xab}
	hash := fmt.Sprintf("%x", refused[:])
	place := func(stream, seq, hash string) []log.Object {
		return []log.Object{{Name: stream, Role: "stream"}, {Name: seq, Role: "seq"}, {Name: hash, Role: "event"}}
	}
	for name, c := range map[string]struct {
		objects   []log.Object
		submitted bool
		moves     bool
	}{
		"the next event":       {objects: place("crm/open", "2", hash), moves: true},
		"with another object":  {objects: append(place("crm/open", "2", hash), log.Object{Name: "row", Role: "about"}), moves: true},
		"of two streams":       {objects: append(place("crm/open", "2", hash), log.Object{Name: "crm/open", Role: "stream"})},
		"not the next":         {objects: place("crm/open", "3", hash)},
		"an earlier one":       {objects: place("crm/open", "1", hash)},
		"seq with a zero":      {objects: place("crm/open", "02", hash)},
		"hash in upper case":   {objects: place("crm/open", "2", strings.ToUpper(hash))},
		"not by the log":       {objects: place("crm/open", "2", hash), submitted: true},
		"of a closed stream":   {objects: place("crm/closed", "3", hash)},
		"of an unknown stream": {objects: place("crm/new", "1", hash)},
		"unknown, second":      {objects: place("crm/new", "2", hash)},
	} {
		o := newOrder()
		for _, stream := range []string{"crm/open", "crm/closed"} {
			o.add(log.Event{Actor: "ann", Kind: "stream.open", Migration: "crm", Stream: stream}, "mover", log.StreamOpen{Mode: log.ModeLogKept, Owner: "mover"}.Marshal(), 5)
		}
		o.add(log.Event{Actor: "ann", Kind: "stream.close", Migration: "crm", Stream: "crm/closed"}, "mover", nil, 5)
		it := o.add(log.Event{Actor: "log", Kind: "log.refused", Migration: "log", Stream: "log/refusals", Objects: c.objects}, "log", nil, 5)
		if c.submitted {
			it.Entry.Log.Attested = ""
		}
		x := open(t, t.TempDir())
		followSome(t, x, o, int(it.Index), 10)
		stream := c.objects[0].Name
		was, known, err := x.Stream(stream)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Apply([]Item{it}); err != nil {
			t.Fatal(err)
		}
		want := was
		if c.moves {
			want.Seq, want.Hash, want.Tail, want.Index = 2, refused, 2, it.Index
		}
		if got, ok, err := x.Stream(stream); !reflect.DeepEqual(got, want) || ok != known || err != nil {
			t.Errorf("%s: Stream() = %+v, %v, %v, want %+v", name, got, ok, err, want)
		}
		if at, ok, err := x.ByPlace(stream, was.Seq+1); ok != c.moves || ok && at != it.Index || err != nil {
			t.Errorf("%s: ByPlace() = %d, %v, %v", name, at, ok, err)
		}
	}
}
