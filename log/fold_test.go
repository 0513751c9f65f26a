package log

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A step of a story in testdata/vectors/streams.json.
type step struct {
	Do, Entry, Payload, Hash string
	Index, Seq               uint64
}

// storyState is the state of the stream after a step.
type storyState struct {
	Seq, TailFirst uint64
	Hash           string
	Closed         bool
}

const storyStream = "crm-2026/load.1"

// exhibits lays a story out as the entries of a log, log.open first.
func exhibits(t *testing.T, origin string, steps []step) (out []Exhibit) {
	t.Helper()
	received := uint64(1767225600025)
	own := func(index uint64, kind, stream string, payload []byte, objects ...Object) Exhibit {
		e := Event{Actor: "log", Kind: kind, Log: origin, Migration: "log", Stream: stream, Seq: 1, Prev: StreamStart(origin, stream), Objects: objects, Time: received}
		for _, x := range out {
			if x.Entry.Event.Stream == stream {
				e.Seq, e.Prev = x.Entry.Event.Seq+1, x.Entry.Event.Hash()
			}
		}
		return Exhibit{Index: index, Entry: Entry{Event: e, Log: Part{Attested: AttestedByLog, Auth: "log", By: origin, Received: received}}, Payload: payload, Disclosed: true}
	}
	out = append(out, own(0, "log.open", "log/open", nil))
	control := uint64(0)
	for _, s := range steps {
		var x Exhibit
		switch s.Do {
		case "add":
			e, err := ParseEntry([]byte(s.Entry))
			if err != nil {
				t.Fatal(err)
			}
			received = max(received, e.Log.Received)
			x = Exhibit{Index: s.Index, Entry: e, Disclosed: true}
			if s.Payload != "" {
				x.Payload = []byte(s.Payload)
			}
		case "refuse":
			x = own(s.Index, "log.refused", "log/refusals", nil,
				Object{storyStream, "stream"}, Object{fmt.Sprint(s.Seq), "seq"}, Object{s.Hash, "event"})
		default:
			x = own(s.Index, s.Do, "log/keys", []byte(s.Payload))
		}
		x.Entry.Log.AsOf = control
		x.Entry.Log.Received = received
		if Control(x.Entry.Event.Kind) {
			control = s.Index
		}
		out = append(out, x)
	}
	return out
}

// audited gives the ids of the checks that fail for a log.
func audited(t *testing.T, c AuditConfig, log []Exhibit) (failed []string, a *Audit) {
	t.Helper()
	checks, a := checked(t, c, log)
	for id, check := range checks {
		if check.Status == Fail {
			failed = append(failed, id)
		}
	}
	slices.Sort(failed)
	return failed, a
}

