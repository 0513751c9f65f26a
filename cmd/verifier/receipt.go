package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/witness"
)

const receiptHelp = `A receipt promises that entries are in the log from an index on, and will be
under a checkpoint by a time. Together with what the log shows later it can
convict the log. -entry names the entries of the receipt, in order: files, or a
directory of files named INDEX.json. -leaves names a file of their hashes instead,
one BASE64 a line: a client keeps these when it does not keep entries. The last
argument is what the log shows: an inclusion proof, a checkpoint, or a directory
of events with proofs.

  exit 0  every entry is in the tree, as promised, and the quorum cosigned it
  exit 1  CONVICTED: (a) a tree that the log signed has another entry there, or
          (b) a quorum of witnesses cosigned a tree without them, and did so
          after the promised time; or the receipt or the proof is not what it says
  exit 3  what is shown establishes neither: a smaller tree, no proof, or not of
          every entry, no quorum

(b) holds if any two quorums of the policy have an honest witness in common.

An inclusion proof does not hold the entry that it is of. If the proof at hand
is of another entry than yours, name that with -logged, whatever it is; a
directory has them.

Examples:

  verifier receipt -policy policy.txt -entry 42.json 42.receipt 42.tlog-proof
  verifier receipt -policy policy.txt -entry sent/ 42.receipt out/

Files that the client library saved as evidence of claim "entry":

  verifier receipt -policy policy.txt -leaves leaves -logged in-the-log.entry \
      receipt in-the-log.tlog-proof
`

// leavesMaxBytes bounds a file of leaf hashes: more than 20,000 of them.
const leavesMaxBytes = 1 << 20

// A claim is a receipt with the entries that it is for, and the tree that the
// log shows.
type claim struct {
	s       *streams
	policy  witness.Policy
	receipt log.Receipt
	leaves  []log.Hash

	shown witness.Opened
	unmet error // that the policy's quorum has not cosigned it, nil if it has
}

func runReceipt(s *streams, args []string) error {
	f := flags("receipt")
	policyFile := f.String("policy", "", "")
	hashes := f.String("leaves", "", "")
	var entries, logged repeated
	f.Var(&entries, "entry", "")
	f.Var(&logged, "logged", "")
	if err := parse(f, args, 2); err != nil {
		return err
	}
	if (len(entries) == 0) == (*hashes == "") {
		return usagef("want -entry or -leaves: a receipt is over hashes, what they are of must be yours")
	}
	policy, err := readPolicy(*policyFile)
	if err != nil {
		return err
	}
	c := &claim{s: s, policy: policy}
	if err := c.open(f.Arg(0)); err != nil {
		return err
	}
	if *hashes != "" {
		err = c.readHashes(*hashes)
	} else {
		err = c.readEntries(entries)
	}
	if err != nil {
		return err
	}
	others, err := readLeaves(logged, func(string, []byte) error { return nil })
	if err != nil {
		return err
	}
	info, err := os.Stat(f.Arg(1))
	switch {
	case err != nil:
		return err
	case info.IsDir() && len(others) > 0:
		return usagef("-logged with a directory: it has the entries")
	case info.IsDir():
		return c.holdToDirectory(f.Arg(1))
	}
	return c.holdToFile(f.Arg(1), others)
}

func (c *claim) open(file string) error {
	msg, err := readFile(file, log.NoteMaxBytes)
	if err != nil {
		return err
	}
	// Which log it is of, the receipt says; that its key signed it, the policy.
	var keys []witness.Key
	for _, l := range c.policy.Logs {
		keys = append(keys, c.policy.ReceiptKeys(l.Key.Name())...)
	}
	if len(keys) == 0 {
		return notEstablished("the policy lists no receipt key: add its line \"log ORIGIN/receipt+...\"")
	}
	if c.receipt, err = openReceipt(msg, keys); err != nil {
		return failed(err)
	}
	return nil
}

