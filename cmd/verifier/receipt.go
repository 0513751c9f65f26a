package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/witness"
)

const receiptHelp = `A receipt promises that entries are in the log from an index on, and will be
under a checkpoint by a time. Together with what the log shows later it can
convict the log. -entry names the entries of the receipt, in order: files, or a
directory of files named INDEX.json. The last argument is what the log shows:
an inclusion proof, a checkpoint, or a directory of events with proofs.

  exit 0  the entries are in the tree, as promised
  exit 1  CONVICTED: (a) the tree has other entries there, or (b) a quorum of
          witnesses saw a tree without them after the promised time; or the
          receipt or the proof is not what it says
  exit 3  what is shown establishes neither: a smaller tree, no proof

An inclusion proof does not hold the entry that it is of. If the proof at hand
is of another entry than yours, name that with -logged, once for each entry in
order; a directory has them.

Examples:

  verifier receipt -policy policy.txt -entry 42.json 42.receipt 42.tlog-proof
  verifier receipt -policy policy.txt -entry sent/ 42.receipt out/
`

// A claim is a receipt with the entries that it is for.
type claim struct {
	s       *streams
	policy  witness.Policy
	receipt log.Receipt
	leaves  []log.Hash
}

func runReceipt(s *streams, args []string) error {
	f := flags("receipt")
	policyFile := f.String("policy", "", "")
	var entries, logged repeated
	f.Var(&entries, "entry", "")
	f.Var(&logged, "logged", "")
	if err := parse(f, args, 2); err != nil {
		return err
	}
	if len(entries) == 0 {
		return usagef("no -entry: a receipt holds hashes, the entries must be yours")
	}
	policy, err := readPolicy(*policyFile)
	if err != nil {
		return err
	}
	c := &claim{s: s, policy: policy}
	if err := c.open(f.Arg(0)); err != nil {
		return err
	}
	if c.leaves, err = c.readLeaves(entries); err != nil {
		return err
	}
	if log.LeavesHash(c.leaves) != c.receipt.Leaves || uint64(len(c.leaves)) != c.receipt.Count {
		return failed(fmt.Errorf("the %d entries are not the %d that the receipt is for", len(c.leaves), c.receipt.Count))
	}
	others, err := c.readLeaves(logged)
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
		return &codedError{exitNotEstablished, errors.New("the policy lists no receipt key: add its line \"log ORIGIN/receipt+...\"")}
	}
	if c.receipt, err = openReceipt(msg, keys); err != nil {
		return failed(err)
	}
	return nil
}

// readLeaves hashes entries: files, or all of a directory.
func (c *claim) readLeaves(names []string) (leaves []log.Hash, err error) {
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
			entry, err := log.ParseEntry(text)
			if errors.Is(err, log.ErrVersion) {
				return nil, err
			}
			if err == nil && entry.Event.Log != c.receipt.Origin {
				err = fmt.Errorf("made for log %q", entry.Event.Log)
			}
			if err != nil {
				return nil, failed(fmt.Errorf("entry %s: %w", file, err))
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

// checkpoint opens a checkpoint of the receipt's log, and looks for a broken promise.
func (c *claim) checkpoint(note []byte) (witness.Opened, error) {
	o, err := c.policy.Open(note)
	if err != nil {
		return o, failed(err)
	}
	if o.Checkpoint.Origin != c.receipt.Origin {
		return o, failed(fmt.Errorf("the checkpoint is of log %q, the receipt of %q", o.Checkpoint.Origin, c.receipt.Origin))
	}
	if reason := broken(c.receipt, o); reason != "" {
		return o, failed(errors.New(reason))
	}
	if last := c.receipt.First + c.receipt.Count - 1; o.Checkpoint.Size <= last {
		return o, c.open3("the tree has size %d, entry %d is not in it yet; the log has promised it by %s", o.Checkpoint.Size, last, utc(c.receipt.By/1000))
	}
	return o, nil
}

func (c *claim) open3(format string, args ...any) error {
	return &codedError{exitNotEstablished, fmt.Errorf(format, args...)}
}

// holdToFile holds the log to an inclusion proof of one of the entries, or to a checkpoint.
func (c *claim) holdToFile(file string, others []log.Hash) error {
	text, err := readFile(file, log.ExportFile{Kind: log.ExportProof}.MaxBytes())
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(text), "c2sp.org/tlog-proof@") {
		if _, err := c.checkpoint(text); err != nil {
			return err
		}
		return c.open3("the tree is large enough, but a checkpoint alone does not show what is in it: get a proof")
	}
	p, err := log.ParseInclusionProof(text)
	if err != nil {
		return failed(err)
	}
	o, err := c.checkpoint(p.Checkpoint)
	if err != nil {
		return err
	}
	i := p.Index - c.receipt.First // wraps if the index is before
	if i >= c.receipt.Count {
		return c.open3("the proof is of entry %d, the receipt of %d to %d", p.Index, c.receipt.First, c.receipt.First+c.receipt.Count-1)
	}
	wrong := log.CheckInclusion(o.Checkpoint.Head, p.Index, c.leaves[i], p.Path)
	if wrong == nil {
		return c.kept(o, p.Index, p.Index)
	}
	if i < uint64(len(others)) && others[i] != c.leaves[i] && log.CheckInclusion(o.Checkpoint.Head, p.Index, others[i], p.Path) == nil {
		return c.convict(p.Index)
	}
	return failed(fmt.Errorf("the proof is not of your entry: %w; it convicts the log only together with the entry that it is of (-logged)", wrong))
}

// holdToDirectory holds the log to every entry of the receipt.
func (c *claim) holdToDirectory(name string) error {
	f := log.NewFindings()
	d, err := openDirectory(name, f)
	if err != nil {
		return err
	}
	defer d.close()
	if !d.has(log.ExportCheckpoint, 0) {
		return c.open3("%s has no checkpoint", name)
	}
	note, err := d.read(log.ExportCheckpoint, 0)
	if err != nil {
		return err
	}
	o, err := c.checkpoint(note)
	if err != nil {
		return err
	}
	l := newLoader(d, note, o.Checkpoint.Head)
	var missing []error
	for i, leaf := range c.leaves {
		index := c.receipt.First + uint64(i)
		if !d.has(log.ExportEvent, index) {
			missing = append(missing, fmt.Errorf("entry %d is not in %s", index, name))
			continue
		}
		x, err := l.load(index)
		switch {
		case err != nil:
			return err
		case !x.proven:
			missing = append(missing, fmt.Errorf("entry %d in %s has no good proof", index, name))
		case x.leaf != leaf:
			return c.convict(index)
		}
	}
	if len(missing) > 0 {
		return &codedError{exitNotEstablished, errors.Join(missing...)}
	}
	return c.kept(o, c.receipt.First, c.receipt.First+c.receipt.Count-1)
}

func (c *claim) convict(index uint64) error {
	return failed(fmt.Errorf("CONVICTED: %s signed a receipt for your entry %d, and a tree with another entry there; the receipt, your entry, the other and its proof are the evidence", c.receipt.Origin, index))
}

func (c *claim) kept(o witness.Opened, first, last uint64) error {
	_, err := fmt.Fprintf(c.s.out, "receipt    PASS  %d entries from %d on, received %s by the log's clock\n"+
		"promise    PASS  entries %d to %d are in the tree of %s, size %d\n",
		c.receipt.Count, c.receipt.First, utc(c.receipt.Received/1000), first, last, o.Checkpoint.Origin, o.Checkpoint.Size)
	return err
}
