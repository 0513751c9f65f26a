package sequencer

import (
	"testing"

	"github.com/pipe-roll/piperoll/log"
)

// What the folds could not read has no place in the log, whoever sends it.
func TestPayloadsThatNobodyCouldFoldAreRefused(t *testing.T) {
	w := newWorld(t, nil)
	crm := w.service("crm", "m1/customers")
	open := crm.request("stream.open", crm.opening())
	open.Events[0].Payload.Type = "application/vnd.openlineage+json" // may have 32 MiB
	open.Events[0].Payload.Commitment = log.Commit(*open.Payloads[0], open.Events[0].Payload.Type)
	crm.sign(&open)
	w.refused(open, log.ErrMalformed)

	since := uint64(1 << 53)
	ref, p := jsonPayload(log.KeyRevoked{Key: crm.public().ID(), CompromisedSince: &since}.Marshal())
	w.refused(Request{
		By: "admin", Auth: "token:1", ByLog: true, Payloads: []*log.Payload{p},
		Events: []log.Event{{Actor: "admin", Kind: "key.revoked", Migration: "log", Stream: "log/test", Payload: ref}},
	}, log.ErrMalformed)
	crm.must(crm.request("stream.open", crm.opening()))
	w.check()
}
