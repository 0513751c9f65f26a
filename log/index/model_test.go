package index

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/pipe-roll/piperoll/log"
)

// grow adds random events: of few names, so that they meet, and with windows
// crossed and skipped.
func grow(rng *rand.Rand, o *order, count int) {
	pick := func(names ...string) string { return names[rng.IntN(len(names))] }
	for range count {
		mig := pick("crm", "erp", "crm-2")
		stream := mig + "/" + pick("a", "b", "a/b")
		e := log.Event{Actor: pick("ann", "bob", "p:1"), Kind: pick("migration.load", "migration.reject", "audit.note", "x.own.kind"), Migration: mig, Stream: stream}
		for range rng.IntN(4) {
			e.Objects = append(e.Objects, log.Object{Name: pick("row", "row:1", "table", "o:2"), Role: pick("source", "target")})
		}
		by, later := pick("svc-1", "svc-2"), uint64(0)
		switch rng.IntN(12) {
		case 0:
			later = rng.Uint64N(5000)
		case 1:
			later = 1
		}
		var payload []byte
		switch s := o.streams[stream]; rng.IntN(20) {
		case 0:
			e.Kind, e.Migration, e.Stream = pick("access.token.created", "key.registered", "access.read", "payload.erased", "rules.waiver"), "log", "log/"+pick("a", "b")
		case 1:
			e.Kind, e.Migration, e.Stream = "log.refused", "log", "log/refused"
			e.Objects = refusedObjects(rng, o, stream)
		case 2:
			e.Kind = "migration.open"
			payload = log.MigrationOpen{Streams: []log.StreamOwner{{Owner: by, Stream: stream}}}.Marshal()
		case 3:
			e.Kind = pick("migration.close", "stream.close")
		default:
			if s == nil {
				e.Kind = "stream.open"
				payload = log.StreamOpen{Mode: log.ModeSigned, Owner: by, Keys: []log.PublicKey{{9}}}.Marshal()
			}
		}
		o.add(e, by, payload, later)
	}
}

// refusedObjects names a place, the next in the stream or not, or none.
func refusedObjects(rng *rand.Rand, o *order, stream string) []log.Object {
	var seq uint64 = 1
	if s := o.streams[stream]; s != nil {
		seq = s.Seq + 1
	}
	if rng.IntN(4) == 0 {
		seq++
	}
	hash := log.Hash{byte(rng.Uint32()), byte(rng.Uint32()), 0xab}
	objects := []log.Object{
		{Name: stream, Role: "stream"},
		{Name: strconv.FormatUint(seq, 10), Role: "seq"},
		{Name: hex.EncodeToString(hash[:]), Role: "event"},
	}
	switch rng.IntN(8) {
	case 0:
		return objects[:1]
	case 1:
		objects[1].Name = "0" + objects[1].Name
	case 2:
		objects[2].Name = strings.ToUpper(objects[2].Name)
	}
	return objects
}

// A model is the naive index: it looks at all entries.
type model struct {
	streams    map[string]log.Stream
	migrations map[string]log.Migration
	places     map[string]uint64
	hashes     map[log.Hash]uint64
	control    []uint64
	items      []Item
}

func modelOf(items []Item) model {
	m := model{
		streams: map[string]log.Stream{}, migrations: map[string]log.Migration{},
		places: map[string]uint64{}, hashes: map[log.Hash]uint64{}, items: items,
	}
	for _, it := range items {
		e := it.Entry.Event
		m.hashes[it.Hash] = it.Index
		m.places[fmt.Sprint(e.Stream, " ", e.Seq)] = it.Index
		s, ok := m.streams[e.Stream]
		if !ok {
			s = log.NewStream(origin, e.Stream)
		}
		var so *log.StreamOpen
		var mo *log.MigrationOpen
		if p, err := log.ParseStreamOpen(it.Payload); err == nil {
			so = &p
		} else if p, err := log.ParseMigrationOpen(it.Payload); err == nil {
			mo = &p
		}
		s.Advance(e, it.Hash, it.Index, so, it.Entry.Sig != nil || it.Entry.Log.Attested != "")
		m.streams[e.Stream] = s
		mig := m.migrations[e.Migration]
		mig.Advance(e, it.Entry.Log.By, mo)
		m.migrations[e.Migration] = mig
		if log.Control(e.Kind) {
			m.control = append(m.control, it.Index)
		}
		if e.Kind == "log.refused" && len(e.Objects) == 3 {
			m.refuse(e.Objects, it.Index)
		}
	}
	return m
}

