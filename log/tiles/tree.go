package tiles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/reader"
)

// ErrStopped is returned to those who wait for more than a tree that was stopped will sign.
var ErrStopped = errors.New("the tree was stopped")

// A Tree is the log's Merkle tree, its signed heads and its published checkpoints. Its methods are safe for
// concurrent use.
type Tree struct {
	c       Config
	locks   []io.Closer
	writer  *writer
	cache   *reader.Cache[log.TileID, []byte]
	started atomic.Bool
	failed  chan struct{} // closed when the tree failed

	// Owned by Open, then by Run's rounds.
	b      *builder
	anchor *slots

	recovery  *slots     // owned by Open, then by Run's trickle
	queue     chan dirty // from rounds to trickle
	attempted []uint64   // owned by Open, then by Run's publisher: sizes whose partial tiles are files, ascending

	storeMu sync.Mutex
	store   *store // guarded by storeMu

	mu        sync.Mutex
	view      view          // guarded by mu: what is signed
	published checkpoint    // guarded by mu
	change    chan struct{} // guarded by mu: closed when anything here changes
	err       error         // guarded by mu: what failed
	stopped   bool          // guarded by mu
	stats     Stats         // guarded by mu
	behind    time.Time     // guarded by mu: since when a signed head is not published; zero if it is
}

// A view is a signed head with the right edge of its tree. It does not change.
type view struct {
	head   log.Head
	edge   edge
	signed []byte
}

type checkpoint struct {
	size uint64
	msg  []byte // nil if nothing was published yet
}

// Head returns the head signed last.
func (t *Tree) Head() log.Head { return t.current().head }

// Signed returns the checkpoint signed last, without cosignatures. Nobody changes it.
func (t *Tree) Signed() []byte { return t.current().signed }

func (t *Tree) current() view {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.view
}

// Published returns the published checkpoint; nil before the first publication. Nobody changes it.
func (t *Tree) Published() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.published.msg
}

// PublishedAt returns the checkpoint that was published with the given size, with its latest cosignatures;
// fs.ErrNotExist if there was none.
func (t *Tree) PublishedAt(size uint64) ([]byte, error) {
	t.storeMu.Lock()
	s := t.store.snapshot()
	t.storeMu.Unlock()
	return s.find(size)
}

// WaitSigned returns the signed checkpoint once its size is at least size.
func (t *Tree) WaitSigned(ctx context.Context, size uint64) ([]byte, error) {
	return t.wait(ctx, size, func() checkpoint { return checkpoint{t.view.head.Size, t.view.signed} })
}

// WaitPublished returns the published checkpoint once its size is at least size.
func (t *Tree) WaitPublished(ctx context.Context, size uint64) ([]byte, error) {
	return t.wait(ctx, size, func() checkpoint { return t.published })
}

// wait looks at what get returns, under mu, until its size is reached, ctx is done, or no more will come.
func (t *Tree) wait(ctx context.Context, size uint64, get func() checkpoint) ([]byte, error) {
	for {
		t.mu.Lock()
		got, change, err, stopped := get(), t.change, t.err, t.stopped
		t.mu.Unlock()
		switch {
		case got.msg != nil && got.size >= size:
			return got.msg, nil
		case err != nil:
			return nil, fmt.Errorf("wait for checkpoint of size %d: %w", size, err)
		case stopped:
			return nil, fmt.Errorf("wait for checkpoint of size %d: %w", size, ErrStopped)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for checkpoint of size %d: %w", size, ctx.Err())
		case <-change:
		}
	}
}

// update changes what mu guards and wakes those who wait.
func (t *Tree) update(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
	close(t.change)
	t.change = make(chan struct{})
}

// fail latches the first failure: from then on nothing is signed or published, and what is signed is served on.
// It returns err.
func (t *Tree) fail(err error) error {
	t.update(func() {
		if t.err == nil {
			t.err = err
			close(t.failed)
			t.c.Logger.Error("stopped signing", "origin", t.c.Origin, "size", t.view.head.Size, "err", err)
		}
	})
	return err
}

// Failed is closed when something failed. The tree then signs and publishes no more until it is opened again; it still
// serves what was signed.
func (t *Tree) Failed() <-chan struct{} { return t.failed }

// Err returns what failed, nil if nothing did.
func (t *Tree) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Close releases the locks and the files. Run has returned, or was never called.
func (t *Tree) Close() error {
	t.update(func() { t.stopped = true })
	t.storeMu.Lock()
	defer t.storeMu.Unlock()
	errs := []error{t.anchor.close(), t.recovery.close(), t.store.close()}
	for _, l := range t.locks {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
