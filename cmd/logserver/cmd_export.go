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
	"golang.org/x/sync/errgroup"
)

// exportWorkers is how many entries an export fetches at once.
const exportWorkers = 16

// judgingKinds are the log's own entries that an auditor needs to judge
// others: its keys, submitters' keys, refusals that took a seq, erasures.
var judgingKinds = []string{
	"log.open", "log.semantics", "key.registered", "key.revoked", "log.refused", "payload.erased", "stream.abandoned",
	"access.token.created", "access.token.revoked",
}

func cmdExport(ctx context.Context, args []string, out, errOut io.Writer, _ io.Reader) int {
	x := export{errOut: errOut}
	return clientCommand("export", args, out, errOut, `logserver export -url URL -token-file FILE -out DIR (-migration M … | -from I -to J) [-since SIZE]…

Writes a directory that verifier verify checks offline: the entries of
migrations, or of a range of indexes, with the log's own entries that are needed
to judge them; a proof of each under one checkpoint; the payloads, where the
token's principal may read them and they are not erased. Every payload that is
read is an entry of the log. All that is written is checked first. -since adds
the proof that the checkpoint extends one that an auditor has pinned.

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
				x.dir, n, x.head.Size, x.payloads.Load(), x.withheld.Load(), x.erased.Load())
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

	checkpointNote []byte
	head           log.Head
	origin         string

	done, payloads, withheld, erased atomic.Uint64
}

// run makes the directory beside its place, and moves it there when whole.
func (x *export) run(ctx context.Context) (n int, err error) {
	if _, err := os.Lstat(x.dir); !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("%w: %s is there already", errUsage, x.dir)
	}
	indexes, err := x.indexes(ctx)
	if err != nil {
		return 0, err
	}
	if len(indexes) == 0 {
		return 0, fmt.Errorf("%w: the log has no such entries", errCheck)
	}
	if err := x.awaitCheckpoint(ctx, indexes[len(indexes)-1]+1); err != nil {
		return 0, err
	}
	x.part = filepath.Clean(x.dir) + ".part"
	if err := os.RemoveAll(x.part); err != nil {
		return 0, err
	}
	for _, folder := range log.ExportFolders() {
		if err := os.MkdirAll(filepath.Join(x.part, folder), 0o755); err != nil {
			return 0, err
		}
	}
	if err := x.fill(ctx, indexes); err != nil {
		return 0, errors.Join(err, os.RemoveAll(x.part))
	}
	return len(indexes), os.Rename(x.part, x.dir)
}

// indexes finds what to export, in ascending order.
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
		return nil, nil
	}
	for _, kind := range judgingKinds {
		if err := collect("kind", kind); err != nil {
			return nil, err
		}
	}
	return slices.Sorted(maps.Keys(set)), nil
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
			x.checkpointNote, x.head, x.origin = signed, c.Head, c.Origin
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no published checkpoint covers entry %d; the last has size %d: try again later", size-1, c.Size)
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
	if err := x.write(log.ExportFile{Kind: log.ExportCheckpoint}, x.checkpointNote); err != nil {
		return err
	}
	for _, old := range x.since {
		b, err := x.get(ctx, fmt.Sprintf("/v1/proofs/consistency/%d/%d", old, x.head.Size))
		if err != nil {
			return err
		}
		if _, err := log.ParseConsistencyProof(b); err != nil {
			return fmt.Errorf("%w: %w", errCheck, err)
		}
		if err := x.write(log.ExportFile{Kind: log.ExportConsistency, Number: old}, b); err != nil {
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
	if e.Event.Log != x.origin {
		return fmt.Errorf("%w: entry %d is of log %q, the checkpoint of %q", errCheck, i, e.Event.Log, x.origin)
	}
	p, err := x.inclusion(ctx, x.head, i, log.LeafHash(b))
	if err != nil {
		return err
	}
	p.Checkpoint = x.checkpointNote
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
	case errors.As(err, &refused) && refused.Status == http.StatusGone:
		x.erased.Add(1)
		return nil
	case errors.As(err, &refused) && refused.Status == http.StatusForbidden:
		x.withheld.Add(1)
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
	return os.WriteFile(filepath.Join(x.part, filepath.FromSlash(f.Path())), b, 0o644)
}