func (m *model) refuse(objects []log.Object, index uint64) {
	name := objects[0].Name
	seq, err := strconv.ParseUint(objects[1].Name, 10, 64)
	raw, err2 := hex.DecodeString(objects[2].Name)
	if err != nil || err2 != nil {
		panic("bad refusal in test")
	}
	misspelled := objects[1].Name[0] == '0' || objects[2].Name != strings.ToLower(objects[2].Name)
	if s, seen := m.streams[name]; seen && !misspelled && !s.Closed && seq == s.Seq+1 {
		s.Refuse(seq, log.Hash(raw), index)
		m.streams[name] = s
		m.places[fmt.Sprint(name, " ", seq)] = index
	}
}

func (m *model) search(q Query) []uint64 {
	var found []uint64
	for _, it := range m.items {
		r := it.Entry.Log.Received
		if it.Index >= q.After && q.fits(it.Entry) && r >= q.FromMS && (q.ToMS == 0 || r <= q.ToMS) {
			found = append(found, it.Index)
		}
	}
	return found
}

// checkAgainst compares everything that the index answers with the model.
func checkAgainst(t testing.TB, x *Index, o *order) {
	t.Helper()
	m := modelOf(o.items[:x.Cursor()])
	for h, want := range m.hashes {
		if got, ok, err := x.ByHash(h); got != want || !ok || err != nil {
			t.Fatalf("ByHash(%x) = %d, %v, %v, want %d", h, got, ok, err, want)
		}
	}
	for place, want := range m.places {
		var name string
		var seq uint64
		if _, err := fmt.Sscan(place, &name, &seq); err != nil {
			t.Fatal(err)
		}
		if got, ok, err := x.ByPlace(name, seq); got != want || !ok || err != nil {
			t.Fatalf("ByPlace(%s) = %d, %v, %v, want %d", place, got, ok, err, want)
		}
	}
	for name, want := range m.streams {
		if got, ok, err := x.Stream(name); !reflect.DeepEqual(got, want) || !ok || err != nil {
			t.Fatalf("Stream(%s) = %+v, %v, %v, want %+v", name, got, ok, err, want)
		}
		if _, ok, err := x.ByPlace(name, want.Seq+1); ok || err != nil {
			t.Fatalf("ByPlace(%s, %d) = %v, %v, want none", name, want.Seq+1, ok, err)
		}
	}
	for name, want := range m.migrations {
		if got, ok, err := x.Migration(name); !reflect.DeepEqual(got, want) || !ok || err != nil {
			t.Fatalf("Migration(%s) = %+v, %v, %v, want %+v", name, got, ok, err, want)
		}
	}
	control := listed(t, x.Control)
	if !slices.Equal(control, m.control) {
		t.Fatalf("Control() = %v, want %v", control, m.control)
	}
	last, ok, err := x.LastControl()
	if err != nil || ok != (len(control) > 0) || ok && last != control[len(control)-1] {
		t.Fatalf("LastControl() = %d, %v, %v, want the last of %v", last, ok, err, control)
	}
}

