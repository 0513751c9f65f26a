package log

import (
	"errors"
	"testing"
)

// A set has one spelling: no repeats, and ascending.
func TestStreamListsAreSets(t *testing.T) {
	for names, want := range map[[3]string]error{
		{"m/a", "m/b", "m/c"}: nil,
		{"m/a", "m/a", "m/b"}: ErrMalformed,
		{"m/a", "m/b", "m/b"}: ErrMalformed,
		{"m/b", "m/a", "m/c"}: ErrMalformed,
	} {
		var opened MigrationOpen
		var closed MigrationClose
		for _, n := range names {
			opened.Streams = append(opened.Streams, StreamOwner{"p", n})
			closed.Streams = append(closed.Streams, StreamEnd{Stream: n, Last: 1})
		}
		if _, err := ParseMigrationOpen(opened.Marshal()); !errors.Is(err, want) {
			t.Errorf("ParseMigrationOpen of %v = %v, want %v", names, err, want)
		}
		if _, err := ParseMigrationClose(closed.Marshal()); !errors.Is(err, want) {
			t.Errorf("ParseMigrationClose of %v = %v, want %v", names, err, want)
		}
	}
}
