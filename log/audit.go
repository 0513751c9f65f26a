package log

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrLimit means that an examination would need more memory than it may take.
var ErrLimit = errors.New("resource limit")

// Limits of one audit, over all that it remembers.
const (
	auditStreamsMax = 1 << 20          // streams, and lines of migrations' lists
	clockAheadMaxMS = 5 * 60 * 1000    // the log refuses events further in its future
	serverOpen      = "log.open"       // kind of entry 0
	serverRefused   = "log.refused"    // kind of an entry that can take another stream's seq
	serverErased    = "payload.erased" // kind of an entry that excuses a missing payload
)

// An AuditConfig is what an audit is given besides the entries.
type AuditConfig struct {
	Origin     string
	Submitters *Submitters       // keys that the auditor brings; nil if none
	LogKeys    []LogKey          // the log's keys that the auditor brings; none if no policy
	Migrations []string          // that must be complete; others must be if they are seen
	Has        func(uint64) bool // says which indexes are at hand
}

// An Exhibit is an entry that has been parsed, and whose place in the tree has
// been proven. The audit looks at what it says.
type Exhibit struct {
	Index     uint64
	Entry     Entry
	Disclosed bool   // the payload is at hand, and is the one committed to
	Payload   []byte // its bytes if the kind is [Structural], else nil
}

// Structural says whether an audit has to read payloads of this kind.
func Structural(kind string) bool {
	return parserOf(kind) != nil
}

// An Audit examines the entries of one log that somebody has: in order, all or
// some of them. It is a fold, with the code that the sequencer runs; what it
// finds goes to [Findings]. Whether the entries are in the log, and their
// payloads the right ones, has been checked before.
type Audit struct {
	c          AuditConfig
	f          *Findings
	streams    map[string]*auditStream
	migrations map[string]*auditMigration
	listed     int // lines of migrations' lists

	entries  uint64
	last     uint64 // index of the last entry
	received uint64 // of the last entry

	controls    bool   // a control entry is at hand
	lastControl uint64 // the last such
	asOf        uint64 // of the last entry
	historyGap  string // why the control entries at hand are not all, "" if they are
	asOfOpen    uint64 // entries that name a control entry that is not at hand
	asOfFirst   uint64 // the first such control entry

	keys Keyring
	use  map[Hash][]keyUse // by key id: the tails it signed

	unsupported bool            // a payload is of a version that this code does not know
	later       map[string]bool // migrations that have such payloads

	promiseMS uint64 // of log.open
	opened    bool   // log.open is at hand with its payload

	disclosed uint64
	withheld  []uint64 // indexes of payloads committed to and not at hand
	erased    []uint64 // says the log
	stays     []uint64 // indexes of entries whose payload is never erased, or that have none

	signed   uint64 // events that a valid tail covers
	unknown  uint64 // events whose signature could not be checked
	logKept  uint64 // submitted events that nobody but the log attests
	ownCount uint64 // events of the log itself
}

// NewAudit begins an audit.
func NewAudit(c AuditConfig, f *Findings) *Audit {
	a := &Audit{
		c: c, f: f,
		streams: make(map[string]*auditStream), migrations: make(map[string]*auditMigration),
		use: make(map[Hash][]keyUse), later: make(map[string]bool),
	}
	if c.Submitters != nil {
		a.keys.Brought = *c.Submitters
	}
	return a
}

// PromiseMS is how long after received the log promises a checkpoint, and
// whether its log.open was at hand to say so.
func (a *Audit) PromiseMS() (ms uint64, ok bool) { return a.promiseMS, a.opened }

// Unsupported says whether a payload that the audit has to understand is of a
// version that this code does not know: what was found is not the whole.
func (a *Audit) Unsupported() bool { return a.unsupported }

// Received is the time, in Unix milliseconds, of the last entry added.
func (a *Audit) Received() uint64 { return a.received }

// Add examines the next entry, in ascending order of index. What is wrong goes
// to the findings; the only error is [ErrLimit].
func (a *Audit) Add(x Exhibit) error {
	e := x.Entry.Event
	if a.entries > 0 && x.Index <= a.last {
		panic("log: audited entries out of order")
	}
	a.order(x)
	a.control(x)
	a.payload(x)
	a.entries, a.last, a.received = a.entries+1, x.Index, max(a.received, x.Entry.Log.Received)
	if e.Log != a.c.Origin {
		a.f.FailCertainly("integrity.chain", "entry %d was made for log %q: replayed", x.Index, e.Log)
		return nil
	}
	if len(a.streams) >= auditStreamsMax || a.listed >= auditStreamsMax {
		return fmt.Errorf("%w: audit of more than %d streams", ErrLimit, auditStreamsMax)
	}
	var open *StreamOpen
	if e.Kind == "stream.open" && x.Payload != nil {
		o, err := ParseStreamOpen(x.Payload)
		if err != nil {
			a.unreadable("integrity.chain", x, err)
		} else {
			open = &o
		}
	}
	a.stream(x, open)
	a.migration(x, open)
	return nil
}