func listed(t testing.TB, walk func(func(uint64) error) error) (all []uint64) {
	t.Helper()
	if err := walk(func(i uint64) error { all = append(all, i); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// allPages searches page by page.
func allPages(t testing.TB, x *Index, o *order, q Query) (found []uint64) {
	t.Helper()
	for {
		page, next, more, err := x.Search(t.Context(), q, o.entry)
		if err != nil || len(page) > q.Limit || next < q.After {
			t.Fatalf("Search(%+v) = %v, %d, %v, %v", q, page, next, more, err)
		}
		found = append(found, page...)
		if !more {
			return found
		}
		q.After = next
	}
}

func randomQuery(rng *rand.Rand, o *order) Query {
	some := func(names ...string) string {
		if rng.IntN(2) == 0 {
			return ""
		}
		return names[rng.IntN(len(names))]
	}
	q := Query{
		Migration: some("crm", "erp", "log", "none"), Stream: some("crm/a", "crm/a/b", "erp/b"),
		Kind: some("migration.", "migration.load", "x.", "x.own.kind", "x.own", "access."), Actor: some("ann", "bob"),
		Object: some("row", "row:1", "table", "crm/a"), By: some("svc-1", "svc-2"), Limit: 1 + rng.IntN(50),
	}
	size := len(o.items)
	if rng.IntN(3) == 0 {
		q.After = uint64(rng.IntN(size + 2))
	}
	if rng.IntN(3) == 0 {
		q.FromMS = o.items[rng.IntN(size)].Entry.Log.Received + uint64(rng.IntN(3)) - 1
	}
	if rng.IntN(3) == 0 {
		q.ToMS = max(q.FromMS, o.items[rng.IntN(size)].Entry.Log.Received+uint64(rng.IntN(3))-1)
	}
	return q
}

// Whatever happens to the index, crashes and deletion included, it answers
// like the model, and a check against the order finds nothing.
func TestModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
		fs := vfs.NewCrashableMem()
		o := newOrder()
		x := openOn(t, fs, "index")
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			switch rapid.SampledFrom([]string{"grow", "grow", "follow", "follow", "flush", "crash", "reopen", "delete", "search"}).Draw(r, "step") {
			case "grow":
				grow(rng, o, 1+rng.IntN(400))
			case "follow":
				followSome(t, x, o, 1+rng.IntN(500), 1+rng.IntN(200))
			case "flush":
				if err := x.db.Flush(); err != nil {
					t.Fatal(err)
				}
			case "crash":
				before := x.Cursor()
				after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
				closeIndex(t, x)
				fs = after
				if x = openOn(t, fs, "index"); x.Cursor() > before {
					t.Fatalf("Cursor() = %d after a crash at %d", x.Cursor(), before)
				}
			case "reopen":
				before := x.Cursor()
				closeIndex(t, x)
				if x = openOn(t, fs, "index"); x.Cursor() != before {
					t.Fatalf("Cursor() = %d after Close at %d", x.Cursor(), before)
				}
			case "delete":
				closeIndex(t, x)
				if err := fs.RemoveAll("index"); err != nil {
					t.Fatal(err)
				}
				x = openOn(t, fs, "index")
			}
			m := modelOf(o.items[:x.Cursor()])
			for range 20 {
				q := randomQuery(rng, o)
				if got, want := allPages(t, x, o, q), m.search(q); !slices.Equal(got, want) {
					t.Fatalf("Search(%+v) = %v, want %v", q, got, want)
				}
			}
		}
		checkAgainst(t, x, o)
		checkWhole(t, x, o)
		closeIndex(t, x)
	})
}

func openOn(t testing.TB, fs vfs.FS, dir string) *Index {
	t.Helper()
	c := testConfig(t, dir)
	c.fs = fs
	x, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func closeIndex(t testing.TB, x *Index) {
	t.Helper()
	if err := errors.Join(x.Close(), x.Close()); err != nil {
		t.Fatal(err)
	}
}

// followSome applies up to count entries in batches of at most batch.
func followSome(t testing.TB, x *Index, o *order, count, batch int) {
	t.Helper()
	from := x.Cursor()
	items := o.items[from:min(from+uint64(count), uint64(len(o.items)))]
	for chunk := range slices.Chunk(items, batch) {
		if err := x.Apply(chunk); err != nil {
			t.Fatal(err)
		}
	}
}

// checkWhole runs the check of fsck, and wants no difference.
func checkWhole(t testing.TB, x *Index, o *order) {
	t.Helper()
	for _, d := range differences(t, x, o.items) {
		t.Errorf("check: %s %s", d.Key, d.Fault)
	}
}

func differences(t testing.TB, x *Index, items []Item) (all []Difference) {
	t.Helper()
	c, err := x.NewCheck(t.TempDir() + "/check")
	if err != nil {
		t.Fatal(err)
	}
	for chunk := range slices.Chunk(items, 100) {
		if err := c.Apply(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Compare(t.Context(), 1000, func(d Difference) { all = append(all, d) }); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}
