package main

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"golang.org/x/sync/errgroup"
)

// exportWorkers is how many entries an export fetches at once.
const exportWorkers = 16

// judgingKinds are the log's own entries that an auditor needs to judge others,
// beside the control entries: refusals that took a seq, and erasures.
var judgingKinds = []string{"log.refused", "payload.erased", "stream.abandoned"}

func cmdExport(ctx context.Context, args []string, out, errOut io.Writer, _ io.Reader) int {
	x := export{errOut: errOut}
	return clientCommand("export", args, out, errOut, `logserver export -url URL -token-file FILE -out DIR (-migration M … | -from I -to J) [-since SIZE]…

Writes a directory that verifier verify checks offline: the entries of
migrations, or of a range of indexes, with the log's own entries that are needed
to judge them; a proof of each under one checkpoint; the payloads, where the
token's principal may read them and they are not erased. Every payload that is
read is an entry of the log. All that is written is checked first, with the log's
key. -since adds the proof that the checkpoint extends one that an auditor has
pinned. The directory is there when it is whole, and durable; what an export that
was cut off left in DIR.part is removed by the next.

Example:
  logserver export -url $URL -token-file auditor.token -log-vkey log.vkey -migration crm-2026 -out evidence
`, &x.remote, func(fs *flag.FlagSet) {
		fs.StringVar(&x.dir, "out", "", "`folder` to make")
		fs.Func("migration", "`migration` to export; may be repeated", func(v string) error {
			x.migrations = append(x.migrations, v)
			return nil
		})
		fs.Int64Var(&x.from, "from", -1, "first `index` of a range")
		fs.Int64Var(&x.to, "to", -1, "`index` after the last of a range")
		fs.Func("since", "`size` of an earlier checkpoint; may be repeated", func(v string) error {
			n, err := strconv.ParseUint(v, 10, 53)
			x.since = append(x.since, n)
			return err
		})
		fs.BoolVar(&x.noPayloads, "no-payloads", false, "leave payloads out, but for those that the log's structure needs")
	}, func(fs *flag.FlagSet) error {
		ranged := x.from >= 0 && x.to > x.from
		if fs.NArg() != 0 || x.dir == "" || ranged == (len(x.migrations) > 0) {
			return fmt.Errorf("%w: want -out, and -migration or -from and -to", errUsage)
		}
		n, err := x.run(ctx)
		if err == nil {
			_, err = fmt.Fprintf(out, "%s: %d entries, each proven under checkpoint of size %d; %d payloads, %d withheld, %d erased\n",
				x.dir, n, x.next.Size, x.payloads.Load(), x.withheld.Load(), x.erased.Load())
		}
		if err == nil {
			err = x.established()
		}
		return err
	})
}

// An export is one directory being made.
type export struct {
	remote
	errOut     io.Writer
	dir, part  string
	migrations []string
	from, to   int64
	since      []uint64
	noPayloads bool

	note []byte         // the checkpoint that all is proven under
	next log.Checkpoint // what it says

	done, payloads, withheld, erased atomic.Uint64
}

// run makes the directory beside its place, in this order:
//
//	files written and durable -> folders durable -> moved to its place -> that durable
//
// So a directory that is there is whole, whenever the power fails.
func (x *export) run(ctx context.Context) (n int, err error) {
	x.dir = filepath.Clean(x.dir)
	x.part = x.dir + ".part"
	if _, err := os.Lstat(x.dir); err == nil {
		return 0, fmt.Errorf("%w: %s is there already", errUsage, x.dir)
	} else if !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	if err := x.clear(); err != nil {
		return 0, err
	}
	indexes, err := x.indexes(ctx)
	if err != nil {
		return 0, err
	}
	if err := x.make(ctx, indexes); err != nil {
		return 0, errors.Join(err, os.RemoveAll(x.part))
	}
	return len(indexes), disk.OS().SyncDir(filepath.Dir(x.dir))
}

// clear removes what an export that was cut off has left, if it is that.
func (x *export) clear() error {
	names, err := os.ReadDir(x.part)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	known := append(log.ExportFolders(), log.ExportFile{Kind: log.ExportCheckpoint}.Name())
	for _, n := range names {
		if !slices.Contains(known, n.Name()) {
			return fmt.Errorf("%w: %s is in the way, and is not what an export leaves (it has %s): move it away", errUsage, x.part, n.Name())
		}
	}
	printf(x.errOut, "export: begins anew, without what one that was cut off left in %s\n", x.part)
	return os.RemoveAll(x.part)
}

func (x *export) make(ctx context.Context, indexes []uint64) error {
	folders := append(log.ExportFolders(), ".")
	for _, folder := range folders {
		if err := os.MkdirAll(filepath.Join(x.part, folder), 0o755); err != nil {
			return err
		}
	}
	if err := x.fill(ctx, indexes); err != nil {
		return err
	}
	for _, folder := range folders {
		if err := disk.OS().SyncDir(filepath.Join(x.part, folder)); err != nil {
			return err
		}
	}
	return os.Rename(x.part, x.dir)
}

