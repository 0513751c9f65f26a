package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// smallLog is a log with one whole migration: 9 entries.
func smallLog() (*fakeLog, *submitter) {
	l := newLog("log.example/crm")
	svc := l.register("svc:crm")
	l.migrate(svc, "crm")
	return l, svc
}

// An honest log, an auditor with keys of their own, a quorum of witnesses:
// everything that can pass does.
func TestHonestLogPasses(t *testing.T) {
	l, _ := smallLog()
	newScene(t, l, "g", l.export()).want(exitOK,
		"Integrity     PASS", "Authenticity  PASS", "Completeness  PASS", "Time          PASS", "Semantics     NOT CHECKED",
		"1 migrations with 7 entries", "by 2023-11-14T22:20:00Z", "quorum \"g\" with 3 cosignatures", "7 events are covered", "(exit 0)")
}

func TestWithoutQuorumThereIsOnlyTheLogsClock(t *testing.T) {
	l, _ := smallLog()
	newScene(t, l, "none", l.export()).want(exitOK, "Time          NOT CHECKED", "only the log's own clock")
}

// Without a submitters file nothing about signatures is ever a pass.
func TestWithoutSubmittersTheOperatorAttests(t *testing.T) {
	l, _ := smallLog()
	s := newScene(t, l, "g", l.export())
	code, text := runAll("verify", "-policy", s.policy, s.out)
	check(t, code, text, exitOK, "Authenticity  NOT CHECKED", "attested by the log operator", "authentic.keys")
	if strings.Contains(text, "PASS        authentic.signature") || strings.Contains(text, "PASS        authentic.keys") {
		t.Errorf("a pass on the log's word:\n%s", text)
	}
}

