package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/pipe-roll/piperoll/log"
)

// randomOrder is a log of random entries.
func randomOrder(seed uint64, count int) *order {
	o := newOrder()
	grow(rand.New(rand.NewPCG(seed, 1)), o, count)
	return o
}

// followed makes an index of all of o in dir and closes it.
func followed(t testing.TB, dir string, o *order) {
	t.Helper()
	x, err := Open(testConfig(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	closeIndex(t, x)
}

func TestConfigReportsAllFaults(t *testing.T) {
	_, err := Open(Config{CacheBytes: -1, Origin: "not a name"})
	for _, want := range []string{"directory", "origin", "cache", "logger"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(bad) = %v, want a word on %s", err, want)
		}
	}
}

// An index that is not ours to use is replaced; one of ours is kept.
func TestOpenReplacesForeignIndex(t *testing.T) {
	o := randomOrder(1, 300)
	dir := t.TempDir()
	followed(t, dir, o)
	if x := open(t, dir); x.Cursor() != o.Size() {
		t.Errorf("Cursor() = %d after reopening, want %d", x.Cursor(), o.Size())
	} else {
		closeIndex(t, x)
	}
	c := testConfig(t, dir)
	c.Origin = "other.example/log"
	x, err := Open(c)
	if err != nil || x.Cursor() != 0 {
		t.Fatalf("Open with another origin = %v, %v, want an empty index", x, err)
	}
	if err := x.Apply(o.items[:1]); !errors.Is(err, ErrOrder) {
		t.Errorf("Apply of another log's entry = %v, want ErrOrder", err)
	}
	for name, key := range map[string][]byte{"version": {classVersion}, "cursor": {classCursor}} {
		if err := x.db.Set(key, []byte("1"), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		closeIndex(t, x)
		if x, err = Open(c); err != nil || x.Cursor() != 0 {
			t.Fatalf("Open with a bad %s = %v, %v, want an empty index", name, x, err)
		}
	}
	closeIndex(t, x)
}

// A mistyped directory loses nothing but what looks like an index in it.
func TestOpenSparesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	keep := []string{"data.txt", "keys", "notes.sst", "x.log"}
	drop := []string{"000001.sst", "MANIFEST-000001", condemnedName, "OPTIONS-000002", "t.dbtmp"}
	for _, name := range slices.Concat(keep, drop) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	for _, name := range keep {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != "mine" {
			t.Errorf("%s is %q, %v after Open", name, text, err)
		}
	}
	for _, name := range drop {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil && string(text) == "mine" {
			t.Errorf("%s is there after Open", name)
		}
	}
}

func TestSecondHolderIsRefused(t *testing.T) {
	o := randomOrder(2, 50)
	dir := t.TempDir()
	x := open(t, dir)
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testConfig(t, dir)); !errors.Is(err, ErrLocked) {
		t.Errorf("Open of an open index = %v, want ErrLocked", err)
	}
	checkAgainst(t, x, o)
}

func TestClosedIndexAnswersNothing(t *testing.T) {
	o := randomOrder(3, 50)
	x := open(t, t.TempDir())
	waited := make(chan error)
	go func() { waited <- x.Wait(t.Context(), 1) }()
	closeIndex(t, x)
	if err := <-waited; !errors.Is(err, ErrClosed) {
		t.Errorf("Wait = %v, want ErrClosed", err)
	}
	for name, err := range everyCall(t, x, o) {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s = %v, want ErrClosed", name, err)
		}
	}
}

// everyCall makes every call once, and gives the errors.
func everyCall(t testing.TB, x *Index, o *order) map[string]error {
	t.Helper()
	errs := map[string]error{}
	_, _, errs["Stream"] = x.Stream("crm/a")
	_, _, errs["Migration"] = x.Migration("crm")
	_, _, errs["ByHash"] = x.ByHash(o.items[0].Hash)
	_, _, errs["ByPlace"] = x.ByPlace("crm/a", 1)
	errs["Kinds"] = x.Kinds("access.", 0, func(uint64) error { return nil })
	errs["Control"] = x.Control(func(uint64) error { return nil })
	_, _, errs["LastControl"] = x.LastControl()
	_, _, _, errs["Search"] = x.Search(t.Context(), Query{Limit: 1}, o.entry)
	_, errs["Stats"] = x.Stats()
	errs["Apply"] = x.Apply(o.items[:1])
	errs["CatchUp"] = x.CatchUp(t.Context(), o)
	errs["empty"] = x.empty()
	_, errs["NewCheck"] = x.NewCheck(filepath.Join(t.TempDir(), "check"))
	return errs
}

