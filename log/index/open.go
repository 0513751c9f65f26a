package index

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pipe-roll/piperoll/log"
)

// A Config says where an index is. All fields without a default are needed.
type Config struct {
	Dir        string       // the index's own directory; made if it does not exist
	Origin     string       // of the log
	CacheBytes int64        // cache of blocks read; 0 is 32 MiB
	Logger     *slog.Logger // for what happens in the background

	fs vfs.FS // nil is the operating system's; tests crash it and fill it up
}

const (
	defaultCacheBytes = 32 << 20
	memTableBytes     = 16 << 20 // up to three of them: one filled, two written out
	openFilesMax      = 256
	// The journal's commits share the disk. Dirty pages of the index's files
	// are written in small pieces, so that no sync waits behind many of them.
	syncPieceBytes = 128 << 10
)

// condemnedName is a file that tells the next Open to remove the index.
const condemnedName = "BROKEN"

func (c *Config) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no directory"))
	}
	if !log.ValidName(c.Origin) {
		errs = append(errs, fmt.Errorf("origin %q is not a name", c.Origin))
	}
	if c.CacheBytes < 0 {
		errs = append(errs, fmt.Errorf("cache of %d bytes", c.CacheBytes))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("no logger"))
	}
	return errors.Join(errs...)
}

// open takes the lock, and opens the database or replaces it by an empty one.
// Nothing is removed before the lock is held.
func (x *Index) open(c Config) error {
	if err := x.fs.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	if u, err := x.fs.GetDiskUsage(c.Dir); err == nil && u.AvailBytes < openBytes {
		return fmt.Errorf("%d bytes left on the disk: %w", u.AvailBytes, syscall.ENOSPC)
	}
	lock, err := pebble.LockDirectory(c.Dir, x.fs)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	x.lock = lock
	err = x.openKept(c)
	if err != nil && !fromSystem(err) {
		x.logger.Warn("removed index: it will be rebuilt", "dir", c.Dir, "err", err)
		if err = x.removeFiles(); err == nil {
			err = x.openDB(c)
		}
	}
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	return nil
}

// openKept opens what is there, unless it was condemned.
func (x *Index) openKept(c Config) error {
	switch _, err := x.fs.Stat(x.fs.PathJoin(c.Dir, condemnedName)); {
	case err == nil:
		return ErrBroken
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return x.openDB(c)
}

// openDB opens the database and reads its cursor. A panic in Pebble's reading
// of files is damage like any other, unless it is about the machine.
func (x *Index) openDB(c Config) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			err = fmt.Errorf("index storage panicked: %w", p)
		default:
			err = fmt.Errorf("%w: %v", ErrBroken, p)
		}
	}()
	db, err := pebble.Open(c.Dir, x.options(c))
	if err != nil {
		return err
	}
	x.db = db
	if err := x.readCursor(); err != nil {
		return errors.Join(err, db.Close())
	}
	x.opened.Store(true)
	return nil
}

// readCursor reads the cursor of an index of our version and origin. An empty
// database becomes one.
func (x *Index) readCursor() error {
	version, ok, err := x.get([]byte{classVersion})
	if err != nil {
		return err
	}
	want := formatVersion + x.origin
	if !ok {
		return x.db.Set([]byte{classVersion}, []byte(want), pebble.NoSync)
	}
	if string(version) != want {
		return fmt.Errorf("%w: it is %q, want %q", ErrBroken, version, want)
	}
	cursor, _, err := x.lastFollowed()
	if err != nil {
		return err
	}
	x.cursor.Store(cursor)
	return nil
}

// lastFollowed gives the stored cursor and the leaf hash of the entry before it.
// The hash of its event would not do: clients submit the same events again after
// a restore, and other times and neighbours may be theirs then.
func (x *Index) lastFollowed() (cursor uint64, last log.Hash, err error) {
	v, ok, err := x.get([]byte{classCursor})
	if err != nil || !ok {
		return 0, last, err
	}
	if len(v) != 8+len(last) {
		return 0, last, fmt.Errorf("%w: cursor of %d bytes", ErrBroken, len(v))
	}
	copy(last[:], v[8:])
	cursor, err = parseNumber(v[:8])
	return cursor, last, err
}