// readEntries reads the entries that the receipt is for.
func (c *claim) readEntries(names []string) error {
	var late error
	leaves, err := readLeaves(names, func(file string, text []byte) error {
		entry, err := log.ParseEntry(text)
		switch {
		case errors.Is(err, log.ErrVersion):
			return err
		case err != nil:
			return failed(fmt.Errorf("entry %s: %w", file, err))
		case entry.Event.Log != c.receipt.Origin:
			return failed(fmt.Errorf("entry %s: made for log %q", file, entry.Event.Log))
		case entry.Log.Received != c.receipt.Received:
			late = failed(fmt.Errorf("the receipt says received %d, its entry %s says %d", c.receipt.Received, file, entry.Log.Received))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.hold(leaves); err != nil {
		return err
	}
	return late
}

// readHashes reads the leaf hashes that the receipt is over.
func (c *claim) readHashes(file string) error {
	text, err := readFile(file, leavesMaxBytes)
	if err != nil {
		return err
	}
	var leaves []log.Hash
	for line := range strings.Lines(string(text)) {
		h, err := tlog.ParseHash(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return failed(fmt.Errorf("%s: line %d is no hash", file, len(leaves)+1))
		}
		leaves = append(leaves, h)
	}
	return c.hold(leaves)
}

// hold takes the leaf hashes, if they are those of the receipt.
func (c *claim) hold(leaves []log.Hash) error {
	if log.LeavesHash(leaves) != c.receipt.Leaves || uint64(len(leaves)) != c.receipt.Count {
		return failed(fmt.Errorf("the %d entries are not the %d that the receipt is for", len(leaves), c.receipt.Count))
	}
	c.leaves = leaves
	return nil
}

// readLeaves hashes what is in files, or in all files of a directory, after
// check has looked at it. What a log has in its tree may be anything.
func readLeaves(names []string, check func(file string, text []byte) error) (leaves []log.Hash, err error) {
	for _, name := range names {
		files := []string{name}
		if entries, err := os.ReadDir(name); err == nil {
			if files, err = numbered(name, entries); err != nil {
				return nil, err
			}
		}
		for _, file := range files {
			text, err := readFile(file, log.EntryMaxBytes)
			if err != nil {
				return nil, err
			}
			if err := check(file, text); err != nil {
				return nil, err
			}
			leaves = append(leaves, log.LeafHash(text))
		}
	}
	return leaves, nil
}

// numbered gives the files INDEX.json of a directory in order, and refuses others.
func numbered(dir string, entries []fs.DirEntry) (files []string, err error) {
	var indexes []uint64
	for _, e := range entries {
		f, err := log.ParseExportName("events", e.Name())
		if err != nil || !e.Type().IsRegular() {
			return nil, usagef("%s: %q is no regular file named INDEX.json", dir, e.Name())
		}
		indexes = append(indexes, f.Number)
	}
	slices.Sort(indexes)
	for _, i := range indexes {
		files = append(files, filepath.Join(dir, log.ExportFile{Kind: log.ExportEvent, Number: i}.Name()))
	}
	return files, nil
}

// checkpoint opens a checkpoint of the receipt's log, and looks for a broken
// promise. The log's own signature is enough here: it convicts itself by a tree
// that no witness has seen.
func (c *claim) checkpoint(note []byte) error {
	o, err := c.policy.Open(note)
	switch {
	case errors.Is(err, witness.ErrQuorum):
		c.unmet = err
	case err != nil:
		return failed(err)
	}
	if o.Checkpoint.Origin != c.receipt.Origin {
		return failed(fmt.Errorf("the checkpoint is of log %q, the receipt of %q", o.Checkpoint.Origin, c.receipt.Origin))
	}
	if reason := broken(c.receipt, &c.policy, o); reason != "" {
		return failed(errors.New(reason))
	}
	c.shown = o
	return nil
}

// last is the index of the receipt's last entry.
func (c *claim) last() uint64 { return c.receipt.First + c.receipt.Count - 1 }

// tooSmall says that the tree ends before the receipt does; nil if it does not.
func (c *claim) tooSmall() error {
	if c.shown.Checkpoint.Size > c.last() {
		return nil
	}
	return notEstablished("the tree has size %d, entry %d is not in it yet; the log has promised it by %s", c.shown.Checkpoint.Size, c.last(), utc(c.receipt.By/1000))
}

// holdToFile holds the log to an inclusion proof of one of the entries, or to a checkpoint.
func (c *claim) holdToFile(file string, others []log.Hash) error {
	text, err := readFile(file, log.ExportFile{Kind: log.ExportProof}.MaxBytes())
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(text), "c2sp.org/tlog-proof@") {
		if err := c.checkpoint(text); err != nil {
			return err
		}
		if err := c.tooSmall(); err != nil {
			return err
		}
		return notEstablished("the tree is large enough, but a checkpoint alone does not show what is in it: get a proof")
	}
	p, err := log.ParseInclusionProof(text)
	if err != nil {
		return failed(err)
	}
	if err := c.checkpoint(p.Checkpoint); err != nil {
		return err
	}
	i := p.Index - c.receipt.First // wraps if the index is before
	if i >= c.receipt.Count {
		return notEstablished("the proof is of entry %d, the receipt of %d to %d", p.Index, c.receipt.First, c.last())
	}
	proves := func(leaf log.Hash) error {
		return log.CheckInclusion(c.shown.Checkpoint.Head, p.Index, leaf, p.Path)
	}
	if wrong := proves(c.leaves[i]); wrong != nil {
		if slices.ContainsFunc(others, func(leaf log.Hash) bool { return proves(leaf) == nil }) {
			return c.convict(p.Index)
		}
		return failed(fmt.Errorf("the proof is not of your entry: %w; it convicts the log only together with the entry that it is of (-logged)", wrong))
	}
	if err := c.tooSmall(); err != nil {
		return err
	}
	if c.receipt.Count > 1 {
		return notEstablished("entry %d is in the tree as promised, but the receipt is for entries %d to %d: only a directory shows them all", p.Index, c.receipt.First, c.last())
	}
	return c.kept()
}

// holdToDirectory holds the log to every entry of the receipt. One that is not
// the log's own convicts it, whatever is missing beside it.
func (c *claim) holdToDirectory(name string) error {
	d, err := openDirectory(name, log.NewFindings())
	if err != nil {
		return err
	}
	defer d.close()
	if !d.has(log.ExportCheckpoint, 0) {
		return notEstablished("%s has no checkpoint", name)
	}
	note, err := d.read(log.ExportCheckpoint, 0)
	if err != nil {
		return err
	}
	if err := c.checkpoint(note); err != nil {
		return err
	}
	l := newLoader(d, note, c.shown.Checkpoint.Head)
	missing := []error{c.tooSmall()}
	for i := uint64(0); i < c.receipt.Count && c.receipt.First+i < c.shown.Checkpoint.Size; i++ {
		index := c.receipt.First + i
		if !d.has(log.ExportEvent, index) {
			missing = append(missing, fmt.Errorf("entry %d is not in %s", index, name))
			continue
		}
		x, err := l.entry(index)
		switch {
		case err != nil:
			return err
		case !x.proven:
			missing = append(missing, fmt.Errorf("entry %d in %s has no good proof", index, name))
		case x.leaf != c.leaves[i]:
			return c.convict(index)
		}
	}
	if err := errors.Join(missing...); err != nil {
		return notEstablished("%w", err)
	}
	return c.kept()
}

func (c *claim) convict(index uint64) error {
	return failed(fmt.Errorf("CONVICTED: %s signed a receipt for your entry %d, and a tree with another entry there; the receipt, your entry, the other and its proof are the evidence", c.receipt.Origin, index))
}

// kept says that every entry of the receipt is in the tree.
func (c *claim) kept() error {
	if c.unmet != nil {
		return notEstablished("the entries are in a tree that the log has signed, but %w: %s", c.unmet, quorumHint)
	}
	_, err := fmt.Fprintf(c.s.out, "receipt    PASS  %d entries from %d on, received %s by the log's clock\n"+
		"promise    PASS  entries %d to %d are in the tree of %s, size %d\n",
		c.receipt.Count, c.receipt.First, utc(c.receipt.Received/1000), c.receipt.First, c.last(), c.shown.Checkpoint.Origin, c.shown.Checkpoint.Size)
	return err
}
