package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A locator finds the file and line of a test, which go test does not tell.
type locator struct {
	modules []module // an inner one stands after the one around it
	places  map[testKey]place
}

// A module is a Go module of the repository.
type module struct {
	path   string // as imports begin
	folder string // relative to the repository's root
}

// A place is a file, relative to the repository's root, and a line of it from 1.
type place struct {
	file string
	line int
}

// newLocator parses the test files of the module in root and of those inside it.
func newLocator(root string) (locator, error) {
	l := locator{places: map[testKey]place{}}
	err := filepath.WalkDir(root, func(file string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case d.IsDir() && passedOver(rel, d.Name()):
			return filepath.SkipDir
		case d.IsDir():
			return l.enter(file, rel)
		case strings.HasSuffix(rel, "_test.go"):
			l.add(file, rel)
		}
		return nil
	})
	if err != nil {
		return locator{}, fmt.Errorf("look for test files: %w", err)
	}
	return l, nil
}

// passedOver says whether "./..." leaves a folder out.
func passedOver(rel, name string) bool {
	return rel != "." && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_"))
}

// enter notes the module of a folder, if one begins there; one has to in the root.
func (l *locator) enter(file, rel string) error {
	name, err := modulePath(file)
	if errors.Is(err, os.ErrNotExist) && rel != "." {
		return nil
	}
	if err != nil {
		return err
	}
	l.modules = append(l.modules, module{name, rel})
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
			key := testKey{l.pkg(path.Dir(rel)), fn.Name.Name}
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

// folder returns where a package is in the repository, "." for its root.
func (l locator) folder(pkg string) string {
	for _, m := range slices.Backward(l.modules) {
		if inside, ok := below(pkg, m.path); ok {
			return path.Join(m.folder, inside)
		}
	}
	return pkg
}

// pkg returns the package of a folder.
func (l locator) pkg(folder string) string {
	for _, m := range slices.Backward(l.modules) {
		if inside, ok := below(folder, m.folder); ok {
			return path.Join(m.path, inside)
		}
	}
	panic("results: no module in the root")
}

// below returns what name is within folder, if it lies there.
func below(name, folder string) (string, bool) {
	if name == folder {
		return ".", true
	}
	if folder == "." {
		return name, true
	}
	return strings.CutPrefix(name, folder+"/")
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
	return "", fmt.Errorf("find the module: go.mod in %s names none", root)
}