// checked gives everything that an audit of a log finds.
func checked(t *testing.T, c AuditConfig, log []Exhibit) (map[string]Check, *Audit) {
	t.Helper()
	at := make(map[uint64]bool)
	for _, x := range log {
		at[x.Index] = true
	}
	c.Has = func(index uint64) bool { return at[index] }
	f := NewFindings()
	a := NewAudit(c, f)
	for _, x := range log {
		if err := a.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	a.Finish()
	checks := make(map[string]Check)
	for _, check := range f.All() {
		checks[check.ID] = check
	}
	return checks, a
}

// The stories that the second verifier tells: what it accepts the audit
// accepts, with the same state of the stream after each step, and what it
// refuses fails the audit at that step.
func TestVectorsOfStreams(t *testing.T) {
	var v struct {
		Origin    string
		Good, Bad []struct {
			Name   string
			Steps  []step
			States []storyState
		}
	}
	vectors(t, "streams", &v)
	c := AuditConfig{Origin: v.Origin}
	// The stories open no migration, and some end before a tail.
	incidental := []string{"complete.migration"}
	for _, s := range v.Good {
		all := exhibits(t, v.Origin, s.Steps)
		for n, want := range s.States {
			failed, a := audited(t, c, all[:n+2])
			failed = slices.DeleteFunc(failed, func(id string) bool {
				return slices.Contains(incidental, id) || id == "authentic.signature" && n+1 < len(s.States)
			})
			got := a.streamOf(storyStream)
			if len(failed) > 0 || got.Seq != want.Seq || got.Hash != hashOf(t, want.Hash) || got.Closed != want.Closed {
				t.Errorf("%s, step %d: %v fails; stream %+v, want %+v", s.Name, n, failed, got.Stream, want)
			}
			if got.Mode == ModeSigned && got.TailFirst() != want.TailFirst {
				t.Errorf("%s, step %d: next tail from %d, want %d", s.Name, n, got.TailFirst(), want.TailFirst)
			}
		}
	}
	for _, s := range v.Bad {
		all := exhibits(t, v.Origin, s.Steps)
		before, _ := audited(t, c, all[:len(all)-1])
		failed, _ := audited(t, c, all)
		harmless := func(id string) bool { return slices.Contains(incidental, id) }
		before, failed = slices.DeleteFunc(before, harmless), slices.DeleteFunc(failed, harmless)
		if len(failed) == 0 || slices.ContainsFunc(before, func(id string) bool { return id != "authentic.signature" }) {
			t.Errorf("%s: before its last step %v fails, after it %v", s.Name, before, failed)
		}
	}
}

func (s *storyState) UnmarshalJSON(text []byte) error {
	members, err := Members(text)
	for _, m := range members {
		switch m.Key {
		case "seq":
			_, err = fmt.Sscan(string(m.Raw), &s.Seq)
		case "tail_first":
			_, err = fmt.Sscan(string(m.Raw), &s.TailFirst)
		case "hash":
			s.Hash, err = JSONString(m.Raw)
		case "closed":
			s.Closed = string(m.Raw) == "true"
		}
	}
	return err
}

func TestVectorsOfRefusals(t *testing.T) {
	var v struct {
		Cases []struct {
			Name, Text, Stream, Hash string
			Takes                    bool
			Seq                      uint64
		}
	}
	vectors(t, "refusals", &v)
	for _, c := range v.Cases {
		e, err := ParseEvent([]byte(c.Text))
		if err != nil {
			t.Fatal(err)
		}
		want := Refusal{}
		if c.Takes {
			want = Refusal{c.Stream, c.Seq, hashOf(t, c.Hash)}
		}
		if got, took := RefusalOf(e); took != c.Takes || got != want {
			t.Errorf("RefusalOf(%s) = %+v, %t, want %+v, %t", c.Name, got, took, want, c.Takes)
		}
	}
}

func TestVectorsOfMigrations(t *testing.T) {
	var v struct {
		Cases []struct {
			Name, Open, Close string
			AtHand            []struct {
				Hash, Stream string
				Last         uint64
			} `json:"at_hand"`
			Complete bool
		}
	}
	vectors(t, "migrations", &v)
	for _, c := range v.Cases {
		opened, err := ParseMigrationOpen([]byte(c.Open))
		if err != nil {
			t.Fatal(err)
		}
		closed, err := ParseMigrationClose([]byte(c.Close))
		if err != nil {
			t.Fatal(err)
		}
		streams := []Stream{{Name: "m/control"}}
		for _, s := range c.AtHand {
			raw, err := b64.DecodeString(s.Hash)
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, Stream{Name: s.Stream, Seq: s.Last, Hash: Hash(raw)})
		}
		m := Migration{Name: "m", Owner: "o", Control: "m/control", Expected: opened.Streams}
		if err := m.CheckAccount(closed, streams); (err == nil) != c.Complete {
			t.Errorf("CheckAccount(%s) = %v, want complete: %t", c.Name, err, c.Complete)
		}
		if err := m.CheckAccount(closed, streams[1:]); err == nil {
			t.Errorf("CheckAccount(%s) without the control stream = nil", c.Name)
		}
	}
}

// A stream takes exactly the next event of its owner, whatever is tried: the
// model is the list of hashes that it has taken.
func TestStreamAgainstModel(t *testing.T) {
	const origin, name, owner = "log.example/TEST", "m/s", "crm"
	rapid.Check(t, func(t *rapid.T) {
		s := NewStream(origin, name)
		hashes := []Hash{StreamStart(origin, name)}
		tail, closed := uint64(0), false
		for n := range rapid.IntRange(1, 30).Draw(t, "events") {
			seq := rapid.Uint64Range(0, uint64(len(hashes))+1).Draw(t, "seq")
			if rapid.Bool().Draw(t, "next") {
				seq = uint64(len(hashes))
			}
			kind := rapid.SampledFrom([]string{"stream.open", "migration.load", "audit.note", "migration.load", "stream.close"}).Draw(t, "kind")
			if len(hashes) == 1 && rapid.Bool().Draw(t, "opens") {
				kind = "stream.open"
			}
			prev := hashes[max(0, len(hashes)-1-rapid.IntRange(0, 1).Draw(t, "back"))]
			by := rapid.SampledFrom([]string{owner, owner, "intruder"}).Draw(t, "by")
			e := Event{Log: origin, Migration: "m", Stream: name, Kind: kind, Seq: seq, Prev: prev, Time: uint64(n)}
			var want error
			switch at := uint64(len(hashes)); {
			case len(hashes) > 1 && by != owner:
				want = ErrOwner
			case seq < at:
				want = ErrFork
			case seq > at:
				want = ErrGap
			case prev != hashes[at-1]:
				want = ErrFork
			case closed:
				want = ErrClosed
			case (kind == "stream.open") != (seq == 1):
				want = ErrOpen
			}
			if got := s.Check(e, by); !errors.Is(got, want) {
				t.Fatalf("Check(seq %d, %s by %s) = %v, want %v", seq, kind, by, got, want)
			}
			if want != nil {
				continue
			}
			if rapid.IntRange(0, 4).Draw(t, "refuse") == 0 && seq > 1 {
				s.Refuse(seq, e.Hash(), uint64(n))
				tail = seq
			} else {
				var open *StreamOpen
				if kind == "stream.open" {
					open = &StreamOpen{Mode: ModeLogKept, Owner: owner}
				}
				ends := rapid.Bool().Draw(t, "ends")
				s.Advance(e, e.Hash(), uint64(n), open, ends)
				closed = kind == "stream.close"
				if ends {
					tail = seq
				}
			}
			hashes = append(hashes, e.Hash())
			kept, err := MarshalStream(s)
			if err != nil {
				t.Fatal(err)
			}
			if s, err = UnmarshalStream(kept); err != nil || s.Seq != seq || s.Hash != e.Hash() || s.Index != uint64(n) || s.TailFirst() != tail+1 || s.Closed != closed {
				t.Fatalf("after seq %d: %+v, %v, want tail from %d, closed %t", seq, s, err, tail+1, closed)
			}
		}
	})
}

