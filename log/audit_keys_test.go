package log

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"
)

// newKey gives a principal of a fake log another key, and says how to have it
// registered: with its possession proven, and the key before vouching for it.
func (l *fakeLog) newKey(principal string, seed byte) KeyRegistered {
	before := l.keys[principal]
	l.keys[principal] = ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))
	k := KeyRegistered{Key: l.key(principal), Principal: principal}
	proof := Sign(l.keys[principal], PossessionText(auditOrigin, principal, k.Key))
	k.Proof = &proof.Sig
	if before != nil {
		previous := Sign(before, SuccessionText(auditOrigin, principal, k.Key))
		k.Previous = &previous
	}
	return k
}

func (l *fakeLog) register(k KeyRegistered) *fakeLog {
	return l.add(auditOrigin, ServerStream("keys"), "key.registered", k.Marshal())
}

func (l *fakeLog) revoke(k KeyRevoked) *fakeLog {
	return l.add(auditOrigin, ServerStream("keys"), "key.revoked", k.Marshal())
}

// rotated is a log whose principal svc has registered a key, and is about to
// sign with another; and an auditor to whom the first key was brought.
func rotated(t *testing.T) (*fakeLog, AuditConfig, KeyRegistered) {
	l := newFakeLog(t)
	l.add(auditOrigin, "log/open", "log.open", LogOpen{Origin: auditOrigin}.Marshal())
	first := l.newKey("svc", 21)
	l.register(first) // 1
	s := Submitters{map[Hash]submitterKey{first.Key.ID(): {"svc", first.Key}}}
	return l, AuditConfig{Origin: auditOrigin, Submitters: &s}, first
}

// A key counts if the auditor lists it, or one that vouches for it.
func TestSuccessorOfAListedKeySigns(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(l *fakeLog, next KeyRegistered, first KeyRegistered)
		want string // what fails
	}{
		"vouched for": {func(l *fakeLog, next, _ KeyRegistered) { l.register(next) }, ""},
		"the listed key revoked later": {func(l *fakeLog, next, first KeyRegistered) {
			l.register(next).revoke(KeyRevoked{Key: first.Key.ID()})
		}, ""},
		"the third in the chain": {func(l *fakeLog, next, _ KeyRegistered) {
			l.register(next)
			l.register(l.newKey("svc", 23))
		}, ""},
		"the third, the second unproven": {func(l *fakeLog, next, _ KeyRegistered) {
			next.Proof = nil
			l.register(next)
			l.register(l.newKey("svc", 23))
		}, "authentic.keys"},
		"not vouched for": {func(l *fakeLog, next, _ KeyRegistered) {
			next.Previous = nil
			l.register(next)
		}, "authentic.keys"},
		"possession unproven": {func(l *fakeLog, next, _ KeyRegistered) {
			next.Proof = nil
			l.register(next)
		}, "authentic.keys"},
		"never registered": {func(*fakeLog, KeyRegistered, KeyRegistered) {}, "authentic.keys"},
		"vouched for by a revoked key": {func(l *fakeLog, next, first KeyRegistered) {
			l.revoke(KeyRevoked{Key: first.Key.ID()}).register(next)
		}, "authentic.keys"},
		"vouched for by another principal's key": {func(l *fakeLog, next, _ KeyRegistered) {
			stolen := Sign(l.keys["owner"], SuccessionText(auditOrigin, "svc", next.Key))
			next.Previous = &stolen
			l.register(l.newKey("owner", 24)).register(next)
		}, "authentic.keys"},
	} {
		l, config, first := rotated(t)
		c.do(l, l.newKey("svc", 22), first)
		l.open("svc", "own/s").add("svc", "own/s", "x.acme.thing", nil)
		checks, _ := checked(t, config, l.entries)
		var failed []string
		for id, check := range checks {
			if check.Status == Fail {
				failed = append(failed, id)
			}
		}
		if want := strings.Fields(c.want); !slices.Equal(failed, want) {
			t.Errorf("%s: %v fails, want %v: %v", name, failed, want, checks["authentic.keys"].Reasons)
		}
		if got := checks["authentic.signature"].Status; c.want == "" && got != Pass {
			t.Errorf("%s: authentic.signature is %v, want %v", name, got, Pass)
		}
	}
}