// unreadable says why a payload could not be read. One of a later version is
// no sign of tampering.
func (a *Audit) unreadable(check string, x Exhibit, err error) {
	if errors.Is(err, ErrVersion) {
		a.unsupported = true
		a.later[x.Entry.Event.Migration] = true
		a.f.Skip(check, "entry %d: %v: get a newer verifier", x.Index, err)
		return
	}
	a.f.Fail(check, "entry %d: %v", x.Index, err)
}

// order holds the log to its clock: received never goes back, and what came
// from the future was to be refused.
func (a *Audit) order(x Exhibit) {
	part := x.Entry.Log
	if part.Received < a.received {
		a.f.Fail("integrity.order", "entry %d: received goes back from %d to %d", x.Index, a.received, part.Received)
	}
	if part.SkewMS < -clockAheadMaxMS {
		a.f.Fail("integrity.order", "entry %d: its time is %d ms after received; the log refuses more than %d", x.Index, -part.SkewMS, clockAheadMaxMS)
	}
	if (x.Entry.Event.Kind == serverOpen) != (x.Index == 0) {
		a.f.Fail("integrity.order", "entry %d is %s: entry 0, and no other, is log.open", x.Index, x.Entry.Event.Kind)
	}
	if stream := x.Entry.Event.Stream; x.Index == 0 && stream != ServerStream("open") {
		a.f.Fail("integrity.order", "entry 0 is in stream %q, want %q", stream, ServerStream("open"))
	}
}

// control holds the log to as_of, exactly: from one control entry at hand to
// the next it also shows whether any of them is missing.
func (a *Audit) control(x Exhibit) {
	i, as, kind := x.Index, x.Entry.Log.AsOf, x.Entry.Event.Kind
	switch {
	case i == 0 && as != 0, i > 0 && as >= i:
		a.f.Fail("integrity.as-of", "entry %d: as_of is %d, not before it", i, as)
	case as < a.asOf, a.controls && as < a.lastControl:
		a.f.Fail("integrity.as-of", "entry %d: as_of is %d, and control entry %d came between", i, as, max(a.asOf, a.lastControl))
	case i == 0 || a.controls && as == a.lastControl:
	case a.c.Has(as):
		a.f.Fail("integrity.as-of", "entry %d: as_of is %d, which is no control entry", i, as)
	default:
		if a.asOfOpen == 0 {
			a.asOfFirst = as
		}
		a.asOfOpen++
		a.loseHistory("control entry %d is not at hand", as)
	}
	a.asOf = max(a.asOf, as)
	if Control(kind) {
		a.controls, a.lastControl = true, i
	}
	if kind == "key.registered" || kind == "key.revoked" {
		a.key(x)
	}
	if kind == serverOpen {
		a.logOpen(x)
	}
}

func (a *Audit) loseHistory(format string, args ...any) {
	if a.historyGap == "" {
		a.historyGap = fmt.Sprintf(format, args...)
		a.keys.Partial = true
	}
}

func (a *Audit) key(x Exhibit) {
	if x.Payload == nil {
		a.loseHistory("the payload of key entry %d is not at hand", x.Index)
		return
	}
	err := a.keys.Apply(x.Index, x.Entry, x.Payload)
	if err != nil {
		a.unreadable("authentic.keys", x, err)
	}
	if errors.Is(err, ErrVersion) {
		a.loseHistory("key entry %d is of a later version", x.Index)
	}
}

// logOpen compares the log's own statement with the keys that the auditor brought.
func (a *Audit) logOpen(x Exhibit) {
	if x.Payload == nil {
		a.f.Skip("authentic.log", "the payload of log.open is not at hand")
		return
	}
	o, err := ParseLogOpen(x.Payload)
	if err != nil {
		a.unreadable("authentic.log", x, err)
		return
	}
	a.promiseMS, a.opened = o.PromiseMS, true
	if o.Origin != a.c.Origin {
		a.f.Fail("authentic.log", "log.open names origin %q, the checkpoint %q", o.Origin, a.c.Origin)
	}
	for _, k := range o.Keys {
		brought := false
		for _, l := range a.c.LogKeys {
			brought = brought || l.Purpose == k.Purpose
		}
		if brought && !slices.Contains(a.c.LogKeys, k) {
			a.f.Fail("authentic.log", "log.open names another %s key than the policy: %s", k.Purpose, k.VKey)
		}
	}
	for _, l := range a.c.LogKeys {
		if !slices.Contains(o.Keys, l) {
			a.f.Fail("authentic.log", "log.open does not name the policy's %s key: %s", l.Purpose, l.VKey)
		}
	}
	a.f.Pass("authentic.log", "log.open names the keys that the policy lists")
	if len(a.c.LogKeys) == 0 {
		a.f.Skip("authentic.log", "no policy: the log's keys are known from the log alone")
	}
}

