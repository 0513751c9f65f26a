package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/scanner"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// lineBudget bounds what an auditor has to read to trust the verifier: lines of
// code, ours and our dependencies', that are linked into it, without tests. Lines
// that are empty or only a comment are counted beside it.
const lineBudget = 10_000

// mayLink is what may be linked into the verifier besides the standard
// library: a package itself, or with "/..." at the end all below it too.
// Nothing else of ours is pure, and nothing else of others is small.
var mayLink = []string{
	"github.com/pipe-roll/piperoll/cmd/verifier",
	"github.com/pipe-roll/piperoll/log",
	"github.com/pipe-roll/piperoll/witness",
	"golang.org/x/mod/sumdb/note",
	"golang.org/x/mod/sumdb/tlog",
	"github.com/transparency-dev/merkle/...",
	"filippo.io/mldsa/...",
}

// mustNotLink must not be linked, not even by the standard library: the verifier
// starts no process and reaches no network. ("net" itself comes with
// crypto/x509, for its types; that is why imports of it are checked instead.)
var mustNotLink = []string{"os/exec", "net/http", "crypto/tls", "net/rpc", "net/smtp", "plugin"}

// linkPlatforms are those of the releases as far as their sources differ.
var linkPlatforms = []string{"linux", "darwin", "windows"}

// A linkedPackage is what go list tells of it.
type linkedPackage struct {
	ImportPath string
	Dir        string
	Standard   bool
	GoFiles    []string
	CgoFiles   []string
	SFiles     []string
	Imports    []string
}

// listLinked returns the packages that are linked into the command in a folder on a platform.
func listLinked(t *testing.T, goos, dir string) []linkedPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Standard,GoFiles,CgoFiles,SFiles,Imports", dir)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list for %s: %v\n%s", goos, err, &stderr)
	}
	var all []linkedPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p linkedPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// linkFaults says which of the packages must not be linked, and why.
func linkFaults(all []linkedPackage) []string {
	var bad []string
	for _, p := range all {
		if p.Standard {
			if slices.Contains(mustNotLink, p.ImportPath) {
				bad = append(bad, "links "+p.ImportPath)
			}
			continue
		}
		may := slices.ContainsFunc(mayLink, func(a string) bool {
			below, deep := strings.CutSuffix(a, "/...")
			return p.ImportPath == below || deep && strings.HasPrefix(p.ImportPath, below+"/")
		})
		if !may {
			bad = append(bad, "links "+p.ImportPath)
		}
		for _, imp := range p.Imports {
			if imp == "net" || imp == "unsafe" || imp == "C" {
				bad = append(bad, p.ImportPath+" imports "+imp)
			}
		}
		if len(p.CgoFiles)+len(p.SFiles) > 0 {
			bad = append(bad, p.ImportPath+" is not all Go")
		}
	}
	return bad
}

// countLinked adds to code how many lines of it each package outside the standard
// library has, and to lines how many with comments and empty ones.
// It opens the files here: the test cache sees only what the test itself opens.
func countLinked(t *testing.T, all []linkedPackage, code, lines map[string]int) {
	t.Helper()
	for _, p := range all {
		if p.Standard {
			continue
		}
		n, whole := 0, 0
		for _, file := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			n += codeLines(text)
			whole += bytes.Count(text, []byte("\n"))
		}
		code[p.ImportPath] = max(code[p.ImportPath], n)
		lines[p.ImportPath] = max(lines[p.ImportPath], whole)
	}
}

// codeLines counts the lines that hold code. Comments and empty lines are for
// the reader: to count them would be to pay for explaining less.
func codeLines(text []byte) int {
	var s scanner.Scanner
	files := token.NewFileSet()
	file := files.AddFile("", -1, len(text))
	s.Init(file, text, nil, 0) // leaves comments out
	n, last := 0, 0
	for {
		pos, tok, literal := s.Scan()
		if tok == token.EOF {
			return n
		}
		if tok == token.SEMICOLON && literal == "\n" {
			continue // put in by the scanner
		}
		begin := file.Line(pos)
		end := begin + strings.Count(literal, "\n")
		n += end - max(begin, last+1) + 1
		last = max(last, end)
	}
}

// TestDeps keeps the verifier readable and harmless: what is linked into it is
// allowed, listed in testdata/deps.txt and within the budget.
func TestDeps(t *testing.T) {
	code, lines := map[string]int{}, map[string]int{}
	for _, goos := range linkPlatforms {
		all := listLinked(t, goos, ".")
		for _, bad := range linkFaults(all) {
			t.Errorf("on %s the verifier %s", goos, bad)
		}
		countLinked(t, all, code, lines)
	}
	var deps []string
	total, whole := 0, 0
	for pkg, n := range code {
		deps = append(deps, pkg+"\n")
		total, whole = total+n, whole+lines[pkg]
	}
	slices.Sort(deps)
	got := strings.Join(deps, "")
	want, err := os.ReadFile(filepath.Join("testdata", "deps.txt"))
	if err != nil || got != string(want) {
		t.Errorf("the verifier links:\n%swant what testdata/deps.txt lists:\n%s%v", got, want, err)
	}
	if total > lineBudget {
		t.Errorf("the verifier has %d lines of code, the budget is %d: %v", total, lineBudget, code)
	}
	t.Logf("%d of %d lines of code, %d lines with comments: %v", total, lineBudget, whole, code)
}

// TestLinkFaults plants a package of each kind that must not be linked.
func TestLinkFaults(t *testing.T) {
	for _, tc := range []struct {
		p    linkedPackage
		want string
	}{
		{linkedPackage{ImportPath: "os/exec", Standard: true}, "links os/exec"},
		{linkedPackage{ImportPath: "net/http", Standard: true}, "links net/http"},
		{linkedPackage{ImportPath: "crypto/tls", Standard: true}, "links crypto/tls"},
		{linkedPackage{ImportPath: "github.com/pipe-roll/piperoll/log/reader"}, "links github.com/pipe-roll/piperoll/log/reader"},
		{linkedPackage{ImportPath: "golang.org/x/mod/module"}, "links golang.org/x/mod/module"},
		{linkedPackage{ImportPath: "filippo.io/mldsa2"}, "links filippo.io/mldsa2"},
		{linkedPackage{ImportPath: "golang.org/x/mod/sumdb/note", Imports: []string{"net"}}, "golang.org/x/mod/sumdb/note imports net"},
		{linkedPackage{ImportPath: "filippo.io/mldsa", SFiles: []string{"x.s"}}, "filippo.io/mldsa is not all Go"},
		{linkedPackage{ImportPath: "filippo.io/mldsa/internal/x"}, ""},
		{linkedPackage{ImportPath: "net", Standard: true}, ""},
		{linkedPackage{ImportPath: "github.com/pipe-roll/piperoll/log"}, ""},
	} {
		if got := strings.Join(linkFaults([]linkedPackage{tc.p}), "; "); got != tc.want {
			t.Errorf("linkFaults(%s) = %q, want %q", fmt.Sprint(tc.p.ImportPath), got, tc.want)
		}
	}
}
