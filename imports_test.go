package piperoll

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// imports is the architecture: for each package of this module, the others it
// may import. A top-level folder's own package is pure: formats and checks, no
// I/O, no clock. Its subfolders are machinery, which imports pure packages and,
// of all machinery, only log/disk and log/reader; pieces meet in cmd/.
// Change the table on purpose, never to make a build pass.
var imports = map[string]string{
	// Pure. The verifier links these and nothing else of ours.
	"log":     "",
	"witness": "log",

	// Machinery.
	"log/disk":      "",
	"log/journal":   "log log/disk",
	"log/index":     "log",
	"log/tiles":     "log log/disk log/reader",
	"log/reader":    "log",
	"log/sequencer": "log",
	"log/client":    "log log/reader",

	// For tests alone.
	"log/disk/crashfs": "log/disk",

	// Commands.
	"cmd/verifier":   "log witness",
	"cmd/logserver":  "*",
	"cmd/bench":      "*",
	"deploy/results": "",

	// What documents embed.
	"docs/api": "",
}

// testOnly packages are imported by tests and by each other, never by what we ship.
var testOnly = []string{"log/disk/crashfs"}

// clientUsers may import log/client besides tests and the examples, which are modules of
// their own. The bench drives the server as a migration service does. The server never may:
// its commands would then share the client's bugs and find none of them.
var clientUsers = []string{"cmd/bench"}

// impure are imports that bring I/O, a process, the network or a log into a pure package.
var impure = []string{
	"os", "os/exec", "os/signal", "os/user", "io/ioutil", "net", "net/http", "net/rpc", "net/smtp", "crypto/tls",
	"syscall", "log", "log/slog", "log/syslog", "database/sql", "plugin", "testing", "embed", "unsafe",
}

// impureCalls read the clock, wait for it, print, or touch what is outside the program.
var impureCalls = []string{
	"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.AfterFunc", "time.Tick", "time.NewTicker",
	"time.NewTimer", "fmt.Print", "fmt.Printf", "fmt.Println", "fmt.Scan", "fmt.Scanf", "fmt.Scanln",
}

// A source is a Go file of this module.
type source struct {
	path string // in the module
	pkg  string // its folder
	test bool
	fset *token.FileSet
	ast  *ast.File
	size int // lines
}

// sources parses the module's Go files, without the modules that lie inside it.
// It opens them itself: the test cache sees only what the test opens.
func sources(fsys fs.FS) ([]source, error) {
	var all []source
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, err := fs.Stat(fsys, path.Join(name, "go.mod"))
			hidden := strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata"
			if name != "." && (err == nil || hidden) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return fmt.Errorf("parse %s: %w", name, err)
		}
		all = append(all, source{name, path.Dir(name), strings.HasSuffix(name, "_test.go"), fset, f, strings.Count(string(text), "\n")})
		return nil
	})
	return all, err
}

// module returns the module's path and a slash.
func module(fsys fs.FS) (string, error) {
	text, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimPrefix(first, "module ") + "/", nil
}

// checkImports says every import that the table and the rules beside it forbid.
func checkImports(module string, all []source) []string {
	var bad []string
	for _, s := range all {
		may, known := imports[s.pkg]
		if !known && !s.test {
			bad = append(bad, s.path+": "+s.pkg+" is not in the table of imports_test.go")
		}
		for _, spec := range s.ast.Imports {
			imp := strings.Trim(spec.Path.Value, `"`)
			ours, isOurs := strings.CutPrefix(imp, module)
			switch {
			case imp == "log":
				bad = append(bad, s.path+`: imports the standard "log"; take a *slog.Logger`)
			case s.test || !isOurs:
			case slices.Contains(testOnly, ours) && !slices.Contains(testOnly, s.pkg):
				bad = append(bad, s.path+": imports "+ours+", which is for tests")
			case ours == "log/client" && !slices.Contains(clientUsers, s.pkg):
				bad = append(bad, s.path+": imports log/client, which is for examples and tests")
			case may != "*" && !slices.Contains(strings.Fields(may), ours):
				bad = append(bad, s.path+": "+s.pkg+" must not import "+ours)
			}
		}
	}
	return bad
}

// checkPure says what in a top-level folder's own package is not pure.
func checkPure(s source) []string {
	if s.test || strings.Contains(s.pkg, "/") || s.pkg == "." {
		return nil
	}
	var bad []string
	for _, spec := range s.ast.Imports {
		if imp := strings.Trim(spec.Path.Value, `"`); slices.Contains(impure, imp) {
			bad = append(bad, s.path+": a pure package imports "+imp)
		}
	}
	ast.Inspect(s.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			bad = append(bad, s.at(n)+": a pure package starts a goroutine")
		case *ast.SelectorExpr:
			// The value counts as well as the call: "now: time.Now" reads the clock later.
			if x, ok := n.X.(*ast.Ident); ok && slices.Contains(impureCalls, x.Name+"."+n.Sel.Name) {
				bad = append(bad, s.at(n)+": a pure package uses "+x.Name+"."+n.Sel.Name)
			}
		case *ast.CallExpr:
			if x, ok := n.Fun.(*ast.Ident); ok && (x.Name == "print" || x.Name == "println") {
				bad = append(bad, s.at(n)+": a pure package prints")
			}
		}
		return true
	})
	return bad
}

