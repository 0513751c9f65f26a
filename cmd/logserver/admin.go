package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/journal"
)

// What administrators change is a logged event first; the fold over the log
// makes it so.

type tokenRequest struct {
	ExpiresDays int      `json:"expires_days,omitempty"`
	Permissions []string `json:"permissions,omitempty"`
	Principal   string   `json:"principal"`
	Role        string   `json:"role"`
}

type tokenAnswer struct {
	Expires uint64 `json:"expires"` // Unix milliseconds
	ID      string `json:"id"`
	Index   uint64 `json:"index"`
	Token   string `json:"token"`
}

const (
	tokenDaysDefault = 365
	tokenDaysMax     = 3650
)

// createToken makes a token; the answer is the only place where it ever is.
func (l *ledger) createToken(ctx context.Context, by principal, req tokenRequest) (tokenAnswer, error) {
	days := req.ExpiresDays
	if days == 0 {
		days = tokenDaysDefault
	}
	if days < 1 || days > tokenDaysMax {
		return tokenAnswer{}, fmt.Errorf("%w request: expires_days %d, want 1 to %d", log.ErrMalformed, days, tokenDaysMax)
	}
	token, t, err := newToken(req.Principal, req.Role, req.Permissions, time.Now().AddDate(0, 0, days))
	if err != nil {
		return tokenAnswer{}, err
	}
	result, err := l.recordFor(ctx, by, permAdmin, serverEvent{
		kind: "access.token.created", stream: streamAccess,
		objects: []log.Object{{Name: t.Principal, Role: "principal"}, {Name: t.ID, Role: "token"}},
		payload: t.Marshal(),
	})
	if err != nil {
		return tokenAnswer{}, err
	}
	return tokenAnswer{Expires: t.ExpiresMS, ID: t.ID, Index: result.First, Token: token}, nil
}

func (s *site) createToken(w http.ResponseWriter, r *http.Request, by principal) error {
	var req tokenRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	a, err := s.ledger.createToken(r.Context(), by, req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, a)
}

type indexAnswer struct {
	Index uint64 `json:"index"`
}