// damageRounds is how often each file is damaged; a nightly run can take 1000.
const damageRounds = 12

// Bits flip and files shrink, wherever they like: what is opened then answers
// rightly, or says that it is broken, or is an earlier state; and the Open
// after that leads back to the whole.
func TestDamagedFiles(t *testing.T) {
	o := randomOrder(4, 1500)
	made := vfs.NewMem()
	x := openOn(t, made, "index")
	for x.Cursor() < o.Size() {
		followSome(t, x, o, 400, 100)
		if err := x.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	closeIndex(t, x)
	names, err := made.List("index")
	if err != nil {
		t.Fatal(err)
	}
	rng, rounds := rand.New(rand.NewPCG(7, 7)), damageRounds
	if testing.Short() {
		rounds = 2
	}
	outcomes := map[string]int{}
	for _, name := range names {
		for range rounds {
			fs := vfs.NewMem()
			if _, err := vfs.Clone(made, fs, "index", "index"); err != nil {
				t.Fatal(err)
			}
			what := damageFile(t, rng, fs, "index/"+name)
			outcomes[openDamaged(t, fs, o, what)]++
		}
	}
	t.Log(outcomes)
	if outcomes["rebuilt"] == 0 || outcomes["broken"] == 0 {
		t.Errorf("outcomes %v: want some rebuilt and some broken, else this tests nothing", outcomes)
	}
}

// damageFile flips a bit, cuts, zeroes a sector, or removes. It says what it did.
func damageFile(t testing.TB, rng *rand.Rand, fs vfs.FS, name string) string {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close(), fs.Remove(name)); err != nil {
		t.Fatal(err)
	}
	at := rng.IntN(len(text) + 1)
	what := fmt.Sprintf("%s at %d of %d", name, at, len(text))
	switch n := rng.IntN(8); {
	case n == 0:
		return what + ": removed"
	case n == 1 || at == len(text):
		what += ": cut"
		text = text[:at]
	case n == 2:
		what += ": zeroed"
		clear(text[at:min(at+512, len(text))])
	default:
		what += ": bit flipped"
		text[at] ^= 1 << rng.IntN(8)
	}
	f, err = fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return what
}

func regularFiles(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = text
	}
	return files
}

// openDamaged opens a damaged index and wants no wrong answer of it.
func openDamaged(t testing.TB, fs vfs.FS, o *order, what string) string {
	t.Helper()
	c := testConfig(t, "index")
	c.fs = fs
	x, err := Open(c)
	if err != nil {
		t.Fatalf("damaged %s: Open = %v", what, err)
	}
	outcome := "whole"
	switch cursor := x.Cursor(); {
	case cursor == 0:
		outcome = "rebuilt"
	case cursor < o.Size():
		outcome = "earlier"
	}
	err = x.CatchUp(t.Context(), o)
	if err == nil {
		err = readAll(t, x, o)
	}
	closed := x.Close()
	if err == nil {
		if closed != nil {
			t.Fatalf("damaged %s: Close = %v", what, closed)
		}
		return outcome
	}
	if !errors.Is(err, ErrBroken) {
		t.Fatalf("damaged %s: %v, want ErrBroken", what, err)
	}
	x = openOn(t, fs, "index")
	if x.Cursor() != 0 {
		t.Fatalf("damaged %s: Cursor() = %d after it was found broken", what, x.Cursor())
	}
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	checkAgainst(t, x, o)
	closeIndex(t, x)
	return "broken"
}

// readAll reads everything, until an error. Wrong answers fail the test.
func readAll(t testing.TB, x *Index, o *order) error {
	t.Helper()
	for _, it := range o.items {
		if got, ok, err := x.ByHash(it.Hash); err != nil {
			return err
		} else if !ok || got != it.Index {
			t.Fatalf("ByHash of entry %d = %d, %v", it.Index, got, ok)
		}
		e := it.Entry.Event
		if got, ok, err := x.ByPlace(e.Stream, e.Seq); err != nil {
			return err
		} else if !ok || got != it.Index {
			t.Fatalf("ByPlace of entry %d = %d, %v", it.Index, got, ok)
		}
	}
	m := modelOf(o.items)
	for _, q := range []Query{{Actor: "ann"}, {Stream: "crm/a", By: "svc-1"}, {Object: "row", FromMS: o.items[99].Entry.Log.Received}, {Kind: "migration.load", Migration: "erp"}} {
		q.Limit = LimitMax
		if got, _, more, err := x.Search(t.Context(), q, o.entry); err != nil {
			return err
		} else if !slices.Equal(got, m.search(q)) || more {
			t.Fatalf("Search(%+v) = %d hits, want %d", q, len(got), len(m.search(q)))
		}
	}
	if _, _, err := x.LastControl(); err != nil {
		return err
	}
	// The rest, whatever it holds.
	it, err := x.db.NewIter(nil)
	if err != nil {
		return x.judge(err)
	}
	for it.First(); it.Valid(); it.Next() {
		_ = it.Key()
	}
	if err := it.Close(); err != nil {
		return x.judge(err)
	}
	checkAgainst(t, x, o)
	return nil
}

