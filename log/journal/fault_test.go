package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/disk/crashfs"
)

// liar is a file system that says it did what it did not.
type liar struct {
	disk.FS
	noSync, noSyncDir, noError, noDirError bool
}

func (l liar) Open(name string) (disk.File, error)   { return l.file(l.FS.Open(name)) }
func (l liar) Create(name string) (disk.File, error) { return l.file(l.FS.Create(name)) }

func (l liar) file(f disk.File, err error) (disk.File, error) { return lyingFile{f, l}, err }

func (l liar) SyncDir(name string) error {
	if l.noSyncDir {
		return nil
	}
	err := l.FS.SyncDir(name)
	if l.noDirError && !errors.Is(err, crashfs.ErrCrashed) {
		return nil
	}
	return err
}

type lyingFile struct {
	disk.File
	liar
}

func (f lyingFile) Sync() error {
	if f.noSync {
		return nil
	}
	err := f.File.Sync()
	if f.noError && !errors.Is(err, crashfs.ErrCrashed) {
		return nil
	}
	return err
}

// TestPlantedBugs shows that the harness of TestCrashes and TestFaults finds what it is there to find.
func TestPlantedBugs(t *testing.T) {
	wrap := func(l liar) func(*crashfs.FS) disk.FS {
		return func(f *crashfs.FS) disk.FS {
			l.FS = f
			return l
		}
	}
	for name, e := range map[string]*explorer{
		"no sync":                 {power: true, wrap: wrap(liar{noSync: true})},
		"no sync of folders":      {power: true, wrap: wrap(liar{noSyncDir: true})},
		"no check of CRCs":        {power: true, bugs: bugs{noCRC: true}},
		"last group not copied":   {bugs: bugs{noCopy: true}, failSync: true},
		"failed sync ignored":     {power: true, failSync: true, wrap: wrap(liar{noError: true})},
		"bytes erased before key": {power: true, bugs: bugs{eraseBytesFirst: true}},
		"old tail cut too early":  {power: true, bugs: bugs{cutFirst: true}},
		// As the kernel would have it: asked again, it finds nothing left to write.
		"failed sync of a folder asked again": {power: true, failSync: true, wrap: wrap(liar{noDirError: true})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e.seeds = 6
			if e.failSync {
				e.seeds = 1 // where it fails is what differs: many short lives find more than few that are looked at closely
			}
			for seed := uint64(1); len(e.bad) == 0; seed++ {
				if e.points > 100_000 {
					t.Fatalf("not found in %d crash points", e.points)
				}
				e.explore(seed, 40)
			}
			t.Logf("found after %d crash points: %v", e.points, e.bad[0])
		})
	}
}

// TestFaults makes each call of a life fail, in each way, once or for good, and then loses power or kills the process.
func TestFaults(t *testing.T) {
	e := &explorer{power: true}
	tried := 0
	for fault := crashfs.EIO; fault <= crashfs.ShortWrite; fault++ {
		for _, lasting := range []bool{false, true} {
			for n := 1; ; n++ {
				f, m := crashfs.New(11), newModel()
				f.FailAt(n, fault, lasting)
				rng := rand.New(rand.NewPCG(7, 2))
				j, err := e.open(f, m)
				if err == nil {
					if err = m.live(j, rng, 25); err == nil {
						err = m.compare(j)
					}
					if j.Err() != nil {
						// The error is latched: no later record may be accepted.
						if _, err := j.Enqueue([]log.Record{{Entry: []byte("late")}}); !errors.Is(err, ErrStopped) {
							t.Fatalf("call %d, fault %d: Enqueue() after failure = %v, want ErrStopped", n, fault, err)
						}
					}
					_ = j.Close() // it repeats the error that stopped the journal
				}
				if err != nil && errors.Is(err, ErrCorrupt) && !strings.Contains(err.Error(), "does not open") {
					t.Fatalf("call %d, fault %d, lasting %v: %v", n, fault, lasting, err)
				}
				calls := f.Calls()
				for s := range uint64(4) {
					f.FailAt(1<<30, fault, false)
					after := f.After(s)
					if s%2 == 0 {
						after = f.Restart(s)
					}
					tried++
					if err := e.survive(after, m.clone(), rand.New(rand.NewPCG(s, uint64(n))), 0); err != nil {
						t.Fatalf("call %d, fault %d, lasting %v, state %d: %v", n, fault, lasting, s, err)
					}
				}
				if n > calls {
					break
				}
			}
		}
	}
	t.Logf("%d states after faults", tried)
}

