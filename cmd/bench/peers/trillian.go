package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/google/trillian"
	"github.com/google/trillian/extension"
	sequencing "github.com/google/trillian/log"
	"github.com/google/trillian/monitoring"
	"github.com/google/trillian/quota"
	"github.com/google/trillian/server"
	"github.com/google/trillian/storage"
	"github.com/google/trillian/storage/mysql"
	"github.com/google/trillian/trees"
	"github.com/google/trillian/types"
	"github.com/google/trillian/util/clock"
	"github.com/transparency-dev/merkle/rfc6962"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pipe-roll/piperoll/cmd/bench/engine"
	"github.com/pipe-roll/piperoll/cmd/bench/measure"
	"golang.org/x/sync/errgroup"
)

// What integrates the queue, as a single signer would.
const (
	integrateEvery = 20 * time.Millisecond
	integrateMax   = 5000
)

// integrated is how much of what was acknowledged the tree has when the load ends.
var integrated = measure.Quantity{Name: "integrated", Format: "%.0f", Unit: "%"}

// A mode is a way to use Trillian.
type mode struct {
	name     string
	treeType trillian.TreeType
	writers  int // each with a connection
	batchMax int // leaves that wait go together, up to these
	add      func(t *tree, ctx context.Context, leaves []*trillian.LogLeaf) ([]*trillian.QueuedLogLeaf, error)
}

var modes = []mode{
	{"queued one by one, 64 connections", trillian.TreeType_LOG, 64, 1, (*tree).queueOne},
	{"queued up to 256, 4 connections", trillian.TreeType_LOG, 4, 256, (*tree).queue},
	{"preordered up to 512", trillian.TreeType_PREORDERED_LOG, 1, 512, (*tree).addSequenced},
}

// A tree is one log of Trillian, used in this process.
type tree struct {
	*trillian.Tree
	logs storage.LogStorage
	rpc  *server.TrillianLogRPCServer
	db   *sql.DB
	next int64 // index of the next preordered leaf
}

func (m mode) under(load measure.Load, schema string) func(context.Context, measure.Env) (measure.Figures, error) {
	return func(ctx context.Context, e measure.Env) (f measure.Figures, err error) {
		err = m.with(ctx, filepath.Join(e.Dir, "mariadb"), schema, func(ctx context.Context, t *tree, add measure.Appender) error {
			time.Sleep(engine.WarmUp)
			var acknowledged atomic.Uint64
			f, err = load(ctx, e, func(ctx context.Context, n int) error {
				err := add(ctx, n)
				acknowledged.Add(1)
				return err
			})
			if err != nil {
				return err
			}
			size, err := t.size(ctx)
			f[integrated] = 100 * float64(size) / float64(acknowledged.Load())
			return errors.Join(err, t.has(ctx, acknowledged.Load()))
		})
		return f, err
	}
}

// with runs f on a new tree in a database of its own.
func (m mode) with(ctx context.Context, dir, schema string, f func(context.Context, *tree, measure.Appender) error) (err error) {
	maria, err := startMariaDB(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, maria.stop()) }()
	db, err := maria.open(ctx, schema, m.writers+1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	metrics := monitoring.InertMetricFactory{}
	sequencing.InitMetrics(metrics)
	r := extension.Registry{
		AdminStorage: mysql.NewAdminStorage(db), LogStorage: mysql.NewLogStorage(db, metrics),
		QuotaManager: quota.Noop(), MetricFactory: metrics,
	}
	t := &tree{db: db, logs: r.LogStorage, rpc: server.NewTrillianLogRPCServer(r, clock.System)}
	t.Tree, err = storage.CreateTree(ctx, r.AdminStorage, &trillian.Tree{
		TreeType: m.treeType, TreeState: trillian.TreeState_ACTIVE, MaxRootDuration: durationpb.New(0),
	})
	if err == nil {
		_, err = t.rpc.InitLog(ctx, &trillian.InitLogRequest{LogId: t.TreeId})
	}
	if err != nil {
		return fmt.Errorf("make a tree: %w", err)
	}
	return m.run(ctx, t, f)
}

// run runs f while writers take what it appends and a sequencer integrates it.
func (m mode) run(ctx context.Context, t *tree, f func(context.Context, *tree, measure.Appender) error) error {
	q := queue{make(chan waiting, 1<<17), leaves()}
	g, ctx := errgroup.WithContext(ctx)
	integrating, stop := context.WithCancel(ctx)
	for range m.writers {
		g.Go(func() error { m.write(ctx, t, q); return nil })
	}
	g.Go(func() error { return t.integrate(integrating) })
	g.Go(func() error {
		defer close(q.waiting)
		defer stop()
		return f(ctx, t, q.add)
	})
	return g.Wait()
}

