package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/index"
)

// errNotYet means that something is in the log, but under no published
// checkpoint yet.
var errNotYet = errors.New("not yet under a published checkpoint")

// Headers that go with an entry or a payload.
const (
	headerIndex = "Piperoll-Index"
	headerSalt  = "Piperoll-Salt"
)

// pathNumber reads a number of a path.
func pathNumber(r *http.Request, name string) (uint64, error) {
	text := r.PathValue(name)
	n, err := strconv.ParseUint(text, 10, 53)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0, fmt.Errorf("%w path: %s %q is not a number", log.ErrMalformed, name, text)
	}
	return n, nil
}

// entryByIndex answers with exactly the bytes of the leaf.
func (s *site) entryByIndex(w http.ResponseWriter, r *http.Request, by principal) error {
	i, err := pathNumber(r, "index")
	if err != nil {
		return err
	}
	s.trail.read(by)
	return s.writeEntry(w, i)
}

func (s *site) writeEntry(w http.ResponseWriter, i uint64) error {
	b, err := s.ledger.entryBytes(i)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", log.JSONType)
	w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	w.Header().Set(headerIndex, strconv.FormatUint(i, 10))
	_, err = w.Write(b)
	return ignoreWrite(err)
}

// eventByHash finds an entry by the EventHash of its event.
func (s *site) eventByHash(w http.ResponseWriter, r *http.Request, by principal) error {
	raw, err := hex.DecodeString(r.PathValue("hash"))
	if err != nil || len(raw) != len(log.Hash{}) {
		return fmt.Errorf("%w path: an event's hash is 64 hexadecimal digits", log.ErrMalformed)
	}
	// What was acknowledged is found: the index is at most a moment behind.
	if err := s.ledger.index.Wait(r.Context(), s.ledger.journal.Size()); err != nil {
		return fmt.Errorf("wait for the index: %w", err)
	}
	i, ok, err := s.ledger.index.ByHash(log.Hash(raw))
	if err != nil {
		return fmt.Errorf("look up event %x: %w", raw, err)
	}
	if !ok {
		return fmt.Errorf("%w: no event %x", errNotFound, raw)
	}
	s.trail.read(by)
	return s.writeEntry(w, i)
}

// payload answers with a payload, once the record of who reads it is durable. Only then it is opened: it may have been
// erased meanwhile.
func (s *site) payload(w http.ResponseWriter, r *http.Request, by principal) error {
	i, err := pathNumber(r, "index")
	if err != nil {
		return err
	}
	e, err := s.ledger.entry(i)
	if err != nil {
		return err
	}
	if e.Event.Payload == nil {
		return fmt.Errorf("%w: entry %d has no payload", errNotFound, i)
	}
	if err := s.ledger.hasPayload(i); err != nil {
		return err // nothing is read, nothing is recorded
	}
	if err := s.ledger.readPayload(r.Context(), by, i); err != nil {
		return err
	}
	p, err := s.ledger.openPayload(i)
	if err != nil {
		return err
	}
	if err := e.Event.Payload.Check(p); err != nil {
		return fmt.Errorf("payload of entry %d was changed on disk: %s", i, err) // not the reader's mistake: not ErrCommitment
	}
	w.Header().Set("Content-Type", e.Event.Payload.Type)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set(headerIndex, strconv.FormatUint(i, 10))
	w.Header().Set(headerSalt, base64.StdEncoding.EncodeToString(p.Salt[:]))
	_, err = w.Write(p.Bytes)
	return ignoreWrite(err)
}

type foundJSON struct {
	Entry rawJSON `json:"entry"`
	Index uint64  `json:"index"`
}

type pageJSON struct {
	Items      []foundJSON `json:"items"`
	NextCursor string      `json:"next_cursor,omitempty"`
}

const (
	pageDefault = 100
	pageMax     = 1000
)