// A full disk stops following, not answering; with room again it goes on.
func TestFullDisk(t *testing.T) {
	var full atomic.Bool
	inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.HasSuffix(op.Path, ".sst") {
			return syscall.ENOSPC
		}
		return nil
	})
	o := randomOrder(5, 2000)
	c := testConfig(t, "index")
	c.fs = errorfs.Wrap(vfs.NewMem(), inject)
	x, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	followSome(t, x, o, 1000, 100)
	full.Store(true)
	done, err := x.db.AsyncFlush()
	if err != nil {
		t.Fatal(err)
	}
	for !x.stalled.Load() {
		time.Sleep(time.Millisecond)
	}
	if err := x.Apply(o.items[1000:1001]); !errors.Is(err, ErrStalled) {
		t.Errorf("Apply on a full disk = %v, want ErrStalled", err)
	}
	checkAgainst(t, x, o)
	ctx, end := context.WithCancel(t.Context())
	followed := make(chan error)
	go func() { followed <- x.Follow(ctx, o) }()
	full.Store(false)
	<-done
	if err := x.Wait(ctx, o.Size()); err != nil {
		t.Errorf("Wait with room again = %v", err)
	}
	end()
	if err := <-followed; !errors.Is(err, context.Canceled) {
		t.Errorf("Follow = %v, want Canceled", err)
	}
	checkAgainst(t, x, o)
	closeIndex(t, x)
}

// The system refuses: that is no reason to remove an index.
func TestSystemErrorsKeepTheIndex(t *testing.T) {
	var denied atomic.Value
	denied.Store("")
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if part := denied.Load().(string); part != "" && strings.Contains(op.Path, part) {
			return &os.PathError{Op: "open", Path: op.Path, Err: syscall.EMFILE}
		}
		return nil
	}))
	o := randomOrder(6, 100)
	x := openOn(t, fs, "index")
	followSome(t, x, o, 101, 101)
	closeIndex(t, x)
	c := testConfig(t, "index")
	c.fs = fs
	for _, part := range []string{"MANIFEST", "BROKEN", "LOCK", "index"} {
		denied.Store(part)
		if _, err := Open(c); !errors.Is(err, syscall.EMFILE) {
			t.Errorf("Open with %s denied = %v, want EMFILE", part, err)
		}
	}
	denied.Store("")
	if x = openOn(t, fs, "index"); x.Cursor() != o.Size() {
		t.Errorf("Cursor() = %d, want %d", x.Cursor(), o.Size())
	}
	// The mark of a broken index cannot be left: only a word in the log says so.
	denied.Store(condemnedName)
	var text bytes.Buffer
	x.logger = slog.New(slog.NewTextHandler(&text, nil))
	x.condemn(ErrBroken)
	if !strings.Contains(text.String(), "index was not marked as broken") {
		t.Errorf("logged %q", text.String())
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	denied.Store("")
	if x = openOn(t, fs, "index"); x.Cursor() != o.Size() {
		t.Errorf("Cursor() = %d without a mark, want %d", x.Cursor(), o.Size())
	}
	closeIndex(t, x)
	// Marked, but the old files stay: no index rather than a broken one.
	x = openOn(t, fs, "index")
	x.condemn(ErrBroken)
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	denied.Store(".sst")
	if _, err := Open(c); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("Open of a broken index that cannot be removed = %v, want EMFILE", err)
	}
}

