package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// A locator finds the file and line of a test, which go test does not tell.
type locator struct {
	module string // its path
	places map[testKey]place
}

// A place is a file, relative to the module's root, and a line of it from 1.
type place struct {
	file string
	line int
}

// newLocator parses the test files under root, those of modules inside it apart.
func newLocator(root string) (locator, error) {
	module, err := modulePath(root)
	if err != nil {
		return locator{}, err
	}
	l := locator{module: module, places: map[testKey]place{}}
	err = filepath.WalkDir(root, func(file string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			return skipFolder(file, rel, d.Name())
		}
		if strings.HasSuffix(rel, "_test.go") {
			l.add(file, rel)
		}
		return nil
	})
	if err != nil {
		return locator{}, fmt.Errorf("look for test files: %w", err)
	}
	return l, nil
}

// skipFolder tells the walk to pass over what "./..." does not mean.
func skipFolder(file, rel, name string) error {
	if rel == "." {
		return nil
	}
	_, err := os.Stat(filepath.Join(file, "go.mod"))
	if err == nil || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
		return filepath.SkipDir
	}
	return nil
}

// add notes the top-level functions of a file. One that does not parse does
// not build either, and go test reports that.
func (l locator) add(file, rel string) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
	if err != nil {
		return
	}
	for _, decl := range f.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil {
			key := testKey{path.Join(l.module, path.Dir(rel)), fn.Name.Name}
			l.places[key] = place{rel, fset.Position(fn.Pos()).Line}
		}
	}
}

// locate returns a test with nodeid and line; pytest counts lines from 0.
func (l locator) locate(key testKey) test {
	top, _, _ := strings.Cut(key.test, "/")
	p, ok := l.places[testKey{key.pkg, top}]
	if !ok {
		return test{NodeID: l.folder(key.pkg) + "::" + key.test}
	}
	line := p.line - 1
	return test{NodeID: p.file + "::" + key.test, Lineno: &line}
}

// folder returns where a package is in the module, "." for its root.
func (l locator) folder(pkg string) string {
	if pkg == l.module {
		return "."
	}
	return strings.TrimPrefix(pkg, l.module+"/")
}

// modulePath reads the module's path from go.mod.
func modulePath(root string) (string, error) {
	data, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if module, ok := strings.CutPrefix(line, "module "); ok {
			return strings.TrimSpace(module), nil
		}
	}
	return "", fmt.Errorf("find the module: go.mod names none")
}