func (x *Index) options(c Config) *pebble.Options {
	if c.CacheBytes == 0 {
		c.CacheBytes = defaultCacheBytes
	}
	o := &pebble.Options{
		CacheSize:                   c.CacheBytes,
		DisableWAL:                  true,
		FormatMajorVersion:          pebble.FormatNewest,
		FS:                          x.fs,
		Lock:                        x.lock,
		Logger:                      logger{x.logger, x.fail},
		BytesPerSync:                syncPieceBytes,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: 3,
		MaxOpenFiles:                openFilesMax,
		CompactionConcurrencyRange:  func() (lower, upper int) { return 1, 1 },
		EventListener: &pebble.EventListener{
			BackgroundError: x.backgroundFailed,
			FlushEnd:        x.flushed,
			DataCorruption:  x.damaged,
		},
	}
	// A retry is looked up by hash and mostly not there: the filters answer
	// without reading a block.
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

const (
	// retryPause keeps Pebble from trying again at once, for ever.
	retryPause = 200 * time.Millisecond
	// openBytes is room for opening. It writes little, but Pebble's opening waits
	// for ever where that does not go through.
	openBytes = 4 << 20
	// roomBytes is what a full disk has to have again: more than what waits to
	// be written, so that it is not full again at once.
	roomBytes = 64 << 20
)

// waitForRoom is called when the disk is full, and holds all writing until it
// is not, or the index closes. Flushes could be tried again, but a manifest
// could not.
func (x *Index) waitForRoom(fs vfs.FS) {
	if !x.opened.Load() {
		return // whoever opens it is told
	}
	x.full.Store(true)
	defer x.full.Store(false)
	x.logger.Error("index waits for room on the disk", "dir", x.dir)
	for {
		select {
		case <-time.After(retryPause):
		case <-x.closing:
			return
		}
		if u, err := fs.GetDiskUsage(x.dir); err != nil || u.AvailBytes >= roomBytes {
			return // if nobody knows, trying tells
		}
	}
}

// fail stops the index when Pebble cannot write its manifest. Nothing of it may
// be tried again, so the files are closed as soon as nobody reads them: what is
// there is what a crash would have left, and opens.
func (x *Index) fail(err error) {
	if !x.opened.Load() {
		// Open returns it where it meets it itself; but where a flush meets it, Open
		// would wait for that for ever.
		panic(err)
	}
	_ = x.stop(fmt.Errorf("%w: %w", ErrFailed, err))
	go func() { _ = x.closeDB(false) }() // Close waits for it and has its error
}

// backgroundFailed hears of failed flushes and compactions. Pebble tries again
// after errors of the system; damage it can only meet again.
func (x *Index) backgroundFailed(err error) {
	x.logger.Error("index work in the background failed", "dir", x.dir, "err", err)
	if pebble.IsCorruptionError(err) {
		x.condemn(fmt.Errorf("%w: %w", ErrBroken, err))
	}
	x.mu.Lock()
	if x.flushErr != nil && errors.Is(err, x.flushErr) {
		x.stalled.Store(true)
	}
	x.mu.Unlock()
	select {
	case <-time.After(retryPause):
	case <-x.closing:
		select {
		case x.failing <- struct{}{}:
		default:
		}
	}
}

// flushed hears of flushes: of a failed one before backgroundFailed does. An
// empty flush counts as failed here, but is not an error there.
func (x *Index) flushed(i pebble.FlushInfo) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.flushErr = i.Err
	if i.Err == nil {
		x.stalled.Store(false)
	}
}

// damaged hears of damage as soon as somebody meets it. That may be a reader,
// so it does not wait as backgroundFailed does.
func (x *Index) damaged(i pebble.DataCorruptionInfo) {
	x.logger.Error("index is damaged", "path", i.Path, "err", i.Details)
	x.condemn(fmt.Errorf("%w: %w", ErrBroken, i.Details))
}

// condemn stops the index and leaves word for the next Open.
func (x *Index) condemn(err error) {
	if !x.opened.Load() {
		return // Open replaces what it finds damaged; work in the background meets it again
	}
	if reason := x.stop(err); !errors.Is(reason, ErrBroken) {
		return // closed in the meantime
	}
	f, err := x.fs.Create(x.fs.PathJoin(x.dir, condemnedName), vfs.WriteCategoryUnspecified)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		x.logger.Error("index was not marked as broken: remove its directory", "dir", x.dir, "err", err)
	}
}

// fromSystem says whether err is about the machine and not about the files'
// content: then the index may be whole. A missing file is damage.
func fromSystem(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && errno != syscall.ENOENT
}

// removeFiles removes an index's files and no others, so that a mistyped
// directory in a configuration destroys nothing. The lock stays held.
func (x *Index) removeFiles() error {
	names, err := x.fs.List(x.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if isIndexFile(name) {
			errs = append(errs, x.fs.Remove(x.fs.PathJoin(x.dir, name)))
		}
	}
	return errors.Join(errs...)
}

func isIndexFile(name string) bool {
	for _, prefix := range []string{"MANIFEST-", "OPTIONS-", "CURRENT", "marker.", condemnedName} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	base, ext, _ := strings.Cut(name, ".")
	switch ext {
	case "sst", "log", "blob", "dbtmp":
		return strings.Trim(base, "0123456789-") == "" || ext == "dbtmp"
	}
	return false
}

// A logger carries Pebble's words to slog.
type logger struct {
	to   *slog.Logger
	fail func(error)
}

// Infof logs what is only of interest to whoever debugs Pebble.
func (l logger) Infof(format string, args ...any) {
	l.to.Debug("index storage reported", "text", fmt.Sprintf(format, args...))
}

// Errorf logs an error that Pebble handled.
func (l logger) Errorf(format string, args ...any) {
	l.to.Error("index storage reported an error", "text", fmt.Sprintf(format, args...))
}

// Fatalf may return only where Pebble (v2.1.7) was seen to give up by itself:
// after an error that it met in writing its manifest. There it returns that
// error from the flush, compaction or opening. Anything else ends the process;
// the log is whole, and the index goes on from its last good state or is rebuilt.
func (l logger) Fatalf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.to.Error("index storage failed", "text", text)
	var cause error
	if len(args) == 1 {
		cause, _ = args[0].(error)
	}
	switch {
	case cause == nil:
		panic("index: storage failed: " + text)
	case !strings.HasPrefix(text, "MANIFEST "):
		panic(fmt.Errorf("index: storage failed: %s: %w", text, cause))
	}
	l.fail(cause)
}
