package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/pipe-roll/piperoll/log"
)

// Values that pass Pebble's checksums and make no sense, as after a bug, are
// found when they are read: no answer, and the index is rebuilt.
func TestSenselessValues(t *testing.T) {
	o := randomOrder(31, 600)
	e := o.items[300].Entry.Event
	ask := func(q Query) func(*Index) error {
		q.Limit = LimitMax
		return func(x *Index) error {
			_, _, _, err := x.Search(t.Context(), q, o.entry)
			return err
		}
	}
	apply := func(x *Index) error { return x.CatchUp(t.Context(), o) }
	second := e.Time / 1000
	long := bytes.Repeat([]byte{0}, 12)
	for name, c := range map[string]struct {
		key, value []byte
		read       func(*Index) error
	}{
		"hash":         {hashKey(o.items[5].Hash), []byte("1"), func(x *Index) error { _, _, err := x.ByHash(o.items[5].Hash); return err }},
		"place":        {windowKey(classPlace, e.Stream, e.Seq), []byte("12"), func(x *Index) error { _, _, err := x.ByPlace(e.Stream, e.Seq); return err }},
		"stream":       {nameKey(classStream, e.Stream), []byte("{"), func(x *Index) error { _, _, err := x.Stream(e.Stream); return err }},
		"migration":    {nameKey(classMigration, "crm"), []byte("{"), func(x *Index) error { _, _, err := x.Migration("crm"); return err }},
		"posting":      {windowKey(classActor, "ann", 0), []byte{9, 9}, ask(Query{Actor: "ann"})},
		"no posting":   {windowKey(classActor, "ann", 0), nil, ask(Query{Actor: "ann"})},
		"posting key":  {append(windowPrefix(classKind, "x."), 255), []byte{9}, func(x *Index) error { return x.Kinds("x.", 0, func(uint64) error { return nil }) }},
		"listed":       {windowKey(classControl, "", 0), []byte{9, 8}, func(x *Index) error { return x.Control(func(uint64) error { return nil }) }},
		"control":      {windowKey(classControl, "", 1<<40), []byte{9, 8}, func(x *Index) error { _, _, err := x.LastControl(); return err }},
		"control key":  {append(windowPrefix(classControl, ""), 255), []byte{9}, func(x *Index) error { _, _, err := x.LastControl(); return err }},
		"second":       {secondKey(second), long, ask(Query{FromMS: second * 1000})},
		"second after": {secondKey(second + 1), long, ask(Query{ToMS: second * 1000})},
		"second key":   {append(secondKey(second), 0), long[:8], ask(Query{FromMS: second * 1000})},
		"last second":  {append([]byte{classSecond}, 255), long[:8], apply},
		"cursor":       {[]byte{classCursor}, long, apply},
		"apply stream": {nameKey(classStream, o.items[500].Entry.Event.Stream), []byte("{"), apply},
		"apply mig":    {nameKey(classMigration, o.items[500].Entry.Event.Migration), []byte("{"), apply},
	} {
		fs := vfs.NewMem()
		x := openOn(t, fs, "index")
		followSome(t, x, o, 500, 100)
		if err := x.db.Set(c.key, c.value, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		x.fold.reset() // as after a restart
		if name == "last second" || name == "second key" {
			// Whoever looks for a second finds no other key before this one.
			if err := x.db.DeleteRange(secondKey(0), c.key, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.read(x); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: read = %v, want ErrBroken", name, err)
		}
		closeIndex(t, x)
		if x = openOn(t, fs, "index"); x.Cursor() != 0 {
			t.Errorf("%s: Cursor() = %d after it was found, want 0", name, x.Cursor())
		}
		followSome(t, x, o, 601, 100)
		checkAgainst(t, x, o)
		closeIndex(t, x)
	}
}

// A disk that does not read is an error of each call, not damage: once it
// reads again the index is as it was.
func TestUnreadableDisk(t *testing.T) {
	var failing atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if failing.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsRead && strings.HasSuffix(op.Path, ".sst") {
			return syscall.EIO
		}
		return nil
	}))
	o := randomOrder(32, 2000)
	x := openOn(t, fs, "index")
	followSome(t, x, o, 1500, 300)
	e := o.items[900].Entry.Event
	calls := map[string]func(*Index) error{
		"Stream":      func(x *Index) error { _, _, err := x.Stream(e.Stream); return err },
		"Migration":   func(x *Index) error { _, _, err := x.Migration(e.Migration); return err },
		"ByHash":      func(x *Index) error { _, _, err := x.ByHash(o.items[900].Hash); return err },
		"ByPlace":     func(x *Index) error { _, _, err := x.ByPlace(e.Stream, e.Seq); return err },
		"Kinds":       func(x *Index) error { return x.Kinds("access.", 0, func(uint64) error { return nil }) },
		"LastControl": func(x *Index) error { _, _, err := x.LastControl(); return err },
		"Apply":       func(x *Index) error { return x.Apply(o.items[1500:1600]) },
		"CatchUp":     func(x *Index) error { return x.CatchUp(t.Context(), o) },
		"Search": func(x *Index) error {
			_, _, _, err := x.Search(t.Context(), Query{Actor: "ann", Limit: 9}, o.entry)
			return err
		},
		"Compare": func(x *Index) error {
			c, err := x.NewCheck(t.TempDir() + "/check")
			if err != nil {
				return err
			}
			for from := 0; from < 1500; from += 500 {
				if err := c.Apply(o.items[from : from+500]); err != nil {
					return err
				}
			}
			_, err = c.Compare(t.Context(), 1, func(Difference) {})
			return errors.Join(err, c.Close())
		},
	}
	for name, call := range calls {
		closeIndex(t, x)
		x = openOn(t, fs, "index") // nothing cached
		failing.Store(true)
		if err := call(x); !errors.Is(err, syscall.EIO) || errors.Is(err, ErrBroken) {
			t.Errorf("%s on an unreadable disk = %v, want EIO", name, err)
		}
		failing.Store(false)
		if x.Cursor() != 1500 {
			t.Fatalf("%s on an unreadable disk moved the cursor to %d", name, x.Cursor())
		}
		checkAgainst(t, x, o)
	}
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	checkAgainst(t, x, o)
	checkWhole(t, x, o)
	closeIndex(t, x)
}

