package log

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
)

const auditOrigin = "log.example/TEST"

// A fakeLog makes the entries of a log as an honest one would.
type fakeLog struct {
	t       *testing.T
	entries []Exhibit
	heads   map[string]*Stream
	control uint64
	keys    map[string]ed25519.PrivateKey // by principal
}

func newFakeLog(t *testing.T) *fakeLog {
	l := &fakeLog{t: t, heads: make(map[string]*Stream), keys: make(map[string]ed25519.PrivateKey)}
	for i, principal := range []string{"owner", "helper"} {
		l.keys[principal] = ed25519.NewKeyFromSeed(append(make([]byte, 31), byte(i+1)))
	}
	return l
}

func (l *fakeLog) key(principal string) PublicKey {
	return PublicKey(l.keys[principal].Public().(ed25519.PublicKey))
}

// add appends an event to a stream: the log's own, if the kind is of class server.
func (l *fakeLog) add(by, stream, kind string, payload []byte, objects ...Object) *fakeLog {
	l.t.Helper()
	index := uint64(len(l.entries))
	migration, _, _ := strings.Cut(stream, "/")
	s := l.heads[stream]
	if s == nil {
		fresh := NewStream(auditOrigin, stream)
		s = &fresh
		l.heads[stream] = s
	}
	e := Entry{
		Event: Event{
			Actor: by, Kind: kind, Log: auditOrigin, Migration: migration, Objects: objects,
			Prev: s.Hash, Seq: s.Seq + 1, Stream: stream, Time: 1000 + index,
		},
		Log: Part{AsOf: l.control, Auth: "token:1", By: by, Received: 1000 + index},
	}
	if payload != nil {
		e.Event.Payload = &Ref{Commit(Payload{Bytes: payload}, JSONType), JSONType}
	}
	var open *StreamOpen
	if kind == "stream.open" {
		o, err := ParseStreamOpen(payload)
		if err != nil {
			l.t.Fatal(err)
		}
		open = &o
	}
	if s.Mode == ModeLogKept || open != nil && open.Mode == ModeLogKept || migration == serverMigration {
		e.Log.Attested = AttestedByLog
	} else {
		sig := Sign(l.keys[by], TailText(auditOrigin, stream, s.TailFirst(), e.Event.Seq, e.Event.Hash()))
		e.Sig = &sig
	}
	if err := s.Check(e.Event, by); err != nil {
		l.t.Fatal(err)
	}
	s.Advance(e.Event, e.Event.Hash(), index, open, true)
	if Control(kind) {
		l.control = index
	}
	x := Exhibit{Index: index, Entry: e, Disclosed: payload != nil}
	if Structural(kind) {
		x.Payload = payload
	}
	l.entries = append(l.entries, x)
	return l
}

func (l *fakeLog) open(by, stream string) *fakeLog {
	return l.add(by, stream, "stream.open", StreamOpen{[]PublicKey{l.key(by)}, ModeSigned, by}.Marshal())
}

// ends gives the account of streams as they are now.
func (l *fakeLog) ends(streams ...string) MigrationClose {
	var c MigrationClose
	for _, name := range streams {
		c.Streams = append(c.Streams, StreamEnd{l.heads[name].Hash, l.heads[name].Seq, name})
	}
	return c
}

// startedLog is a migration that has been opened, and both principals' keys.
func startedLog(t *testing.T) *fakeLog {
	l := newFakeLog(t)
	l.add(auditOrigin, "log/open", "log.open", LogOpen{[]LogKey{{PurposeCheckpoint, "TEST+vkey"}}, auditOrigin, 60000, nil}.Marshal())
	for _, principal := range []string{"owner", "helper"} {
		proof := Sign(l.keys[principal], PossessionText(auditOrigin, principal, l.key(principal)))
		l.add(auditOrigin, ServerStream("keys"), "key.registered", KeyRegistered{Key: l.key(principal), Principal: principal, Proof: &proof.Sig}.Marshal())
	}
	l.open("owner", "m/control")                                                                                                     // 3
	l.add("owner", "m/control", "migration.open", MigrationOpen{[]StreamOwner{{"helper", "m/a"}, {"owner", "m/control"}}}.Marshal()) // 4
	return l
}