// Without a policy anybody can make a directory that agrees with itself.
func TestWithoutPolicyItIsSelfConsistent(t *testing.T) {
	l, _ := smallLog()
	s := newScene(t, l, "g", l.export())
	code, text := runAll("verify", s.out)
	check(t, code, text, exitNotEstablished, "self-consistent", "no policy", "Integrity     NOT CHECKED", "known from the log alone")
	if err := os.WriteFile(filepath.Join(s.out, "checkpoint"), []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, text = runAll("verify", s.out)
	check(t, code, text, exitFailed, "no empty line")
}

// A bad story is a log or an operator that cheats, and the check that finds it.
type badStory struct {
	name string
	make func() (*fakeLog, files)
	want []string
}

func tellBad(t *testing.T, stories []badStory) {
	t.Helper()
	for _, story := range stories {
		t.Run(story.name, func(t *testing.T) {
			t.Parallel()
			l, f := story.make()
			newScene(t, l, "g", f).want(exitFailed, story.want...)
		})
	}
}

// ended is a log after do, with a whole migration around it.
func ended(do func(l *fakeLog, svc *submitter)) func() (*fakeLog, files) {
	return func() (*fakeLog, files) {
		l := newLog("log.example/crm")
		svc := l.register("svc:crm")
		l.migrateOpen(svc, "crm")
		do(l, svc)
		l.tamper = nil
		l.migrateClose(svc, "crm")
		return l, l.export()
	}
}

// taken is an honest log's export after do: an exporter that cheats.
func taken(do func(l *fakeLog, f files)) func() (*fakeLog, files) {
	return func() (*fakeLog, files) {
		l, _ := smallLog()
		f := l.export()
		do(l, f)
		return l, f
	}
}

// Entries: 0 log.open, 1 key, 2 control open, 3 migration.open, 4 data open,
// 5 extract, 6 load, 7 data close, 8 migration.close.
func TestOmissionsAreFound(t *testing.T) { tellBad(t, omissions()) }

func omissions() []badStory {
	return []badStory{
		{
			"migration.close dropped", taken(func(_ *fakeLog, f files) { f.remove(8) }),
			[]string{"Integrity     PASS", "Completeness  FAIL", "INCOMPLETE", "migration.close is missing"},
		},
		{
			"migration.open dropped", taken(func(_ *fakeLog, f files) { f.remove(3) }),
			[]string{"migration.open is missing", `"crm/control": seq 2 to 2 are missing`},
		},
		{
			"event in the middle dropped", taken(func(_ *fakeLog, f files) { f.remove(5) }),
			[]string{`stream "crm/data": seq 2 to 2 are missing`},
		},
		{
			"last event of a stream dropped", taken(func(_ *fakeLog, f files) { f.remove(7) }),
			[]string{`stream "crm/data" ends at seq 3, migration.close says 4`},
		},
		{
			"first event of a stream dropped", taken(func(_ *fakeLog, f files) { f.remove(4) }),
			[]string{`stream "crm/data": seq 1 to 1 are missing`},
		},
		{"whole stream dropped", taken(func(_ *fakeLog, f files) {
			for i := uint64(4); i < 8; i++ {
				f.remove(i)
			}
		}), []string{`stream "crm/data", 4 events, is missing`}},
		{
			"control stream dropped", taken(func(_ *fakeLog, f files) { f.remove(2); f.remove(3); f.remove(8) }),
			[]string{"migration.open is missing", "migration.close is missing"},
		},
		{"everything dropped", taken(func(_ *fakeLog, f files) {
			for i := range uint64(9) {
				f.remove(i)
			}
		}), []string{"there is no entry"}},
		{"payload of migration.close withheld", taken(func(_ *fakeLog, f files) {
			delete(f, "payloads/000000000008.payload")
			delete(f, "payloads/000000000008.salt")
		}), []string{"the payload of migration.close is missing", "1 payloads are withheld"}},
		{"payload of migration.open withheld", taken(func(_ *fakeLog, f files) {
			delete(f, "payloads/000000000003.payload")
			delete(f, "payloads/000000000003.salt")
		}), []string{"the payload of migration.open is missing"}},
		{"payload of stream.open withheld", taken(func(_ *fakeLog, f files) {
			delete(f, "payloads/000000000004.payload")
			delete(f, "payloads/000000000004.salt")
		}), []string{"the payload of stream.open of crm/data is missing"}},
		{"unlisted stream", ended(func(l *fakeLog, svc *submitter) {
			l.send(svc, "crm/extra", openStream(log.ModeSigned, svc.name, svc.public()))
		}), []string{`stream "crm/extra" is not in migration.close`}},
		{"announced stream never opened", func() (*fakeLog, files) {
			l := newLog("log.example/crm")
			svc := l.register("svc:crm")
			l.send(svc, "crm/control", openStream(log.ModeSigned, svc.name, svc.public()),
				draft{kind: "migration.open", payload: log.MigrationOpen{Streams: []log.StreamOwner{{Owner: svc.name, Stream: "crm/data"}}}.Marshal()})
			l.send(svc, "crm/control", draft{kind: "migration.close", payload: log.MigrationClose{}.Marshal()})
			return l, l.export()
		}, []string{"announced by migration.open"}},
		{"events without a migration", func() (*fakeLog, files) {
			l := newLog("log.example/crm")
			svc := l.register("svc:crm")
			l.send(svc, "crm/a", openStream(log.ModeSigned, svc.name, svc.public()), draft{kind: "audit.note"})
			return l, l.export()
		}, []string{"migration.open is missing"}},
		{"checkpoint dropped", taken(func(_ *fakeLog, f files) { delete(f, "checkpoint") }), []string{"no file named checkpoint"}},
		{"event dropped, proof kept", taken(func(_ *fakeLog, f files) { delete(f, "events/000000000005.json") }), []string{"the entry was taken away"}},
		{"proof dropped", taken(func(_ *fakeLog, f files) { delete(f, "proofs/000000000005.tlog-proof") }), []string{"nothing shows that the entry is in the log"}},
		{"salt dropped", taken(func(_ *fakeLog, f files) { delete(f, "payloads/000000000006.salt") }), []string{"without its salt"}},
		{"payload dropped, salt kept", taken(func(_ *fakeLog, f files) { delete(f, "payloads/000000000006.payload") }), []string{"payload was taken away"}},
	}
}

// An auditor who knows which migration it is about says so: then even an
// export that says nothing of it fails.
func TestMigrationAskedFor(t *testing.T) {
	l, svc := smallLog()
	l.send(svc, "notes/a", openStream(log.ModeSigned, svc.name, svc.public()), draft{kind: "x.note"})
	s := newScene(t, l, "g", l.export())
	code, text := s.verify("-migration", "crm")
	check(t, code, text, exitOK, "complete.other", `2 entries of "notes"`, "Completeness  NOT CHECKED", "NOT CHECKED: Completeness, Semantics (exit 0)")
	code, text = s.verify("-migration", "erp")
	check(t, code, text, exitFailed, `migration "erp": no entry of it is at hand`)
	code, text = s.verify("-migration", "notes")
	check(t, code, text, exitFailed, `migration "notes": migration.open is missing`)
}

// A migration whose control stream was taken away looks like streams of
// customers' own kinds: nothing shows that they are whole.
func TestControlStreamTakenAway(t *testing.T) {
	l, svc := smallLog()
	l.send(svc, "erp/control", openStream(log.ModeSigned, svc.name, svc.public()), draft{kind: "migration.open", payload: log.MigrationOpen{}.Marshal()}) // 9, 10
	l.send(svc, "erp/rows", openStream(log.ModeSigned, svc.name, svc.public()), draft{kind: "x.row"})                                                     // 11, 12
	f := l.export()
	newScene(t, l, "g", f).want(exitFailed, `migration "erp": migration.close is missing`)
	f.remove(9)
	f.remove(10)
	newScene(t, l, "g", f).want(exitOK, "Completeness  NOT CHECKED", `2 entries of "erp": never opened as a migration`)
}

// Kinds that FORMAT.md does not describe are counted: what they say was not looked at.
func TestKindsThatAreNotInterpreted(t *testing.T) {
	l, svc := smallLog()
	s := newScene(t, l, "g", l.export())
	if _, text := s.verify(); strings.Contains(text, "semantics.kinds") {
		t.Errorf("kinds of the format itself are said to be unknown:\n%s", text)
	}
	l.send(svc, "x/a", openStream(log.ModeSigned, svc.name, svc.public()), draft{kind: "x.note"}, draft{kind: "x.note"})
	l.own("rules", "rules.activated", nil)
	newScene(t, l, "g", l.export()).want(exitOK, "NOT CHECKED semantics.kinds",
		"1 entries of kind rules.activated", "2 entries of kind x.note: only their structure was checked")

	k := kinds{counts: map[string]uint64{}}
	for i := range kindsMax + 2 {
		k.add("x.k" + strconv.Itoa(i))
	}
	found := log.NewFindings()
	k.finish(found)
	if c := found.All()[0]; len(k.counts) != kindsMax || c.Count != kindsMax+1 || k.others != 2 {
		t.Errorf("%d kinds counted, %d others, %d lines; want %d, 2, %d", len(k.counts), k.others, c.Count, kindsMax, kindsMax+1)
	}
}

func TestForgeriesAreFound(t *testing.T) { tellBad(t, forgeries()) }

func forgeries() []badStory {
	event := func(do func(e *log.Entry)) func() (*fakeLog, files) {
		return ended(func(l *fakeLog, svc *submitter) {
			l.tamper = do
			l.send(svc, "crm/data", draft{kind: "migration.transform", payload: []byte(`{}`)})
		})
	}
	return []badStory{
		{"replayed from another log", event(func(e *log.Entry) { e.Event.Log = "other.example" }), []string{"was made for log \"other.example\": replayed"}},
		{"chain broken", event(func(e *log.Entry) { e.Event.Prev[0] ^= 1 }), []string{"integrity.chain", "prev of seq 4"}},
		{"seq taken twice", event(func(e *log.Entry) { e.Event.Seq = 3 }), []string{"integrity.chain", "is at seq 3, the event has seq 3"}},
		{"appended by somebody else", event(func(e *log.Entry) { e.Log.By = "svc:other" }), []string{"belongs to another principal"}},
		{"no tail signature", event(func(e *log.Entry) { e.Sig.Sig[0] ^= 1 }), []string{"authentic.signature", "signature does not verify"}},
		{"key of nobody", event(func(e *log.Entry) { e.Sig.Key[0] ^= 1 }), []string{"is not one of stream"}},
		{"made by the log in a signed stream", event(func(e *log.Entry) { e.Sig, e.Log.Attested = nil, "log" }), []string{"the log itself added to stream"}},
		{"received goes back", event(func(e *log.Entry) { e.Log.Received -= 1e6; e.Event.Time -= 1e6 }), []string{"received goes back"}},
		{"from the future", event(func(e *log.Entry) { e.Event.Time += 400_000; e.Log.SkewMS -= 400_000 }), []string{"its time is 399995 ms after received"}},
		{"as_of too old", event(func(e *log.Entry) { e.Log.AsOf = 0 }), []string{"control entry 1 came between"}},
		{"as_of of no control entry", event(func(e *log.Entry) { e.Log.AsOf = 5 }), []string{"which is no control entry"}},
		{"as_of after the entry", event(func(e *log.Entry) { e.Log.AsOf = 7 }), []string{"not before it"}},
		{"second log.open", ended(func(l *fakeLog, _ *submitter) { l.own("open", "log.open", l.statement().Marshal()) }), []string{"entry 0, and no other, is log.open"}},
		{"log.open with other keys", func() (*fakeLog, files) {
			l := newLog("log.example/crm")
			_, l.vkey = newSigner(l.origin)
			stated := l.statement()
			l2 := newLog("log.example/crm")
			l2.records, l2.hashes, l2.streams, l2.receipts, l2.control = nil, nil, map[string]*log.Stream{}, map[uint64][]byte{}, 0
			l2.own("open", "log.open", stated.Marshal())
			l2.migrate(l2.register("svc:crm"), "crm")
			return l2, l2.export()
		}, []string{"log.open names another checkpoint key than the policy"}},
		{"event after stream.close", func() (*fakeLog, files) {
			l, svc := smallLog()
			l.send(svc, "crm/data", draft{kind: "migration.load"})
			return l, l.export()
		}, []string{"stream is closed", "event does not fit its migration"}},
		{"stream opened for somebody else", ended(func(l *fakeLog, svc *submitter) {
			l.send(svc, "crm/x", openStream(log.ModeSigned, "svc:other", svc.public()))
		}), []string{`is opened by "svc:crm" for "svc:other"`}},
		{"tail missing at the end of a stream", func() (*fakeLog, files) {
			l, svc := smallLog()
			l.send(svc, "x/a", openStream(log.ModeSigned, svc.name, svc.public()))
			l.unsigned(svc, "x/a", draft{kind: "x.note"}, draft{kind: "x.note"})
			return l, l.export()
		}, []string{`stream "x/a": no tail signature covers seq 2 to 3`}},
		{"stream of another's key", ended(func(l *fakeLog, svc *submitter) {
			other := &submitter{svc.name, newKey()}
			l.registerKey(other)
			l.send(other, "crm/x", openStream(log.ModeSigned, svc.name, other.public()))
		}), []string{"is not one that the submitters file lists"}},
		{"stream of a key that is not registered", ended(func(l *fakeLog, svc *submitter) {
			other := &submitter{svc.name, newKey()}
			l.send(other, "crm/x", openStream(log.ModeSigned, svc.name, other.public()))
		}), []string{"authentic.keys", "is not registered"}},
		{"log-kept stream with a signature", ended(func(l *fakeLog, svc *submitter) {
			l.kept("app:curl", "notes/a", openStream(log.ModeLogKept, "app:curl"))
			l.send(svc, "notes/a", draft{kind: "x.note"})
		}), []string{"is kept by the log, but the entry does not say so"}},
		{"key registered without possession", ended(func(l *fakeLog, svc *submitter) {
			var proof [ed25519.SignatureSize]byte
			other := &submitter{"svc:other", newKey()}
			l.own("keys", "key.registered", log.KeyRegistered{Key: other.public(), Principal: other.name, Proof: &proof}.Marshal())
		}), []string{"proof of possession"}},
		{"migration.open lists a stream of another", func() (*fakeLog, files) {
			l := newLog("log.example/crm")
			svc := l.register("svc:crm")
			l.send(svc, "crm/control", openStream(log.ModeSigned, svc.name, svc.public()),
				draft{kind: "migration.open", payload: log.MigrationOpen{Streams: []log.StreamOwner{{Owner: "a", Stream: "erp/data"}}}.Marshal()})
			return l, l.export()
		}, []string{`migration.open of "crm" lists stream "erp/data"`}},
		{"erasure of a later entry", ended(func(l *fakeLog, _ *submitter) {
			l.own("payloads", "payload.erased", log.PayloadErased{Authority: "a", Index: 99}.Marshal())
		}), []string{"payload.erased of entry 99"}},
	}
}

// The log takes structural payloads apart before it takes the event. One that
// does not parse cannot be in an honest log.
func TestMalformedStructuralPayloads(t *testing.T) { tellBad(t, malformed()) }

func malformed() []badStory {
	bad := []byte(`{"v":1}`)
	return []badStory{
		{"log.open", func() (*fakeLog, files) {
			l := newLog("log.example/crm")
			l.records, l.hashes, l.streams, l.receipts = nil, nil, map[string]*log.Stream{}, map[uint64][]byte{}
			l.own("open", "log.open", bad)
			return l, l.export()
		}, []string{"authentic.log", "malformed log.open"}},
		{"stream.open", ended(func(l *fakeLog, svc *submitter) {
			l.send(svc, "crm/x", draft{kind: "stream.open", payload: bad})
		}), []string{"malformed stream.open"}},
		{"key.registered", ended(func(l *fakeLog, _ *submitter) { l.own("keys", "key.registered", bad) }), []string{"malformed key.registered"}},
		{"payload.erased", ended(func(l *fakeLog, _ *submitter) { l.own("payloads", "payload.erased", bad) }), []string{"malformed payload.erased"}},
		{"migration.open", func() (*fakeLog, files) {
			l := newLog("log.example/crm")
			svc := l.register("svc:crm")
			l.send(svc, "crm/control", openStream(log.ModeSigned, svc.name, svc.public()), draft{kind: "migration.open", payload: bad})
			return l, l.export()
		}, []string{"malformed migration.open", "the payload of migration.open is missing or unreadable"}},
		{"migration.close", func() (*fakeLog, files) {
			l := newLog("log.example/crm")
			svc := l.register("svc:crm")
			l.migrateOpen(svc, "crm")
			l.send(svc, "crm/control", draft{kind: "migration.close", payload: bad})
			return l, l.export()
		}, []string{"malformed migration.close", "the payload of migration.close is missing or unreadable"}},
	}
}

// Revoked means from that entry on; compromised casts doubt on what came before.
func TestRevokedKeys(t *testing.T) {
	revoke := func(l *fakeLog, who *submitter, since *uint64) {
		l.own("keys", "key.revoked", log.KeyRevoked{CompromisedSince: since, Key: who.public().ID()}.Marshal())
	}
	l, svc := smallLog()
	revoke(l, svc, nil)
	newScene(t, l, "g", l.export()).want(exitOK, "no revoked key was used", "Authenticity  PASS")

	l, svc = smallLog()
	since := uint64(5)
	revoke(l, svc, &since)
	newScene(t, l, "g", l.export()).want(exitOK, "3 tail signatures of key", "are doubtful: it is compromised since entry 5", "NOT CHECKED authentic.revocation",
		"Authenticity  NOT CHECKED", "NOT CHECKED: Authenticity, Semantics (exit 0)")

	l = newLog("log.example/crm")
	svc = l.register("svc:crm")
	l.migrateOpen(svc, "crm")
	revoke(l, svc, nil)
	l.migrateClose(svc, "crm")
	f := l.export()
	newScene(t, l, "g", f).want(exitFailed, "Authenticity  FAIL", "is revoked since entry 7")
	// Nobody who is not shown the revocation may take the signatures for good.
	f.remove(7)
	newScene(t, l, "g", f).want(exitOK, "control entry 7 is not at hand", "Authenticity  NOT CHECKED", "NOT CHECKED: Authenticity, Semantics (exit 0)")
}

// Without all control entries nobody can say that a key was not revoked.
func TestHistoryOfKeysMissing(t *testing.T) {
	l, _ := smallLog()
	f := l.export()
	f.remove(1)
	newScene(t, l, "g", f).want(exitOK, "whether a key was registered or revoked is not known: control entry 1 is not at hand", "Authenticity  NOT CHECKED")

	f = l.export()
	f.remove(0)
	f.remove(1)
	delete(f, "receipts/000000000000.receipt")
	newScene(t, l, "g", f).want(exitOK, "control entry 1 is not at hand", "not all of its 1 entries are at hand", "Authenticity  NOT CHECKED")

	f = l.export()
	for _, name := range []string{"0", "1"} {
		delete(f, "payloads/00000000000"+name+".payload")
		delete(f, "payloads/00000000000"+name+".salt")
	}
	newScene(t, l, "g", f).want(exitOK, "the payload of key entry 1 is not at hand", "the payload of log.open is not at hand", "Authenticity  NOT CHECKED")
}

// A key that another signs for, when the other is not at hand, is no fault.
func TestSuccessorOfAnUnseenKey(t *testing.T) {
	l, svc := smallLog()
	next := &submitter{svc.name, newKey()}
	previous := log.Sign(svc.key, log.SuccessionText(l.origin, svc.name, next.public()))
	l.own("keys", "key.registered", log.KeyRegistered{Key: next.public(), Previous: &previous, Principal: svc.name}.Marshal())
	newScene(t, l, "g", l.export()).want(exitOK)
	f := l.export()
	f.remove(1)
	newScene(t, l, "g", f).want(exitOK, "is not known", "complete.log", "seq 1 to 1 are not at hand")
}

// Payloads of ordinary events may be withheld or erased; the report says which.
func TestPayloadsWithheldAndErased(t *testing.T) {
	l, svc := smallLog()
	l.send(svc, "x/a", openStream(log.ModeSigned, svc.name, svc.public()),
		draft{kind: "x.note", payload: []byte("secret"), withheld: true}, draft{kind: "x.note", payload: []byte("person"), withheld: true})
	l.own("payloads", "payload.erased", log.PayloadErased{Authority: "gdpr:art17", Index: 11}.Marshal())
	newScene(t, l, "g", l.export()).want(exitOK, "1 payloads are withheld", "1 erased (says the log), 1 withheld")
}

// Streams that the log keeps are counted, and never pass for signed.
func TestLogKeptStreams(t *testing.T) {
	l, _ := smallLog()
	l.kept("app:curl", "notes/a", openStream(log.ModeLogKept, "app:curl"), draft{kind: "x.note"})
	l.kept("app:curl", "notes/a", draft{kind: "x.note"})
	newScene(t, l, "g", l.export()).want(exitOK, "Authenticity  NOT CHECKED", "3 submitted events are attested by the log operator alone")

	// Without the payload of stream.open nobody knows what kind of stream it is.
	f := l.export()
	delete(f, "payloads/000000000009.payload")
	delete(f, "payloads/000000000009.salt")
	newScene(t, l, "g", f).want(exitOK, "3 submitted events are attested")
}

// Nothing signed at all: an authenticity that nobody can check.
func TestNothingSigned(t *testing.T) {
	l := newLog("log.example/crm")
	l.kept("app:curl", "notes/a", openStream(log.ModeLogKept, "app:curl"), draft{kind: "x.note"})
	s := newScene(t, l, "g", l.export())
	s.want(exitOK, "no event is covered by a signature", "Authenticity  NOT CHECKED", "no complete migration is at hand")
}

// After a gap nobody knows what the next tail covers. Nothing passes by that.
func TestSignaturesAfterAGap(t *testing.T) {
	l, svc := smallLog()
	l.send(svc, "x/a", openStream(log.ModeSigned, svc.name, svc.public())) // 9
	l.send(svc, "x/a", draft{kind: "x.note"}, draft{kind: "x.note"})       // 10, 11
	l.send(svc, "x/a", draft{kind: "x.note"})                              // 12
	f := l.export()
	f.remove(11)
	newScene(t, l, "g", f).want(exitFailed, "2 events: the chain from them to a tail that can be checked is not at hand", `"x/a": seq 3 to 3 are missing`)

	f = l.export() // a stream whose keys nobody knows
	delete(f, "payloads/000000000009.payload")
	delete(f, "payloads/000000000009.salt")
	newScene(t, l, "g", f).want(exitOK, "4 events: the chain from them", "Authenticity  NOT CHECKED")

	f.remove(12)
	f.remove(11)
	newScene(t, l, "g", f).want(exitOK, "2 events: the chain from them")
}

// A refusal by policy takes its seq: the chain goes on from the refused event.
func TestRefusedEventTakesItsSeq(t *testing.T) {
	refuse := func(seq, hash string) func() (*fakeLog, *submitter) {
		return func() (*fakeLog, *submitter) {
			l, svc := smallLog()
			l.send(svc, "x/a", openStream(log.ModeSigned, svc.name, svc.public()))
			l.unsigned(svc, "x/a", draft{kind: "x.note"})
			l.own("refusals", "log.refused", log.Refused{Count: 1, Reason: "policy", Route: "/v1/events"}.Marshal(),
				log.Object{Name: "x/a", Role: "stream"}, log.Object{Name: seq, Role: "seq"}, log.Object{Name: hash, Role: "event"})
			return l, svc
		}
	}
	hash := strings.Repeat("ab", 32)
	l, svc := refuse("3", hash)()
	var h log.Hash
	for i := range h {
		h[i] = 0xab
	}
	l.stream("x/a").Refuse(3, h, 0)
	l.send(svc, "x/a", draft{kind: "x.note"})
	newScene(t, l, "g", l.export()).want(exitOK, "9 events are covered", "1 events: the chain from them", `seq 3 of stream "x/a" was refused`)

	l, _ = refuse("7", hash)()
	newScene(t, l, "g", l.export()).want(exitFailed, `is at seq 2, and seq 7 was refused`)
	l, svc = refuse("three", hash)() // takes nothing
	l.send(svc, "x/a", draft{kind: "x.note"})
	newScene(t, l, "g", l.export()).want(exitOK)
}

// An operator can replace an acknowledged event by a refusal: what was sent
// before it has its tail, and what comes after has the right prev. Nothing fails,
// and so nothing may pass over it in silence.
func TestEventReplacedByARefusal(t *testing.T) {
	l := replaced()
	newScene(t, l, "g", l.export()).want(exitOK, "Integrity     PASS", "Authenticity  PASS", "Completeness  NOT CHECKED",
		`seq 3 of stream "crm/data" was refused: the log alone says so`, `migration "crm": 1 of its events were refused`,
		"NOT CHECKED: Completeness, Semantics (exit 0)")
}

// An auditor who has a part of a log judges keys by those that they brought.
func TestSuccessorAroundAGap(t *testing.T) {
	for gone, want := range map[uint64]string{
		1: "2 keys that signed are listed in the submitters file, or descend from one that is",
		9: "whether a key that the submitters file lists",
	} {
		l, f := rotated(gone)()
		newScene(t, l, "g", f).want(exitOK, want, "Authenticity  NOT CHECKED", "whether a key was registered or revoked is not known")
	}
}

// replaced is a whole migration, of which one event became a refusal.
func replaced() *fakeLog {
	l := newLog("log.example/crm")
	svc := l.register("svc:crm")
	control, data := "crm/control", "crm/data"
	l.send(svc, control, openStream(log.ModeSigned, svc.name, svc.public()),
		draft{kind: "migration.open", payload: log.MigrationOpen{Streams: []log.StreamOwner{{Owner: svc.name, Stream: data}}}.Marshal()})
	l.send(svc, data, openStream(log.ModeSigned, svc.name, svc.public()))
	l.send(svc, data, draft{kind: "migration.extract"})
	hash := log.Hash{3} // of the event that the operator does not like
	l.own("refusals", "log.refused", log.Refused{Count: 1, Reason: "policy", Route: "/v1/events"}.Marshal(),
		log.Object{Name: data, Role: "stream"}, log.Object{Name: "3", Role: "seq"}, log.Object{Name: hex.EncodeToString(hash[:]), Role: "event"})
	l.stream(data).Refuse(3, hash, uint64(len(l.records)-1))
	l.migrateClose(svc, "crm")
	return l
}

// The log's clock may not run ahead of the witnesses'.
func TestLogsClockAheadOfWitnesses(t *testing.T) {
	l, _ := smallLog()
	l.cosign = l.now/1000 - 3600
	newScene(t, l, "g", l.export()).want(exitFailed, "Time          FAIL", "after the witnesses had seen it")
}

// A policy that does not know the signer is one thing. A quorum that is not
// there is another: witnesses that are down are no tampering.
func TestPolicyNotMet(t *testing.T) {
	l, _ := smallLog()
	other := newLog(l.origin)
	s := newScene(t, l, "g", l.export())
	s.policy = s.file("policy.txt", other.policy("none"))
	s.want(exitFailed, "Integrity     FAIL", "Completeness  NOT CHECKED", "no verifiable signatures")

	l.witnesses = l.witnesses[:1]
	f := l.export()
	l.witnesses = append(l.witnesses, newWitness("w.example/2"), newWitness("w.example/3"))
	s = newScene(t, l, "g", f)
	s.want(exitNotEstablished, "quorum of cosignatures is not met", "has 1 cosignatures of the policy's 3", "Integrity     NOT CHECKED", "Completeness  PASS", "Time          NOT CHECKED")
	if pin := s.audit(exitNotEstablished); pin != "" {
		t.Errorf("a checkpoint without its quorum was pinned: %q", pin)
	}
	newScene(t, l, "w1", f).want(exitOK, "1 cosignatures")
	f.remove(5)
	newScene(t, l, "g", f).want(exitFailed, "quorum of cosignatures is not met", "seq 2 to 2 are missing")
}

// A witness's time is a time: one that makes arithmetic wrap is refused, and
// the latest that is not still makes a report.
func TestCosignaturesOfTheFarFuture(t *testing.T) {
	const latest = (1<<53 - 1) / 1000
	l, _ := smallLog()
	l.cosign = latest
	code, text := newScene(t, l, "g", l.export()).verify("-json")
	check(t, code, text, exitOK, `"time":9007199254740}`)
	for _, seconds := range []uint64{latest + 1, 1 << 53, 1<<63 - 1} {
		l.cosign = seconds
		code, text = newScene(t, l, "g", l.export()).verify("-json")
		check(t, code, text, exitFailed, `"exit":1`, "invalid signature for key w.example/1")
	}
}

// Nor can a payload that the audit has to understand.
func TestPayloadOfALaterVersion(t *testing.T) {
	l, _ := smallLog()
	l.own("payloads", "payload.erased", []byte(`{"authority":"a","index":3,"v":2}`))
	newScene(t, l, "g", l.export()).want(exitVersion, "Integrity     NOT CHECKED", "get a newer verifier")
}

// An entry of a later version, really in the log, cannot be judged.
func TestUnsupportedVersion(t *testing.T) {
	l, svc := smallLog()
	later := strings.Replace(string(l.records[8].Entry), `"v":1}`, `"v":2}`, 1)
	l.add([]byte(later), nil)
	f := l.export()
	newScene(t, l, "g", f).want(exitVersion, "unsupported version", "get a newer verifier")

	// What no unread entry can have caused is not excused by one.
	f["payloads/000000000006.payload"] = []byte(`{"rows":4}`)
	newScene(t, l, "g", f).want(exitFailed, "unsupported version", "payload is not the one committed to")
	f = l.export()
	f["receipts/000000000008.receipt"] = l.receipt(8, []log.Hash{{1}})
	newScene(t, l, "g", f).want(exitFailed, "CONVICTED")
	fork := l.forked()
	fork.registerKey(svc)
	fork.migrate(svc, "crm")
	for len(fork.records) < len(l.records) {
		fork.own("access", "access.summary", nil)
	}
	s := newScene(t, l, "g", l.export())
	s.file("pin", string(fork.checkpoint(uint64(len(fork.records)))))
	s.audit(exitFailed, "FORK")

	// A later version somewhere in the log is no excuse for what a stream without a gap shows.
	for want, lie := range map[string]func(e *log.Entry){
		"authentic.signature": func(e *log.Entry) { e.Sig.Sig[0] ^= 1 },
		"replayed":            func(e *log.Entry) { e.Event.Log = "log.example/other" },
	} {
		l, _ = smallLog()
		e, err := log.ParseEntry(l.records[6].Entry)
		if err != nil {
			t.Fatal(err)
		}
		lie(&e)
		l.records[6].Entry = e.Marshal()
		l.rehash()
		l.add([]byte(later), nil)
		newScene(t, l, "g", l.export()).want(exitFailed, want, "unsupported version")
	}

	// What one can have caused is: here the end of a stream that a close lists.
	l, _ = smallLog()
	later = strings.Replace(string(l.records[7].Entry), `"v":1}`, `"v":2}`, 1)
	l.records[7].Entry = []byte(later)
	l.rehash()
	newScene(t, l, "g", l.export()).want(exitVersion, "Completeness  FAIL", "what failed may come of them")
}

// What is in the tree and is no entry was never to be there.
func TestLeafThatIsNoEntry(t *testing.T) {
	l, _ := smallLog()
	l.add([]byte("free text"), nil)
	newScene(t, l, "g", l.export()).want(exitFailed, "malformed entry")
}
