//go:build unix

package main

import (
	"path/filepath"
	"syscall"
	"testing"
)

// A reader of a named pipe would wait for ever.
func TestNamedPipeIsRefused(t *testing.T) {
	l, _ := smallLog()
	s := newScene(t, l, "g", l.export())
	if err := syscall.Mkfifo(filepath.Join(s.out, "events", "000000000099.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.want(exitFailed, "integrity.layout", "000000000099.json is no regular file")
}