// search lists entries that match all filters, in the order of the log.
func (s *site) search(w http.ResponseWriter, r *http.Request, by principal) error {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("%w query: %s", log.ErrMalformed, err)
	}
	q, err := searchQuery(values)
	if err != nil {
		return err
	}
	if err := s.ledger.index.Wait(r.Context(), s.ledger.journal.Size()); err != nil {
		return fmt.Errorf("wait for the index: %w", err)
	}
	found, next, more, err := s.ledger.index.Search(r.Context(), q, s.ledger.entry)
	if err != nil {
		return fmt.Errorf("search: %w", err)
	}
	page := pageJSON{Items: []foundJSON{}}
	for _, i := range found {
		b, err := s.ledger.entryBytes(i)
		if err != nil {
			return err
		}
		page.Items = append(page.Items, foundJSON{b, i})
	}
	if more {
		page.NextCursor = strconv.FormatUint(next, 10)
	}
	s.trail.read(by)
	return writeJSON(w, http.StatusOK, page)
}

func searchQuery(values url.Values) (index.Query, error) {
	q := index.Query{Limit: pageDefault}
	text := map[string]*string{
		"migration": &q.Migration, "stream": &q.Stream, "kind": &q.Kind, "actor": &q.Actor, "object": &q.Object, "by": &q.By,
	}
	numbers := map[string]*uint64{"from": &q.FromMS, "to": &q.ToMS, "cursor": &q.After}
	var errs []error
	for key, vs := range values {
		var err error
		switch {
		case len(vs) != 1:
			err = fmt.Errorf("%w query: %s is given %d times", log.ErrMalformed, key, len(vs))
		case text[key] != nil:
			if *text[key] = vs[0]; !log.ValidName(vs[0]) {
				err = fmt.Errorf("%w query: %s %q is not a name", log.ErrMalformed, key, vs[0])
			}
		case numbers[key] != nil:
			// A to of 0 is no bound to the index.
			if *numbers[key], err = strconv.ParseUint(vs[0], 10, 53); err != nil || key == "to" && *numbers[key] == 0 {
				err = fmt.Errorf("%w query: %s %q is not a number (times are Unix milliseconds)", log.ErrMalformed, key, vs[0])
			}
		case key == "limit":
			if q.Limit, err = strconv.Atoi(vs[0]); err != nil || q.Limit < 1 || q.Limit > pageMax {
				err = fmt.Errorf("%w query: limit %q: want 1 to %d", log.ErrMalformed, vs[0], pageMax)
			}
		default:
			err = fmt.Errorf("%w query: unknown filter %q; want migration, stream, kind, actor, object, by, from, to, cursor, limit", log.ErrMalformed, key)
		}
		errs = append(errs, err)
	}
	return q, errors.Join(errs...)
}

type headJSON struct {
	Closed bool   `json:"closed"`
	Hash   string `json:"hash"`
	Index  uint64 `json:"index"`
	Mode   string `json:"mode"`
	Owner  string `json:"owner"`
	Seq    uint64 `json:"seq"`
	Stream string `json:"stream"`
	Tail   uint64 `json:"tail"`
}

func headOf(st log.Stream) *headJSON {
	return &headJSON{
		Closed: st.Closed, Hash: base64.StdEncoding.EncodeToString(st.Hash[:]), Index: st.Index, Mode: st.Mode,
		Owner: st.Owner, Seq: st.Seq, Stream: st.Name, Tail: st.Tail,
	}
}

// streamHead answers with where a stream stands, as far as it is durable.
func (s *site) streamHead(w http.ResponseWriter, r *http.Request, by principal) error {
	name := r.PathValue("stream")
	if !log.ValidName(name) {
		return fmt.Errorf("%w path: %q is not a stream's name", log.ErrMalformed, name)
	}
	if err := s.ledger.index.Wait(r.Context(), s.ledger.journal.Size()); err != nil {
		return fmt.Errorf("wait for the index: %w", err)
	}
	st, ok, err := s.ledger.index.Stream(name)
	if err != nil {
		return fmt.Errorf("look up stream %q: %w", name, err)
	}
	if !ok {
		return fmt.Errorf("%w: no stream %q", errNotFound, name)
	}
	s.trail.read(by)
	return writeJSON(w, http.StatusOK, headOf(st))
}

