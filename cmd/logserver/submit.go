package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/sequencer"
	"golang.org/x/mod/sumdb/note"
)

// submit takes events through the system:
//
//	parse -> commitments -> tail signature -> sequencer (chain, ownership,
//	keys, as_of) -> journal, durable -> receipt
//
// Limits and authentication came before, in routes.go.
func (s *site) submit(w http.ResponseWriter, r *http.Request, by principal) error {
	code, answer, err := s.append(r, by)
	if err != nil {
		return err
	}
	if wait := preferredWait(r); wait > 0 {
		releaseBody(r)
		answer.Proofs = s.waitForProofs(r.Context(), wait, answer.Index, answer.Count)
		w.Header().Set("Preference-Applied", fmt.Sprintf("wait=%d", int(wait.Seconds())))
	}
	return writeJSON(w, code, answer)
}

// append makes a request's events durable. Of them nothing but the answer outlives it: whoever waits for proofs must
// not hold their payloads, which no budget counts any more.
func (s *site) append(r *http.Request, by principal) (code int, a answer, err error) {
	body, err := readBody(r)
	if err != nil {
		return 0, a, err
	}
	req, err := s.request(r, body, by)
	if err != nil {
		return 0, a, err
	}
	began := time.Now()
	result, err := s.ledger.seq.Submit(r.Context(), req)
	if err != nil {
		return 0, a, err
	}
	s.metrics.appended(len(result.Entries), result.Duplicate, time.Since(began))
	code = http.StatusCreated
	if result.Duplicate {
		code = http.StatusOK
	}
	a, err = s.answer(result, req.ByLog)
	return code, a, err
}

// A line is one event of a request, as sent.
type line struct {
	event   []byte // raw JSON
	payload *log.Payload
	isJSON  bool // payload came as JSON
	salted  bool // the submitter sent a salt
	sig     *log.Sig
}

// request makes a sequencer request of a body, checking all that needs no order.
func (s *site) request(r *http.Request, body []byte, by principal) (sequencer.Request, error) {
	lines, err := splitBody(r.Header.Get("Content-Type"), body, s.limits.Events)
	if err != nil {
		return sequencer.Request{}, err
	}
	first, err := parseLine(lines[0])
	if err != nil {
		return sequencer.Request{}, fmt.Errorf("event 1: %w", err)
	}
	req := sequencer.Request{By: by.name, Auth: by.auth, AsOf: s.ledger.seq.LastControl()}
	need := permAppend
	if req.ByLog, err = isDraft(first.event); err != nil {
		return req, fmt.Errorf("event 1: %w", err)
	}
	if req.ByLog {
		need = permAppendUnsigned
	}
	req.Authorize = func() error { return s.ledger.access.confirm(by, need) }
	if err := req.Authorize(); err != nil {
		return req, err
	}
	for i, text := range lines {
		if err := s.addLine(&req, text, i == len(lines)-1, by); err != nil {
			return req, fmt.Errorf("event %d: %w", i+1, err)
		}
	}
	if req.ByLog {
		return req, s.opening(&req)
	}
	return req, s.verifyTail(&req)
}

func (s *site) addLine(req *sequencer.Request, text []byte, last bool, by principal) error {
	l, err := parseLine(text)
	if err != nil {
		return err
	}
	if l.sig != nil && !last {
		return fmt.Errorf("%w request: sig belongs on the last event, and covers all", log.ErrMalformed)
	}
	var e log.Event
	if req.ByLog {
		e, err = s.draft(l, by)
	} else {
		e, err = s.signedEvent(l)
	}
	if err != nil {
		return err
	}
	if log.ClassOf(e.Kind) == log.Server {
		return fmt.Errorf("%w: events of kind %q are made by the log itself", errForbidden, e.Kind)
	}
	if len(req.Events) > 0 && e.Stream != req.Events[0].Stream {
		return fmt.Errorf("%w request: all events of a request are of one stream; this one is of %q", log.ErrMalformed, e.Stream)
	}
	req.Events = append(req.Events, e)
	req.Payloads = append(req.Payloads, l.payload)
	req.Sig = l.sig
	return nil
}

