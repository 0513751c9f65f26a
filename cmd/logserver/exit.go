package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"

	"github.com/pipe-roll/piperoll/log"
	"github.com/pipe-roll/piperoll/log/disk"
	"github.com/pipe-roll/piperoll/log/journal"
	"github.com/pipe-roll/piperoll/log/tiles"
)

// Errors that decide how a command ends.
var (
	// errUsage marks mistakes of the caller of a command.
	errUsage = errors.New("usage")
	// errCheck means that a check found something wrong.
	errCheck = errors.New("check failed")
	// errNotEstablished means that nothing wrong was found, and that too little
	// was at hand to say that nothing is.
	errNotEstablished = errors.New("trust not established")
)

// exitCode is the one map from errors to the contract's exit codes. The first
// that matches counts. What is not named here ends as a server's answer to it
// would: a command must not depend on whether the log is being served.
func exitCode(err error) int {
	if errors.Is(err, tiles.ErrRefused) || errors.Is(err, journal.ErrCorrupt) {
		err = fault(err) // what a log that is being served finds of itself
	}
	var refused *remoteProblem
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, log.ErrVersion):
		return exitVersion
	case errors.Is(err, errCheck):
		return exitFailed
	case errors.Is(err, errNotEstablished):
		return exitNotEstablished
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, log.ErrLimit):
		return exitLimit
	case errors.As(err, &refused):
		return problemCode(refused.problem)
	}
	return problemCode(problemOf(err))
}

// problemCode is the exit code of a refusal: what a log says is a fact about
// the request, not a failure to reach it.
func problemCode(p problem) int {
	switch {
	case p.Type == problemVersion:
		return exitVersion
	case p.Status < http.StatusBadRequest, p.Status >= http.StatusInternalServerError,
		p.Status == http.StatusTooManyRequests, p.Status == http.StatusRequestTimeout:
		return exitIO
	case p.Status == http.StatusRequestEntityTooLarge:
		return exitLimit
	case p.Status == http.StatusBadRequest, p.Status == http.StatusUnauthorized, p.Status == http.StatusForbidden,
		p.Status == http.StatusUnsupportedMediaType:
		return exitUsage
	}
	return exitFailed
}

// Types of problems that a command tells apart: what log.ErrVersion and journal.ErrNoKey become.
const (
	problemVersion    = problemPrefix + "version"
	problemKeyMissing = problemPrefix + "key-missing"
)

// fault says what an error met while reading a log's own files is: something
// wrong with the log, unless the files could not be read or somebody else has
// them. A file that is missing is wrong: nobody but the log removes any.
func fault(err error) error {
	var errno syscall.Errno
	switch {
	case err == nil, errors.Is(err, disk.ErrLocked), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &errno) && errno != syscall.ENOENT:
		return err
	}
	return fmt.Errorf("%w: %w", errCheck, err)
}
