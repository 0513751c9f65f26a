package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/reader"
)

// Limits of what is read of an answer, and of what a log can ask for.
const (
	answerMaxBytes  = 64 << 10 // beside the parts
	partMaxBytes    = 1 << 10  // of an answer, for each event
	retryAfterLimit = 2 * time.Minute
)

// A reply is an answer that was read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// do makes one attempt at a request. An answer of more than most bytes is an error.
func (c *Client) do(ctx context.Context, method, path string, body []byte, most int) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	if body != nil {
		req.Header.Set("Content-Type", "application/x-ndjson")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, int64(most)+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return reply{}, fmt.Errorf("read the answer to %s %s: %w", method, path, err)
	}
	if len(data) > most {
		return reply{}, fmt.Errorf("%w to %s %s: more than %d bytes", ErrAnswer, method, path, most)
	}
	return reply{resp.StatusCode, resp.Header, data}, nil
}

// submit sends a batch until it is acknowledged, refused for good, or has been
// sent as often as configured.
func (s *Stream) submit(ctx context.Context, b *batch) ([]Placed, error) {
	var placed []Placed
	err := s.client.retry(ctx, "submit", func() error {
		var err error
		placed, err = s.attempt(ctx, b)
		return err
	})
	return placed, err
}

func (s *Stream) attempt(ctx context.Context, b *batch) ([]Placed, error) {
	r, err := s.client.do(ctx, http.MethodPost, "/v1/events", b.body, answerMaxBytes+partMaxBytes*len(b.events))
	if err != nil {
		var dial *net.OpError
		b.unsure = b.unsure || !errors.As(err, &dial) || dial.Op != "dial" // without a connection nothing was sent
		return nil, err
	}
	if r.status == http.StatusCreated || r.status == http.StatusOK {
		placed, err := s.acknowledge(b, r.body)
		b.unsure = b.unsure || errors.Is(err, ErrAnswer) || errors.Is(err, ErrPromise)
		return placed, err
	}
	refused := refusal(r)
	if refused.Status >= 500 || refused.Status == http.StatusRequestTimeout {
		b.unsure = true // a proxy can say so of a request that went through
	}
	if refused.Status == http.StatusConflict && refused.head != nil && refused.head.Stream == s.state.Name {
		return nil, s.conflict(b, refused)
	}
	return nil, refused
}

// A head is where the log says that a stream is.
type head struct {
	Closed bool   `json:"closed"`
	Hash   string `json:"hash"`
	Seq    uint64 `json:"seq"`
	Stream string `json:"stream"`
}

func (h *head) is(seq uint64, hash log.Hash) bool {
	return h.Seq == seq && h.Hash == base64.StdEncoding.EncodeToString(hash[:])
}

// in says whether the stream is at one of a batch's events.
func (h *head) in(b *batch) bool {
	return b != nil && slices.ContainsFunc(b.events, func(m made) bool { return h.is(m.event.Seq, m.hash) })
}

// conflict says what a conflict is, by the head that it names. Only the owner can
// make a signed stream's events, so a head that the owner did not compute was made
// up, or somebody else has the owner's key and token; and one before an
// acknowledged event means that the log lost it. The client goes on from neither.
func (s *Stream) conflict(b *batch, r *Refused) error {
	switch {
	case r.head.is(s.state.Seq, s.state.Hash):
		b.unsure = false // the stream is where it was: no attempt was applied
		return r
	case r.head.in(b):
		b.unsure = true // an attempt was applied: the same request again gets the receipt
		return fmt.Errorf("%w: the log has events of the request, and: %s", ErrAnswer, r)
	case s.state.Seq == 0:
		return r // nothing was acknowledged to this client: another run may have opened the stream
	case r.head.in(s.dropped):
		return s.client.convict(s.refusedAndLogged(b, r))
	case s.older && r.head.Seq > s.state.Seq:
		return r // an older request that was refused may be what the log has: it is not at hand to tell
	}
	e := b.against(ClaimHead, fmt.Sprintf("stream %q is at seq %d with a hash that its owner did not compute; the last acknowledged is %d",
		s.state.Name, r.head.Seq, s.state.Seq), r.raw)
	e.Files = append(e.Files, File{"receipt", s.receipt})
	return s.client.convict(e)
}

// refusedAndLogged is the evidence that the dropped batch is in the log: the
// owner, told that it is not, has signed another event for the same seq since.
func (s *Stream) refusedAndLogged(b *batch, r *Refused) *Evidence {
	e := b.against(ClaimRefused, fmt.Sprintf("stream %q is at seq %d with an event of a request that was refused with status %d: the log has what it, or a proxy before it, refused",
		s.state.Name, r.head.Seq, s.dropped.refused.Status), r.raw)
	e.Files = append(e.Files, File{"refused.ndjson", s.dropped.body}, File{"refusal", s.dropped.refused.raw}, File{"receipt", s.receipt})
	return e
}

// refusal reads an answer that is no success. Whatever is no problem+json of
// ours leaves only the status.
func refusal(r reply) *Refused {
	var p struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Detail string `json:"detail"`
		Hint   string `json:"hint"`
		Head   *head  `json:"head"`
	}
	out := &Refused{Status: r.status, Title: http.StatusText(r.status), raw: r.body}
	if err := json.Unmarshal(r.body, &p); err == nil && p.Type != "" {
		out.Type, out.Title, out.Detail, out.Hint, out.head = p.Type, p.Title, p.Detail, p.Hint, p.Head
	}
	if s, err := strconv.ParseUint(r.header.Get("Retry-After"), 10, 31); err == nil {
		out.RetryAfter = time.Duration(s) * time.Second
	}
	return out
}

// retry calls try until it succeeds, fails for good, or was called as often as
// configured, with pauses.
func (c *Client) retry(ctx context.Context, deed string, try func() error) error {
	for attempt := 1; ; attempt++ {
		err := try()
		if err == nil || !again(err) {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		if attempt >= c.cfg.Attempts {
			return fmt.Errorf("gave up after %d attempts: %w", attempt, err)
		}
		pause := c.pause(attempt, err)
		c.cfg.Logger.Warn("failed an attempt", "deed", deed, "attempt", attempt, "pause", pause, "err", err)
		if err := sleep(ctx, pause); err != nil {
			return errors.Join(err, fmt.Errorf("after %d attempts", attempt))
		}
	}
}

// again says whether the same request may succeed later. What is no refusal,
// no evidence and no promise, which never changes, is a fault on the way.
func again(err error) bool {
	var refused *Refused
	if errors.As(err, &refused) {
		return refused.again()
	}
	var status *reader.StatusError
	if errors.As(err, &status) {
		// A tile that is not there may be on its way.
		return status.Code == http.StatusNotFound || (&Refused{Status: status.Code}).again()
	}
	var evidence *Evidence
	return !errors.As(err, &evidence) && !errors.Is(err, ErrPromise)
}

// pause doubles with every attempt. A half of it is random: clients that failed
// together do not come back together.
func (c *Client) pause(attempt int, err error) time.Duration {
	d := c.cfg.BackoffMax
	if attempt < 30 {
		d = min(d, c.cfg.BackoffMin<<(attempt-1))
	}
	d = d/2 + rand.N(d/2+1)
	var refused *Refused
	if errors.As(err, &refused) && refused.RetryAfter > 0 {
		d += min(refused.RetryAfter, retryAfterLimit)
	}
	return d
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