// signedEvent reads a complete event and checks its commitment.
func (s *site) signedEvent(l line) (log.Event, error) {
	e, err := log.ParseEvent(l.event)
	if err != nil {
		return e, err
	}
	if e.Log != s.ledger.c.Origin {
		return e, fmt.Errorf("%w event: it is for log %q, this is %q", log.ErrMalformed, e.Log, s.ledger.c.Origin)
	}
	switch {
	case e.Payload == nil && l.payload == nil:
		return e, nil
	case e.Payload == nil:
		return e, fmt.Errorf("%w: the event has no payload, but one was sent", log.ErrCommitment)
	case l.payload == nil || !l.salted:
		return e, fmt.Errorf("%w: send payload or payload_b64, and the 32-byte salt", log.ErrCommitment)
	}
	if err := checkPayloadSize(e.Payload.Type, l.payload.Bytes); err != nil {
		return e, err
	}
	return e, e.Payload.Check(*l.payload)
}

// verifyTail checks the signature of the last event under the key that it
// names. Whether that is a key of the stream is for the sequencer.
func (s *site) verifyTail(req *sequencer.Request) error {
	if req.Sig == nil {
		return nil // the sequencer knows whether one is needed, and says so
	}
	first, last := req.Events[0], req.Events[len(req.Events)-1]
	key, ok := s.ledger.access.key(req.Sig.Key)
	if !ok {
		return fmt.Errorf("%w: key %s is not registered; see logserver key add", log.ErrKey, req.Sig.Key)
	}
	text := log.TailText(s.ledger.c.Origin, last.Stream, first.Seq, last.Seq, last.Hash())
	if err := req.Sig.Verify(key.Key, text); err != nil {
		return fmt.Errorf("tail signature of seq %d to %d: %w", first.Seq, last.Seq, err)
	}
	return nil
}

// opening prepares the stream.open of a log-kept stream, in case it is new.
func (s *site) opening(req *sequencer.Request) error {
	e := req.Events[0]
	payload := newPayload(log.StreamOpen{Mode: log.ModeLogKept, Owner: req.By}.Marshal())
	req.Opening = &sequencer.Opening{
		Event: log.Event{
			Actor: req.By, Kind: "stream.open", Migration: e.Migration, Stream: e.Stream, Time: e.Time,
			Payload: &log.Ref{Commitment: log.Commit(*payload, log.JSONType), Type: log.JSONType},
		},
		Payload: payload,
	}
	return nil
}

var newline = []byte("\n")

// splitBody gives the JSON texts of a request.
func splitBody(contentType string, body []byte, most int) ([][]byte, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		media = contentType
	}
	switch media {
	case "application/json":
		return [][]byte{body}, nil
	case "application/x-ndjson":
	default:
		return nil, fmt.Errorf("%w: %q; send application/json, or application/x-ndjson for several", errMediaType, contentType)
	}
	body = bytes.TrimSuffix(body, newline)
	// Counted first: split, a body of empty lines takes 24 times its size.
	if n := bytes.Count(body, newline) + 1; n > most {
		return nil, fmt.Errorf("%w: %d events in a request, at most %d", errTooLarge, n, most)
	}
	return bytes.Split(body, newline), nil
}

// parseLine reads {"event","payload"|"payload_b64","salt","sig"}, strictly.
func parseLine(text []byte) (l line, err error) {
	members, err := log.Members(text)
	if err != nil {
		return l, err
	}
	var salt []byte
	for _, m := range members {
		switch m.Key {
		case "event":
			l.event = m.Raw
		case "payload":
			if l.payload != nil {
				return l, fmt.Errorf("%w request: send payload or payload_b64, not both", log.ErrMalformed)
			}
			l.isJSON, l.payload = true, &log.Payload{}
			l.payload.Bytes, err = log.Canonical(m.Raw)
		case "payload_b64":
			if l.payload != nil {
				return l, fmt.Errorf("%w request: send payload or payload_b64, not both", log.ErrMalformed)
			}
			l.payload = &log.Payload{}
			l.payload.Bytes, err = rawBase64(m.Raw)
		case "salt":
			salt, err = rawBase64(m.Raw)
		case "sig":
			l.sig, err = parseSig(m.Raw)
		default:
			err = fmt.Errorf("%w request: unknown key %q; want event, payload or payload_b64, salt, sig", log.ErrMalformed, m.Key)
		}
		if err != nil {
			return l, err
		}
	}
	if l.event == nil {
		return l, fmt.Errorf("%w request: the key event is missing", log.ErrMalformed)
	}
	return l, l.setSalt(salt)
}