// wholeLog is a complete migration: a signed stream of its owner, one of a
// helper, one kept by the log, and an erased payload.
func wholeLog(t *testing.T) *fakeLog {
	l := startedLog(t)
	l.open("helper", "m/a")                                                                        // 5
	l.add("helper", "m/a", "migration.load", []byte("secret"))                                     // 6
	l.add("helper", "m/a", "stream.close", nil)                                                    // 7
	l.add("owner", "m/kept", "stream.open", StreamOpen{nil, ModeLogKept, "owner"}.Marshal())       // 8
	l.add("owner", "m/kept", "migration.load", nil)                                                // 9
	l.add(auditOrigin, "log/payloads", "payload.erased", PayloadErased{"gdpr:art17", 6}.Marshal()) // 10
	l.add("owner", "m/control", "migration.close", l.ends("m/a", "m/kept").Marshal())              // 11
	l.entries[6].Disclosed = false
	return l
}

// auditAll is an auditor who brings the keys of both principals.
func auditAll(t *testing.T, l *fakeLog) AuditConfig {
	t.Helper()
	var text []byte
	for _, principal := range []string{"owner", "helper"} {
		vkey, err := l.key(principal).VKey("TEST")
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, principal+" "+vkey+"\n"...)
	}
	s, err := ParseSubmitters(text)
	if err != nil {
		t.Fatal(err)
	}
	return AuditConfig{Origin: auditOrigin, Submitters: &s, LogKeys: []LogKey{{PurposeCheckpoint, "TEST+vkey"}}, Migrations: []string{"m"}}
}

func TestAuditOfWholeLog(t *testing.T) {
	l := wholeLog(t)
	failed, a := audited(t, auditAll(t, l), l.entries)
	if len(failed) > 0 {
		t.Errorf("an honest log fails %v", failed)
	}
	if ms, ok := a.PromiseMS(); ms != 60000 || !ok || a.Received() != 1011 {
		t.Errorf("PromiseMS = %d, %t, Received = %d, want 60000, true, 1011", ms, ok, a.Received())
	}
	// Every entry has been written as the format says.
	for _, x := range l.entries {
		if e, err := ParseEntry(x.Entry.Marshal()); err != nil || !bytes.Equal(e.Marshal(), x.Entry.Marshal()) {
			t.Errorf("entry %d: %v", x.Index, err)
		}
	}
}

