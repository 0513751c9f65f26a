package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pipe-roll/piperoll/log"
)

// A permission is something that a principal may be allowed to do. They are
// coarse; this file is the one seam that a finer policy replaces.
type permission string

const (
	permAppend         permission = "log:append"
	permAppendUnsigned permission = "log:append-unsigned"
	permRead           permission = "log:read"
	permPayloadRead    permission = "payload:read"
	permPayloadErase   permission = "payload:erase"
	permAdmin          permission = "admin"
)

var allPermissions = []permission{permAppend, permAppendUnsigned, permRead, permPayloadRead, permPayloadErase, permAdmin}

// roles says what each role may do. No role may append unsigned: that is
// granted by name, since nobody but the log attests such entries.
var roles = map[string][]permission{
	"admin":              {permAdmin, permAppend, permRead, permPayloadRead, permPayloadErase},
	"compliance-officer": {permRead, permPayloadRead, permPayloadErase},
	"migration-service":  {permAppend, permRead},
	"operator":           {permRead},
	"auditor":            {permRead, permPayloadRead},
	"witness":            {},
	"monitor":            {permRead},
}

// Errors of access control.
var (
	errUnauthenticated = errors.New("no valid token")
	errForbidden       = errors.New("not permitted")
)

// A principal is who is behind a request, and what the log allows them.
type principal struct {
	name  string
	auth  string // "token:ID", or authLog
	role  string
	perms []permission
	hash  log.Hash // of the token, to look again
}

// authLog is the auth of what the log does by itself or is told by commands on
// its own files.
const authLog = "log"

// local is who runs a command on the log's own files, and so can do anything.
func local(name string) principal {
	return principal{name: name, auth: authLog, perms: allPermissions}
}

// may says whether the principal has one of the permissions.
func (p principal) may(oneOf ...permission) error {
	var names []string
	for _, perm := range oneOf {
		if slices.Contains(p.perms, perm) {
			return nil
		}
		names = append(names, string(perm))
	}
	return fmt.Errorf("%w: %q needs the permission %s", errForbidden, p.name, strings.Join(names, " or "))
}

// access is the fold over control entries: tokens and keys. It holds nothing
// that is not in the log, so that who may do what can be recomputed.
type access struct {
	now func() time.Time

	mu     sync.RWMutex
	tokens map[log.Hash]log.TokenCreated // by SHA-256 of the token; valid ones
	byID   map[string]log.Hash
	keys   log.Keyring
}

func newAccess(now func() time.Time) *access {
	return &access{now: now, tokens: make(map[log.Hash]log.TokenCreated), byID: make(map[string]log.Hash)}
}

// Check gives the error that Apply would. It implements sequencer.Control: asked
// in the order of the log, so that of two who ask for the same at once, the
// second is told so.
func (a *access) Check(index uint64, e log.Entry, payload []byte) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if _, err := a.change(index, e, payload); err != nil {
		return err
	}
	return a.keys.Check(index, e, payload)
}

// Apply folds one control entry. It implements sequencer.Control. An entry that
// gives an error changes nothing.
func (a *access) Apply(index uint64, e log.Entry, payload []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	change, err := a.change(index, e, payload)
	if err != nil {
		return err
	}
	change()
	return a.keys.Apply(index, e, payload)
}

// change gives what an entry does to the tokens. The caller holds mu.
func (a *access) change(index uint64, e log.Entry, payload []byte) (func(), error) {
	switch e.Event.Kind {
	case "access.token.created":
		t, err := log.ParseTokenCreated(payload)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", index, err)
		}
		if _, ok := a.byID[t.ID]; ok {
			return nil, fmt.Errorf("entry %d: another token has the id %q", index, t.ID)
		}
		return func() { a.tokens[t.Hash], a.byID[t.ID] = t, t.Hash }, nil
	case "access.token.revoked":
		t, err := log.ParseTokenRevoked(payload)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", index, err)
		}
		hash, ok := a.byID[t.ID]
		if !ok {
			return nil, fmt.Errorf("%w: no valid token %q", errNotFound, t.ID)
		}
		return func() { delete(a.tokens, hash); delete(a.byID, t.ID) }, nil
	}
	return func() {}, nil
}

// KeyValid implements sequencer.Control.
func (a *access) KeyValid(key log.Hash, principal string, index uint64) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.keys.Valid(key, principal, index)
}

// key looks a submitter's key up.
func (a *access) key(id log.Hash) (log.KeyState, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.keys.Lookup(id)
}

const bearer = "Bearer "

// authenticate finds the principal of an Authorization header.
func (a *access) authenticate(header string) (principal, error) {
	token, ok := strings.CutPrefix(header, bearer)
	if !ok || token == "" || len(token) > 128 {
		return principal{}, fmt.Errorf("%w: send the header Authorization: Bearer TOKEN", errUnauthenticated)
	}
	return a.lookup(sha256.Sum256([]byte(token)))
}

// confirm says whether by may still do what needs the permission: the token may
// have been revoked since the request came, or have expired.
func (a *access) confirm(by principal, need permission) error {
	if by.auth == authLog {
		return by.may(need)
	}
	now, err := a.lookup(by.hash)
	if err != nil {
		return err
	}
	return now.may(need)
}

// lookup finds the principal of a token's hash. Tokens are 256 random bits, so
// a plain hash hides them, and the time that a map takes tells nothing of use.
func (a *access) lookup(hash log.Hash) (principal, error) {
	a.mu.RLock()
	t, ok := a.tokens[hash]
	a.mu.RUnlock()
	if !ok {
		return principal{}, fmt.Errorf("%w: this token is unknown or revoked", errUnauthenticated)
	}
	if uint64(a.now().UnixMilli()) >= t.ExpiresMS {
		return principal{}, fmt.Errorf("%w: token %s has expired", errUnauthenticated, t.ID)
	}
	p := principal{name: t.Principal, auth: "token:" + t.ID, role: t.Role, hash: hash, perms: slices.Clone(roles[t.Role])}
	for _, extra := range t.Permissions {
		p.perms = append(p.perms, permission(extra))
	}
	return p, nil
}

// newToken draws a token and the event payload that makes it valid.
func newToken(name, role string, extra []string, expires time.Time) (token string, t log.TokenCreated, err error) {
	var errs []error
	if !log.ValidName(name) {
		errs = append(errs, fmt.Errorf("%w principal %q: want 1 to 128 of A-Z a-z 0-9 . _ : / -", log.ErrMalformed, name))
	}
	if name == "log" {
		errs = append(errs, fmt.Errorf("%w principal: \"log\" is the log itself", log.ErrMalformed))
	}
	if _, ok := roles[role]; !ok {
		errs = append(errs, fmt.Errorf("%w role %q: want one of %s", log.ErrMalformed, role, roleNames()))
	}
	for _, p := range extra {
		if !slices.Contains(allPermissions, permission(p)) {
			errs = append(errs, fmt.Errorf("%w permission %q: want one of %v", log.ErrMalformed, p, allPermissions))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return "", t, err
	}
	var secret [32]byte
	rand.Read(secret[:])
	token = "pr_" + base64.RawURLEncoding.EncodeToString(secret[:])
	extra = slices.Compact(slices.Sorted(slices.Values(extra)))
	hash := sha256.Sum256([]byte(token))
	return token, log.TokenCreated{
		ExpiresMS: uint64(expires.UnixMilli()), Hash: hash, ID: hex.EncodeToString(hash[:16]),
		Permissions: extra, Principal: name, Role: role,
	}, nil
}

func roleNames() string {
	var names []string
	for r := range roles {
		names = append(names, r)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
