package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/pipe-roll/piperoll/log"
)

// A fakeLog makes a real log in memory, with keys of its own: entries, tree,
// checkpoints, receipts. It does what it is told, so that it can also lie.
type fakeLog struct {
	origin      string
	key         note.Signer
	receiptKey  note.Signer
	vkey        string
	receiptVKey string
	witnesses   []*fakeWitness
	cosign      uint64   // POSIX seconds of cosignatures
	cosignAt    []uint64 // of each witness instead, 0 if it does not sign; nil if all sign at cosign
	now         uint64   // Unix milliseconds, of the next request

	records  []log.Record
	hashes   []tlog.Hash // stored hashes of the tree
	streams  map[string]*log.Stream
	control  uint64
	receipts map[uint64][]byte
	people   []*submitter

	tamper func(*log.Entry) // changes an entry before it is placed
}

const promiseMS = 60_000

type fakeWitness struct {
	name, vkey string
	id         [4]byte
	key        ed25519.PrivateKey
}

// A submitter is a principal with a key.
type submitter struct {
	name string
	key  ed25519.PrivateKey
}

func (s *submitter) public() log.PublicKey { return log.PublicKey(s.key.Public().(ed25519.PublicKey)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newSigner(name string) (note.Signer, string) {
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		panic(err)
	}
	return must(note.NewSigner(skey)), vkey
}

func newKey() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func newWitness(name string) *fakeWitness {
	w := &fakeWitness{name: name, key: newKey()}
	typed := append([]byte{4}, w.key.Public().(ed25519.PublicKey)...)
	sum := sha256.Sum256([]byte(name + "\n" + string(typed)))
	copy(w.id[:], sum[:])
	w.vkey = name + "+" + hex.EncodeToString(w.id[:]) + "+" + base64.StdEncoding.EncodeToString(typed)
	return w
}

// line is the witness's cosignature of a checkpoint's text.
func (w *fakeWitness) line(text string, seconds uint64) string {
	sig := ed25519.Sign(w.key, []byte("cosignature/v1\ntime "+strconv.FormatUint(seconds, 10)+"\n"+text))
	raw := append(binary.BigEndian.AppendUint64(w.id[:], seconds), sig...)
	return "— " + w.name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
}

// newLog is a log with its log.open.
func newLog(origin string) *fakeLog {
	l := &fakeLog{origin: origin, now: 1_700_000_000_000, cosign: 1_700_000_400, streams: map[string]*log.Stream{}, receipts: map[uint64][]byte{}}
	l.key, l.vkey = newSigner(origin)
	l.receiptKey, l.receiptVKey = newSigner(log.ReceiptKeyName(origin))
	l.witnesses = []*fakeWitness{newWitness("w.example/1"), newWitness("w.example/2"), newWitness("w.example/3")}
	l.own("open", "log.open", l.statement().Marshal())
	return l
}

func (l *fakeLog) statement() log.LogOpen {
	return log.LogOpen{
		Keys:   []log.LogKey{{Purpose: log.PurposeCheckpoint, VKey: l.vkey}, {Purpose: log.PurposeReceipt, VKey: l.receiptVKey}},
		Origin: l.origin, PromiseMS: promiseMS, Semantics: []string{"fold-1"},
	}
}

// register makes a principal with a registered key.
func (l *fakeLog) register(name string) *submitter {
	s := &submitter{name, newKey()}
	l.people = append(l.people, s)
	l.registerKey(s)
	return s
}

func (l *fakeLog) registerKey(s *submitter) {
	proof := log.Sign(s.key, log.PossessionText(l.origin, s.name, s.public())).Sig
	l.own("keys", "key.registered", log.KeyRegistered{Key: s.public(), Principal: s.name, Proof: &proof}.Marshal())
}

// A draft is an event to be chained.
type draft struct {
	kind     string
	payload  []byte // nil for none
	withheld bool   // the payload is committed to, and not disclosed
	objects  []log.Object
}

// own places an event of the log itself.
func (l *fakeLog) own(topic, kind string, payload []byte, objects ...log.Object) {
	l.place("log/"+topic, "log", []draft{{kind: kind, payload: payload, objects: objects}}, true, nil)
}

// kept places events in a stream that the log keeps.
func (l *fakeLog) kept(by, stream string, drafts ...draft) { l.place(stream, by, drafts, true, nil) }

// send places a request in a signed stream: chained, with a tail signature.
func (l *fakeLog) send(by *submitter, stream string, drafts ...draft) {
	l.place(stream, by.name, drafts, false, func(text []byte) *log.Sig {
		sig := log.Sign(by.key, text)
		return &sig
	})
}

// unsigned is send without the tail signature.
func (l *fakeLog) unsigned(by *submitter, stream string, drafts ...draft) {
	l.place(stream, by.name, drafts, false, nil)
}

func (l *fakeLog) stream(name string) *log.Stream {
	if l.streams[name] == nil {
		s := log.NewStream(l.origin, name)
		l.streams[name] = &s
	}
	return l.streams[name]
}

func (l *fakeLog) place(stream, by string, drafts []draft, byLog bool, sign func([]byte) *log.Sig) {
	l.now += 1000
	s := l.stream(stream)
	first := s.TailFirst()
	migration, _, _ := strings.Cut(stream, "/")
	begin := uint64(len(l.records))
	var leaves []log.Hash
	for i, d := range drafts {
		index := uint64(len(l.records))
		e := log.Event{
			Actor: by, Kind: d.kind, Log: l.origin, Migration: migration, Objects: d.objects,
			Prev: s.Hash, Seq: s.Seq + 1, Stream: stream, Time: l.now - 5,
		}
		var payload *log.Payload
		if d.payload != nil {
			payload = &log.Payload{Bytes: d.payload}
			must(rand.Read(payload.Salt[:]))
			e.Payload = &log.Ref{Commitment: log.Commit(*payload, log.JSONType), Type: log.JSONType}
			if d.withheld {
				payload = nil
			}
		}
		entry := log.Entry{Event: e, Log: log.Part{AsOf: l.control, Auth: "token:1", By: by, Received: l.now, SkewMS: 5}}
		must(rand.Read(entry.Log.Blind[:]))
		if byLog {
			entry.Log.Attested = log.AttestedByLog
		}
		if sign != nil && i == len(drafts)-1 {
			entry.Sig = sign(log.TailText(l.origin, stream, first, e.Seq, e.Hash()))
		}
		if l.tamper != nil {
			l.tamper(&entry)
		}
		if log.Control(d.kind) {
			l.control = index
		}
		s.Advance(entry.Event, entry.Event.Hash(), index, nil, entry.Sig != nil || byLog)
		leaves = append(leaves, l.add(entry.Marshal(), payload))
	}
	l.receipts[begin] = l.receipt(begin, leaves)
}

// add appends a leaf to the tree.
func (l *fakeLog) add(entry []byte, payload *log.Payload) log.Hash {
	n := int64(len(l.records))
	l.hashes = append(l.hashes, must(tlog.StoredHashes(n, entry, l.reader()))...)
	l.records = append(l.records, log.Record{Entry: entry, Payload: payload})
	return log.LeafHash(entry)
}

// rehash makes the tree and the receipts again, after records were changed.
func (l *fakeLog) rehash() {
	records := l.records
	l.records, l.hashes = nil, nil
	for _, r := range records {
		l.add(r.Entry, r.Payload)
	}
	l.receipts = map[uint64][]byte{}
}

func (l *fakeLog) receipt(first uint64, leaves []log.Hash) []byte {
	r := log.Receipt{Origin: l.origin, First: first, Count: uint64(len(leaves)), Leaves: log.LeavesHash(leaves), Received: l.now, By: l.now + promiseMS}
	return must(note.Sign(&note.Note{Text: r.String()}, l.receiptKey))
}

func (l *fakeLog) reader() tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = l.hashes[x]
		}
		return out, nil
	})
}

