package index

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pipe-roll/piperoll/log"
)

// Entries come while the index follows, and are searched as soon as Wait says
// so. The end of the context ends all.
func TestFollowLive(t *testing.T) {
	o := randomOrder(21, 100)
	x := open(t, t.TempDir())
	ctx, end := context.WithCancel(t.Context())
	followed := make(chan error)
	go func() { followed <- x.Follow(ctx, o) }()
	for range 300 {
		it := o.add(log.Event{Actor: "ann", Kind: "x.tick", Migration: "crm", Stream: "crm/live"}, "svc", nil, 1)
		if err := x.Wait(ctx, it.Index+1); err != nil {
			t.Fatal(err)
		}
		if got, _, _, err := x.Search(ctx, Query{Stream: "crm/live", After: it.Index, Limit: 1}, o.entry); err != nil || len(got) != 1 || got[0] != it.Index {
			t.Fatalf("Search = %v, %v, want %d", got, err, it.Index)
		}
	}
	waited := make(chan error)
	go func() { waited <- x.Wait(ctx, 1<<40) }()
	end()
	if err := <-followed; !errors.Is(err, context.Canceled) {
		t.Errorf("Follow = %v, want Canceled", err)
	}
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("Wait = %v, want Canceled", err)
	}
	checkAgainst(t, x, o)
	checkWhole(t, x, o)
}

// Deleted at any time, the index grows back equal, whatever the batches.
func TestDeletedIndexGrowsBackEqual(t *testing.T) {
	size := 6000
	if testing.Short() {
		size = 1500
	}
	o := randomOrder(22, size)
	dir := t.TempDir()
	followed(t, dir, o)
	x := open(t, dir)
	before := dump(t, x)
	closeIndex(t, x)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	x = open(t, dir)
	followSome(t, x, o, size+1, 17)
	if !bytes.Equal(dump(t, x), before) {
		t.Error("the index that grew back differs")
	}
	checkAgainst(t, x, o)
}

