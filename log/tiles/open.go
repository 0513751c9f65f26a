package tiles

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/reader"
	"golang.org/x/mod/sumdb/tlog"
)

// clockSlack is how far the clock may have been set back since the anchor was written.
const clockSlack = 2 * time.Second

// checkedRecords is how many of the newest checkpoints Open verifies, if no more are kept anyway.
const checkedRecords = 8

// ErrExists is returned by Create where something is there already.
var ErrExists = errors.New("there is already something of a log")

// Create makes the files of a new log: nothing integrated, the anchor at size 0. It returns ErrExists if anything of a
// log is there, also what an interrupted Create left.
//
// The order of durable steps: directories, recovery point, anchor. Before the anchor there is no log.
func Create(c Config) error {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return err
	}
	if err := c.vacant(); err != nil {
		return fmt.Errorf("create tree: %w", err)
	}
	for _, dir := range []string{c.Dir, c.AnchorDir, c.tmpDir(), c.storeDir()} {
		if err := c.FS.MkdirAll(dir); err != nil {
			return fmt.Errorf("create tree: %w", err)
		}
		for _, d := range []string{dir, filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
			if err := c.FS.SyncDir(d); err != nil {
				return fmt.Errorf("create tree: %w", err)
			}
		}
	}
	now := c.Now().Truncate(time.Millisecond)
	if err := createSlots(c.FS, c.recoveryFile()+tmpSuffix, c.recoveryFile(), recoveryLabel, c.Origin, now); err != nil {
		return fmt.Errorf("create recovery point: %w", err)
	}
	if err := createSlots(c.FS, c.anchorFile()+tmpSuffix, c.anchorFile(), anchorLabel, c.Origin, now); err != nil {
		return fmt.Errorf("create anchor: %w", err)
	}
	return nil
}