// An event of another stream is our own mistake.
func TestEventOfAnotherStream(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Check of an event of another stream did not panic")
		}
	}()
	s := NewStream("o", "m/a")
	_ = s.Check(Event{Stream: "m/b"}, "p")
}

// A signed stream is never taken down to unsigned: no tail is no signature.
func TestTailIsNeeded(t *testing.T) {
	s := NewStream("o", "m/a")
	if err := s.CheckTail("o", nil, 1, Event{Stream: "m/a"}, Hash{}, nil); !errors.Is(err, ErrTail) {
		t.Errorf("CheckTail without a signature = %v, want %v", err, ErrTail)
	}
}

// The keyring against a model: a map of what was registered and revoked where.
func TestKeyringAgainstModel(t *testing.T) {
	const origin = "log.example/TEST"
	type held struct {
		principal           string
		registered, revoked uint64
	}
	var privs []ed25519.PrivateKey
	for i := range 4 {
		privs = append(privs, ed25519.NewKeyFromSeed(append(make([]byte, 31), byte(i))))
	}
	public := func(i int) PublicKey { return PublicKey(privs[i].Public().(ed25519.PublicKey)) }
	rapid.Check(t, func(t *rapid.T) {
		var r Keyring
		model := make(map[Hash]held)
		last := uint64(rapid.IntRange(1, 20).Draw(t, "entries"))
		for index := uint64(1); index <= last; index++ {
			i := rapid.IntRange(0, len(privs)-1).Draw(t, "key")
			key := public(i)
			principal := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "principal")
			h, known := model[key.ID()]
			e := Entry{Event: Event{Log: origin, Migration: "log"}, Log: Part{Attested: AttestedByLog}}
			var payload []byte
			ok := true
			if rapid.Bool().Draw(t, "revoke") {
				e.Event.Kind = "key.revoked"
				payload = KeyRevoked{Key: key.ID()}.Marshal()
				ok = known && h.revoked == 0
				h.revoked = index
			} else {
				e.Event.Kind = "key.registered"
				k := KeyRegistered{Key: key, Principal: principal}
				ok = !known
				h = held{principal: principal, registered: index}
				if rapid.Bool().Draw(t, "proof") {
					sig := Sign(privs[i], PossessionText(origin, principal, key))
					k.Proof = &sig.Sig
				}
				if rapid.Bool().Draw(t, "succession") {
					j := rapid.IntRange(0, len(privs)-1).Draw(t, "previous")
					sig := Sign(privs[j], SuccessionText(origin, principal, key))
					k.Previous = &sig
					p, is := model[public(j).ID()]
					ok = ok && is && p.principal == principal && p.revoked == 0
				}
				payload = k.Marshal()
			}
			submitted := rapid.IntRange(0, 5).Draw(t, "submitted") == 0
			if submitted {
				e.Log.Attested = ""
			}
			err := r.Apply(index, e, payload)
			if (err == nil) != (ok || submitted) {
				t.Fatalf("Apply(%d, %s %s) = %v, want ok %t", index, e.Event.Kind, payload, err, ok)
			}
			if ok && !submitted {
				model[key.ID()] = h
			}
		}
		for i := range privs {
			id := public(i).ID()
			h, known := model[id]
			state, found := r.Lookup(id)
			if found != known || found && (state.Principal != h.principal || state.Registered != h.registered || (state.Revoked != nil) != (h.revoked > 0)) {
				t.Fatalf("Lookup = %+v, %t, want %+v, %t", state, found, h, known)
			}
			for index := range last + 2 {
				for _, principal := range []string{"a", "b"} {
					want := known && h.principal == principal && h.registered <= index && (h.revoked == 0 || index < h.revoked)
					if err := r.Valid(id, principal, index); (err == nil) != want || err != nil && !errors.Is(err, ErrKey) {
						t.Fatalf("Valid(%s, %d) = %v, want %t", principal, index, err, want)
					}
				}
			}
		}
	})
}

