// Package witness says which checkpoints an auditor accepts.
//
// A log operator can show different trees to different people. Witnesses make
// that visible: each remembers the largest tree that it has seen of a log,
// cosigns only trees that extend it, and says when. A [Policy], which the
// auditor brings and never takes from what is audited, lists the keys of logs
// and witnesses and the quorum of cosignatures that a checkpoint needs.
//
// Here are the formats and their checks. The package does no I/O and reads no
// clock: whether a time is recent is for the caller. It leaves out how strong a
// quorum is against colluding witnesses, and evidence of a split view.
//
// Formats: c2sp.org/tlog-policy, c2sp.org/tlog-cosignature (Ed25519 and
// ML-DSA-44), c2sp.org/signed-note.
package witness

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pipe-roll/piperoll/log"
)

// Limits of a policy. A reader refuses more before it reads it.
const (
	PolicyMaxBytes = 1 << 20
	policyMaxItems = 256 // logs, witnesses, groups: of each
)

// ErrPolicy means that a text is not a valid policy.
var ErrPolicy = errors.New("invalid policy")

// none is the quorum that needs no cosignature, and the name that nothing has.
const none = "none"

// A Policy says when a checkpoint is valid: one of the logs has signed it, and
// the quorum has cosigned it.
type Policy struct {
	Logs      []Log
	Witnesses []Witness
	Groups    []Group
	Quorum    string // name of a witness or group, or "none"
}

// A Log is a log line. The key's name is the origin.
type Log struct {
	Key Key
	URL string // "" if not given
}

// A Witness is a witness line.
type Witness struct {
	Name string // within the policy
	Key  Key
	URL  string // "" if not given
}

// A Group is satisfied when K of its members are. Members are witnesses, or
// groups before it; each is a member once in the whole policy, so that nobody
// counts twice.
type Group struct {
	Name    string
	K       int
	Members []string
}

// String gives the policy without comments: logs, witnesses, groups, quorum.
// Parsing it gives the policy again.
func (p Policy) String() string {
	var b strings.Builder
	line := func(fields ...string) {
		b.WriteString(strings.Join(slices.DeleteFunc(fields, func(f string) bool { return f == "" }), " ") + "\n")
	}
	for _, l := range p.Logs {
		line("log", l.Key.String(), l.URL)
	}
	for _, w := range p.Witnesses {
		line("witness", w.Name, w.Key.String(), w.URL)
	}
	for _, g := range p.Groups {
		line(append([]string{"group", g.Name, strconv.Itoa(g.K)}, g.Members...)...)
	}
	line("quorum", p.Quorum)
	return b.String()
}

// ParsePolicy parses a policy file. It reports everything that is wrong, by
// line; errors are [ErrPolicy].
func ParsePolicy(text []byte) (Policy, error) {
	if len(text) > PolicyMaxBytes {
		return Policy{}, fmt.Errorf("%w: %d bytes, at most %d", ErrPolicy, len(text), PolicyMaxBytes)
	}
	p := policyParser{defined: map[string]bool{}, member: map[string]bool{}}
	for n, line := range bytes.Split(text, []byte("\n")) {
		p.line = n + 1
		if i := bytes.IndexFunc(line, forbidden); i >= 0 {
			p.fail("byte 0x%02x: only TAB, LF, 0x20 to 0x7e and 0x80 to 0xff; lines end in LF alone", line[i])
			continue
		}
		fields := strings.FieldsFunc(string(line), func(r rune) bool { return r == ' ' || r == '\t' })
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		p.statement(fields)
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		p.fail("the last line does not end in LF: the file may be cut")
	}
	if p.Quorum == "" {
		p.fail("no quorum line: add \"quorum NAME\", or \"quorum none\" to trust the log alone")
	}
	return p.Policy, errors.Join(p.errs...)
}

func forbidden(r rune) bool { return r != '\t' && (r < ' ' || r == 0x7f) }

type policyParser struct {
	Policy
	line    int
	defined map[string]bool // names of witnesses and groups
	member  map[string]bool // those that are members of a group
	errs    []error
}

func (p *policyParser) fail(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%w: line %d: "+format, append([]any{ErrPolicy, p.line}, args...)...))
}

func (p *policyParser) statement(fields []string) {
	switch args := fields[1:]; fields[0] {
	case "log":
		p.log(args)
	case "witness":
		p.witness(args)
	case "group":
		p.group(args)
	case "quorum":
		p.quorum(args)
	default:
		p.fail("unknown keyword %q: want log, witness, group or quorum", abbreviate(fields[0]))
	}
}

// key reads "VKEY [URL]".
func (p *policyParser) key(fields []string) (key Key, url string, ok bool) {
	key, err := ParseKey(fields[0])
	if err != nil {
		p.fail("%w", err)
		return key, "", false
	}
	if len(fields) == 2 {
		url = fields[1]
		if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") {
			p.fail("%q is not an http or https URL", abbreviate(url))
			return key, "", false
		}
	}
	return key, url, true
}

