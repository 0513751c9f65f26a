package main

import (
	"crypto/sha256"
	"fmt"
	"hash"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/witness"
)

// receipts checks the receipts of a directory while its entries go by.
type receipts struct {
	v     *verification
	audit *log.Audit
	keys  []witness.Key
	open  *promise // nil if no receipt waits for the next entry
	kept  int      // receipts whose entries are all in the tree
	known map[uint64]bool
}

// A promise is a receipt that waits for its entries.
type promise struct {
	log.Receipt
	next   uint64
	leaves hash.Hash
}

func newReceipts(v *verification, audit *log.Audit) *receipts {
	r := &receipts{v: v, audit: audit, known: make(map[uint64]bool)}
	if v.policy != nil {
		r.keys = v.policy.ReceiptKeys(v.opened.Checkpoint.Origin)
	}
	return r
}

// openReceipt tries the keys of the policy.
func openReceipt(msg []byte, keys []witness.Key) (log.Receipt, error) {
	err := fmt.Errorf("%w: receipt: the policy lists no receipt key of the log", log.ErrSignature)
	for _, k := range keys {
		var r log.Receipt
		if r, err = log.OpenReceipt(msg, k); err == nil {
			return r, nil
		}
	}
	return log.Receipt{}, err
}

// read opens the receipt named for an index. nil: there is no more to do with it.
func (r *receipts) read(first uint64) (*log.Receipt, error) {
	msg, err := r.v.d.read(log.ExportReceipt, first)
	if err != nil {
		return nil, err
	}
	r.known[first] = true
	if len(r.keys) == 0 {
		r.v.f.Skip("integrity.receipt", "receipt %d: the policy lists no receipt key: add its line \"log ORIGIN/receipt+...\"", first)
		return nil, nil
	}
	got, err := openReceipt(msg, r.keys)
	switch promised, ok := r.audit.PromiseMS(); {
	case err != nil:
		r.v.f.Fail("integrity.receipt", "receipt %d: %v", first, err)
		return nil, nil
	case got.First != first:
		r.v.f.Fail("integrity.receipt", "receipt %d is of entry %d", first, got.First)
		return nil, nil
	case ok && got.By != got.Received+promised:
		r.v.f.Fail("integrity.receipt", "receipt %d promises a checkpoint %d ms after received, log.open promises %d", first, got.By-got.Received, promised)
	}
	return &got, nil
}

// step takes the next entry: a receipt begins, goes on or ends with it. Each
// entry came in one request, and each request has one receipt.
func (r *receipts) step(x *loaded) error {
	if r.v.d.has(log.ExportReceipt, x.index) {
		got, err := r.read(x.index)
		if err != nil {
			return err
		}
		switch {
		case got == nil:
		case r.open != nil && r.open.next == x.index:
			r.v.f.Fail("integrity.receipt", "receipt %d begins within receipt %d: two receipts for one entry", x.index, r.open.First)
		default:
			r.settle()
			r.open = &promise{*got, got.First, sha256.New()}
		}
	}
	if r.open != nil {
		r.feed(r.open, x)
	}
	return nil
}

// settle ends a receipt of which entries are missing.
func (r *receipts) settle() {
	if r.open != nil {
		r.partial(r.open.Receipt)
	}
	r.open = nil
}

// feed gives the open receipt its next entry.
func (r *receipts) feed(p *promise, x *loaded) {
	if x.index != p.next || !x.proven {
		r.settle()
		return
	}
	if x.exhibit != nil && x.exhibit.Entry.Log.Received != p.Received {
		r.v.f.Fail("integrity.receipt", "receipt %d says received %d, entry %d says %d", p.First, p.Received, x.index, x.exhibit.Entry.Log.Received)
	}
	p.leaves.Write(x.leaf[:])
	p.next++
	if p.next-p.First < p.Count {
		return
	}
	r.open = nil
	if log.Hash(p.leaves.Sum(nil)) != p.Leaves {
		r.v.f.Fail("integrity.receipt", "CONVICTED: the log's receipt promises other entries at %d to %d than are in its tree", p.First, p.next-1)
		return
	}
	r.kept++
}

// partial says what a receipt shows whose entries are not all at hand.
func (r *receipts) partial(p log.Receipt) {
	if reason := broken(p, r.v.policy, r.v.opened); reason != "" {
		r.v.f.Fail("integrity.receipt", "%s", reason)
		return
	}
	r.v.f.Skip("complete.receipt", "receipt %d: not all of its %d entries are at hand", p.First, p.Count)
}

// broken says how a checkpoint breaks a promise by being too small too late,
// by the time of witnesses; "" if it does not.
//
// Only cosignatures from after the promised time count, and they have to be a
// quorum alone: an honest log has old checkpoints, anybody can take lines off
// them, and can have a witness that lags behind cosign them again. A quorum
// cannot: it shares a witness with the one that cosigned a tree with the
// entries in time, and that one goes back for nobody. So this is sound for
// policies any two of whose quorums have an honest witness in common.
func broken(p log.Receipt, policy *witness.Policy, o witness.Opened) string {
	last := p.First + p.Count - 1
	if policy == nil || o.Checkpoint.Size > last {
		return ""
	}
	seconds, ok := policy.QuorumAfter(o.Cosigned, p.By)
	if !ok {
		return ""
	}
	return fmt.Sprintf("CONVICTED: the log promised entry %d by %s; its tree had size %d when a quorum of witnesses cosigned it, all of them later, the last at %s",
		last, utc(p.By/1000), o.Checkpoint.Size, utc(seconds))
}

// finish settles the receipts that no entry has settled.
func (r *receipts) finish() error {
	r.settle()
	all := r.v.d.numbers[log.ExportReceipt]
	for _, first := range all {
		if r.known[first] {
			continue
		}
		got, err := r.read(first)
		if err != nil {
			return err
		}
		if got != nil {
			r.partial(*got)
		}
	}
	if len(all) > 0 {
		r.v.f.Pass("integrity.receipt", "%d of %d receipts: all their entries are in the tree as promised", r.kept, len(all))
	}
	return nil
}
