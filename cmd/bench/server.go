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
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/client"
)

const benchOrigin = "log.example/bench"

func buildServer(ctx context.Context, dir string) (string, error) {
	file := filepath.Join(dir, "logserver")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", file, "github.com/pipe-roll/piperoll/cmd/logserver")
	cmd.Stderr = os.Stderr
	return file, cmd.Run()
}

// A server is the real logserver in a process of its own.
type server struct {
	dir   string
	url   string
	admin string
	cmd   *exec.Cmd
	http  *http.Client
}

func startServer(ctx context.Context, e env, publish string) (*server, error) {
	s := &server{dir: filepath.Join(e.dir, "log"), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}
	init := exec.CommandContext(ctx, e.server, "init", "-dir", s.dir, "-origin", benchOrigin, "-listen", "127.0.0.1:0")
	init.Stderr = os.Stderr
	if err := init.Run(); err != nil {
		return nil, err
	}
	config := filepath.Join(s.dir, "config.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	text = []byte(strings.Replace(string(text), "publish: 1s", "publish: "+publish, 1))
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return nil, err
	}
	s.cmd = exec.CommandContext(ctx, e.server, "serve", "-config", config)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for range 500 {
		if addr, err := os.ReadFile(filepath.Join(s.dir, "addr")); err == nil {
			s.url = "http://" + strings.TrimSpace(string(addr))
			token, err := os.ReadFile(filepath.Join(s.dir, "admin.token"))
			s.admin = strings.TrimSpace(string(token))
			time.Sleep(2 * time.Second) // the first segments are prepared
			return s, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.New("the server does not come up")
}

func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.cmd.Wait()
}

func (s *server) post(ctx context.Context, path, token, contentType string, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, "POST", s.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", contentType)
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err == nil && resp.StatusCode != 201 {
		err = fmt.Errorf("POST %s: %s: %s", path, resp.Status, b)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(b, answer)
	}
	return err
}

// principal makes a token and registers a key.
func (s *server) principal(ctx context.Context, name string) (token string, key ed25519.PrivateKey, err error) {
	var a struct{ Token string }
	body := fmt.Appendf(nil, `{"principal":%q,"role":"migration-service"}`, name)
	if err := s.post(ctx, "/v1/access/tokens", s.admin, "application/json", body, &a); err != nil {
		return "", nil, err
	}
	_, key, err = ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", nil, err
	}
	vkey, err := log.PublicKey(key.Public().(ed25519.PublicKey)).VKey(name)
	if err != nil {
		return "", nil, err
	}
	body = fmt.Appendf(nil, `{"principal":%q,"vkey":%q}`, name, vkey)
	return a.Token, key, s.post(ctx, "/v1/keys", s.admin, "application/json", body, nil)
}

// requests makes n signed requests of a stream, each with batch events whose
// payloads have payloadBytes; the first opens the stream.
func requests(name, stream string, key ed25519.PrivateKey, n, batch, payloadBytes int) [][]byte {
	st := log.NewStream(benchOrigin, stream)
	now := uint64(time.Now().UnixMilli())
	all := make([][]byte, 0, n)
	filler, err := json.Marshal(strings.Repeat("x", payloadBytes))
	if err != nil {
		panic("bench: " + err.Error())
	}
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

const ndjson = "application/x-ndjson"

// httpLoad sends signed batches on a fixed schedule over as many streams as
// connections, so that no stream has to wait for its own last answer.
func httpLoad(rate, batch, streams, payloadBytes int) func(context.Context, env) (string, error) {
	return func(ctx context.Context, e env) (string, error) {
		s, err := startServer(ctx, e, "1s")
		if err != nil {
			return "", err
		}
		total := rate / batch * e.seconds
		bodies := make([][][]byte, streams)
		tokens := make([]string, streams)
		for i := range streams {
			name := fmt.Sprintf("svc%d", i)
			var key ed25519.PrivateKey
			if tokens[i], key, err = s.principal(ctx, name); err != nil {
				return "", err
			}
			bodies[i] = requests(name, fmt.Sprintf("m%d/s", i), key, total/streams+1, batch, payloadBytes)
			if err := s.post(ctx, "/v1/events", tokens[i], ndjson, bodies[i][0], nil); err != nil {
				return "", err
			}
		}
		all := make(latencies, total)
		errs := make([]error, streams)
		turns := make([]sync.Mutex, streams) // a stream's requests go out in order
		var wg sync.WaitGroup
		start := time.Now().Add(time.Second)
		for i := range total {
			planned := start.Add(time.Duration(i) * time.Duration(batch) * time.Second / time.Duration(rate))
			time.Sleep(time.Until(planned))
			k := i % streams
			turns[k].Lock() // handed to the goroutine, which unlocks it
			wg.Go(func() {
				defer turns[k].Unlock()
				if err := s.post(ctx, "/v1/events", tokens[k], ndjson, bodies[k][1+i/streams], nil); err != nil {
					errs[k] = err
				}
				all[i] = time.Since(planned)
			})
		}
		wg.Wait()
		text := all.String()
		return text, errors.Join(errors.Join(errs...), s.stop())
	}
}

// published measures from sending an event to its proof under the published
// checkpoint, at a light load, with events at random times.
func published(cadence string) func(context.Context, env) (string, error) {
	return func(ctx context.Context, e env) (string, error) {
		s, err := startServer(ctx, e, cadence)
		if err != nil {
			return "", err
		}
		const services, each = 8, 40
		var mu sync.Mutex
		var all latencies
		var wg sync.WaitGroup
		errs := make([]error, services)
		for i := range services {
			name := fmt.Sprintf("svc%d", i)
			token, key, err := s.principal(ctx, name)
			if err != nil {
				return "", err
			}
			bodies := requests(name, fmt.Sprintf("m%d/s", i), key, each, 1, 200)
			wg.Go(func() {
				for _, b := range bodies {
					began := time.Now()
					if errs[i] = s.proven(ctx, token, b); errs[i] != nil {
						return
					}
					mu.Lock()
					all = append(all, time.Since(began))
					mu.Unlock()
					time.Sleep(time.Duration(7*(i+1)) * time.Millisecond)
				}
			})
		}
		wg.Wait()
		return all.String(), errors.Join(errors.Join(errs...), s.stop())
	}
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
func sdk(ctx context.Context, e env) (string, error) {
	s, err := startServer(ctx, e, "1s")
	if err != nil {
		return "", err
	}
	token, key, err := s.principal(ctx, "sdk")
	if err != nil {
		return "", err
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
		return "", err
	}
	const events, streams = 100_000, 4
	names := []string{"a", "b", "c", "d"}
	began := time.Now()
	m, err := c.OpenMigration(ctx, "bench", client.MigrationConfig{Streams: names})
	if err != nil {
		return "", err
	}
	var wg sync.WaitGroup
	errs := make([]error, streams)
	for i, name := range names {
		wg.Go(func() {
			st, err := m.OpenStream(ctx, name)
			batch := make([]client.Event, 1000)
			for k := range batch {
				batch[k] = client.Event{Kind: "migration.load", Type: log.JSONType, Payload: []byte(`{"rows":1000,"table":"customers"}`)}
			}
			for n := 0; err == nil && n < events/streams; n += len(batch) {
				_, err = st.Append(ctx, batch...)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	appended := time.Since(began)
	err = errors.Join(errors.Join(errs...), m.Close(ctx), c.Wait(ctx))
	total := time.Since(began)
	return fmt.Sprintf("%.1f s (%.1f s until acknowledged, %.0f events/s in all)", total.Seconds(), appended.Seconds(), events/total.Seconds()), errors.Join(err, s.stop())
}
