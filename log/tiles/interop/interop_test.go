// Package interop has other people's readers read our log: torchwood's client
// and Tessera's fsck, over HTTP and from the directory. It is a module of its
// own, so that nothing else depends on them.
package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"filippo.io/torchwood"
	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/tiles"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const origin = "log.example/interop"

// entries is a durable order in memory.
type entries struct {
	mu  sync.Mutex
	all [][]byte
}

func (e *entries) Size() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return uint64(len(e.all))
}

func (e *entries) Wait(ctx context.Context, size uint64) error {
	for e.Size() < size {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

func (e *entries) Entries(from uint64, limit, _ int) ([][]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.all[from:min(from+uint64(limit), uint64(len(e.all)))], nil
}

// grow appends entries up to size, of many lengths, the empty-looking and the
// longest among them.
func (e *entries) grow(size int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for n := len(e.all); n < size; n++ {
		entry := fmt.Appendf(nil, "entry %d\n", n)
		if n%1000 == 7 {
			entry = bytes.Repeat([]byte{byte(n)}, log.EntryMaxBytes)
		}
		e.all = append(e.all, entry)
	}
}

// A published log, as others see it.
type published struct {
	dir      string
	verifier note.Verifier
	source   *entries
	tree     *tiles.Tree
}

// publish makes a log that grew in the given steps, publishing each.
func publish(t *testing.T, sizes ...int) *published {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	must(t, err)
	signer, err := note.NewSigner(skey)
	must(t, err)
	verifier, err := note.NewVerifier(vkey)
	must(t, err)
	root := t.TempDir()
	p := &published{dir: filepath.Join(root, "tiles"), verifier: verifier, source: &entries{}}
	c := tiles.Config{
		Dir: p.dir, StateDir: filepath.Join(root, "state"), AnchorDir: filepath.Join(root, "anchor"), FS: disk.OS(),
		Origin: origin, Signer: signer, Verifier: verifier, Source: p.source,
		Round: 10 * time.Millisecond, Publish: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
	must(t, tiles.Create(c))
	p.tree, err = tiles.Open(c)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.tree.Run(ctx) }()
	for _, size := range sizes {
		p.source.grow(size)
		_, err := p.tree.WaitPublished(t.Context(), uint64(size))
		must(t, err)
	}
	stop()
	must(t, <-ended)
	t.Cleanup(func() { must(t, p.tree.Close()) })
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// policy: signed by the log's key, for its origin.
func policy(p *published) torchwood.Policy {
	return torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(origin), torchwood.SingleVerifierPolicy(p.verifier))
}

func head(t *testing.T, p *published, checkpoint []byte) torchwood.Checkpoint {
	t.Helper()
	c, _, err := torchwood.VerifyCheckpoint(checkpoint, policy(p))
	must(t, err)
	if c.Origin != origin {
		t.Fatalf("torchwood reads origin %q", c.Origin)
	}
	return c
}

// readAll reads every entry with torchwood's client, which checks each against
// the checkpoint, and compares it with what was appended.
func readAll(t *testing.T, p *published, tr torchwood.TileReader) error {
	t.Helper()
	checkpoint, err := tr.ReadEndpoint(t.Context(), "checkpoint")
	must(t, err)
	c := head(t, p, checkpoint)
	reader, err := torchwood.NewClient(tr, torchwood.WithTimeout(time.Minute))
	must(t, err)
	n := int64(0)
	for i, entry := range reader.AllEntries(t.Context(), c.Tree, 0) {
		if i != n || !bytes.Equal(entry, p.source.all[i]) {
			return fmt.Errorf("torchwood reads %q as entry %d", entry, i)
		}
		n++
	}
	if err := reader.Err(); err != nil {
		return err
	}
	if n != c.N || n != int64(len(p.source.all)) {
		return fmt.Errorf("torchwood reads %d of %d entries", n, len(p.source.all))
	}
	for _, i := range []int64{0, c.N / 2, c.N - 1} {
		entry, proof, err := reader.Entry(t.Context(), c.Tree, i)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, c.N, c.Hash, i, tlog.RecordHash(entry)); err != nil {
			return err
		}
	}
	return nil
}

// fsckAll has Tessera derive the whole tree again.
func fsckAll(t *testing.T, p *published, f fsck.Fetcher) error {
	t.Helper()
	hash := func(bundle []byte) ([][]byte, error) {
		var b api.EntryBundle
		if err := b.UnmarshalText(bundle); err != nil {
			return nil, err
		}
		var hashes [][]byte
		for _, e := range b.Entries {
			h := tlog.RecordHash(e)
			hashes = append(hashes, h[:])
		}
		return hashes, nil
	}
	return fsck.New(origin, p.verifier, f, hash, fsck.Opts{N: 2}).Check(t.Context())
}

func TestOthersReadWhatWePublish(t *testing.T) {
	for _, sizes := range [][]int{{1}, {255}, {256}, {257}, {1, 3, 200, 300, 700}, {65_536}, {100, 65_537, 70_000}} {
		t.Run(fmt.Sprint(sizes), func(t *testing.T) {
			p := publish(t, sizes...)
			served := httptest.NewServer(p.tree.Handler(tiles.HandlerOptions{}))
			defer served.Close()

			overHTTP, err := torchwood.NewTileFetcher(served.URL)
			must(t, err)
			must(t, readAll(t, p, overHTTP))
			files, err := torchwood.NewTileFS(os.DirFS(p.dir))
			must(t, err)
			must(t, readAll(t, p, files))

			u, err := url.Parse(served.URL + "/")
			must(t, err)
			fetcher, err := client.NewHTTPFetcher(u, nil)
			must(t, err)
			must(t, fsckAll(t, p, fetcher))
			must(t, fsckAll(t, p, client.FileFetcher{Root: p.dir}))
		})
	}
}

func TestOthersRefuseWhatWasChanged(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		at   int
	}{
		"a full bundle":    {"tile/entries/000", 5},
		"a partial bundle": {"tile/entries/001.p/44", 7},
		"the checkpoint":   {"checkpoint", len(origin) + 8},
	} {
		t.Run(name, func(t *testing.T) {
			p := publish(t, 300)
			file := filepath.Join(p.dir, filepath.FromSlash(c.file))
			b, err := os.ReadFile(file)
			must(t, err)
			b[c.at] ^= 1
			must(t, os.Chmod(file, 0o600))
			must(t, os.WriteFile(file, b, 0o600))
			if err := fsckAll(t, p, client.FileFetcher{Root: p.dir}); err == nil {
				t.Error("Tessera's fsck accepts it")
			}
			if c.file == "checkpoint" {
				if _, _, err := torchwood.VerifyCheckpoint(b, policy(p)); err == nil {
					t.Error("torchwood accepts it")
				}
				return
			}
			files, err := torchwood.NewTileFS(os.DirFS(p.dir))
			must(t, err)
			if err := readAll(t, p, files); err == nil {
				t.Error("torchwood accepts it")
			}
		})
	}
}
