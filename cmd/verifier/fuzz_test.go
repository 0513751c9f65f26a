package main

import (
	"bytes"
	"testing"
)

// A pin file is cut into its notes without a byte lost.
func FuzzNotes(f *testing.F) {
	f.Add([]byte("log.example/a\n7\nroot\n\n— log.example/a AAAA\n\nlog.example/b\n9\nroot\n\n— log.example/b BBBB\n"))
	f.Add([]byte("no note"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var parts [][]byte
		rest := text
		for len(rest) > 0 {
			note, after, ok := cutNote(rest)
			if !ok {
				return
			}
			if len(after) >= len(rest) {
				t.Fatalf("cutting %q does not end", text)
			}
			_, _ = unverified(note) // whatever it says, it does not fail
			parts, rest = append(parts, note), after
		}
		if got := bytes.Join(parts, []byte("\n")); !bytes.Equal(got, text) {
			t.Errorf("%q comes back as %q", text, got)
		}
	})
}