// TestFaultsInRecovery makes each call of an opening fail, and opens again.
func TestFaultsInRecovery(t *testing.T) {
	e := &explorer{power: true}
	for fault := crashfs.EIO; fault <= crashfs.ShortWrite; fault++ {
		for n := 1; ; n++ {
			f, m := crashfs.New(11), newModel()
			j, err := e.open(f, m)
			if err == nil {
				err = m.live(j, rand.New(rand.NewPCG(9, 2)), 20)
			}
			if err != nil {
				t.Fatal(err)
			}
			after := f.Restart(uint64(n))
			before := after.Calls()
			after.FailAt(n, fault, false)
			if j, err = e.open(after, m); err == nil {
				if err := m.clone().compare(j); err != nil && n > after.Calls()-before {
					t.Fatal(err)
				}
				_ = j.Close() // what failed in the background is told again
			}
			done := n > after.Calls()-before
			for s := range uint64(3) {
				if err := e.survive(after.After(s), m.clone(), rand.New(rand.NewPCG(s, 1)), 0); err != nil {
					t.Fatalf("call %d, fault %d, state %d: %v", n, fault, s, err)
				}
			}
			if done {
				break
			}
		}
	}
}

// smallJournal is a closed journal with every kind of record, and one erased payload.
func smallJournal(t *testing.T) (*explorer, *crashfs.FS, *model) {
	t.Helper()
	e := &explorer{}
	f, m := crashfs.New(11), newModel()
	j, err := e.open(f, m)
	if err == nil {
		err = m.live(j, rand.New(rand.NewPCG(12, 2)), 12)
	}
	if err == nil {
		err = j.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	lasting := slices.ContainsFunc(m.records, func(r log.Record) bool { return r.Payload != nil && r.Payload.Lasting })
	if len(m.erased) == 0 || !lasting {
		t.Fatalf("the story has %d erasures, lasting payloads: %v", len(m.erased), lasting)
	}
	return e, f, m
}

// TestFlips flips a bit of every byte of every file. Either somebody notices, or all records and payloads are right.
func TestFlips(t *testing.T) {
	e, f, m := smallJournal(t)
	found, harmless := 0, 0
	for name, data := range f.Files() {
		for off := range int64(len(data)) {
			sector := data[off&^(sectorBytes-1):]
			if off%16 != 0 && len(bytes.Trim(sector[:min(sectorBytes, len(sector))], "\x00")) == 0 {
				continue // one in sixteen is enough where all is padding
			}
			g := f.Restart(1)
			g.Flip(name, off, 1<<(off%8))
			if noticed(e, g, m.clone()) {
				found++
				continue
			}
			harmless++
			if strings.HasSuffix(name, "journal") || strings.Contains(name, "large") {
				t.Errorf("nobody noticed a flip in %s at %d", name, off)
			}
		}
	}
	t.Logf("%d flips found, %d harmless (padding, spare segments, unused keys, derived tables)", found, harmless)
	if found < 1000 {
		t.Errorf("only %d flips found", found)
	}
}

// noticed tells whether Open or Check refuses; if neither does, everything must be as it was.
func noticed(e *explorer, f *crashfs.FS, m *model) bool {
	j, err := Open(e.config(f))
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			panic(fmt.Sprintf("Open() = %v, want ErrCorrupt", err))
		}
		return true
	}
	defer func() { _ = j.Close() }()
	if err := j.Check(context.Background(), nil, nil); err != nil {
		if !errors.Is(err, ErrCorrupt) {
			panic(fmt.Sprintf("Check() = %v, want ErrCorrupt", err))
		}
		return true
	}
	if err := m.compare(j); err != nil || j.Size() != m.durable {
		panic(fmt.Sprintf("unnoticed: %d of %d records, %v", j.Size(), m.durable, err))
	}
	return false
}

// TestGhosts: a group that a former opening left behind, whose place, index and chain fit exactly, comes to light behind
// the groups of this one. Only its epoch tells it apart.
func TestGhosts(t *testing.T) {
	for _, planted := range []bool{false, true} {
		e := &explorer{bugs: bugs{sameEpoch: planted}}
		f := crashfs.New(12)
		j, err := Create(e.config(f))
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		life := func(f *crashfs.FS, entries ...string) (*Journal, int64) {
			j, err := Open(e.config(f))
			if err != nil {
				t.Fatal(err)
			}
			at := j.tail.off
			for _, entry := range entries {
				at = j.tail.off
				if _, err := j.Append(t.Context(), []log.Record{{Entry: []byte(entry)}}); err != nil {
					t.Fatal(err)
				}
			}
			return j, at
		}
		other := f.Restart(1)
		former, at := life(other, "the same", "a ghost")
		ghost := other.Files()[former.names.segment(former.tail.number)][at:][:sectorBytes]
		now, _ := life(f, "the same")
		file, err := f.Open(now.names.segment(now.tail.number))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(ghost, at); err != nil {
			t.Fatal(err)
		}
		again, err := Open(e.config(f.Restart(2)))
		if err == nil && again.Size() == now.Size() {
			if planted {
				t.Error("with epochs kept, the ghost was expected to come back")
			}
			continue
		}
		if !planted {
			// To refuse would be right as well: the ghost says that what is in front of it was synced.
			t.Errorf("Open() = %v: the ghost was taken for a record", err)
		}
	}
}

