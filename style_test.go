package piperoll

import (
	"fmt"
	"go/ast"
	"slices"
	"testing"
)

// The limits of CONTRIBUTING.md. Over a limit, look for the missing noun.
const (
	functionMaxLines = 70
	mainMaxLines     = 20
	fileMaxLines     = 500
)

// environment are the ways to read environment variables. Configuration is a file.
var environment = []string{"os.Getenv", "os.LookupEnv", "os.Environ", "os.ExpandEnv", "os.Setenv", "syscall.Getenv"}

// checkStyle says what in the code that we ship breaks a rule that a machine can see.
func checkStyle(all []source) []string {
	var bad []string
	documented := map[string]bool{}
	for _, s := range all {
		if s.test {
			continue
		}
		documented[s.pkg] = documented[s.pkg] || s.ast.Doc != nil
		if s.size > fileMaxLines {
			bad = append(bad, fmt.Sprintf("%s: file has %d lines, at most %d", s.path, s.size, fileMaxLines))
		}
		for _, decl := range s.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok {
				bad = append(bad, checkFunction(s, fn)...)
			}
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && slices.Contains(environment, x.Name+"."+sel.Sel.Name) {
					bad = append(bad, s.at(n)+": reads the environment; configuration is a file")
				}
			}
			return true
		})
	}
	for pkg, ok := range documented {
		if !ok {
			bad = append(bad, pkg+": has no package comment")
		}
	}
	return bad
}

func checkFunction(s source, fn *ast.FuncDecl) []string {
	var bad []string
	limit := functionMaxLines
	if fn.Name.Name == "main" && fn.Recv == nil {
		limit = mainMaxLines
	}
	size := s.fset.Position(fn.End()).Line - s.fset.Position(fn.Pos()).Line + 1
	if size > limit {
		bad = append(bad, fmt.Sprintf("%s: function %s has %d lines, at most %d", s.at(fn), fn.Name.Name, size, limit))
	}
	if fn.Name.Name == "init" && fn.Recv == nil {
		bad = append(bad, s.at(fn)+": has an init; its work belongs in a constructor")
	}
	return bad
}

func TestStyle(t *testing.T) {
	checkModule(t, func(_ string, all []source) []string { return checkStyle(all) })
}