func dump(t testing.TB, x *Index) (all []byte) {
	t.Helper()
	it, err := x.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for it.First(); it.Valid(); it.Next() {
		all = append(append(append(all, it.Key()...), '='), it.Value()...)
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

// The log was restored from a backup: the index knows entries that are no
// longer, and starts afresh instead of answering from them.
func TestOtherHistory(t *testing.T) {
	size, kept := 10_000, 6_000
	if testing.Short() {
		size, kept = 1000, 600
	}
	o := randomOrder(23, size)
	older := &order{items: o.items[:kept], texts: o.texts[:kept]}
	grown := newOrder()
	grow(rand.New(rand.NewPCG(99, 1)), grown, size*6/5)
	// All events of the lost range were submitted again, and came back in order.
	again := &order{items: slices.Clone(o.items), texts: slices.Clone(o.texts)}
	for i := kept; i < len(again.items); i++ {
		again.items[i].Entry.Log.Received += 3_600_000
		again.items[i].Entry.Log.SkewMS += 3_600_000
		again.texts[i] = again.items[i].Entry.Marshal()
	}
	for name, now := range map[string]*order{"restored": older, "restored and grown": grown, "restored and submitted again": again} {
		x := open(t, t.TempDir())
		var text bytes.Buffer
		x.logger = slog.New(slog.NewTextHandler(&text, nil))
		if err := x.CatchUp(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if err := x.CatchUp(t.Context(), now); err != nil || x.Cursor() != now.Size() {
			t.Fatalf("%s: CatchUp = %v at %d, want %d", name, err, x.Cursor(), now.Size())
		}
		if !strings.Contains(text.String(), "emptied index") {
			t.Errorf("%s: logged %q", name, text.String())
		}
		checkAgainst(t, x, now)
		checkWhole(t, x, now)
		if _, ok, err := x.ByHash(o.items[size*9/10].Hash); ok != (now == again) || err != nil {
			t.Errorf("%s: ByHash of a lost entry = %v, %v", name, ok, err)
		}
		closeIndex(t, x)
	}
}

// A broken source stops following, with its reason; nothing is half applied.
type badSource struct {
	*order
	entries func(from uint64) ([][]byte, error)
}

func (b badSource) Entries(from uint64, _, _ int) ([][]byte, error) { return b.entries(from) }
func (b badSource) Payload(uint64) (log.Payload, error) {
	return log.Payload{}, errors.New("no payload")
}

func TestFollowBrokenSource(t *testing.T) {
	o := newOrder()
	o.add(log.Event{Actor: "ann", Kind: "stream.open", Migration: "crm", Stream: "crm/a"}, "svc", log.StreamOpen{Mode: log.ModeLogKept, Owner: "svc"}.Marshal(), 1)
	lost := errors.New("lost")
	for name, c := range map[string]struct {
		entries func(from uint64) ([][]byte, error)
		cursor  uint64
	}{
		"error":   {func(uint64) ([][]byte, error) { return nil, lost }, 0},
		"nothing": {func(uint64) ([][]byte, error) { return nil, nil }, 0},
		"garbage": {func(uint64) ([][]byte, error) { return [][]byte{o.texts[0], []byte("{}")}, nil }, 0},
		"payload": {func(from uint64) ([][]byte, error) { return o.texts[from : from+1], nil }, 1},
	} {
		x := open(t, t.TempDir())
		src := badSource{o, c.entries}
		if err := x.Follow(t.Context(), src); err == nil || x.Cursor() != c.cursor {
			t.Errorf("%s: Follow = %v at %d, want an error at %d", name, err, x.Cursor(), c.cursor)
		}
		if err := x.CatchUp(t.Context(), o); err != nil {
			t.Errorf("%s: CatchUp after it = %v", name, err)
		}
		if name != "payload" {
			if err := x.CatchUp(t.Context(), badSource{o, func(uint64) ([][]byte, error) { return [][]byte{[]byte("{}")}, lost }}); err == nil {
				t.Errorf("%s: CatchUp with an unreadable last entry = nil", name)
			}
			if err := x.CatchUp(t.Context(), badSource{o, func(uint64) ([][]byte, error) { return [][]byte{[]byte("{}")}, nil }}); !errors.Is(err, log.ErrMalformed) {
				t.Errorf("%s: CatchUp with a malformed last entry = %v", name, err)
			}
		}
		checkAgainst(t, x, o)
	}
}

// Items that do not go on, or that no fold can take, change nothing.
func TestApplyRefuses(t *testing.T) {
	o := randomOrder(24, 400)
	x := open(t, t.TempDir())
	if err := x.Apply(nil); err != nil {
		t.Fatal(err)
	}
	followSome(t, x, o, 200, 50)
	badStream, badMigration := o.items[200], o.items[200]
	for kind, it := range map[string]*Item{"stream.open": &badStream, "migration.open": &badMigration} {
		it.Entry.Event.Kind, it.Entry.Event.Payload, it.Payload = kind, &log.Ref{}, []byte("{}")
	}
	for name, items := range map[string][]Item{
		"behind":         o.items[199:210],
		"ahead":          o.items[201:210],
		"with a gap":     {o.items[200], o.items[202]},
		"bad stream":     {badStream},
		"bad migration":  {badMigration},
		"bad at the end": {o.items[200], o.items[201], o.items[205]},
	} {
		if err := x.Apply(items); err == nil || x.Cursor() != 200 {
			t.Errorf("Apply %s = %v at %d, want an error at 200", name, err, x.Cursor())
		}
		checkAgainst(t, x, o)
	}
	followSome(t, x, o, 201, 50)
	checkAgainst(t, x, o)
	checkWhole(t, x, o)
}

// A follower of a stalled index tries again each second, and no longer than
// its context lasts. Whoever only catches up is told.
func TestFollowStalled(t *testing.T) {
	o := randomOrder(25, 50)
	x := open(t, t.TempDir())
	x.stalled.Store(true)
	if err := x.CatchUp(t.Context(), o); !errors.Is(err, ErrStalled) {
		t.Errorf("CatchUp = %v, want ErrStalled", err)
	}
	ctx, end := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer end()
	if err := x.Follow(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Follow = %v, want DeadlineExceeded", err)
	}
	x.stalled.Store(false)
	if err := x.CatchUp(ctx, o); !errors.Is(err, context.DeadlineExceeded) || x.Cursor() != 0 {
		t.Errorf("CatchUp without time = %v at %d, want DeadlineExceeded at 0", err, x.Cursor())
	}
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// The caches are bounded: with more names than they hold, states are read back.
func TestManyStreamsAndMigrations(t *testing.T) {
	o := newOrder()
	for round := range 3 {
		for i := range 300 {
			mig := "shared"
			if i%2 == 0 {
				mig = "m" + strconv.Itoa(i)
			}
			kind := "x.tick"
			if i%7 == round {
				kind = "migration.close"
			}
			o.add(log.Event{Actor: "ann", Kind: kind, Migration: mig, Stream: mig + "/" + strconv.Itoa(i)}, "svc", nil, 0)
		}
	}
	x := open(t, t.TempDir())
	x.fold.limit = 40
	for x.Cursor() < o.Size() {
		followSome(t, x, o, 30, 30)
		if f := &x.fold; len(f.streams) > f.limit || len(f.known) > f.limit || len(f.free) > f.limit {
			t.Fatalf("%d streams, %d migrations and %d runs kept, at most %d", len(f.streams), len(f.known), len(f.free), f.limit)
		}
	}
	checkAgainst(t, x, o)
	checkWhole(t, x, o)
}

// The check finds a key that is missing, that is too much and that differs.
func TestCheckFindsDifferences(t *testing.T) {
	o := randomOrder(26, 500)
	x := open(t, t.TempDir())
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	extra := hashKey(log.Hash{1, 2, 3})
	for _, err := range []error{
		x.db.Set(extra, []byte("x"), pebble.NoSync),
		x.db.Delete(hashKey(o.items[9].Hash), pebble.NoSync),
		x.db.Set(nameKey(classStream, "crm/a"), []byte("{}"), pebble.NoSync),
		x.db.Merge(windowKey(classActor, "ann", 300), []byte{200}, pebble.NoSync),
		x.db.Set([]byte("zzz"), nil, pebble.NoSync),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{
		describe(extra):                      "is not in the order",
		describe(hashKey(o.items[9].Hash)):   "is missing",
		`state of stream "crm/a"`:            "differs",
		`entries of actor "ann" in window 1`: "differs",
		"unknown key 7a7a7a":                 "is not in the order",
	}
	for _, d := range differences(t, x, o.items) {
		if want[d.Key] != d.Fault {
			t.Errorf("difference %q %q, want %q", d.Key, d.Fault, want[d.Key])
		}
		delete(want, d.Key)
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
	if short := differences(t, x, o.items[:400]); len(short) != 1 || short[0].Key != "cursor" {
		t.Errorf("check with too few entries = %v, want the cursor", short)
	}
}

// A check is of the moment it began: the index may go on meanwhile.
func TestCheckWhileFollowing(t *testing.T) {
	o := randomOrder(27, 800)
	x := open(t, t.TempDir())
	followSome(t, x, o, 500, 100)
	scratch := filepath.Join(t.TempDir(), "check")
	c, err := x.NewCheck(scratch)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.NewCheck(scratch); err == nil {
		t.Error("two checks in one directory")
	}
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(o.items); i += 300 {
		if err := c.Apply(o.items[i:min(i+300, len(o.items))]); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := c.Compare(t.Context(), 10, func(d Difference) { t.Errorf("%v", d) })
	if err != nil || keys < 500 {
		t.Errorf("Compare = %d, %v, want more keys than entries", keys, err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := c.Compare(ended, 10, func(Difference) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("Compare without time = %v, want Canceled", err)
	}
	// The index stays open for the check, whoever closes it.
	closed := make(chan error)
	go func() { closed <- x.Close() }()
	for err := error(nil); !errors.Is(err, ErrClosed); {
		_, err = x.Stats()
	}
	if _, err := c.Compare(t.Context(), 10, func(d Difference) { t.Errorf("%v", d) }); err != nil {
		t.Errorf("Compare while the index is closed = %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(scratch); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("scratch is left: %v", err)
	}
}