// TestFlippedLastGroup: a flip in the last acknowledged group looks like a group torn by a crash. A mark tells them
// apart, and so does whoever knows the size.
func TestFlippedLastGroup(t *testing.T) {
	e, m := &explorer{}, newModel()
	f := crashfs.New(3)
	j, err := e.open(f, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.live(j, rand.New(rand.NewPCG(4, 2)), 3); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(t.Context(), []log.Record{{Entry: []byte("the last one")}}); err != nil {
		t.Fatal(err)
	}
	name, at := j.names.segment(j.tail.number), j.tail.off-sectorBytes+groupHeaderBytes+recordHeaderBytes
	unmarked := f.Restart(1)
	j.mark()
	marked := f.Restart(1)

	unmarked.Flip(name, at, 1)
	c := e.config(unmarked)
	c.AtLeast = j.Size()
	if _, err := Open(c); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), name) {
		t.Errorf("Open(AtLeast) = %v, want ErrCorrupt in %s", err, name)
	}
	marked.Flip(name, at, 1)
	if _, err := Open(e.config(marked)); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "offset") {
		t.Errorf("Open() with a mark behind = %v, want ErrCorrupt", err)
	}
	// The control: without the rule about later groups the record would be lost in silence.
	e.bugs.noEvidence = true
	again, err := Open(e.config(marked))
	if err != nil || again.Size() != j.Size()-1 {
		t.Errorf("with the planted bug Open() = %v", err)
	}
}

// TestErasedEverywhere searches all files for what was erased: the payload, its salt, its key.
func TestErasedEverywhere(t *testing.T) {
	for _, size := range []int{100, 5000} {
		e, f := &explorer{}, crashfs.New(5)
		j, err := Create(e.config(f))
		if err != nil {
			t.Fatal(err)
		}
		p := &log.Payload{Bytes: bytes.Repeat([]byte("a person's name "), size/16), Salt: [32]byte([]byte("a salt that nobody will guess 32"))}
		first, err := j.Append(t.Context(), []log.Record{{Entry: []byte("before")}, {Entry: []byte("entry"), Payload: p}, {Entry: []byte("after")}})
		if err != nil {
			t.Fatal(err)
		}
		index := first + 1
		r, at, err := j.locate(index)
		if err != nil {
			t.Fatal(err)
		}
		keys := keyReader{j: j}
		key, err := keys.key(r.key)
		if err != nil {
			t.Fatal(err)
		}
		box := r.sealed
		if r.kind == kindFile {
			box = f.Files()[j.names.payload(r.key)]
		}
		box = bytes.Clone(box)
		holds := func(f *crashfs.FS, what []byte) (names []string) {
			for name, data := range f.Files() {
				if bytes.Contains(data, what) {
					names = append(names, name)
				}
			}
			return names
		}
		if len(holds(f, key[:])) != 1 || len(holds(f, box)) != 1 {
			t.Fatalf("before the erasure %v have the key and %v the bytes, want one each", holds(f, key[:]), holds(f, box))
		}
		if err := j.Erase(index); err != nil {
			t.Fatal(err)
		}
		for _, disk := range []*crashfs.FS{f, f.After(1), f.After(2)} {
			for what, b := range map[string][]byte{"key": key[:], "salt": p.Salt[:], "payload": p.Bytes[:64], "sealed bytes": box[20:60]} {
				if names := holds(disk, b); names != nil {
					t.Errorf("payload of %d bytes: the %s is still in %v (segment %d)", size, what, names, at.segment)
				}
			}
		}
		if err := j.Check(t.Context(), nil, nil); err != nil {
			t.Errorf("Check() after an erasure = %v", err)
		}
		if state, err := j.HasPayload(index); state != PayloadErased || err != nil {
			t.Errorf("HasPayload() = %d, %v, want PayloadErased", state, err)
		}
	}
}