// Whoever had a key could have named its successor: the tails are doubtful.
func TestSuccessorOfACompromisedKeyIsDoubtful(t *testing.T) {
	for since, want := range map[uint64]string{2: "which vouched for it, is compromised since entry 2", 3: ""} {
		l, config, first := rotated(t)
		l.register(l.newKey("svc", 22)) // 2
		l.open("svc", "own/s")          // 3
		l.revoke(KeyRevoked{&since, first.Key.ID()})
		checks, _ := checked(t, config, l.entries)
		c := checks["authentic.revocation"]
		if said := strings.Join(c.Reasons, "\n"); !strings.Contains(said, want) || (want == "") != (c.Status == Pass) {
			t.Errorf("compromised since %d: %v %v, want %q", since, c.Status, c.Reasons, want)
		}
	}
	// Not if the auditor was brought the successor too.
	l, config, first := rotated(t)
	next := l.newKey("svc", 22)
	l.register(next).open("svc", "own/s").revoke(KeyRevoked{new(uint64), first.Key.ID()})
	config.Submitters.keys[next.Key.ID()] = submitterKey{"svc", next.Key}
	if checks, _ := checked(t, config, l.entries); checks["authentic.revocation"].Status != Pass {
		t.Errorf("a listed successor: %v", checks["authentic.revocation"])
	}
}

// A gap in the history of keys excuses what it can explain, and nothing that
// the entries at hand show.
func TestKeysAroundAGap(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(l *fakeLog, k KeyRegistered) // after entry 1, which is not at hand
		want bool                              // authentic.keys fails
	}{
		"registered in the gap":          {func(l *fakeLog, _ KeyRegistered) { l.open("svc", "own/s") }, false},
		"registered before":              {func(l *fakeLog, k KeyRegistered) { l.register(k).open("svc", "own/s") }, false},
		"registered after its use":       {func(l *fakeLog, k KeyRegistered) { l.open("svc", "own/s").register(k) }, true},
		"registered for another, after":  {func(l *fakeLog, k KeyRegistered) { k.Principal = "other"; l.open("svc", "own/s").register(unproven(k)) }, true},
		"registered for another, before": {func(l *fakeLog, k KeyRegistered) { k.Principal = "other"; l.register(unproven(k)).open("svc", "own/s") }, true},
		"revoked, registered in the gap": {func(l *fakeLog, k KeyRegistered) { l.revoke(KeyRevoked{Key: k.Key.ID()}).open("svc", "own/s") }, true},
		"revoked after its use":          {func(l *fakeLog, k KeyRegistered) { l.open("svc", "own/s").revoke(KeyRevoked{Key: k.Key.ID()}) }, false},
		"revoked twice": {func(l *fakeLog, k KeyRegistered) {
			l.revoke(KeyRevoked{Key: k.Key.ID()}).revoke(KeyRevoked{Key: k.Key.ID()})
		}, true},
		"vouched for by a key in the gap":   {func(l *fakeLog, k KeyRegistered) { l.register(l.newKey("svc", 22)).open("svc", "own/s") }, false},
		"used before its successor vouched": {func(l *fakeLog, k KeyRegistered) { next := l.newKey("svc", 22); l.open("svc", "own/s").register(next) }, true},
	} {
		l, config, first := rotated(t)
		config.Submitters = nil
		c.do(l, first)
		l.entries = slices.Delete(l.entries, 1, 2)
		checks, _ := checked(t, config, l.entries)
		if got := checks["authentic.keys"].Status == Fail; got != c.want {
			t.Errorf("%s: authentic.keys fails: %t, want %t: %v", name, got, c.want, checks["authentic.keys"].Reasons)
		}
		if as := checks["integrity.as-of"]; as.Status != NotChecked || as.Summary != "" {
			t.Errorf("%s: integrity.as-of is %v, want it not checked", name, as)
		}
	}
}