func TestStats(t *testing.T) {
	o := randomOrder(33, 500)
	x := open(t, t.TempDir())
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	before, err := x.Stats()
	if err != nil || before.Cursor != o.Size() || before.MemTableBytes == 0 {
		t.Errorf("Stats() = %+v, %v", before, err)
	}
	if err := x.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if after, err := x.Stats(); err != nil || after.Flushes != before.Flushes+1 || after.DiskBytes <= before.DiskBytes {
		t.Errorf("Stats() = %+v, %v after a flush, before it %+v", after, err, before)
	}
}

// Any bytes are described, read as a value or refused, without a panic, and
// what is read is what would be written.
func FuzzKeys(f *testing.F) {
	for _, key := range [][]byte{
		nil,
		{classVersion},
		{classCursor},
		hashKey(log.Hash{1}), secondKey(7), nameKey(classStream, "a/b"),
		windowKey(classObject, "row:1", 1<<30), windowKey(classControl, "", 5),
		{classPlace, 0},
		{1, 2, 3},
		{5, 200, 201},
	} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// No key or value is longer. Each of 256 places is looked for in all of it:
		// for the megabyte that a fuzzer may come up with that takes minutes.
		if len(b) > windowWidth*placeBytes {
			return
		}
		if describe(b) == "" {
			t.Errorf("describe(%x) is empty", b)
		}
		if n, err := parseNumber(b); err == nil && !bytes.Equal(binary.BigEndian.AppendUint64(nil, n), b) {
			t.Errorf("parseNumber(%x) = %d", b, n)
		}
		if w, err := parseWindow(b); err == nil {
			var again []byte
			for low := range windowWidth {
				if w.has(byte(low)) {
					again = append(again, byte(low))
				}
			}
			if !bytes.Equal(again, b) || w.last() != b[len(b)-1] {
				t.Errorf("parseWindow(%x) = %x, last %d", b, again, w.last())
			}
		}
		for low := range windowWidth {
			if index, ok, err := findPlace(b, byte(low)); err == nil && ok && !bytes.Contains(b, binary.BigEndian.AppendUint64([]byte{byte(low)}, index)) {
				t.Errorf("findPlace(%x, %d) = %d", b, low, index)
			}
		}
	})
}