func (l *line) setSalt(salt []byte) error {
	if salt == nil {
		return nil
	}
	if l.payload == nil || len(salt) != len(l.payload.Salt) {
		return fmt.Errorf("%w request: salt is 32 bytes in base64, beside a payload", log.ErrMalformed)
	}
	l.salted = true
	l.payload.Salt = [32]byte(salt)
	return nil
}

func parseSig(raw []byte) (*log.Sig, error) {
	g, err := log.ParseSig(raw)
	return &g, err
}

func rawBase64(raw []byte) ([]byte, error) {
	text, err := log.JSONString(raw)
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w base64 in the request: %w", log.ErrMalformed, err)
	}
	return b, nil
}

func checkPayloadSize(mediaType string, b []byte) error {
	most := log.PayloadMaxBytes
	if mediaType == openLineageType {
		most = log.LineageMaxBytes
	}
	if len(b) > most {
		return fmt.Errorf("%w: payload of %d bytes, at most %d for %s", errTooLarge, len(b), most, mediaType)
	}
	return nil
}

const openLineageType = "application/vnd.openlineage+json"

// An answer tells a submitter all that is needed to rebuild the entries.
type answer struct {
	Count   int       `json:"count"`
	Events  []rawJSON `json:"events,omitempty"` // of log-kept streams
	Index   uint64    `json:"index"`
	Log     []rawJSON `json:"log"`
	Proofs  []string  `json:"proofs,omitempty"`
	Receipt string    `json:"receipt"`
	Salts   []*string `json:"salts,omitempty"` // beside events; null where there is no payload
}

// answer signs the receipt. A retry gets the same one: it is a function of the
// entries and of entry 0, and Ed25519 is deterministic.
func (s *site) answer(result sequencer.Result, withEvents bool) (answer, error) {
	a := answer{Count: len(result.Entries), Index: result.First}
	leaves := make([]log.Hash, len(result.Bytes))
	for i, e := range result.Entries {
		leaves[i] = log.LeafHash(result.Bytes[i])
		a.Log = append(a.Log, e.Log.Marshal())
		if !withEvents {
			continue
		}
		a.Events = append(a.Events, e.Event.Marshal())
		var salt *string
		if p := result.Payloads[i]; p != nil {
			text := base64.StdEncoding.EncodeToString(p.Salt[:])
			salt = &text
		}
		a.Salts = append(a.Salts, salt)
	}
	received := result.Entries[0].Log.Received
	receipt := log.Receipt{
		Origin: s.ledger.c.Origin, First: result.First, Count: uint64(len(leaves)), Leaves: log.LeavesHash(leaves),
		Received: received, By: received + s.ledger.open.PromiseMS,
	}
	signed, err := note.Sign(&note.Note{Text: receipt.String()}, s.ledger.receipts)
	if err != nil {
		return a, fmt.Errorf("sign receipt of entry %d: %w", result.First, err)
	}
	a.Receipt = string(signed)
	return a, nil
}

// waitForProofs waits until the entries are under a published checkpoint. On
// time-out there are no proofs, and the answer is good without them.
func (s *site) waitForProofs(ctx context.Context, wait time.Duration, first uint64, count int) []string {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	checkpoint, err := s.ledger.tree.WaitPublished(ctx, first+uint64(count))
	if err != nil {
		return nil
	}
	proofs := make([]string, 0, count)
	for i := range uint64(count) {
		p, err := s.ledger.prove(ctx, checkpoint, first+i)
		if err != nil {
			s.logger.ErrorContext(ctx, "proof failed", "index", first+i, "err", err)
			return nil
		}
		proofs = append(proofs, string(p.Marshal()))
	}
	return proofs
}

// errTooLarge and the like are refused before anything is looked at.
var (
	errTooLarge  = errors.New("too large")
	errMediaType = errors.New("unsupported media type")
)
