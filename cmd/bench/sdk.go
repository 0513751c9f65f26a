package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/cmd/bench/measure"
	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
	"github.com/pipe-roll/piperoll/log/reader"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"
)

var (
	took     = measure.Quantity{Name: "took", Format: "%.1f", Unit: "s"}
	acked    = measure.Quantity{Name: "all acknowledged after", Format: "%.1f", Unit: "s"}
	rssAfter = measure.Quantity{Name: "RSS of the server after it", Format: "%.0f", Unit: "MiB"}
)

// sdkPayload has 33 bytes.
const sdkPayload = `{"rows":1000,"table":"customers"}`

// sdk sends events through the SDK, which checks each receipt and each inclusion
// proof, and checks them once more in the end with what the SDK has returned.
func (binary serverBinary) sdk(events int, outbox bool) func(context.Context, measure.Env) (measure.Figures, error) {
	return func(ctx context.Context, e measure.Env) (f measure.Figures, err error) {
		err = binary.with(ctx, e, "1s", func(s *server) error {
			f, err = s.sdk(ctx, events, outbox)
			return err
		})
		return f, err
	}
}

func (s *server) sdk(ctx context.Context, events int, outbox bool) (measure.Figures, error) {
	began := time.Now()
	given, acknowledged, err := s.send(ctx, events, outbox)
	if err != nil {
		return nil, err
	}
	f := measure.Figures{acked: acknowledged.Seconds()}
	err = s.kept(ctx, given, events)
	f[took] = time.Since(began).Seconds()
	rss, rerr := s.rss()
	f[rssAfter] = rss
	return f, errors.Join(err, rerr)
}

// send sends events through the SDK and returns what was promised for them,
// when the SDK has checked all of it. They were acknowledged before.
func (s *server) send(ctx context.Context, events int, outbox bool) (given *promises, acknowledged time.Duration, err error) {
	c, err := s.client(ctx, "sdk", outbox)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	const batch = 1000
	names := []string{"a", "b", "c", "d"}
	began := time.Now()
	m, err := c.OpenMigration(ctx, "bench", client.MigrationConfig{Streams: names})
	if err != nil {
		return nil, 0, err
	}
	given = &promises{}
	g, gctx := errgroup.WithContext(ctx)
	for _, name := range names {
		g.Go(func() error {
			st, err := m.OpenStream(gctx, name)
			all := make([]client.Event, batch)
			for k := range all {
				all[k] = client.Event{Kind: "migration.load", Type: log.JSONType, Payload: []byte(sdkPayload)}
			}
			for n := 0; err == nil && n < events/len(names); n += len(all) {
				var placed []client.Placed
				placed, err = st.Append(gctx, all...)
				given.add(placed)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, 0, err
	}
	acknowledged = time.Since(began)
	return given, acknowledged, errors.Join(m.Close(ctx), c.Wait(ctx))
}

// client makes an SDK for a new principal, with an outbox beside the log if one is wanted.
func (s *server) client(ctx context.Context, name string, outbox bool) (*client.Client, error) {
	token, key, err := s.principal(ctx, name)
	if err != nil {
		return nil, err
	}
	logKey, lerr := s.vkey("log.vkey")
	receiptKey, rerr := s.vkey("receipt.vkey")
	if err := errors.Join(lerr, rerr); err != nil {
		return nil, err
	}
	c := client.Config{URL: s.url, Token: token, LogKey: logKey, ReceiptKey: receiptKey, Principal: name, Key: key}
	if outbox {
		c.Outbox = &client.OutboxConfig{Dir: s.file("outbox")}
	}
	return client.New(c)
}

// promises are all that a log acknowledged.
type promises struct {
	mu  sync.Mutex
	all []promise
}

// A promise is a request's entries, by their hashes, and the receipt for them.
type promise struct {
	first   uint64
	leaves  []log.Hash
	receipt string
}

// add notes what was placed, in the order of the log; entries of one request have one receipt.
func (p *promises) add(placed []client.Placed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, e := range placed {
		if i == 0 || string(e.Receipt) != string(placed[i-1].Receipt) {
			p.all = append(p.all, promise{first: e.Index, receipt: string(e.Receipt)})
		}
		last := &p.all[len(p.all)-1]
		last.leaves = append(last.leaves, e.Leaf)
	}
}

// kept checks that there were so many promises, that each receipt is the log's
// and over these entries, and that each entry is under the checkpoint that is published.
func (s *server) kept(ctx context.Context, given *promises, events int) error {
	vkey, err := s.vkey("receipt.vkey")
	if err != nil {
		return err
	}
	key, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	checkpoint, err := s.checkpoint(ctx)
	if err != nil {
		return err
	}
	tree := reader.New(reader.HTTP(s.url, s.admin, s.http), 4096)
	for _, p := range given.all {
		receipt, err := log.OpenReceipt([]byte(p.receipt), key)
		if err != nil {
			return fmt.Errorf("receipt of entry %d: %w", p.first, err)
		}
		if receipt.First != p.first || receipt.Count != uint64(len(p.leaves)) || receipt.Leaves != log.LeavesHash(p.leaves) {
			return fmt.Errorf("receipt of entry %d is of others", p.first)
		}
		for i, leaf := range p.leaves {
			index := p.first + uint64(i)
			path, err := tree.Inclusion(ctx, checkpoint.Head, index)
			if err != nil {
				return err
			}
			if err := log.CheckInclusion(checkpoint.Head, index, leaf, path); err != nil {
				return err
			}
		}
		events -= len(p.leaves)
	}
	if events != 0 {
		return fmt.Errorf("%d events have no receipt", events)
	}
	return nil
}
