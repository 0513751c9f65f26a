package log

import (
	"fmt"
	"slices"
	"strings"
)

// ValidName says whether s can name a stream, a migration, a principal or an
// object: 1 to 128 bytes of A-Z a-z 0-9 . _ : / -. Names are compared byte by
// byte; there is no Unicode in them, so that no two look alike.
func ValidName(s string) bool {
	if s == "" || len(s) > NameMaxBytes {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._:/-", rune(c)) {
			return false
		}
	}
	return true
}

// ValidType says whether s can be a payload's type: a media type in lower
// case without parameters (RFC 6838 section 4.2, narrowed).
func ValidType(s string) bool {
	main, sub, ok := strings.Cut(s, "/")
	if !ok || main == "" || sub == "" || len(s) > NameMaxBytes {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("._+-", rune(c)) && i != len(main) {
			return false
		}
	}
	return true
}

// Origin of server-made events: they live in streams of this migration.
const serverMigration = "log"

// ServerStream names the log's own stream for a topic, such as "keys".
func ServerStream(topic string) string { return serverMigration + "/" + topic }

// A Class says who may make events of a kind.
type Class int

// The classes of kinds.
const (
	Unregistered Class = iota // refused
	Submitted                 // by a submitter, over POST /v1/events
	Server                    // by the log, after its own checks
)

var migrationKinds = []string{
	"open", "start", "extract", "transform", "load", "verify",
	"reject", "reconcile", "cutover", "close",
}

// ClassOf gives the class of a kind.
func ClassOf(kind string) Class {
	if !validKindText(kind) {
		return Unregistered
	}
	space, rest, _ := strings.Cut(kind, ".")
	switch space {
	case "migration":
		if slices.Contains(migrationKinds, rest) {
			return Submitted
		}
	case "audit", "lineage", "x":
		return Submitted
	case "access", "rules", "payload", "package", "key", "log":
		return Server
	case "stream":
		switch rest {
		case "open", "close":
			return Submitted
		case "abandoned":
			return Server
		}
	}
	return Unregistered
}

// trailKinds are the access kinds that record what happened and change nothing.
var trailKinds = []string{"access.summary", "access.read", "access.decision", "access.denied"}

// Control says whether entries of this kind change what is decided about later
// ones: roles and tokens, rules and waivers, keys, semantics. An entry's as_of
// is the index of the last such entry before it.
func Control(kind string) bool {
	space, _, _ := strings.Cut(kind, ".")
	switch space {
	case "rules", "key":
		return true
	case "access":
		return !slices.Contains(trailKinds, kind)
	}
	return kind == "log.open" || kind == "log.semantics"
}

// Erasable says whether the payload of an entry of this kind may be erased.
// What the folds need to be recomputed stays.
func Erasable(kind string) bool {
	switch kind {
	case "migration.open", "migration.close", "stream.open":
		return false
	}
	return ClassOf(kind) == Submitted || kind == "log.refused"
}

// validKindText: lower-case words of a-z 0-9 _ -, joined by dots, two or more.
func validKindText(s string) bool {
	words := strings.Split(s, ".")
	if len(s) > NameMaxBytes || len(words) < 2 {
		return false
	}
	for _, w := range words {
		if w == "" {
			return false
		}
		for i := range len(w) {
			if c := w[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
				return false
			}
		}
	}
	return true
}

// checkStreamName holds a stream to its migration: it is named MIGRATION/NAME,
// so that a stream's name alone tells where it belongs.
func checkStreamName(stream, migration string) error {
	if rest, ok := strings.CutPrefix(stream, migration+"/"); !ok || rest == "" {
		return fmt.Errorf("%w event: stream %q is not of migration %q: want %q and a name", ErrMalformed, stream, migration, migration+"/")
	}
	return nil
}