// checkpoint is the note of the tree's first size entries, cosigned by all witnesses.
func (l *fakeLog) checkpoint(size uint64) []byte {
	root := must(tlog.TreeHash(int64(size), l.reader()))
	text := log.Checkpoint{Origin: l.origin, Head: log.Head{Size: size, Root: root}}.String()
	msg := must(note.Sign(&note.Note{Text: text}, l.key))
	for i, w := range l.witnesses {
		seconds := l.cosign
		if l.cosignAt != nil {
			seconds = l.cosignAt[i]
		}
		if seconds > 0 {
			msg = append(msg, w.line(text, seconds)...)
		}
	}
	return msg
}

func (l *fakeLog) proof(index, size uint64) []byte {
	path := must(tlog.ProveRecord(int64(size), int64(index), l.reader()))
	return log.InclusionProof{Index: index, Path: path, Checkpoint: l.checkpoint(size)}.Marshal()
}

func (l *fakeLog) consistency(from, to uint64) []byte {
	var path []log.Hash
	if from > 0 && from < to {
		path = must(tlog.ProveTree(int64(to), int64(from), l.reader()))
	}
	return log.ConsistencyProof{Origin: l.origin, Old: from, New: to, Path: path}.Marshal()
}

// files are a directory of events with proofs: paths and contents.
type files map[string][]byte

// export is the whole log as files.
func (l *fakeLog) export() files {
	size := uint64(len(l.records))
	out := files{"checkpoint": l.checkpoint(size)}
	for i, r := range l.records {
		put := func(kind log.ExportKind, text []byte) {
			out[log.ExportFile{Kind: kind, Number: uint64(i)}.Path()] = text
		}
		put(log.ExportEvent, r.Entry)
		put(log.ExportProof, log.InclusionProof{
			Index: uint64(i), Path: must(tlog.ProveRecord(int64(size), int64(i), l.reader())), Checkpoint: out["checkpoint"],
		}.Marshal())
		if r.Payload != nil {
			put(log.ExportPayload, r.Payload.Bytes)
			put(log.ExportSalt, log.MarshalSalt(r.Payload.Salt))
		}
	}
	for first, r := range l.receipts {
		out[log.ExportFile{Kind: log.ExportReceipt, Number: first}.Path()] = r
	}
	return out
}

