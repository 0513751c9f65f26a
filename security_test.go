package piperoll

import (
	"go/ast"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityNamesTests: each attack that SECURITY.md says is stopped has a
// test that shows it, and the test is where the document says.
func TestSecurityNamesTests(t *testing.T) {
	tests := map[string]bool{} // "folder name"
	checkModule(t, func(_ string, all []source) []string {
		for _, s := range all {
			for _, decl := range s.ast.Decls {
				if fn, ok := decl.(*ast.FuncDecl); ok && s.test && fn.Recv == nil {
					tests[s.pkg+" "+fn.Name.Name] = true
				}
			}
		}
		return nil
	})
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| shown by |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(table, "\n")[1:]
	if len(rows) < 10 {
		t.Fatalf("SECURITY.md has a table of %d attacks", len(rows))
	}
	shown := regexp.MustCompile(`([a-z/]+) (Test\w+(?:, Test\w+)*)`)
	for _, row := range rows {
		cells := strings.Split(strings.Trim(row, "| "), " | ")
		found := shown.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if len(cells) != 4 || len(found) == 0 {
			t.Errorf("no test shows what is said here: %s", row)
		}
		for _, f := range found {
			for name := range strings.SplitSeq(f[2], ", ") {
				if !tests[f[1]+" "+name] {
					t.Errorf("%s has no %s, which SECURITY.md names", f[1], name)
				}
			}
		}
	}
}
