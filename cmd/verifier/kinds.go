package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/pipe-roll/piperoll/log"
)

// kindsMax bounds the kinds that are counted each on its own: a hostile log can
// have another in every entry.
const kindsMax = 1000

// kinds counts entries of kinds that mean nothing to this verifier.
type kinds struct {
	counts map[string]uint64
	others uint64 // of kinds beyond kindsMax
}

func (k *kinds) add(kind string) {
	if interpreted(kind) {
		return
	}
	if _, counted := k.counts[kind]; !counted && len(k.counts) == kindsMax {
		k.others++
		return
	}
	k.counts[kind]++
}

// interpreted says whether FORMAT.md says what entries of a kind mean. Others of
// a known class are well-formed, and only that.
func interpreted(kind string) bool {
	switch kind {
	case "log.open", "log.semantics", "log.refused", "log.refused.summary", "key.registered", "key.revoked", "payload.erased",
		"access.token.created", "access.token.revoked", "access.summary", "access.read", "access.decision", "access.denied":
		return true
	}
	return strings.HasPrefix(kind, "migration.") || strings.HasPrefix(kind, "stream.") // no others pass the parser
}

func (k *kinds) finish(f *log.Findings) {
	for _, kind := range slices.Sorted(maps.Keys(k.counts)) {
		f.Skip("semantics.kinds", "%d entries of kind %s: only their structure was checked, they were not interpreted", k.counts[kind], kind)
	}
	if k.others > 0 {
		f.Skip("semantics.kinds", "%d entries of more kinds than %d", k.others, kindsMax)
	}
}
