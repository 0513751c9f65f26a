package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pipe-roll/piperoll/cmd/bench/engine"
	"github.com/pipe-roll/piperoll/cmd/bench/measure"
	"github.com/pipe-roll/piperoll/log"
	"golang.org/x/mod/sumdb/note"
)

// TestKept: a promise that the log does not keep is found, whatever is wrong with it.
func TestKept(t *testing.T) {
	dir := t.TempDir()
	path, err := buildServer(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	err = serverBinary(path).with(t.Context(), measure.Env{Dir: dir}, "1s", func(s *server) error {
		given, _, err := s.send(t.Context(), 4_000, true)
		if err != nil {
			return err
		}
		if err := s.kept(t.Context(), given, 4_000); err != nil {
			t.Errorf("promises that were kept: %v", err)
		}
		for name, tc := range map[string]struct {
			spoil func(all []promise) []promise
			want  string
		}{
			"a promise is missing": {func(all []promise) []promise { return all[1:] }, "have no receipt"},
			"another receipt": {func(all []promise) []promise {
				all[0].receipt, all[1].receipt = all[1].receipt, all[0].receipt
				return all
			}, "is of others"},
			"another entry": {func(all []promise) []promise {
				all[0].leaves = slices.Clone(all[0].leaves)
				all[0].leaves[7][0] ^= 1
				return all
			}, "is of others"},
			"an entry that the log promised and left out": {func(all []promise) []promise {
				leaves := []log.Hash{{1}, {2}}
				all[0] = promise{first: 9, leaves: leaves, receipt: signedReceipt(t, s, log.Receipt{
					Origin: engine.Origin, First: 9, Count: 2, Leaves: log.LeavesHash(leaves),
				})}
				return all
			}, "entry 9 in tree"},
			"a receipt that nobody signed": {func(all []promise) []promise {
				all[0].receipt = strings.Replace(all[0].receipt, "count ", "count 1", 1)
				return all
			}, "receipt of entry"},
		} {
			broken := &promises{all: tc.spoil(slices.Clone(given.all))}
			if err := s.kept(t.Context(), broken, 4_000); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: %v, want %q", name, err, tc.want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// signedReceipt signs with the log's own key.
func signedReceipt(t *testing.T, s *server, r log.Receipt) string {
	t.Helper()
	skey, err := os.ReadFile(s.file("keys/receipt.key"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(strings.TrimSpace(string(skey)))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: r.String()}, signer)
	if err != nil {
		t.Fatal(err)
	}
	return string(signed)
}
