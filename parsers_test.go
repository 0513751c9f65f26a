package piperoll

import (
	"go/ast"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// parserName is what functions are called that take apart bytes which others can have made. They take them first.
var parserName = regexp.MustCompile(`^([Pp]arse|[Uu]nmarshal|[Dd]ecode|Open)([A-Z].*)?$`)

// otherParsers have names that say something else.
var otherParsers = []string{"log Canonical", "log Members", "log JSONString", "log/reader Cut", "cmd/verifier cutNote", "cmd/logserver splitBody", "cmd/logserver searchQuery"}

// ownTools are not shipped: they read what tools beside them print.
var ownTools = []string{"cmd/bench", "deploy/"}

// A byteParser is a function that wants a fuzz target.
type byteParser struct{ pkg, name string }

func parsers(all []source) (found []byteParser) {
	for _, s := range all {
		if s.test || slices.ContainsFunc(ownTools, func(prefix string) bool { return strings.HasPrefix(s.pkg, prefix) }) {
			continue
		}
		for _, decl := range s.ast.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			other := slices.Contains(otherParsers, s.pkg+" "+fn.Name.Name)
			if other || parserName.MatchString(fn.Name.Name) && takes(fn, strings.HasPrefix(fn.Name.Name, "Open")) {
				found = append(found, byteParser{s.pkg, fn.Name.Name})
			}
		}
	}
	return found
}

// takes says whether the first parameter of a function is bytes or a text; or, of what opens signed bytes and not files,
// whether one of them is bytes.
func takes(fn *ast.FuncDecl, opens bool) bool {
	for i, p := range fn.Type.Params.List {
		array, isArray := p.Type.(*ast.ArrayType)
		text, isName := p.Type.(*ast.Ident)
		if isArray && array.Len == nil {
			element, ok := array.Elt.(*ast.Ident)
			if ok && element.Name == "byte" && (i == 0 || opens) {
				return true
			}
		}
		if isName && text.Name == "string" && i == 0 && !opens {
			return true
		}
	}
	return false
}

// fuzzed says whether a package has a target for a parser: one that names it, or one of its name, FuzzX for ParseX, that
// reaches it by way of what the package declares. Or it is a part of another parser, which has a target.
func fuzzed(all []source, p byteParser) bool {
	uses := make(map[string][]string) // by function of the package: the names in it
	for _, s := range all {
		if s.pkg != p.pkg {
			continue
		}
		for _, decl := range s.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok {
				uses[fn.Name.Name] = append(uses[fn.Name.Name], namesIn(fn)...)
			}
		}
	}
	named := "Fuzz" + parserName.ReplaceAllString(p.name, "$2")
	for user, names := range uses {
		if (strings.HasPrefix(user, "Fuzz") || parserName.MatchString(user) && user != p.name) && slices.Contains(names, p.name) ||
			user == named && reaches(uses, user, p.name, map[string]bool{}) {
			return true
		}
	}
	return false
}

func namesIn(fn *ast.FuncDecl) (names []string) {
	ast.Inspect(fn, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			names = append(names, id.Name)
		}
		return true
	})
	return names
}

func reaches(uses map[string][]string, from, to string, seen map[string]bool) bool {
	if from == to {
		return true
	}
	if seen[from] {
		return false
	}
	seen[from] = true
	return slices.ContainsFunc(uses[from], func(name string) bool {
		return name == to || uses[name] != nil && reaches(uses, name, to, seen)
	})
}

func TestEveryParserHasAFuzzTargetAndInputsThatAreKept(t *testing.T) {
	all, err := sources(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	found := parsers(all)
	if len(found) < 50 {
		t.Errorf("found only %d parsers: %v", len(found), found)
	}
	for _, p := range found {
		if !fuzzed(all, p) {
			t.Errorf("%s.%s takes bytes apart and has no fuzz target: write Fuzz%s in %s", p.pkg, p.name, parserName.ReplaceAllString(p.name, "$2"), p.pkg)
		}
	}
	for _, o := range otherParsers {
		pkg, name, _ := strings.Cut(o, " ")
		if !slices.Contains(found, byteParser{pkg, name}) {
			t.Errorf("%s is listed as a parser, and not there", o)
		}
	}
	targets := make(map[string]bool)
	for _, s := range all {
		for _, decl := range s.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && s.test && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Fuzz") {
				if target := s.pkg + "." + fn.Name.Name; targets[target] {
					t.Errorf("%s is there twice: go's fuzzer runs neither", target)
				} else {
					targets[target] = true
				}
				if kept, err := os.ReadDir(s.pkg + "/testdata/fuzz/" + fn.Name.Name); err != nil || len(kept) == 0 {
					t.Errorf("%s.%s has no inputs that are kept: run deploy/fuzz.sh and then deploy/corpus.sh", s.pkg, fn.Name.Name)
				}
			}
		}
	}
}

// A check that cannot fail would be worse than none.
func TestAParserWithoutAFuzzTargetIsFound(t *testing.T) {
	const head = "package x\n\n"
	for _, c := range []struct {
		code, test string
		want       bool
	}{
		{"func ParseThing(b []byte) {}", "", false},
		{"func ParseThing(b []byte) {}", "func FuzzOther() { other() }", false},
		{"func ParseThing(b []byte) {}", "func FuzzThing() { other() }", false},
		{"func ParseThing(b []byte) {}", "func FuzzOther() { ParseThing(nil) }", true},
		{"func ParseThing(b []byte) {}", "func FuzzThing() { table() }\nfunc table() { row() }\nfunc row() { ParseThing(nil) }", true},
		{"func ParseThing(b []byte) { parsePart(b) }\nfunc parsePart(b []byte) {}", "func FuzzThing() { ParseThing(nil) }", true},
		{"func OpenThing(what string, b []byte) {}\nfunc OpenFile(name string) {}", "func FuzzThing() {}", false},
		{"func (t *thing) parse(b []byte) {}", "func FuzzThing() { t.parse(nil) }", true},
		{"func ParseFlags(f *flags, b []byte) {}\nfunc Parser(b []byte) {}", "", true}, // of no bytes, and no parser
	} {
		all, err := sources(fstest.MapFS{"log/x.go": {Data: []byte(head + c.code)}, "log/x_test.go": {Data: []byte(head + c.test)}})
		if err != nil {
			t.Fatal(err)
		}
		missing := slices.ContainsFunc(parsers(all), func(p byteParser) bool { return !fuzzed(all, p) })
		if missing == c.want {
			t.Errorf("%q with %q: a target is missing: %t", c.code, c.test, missing)
		}
	}
}