// What is wrong with a key entry is said, and registers nothing.
func TestBadKeyEntries(t *testing.T) {
	const origin = "log.example/TEST"
	priv := ed25519.NewKeyFromSeed(make([]byte, 32))
	key := PublicKey(priv.Public().(ed25519.PublicKey))
	entry := func(kind string) Entry {
		return Entry{Event: Event{Kind: kind, Log: origin, Migration: "log"}, Log: Part{Attested: AttestedByLog}}
	}
	stolen := Sign(priv, PossessionText(origin, "owner", key))
	self := Sign(priv, SuccessionText(origin, "owner", key))
	for name, c := range map[string]struct {
		kind    string
		payload []byte
		want    error
	}{
		"registered, malformed":  {"key.registered", []byte("{}"), ErrMalformed},
		"revoked, malformed":     {"key.revoked", []byte("{}"), ErrMalformed},
		"small order":            {"key.registered", KeyRegistered{Principal: "p"}.Marshal(), ErrKey},
		"proof of another":       {"key.registered", KeyRegistered{Key: key, Principal: "thief", Proof: &stolen.Sig}.Marshal(), ErrSignature},
		"its own predecessor":    {"key.registered", KeyRegistered{Key: key, Principal: "owner", Previous: &self}.Marshal(), ErrKey},
		"revoked and not there":  {"key.revoked", KeyRevoked{Key: key.ID()}.Marshal(), ErrKeyUnknown},
		"kind of something else": {"key.other", []byte("anything"), nil},
	} {
		var r Keyring
		if err := r.Apply(7, entry(c.kind), c.payload); !errors.Is(err, c.want) {
			t.Errorf("%s: Apply = %v, want %v", name, err, c.want)
		}
		if _, ok := r.Lookup(key.ID()); ok {
			t.Errorf("%s: the key is registered", name)
		}
	}
	var r Keyring
	if err := r.CheckRegistration(origin, KeyRegistered{Principal: "p"}); !errors.Is(err, ErrKey) {
		t.Errorf("CheckRegistration of a small-order key = %v, want %v", err, ErrKey)
	}
	// A successor needs the signature of the key that it names.
	if err := r.Apply(1, entry("key.registered"), KeyRegistered{Key: key, Principal: "owner"}.Marshal()); err != nil {
		t.Fatal(err)
	}
	next := ed25519.NewKeyFromSeed(append(make([]byte, 31), 9))
	k := KeyRegistered{Key: PublicKey(next.Public().(ed25519.PublicKey)), Principal: "owner"}
	forged := Sign(priv, SuccessionText(origin, "owner", key))
	k.Previous = &forged
	if err := r.CheckRegistration(origin, k); !errors.Is(err, ErrSignature) {
		t.Errorf("CheckRegistration with a signature over another key = %v, want %v", err, ErrSignature)
	}
}

// A migration is opened once, and closed by its owner where it was opened.
func TestMigrationAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Migration{Name: "m"}
		var owner, control string
		closed := false
		expected := []StreamOwner{{"b", "m/listed"}}
		for range rapid.IntRange(1, 12).Draw(t, "events") {
			e := Event{
				Migration: "m",
				Kind:      rapid.SampledFrom([]string{"migration.open", "migration.load", "stream.open", "migration.close"}).Draw(t, "kind"),
				Stream:    rapid.SampledFrom([]string{"m/control", "m/listed", "m/other"}).Draw(t, "stream"),
			}
			by := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "by")
			var open *StreamOpen
			if e.Kind == "stream.open" {
				open = &StreamOpen{Owner: by}
			}
			ok := !closed
			switch e.Kind {
			case "migration.open":
				ok = ok && owner == ""
			case "migration.close":
				ok = ok && owner == by && control == e.Stream
			case "stream.open":
				ok = ok && (owner == "" || owner == by || by == "b" && e.Stream == "m/listed")
			}
			if err := m.Check(e, by, open); (err == nil) != ok || err != nil && !errors.Is(err, ErrMigration) {
				t.Fatalf("Check(%s in %s by %s) = %v, want ok %t", e.Kind, e.Stream, by, err, ok)
			}
			if !ok {
				continue
			}
			m.Advance(e, by, &MigrationOpen{expected})
			switch e.Kind {
			case "migration.open":
				owner, control = by, e.Stream
			case "migration.close":
				closed = true
			}
			if m.Owner != owner || m.Control != control || m.Closed != closed {
				t.Fatalf("after %s: %+v", e.Kind, m)
			}
		}
	})
}