// remove takes an entry out, and all that goes with it.
func (f files) remove(index uint64) {
	for _, kind := range []log.ExportKind{log.ExportEvent, log.ExportProof, log.ExportPayload, log.ExportSalt} {
		delete(f, log.ExportFile{Kind: kind, Number: index}.Path())
	}
}

func (f files) write(dir string) {
	for path, text := range f {
		name := filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			panic(err)
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			panic(err)
		}
	}
}

func (f files) paths() []string {
	var all []string
	for p := range f {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// forked is another log with the same keys, witnesses and people: what an
// operator shows to somebody else. It has nothing but its log.open yet.
func (l *fakeLog) forked() *fakeLog {
	fork := newLog(l.origin)
	fork.key, fork.vkey, fork.receiptKey, fork.receiptVKey, fork.witnesses, fork.people = l.key, l.vkey, l.receiptKey, l.receiptVKey, l.witnesses, l.people
	return fork
}

// policy lists the log's keys and its witnesses.
func (l *fakeLog) policy(quorum string) string {
	var text strings.Builder
	text.WriteString("log " + l.vkey + "\nlog " + l.receiptVKey + "\n")
	for i, w := range l.witnesses {
		text.WriteString(fmt.Sprintf("witness w%d %s\n", i+1, w.vkey))
	}
	return text.String() + "group g 2 w1 w2 w3\nquorum " + quorum + "\n"
}

func (l *fakeLog) submitters() string {
	var text strings.Builder
	text.WriteString("# keys of submitters\n\n")
	for _, p := range l.people {
		text.WriteString(p.name + " " + must(p.public().VKey(p.name)) + "\n")
	}
	return text.String()
}

func openStream(mode, owner string, keys ...log.PublicKey) draft {
	return draft{kind: "stream.open", payload: log.StreamOpen{Keys: keys, Mode: mode, Owner: owner}.Marshal()}
}

func (l *fakeLog) end(stream string) log.StreamEnd {
	s := l.stream(stream)
	return log.StreamEnd{Hash: s.Hash, Last: s.Seq, Stream: stream}
}

// migrate runs a whole small migration: 4 requests in two streams, 7 entries.
func (l *fakeLog) migrate(by *submitter, name string) {
	l.migrateOpen(by, name)
	l.migrateClose(by, name)
}

func (l *fakeLog) migrateOpen(by *submitter, name string) {
	control, data := name+"/control", name+"/data"
	l.send(by, control, openStream(log.ModeSigned, by.name, by.public()),
		draft{kind: "migration.open", payload: log.MigrationOpen{Streams: []log.StreamOwner{{Owner: by.name, Stream: data}}}.Marshal()})
	l.send(by, data, openStream(log.ModeSigned, by.name, by.public()), draft{kind: "migration.extract"},
		draft{kind: "migration.load", payload: []byte(`{"rows":3}`), objects: []log.Object{{Name: "crm.customers", Role: "target"}}})
}

func (l *fakeLog) migrateClose(by *submitter, name string) {
	control, data := name+"/control", name+"/data"
	l.send(by, data, draft{kind: "stream.close"})
	l.send(by, control, draft{kind: "migration.close", payload: log.MigrationClose{Streams: []log.StreamEnd{l.end(data)}}.Marshal()})
}

// A scene is a directory to be audited, with what the auditor brings.
type scene struct {
	t                       *testing.T
	dir                     string // of all of it
	out, policy, submitters string
}

func newScene(t *testing.T, l *fakeLog, quorum string, f files) *scene {
	t.Helper()
	s := &scene{t: t, dir: t.TempDir()}
	s.out = filepath.Join(s.dir, "out")
	f.write(s.out)
	s.policy = s.file("policy.txt", l.policy(quorum))
	s.submitters = s.file("submitters.txt", l.submitters())
	return s
}

func (s *scene) file(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// verify runs the command in full, with more flags, and gives exit code and all that it printed.
func (s *scene) verify(more ...string) (int, string) {
	args := append([]string{"verify", "-policy", s.policy, "-submitters", s.submitters}, more...)
	return runAll(append(args, s.out)...)
}

func runAll(args ...string) (int, string) {
	var out strings.Builder
	code := run(args, &out, &out)
	return code, out.String()
}

// want runs verify and compares exit code and parts of what it prints.
func (s *scene) want(code int, parts ...string) {
	s.t.Helper()
	got, text := s.verify()
	check(s.t, got, text, code, parts...)
}

func check(t *testing.T, got int, text string, code int, parts ...string) {
	t.Helper()
	if got != code {
		t.Errorf("exit %d, want %d:\n%s", got, code, text)
	}
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("output lacks %q:\n%s", p, text)
		}
	}
	if strings.Contains(text, "this is a bug") {
		t.Errorf("a bug:\n%s", text)
	}
}
