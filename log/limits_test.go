package log

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Validate says everything that is wrong with an entry at once.
func TestValidateSaysAll(t *testing.T) {
	e := Entry{
		Event: Event{Actor: "a b", Kind: "nope", Objects: make([]Object, ObjectsMax+1), Payload: &Ref{Type: "x"}, Time: 1 << 60},
		Log:   Part{Attested: "me", Received: 1 << 60, SkewMS: 1},
	}
	err := e.Validate()
	for _, want := range []string{"actor", "kind", "objects", "object", "media type", "seq", "stream", "by", "attested", "received", "skew_ms"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate = %v, want it to say what is wrong with %s", err, want)
		}
	}
	if text := e.Event.Payload; text.Type != "x" {
		t.Errorf("Validate changed the entry")
	}
}

// A list may be as long as the format says, and no longer.
func TestLongLists(t *testing.T) {
	for n, want := range map[int]error{StreamsMax: nil, StreamsMax + 1: ErrMalformed} {
		var o MigrationOpen
		var c MigrationClose
		for i := range n {
			name := fmt.Sprintf("m/%06d", i)
			o.Streams = append(o.Streams, StreamOwner{"p", name})
			c.Streams = append(c.Streams, StreamEnd{Stream: name, Last: 1})
		}
		if _, err := ParseMigrationOpen(o.Marshal()); !errors.Is(err, want) {
			t.Errorf("ParseMigrationOpen of %d streams = %v, want %v", n, err, want)
		}
		if _, err := ParseMigrationClose(c.Marshal()); !errors.Is(err, want) {
			t.Errorf("ParseMigrationClose of %d streams = %v, want %v", n, err, want)
		}
	}
}

// What is larger than its bound is refused before it is read.
func TestBounds(t *testing.T) {
	long := bytes.Repeat([]byte("a"), NoteMaxBytes+8193)
	if _, err := ParseInclusionProof(long); !errors.Is(err, ErrMalformed) {
		t.Errorf("ParseInclusionProof of %d bytes = %v, want %v", len(long), err, ErrMalformed)
	}
	if _, err := ParseTilePath("tile/0/" + strings.Repeat("x001/", 30) + "001"); !errors.Is(err, ErrMalformed) {
		t.Errorf("ParseTilePath of a long path = %v, want %v", err, ErrMalformed)
	}
	if _, err := OpenNote("note", long, nil); !errors.Is(err, ErrMalformed) {
		t.Errorf("OpenNote of %d bytes = %v, want %v", len(long), err, ErrMalformed)
	}
}

// No signature is good under a key that must not be used.
func TestVerifyUnderRefusedKey(t *testing.T) {
	var small PublicKey
	if err := (Sig{Key: small.ID()}).Verify(small, nil); !errors.Is(err, ErrKey) {
		t.Errorf("Verify under a key of small order = %v, want %v", err, ErrKey)
	}
}