// What a log or whoever hands it over could have done, and the check that says so.
func TestAuditOfTamperedLog(t *testing.T) {
	drop := func(indexes ...uint64) func(*fakeLog) {
		return func(l *fakeLog) {
			l.entries = slices.DeleteFunc(l.entries, func(x Exhibit) bool { return slices.Contains(indexes, x.Index) })
		}
	}
	payload := func(index int, text string) func(*fakeLog) {
		return func(l *fakeLog) { l.entries[index].Payload = []byte(text) }
	}
	hide := func(index int) func(*fakeLog) {
		return func(l *fakeLog) { l.entries[index].Payload, l.entries[index].Disclosed = nil, false }
	}
	entry := func(index int, change func(*Entry)) func(*fakeLog) {
		return func(l *fakeLog) { change(&l.entries[index].Entry) }
	}
	for name, c := range map[string]struct {
		do   func(*fakeLog)
		want string // "" if it must not fail
	}{
		"no entries":                 {func(l *fakeLog) { l.entries = nil }, "complete.entries"},
		"event dropped":              {drop(6), "complete.stream"},
		"end of a stream dropped":    {drop(7), "complete.migration"},
		"whole stream dropped":       {drop(5, 6, 7), "complete.migration"},
		"kept stream dropped":        {drop(8, 9), "complete.migration"},
		"opening dropped":            {drop(3), "complete.stream"},
		"migration.open dropped":     {drop(4), "complete.migration"},
		"migration.close dropped":    {drop(11), "complete.migration"},
		"migration dropped":          {drop(3, 4, 5, 6, 7, 8, 9, 10, 11), "complete.migration"},
		"first entry dropped":        {drop(0), ""},
		"log's own event dropped":    {drop(10), ""},
		"key registration dropped":   {drop(2), ""},
		"entry 0 in another stream":  {entry(0, func(e *Entry) { e.Event.Stream = "log/other" }), "integrity.order"},
		"erasure of what stays":      {payload(10, string(PayloadErased{"a", 4}.Marshal())), "integrity.payload"},
		"erasure of no payload":      {payload(10, string(PayloadErased{"a", 7}.Marshal())), "integrity.payload"},
		"log.open without keys":      {payload(0, string(LogOpen{Origin: auditOrigin}.Marshal())), "authentic.log"},
		"log.open again":             {entry(3, func(e *Entry) { e.Event.Kind = "log.open" }), "integrity.order"},
		"received goes back":         {entry(9, func(e *Entry) { e.Log.Received = 1 }), "integrity.order"},
		"from the future":            {entry(9, func(e *Entry) { e.Log.SkewMS = -clockAheadMaxMS - 1 }), "integrity.order"},
		"as_of is itself":            {entry(9, func(e *Entry) { e.Log.AsOf = 9 }), "integrity.as-of"},
		"as_of is older":             {entry(9, func(e *Entry) { e.Log.AsOf = 1 }), "integrity.as-of"},
		"as_of is no control entry":  {entry(9, func(e *Entry) { e.Log.AsOf = 8 }), "integrity.as-of"},
		"as_of of the first":         {entry(0, func(e *Entry) { e.Log.AsOf = 1 }), "integrity.as-of"},
		"made for another log":       {entry(9, func(e *Entry) { e.Event.Log = "other" }), "integrity.chain"},
		"prev of another event":      {entry(9, func(e *Entry) { e.Event.Prev = Hash{1} }), "integrity.chain"},
		"event repeated":             {func(l *fakeLog) { l.entries[9].Entry.Event = l.entries[8].Entry.Event }, "integrity.chain"},
		"opened for another":         {entry(8, func(e *Entry) { e.Log.By = "helper" }), "integrity.chain"},
		"log.open withheld":          {hide(0), ""},
		"log.open malformed":         {payload(0, "{}"), "authentic.log"},
		"log.open of another log":    {payload(0, string(LogOpen{Origin: "other"}.Marshal())), "authentic.log"},
		"log.open with another key":  {payload(0, string(LogOpen{Keys: []LogKey{{PurposeCheckpoint, "other"}}, Origin: auditOrigin}.Marshal())), "authentic.log"},
		"key entry withheld":         {hide(1), ""},
		"key entry malformed":        {payload(1, "{}"), "authentic.keys"},
		"stream.open withheld":       {hide(5), "complete.migration"},
		"stream.open malformed":      {payload(5, "{}"), "integrity.chain"},
		"migration.open withheld":    {hide(4), "complete.migration"},
		"migration.open malformed":   {payload(4, "{}"), "integrity.migration"},
		"migration.open of another":  {payload(4, string(MigrationOpen{[]StreamOwner{{"helper", "other/a"}}}.Marshal())), "integrity.migration"},
		"migration.close withheld":   {hide(11), "complete.migration"},
		"migration.close malformed":  {payload(11, "{}"), "integrity.migration"},
		"migration.close says less":  {payload(11, string(MigrationClose{}.Marshal())), "complete.migration"},
		"erasure malformed":          {payload(10, "{}"), "integrity.payload"},
		"erasure of what comes":      {payload(10, string(PayloadErased{"a", 10}.Marshal())), "integrity.payload"},
		"token malformed":            {func(l *fakeLog) { l.add(auditOrigin, "log/access", "access.token.created", []byte("{}")) }, "integrity.payload"},
		"token's end malformed":      {func(l *fakeLog) { l.add(auditOrigin, "log/access", "access.token.revoked", []byte("{}")) }, "integrity.payload"},
		"refusal malformed":          {func(l *fakeLog) { l.add(auditOrigin, "log/refusals", "log.refused", []byte("{}")) }, "integrity.payload"},
		"payload withheld":           {func(l *fakeLog) { l.entries[4].Disclosed, l.entries[10].Payload = false, nil }, ""},
		"signature removed":          {entry(7, func(e *Entry) { e.Sig = nil }), "authentic.signature"},
		"signature changed":          {entry(6, func(e *Entry) { s := *e.Sig; s.Sig[0] ^= 1; e.Sig = &s }), "authentic.signature"},
		"log adds to signed stream":  {entry(6, func(e *Entry) { e.Sig, e.Log.Attested = nil, AttestedByLog }), "authentic.signature"},
		"log denies what it kept":    {entry(9, func(e *Entry) { e.Log.Attested = "" }), "authentic.signature"},
		"kept event with signature":  {func(l *fakeLog) { l.entries[9].Entry.Sig = l.entries[7].Entry.Sig }, "authentic.signature"},
		"attested, mode not at hand": {func(l *fakeLog) { hide(8)(l) }, "complete.migration"},
	} {
		l := wholeLog(t)
		config := auditAll(t, l)
		c.do(l)
		failed, _ := audited(t, config, l.entries)
		if c.want == "" && len(failed) > 0 || c.want != "" && !slices.Contains(failed, c.want) {
			t.Errorf("%s: %v fails, want %q", name, failed, c.want)
		}
	}
}