// inclusion answers with a tlog-proof of an entry.
func (s *site) inclusion(w http.ResponseWriter, r *http.Request, by principal) error {
	i, err := pathNumber(r, "index")
	if err != nil {
		return err
	}
	checkpoint := s.ledger.tree.Published()
	if r.PathValue("size") != "" {
		size, err := pathNumber(r, "size")
		if err != nil {
			return err
		}
		if checkpoint, err = s.ledger.tree.PublishedAt(size); err != nil {
			return fmt.Errorf("%w: no checkpoint of size %d was published: %w", errNotFound, size, err)
		}
	}
	p, err := s.ledger.prove(r.Context(), checkpoint, i)
	if err != nil {
		return err
	}
	s.trail.read(by)
	return writeText(w, p.Marshal())
}

// prove makes the proof of an entry under a checkpoint of ours.
func (l *ledger) prove(ctx context.Context, checkpoint []byte, i uint64) (log.InclusionProof, error) {
	c, err := log.OpenCheckpoint(checkpoint, l.checkpoints.verifier)
	if err != nil {
		return log.InclusionProof{}, fmt.Errorf("open own checkpoint: %s", err)
	}
	if i >= c.Size {
		if i < l.journal.Size() {
			return log.InclusionProof{}, fmt.Errorf("%w: entry %d; the checkpoint has size %d", errNotYet, i, c.Size)
		}
		return log.InclusionProof{}, fmt.Errorf("%w: entry %d; the log has %d", errNotFound, i, l.journal.Size())
	}
	path, err := l.reader.Inclusion(ctx, c.Head, i)
	if err != nil {
		return log.InclusionProof{}, fmt.Errorf("prove entry %d in tree of size %d: %w", i, c.Size, err)
	}
	return log.InclusionProof{Index: i, Path: path, Checkpoint: checkpoint}, nil
}

// consistency answers with the proof that one tree extends another.
func (s *site) consistency(w http.ResponseWriter, r *http.Request, _ principal) error {
	from, err := pathNumber(r, "from")
	if err != nil {
		return err
	}
	to, err := pathNumber(r, "to")
	if err != nil {
		return err
	}
	if from > to {
		return fmt.Errorf("%w path: a tree of size %d does not extend one of size %d", log.ErrMalformed, to, from)
	}
	if head := s.ledger.tree.Head(); to > head.Size {
		return fmt.Errorf("%w: size %d; the tree has %d", errNotFound, to, head.Size)
	}
	path, err := s.ledger.reader.Consistency(r.Context(), from, to)
	if err != nil {
		return fmt.Errorf("prove consistency of sizes %d and %d: %w", from, to, err)
	}
	return writeText(w, log.ConsistencyProof{Origin: s.ledger.c.Origin, Old: from, New: to, Path: path}.Marshal())
}

// rangeProof answers with the proof that leaves are all those of a range.
func (s *site) rangeProof(w http.ResponseWriter, r *http.Request, _ principal) error {
	begin, err := pathNumber(r, "begin")
	if err != nil {
		return err
	}
	end, err := pathNumber(r, "end")
	if err != nil {
		return err
	}
	size := s.ledger.tree.Head().Size
	if r.PathValue("size") != "" {
		n, err := pathNumber(r, "size")
		if err != nil {
			return err
		}
		if n > size {
			return fmt.Errorf("%w: size %d; the tree has %d", errNotFound, n, size)
		}
		size = n
	}
	if begin >= end || end > size {
		return fmt.Errorf("%w path: [%d, %d) is not a range of a tree of size %d", log.ErrMalformed, begin, end, size)
	}
	path, err := s.ledger.reader.Range(r.Context(), size, begin, end)
	if err != nil {
		return fmt.Errorf("prove range [%d, %d): %w", begin, end, err)
	}
	return writeText(w, log.RangeProof{Origin: s.ledger.c.Origin, Begin: begin, End: end, Size: size, Path: path}.Marshal())
}

func writeText(w http.ResponseWriter, b []byte) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, err := w.Write(b)
	return ignoreWrite(err)
}
