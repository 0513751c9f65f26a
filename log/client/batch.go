package client

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// lineageType is the media type whose payloads may be larger.
const lineageType = "application/vnd.openlineage+json"

// An Event is what a service says happened. No personal data goes here but into
// the payload, which can be erased: people are opaque ids ("p:" and 32
// hexadecimal digits), and so are objects whose names may name a person ("o:").
type Event struct {
	Kind    string       // such as migration.load, audit.checked, lineage.run, x.ours
	Actor   string       // who acted; "" is the client's principal
	Objects []log.Object // what it is about: at most 64
	Time    time.Time    // when it happened; zero is now
	Type    string       // of the payload, a media type; "" is application/json
	Payload []byte       // nil: none. Of type application/json it is committed as its RFC 8785 bytes
}

// A Placed is an acknowledged event.
type Placed struct {
	Index   uint64       // in the log
	Entry   []byte       // the leaf: own event, the log's part, own signature
	Leaf    log.Hash     // of Entry, as the client computed it
	Hash    log.Hash     // of the event: its id
	Payload *log.Payload // what the event commits to, with the salt; nil if it has none
	Receipt []byte       // signed note over all entries of the request; shared, not to be changed
}

// A batch is one request: events of one stream, ended by a tail signature. Once
// made its bytes never change, so that sending it again asks for the same.
type batch struct {
	events  []made
	sig     log.Sig
	body    []byte
	after   log.Stream // the stream's state when it is acknowledged, but for the index
	unsure  bool       // an attempt may have been applied without an answer
	refused *Refused   // for good
}

// A made is an event with its place in the chain.
type made struct {
	event     log.Event
	canonical []byte
	hash      log.Hash
	payload   *log.Payload
}

// batch makes the next request of as many of the events as fit.
func (s *Stream) batch(events []Event) (*batch, error) {
	b := &batch{after: s.state}
	for i, e := range events[:min(len(events), s.client.cfg.BatchEvents)] {
		m, err := s.client.make(&b.after, e)
		if err != nil {
			return nil, fmt.Errorf("event %d of the request, kind %q: %w", i, e.Kind, err)
		}
		line := m.line()
		if i > 0 {
			if len(b.body)+len(line) > s.client.cfg.BatchBytes {
				break
			}
			b.body = append(b.body, '}', '\n')
		}
		b.body = append(b.body, line...)
		var open *log.StreamOpen
		if e.Kind == streamOpen {
			o, err := log.ParseStreamOpen(e.Payload)
			if err != nil {
				return nil, err
			}
			open = &o
		}
		b.after.Advance(m.event, m.hash, 0, open, false)
		b.events = append(b.events, m)
	}
	last := b.events[len(b.events)-1]
	b.sig = log.Sign(s.client.cfg.Key, log.TailText(s.client.origin, s.state.Name, s.state.TailFirst(), last.event.Seq, last.hash))
	b.after.Tail = last.event.Seq
	b.body = append(append(append(b.body, `,"sig":`...), b.sig.Marshal()...), '}', '\n')
	return b, nil
}

// make gives e its place after the state.
func (c *Client) make(after *log.Stream, e Event) (made, error) {
	if e.Actor == "" {
		e.Actor = c.cfg.Principal
	}
	if e.Time.IsZero() {
		e.Time = c.cfg.Now()
	}
	if e.Time.UnixMilli() < 0 {
		return made{}, fmt.Errorf("time %v is before 1970", e.Time)
	}
	m := made{event: log.Event{
		Actor: e.Actor, Kind: e.Kind, Log: c.origin, Migration: after.Migration, Objects: e.Objects,
		Prev: after.Hash, Seq: after.Seq + 1, Stream: after.Name, Time: uint64(e.Time.UnixMilli()),
	}}
	if e.Payload != nil {
		if err := m.commit(e.Type, e.Payload); err != nil {
			return made{}, err
		}
	}
	if err := m.event.Validate(); err != nil {
		return made{}, err
	}
	if class := log.ClassOf(e.Kind); class != log.Submitted {
		return made{}, fmt.Errorf("events of kind %q are made by the log alone", e.Kind)
	}
	m.canonical = m.event.Marshal()
	if len(m.canonical) > log.EventMaxBytes {
		return made{}, fmt.Errorf("event has %d bytes, at most %d: move data into the payload", len(m.canonical), log.EventMaxBytes)
	}
	m.hash = m.event.Hash()
	return m, after.Check(m.event, c.cfg.Principal)
}

// commit commits to a payload under a new salt.
func (m *made) commit(mediaType string, payload []byte) error {
	limit := log.PayloadMaxBytes
	switch mediaType {
	case "":
		mediaType = log.JSONType
	case lineageType:
		limit = log.LineageMaxBytes
	}
	if mediaType == log.JSONType {
		canonical, err := log.Canonical(payload)
		if err != nil {
			return fmt.Errorf("payload: %w", err)
		}
		payload = canonical
	}
	if len(payload) > limit {
		return fmt.Errorf("payload has %d bytes, at most %d of type %s", len(payload), limit, mediaType)
	}
	m.payload = &log.Payload{Bytes: payload}
	if _, err := rand.Read(m.payload.Salt[:]); err != nil {
		return fmt.Errorf("draw a salt: %w", err)
	}
	m.event.Payload = &log.Ref{Commitment: log.Commit(*m.payload, mediaType), Type: mediaType}
	return nil
}

