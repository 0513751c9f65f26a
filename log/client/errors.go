package client

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Errors that callers branch on, besides [*Refused] and [*Evidence].
var (
	// ErrUnacknowledged means that events were sent and no answer says whether the
	// log has them. The stream keeps them: [Stream.Flush], and the next Append
	// before anything else, sends the same bytes again.
	ErrUnacknowledged = errors.New("events are not acknowledged")
	// ErrClosed means that the stream or the migration is closed.
	ErrClosed = errors.New("closed")
	// ErrNotPublished means that no published checkpoint covers the entry yet.
	ErrNotPublished = errors.New("not under a published checkpoint yet")
	// ErrOverdue means that the log has not published an entry by the time that its receipt
	// promises. The receipt and a later, quorum-cosigned checkpoint that does not cover
	// the entry convict the log; the client's own clock does not.
	ErrOverdue = errors.New("the time promised by the receipt is over")
	// ErrAnswer means that an answer is not what a log answers.
	ErrAnswer = errors.New("malformed answer")
	// ErrPromise means that a receipt promises publication later than Config.PromiseMax.
	// The log has the events, and the stream keeps them as not acknowledged: asking
	// again would give the same receipt.
	ErrPromise = errors.New("the receipt promises publication too late")
)

// A Refused is the refusal of a request. Nothing of it was applied, if it was the
// log that refused it: of a proxy in front of the log that cannot be said.
type Refused struct {
	Status     int           // of HTTP
	Type       string        // of the problem, such as "urn:piperoll:problem:forbidden"; "" if it was none of ours
	Title      string        // of the problem
	Detail     string        // what was wrong
	Hint       string        // what to do
	RetryAfter time.Duration // as asked for; 0 if it was not

	head *head  // of a conflict
	raw  []byte // the answer
}

func (r *Refused) Error() string {
	text := fmt.Sprintf("refused with status %d", r.Status)
	for _, s := range []string{r.Title, r.Detail, r.Hint} {
		if s != "" {
			text += ": " + s
		}
	}
	return text
}

// again says whether the same request may be taken later.
func (r *Refused) again() bool {
	switch r.Status {
	case 408, 429, 500, 502, 503, 504, 507:
		return true
	}
	return false
}

// A Claim names what a log was caught at.
type Claim string

// Claims.
const (
	// ClaimReceipt: it acknowledged events with a receipt that is not over them.
	ClaimReceipt Claim = "receipt"
	// ClaimHead: it names a stream's head that nobody but the owner could have made,
	// and the owner did not; or an older one than it acknowledged.
	ClaimHead Claim = "head"
	// ClaimRefused: it has the events of a request that it refused, or that a proxy in
	// front of it refused after the log took it. The owner has signed others for their
	// place since: both requests are in the files.
	ClaimRefused Claim = "refused"
	// ClaimEntry: under its checkpoint there is another entry than its receipt promises.
	// The saved files convict the log, with the auditor's own policy:
	//
	//	verifier receipt -policy POLICY -leaves leaves -logged in-the-log.entry receipt in-the-log.tlog-proof
	//
	// in-the-log.entry is not among them if the log did not hand it out: it has to be
	// got in another way. [Client.Proof] knows one entry of the request and not the
	// others: there is then entry.json instead of leaves, and -entry names it and
	// the [Placed.Entry] of the others, which the caller has to have kept.
	ClaimEntry Claim = "entry"
	// ClaimFork: it signed two checkpoints that no one log can have.
	ClaimFork Claim = "fork"
)

// An Evidence is what a log said that contradicts what it said before, with the
// raw bytes. It is fatal for the client.
type Evidence struct {
	Claim  Claim
	Detail string
	Files  []File // what shows it
}

// A File is a piece of evidence.
type File struct {
	Name string
	Data []byte
}

func (e *Evidence) Error() string {
	return fmt.Sprintf("evidence against the log (%s): %s; keep it with Save, and tell the log's auditors", e.Claim, e.Detail)
}

// Save writes the files into a new directory, and a file "claim" that says what
// they show. The directory is there when it is whole, and durable on return. After
// an error Save can be called again. What is there already is never replaced, also
// if it is this evidence: then the error is [fs.ErrExist].
func (e *Evidence) Save(dir string) error {
	if err := e.save(filepath.Clean(dir)); err != nil {
		return fmt.Errorf("save evidence: %w", err)
	}
	return nil
}

func (e *Evidence) save(dir string) (err error) {
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("%s: %w", dir, fs.ErrExist)
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".part")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(part))
		}
	}()
	for _, f := range append([]File{{"claim", []byte(string(e.Claim) + "\n" + e.Detail + "\n")}}, e.Files...) {
		if err := writeSynced(filepath.Join(part, f.Name), f.Data); err != nil {
			return err
		}
	}
	if err := syncDir(part); err != nil {
		return err
	}
	if err := os.Rename(part, dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}