// indexes finds what to export, in ascending order, and the checkpoint for it.
func (x *export) indexes(ctx context.Context) ([]uint64, error) {
	set := make(map[uint64]bool)
	collect := func(filter, value string) error {
		return x.search(ctx, url.Values{filter: {value}}, func(item foundJSON) (bool, error) {
			set[item.Index] = true
			return true, nil
		})
	}
	for i := x.from; len(x.migrations) == 0 && i < x.to; i++ {
		set[uint64(i)] = true
	}
	for _, m := range x.migrations {
		if err := collect("migration", m); err != nil {
			return nil, err
		}
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("%w: the log has no such entries", errCheck)
	}
	for _, kind := range judgingKinds {
		if err := collect("kind", kind); err != nil {
			return nil, err
		}
	}
	if err := x.awaitCheckpoint(ctx, slices.Max(slices.Collect(maps.Keys(set)))+1); err != nil {
		return nil, err
	}
	if err := x.controls(ctx, set); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(set)), nil
}

// controls adds every control entry under the checkpoint. It goes from the last
// entry back by as_of, which names the control entry before: so none is left
// out, of whatever kind, and an auditor's history of keys has no gap.
func (x *export) controls(ctx context.Context, set map[uint64]bool) error {
	for i, named := x.next.Size-1, false; ; named = true {
		_, e, err := x.entry(ctx, i)
		if err != nil {
			return err
		}
		control := log.Control(e.Event.Kind)
		switch {
		case named && !control, i > 0 && e.Log.AsOf >= i:
			return fmt.Errorf("%w: entry %d, of kind %s and as of %d, breaks the chain of control entries", errCheck, i, e.Event.Kind, e.Log.AsOf)
		case control:
			set[i] = true
		}
		if i == 0 {
			return nil
		}
		i = e.Log.AsOf
	}
}

// awaitCheckpoint takes the first published checkpoint that covers size.
func (x *export) awaitCheckpoint(ctx context.Context, size uint64) error {
	deadline := time.Now().Add(time.Minute)
	for {
		signed, err := x.get(ctx, "/checkpoint")
		if err != nil {
			return err
		}
		c, err := x.checkpoint(signed)
		if err != nil {
			return err
		}
		if c.Size >= size {
			x.note, x.next = signed, c
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: no published checkpoint covers entry %d, the last has size %d: try again later", errNotEstablished, size-1, c.Size)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// fill writes every file of the directory.
func (x *export) fill(ctx context.Context, indexes []uint64) error {
	if err := x.write(log.ExportFile{Kind: log.ExportCheckpoint}, x.note); err != nil {
		return err
	}
	for _, size := range x.since {
		old, err := x.published(ctx, size)
		if err != nil {
			return err
		}
		b, err := x.consistency(ctx, old, x.next)
		if err != nil {
			return err
		}
		if err := x.write(log.ExportFile{Kind: log.ExportConsistency, Number: size}, b); err != nil {
			return err
		}
	}
	telling, told := context.WithCancel(ctx)
	defer told()
	go x.tell(telling, len(indexes))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(exportWorkers)
	for _, i := range indexes {
		g.Go(func() error {
			defer x.done.Add(1)
			return x.entryFiles(ctx, i)
		})
	}
	return g.Wait()
}

// tell prints progress every second.
func (x *export) tell(ctx context.Context, total int) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			printf(x.errOut, "export: %d of %d entries\n", x.done.Load(), total)
		case <-ctx.Done():
			return
		}
	}
}

// entryFiles fetches, checks and writes all that belongs to one entry.
func (x *export) entryFiles(ctx context.Context, i uint64) error {
	b, e, err := x.entry(ctx, i)
	if err != nil {
		return err
	}
	if e.Event.Log != x.next.Origin {
		return fmt.Errorf("%w: entry %d is of log %q, the checkpoint of %q", errCheck, i, e.Event.Log, x.next.Origin)
	}
	p, err := x.inclusion(ctx, x.next.Head, i, log.LeafHash(b))
	if err != nil {
		return err
	}
	p.Checkpoint = x.note
	if err := x.write(log.ExportFile{Kind: log.ExportEvent, Number: i}, b); err != nil {
		return err
	}
	if err := x.write(log.ExportFile{Kind: log.ExportProof, Number: i}, p.Marshal()); err != nil {
		return err
	}
	if e.Event.Payload == nil || x.noPayloads && !log.Structural(e.Event.Kind) {
		return nil
	}
	return x.payloadFiles(ctx, i, *e.Event.Payload)
}

func (x *export) payloadFiles(ctx context.Context, i uint64, ref log.Ref) error {
	b, header, err := x.do(ctx, http.MethodGet, fmt.Sprintf("/v1/payloads/%d", i), "", nil)
	var refused *remoteProblem
	switch {
	case errors.As(err, &refused) && (refused.Status == http.StatusForbidden || refused.Type == problemKeyMissing):
		x.withheld.Add(1) // no entry says that it was erased
		return nil
	case errors.As(err, &refused) && refused.Status == http.StatusGone:
		x.erased.Add(1)
		return nil
	case err != nil:
		return err
	}
	salt, err := base64.StdEncoding.Strict().DecodeString(header.Get(headerSalt))
	if err != nil || len(salt) != 32 {
		return fmt.Errorf("%w: payload of entry %d comes without its salt", errCheck, i)
	}
	p := log.Payload{Salt: [32]byte(salt), Bytes: b}
	if err := ref.Check(p); err != nil {
		return fmt.Errorf("%w: payload of entry %d: %w", errCheck, i, err)
	}
	x.payloads.Add(1)
	if err := x.write(log.ExportFile{Kind: log.ExportPayload, Number: i}, b); err != nil {
		return err
	}
	return x.write(log.ExportFile{Kind: log.ExportSalt, Number: i}, log.MarshalSalt(p.Salt))
}

func (x *export) write(f log.ExportFile, b []byte) error {
	return writeNew(filepath.Join(x.part, filepath.FromSlash(f.Path())), b, 0o644)
}