func (s *site) revokeToken(w http.ResponseWriter, r *http.Request, by principal) error {
	id := r.PathValue("id")
	if !log.ValidName(id) {
		return fmt.Errorf("%w: no token %q", errNotFound, id)
	}
	result, err := s.ledger.recordFor(r.Context(), by, permAdmin, serverEvent{
		kind: "access.token.revoked", stream: streamAccess,
		objects: []log.Object{{Name: id, Role: "token"}},
		payload: log.TokenRevoked{ID: id}.Marshal(),
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, indexAnswer{result.First})
}

type keyRequest struct {
	Previous  rawJSON `json:"previous,omitempty"` // a signature
	Principal string  `json:"principal"`
	Proof     string  `json:"proof,omitempty"` // base64
	VKey      string  `json:"vkey"`
}

type keyAnswer struct {
	Index  uint64 `json:"index"`
	Key    string `json:"key"`    // id, base64
	Proven bool   `json:"proven"` // possession was proven now
}

// registerKey makes a key one of a principal's.
func (l *ledger) registerKey(ctx context.Context, by principal, req keyRequest) (keyAnswer, error) {
	k, err := req.parse()
	if err != nil {
		return keyAnswer{}, err
	}
	id := k.Key.ID()
	result, err := l.recordFor(ctx, by, permAdmin, serverEvent{
		kind: "key.registered", stream: streamKeys,
		objects: []log.Object{{Name: hex.EncodeToString(id[:]), Role: "key"}, {Name: k.Principal, Role: "principal"}},
		payload: k.Marshal(),
	})
	if err != nil {
		return keyAnswer{}, err
	}
	return keyAnswer{Index: result.First, Key: base64.StdEncoding.EncodeToString(id[:]), Proven: k.Proof != nil}, nil
}

func (req keyRequest) parse() (log.KeyRegistered, error) {
	k := log.KeyRegistered{Principal: req.Principal}
	if !log.ValidName(req.Principal) || req.Principal == "log" {
		return k, fmt.Errorf("%w principal %q", log.ErrMalformed, req.Principal)
	}
	name, key, err := log.ParseVKey(req.VKey)
	if err != nil {
		return k, err
	}
	if err := refuseTestKey(name); err != nil {
		return k, err
	}
	k.Key = key
	if req.Proof != "" {
		b, err := base64.StdEncoding.Strict().DecodeString(req.Proof)
		if err != nil || len(b) != 64 {
			return k, fmt.Errorf("%w proof: want the base64 of a signature", log.ErrMalformed)
		}
		proof := [64]byte(b)
		k.Proof = &proof
	}
	if len(req.Previous) > 0 {
		g, err := log.ParseSig(req.Previous)
		if err != nil {
			return k, err
		}
		k.Previous = &g
	}
	return k, nil
}

// refuseTestKey keeps the keys of published test vectors out: everybody has
// their private halves.
func refuseTestKey(name string) error {
	if strings.Contains(name, "TEST") {
		return fmt.Errorf("%w: %q is named as a key of the test vectors", log.ErrKey, name)
	}
	return nil
}

func (s *site) registerKey(w http.ResponseWriter, r *http.Request, by principal) error {
	var req keyRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	a, err := s.ledger.registerKey(r.Context(), by, req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, a)
}

type revokeRequest struct {
	CompromisedSince *uint64 `json:"compromised_since,omitempty"`
}

// revokeKey ends a key. Nothing is un-signed: tails before stay valid, and
// print as doubtful from compromised_since on.
func (s *site) revokeKey(w http.ResponseWriter, r *http.Request, by principal) error {
	raw, err := hex.DecodeString(r.PathValue("id"))
	if err != nil || len(raw) != len(log.Hash{}) {
		return fmt.Errorf("%w path: a key's id is 64 hexadecimal digits", log.ErrMalformed)
	}
	var req revokeRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	if since, size := req.CompromisedSince, s.ledger.journal.Size(); since != nil && *since > size {
		return fmt.Errorf("%w request: compromised_since %d is an index, and the log has %d entries", log.ErrMalformed, *since, size)
	}
	id := log.Hash(raw)
	k, ok := s.ledger.access.key(id)
	if !ok {
		return fmt.Errorf("%w: no key %x", errNotFound, raw)
	}
	result, err := s.ledger.recordFor(r.Context(), by, permAdmin, serverEvent{
		kind: "key.revoked", stream: streamKeys,
		objects: []log.Object{{Name: hex.EncodeToString(raw), Role: "key"}, {Name: k.Principal, Role: "principal"}},
		payload: log.KeyRevoked{Key: id, CompromisedSince: req.CompromisedSince}.Marshal(),
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, indexAnswer{result.First})
}

type eraseRequest struct {
	Authority string `json:"authority"`
}

func (s *site) erase(w http.ResponseWriter, r *http.Request, by principal) error {
	i, err := pathNumber(r, "index")
	if err != nil {
		return err
	}
	var req eraseRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	if !log.ValidName(req.Authority) {
		return fmt.Errorf("%w request: authority %q: name what it was decided under, such as gdpr:art17:case-81", log.ErrMalformed, req.Authority)
	}
	// From here on it does not matter whether somebody waits for the answer:
	// what the log says is erased, is.
	at, err := s.ledger.erase(context.WithoutCancel(r.Context()), by, log.PayloadErased{Authority: req.Authority, Index: i})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, indexAnswer{at})
}

// erase destroys a payload, in this order: the entry that says so is durable,
// then the key, then the bytes. A crash in between is finished at the next
// start, from the entry. It gives the index of the entry.
func (l *ledger) erase(ctx context.Context, by principal, p log.PayloadErased) (uint64, error) {
	e, err := l.entry(p.Index)
	if err != nil {
		return 0, err
	}
	if !log.Erasable(e.Event.Kind) {
		return 0, fmt.Errorf("%w: the payload of a %s stays, since who reads the log recomputes from it", errForbidden, e.Event.Kind)
	}
	l.erasing.Lock() // of two at once, the second finds it erased
	defer l.erasing.Unlock()
	if err := l.hasPayload(p.Index); err != nil && !errors.Is(err, journal.ErrNoKey) {
		return 0, err
	}
	result, err := l.recordFor(ctx, by, permPayloadErase, serverEvent{
		kind: "payload.erased", stream: streamPayloads,
		objects: []log.Object{{Name: strconv.FormatUint(p.Index, 10), Role: "entry"}, {Name: p.Authority, Role: "authority"}},
		payload: p.Marshal(),
	})
	if err != nil {
		return 0, err
	}
	if err := l.journal.Erase(p.Index); err != nil {
		return 0, fmt.Errorf("erase payload of entry %d: %w", p.Index, err)
	}
	return result.First, nil
}

// readJSON reads a small body into the struct that v points to, strictly:
// exactly its keys, none twice, UTF-8, and nothing behind.
func readJSON(r *http.Request, v any) error {
	body, err := readBody(r)
	if err != nil || len(body) == 0 {
		return err
	}
	members, err := log.Members(body)
	if err != nil {
		return err
	}
	// encoding/json alone takes keys in any case: of "principal" and
	// "PRINCIPAL" the last would count.
	known := jsonKeys(v)
	for _, m := range members {
		if !slices.Contains(known, m.Key) {
			return fmt.Errorf("%w request: unknown key %q; want some of %s", log.ErrMalformed, m.Key, strings.Join(known, ", "))
		}
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w request: %s", log.ErrMalformed, strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// jsonKeys gives the keys of the struct that v points to.
func jsonKeys(v any) []string {
	t := reflect.TypeOf(v).Elem()
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
	}
	return keys
}