// Keys that the auditor did not bring, or that were revoked, sign nothing.
func TestAuditOfKeys(t *testing.T) {
	l := wholeLog(t)
	config := auditAll(t, l)
	config.Submitters = &Submitters{}
	if failed, _ := audited(t, config, l.entries); !slices.Contains(failed, "authentic.keys") {
		t.Errorf("keys that the auditor did not bring: %v fails", failed)
	}
	config.Submitters, config.LogKeys = nil, nil
	if failed, _ := audited(t, config, l.entries); len(failed) > 0 {
		t.Errorf("without any key of the auditor's: %v fails, want nothing: it is not checked", failed)
	}
	since := uint64(3)
	revoked := newFakeLog(t)
	revoked.entries, revoked.heads, revoked.control = l.entries[:10], l.heads, 2
	revoked.add(auditOrigin, ServerStream("keys"), "key.revoked", KeyRevoked{&since, l.key("helper").ID()}.Marshal())
	if failed, _ := audited(t, config, revoked.entries); len(failed) != 1 || failed[0] != "complete.migration" {
		t.Errorf("key revoked after its last use: %v fails, want only that the migration is not closed", failed)
	}
	f := NewFindings()
	a := NewAudit(AuditConfig{Origin: auditOrigin, Has: func(uint64) bool { return true }}, f)
	for _, x := range revoked.entries {
		if err := a.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	a.Finish()
	for _, c := range f.All() {
		if c.ID == "authentic.revocation" && c.Status != NotChecked {
			t.Errorf("tails of a compromised key: %v, want %v", c, NotChecked)
		}
	}
	late := newFakeLog(t)
	late.add(auditOrigin, "log/open", "log.open", LogOpen{Origin: auditOrigin}.Marshal())
	late.open("owner", "m/control")
	if failed, _ := audited(t, config, late.entries); !slices.Contains(failed, "authentic.keys") {
		t.Errorf("tail by a key that was never registered: %v fails", failed)
	}
}

// Customers' own streams say nothing of where they end.
func TestAuditOfStreamsWithoutMigration(t *testing.T) {
	l := newFakeLog(t)
	l.add(auditOrigin, "log/open", "log.open", LogOpen{Origin: auditOrigin}.Marshal())
	proof := Sign(l.keys["owner"], PossessionText(auditOrigin, "owner", l.key("owner")))
	l.add(auditOrigin, ServerStream("keys"), "key.registered", KeyRegistered{Key: l.key("owner"), Principal: "owner", Proof: &proof.Sig}.Marshal())
	l.open("owner", "own/s").add("owner", "own/s", "x.acme.thing", nil)
	config := auditAll(t, l)
	config.Migrations, config.LogKeys = nil, nil
	if failed, _ := audited(t, config, l.entries); len(failed) > 0 {
		t.Errorf("a customer's own stream: %v fails", failed)
	}
	config.Migrations = []string{"own"}
	if failed, _ := audited(t, config, l.entries); !slices.Contains(failed, "complete.migration") {
		t.Errorf("asked for as a migration: %v fails", failed)
	}
	// A refusal without a place takes nothing; one that does not follow the stream is the log's lie.
	l.add(auditOrigin, ServerStream("refusals"), "log.refused", nil, Object{"own/s", "stream"})
	if failed, _ := audited(t, AuditConfig{Origin: auditOrigin}, l.entries); len(failed) > 0 {
		t.Errorf("a refusal without a place: %v fails", failed)
	}
	l.add(auditOrigin, ServerStream("refusals"), "log.refused", nil, Object{"own/s", "stream"}, Object{"9", "seq"}, Object{Hash{}.String(), "event"})
	l.entries[len(l.entries)-1].Entry.Event.Objects[2].Name = strings.Repeat("0f", 32)
	config.Migrations = nil
	if failed, _ := audited(t, config, l.entries); !slices.Contains(failed, "integrity.chain") {
		t.Errorf("refusal of a later seq: %v fails", failed)
	}
}

// A log that does not like an acknowledged event says that it had refused it. All
// that its owner signed afterwards still fits: no PASS may hide that.
func TestEventReplacedByARefusal(t *testing.T) {
	for stream, kind := range map[string]string{"m/a": "migration.load", "own/s": "x.acme.row"} {
		l := startedLog(t).open("helper", "m/a")
		if stream != "m/a" {
			l.open("helper", stream)
		}
		l.add("helper", stream, kind, nil) // with a tail
		s := l.heads[stream]
		gone := Event{Actor: "helper", Kind: kind, Log: auditOrigin, Migration: s.Migration, Prev: s.Hash, Seq: 3, Stream: stream}.Hash()
		l.add(auditOrigin, ServerStream("refusals"), "log.refused", nil,
			Object{stream, "stream"}, Object{"3", "seq"}, Object{hex.EncodeToString(gone[:]), "event"})
		s.Refuse(3, gone, uint64(len(l.entries)-1))
		l.add("helper", stream, kind, nil) // its tail is over seq 4 alone
		l.add("owner", "m/control", "migration.close", l.ends("m/a").Marshal())
		checks, _ := checked(t, auditAll(t, l), l.entries)
		for id, c := range checks {
			if c.Status == Fail {
				t.Errorf("%s: %s fails: %v", stream, id, c.Reasons)
			}
		}
		wantMigration := Pass // if the refusal was of a stream outside it
		if stream == "m/a" {
			wantMigration = NotChecked
		}
		for id, want := range map[string]Status{"authentic.signature": Pass, "complete.stream": NotChecked, "complete.migration": wantMigration} {
			if c := checks[id]; c.Status != want || want == NotChecked && !strings.Contains(strings.Join(c.Reasons, "\n"), "refused: the log alone says so") {
				t.Errorf("%s: %+v, want %v", stream, c, want)
			}
		}
		if c := checks["complete.stream"]; !strings.Contains(c.Reasons[0], `seq 3 of stream "`+stream+`"`) {
			t.Errorf("%s: %v does not name the refused event", stream, c.Reasons)
		}
	}
}

// What a stream without a gap shows is certain, whatever else could not be read.
func TestCertainFailures(t *testing.T) {
	for name, c := range map[string]struct {
		do      func(l *fakeLog)
		id      string
		certain bool
	}{
		"false tail":           {func(l *fakeLog) { l.entries[7].Entry.Sig = l.entries[6].Entry.Sig }, "authentic.signature", true},
		"another log":          {func(l *fakeLog) { l.entries[9].Entry.Event.Log = "other" }, "integrity.chain", true},
		"another prev":         {func(l *fakeLog) { l.entries[9].Entry.Event.Prev = Hash{1} }, "integrity.chain", true},
		"attested but signed":  {func(l *fakeLog) { l.entries[6].Entry.Log.Attested = AttestedByLog }, "authentic.signature", true},
		"tail at the end gone": {func(l *fakeLog) { l.entries[7].Entry.Sig = nil }, "authentic.signature", false},
		"false tail in the gap": {func(l *fakeLog) {
			l.add("owner", "x/s", "stream.open", StreamOpen{[]PublicKey{l.key("owner")}, ModeSigned, "owner"}.Marshal())
			for range 4 {
				l.add("owner", "x/s", "x.note", nil)
			}
			l.entries[16].Entry.Sig = l.entries[15].Entry.Sig
			l.entries = slices.Delete(l.entries, 13, 14)
		}, "authentic.signature", false},
	} {
		l := wholeLog(t)
		config := auditAll(t, l)
		c.do(l)
		checks, _ := checked(t, config, l.entries)
		if got := checks[c.id]; got.Status != Fail || got.Certain != c.certain {
			t.Errorf("%s: %s is %+v, want a failure, certain: %t", name, c.id, got, c.certain)
		}
	}
}

// An audit remembers so much and no more.
func TestAuditLimit(t *testing.T) {
	a := NewAudit(AuditConfig{Origin: auditOrigin, Has: func(uint64) bool { return false }}, NewFindings())
	a.listed = auditStreamsMax
	x := Exhibit{Entry: Entry{Event: Event{Log: auditOrigin, Stream: "m/s", Migration: "m"}}}
	if err := a.Add(x); !errors.Is(err, ErrLimit) {
		t.Errorf("Add = %v, want %v", err, ErrLimit)
	}
	a.entries, a.last = 1, 5
	defer func() {
		if recover() == nil {
			t.Error("Add out of order did not panic")
		}
	}()
	_ = a.Add(Exhibit{Index: 5})
}
