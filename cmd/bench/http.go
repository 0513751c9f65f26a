package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
	"golang.org/x/sync/errgroup"
)

const (
	ndjson      = "application/x-ndjson"
	connections = 64

	httpEventBytes   = 400
	httpPayloadBytes = 200
)

var httpSizes = fmt.Sprintf("event %d B and payload %d B", httpEventBytes, httpPayloadBytes)

// requests makes n signed requests of a stream, each with batch events; one
// more, the first, opens the stream.
func requests(name, stream string, key ed25519.PrivateKey, n, batch int) [][]byte {
	st := log.NewStream(benchOrigin, stream)
	now := uint64(time.Now().UnixMilli())
	all := make([][]byte, 0, n)
	filler := fmt.Appendf(nil, "%q", strings.Repeat("x", httpPayloadBytes-2))
	for i := range n + 1 {
		var b bytes.Buffer
		count, first := batch, st.Seq+1
		if i == 0 {
			count = 1
		}
		for j := range count {
			e := log.Event{
				Actor: name, Kind: "migration.load", Log: benchOrigin, Migration: strings.Split(stream, "/")[0],
				Objects: []log.Object{{Name: "crm.customers", Role: "source"}, {Name: "dwh.party", Role: "target"}},
				Stream:  stream, Seq: st.Seq + 1, Prev: st.Hash, Time: now,
			}
			p := log.Payload{Bytes: filler}
			if i == 0 {
				e.Kind = "stream.open"
				public := log.PublicKey(key.Public().(ed25519.PublicKey))
				p.Bytes = log.StreamOpen{Keys: []log.PublicKey{public}, Mode: log.ModeSigned, Owner: name}.Marshal()
			}
			rand.Read(p.Salt[:])
			e.Payload = &log.Ref{Commitment: log.Commit(p, log.JSONType), Type: log.JSONType}
			st.Seq, st.Hash = e.Seq, e.Hash()
			fmt.Fprintf(&b, `{"event":%s,"payload":%s,"salt":%q`, e.Marshal(), p.Bytes, base64.StdEncoding.EncodeToString(p.Salt[:]))
			if j == count-1 {
				fmt.Fprintf(&b, `,"sig":%s`, log.Sign(key, log.TailText(benchOrigin, stream, first, st.Seq, st.Hash)).Marshal())
			}
			b.WriteString("}\n")
		}
		all = append(all, b.Bytes())
	}
	return all
}

// httpLoad sends signed batches over as many streams as connections. Each
// stream has a schedule of its own, between those of the others, and waits for
// no other; its next request needs the answer to its last one, and is late,
// and counted as late, if that is.
func httpLoad(rate, batch int) func(context.Context, env) (figures, error) {
	return func(ctx context.Context, e env) (f figures, err error) {
		err = withServer(ctx, e, "1s", func(s *server) error {
			f, err = s.load(ctx, time.Duration(batch)*time.Second/time.Duration(rate), max(1, rate/batch*e.seconds/connections), batch)
			return err
		})
		return f, err
	}
}

// load sends n requests on each connection, one every interval in all.
func (s *server) load(ctx context.Context, interval time.Duration, n, batch int) (figures, error) {
	bodies := make([][][]byte, connections)
	tokens := make([]string, connections)
	for i := range connections {
		name := fmt.Sprintf("svc%d", i)
		token, key, err := s.principal(ctx, name)
		if err != nil {
			return nil, err
		}
		tokens[i], bodies[i] = token, requests(name, fmt.Sprintf("m%d/s", i), key, n, batch)
		if err := s.post(ctx, "/v1/events", token, ndjson, bodies[i][0], nil); err != nil {
			return nil, err
		}
	}
	all := make(latencies, connections*n)
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now().Add(time.Second)
	for i := range connections {
		g.Go(func() error {
			for k, body := range bodies[i][1:] {
				at := k*connections + i
				planned := start.Add(time.Duration(at) * interval)
				time.Sleep(time.Until(planned))
				if err := s.post(ctx, "/v1/events", tokens[i], ndjson, body, nil); err != nil {
					return err
				}
				all[at] = time.Since(planned)
			}
			return nil
		})
	}
	err := g.Wait()
	return all.figures(), err
}