// at names the place of a node.
func (s source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

// checkModule applies a check to every source of this module, as it lies on the disk.
func checkModule(t *testing.T, check func(module string, all []source) []string) {
	t.Helper()
	name, err := module(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	all, err := sources(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range check(name, all) {
		t.Error(bad)
	}
}

func TestImports(t *testing.T) { checkModule(t, checkImports) }

func TestPure(t *testing.T) {
	checkModule(t, func(_ string, all []source) []string {
		var bad []string
		for _, s := range all {
			bad = append(bad, checkPure(s)...)
		}
		return bad
	})
}

// TestTable holds the table itself to the rule: pure packages import pure ones,
// machinery adds log/disk and log/reader and nothing else, and nothing imports a command.
func TestTable(t *testing.T) {
	for pkg, may := range imports {
		if strings.HasPrefix(pkg, "cmd/") {
			continue
		}
		for imp := range strings.FieldsSeq(may) {
			pure := !strings.Contains(imp, "/") && imp != "*"
			lent := strings.Contains(pkg, "/") && (imp == "log/disk" || imp == "log/reader")
			if !pure && !lent {
				t.Errorf("the table lets %s import %s", pkg, imp)
			}
		}
	}
	if err := fstest.TestFS(os.DirFS("deploy"), "tools.mod"); err != nil {
		t.Errorf("the tests do not run in the module's root: %v", err)
	}
}

// TestChecksFind plants one fault at a time in a small module: a check that
// cannot fail would be worse than none.
func TestChecksFind(t *testing.T) {
	const head = "// Package x is a test.\npackage x\n\n"
	long := strings.Repeat("\tx()\n", 71)
	for _, tc := range []struct{ file, text, want string }{
		{"stray/x.go", head, "not in the table"},
		{"log/x.go", head + `import "example.org/m/witness"`, "must not import witness"},
		{"log/journal/x.go", head + `import "example.org/m/log/index"`, "must not import log/index"},
		{"cmd/logserver/x.go", head + `import "example.org/m/log/client"`, "which is for examples"},
		{"cmd/logserver/x.go", head + `import "example.org/m/log/disk/crashfs"`, "which is for tests"},
		{"cmd/logserver/x_test.go", head + `import "log"`, `standard "log"`},
		{"log/x.go", head + `import "os"`, "imports os"},
		{"log/x.go", head + "import \"time\"\n\nvar now = time.Now", "uses time.Now"},
		{"log/x.go", head + "func f() { go f() }", "starts a goroutine"},
		{"log/x.go", head + "func f() { println() }", "prints"},
		{"log/index/x.go", head + "func x() {\n" + long + "}", "function x has 73 lines"},
		{"cmd/verifier/x.go", head + "func main() {\n" + long[:5*20] + "}", "function main has 22 lines"},
		{"log/index/x.go", head + strings.Repeat("// x\n", 500), "file has 504 lines"},
		{"log/index/x.go", head + "func init() {}", "has an init"},
		{"log/index/x.go", head + "import \"os\"\n\nvar x = os.Getenv(\"X\")", "reads the environment"},
		{"log/index/x.go", "package index", "has no package comment"},
		{"log/index/x.go", head, ""},
		{"inner/x.go", head + `import "log"`, ""}, // a module of its own
		{"log/testdata/x.go", "no Go", ""},
		{"log/index/x_test.go", head + "func f() {\n" + long + "}", ""},
		{"log/index/x_test.go", head + `import "example.org/m/log/client"`, ""},
	} {
		fsys := fstest.MapFS{
			"go.mod":       {Data: []byte("module example.org/m\n")},
			"inner/go.mod": {Data: []byte("module example.org/inner\n")},
			tc.file:        {Data: []byte(tc.text + "\n")},
		}
		name, err := module(fsys)
		if err != nil {
			t.Fatal(err)
		}
		all, err := sources(fsys)
		if err != nil {
			t.Fatal(err)
		}
		bad := append(checkImports(name, all), checkStyle(all)...)
		for _, s := range all {
			bad = append(bad, checkPure(s)...)
		}
		got := strings.Join(bad, "\n")
		if !strings.Contains(got, tc.want) || (tc.want == "") != (got == "") {
			t.Errorf("%s with %q: found %q, want %q", tc.file, tc.text[len(tc.text)-min(40, len(tc.text)):], got, tc.want)
		}
	}
}
