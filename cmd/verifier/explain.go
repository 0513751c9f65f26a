package main

import (
	"fmt"
	"io"
	"strings"
)

const explainHelp = `Without an argument it lists all checks.

Example:

  verifier explain complete.migration
`

// A checkDoc says what a check of the report means.
type checkDoc struct {
	id    string
	aside bool // NOT CHECKED here says something, but does not pull its level down
	text  string
}

// checkDocs is every check that a report can have. IDs never change meaning.
func checkDocs() []checkDoc {
	return []checkDoc{
		{"authentic.keys", false, "Every key that signed a tail was registered for the stream's owner, not revoked, and is in the auditor's submitters file, or descends from one that is: each vouched for the next. Without that file the log operator alone says whose keys they are."},
		{"authentic.log", true, "Entry 0, log.open, names the keys that the policy lists."},
		{"authentic.own", true, "Entries that the log made itself, about keys, access or erasures, rest on the operator's word."},
		{"authentic.revocation", false, "as_of leads from each entry to the control entries before it. If one is missing, a revocation may be in it, and a signature by a revoked key passes for a good one. Signatures since a key was compromised are doubtful, and counted here."},
		{"authentic.signature", false, "A tail signature by the submitter covers each event of a signed stream, through the chain of hashes. Without a submitters file this is never a PASS."},
		{"authentic.unsigned", false, "Events of streams that the log keeps for clients which do not sign, and events whose tail is not at hand: nobody but the log attests them."},
		{"complete.entries", false, "There is at least one entry."},
		{"complete.log", true, "Streams of the log itself never say where they end, so nothing shows that all of them is here."},
		{"complete.migration", false, "For every migration seen or asked for: migration.open, migration.close and every stream that they list, each from seq 1 to the end that migration.close states, with the payloads of migration.open, migration.close and each stream.open. Else it is INCOMPLETE. NOT CHECKED if events of it were refused: what they said, and that they had to be refused, is the log's word."},
		{"complete.other", false, "Streams of customers' own kinds (x.*) whose migration.open is not here: nothing says where they end. They may belong to no migration, or to one whose control stream was taken away."},
		{"complete.payload", true, "Payloads that were not disclosed and that no payload.erased entry covers. What is disclosed is checked under integrity.payload."},
		{"complete.receipt", true, "Receipts whose entries are not all in the directory."},
		{"complete.stream", false, "No stream lacks an event between two that are here, or at its beginning. A refusal that took the place of an event leaves it NOT CHECKED: the log alone says that there was a reason."},
		{"integrity.as-of", true, "Each entry names the last control entry before it, exactly. A log that picks an older state of access or keys is found here, as far as the control entries are in the directory."},
		{"integrity.chain", false, "The events of each stream follow each other by seq and by hash, belong to this log and to their owner. A replayed or exchanged event is found here."},
		{"integrity.checkpoint", false, "The checkpoint is signed by a log of the policy and cosigned by its quorum."},
		{"integrity.consistency", true, "The directory's consistency proofs. One is checked if the pin file has its old checkpoint."},
		{"integrity.entry", false, "Every entry is canonical: no second spelling of anything."},
		{"integrity.layout", false, "The directory has exactly the files that are checked, each with its counterpart."},
		{"integrity.migration", false, "Every event fits the state of its migration: opened once, closed by its owner, nothing after."},
		{"integrity.order", false, "The log's clock never goes back, and it took nothing from further in the future than it may."},
		{"integrity.payload", false, "Every payload at hand is the one that its event commits to."},
		{"integrity.pin", false, "The checkpoint extends the one of the auditor's last audit. A log that shows a second history is found here."},
		{"integrity.proof", false, "Every entry is in the tree of the directory's checkpoint, at its index."},
		{"integrity.receipt", false, "The log kept what its receipts promise. A receipt for other entries than the tree has convicts the log."},
		{"semantics.kinds", true, "Entries of kinds that log/FORMAT.md does not describe, customers' own (x.*) among them: their place, chain and signatures were checked, what they say was not interpreted."},
		{"semantics.rules", false, "Verdicts of rules and decisions about access, evaluated again. Not done by this version."},
		{"time.clock", false, "The log's clock does not run ahead of the witnesses'."},
		{"time.quorum", false, "When, by the witnesses' clocks, a quorum had seen the checkpoint. Without a quorum there is only the log's own clock."},
	}
}

func aside(id string) bool {
	for _, d := range checkDocs() {
		if d.id == id {
			return d.aside
		}
	}
	return false
}

func runExplain(s *streams, args []string) error {
	if len(args) > 1 {
		return usagef("%d arguments, want at most one", len(args))
	}
	var b strings.Builder
	for _, d := range checkDocs() {
		if len(args) == 0 || args[0] == d.id {
			fmt.Fprintf(&b, "%s\n  %s\n", d.id, d.text)
		}
	}
	if b.Len() == 0 {
		if strings.HasPrefix(args[0], "-") {
			return usagef("unknown flag %q", args[0])
		}
		return usagef("no check %q; without an argument all are listed", args[0])
	}
	_, err := io.WriteString(s.out, b.String())
	return err
}
