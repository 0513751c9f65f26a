package client

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"net/http"
	"reflect"
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

func FuzzKey(f *testing.F) {
	text, err := keyText("crm-migrator", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text string) {
		name, key, err := parseKey(text)
		if err != nil {
			return
		}
		if again, err := keyText(name, key); err != nil || again != text {
			t.Errorf("%q comes back as %q, %v", text, again, err)
		}
	})
}

// A proxy answers anything in the log's name. Its status is what counts, and the wait that it asks for has an end.
func FuzzRefusal(f *testing.F) {
	f.Add(409, "1", []byte(`{"type":"urn:piperoll:problem:gap","title":"gap","status":409,"detail":"d","hint":"h","head":{"closed":false,"hash":"","seq":3,"stream":"m1/a"}}`))
	f.Add(502, "4294967295", []byte("<html>Bad Gateway</html>"))
	f.Fuzz(func(t *testing.T, status int, retryAfter string, body []byte) {
		r := refusal(reply{status, http.Header{"Retry-After": {retryAfter}}, body})
		if r.Status != status || r.RetryAfter < 0 || r.Error() == "" {
			t.Errorf("%d %q %q is %+v", status, retryAfter, body, r)
		}
	})
}

// fuzzEvent is an event with a payload, as the outbox keeps it.
func fuzzEvent() made {
	p := &log.Payload{Salt: [32]byte{1}, Bytes: []byte(`{"rows":3}`)}
	e := log.Event{
		Actor: "crm", Kind: "migration.load", Log: "log.example/test", Migration: "m1", Stream: "m1/customers", Seq: 2, Time: 5,
		Payload: &log.Ref{Commitment: log.Commit(*p, log.JSONType), Type: log.JSONType},
	}
	return made{event: e, canonical: e.Marshal(), hash: e.Hash(), payload: p}
}

// What is read of the outbox is what is written of it again, and read alike.
func FuzzRecords(f *testing.F) {
	var all []byte
	for _, r := range []record{
		{kind: recordSnapshot, bytes: []byte("{}")},
		{kind: recordEvent, made: fuzzEvent()},
		{kind: recordCut, stream: "m1/customers", seq: 2},
		{kind: recordAck, stream: "m1/customers", seq: 2, hash: log.Hash{2}, first: 7, by: 9, leaves: []log.Hash{{3}}, bytes: []byte("receipt")},
		{kind: recordCheckpoint, bytes: []byte("checkpoint")},
	} {
		f.Add(r.append(nil))
		all = r.append(all)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := parseRecords(b)
		if err != nil {
			return
		}
		var again []byte
		for _, r := range records {
			again = r.append(again)
		}
		if same, err := parseRecords(again); err != nil || !reflect.DeepEqual(same, records) {
			t.Errorf("%x is %+v, written and read again %+v, %v", b, records, same, err)
		}
	})
}

// A group is one at its own place alone. Its checksum is made right: else hardly an input would come further.
func FuzzGroup(f *testing.F) {
	whole := append(make([]byte, groupHeaderBytes), "records"...)
	putGroup(whole, 3, 4096)
	f.Add(whole, uint64(3), int64(4096))
	f.Fuzz(func(t *testing.T, b []byte, segment uint64, off int64) {
		b = bytes.Clone(b)
		if size, err := groupBytes(b); err == nil && size <= int64(len(b)) {
			binary.LittleEndian.PutUint32(b[4:], groupSum(segment, off, b[8:size]))
		}
		records, size, err := group(b, segment, off)
		if err != nil {
			return
		}
		again := append(make([]byte, groupHeaderBytes), records...)
		if putGroup(again, segment, off); !bytes.Equal(again, b[:size]) {
			t.Errorf("%x comes back as %x", b[:size], again)
		}
		if _, _, err := group(b, segment, off+1); err == nil {
			t.Errorf("%x is a group at another place, too", b)
		}
	})
}

func FuzzLedger(f *testing.F) {
	for _, l := range []ledger{
		{Origin: "log.example/test", Streams: map[string]*log.Stream{}, Migrations: map[string]*ledgerMigration{}},
		{
			Origin: "log.example/test", Principal: "crm", Key: log.Hash{1}, Streams: map[string]*log.Stream{"m1/a": {Name: "m1/a", Seq: 3}},
			Migrations: map[string]*ledgerMigration{"m1": {Expected: []log.StreamOwner{{Owner: "crm", Stream: "m1/a"}}}}, Checkpoint: []byte("c"),
		},
	} {
		f.Add(l.marshal())
	}
	e := fuzzEvent()
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLedger(b)
		if err != nil {
			return
		}
		again, err := parseLedger(l.marshal())
		if err != nil || !bytes.Equal(again.marshal(), l.marshal()) {
			t.Errorf("%q is %s, written and read again %s, %v", b, l.marshal(), again.marshal(), err)
		}
		_ = l.apply(&record{kind: recordEvent, made: e}) // whatever its streams are, it does not fail
	})
}
