package log

import (
	"errors"
	"slices"
	"testing"
)

// Every file has one name, and every name one file.
func TestExportNames(t *testing.T) {
	for path, want := range map[string]ExportFile{
		"checkpoint":                     {Kind: ExportCheckpoint},
		"events/000000000123.json":       {ExportEvent, 123},
		"proofs/000000000123.tlog-proof": {ExportProof, 123},
		"payloads/000000000123.payload":  {ExportPayload, 123},
		"payloads/000000000123.salt":     {ExportSalt, 123},
		"consistency/7.proof":            {ExportConsistency, 7},
		"receipts/1234567890123.receipt": {ExportReceipt, 1234567890123},
	} {
		if got := want.Path(); got != path {
			t.Errorf("%v.Path() = %q, want %q", want, got, path)
		}
		if got, err := ParseExportName(want.Folder(), want.Name()); err != nil || got != want {
			t.Errorf("ParseExportName(%q, %q) = %v, %v, want %v", want.Folder(), want.Name(), got, err, want)
		}
		if want.MaxBytes() <= 0 {
			t.Errorf("%v.MaxBytes() = %d, want a bound", want, want.MaxBytes())
		}
		if f := want.Folder(); f != "" && !slices.Contains(ExportFolders(), f) {
			t.Errorf("ExportFolders() lacks %q", f)
		}
	}
}

// A second spelling of a name would let two files claim one index.
func TestExportNamesRefused(t *testing.T) {
	for _, name := range []struct{ folder, name string }{
		{"", "checkpoint2"},
		{"", "0checkpoint"},
		{"", "000000000001.json"},
		{"events", "checkpoint"},
		{"events", "1.json"},
		{"events", "0000000000001.json"},
		{"events", "+00000000001.json"},
		{"events", "00000000000a.json"},
		{"events", "000000000001.JSON"},
		{"events", "9007199254740992.json"},
		{"proofs", "000000000001.json"},
		{"consistency", "07.proof"},
		{"consistency", ".proof"},
		{"other", "000000000001.json"},
	} {
		if got, err := ParseExportName(name.folder, name.name); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseExportName(%q, %q) = %v, %v, want %v", name.folder, name.name, got, err, ErrMalformed)
		}
	}
}

func TestSaltRoundTrip(t *testing.T) {
	salt := [32]byte{1, 2, 3}
	text := MarshalSalt(salt)
	if len(text) != (ExportFile{Kind: ExportSalt}).MaxBytes() {
		t.Errorf("MarshalSalt gives %d bytes, want %d", len(text), ExportFile{Kind: ExportSalt}.MaxBytes())
	}
	if got, err := ParseSalt(text); err != nil || got != salt {
		t.Errorf("ParseSalt(%q) = %x, %v, want %x", text, got, err, salt)
	}
	for _, bad := range []string{"", "AQID\n", string(text[:44]), string(text) + "\n", "B" + string(text), string(text[:42]) + "B=\n"} {
		if got, err := ParseSalt([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseSalt(%q) = %x, %v, want %v", bad, got, err, ErrMalformed)
		}
	}
}