func (p *policyParser) log(args []string) {
	if len(args) < 1 || len(args) > 2 || len(p.Logs) == policyMaxItems {
		p.fail("want \"log VKEY [URL]\", at most %d", policyMaxItems)
		return
	}
	key, url, ok := p.key(args)
	switch {
	case !ok:
	case key.typ == CosignEd25519:
		p.fail("key of log %q has type 0x04, which is for witnesses", key.name)
	case slices.ContainsFunc(p.Logs, func(l Log) bool { return l.Key.public == key.public }):
		p.fail("log %q has the key of another log", key.name)
	case p.ambiguous(key):
		p.fail("log %q has the key ID of another key of that name: no signature line could tell them apart", key.name)
	default:
		p.Logs = append(p.Logs, Log{key, url})
	}
}

func (p *policyParser) witness(args []string) {
	if len(args) < 2 || len(args) > 3 || len(p.Witnesses) == policyMaxItems {
		p.fail("want \"witness NAME VKEY [URL]\", at most %d", policyMaxItems)
		return
	}
	key, url, ok := p.key(args[1:])
	switch {
	case !ok || !p.define(args[0]):
	case key.typ == Ed25519:
		p.fail("key of witness %q has type 0x01, which is for logs", args[0])
	case slices.ContainsFunc(p.Witnesses, func(w Witness) bool { return w.Key.public == key.public }):
		p.fail("witness %q has the key of another witness: it would count twice", args[0])
	case p.ambiguous(key):
		p.fail("witness %q has the key ID of another key of that name: no signature line could tell them apart", args[0])
	default:
		p.Witnesses = append(p.Witnesses, Witness{args[0], key, url})
	}
}

func (p *policyParser) group(args []string) {
	if len(args) < 3 || len(p.Groups) == policyMaxItems {
		p.fail("want \"group NAME all|any|K MEMBER...\" with at least one member, at most %d groups", policyMaxItems)
		return
	}
	g := Group{Name: args[0], Members: args[2:]}
	switch args[1] {
	case "any":
		g.K = 1
	case "all":
		g.K = len(g.Members)
	default:
		k, err := strconv.Atoi(args[1])
		if err != nil || strconv.Itoa(k) != args[1] || k < 1 || k > len(g.Members) {
			p.fail("group %q: %q of %d members: want all, any, or 1 to %d", abbreviate(g.Name), abbreviate(args[1]), len(g.Members), len(g.Members))
			return
		}
		g.K = k
	}
	ok := true
	for _, m := range g.Members {
		switch {
		case !p.defined[m]:
			p.fail("group %q: member %q is not a witness or group on an earlier line", abbreviate(g.Name), abbreviate(m))
			ok = false
		case p.member[m]:
			p.fail("group %q: %q is a member already: it would count twice", abbreviate(g.Name), abbreviate(m))
			ok = false
		}
		p.member[m] = true
	}
	if p.define(g.Name) && ok {
		p.Groups = append(p.Groups, g)
	}
}

// define takes a name of the one space that witnesses and groups share.
func (p *policyParser) define(name string) bool {
	if name == none || p.defined[name] {
		p.fail("name %q is reserved or taken", abbreviate(name))
		return false
	}
	p.defined[name] = true
	return true
}

func (p *policyParser) quorum(args []string) {
	switch {
	case len(args) != 1:
		p.fail("want \"quorum NAME\" or \"quorum none\"")
	case p.Quorum != "":
		p.fail("a second quorum line")
	case args[0] != none && !p.defined[args[0]]:
		p.fail("quorum %q is not a witness or group on an earlier line", abbreviate(args[0]))
	default:
		p.Quorum = args[0]
	}
}

// ambiguous says whether a signature line could be by either key or another of
// the policy, log or witness: IDs have 32 bits, and a witness with the name of
// a log and an ID ground to fit would sign in its place. One and the same key
// may be both (c2sp.org/tlog-policy): there is only one that a line can be by.
func (p *policyParser) ambiguous(key Key) bool {
	known, ok := p.known()[idOf(key)]
	return ok && known != key
}

// receiptOf gives the origin whose receipt key l is, if its log is listed too.
// Such a key signs receipts and nothing else.
func (p Policy) receiptOf(l Log) (origin string, ok bool) {
	for _, o := range p.Logs {
		if l.Key.name == log.ReceiptKeyName(o.Key.name) {
			return o.Key.name, true
		}
	}
	return "", false
}

// ReceiptKeys gives the keys that sign receipts of the log named origin: the
// log lines named ORIGIN/receipt, beside one named ORIGIN.
func (p Policy) ReceiptKeys(origin string) (keys []Key) {
	for _, l := range p.Logs {
		if of, ok := p.receiptOf(l); ok && of == origin && l.Key.typ == Ed25519 {
			keys = append(keys, l.Key)
		}
	}
	return keys
}
