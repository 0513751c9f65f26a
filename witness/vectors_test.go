package witness

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// The policies that the second verifier takes are taken, and no others.
func TestVectorsOfPolicies(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "log", "testdata", "vectors", "policy.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Good, Bad []struct{ Name, Text string } }
	if err := json.Unmarshal(text, &v); err != nil || len(v.Good) == 0 || len(v.Bad) == 0 {
		t.Fatalf("%d good, %d bad, %v", len(v.Good), len(v.Bad), err)
	}
	for _, c := range v.Good {
		p, err := ParsePolicy([]byte(c.Text))
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if again, err := ParsePolicy([]byte(p.String())); err != nil || again.String() != p.String() {
			t.Errorf("%s: comes back as %q, %v, want %q", c.Name, again, err, p)
		}
	}
	for _, c := range v.Bad {
		if _, err := ParsePolicy([]byte(c.Text)); !errors.Is(err, ErrPolicy) {
			t.Errorf("%s: %v, want %v", c.Name, err, ErrPolicy)
		}
	}
}
