package tiles

import "errors"

// ErrRefused is wrapped by every [Refusal].
var ErrRefused = errors.New("self-check failed, nothing was signed")

// A Refusal says why a tree is not opened, or a head not signed, and what an operator can do about it.
type Refusal struct {
	Check string // what was checked: anchor, clock, entries, recovery, tiles, checkpoints
	Found string // what was wrong
	Do    string // what to do
	Err   error  // cause, or nil
}

func (r *Refusal) Error() string {
	s := ErrRefused.Error() + ": " + r.Check + ": " + r.Found
	if r.Err != nil {
		s += ": " + r.Err.Error()
	}
	return s + "; " + r.Do
}

// Unwrap returns ErrRefused and the cause.
func (r *Refusal) Unwrap() []error {
	if r.Err == nil {
		return []error{ErrRefused}
	}
	return []error{ErrRefused, r.Err}
}

// What operators are told to do.
const (
	doNewest  = "put back the newest copy of all of the log's directories, or, if that is lost, close this log and continue in a new one"
	doRebuild = "check the disk, then start once with Rebuild to derive the tiles again from the entries"
)