// What Pebble says arrives in the log, and its last words end the process,
// unless they are about the manifest.
func TestLogger(t *testing.T) {
	var text bytes.Buffer
	var failed error
	l := logger{slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})), func(err error) { failed = err }}
	l.Infof("%d files", 3)
	l.Errorf("%d faults", 4)
	panics := func(format string, args ...any) (p any) {
		defer func() { p = recover() }()
		l.Fatalf(format, args...)
		return nil
	}
	if p := panics("no %s", "manifest"); !strings.Contains(fmt.Sprint(p), "no manifest") {
		t.Errorf("Fatalf panicked with %v", p)
	}
	if p := panics("MANIFEST not locked for writing"); p == nil {
		t.Error("Fatalf returned with a lock that is not held")
	}
	if p, ok := panics("commit: %s", syscall.EIO).(error); !ok || !errors.Is(p, syscall.EIO) || failed != nil {
		t.Errorf("Fatalf panicked with %v, want the error of the system in it", p)
	}
	if p := panics("%s", fmt.Errorf("MANIFEST sync failed: %w", syscall.EIO)); p != nil || !errors.Is(failed, syscall.EIO) {
		t.Errorf("Fatalf panicked with %v and stopped the index with %v, want EIO", p, failed)
	}
	for _, want := range []string{"level=DEBUG", "3 files", "level=ERROR", "4 faults", "no manifest"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("logged %q, want %q in it", text.String(), want)
		}
	}
}

// Damage that a compaction meets stops the index, and its mark has it rebuilt.
func TestBackgroundDamage(t *testing.T) {
	o := randomOrder(8, 200)
	dir := t.TempDir()
	x := open(t, dir)
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	x.backgroundFailed(syscall.EIO)
	checkAgainst(t, x, o)
	waited := make(chan error)
	go func() { waited <- x.Wait(t.Context(), 1<<40) }()
	x.backgroundFailed(fmt.Errorf("block: %w", pebble.ErrCorruption))
	if err := <-waited; !errors.Is(err, ErrBroken) {
		t.Errorf("Wait = %v, want ErrBroken", err)
	}
	for name, err := range everyCall(t, x, o) {
		if !errors.Is(err, ErrBroken) {
			t.Errorf("%s = %v, want ErrBroken", name, err)
		}
	}
	closeIndex(t, x)
	if x = open(t, dir); x.Cursor() != 0 {
		t.Errorf("Cursor() = %d, want 0", x.Cursor())
	}
}

// Damage may be met by a reader, while flushes end and other work fails. It
// stops the index, and nobody takes it for a flush that failed.
func TestDamageMetByReaders(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir)
	listener := x.options(Config{}).EventListener
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { listener.FlushEnd(pebble.FlushInfo{Err: syscall.EIO}) })
		all.Go(func() { listener.BackgroundError(syscall.ENOSPC) })
		all.Go(func() { listener.DataCorruption(pebble.DataCorruptionInfo{Details: pebble.ErrCorruption}) })
	}
	all.Wait()
	if err := x.Wait(t.Context(), 0); !errors.Is(err, ErrBroken) {
		t.Errorf("Wait = %v, want ErrBroken", err)
	}
	closeIndex(t, x)
	listener.DataCorruption(pebble.DataCorruptionInfo{Details: pebble.ErrCorruption})
	if len(x.failing) != 0 {
		t.Error("damage counts as a failed flush")
	}
	if x = open(t, dir); x.Cursor() != 0 {
		t.Errorf("Cursor() = %d, want 0", x.Cursor())
	}
	closeIndex(t, x)
}

// The index holds no payload that can be erased, and no salt.
func TestIndexHoldsNoErasablePayload(t *testing.T) {
	o := newOrder()
	secret := []byte("6f1c0f7e-a-person's-name-9ab2")
	for range 300 {
		o.add(log.Event{Actor: "ann", Kind: "migration.load", Migration: "crm", Stream: "crm/a"}, "svc", secret, 1)
	}
	dir := t.TempDir()
	followed(t, dir, o)
	for name, text := range regularFiles(t, dir) {
		if bytes.Contains(text, secret[:8]) {
			t.Errorf("%s holds the payload", name)
		}
	}
}

// Damage that Open meets itself is gone when it returns: the index is empty,
// and serves.
func TestDamageMetByOpen(t *testing.T) {
	o := randomOrder(12, 300)
	fs := vfs.NewMem()
	x := openOn(t, fs, "index")
	if err := x.CatchUp(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	closeIndex(t, x)
	names, err := fs.List("index")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			damageValues(t, fs, "index/"+name)
		}
	}
	x = openOn(t, fs, "index")
	if x.Cursor() != 0 {
		t.Errorf("Cursor() = %d, want 0", x.Cursor())
	}
	followSome(t, x, o, 300, 100)
	checkAgainst(t, x, o)
	closeIndex(t, x)
}

// damageValues damages all that a table holds, and leaves what says where it is.
func damageValues(t *testing.T, fs vfs.FS, name string) {
	t.Helper()
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(make([]byte, info.Size()*8/10), 0)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}