// line is the event's line of a request, without what ends it.
func (m *made) line() []byte {
	b := append([]byte(`{"event":`), m.canonical...)
	if m.payload == nil {
		return b
	}
	if m.event.Payload.Type == log.JSONType {
		b = append(append(b, `,"payload":`...), m.payload.Bytes...)
	} else {
		b = base64.StdEncoding.AppendEncode(append(b, `,"payload_b64":"`...), m.payload.Bytes)
		b = append(b, '"')
	}
	b = base64.StdEncoding.AppendEncode(append(b, `,"salt":"`...), m.payload.Salt[:])
	return append(b, '"')
}

// An answer is what POST /v1/events answers.
type answer struct {
	Count        uint64            `json:"count"`
	Index        uint64            `json:"index"`
	Log          []json.RawMessage `json:"log"`
	NotProcessed uint64            `json:"not_processed"`
	Receipt      string            `json:"receipt"`
}

// acknowledge checks the answer to a batch: the log's parts with the client's own
// events have to give the leaves that the receipt is over.
func (s *Stream) acknowledge(b *batch, body []byte) ([]Placed, error) {
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if n := len(a.Log); a.Count != uint64(n) || n == 0 || n > len(b.events) || a.NotProcessed != uint64(len(b.events)-n) {
		return nil, fmt.Errorf("%w: %d parts, count %d and not_processed %d for %d events", ErrAnswer, n, a.Count, a.NotProcessed, len(b.events))
	}
	// Before it is known that the log gave the answer, nothing in it is evidence.
	r, err := log.OpenReceipt([]byte(a.Receipt), s.client.receiptKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	var wrong error
	placed := make([]Placed, len(a.Log))
	leaves := make([]log.Hash, len(a.Log))
	var first log.Part
	for i, raw := range a.Log {
		part, err := log.ParsePart(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
		}
		if i == 0 {
			first = part
		}
		m := b.events[i]
		e := log.Entry{Event: m.event, Log: part}
		if i == len(b.events)-1 {
			e.Sig = &b.sig
		}
		p := Placed{Index: a.Index + uint64(i), Entry: e.MarshalWith(m.canonical), Hash: m.hash, Payload: m.payload, Receipt: []byte(a.Receipt)}
		p.Leaf = log.LeafHash(p.Entry)
		if i > 0 {
			p.Receipt = placed[0].Receipt
		}
		placed[i], leaves[i] = p, p.Leaf
		if err := s.checkPart(e, p, first); err != nil && wrong == nil {
			wrong = fmt.Errorf("entry %d: %w", p.Index, err)
		}
	}
	want := log.Receipt{Origin: s.client.origin, First: a.Index, Count: a.Count, Leaves: log.LeavesHash(leaves), Received: first.Received, By: r.By}
	if wrong == nil && r != want {
		wrong = errors.New("the receipt is not over the entries of the answer")
	}
	if wrong != nil {
		return nil, s.client.convict(b.against(ClaimReceipt, wrong.Error(), body))
	}
	if promised := r.By - r.Received; promised > uint64(s.client.cfg.PromiseMax.Milliseconds()) {
		return nil, fmt.Errorf("%w: %d ms after the log received the events, at most %v is taken: see Config.PromiseMax", ErrPromise, promised, s.client.cfg.PromiseMax)
	}
	s.client.acknowledged(pending{first: a.Index, leaves: leaves, by: r.By, receipt: placed[0].Receipt})
	return placed, nil
}

// checkPart says what a log cannot have added to an event of a signed stream.
func (s *Stream) checkPart(e log.Entry, p Placed, first log.Part) error {
	switch {
	case e.Log.By != s.client.cfg.Principal:
		return fmt.Errorf("it says that %q sent it", e.Log.By)
	case e.Log.Attested != "":
		return fmt.Errorf("it says that the log made the event")
	case e.Log.AsOf >= p.Index || e.Log.AsOf < first.AsOf:
		return fmt.Errorf("as_of %d", e.Log.AsOf)
	case e.Log.Received != first.Received:
		return fmt.Errorf("received at %d, and the first of the request at %d", e.Log.Received, first.Received)
	case s.state.Seq > 0 && p.Index <= s.state.Index:
		return fmt.Errorf("the stream has an entry at %d already", s.state.Index)
	case len(p.Entry) > log.EntryMaxBytes:
		return fmt.Errorf("%d bytes", len(p.Entry))
	}
	return e.Validate()
}

// against is evidence that the log's answer to the batch gives.
func (b *batch) against(claim Claim, detail string, answer []byte) *Evidence {
	return &Evidence{Claim: claim, Detail: detail, Files: []File{
		{"request.ndjson", bytes.Clone(b.body)}, {"answer.json", bytes.Clone(answer)},
	}}
}
