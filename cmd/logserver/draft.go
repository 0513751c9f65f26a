package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// A draft is an event of a client that cannot chain or sign, such as curl. The
// log completes it, and the entry says that nobody but the log attests it.

// isDraft says whether an event leaves its place to the log.
func isDraft(event []byte) (bool, error) {
	members, err := log.Members(event)
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(members, func(m log.Member) bool { return m.Key == "seq" || m.Key == "prev" }), nil
}

// draft completes an event, but for its place.
func (s *site) draft(l line, by principal) (log.Event, error) {
	e := log.Event{Actor: by.name, Time: uint64(time.Now().UnixMilli()), Log: s.ledger.c.Origin, Seq: 1}
	mediaType := log.JSONType
	members, err := log.Members(l.event)
	if err != nil {
		return e, err
	}
	text := map[string]*string{
		"actor": &e.Actor, "kind": &e.Kind, "migration": &e.Migration, "stream": &e.Stream, "type": &mediaType,
	}
	for _, m := range members {
		switch {
		case text[m.Key] != nil:
			*text[m.Key], err = log.JSONString(m.Raw)
		case m.Key == "time":
			e.Time, err = strconv.ParseUint(string(m.Raw), 10, 53)
		case m.Key == "objects":
			e.Objects, err = draftObjects(m.Raw)
		default:
			err = fmt.Errorf("%w event: unknown key %q; without seq and prev the log keeps the stream, and takes actor, kind, migration, objects, stream, time, type", log.ErrMalformed, m.Key)
		}
		if err != nil {
			return e, fmt.Errorf("%w event: %s: %w", log.ErrMalformed, m.Key, err)
		}
	}
	if e.Stream == "" && e.Migration != "" {
		e.Stream = e.Migration + "/" + by.name
	}
	return e, s.finishDraft(&e, l, mediaType)
}

func (s *site) finishDraft(e *log.Event, l line, mediaType string) error {
	if l.sig != nil || l.salted {
		return fmt.Errorf("%w request: an event without seq and prev is kept by the log, and takes no sig or salt", log.ErrMalformed)
	}
	if e.Kind == "stream.open" {
		return fmt.Errorf("%w event: the log opens the streams that it keeps", log.ErrMalformed)
	}
	if l.payload != nil {
		if l.isJSON && mediaType != log.JSONType && mediaType != openLineageType {
			return fmt.Errorf("%w event: type %q with a JSON payload; send payload_b64", log.ErrMalformed, mediaType)
		}
		if err := checkPayloadSize(mediaType, l.payload.Bytes); err != nil {
			return err
		}
		l.payload.Salt = newPayload(nil).Salt
		e.Payload = &log.Ref{Commitment: log.Commit(*l.payload, mediaType), Type: mediaType}
	}
	return e.Validate()
}

// draftObjects reads [{"name","role"}…] by way of its canonical form, which the
// strict parser of events reads.
func draftObjects(raw []byte) ([]log.Object, error) {
	canonical, err := log.Canonical(raw)
	if err != nil {
		return nil, err
	}
	return log.ParseObjects(canonical)
}