func (a *Audit) payload(x Exhibit) {
	if x.Entry.Event.Payload == nil || !Erasable(x.Entry.Event.Kind) {
		a.stays = append(a.stays, x.Index)
	}
	switch {
	case x.Entry.Event.Payload == nil:
	case x.Disclosed:
		a.disclosed++
	default:
		a.withheld = append(a.withheld, x.Index)
	}
	if x.Payload == nil {
		return
	}
	switch x.Entry.Event.Kind {
	case serverErased:
		a.erasure(x)
	case serverRefused, "access.token.created", "access.token.revoked":
		// Nothing else reads these here, but they have one form too.
		if err := CheckPayload(x.Entry.Event, x.Payload); err != nil {
			a.unreadable("integrity.payload", x, err)
		}
	}
}

func (a *Audit) erasure(x Exhibit) {
	p, err := ParsePayloadErased(x.Payload)
	if err != nil {
		a.unreadable("integrity.payload", x, err)
		return
	}
	if p.Index >= x.Index {
		a.f.Fail("integrity.payload", "entry %d: payload.erased of entry %d, which comes later", x.Index, p.Index)
		return
	}
	if _, ok := slices.BinarySearch(a.stays, p.Index); ok {
		a.f.Fail("integrity.payload", "entry %d: payload.erased of entry %d, which has no payload, or one that is never erased", x.Index, p.Index)
		return
	}
	a.erased = append(a.erased, p.Index)
}

// Finish says what the entries, taken together, show.
func (a *Audit) Finish() {
	if a.entries == 0 {
		a.f.Fail("complete.entries", "there is no entry: nothing was shown")
	}
	a.f.Pass("integrity.order", "received never goes back over %d entries", a.entries)
	if a.asOfOpen == 0 {
		a.f.Pass("integrity.as-of", "each entry names the last control entry before it")
	} else {
		a.f.Skip("integrity.as-of", "%d of %d entries name a control entry that is not at hand, the first of them entry %d: whether it is the last before them was not checked",
			a.asOfOpen, a.entries, a.asOfFirst)
	}
	a.finishPayloads()
	a.finishStreams()
	a.finishKeys()
	a.finishMigrations()
}

func (a *Audit) finishPayloads() {
	erased := 0
	slices.Sort(a.erased)
	for _, index := range a.withheld {
		if _, ok := slices.BinarySearch(a.erased, index); ok {
			erased++
		}
	}
	withheld := len(a.withheld) - erased
	a.f.Pass("complete.payload", "%d payloads disclosed, %d erased (says the log), %d withheld", a.disclosed, erased, withheld)
	if withheld > 0 {
		a.f.Skip("complete.payload", "%d payloads are withheld: what they say was not seen", withheld)
	}
}

func (a *Audit) finishKeys() {
	if a.historyGap == "" {
		a.f.Pass("authentic.revocation", "all key entries up to entry %d are at hand; no revoked key was used", a.last)
	} else {
		a.f.Skip("authentic.revocation", "whether a key was registered or revoked is not known: %s", a.historyGap)
	}
	for _, id := range slices.SortedFunc(maps.Keys(a.use), func(x, y Hash) int { return slices.Compare(x[:], y[:]) }) {
		a.finishKey(id)
	}
}

// finishKey looks at the tails of a key again, with all that was seen of it: by
// entries after a gap, or since.
func (a *Audit) finishKey(id Hash) {
	doubtful := 0
	var owner, reason string
	for _, u := range a.use[id] {
		if _, known := a.keys.Lookup(id); known {
			if err := a.keys.Valid(id, u.owner, u.index); err != nil {
				a.f.Fail("authentic.keys", "entry %d: tail of a stream of %q: %v", u.index, u.owner, err)
			}
		}
		if why := a.doubt(id, u); why != "" {
			doubtful++
			owner, reason = u.owner, why
		}
	}
	if doubtful > 0 {
		a.f.Skip("authentic.revocation", "%d tail signatures of key %s of %q are doubtful: %s", doubtful, id, owner, reason)
	}
}

// doubt says why a use of a key is doubtful: the key, or one that vouched for
// it, was compromised by then.
func (a *Audit) doubt(key Hash, u keyUse) string {
	who := "it is"
	for at := u.index; ; {
		state, ok := a.keys.Lookup(key)
		switch {
		case !ok:
			return ""
		case state.CompromisedSince != nil && at >= *state.CompromisedSince:
			return fmt.Sprintf("%s compromised since entry %d", who, *state.CompromisedSince)
		case state.Previous == nil || a.c.Submitters != nil && a.c.Submitters.Has(u.owner, key):
			return ""
		}
		key, at = *state.Previous, state.Registered
		who = fmt.Sprintf("key %s, which vouched for it, is", key)
	}
}