// published measures from sending an event to its proof under the published
// checkpoint, at a light load, with events at random times of the cadence.
func published(cadence string) func(context.Context, env) (figures, error) {
	return func(ctx context.Context, e env) (f figures, err error) {
		every, err := time.ParseDuration(cadence)
		if err != nil {
			return nil, err
		}
		err = withServer(ctx, e, cadence, func(s *server) error {
			f, err = s.publishing(ctx, every)
			return err
		})
		return f, err
	}
}

func (s *server) publishing(ctx context.Context, every time.Duration) (figures, error) {
	const services, each = 32, 10
	var mu sync.Mutex
	var all latencies
	g, ctx := errgroup.WithContext(ctx)
	for i := range services {
		name := fmt.Sprintf("svc%d", i)
		token, key, err := s.principal(ctx, name)
		if err != nil {
			return nil, errors.Join(err, g.Wait())
		}
		bodies := requests(name, fmt.Sprintf("m%d/s", i), key, each, 1)
		g.Go(func() error {
			for _, b := range bodies {
				time.Sleep(mathrand.N(every))
				began := time.Now()
				if err := s.proven(ctx, token, b); err != nil {
					return err
				}
				mu.Lock()
				all = append(all, time.Since(began))
				mu.Unlock()
			}
			return nil
		})
	}
	err := g.Wait()
	return all.figures(), err
}

// proven appends with Prefer: wait and wants a proof in the answer.
func (s *server) proven(ctx context.Context, token string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/events", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", ndjson)
	req.Header.Set("Prefer", "wait=20")
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	var a struct{ Proofs []string }
	err = json.NewDecoder(resp.Body).Decode(&a)
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err == nil && len(a.Proofs) == 0 {
		err = errors.New("answer without proof: " + resp.Status)
	}
	return err
}

// sdk sends 100,000 events through the SDK and checks each inclusion proof.
func sdk(ctx context.Context, e env) (f figures, err error) {
	err = withServer(ctx, e, "1s", func(s *server) error {
		f, err = s.sdk(ctx)
		return err
	})
	return f, err
}

func (s *server) sdk(ctx context.Context) (figures, error) {
	token, key, err := s.principal(ctx, "sdk")
	if err != nil {
		return nil, err
	}
	vkey := func(name string) string {
		b, rerr := os.ReadFile(filepath.Join(s.dir, name))
		err = errors.Join(err, rerr)
		return strings.TrimSpace(string(b))
	}
	c, nerr := client.New(client.Config{
		URL: s.url, Token: token, LogKey: vkey("log.vkey"), ReceiptKey: vkey("receipt.vkey"), Principal: "sdk", Key: key,
	})
	if err = errors.Join(err, nerr); err != nil {
		return nil, err
	}
	const events, batch, sdkPayload = 100_000, 1000, `{"rows":1000,"table":"customers"}` // 33 bytes
	names := []string{"a", "b", "c", "d"}
	began := time.Now()
	m, err := c.OpenMigration(ctx, "bench", client.MigrationConfig{Streams: names})
	if err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, name := range names {
		g.Go(func() error {
			st, err := m.OpenStream(gctx, name)
			all := make([]client.Event, batch)
			for k := range all {
				all[k] = client.Event{Kind: "migration.load", Type: log.JSONType, Payload: []byte(sdkPayload)}
			}
			for n := 0; err == nil && n < events/len(names); n += len(all) {
				_, err = st.Append(gctx, all...)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	f := figures{acked: time.Since(began).Seconds()}
	err = errors.Join(m.Close(ctx), c.Wait(ctx))
	f[took] = time.Since(began).Seconds()
	return f, err
}