// TestUnusedKeys: what a crashed caller sealed but never placed can never be read, since nobody could ask to erase it.
func TestUnusedKeys(t *testing.T) {
	e, f := &explorer{}, crashfs.New(6)
	j, err := Create(e.config(f))
	if err != nil {
		t.Fatal(err)
	}
	p, err := j.Prepare([]*log.Payload{{Bytes: make([]byte, 1000)}, {Bytes: []byte("small")}}, 10)
	if err != nil {
		t.Fatal(err)
	}
	name := j.names.payload(p.seals[0].key)
	if _, ok := f.Files()[name]; !ok {
		t.Fatalf("%s is not there", name)
	}
	again := f.Restart(1)
	if _, err := Open(e.config(again)); err != nil {
		t.Fatal(err)
	}
	if _, ok := again.Files()[name]; ok {
		t.Errorf("%s is still there after recovery", name)
	}
	if keys := again.Files()[j.names.key(uint64(p.seals[0].key.file))]; len(keys) != 0 {
		t.Errorf("%d bytes of unused keys are still there", len(keys))
	}
	j.Discard(p)
	if _, ok := f.Files()[name]; ok {
		t.Errorf("%s is still there after Discard", name)
	}
}

// TestNoKeys: a journal restored without its keys opens, still has the lasting payloads, and says of each other one
// that its key is missing, or that it was erased since.
func TestNoKeys(t *testing.T) {
	e, f := &explorer{}, crashfs.New(8)
	j, err := Create(e.config(f))
	if err != nil {
		t.Fatal(err)
	}
	lasting := log.Payload{Salt: [32]byte{7}, Bytes: bytes.Repeat([]byte("l"), 2*e.config(f).LargeBytes), Lasting: true}
	records := []log.Record{
		{Entry: []byte("e"), Payload: &log.Payload{Bytes: []byte("p")}},
		{Entry: []byte("f"), Payload: &lasting},
		{Entry: []byte("g"), Payload: &log.Payload{Bytes: make([]byte, j.c.LargeBytes)}},
	}
	if _, err := j.Append(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Close(), f.Remove(j.names.key(1))); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(e.config(f)); err != nil {
		t.Fatal(err)
	}
	is := func(index uint64, want error, wantState PayloadState) {
		t.Helper()
		if _, err := j.Payload(index); !errors.Is(err, want) {
			t.Errorf("Payload(%d) = %v, want %v", index, err, want)
		}
		if state, err := j.HasPayload(index); state != wantState || err != nil {
			t.Errorf("HasPayload(%d) = %d, %v, want %d", index, state, err, wantState)
		}
	}
	is(0, ErrNoKey, PayloadNoKey)
	is(2, ErrNoKey, PayloadNoKey)
	if p, err := j.Payload(1); err != nil || !reflect.DeepEqual(p, lasting) {
		t.Errorf("Payload() of a lasting one = %+v, %v", p, err)
	}
	if state, err := j.HasPayload(1); state != PayloadOpen || err != nil {
		t.Errorf("HasPayload() of a lasting one = %d, %v, want PayloadOpen", state, err)
	}
	for range 2 {
		if err := errors.Join(j.Erase(0), j.Check(t.Context(), nil, nil)); err != nil {
			t.Errorf("Erase() and Check() = %v", err)
		}
		is(0, ErrErased, PayloadErased)
		is(2, ErrNoKey, PayloadNoKey)
	}
	if err := j.Erase(2); err != nil {
		t.Errorf("Erase() = %v", err)
	}
	is(2, ErrErased, PayloadErased)
	if err := j.Erase(1); !errors.Is(err, ErrLasting) {
		t.Errorf("Erase() of a lasting payload = %v, want ErrLasting", err)
	}
	damage(t, f, j.names.segment(1), []byte("lll"))
	if _, err := j.Payload(1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Payload() of a damaged lasting one = %v, want ErrCorrupt", err)
	}
	if err := j.Check(t.Context(), nil, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Check() with a damaged lasting payload = %v, want ErrCorrupt", err)
	}
}

// damage flips a bit where text first stands in a file.
func damage(t *testing.T, f *crashfs.FS, name string, text []byte) {
	t.Helper()
	at := bytes.Index(f.Files()[name], text)
	h, err := f.Open(name)
	if err == nil && at >= 0 {
		_, err = h.WriteAt([]byte{text[0] ^ 1}, int64(at))
	}
	if err != nil || at < 0 {
		t.Fatalf("damage %s at %d: %v", name, at, err)
	}
}

var _ io.ReaderAt = lyingFile{}