// Of a part of a log the auditor may not have the registration of the key that
// they were brought: it vouches for its successor all the same. What may have been
// registered in a gap is not checked, and what was not cannot vouch.
func TestBroughtKeysAroundAGap(t *testing.T) {
	third := func(l *fakeLog) KeyRegistered { return l.newKey("svc", 23) }
	for name, c := range map[string]struct {
		do   func(l *fakeLog, next KeyRegistered) // after entry 1, which is not at hand
		want Status                               // of authentic.keys
	}{
		"the brought key itself": {func(l *fakeLog, _ KeyRegistered) {
			l.keys["svc"] = ed25519.NewKeyFromSeed(append(make([]byte, 31), 21))
		}, Pass},
		"its successor":         {func(l *fakeLog, next KeyRegistered) { l.register(next) }, Pass},
		"the successor of that": {func(l *fakeLog, next KeyRegistered) { l.register(next).register(third(l)) }, Pass},
		"registered in the gap": {func(*fakeLog, KeyRegistered) {}, NotChecked},
		"the successor of such": {func(l *fakeLog, _ KeyRegistered) { l.register(third(l)) }, NotChecked},
		"unchecked, then its predecessor": {func(l *fakeLog, next KeyRegistered) {
			forged := third(l)
			forged.Previous.Sig[0] ^= 1
			l.register(forged).register(next)
		}, NotChecked},
		"not vouched for":        {func(l *fakeLog, next KeyRegistered) { next.Previous = nil; l.register(next) }, Fail},
		"possession not proven":  {func(l *fakeLog, next KeyRegistered) { l.register(unproven(next)) }, Fail},
		"not by the brought key": {func(l *fakeLog, next KeyRegistered) { next.Previous.Sig[0] ^= 1; l.register(next) }, Fail},
		"brought for another": {func(l *fakeLog, next KeyRegistered) {
			next.Principal = "other"
			l.register(unproven(next))
		}, Fail},
	} {
		l, config, _ := rotated(t)
		c.do(l, l.newKey("svc", 22))
		l.open("svc", "own/s").add("svc", "own/s", "x.acme.thing", nil)
		l.entries = slices.Delete(l.entries, 1, 2)
		checks, _ := checked(t, config, l.entries)
		if got := checks["authentic.keys"]; got.Status != c.want {
			t.Errorf("%s: authentic.keys is %v, want %v: %v", name, got.Status, c.want, got.Reasons)
		}
		if got := checks["authentic.signature"].Status == Pass; got != (c.want == Pass) {
			t.Errorf("%s: authentic.signature passes: %t", name, got)
		}
	}
}

// Nobody listed a key that signed if none signed.
func TestNoKeySigned(t *testing.T) {
	l, config, _ := rotated(t)
	if checks, _ := checked(t, config, l.entries); checks["authentic.keys"].Status != NotChecked {
		t.Errorf("authentic.keys without a tail: %+v", checks["authentic.keys"])
	}
}

// unproven is k as it is registered for somebody who does not have the key.
func unproven(k KeyRegistered) KeyRegistered {
	k.Proof = nil
	return k
}

// A payload of a later version is not tampered with: it was not understood.
func TestAuditOfLaterVersions(t *testing.T) {
	for index, id := range map[int]string{
		0: "authentic.log", 1: "authentic.keys", 3: "integrity.chain", 4: "integrity.migration", 5: "integrity.chain",
		10: "integrity.payload", 11: "integrity.migration",
	} {
		l := wholeLog(t)
		x := &l.entries[index]
		x.Payload = []byte(strings.TrimSuffix(string(x.Payload), "1}") + "2}")
		checks, a := checked(t, auditAll(t, l), l.entries)
		for _, c := range checks {
			if c.Status == Fail {
				t.Errorf("%s of a later version: %s fails: %v", x.Entry.Event.Kind, c.ID, c.Reasons)
			}
		}
		if !a.Unsupported() || checks[id].Status != NotChecked {
			t.Errorf("%s of a later version: Unsupported = %t, %s is %v", x.Entry.Event.Kind, a.Unsupported(), id, checks[id])
		}
	}
	if _, a := checked(t, AuditConfig{Origin: auditOrigin}, wholeLog(t).entries); a.Unsupported() {
		t.Error("Unsupported = true for a log of this version")
	}
}
