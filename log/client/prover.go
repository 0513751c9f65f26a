package client

import (
	"context"
	"fmt"
	"net/http"

	"github.com/pipe-roll/piperoll/log"
)

// remote asks the log itself for proofs, one request each.
type remote struct{ client *Client }

func newProver(c *Client) prover { return remote{c} }

func (r remote) get(ctx context.Context, path string) ([]byte, error) {
	a, err := r.client.do(ctx, http.MethodGet, path, nil, log.NoteMaxBytes+answerMaxBytes)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, refusal(a)
	}
	return a.body, nil
}

func (r remote) Inclusion(ctx context.Context, head log.Head, index uint64) ([]log.Hash, error) {
	text, err := r.get(ctx, fmt.Sprintf("/v1/proofs/inclusion/%d/%d", index, head.Size))
	if err != nil {
		return nil, err
	}
	p, err := log.ParseInclusionProof(text)
	return p.Path, err
}

func (r remote) Consistency(ctx context.Context, old, new uint64) ([]log.Hash, error) {
	text, err := r.get(ctx, fmt.Sprintf("/v1/proofs/consistency/%d/%d", old, new))
	if err != nil {
		return nil, err
	}
	p, err := log.ParseConsistencyProof(text)
	return p.Path, err
}