// vacant returns ErrExists if anything of a log is there.
func (c Config) vacant() error {
	for _, name := range []string{c.anchorFile(), c.recoveryFile()} {
		if _, err := c.FS.Size(name); err == nil {
			return fmt.Errorf("%w: %s", ErrExists, name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, dir := range []string{c.Dir, c.storeDir()} {
		if names, err := c.FS.ReadDir(dir); len(names) > 0 {
			return fmt.Errorf("%w: %s in %s", ErrExists, names[0], dir)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// ReadAnchor returns the head that was signed last, without opening the tree: Source must have that many entries. It
// uses FS, AnchorDir and Origin only. It returns ErrRefused if there is no good anchor.
func ReadAnchor(c Config) (Anchor, error) {
	s, err := openSlots(c.FS, c.anchorFile(), anchorLabel, c.Origin)
	if err != nil {
		return Anchor{}, refuseSlots("anchor", doNewest, err)
	}
	if err := s.close(); err != nil {
		return Anchor{}, fmt.Errorf("close anchor: %w", err)
	}
	return s.last, nil
}

func refuseSlots(what, do string, err error) error {
	switch {
	case errors.Is(err, errSlots):
		return &Refusal{Check: what, Found: "it is damaged, or of another log", Do: do, Err: err}
	case errors.Is(err, fs.ErrNotExist):
		return &Refusal{Check: what, Found: "it is missing", Do: do, Err: err}
	}
	return err
}

// Open checks a tree against its anchor and its source, and makes it ready to run. It returns ErrRefused, with a
// [Refusal], if it would not be safe to sign, and disk.ErrLocked if the tree is open elsewhere.
//
// The order: locks; anchor and clock; recovery point and the tiles below it; the entries up to the anchor, computed
// and compared, nothing written; then files above the recovery point healed through the code of a round; checkpoints
// verified; last the anchor's head signed again, which gives the same text.
func Open(c Config) (*Tree, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	t := &Tree{
		c: c, writer: newWriter(c), cache: reader.NewCache[log.TileID, []byte](c.CacheBytes),
		failed: make(chan struct{}), change: make(chan struct{}), queue: make(chan dirty, queueFiles),
	}
	if err := t.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open tree: %w", err), t.abandon())
	}
	return t, nil
}

func (t *Tree) open() error {
	if err := t.lock(); err != nil {
		return err
	}
	if err := t.openSlots(); err != nil {
		return err
	}
	start, err := t.startEdge()
	if err != nil {
		return err
	}
	if err := t.rehearse(start); err != nil {
		return err
	}
	if err := t.writer.sweep(); err != nil {
		return err
	}
	if err := t.rewrite(start); err != nil {
		return err
	}
	// The checkpoints are compared before anything is signed: an anchor that lost its newest slot shows an older head,
	// and only they tell.
	t.view = view{t.anchor.last.Head, t.b.edge, nil}
	if err := t.openCheckpoints(); errors.Is(err, ErrDamaged) {
		return &Refusal{Check: "tiles", Found: "one under a published checkpoint is damaged", Do: doRebuild, Err: err}
	} else if err != nil {
		return err
	}
	t.view.signed, err = t.sign(t.anchor.last.Head)
	return err
}

// abandon closes what a failed open had opened.
func (t *Tree) abandon() error {
	var errs []error
	if t.anchor != nil {
		errs = append(errs, t.anchor.close())
	}
	if t.recovery != nil {
		errs = append(errs, t.recovery.close())
	}
	if t.store != nil {
		errs = append(errs, t.store.close())
	}
	for _, l := range t.locks {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// lock keeps out whoever shares the state or, with a state of its own, the anchor. It also makes sure of the
// directories that hold nothing between runs: a backup may have left them out.
func (t *Tree) lock() error {
	for _, name := range []string{filepath.Join(t.c.StateDir, "lock"), t.c.anchorFile() + ".lock"} {
		if _, err := t.c.FS.ReadDir(filepath.Dir(name)); err != nil {
			return &Refusal{Check: "directories", Found: filepath.Dir(name) + " cannot be read", Do: doNewest, Err: err}
		}
		l, err := t.c.FS.Lock(name)
		if err != nil {
			return fmt.Errorf("lock %s: %w", name, err)
		}
		t.locks = append(t.locks, l)
	}
	return t.c.FS.MkdirAll(t.c.tmpDir())
}

func (t *Tree) openSlots() (err error) {
	c := t.c
	if t.anchor, err = openSlots(c.FS, c.anchorFile(), anchorLabel, c.Origin); err != nil {
		return refuseSlots("anchor", doNewest, err)
	}
	if t.recovery, err = t.openRecovery(); err != nil {
		return refuseSlots("recovery", doRebuild, err)
	}
	anchor, recovery := t.anchor.last, t.recovery.last
	if now := c.Now(); now.Add(clockSlack).Before(anchor.Time) {
		return &Refusal{Check: "clock", Found: fmt.Sprintf("it is %v, but the anchor was written at %v", now.UTC(), anchor.Time.UTC()), Do: "set the clock"}
	}
	if size := c.Source.Size(); size < anchor.Size {
		return &Refusal{Check: "entries", Found: fmt.Sprintf("there are %d, but a tree of %d was signed", size, anchor.Size), Do: doNewest}
	}
	if recovery.Size > anchor.Size {
		return &Refusal{Check: "anchor", Found: fmt.Sprintf("it is at size %d, but tiles were synced up to %d: it is from an older copy", anchor.Size, recovery.Size), Do: doNewest}
	}
	if recovery.Size == anchor.Size && recovery.Root != anchor.Root {
		return &Refusal{Check: "recovery", Found: fmt.Sprintf("it has another root than the anchor at size %d", anchor.Size), Do: doNewest}
	}
	return nil
}

// openRecovery opens the recovery point; for Rebuild it makes a new one where there is no good one.
func (t *Tree) openRecovery() (*slots, error) {
	c := t.c
	s, err := openSlots(c.FS, c.recoveryFile(), recoveryLabel, c.Origin)
	if !c.Rebuild || !errors.Is(err, errSlots) && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err := createSlots(c.FS, c.recoveryFile()+tmpSuffix, c.recoveryFile(), recoveryLabel, c.Origin, c.Now()); err != nil {
		return nil, err
	}
	return openSlots(c.FS, c.recoveryFile(), recoveryLabel, c.Origin)
}

// startEdge returns the right edge at the recovery point, read from the full tiles below it and from the last
// entries, and compared with the recovery point's root.
func (t *Tree) startEdge() (edge, error) {
	var e edge
	point := t.recovery.last.Head
	if t.c.Rebuild || point.Size == 0 {
		return e, nil
	}
	refuse := func(found string, err error) error {
		return &Refusal{Check: "tiles", Found: found, Do: doRebuild, Err: err}
	}
	for level := 1; level < levelsMax; level++ {
		n := point.Size >> (level * log.TileHeight)
		for i := n / log.TileWidth * log.TileWidth; i < n; i++ {
			id := log.TileID{Level: level - 1, Index: i, Width: log.TileWidth}
			data, err := t.readFull(id)
			if err != nil {
				return e, refuse(id.Path()+" cannot be read", err)
			}
			hashes, err := log.ParseTile(data, log.TileWidth)
			if err != nil {
				return e, refuse(id.Path()+" is damaged", err)
			}
			e.levels[level] = append(e.levels[level], fold(hashes))
		}
	}
	e.size = point.Size / log.TileWidth * log.TileWidth
	b, err := newBuilder(e, func(log.TileID, []byte) error { return nil })
	if err == nil {
		err = t.integrate(b, point.Size)
	}
	if err != nil {
		return e, err
	}
	if b.root() != point.Root {
		return e, refuse(fmt.Sprintf("tiles and entries do not give the root of the recovery point at size %d", point.Size), nil)
	}
	if err := t.checkLastBundle(point.Size); err != nil {
		return e, refuse("the last full bundle is not what its tile holds", err)
	}
	return b.edge, nil
}

func (t *Tree) checkLastBundle(size uint64) error {
	if size < log.TileWidth {
		return nil
	}
	id := log.BundleID(size/log.TileWidth-1, log.TileWidth)
	data, err := t.readFull(id)
	if err != nil {
		return err
	}
	entries, err := log.ParseBundle(data, log.TileWidth)
	if err != nil {
		return err
	}
	id.Level = 0
	tile, err := t.readFull(id)
	if err != nil {
		return err
	}
	for i, entry := range entries {
		if h := tlog.RecordHash(entry); h != log.Hash(tile[i*sha256.Size:]) {
			return fmt.Errorf("entry %d of %s: its hash is not in the tile", i, id.Path())
		}
	}
	return nil
}

// rehearse computes the anchor's root from the entries, without writing anything.
func (t *Tree) rehearse(start edge) error {
	anchor := t.anchor.last.Head
	b, err := newBuilder(start, func(log.TileID, []byte) error { return nil })
	if err == nil {
		err = t.integrate(b, anchor.Size)
	}
	if err != nil {
		return err
	}
	head, err := b.checkedHead()
	if err != nil {
		return err
	}
	if head != anchor {
		return &Refusal{Check: "entries", Found: fmt.Sprintf("they give root %v at size %d, but %v was signed", head.Root, head.Size, anchor.Root), Do: doNewest}
	}
	return nil
}

// rewrite integrates again from start to the anchor and heals the full tiles and bundles on the way. They are synced
// as they come, so that the recovery point can follow.
func (t *Tree) rewrite(start edge) error {
	dirs := map[string]bool{}
	heal := func(id log.TileID, data []byte) error {
		f, healed, err := t.writer.heal(id.Path(), data)
		if err != nil {
			return err
		}
		if healed {
			t.stats.Healed++
		}
		dirs[filepath.Dir(filepath.Join(t.c.Dir, filepath.FromSlash(id.Path())))] = true
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("sync %s: %w", id.Path(), err)
		}
		return nil
	}
	var err error
	if t.b, err = newBuilder(start, heal); err != nil {
		return err
	}
	if err := t.integrate(t.b, t.anchor.last.Size); err != nil {
		return err
	}
	head, err := t.b.checkedHead()
	if err != nil {
		return err
	}
	if head != t.anchor.last.Head {
		return &Refusal{Check: "entries", Found: "they read differently the second time", Do: "check memory and disk"}
	}
	if t.stats.Healed > 0 {
		t.c.Logger.Warn("healed tiles above the recovery point", "origin", t.c.Origin, "files", t.stats.Healed, "size", head.Size)
	}
	t.b.full = t.writeFull
	return t.recover(dirs, head)
}

// integrate adds the entries up to size to b.
func (t *Tree) integrate(b *builder, size uint64) error {
	for b.size < size {
		entries, err := t.entries(b.size, size)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if err := b.add(entry); err != nil {
				return err
			}
		}
	}
	return nil
}

// entries reads some entries from index from on, not beyond size.
func (t *Tree) entries(from, size uint64) ([][]byte, error) {
	limit := int(min(size-from, readEntries))
	entries, err := t.c.Source.Entries(from, limit, readBytes)
	if err != nil {
		return nil, fmt.Errorf("read entries from %d: %w", from, err)
	}
	if len(entries) == 0 || len(entries) > limit {
		return nil, &Refusal{Check: "entries", Found: fmt.Sprintf("%d read from %d on, where 1 to %d were due: the source shrank or is broken", len(entries), from, limit), Do: doNewest}
	}
	for i, entry := range entries {
		if len(entry) == 0 || len(entry) > log.EntryMaxBytes {
			return nil, &Refusal{Check: "entries", Found: fmt.Sprintf("entry %d has %d bytes", from+uint64(i), len(entry)), Do: doNewest}
		}
	}
	return entries, nil
}

// openCheckpoints opens the store and checks its newest checkpoints: signed by our key, not beyond the anchor, and
// of this tree.
func (t *Tree) openCheckpoints() error {
	refuse := func(found string, err error) error {
		return &Refusal{Check: "checkpoints", Found: found, Do: doNewest, Err: err}
	}
	var err error
	if t.store, err = openStore(t.c.FS, t.c.storeDir(), max(t.c.KeepPartials, checkedRecords)); errors.Is(err, errStore) || errors.Is(err, fs.ErrNotExist) {
		return refuse("the store is damaged", err)
	} else if err != nil {
		return err
	}
	tree := reader.New(t, 0)
	for _, r := range t.store.last {
		cp, err := log.OpenCheckpoint(r.note, t.c.Verifier)
		if err != nil || cp.Size != r.size {
			return refuse(fmt.Sprintf("the one of size %d does not verify", r.size), err)
		}
		if cp.Size > t.anchor.last.Size {
			return refuse(fmt.Sprintf("one has size %d, but the anchor is at %d: it is from an older copy", cp.Size, t.anchor.last.Size), nil)
		}
		root, err := tree.Root(context.Background(), cp.Size)
		if err != nil {
			return err
		}
		if root != cp.Root {
			return refuse(fmt.Sprintf("the one of size %d is of another tree", cp.Size), nil)
		}
	}
	if err := t.checkServed(); err != nil {
		return err
	}
	return t.resume()
}

// checkServed compares the file Dir/checkpoint with the store, in which it was synced before. The file itself is
// never synced: whatever does not verify may be a torn write.
func (t *Tree) checkServed() error {
	data, err := t.c.FS.Open(filepath.Join(t.c.Dir, "checkpoint"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("open published checkpoint: %w", err)
	}
	buf := make([]byte, log.NoteMaxBytes+1)
	n, _ := data.ReadAt(buf, 0)
	if err := data.Close(); err != nil {
		return fmt.Errorf("close published checkpoint: %w", err)
	}
	cp, err := log.OpenCheckpoint(buf[:n], t.c.Verifier)
	if err != nil {
		return nil
	}
	newest, _ := t.store.newest()
	if cp.Size > t.anchor.last.Size || cp.Size > newest.size && !t.c.Rebuild {
		return &Refusal{Check: "checkpoints", Found: fmt.Sprintf("one of size %d is published, the store ends at %d, the anchor is at %d", cp.Size, newest.size, t.anchor.last.Size), Do: doNewest}
	}
	return nil
}

// resume serves again what was published last, and knows again which partial tiles are files.
func (t *Tree) resume() error {
	newest, ok := t.store.newest()
	if !ok {
		return nil
	}
	t.published = checkpoint{newest.size, newest.note}
	return t.adoptPartials()
}
