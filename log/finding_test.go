package log

import (
	"fmt"
	"testing"
)

// A failure outranks what was not checked, and that outranks a pass, in
// whatever order they are said.
func TestFindingsWeakestWins(t *testing.T) {
	f := NewFindings()
	f.Pass("a", "fine")
	f.Skip("b", "no key")
	f.Pass("b", "fine")
	f.Skip("c", "no key")
	f.Fail("c", "broken by %d", 1)
	f.Skip("c", "no key")
	f.Pass("c", "fine")
	f.Fail("d", "broken")
	f.Fail("d", "again")
	want := map[string]string{
		"a": "PASS 0 [] fine", "b": "NOT CHECKED 1 [no key] fine", "c": "FAIL 1 [broken by 1] fine", "d": "FAIL 2 [broken again] ",
	}
	all := f.All()
	if len(all) != len(want) {
		t.Fatalf("All() = %v, want %d checks", all, len(want))
	}
	for i, c := range all {
		if got := fmt.Sprint(c.Status, " ", c.Count, " ", c.Reasons, " ", c.Summary); got != want[c.ID] {
			t.Errorf("%s = %q, want %q", c.ID, got, want[c.ID])
		}
		if i > 0 && all[i-1].ID >= c.ID {
			t.Errorf("All() is not sorted: %s before %s", all[i-1].ID, c.ID)
		}
	}
	if !f.Failed() || NewFindings().Failed() {
		t.Error("Failed() does not say whether something failed")
	}
}

// A hostile input has millions of faults: their number is kept, not their texts.
func TestFindingsAreBounded(t *testing.T) {
	f := NewFindings()
	for i := range 1000 {
		f.Fail("a", "fault %d", i)
	}
	if c := f.All()[0]; c.Count != 1000 || len(c.Reasons) != findingsMax {
		t.Errorf("1000 faults: count %d, %d kept, want %d", c.Count, len(c.Reasons), findingsMax)
	}
}