// A queue holds the leaves that no writer has taken yet.
type queue struct {
	waiting chan waiting
	next    func() []byte
}

type waiting struct {
	leaf *trillian.LogLeaf
	done chan error
}

func (q queue) add(ctx context.Context, _ int) error {
	hash := rfc6962.DefaultHasher.HashLeaf
	leaf := q.next()
	w := waiting{&trillian.LogLeaf{LeafValue: leaf, LeafIdentityHash: hash(leaf), MerkleLeafHash: hash(leaf)}, make(chan error, 1)}
	select {
	case q.waiting <- w:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// group gives a leaf with those that wait behind it.
func (q queue) group(first waiting, most int) []waiting {
	all := []waiting{first}
	for len(all) < most {
		select {
		case w, open := <-q.waiting:
			if !open {
				return all
			}
			all = append(all, w)
		default:
			return all
		}
	}
	return all
}

// write takes what waits, adds it in one transaction, and acknowledges it.
func (m mode) write(ctx context.Context, t *tree, q queue) {
	for first := range q.waiting {
		group := q.group(first, m.batchMax)
		leaves := make([]*trillian.LogLeaf, len(group))
		for i, w := range group {
			leaves[i] = w.leaf
		}
		added, err := m.add(t, ctx, leaves)
		for i, w := range group {
			switch {
			case err != nil:
				w.done <- err
			case added[i].GetStatus().GetCode() != int32(codes.OK):
				w.done <- fmt.Errorf("leaf was not taken: %s", added[i].GetStatus().GetMessage())
			default:
				w.done <- nil
			}
		}
	}
}

func (t *tree) queueOne(ctx context.Context, leaves []*trillian.LogLeaf) ([]*trillian.QueuedLogLeaf, error) {
	r, err := t.rpc.QueueLeaf(ctx, &trillian.QueueLeafRequest{LogId: t.TreeId, Leaf: leaves[0]})
	return []*trillian.QueuedLogLeaf{r.GetQueuedLeaf()}, err
}

// queue does what QueueLeaf does, for many leaves in one transaction.
func (t *tree) queue(ctx context.Context, leaves []*trillian.LogLeaf) ([]*trillian.QueuedLogLeaf, error) {
	return t.logs.QueueLeaves(trees.NewContext(ctx, t.Tree), t.Tree, leaves, time.Now())
}

// addSequenced gives leaves their indices. It has one caller at a time.
func (t *tree) addSequenced(ctx context.Context, leaves []*trillian.LogLeaf) ([]*trillian.QueuedLogLeaf, error) {
	for _, leaf := range leaves {
		leaf.LeafIndex = t.next
		t.next++
	}
	r, err := t.rpc.AddSequencedLeaves(ctx, &trillian.AddSequencedLeavesRequest{LogId: t.TreeId, Leaves: leaves})
	return r.GetResults(), err
}

// integrate grows the tree until ctx is done; the batch that it is at then goes through.
func (t *tree) integrate(ctx context.Context) error {
	batchCtx := trees.NewContext(context.WithoutCancel(ctx), t.Tree)
	for ctx.Err() == nil {
		began := time.Now()
		if _, err := sequencing.IntegrateBatch(batchCtx, t.Tree, integrateMax, 0, 0, clock.System, t.logs, quota.Noop()); err != nil {
			return fmt.Errorf("integrate: %w", err)
		}
		time.Sleep(time.Until(began.Add(integrateEvery)))
	}
	return nil
}

// size is how many leaves the tree has.
func (t *tree) size(ctx context.Context) (uint64, error) {
	r, err := t.rpc.GetLatestSignedLogRoot(ctx, &trillian.GetLatestSignedLogRootRequest{LogId: t.TreeId})
	if err != nil {
		return 0, err
	}
	var root types.LogRootV1
	err = root.UnmarshalBinary(r.GetSignedLogRoot().GetLogRoot())
	return root.TreeSize, err
}

// has says if the database does not have as many leaves as were acknowledged.
func (t *tree) has(ctx context.Context, want uint64) error {
	var n uint64
	err := t.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM LeafData").Scan(&n)
	if err == nil && n != want {
		err = fmt.Errorf("of %d leaves Trillian has %d", want, n)
	}
	return err
}
