// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The linter keeps clients, clocks, logs and random numbers out of the core (.golangci.yml). What it has no rule for
// is kept out here: goroutines, channels, and the order of a map.

func TestTheCoreIsPure(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	fset := token.NewFileSet()
	var parsed []*ast.File
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		parsed = append(parsed, file)
	}
	require.Empty(t, impurities(fset, parsed))
}

func TestImpuritiesAreFound(t *testing.T) {
	tests := map[string]struct{ body, want string }{
		"a goroutine":                 {`go f()`, "go statement"},
		"a channel":                   {`_ = make(chan int)`, "channel"},
		"a map's order in a slice":    {`for k := range m { s = append(s, k) }`, "order of a map"},
		"a map's order in a return":   {`for k := range m { _ = k; return }`, "order of a map"},
		"a map's keys in their order": {`for k := range maps.Keys(m) { s = append(s, k) }`, "order of a map"},
		"the last one wins":           {`for k, v := range m { other[v] = k }`, "order of a map"},
		"a map into a map":            {`for k, v := range m { other[k] = v + "!" }`, ""},
		"emptying a map":              {`for k := range m { delete(m, k) }`, ""},
		"sorted keys":                 {`for _, k := range slices.Sorted(maps.Keys(m)) { s = append(s, k) }`, ""},
		"a slice":                     {`for _, k := range s { other[k] = k }`, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			source := `package x
import ("maps"; "slices")
var m, other = map[string]string{}, map[string]string{}
func f() { var s []string; ` + test.body + `; _ = s }`
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, "x.go", source, parser.SkipObjectResolution)
			require.NoError(t, err)
			found := strings.Join(impurities(fset, []*ast.File{file}), "\n")
			if test.want == "" {
				require.Empty(t, found)
				return
			}
			require.Contains(t, found, test.want)
		})
	}
}

// impurities lists what a pure package must not hold, by position.
func impurities(fset *token.FileSet, files []*ast.File) []string {
	// Imports are left unresolved, which keeps this instant: a map whose type another package declares is not
	// recognised as one. The maps of the core's own values are.
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	config := types.Config{Importer: noImports{}, Error: func(error) {}}
	_, _ = config.Check("federation", fset, files, info)

	var found []string
	report := func(n ast.Node, what string) {
		found = append(found, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), what))
	}
	for _, file := range files {
		sorted := map[ast.Node]bool{} // calls whose result does not depend on the order that goes in
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				report(n, "a go statement: the core decides, the controllers run")
			case *ast.ChanType, *ast.SelectStmt, *ast.SendStmt:
				report(n, "a channel: the core takes values and returns values")
			case *ast.RangeStmt:
				if isMap(info, n.X) && !intoMap(n) {
					report(n, "depends on the order of a map: range over slices.Sorted(maps.Keys(…))")
				}
			case *ast.CallExpr:
				if name := callee(n); strings.HasPrefix(name, "slices.Sorted") || name == "maps.Collect" || name == "maps.Insert" {
					for _, arg := range n.Args {
						sorted[arg] = true
					}
				}
				if name := callee(n); (name == "maps.Keys" || name == "maps.Values" || name == "maps.All") && !sorted[n] {
					report(n, "depends on the order of a map: sort the keys with slices.Sorted")
				}
			}
			return true
		})
	}
	return found
}

type noImports struct{}

func (noImports) Import(string) (*types.Package, error) {
	return nil, errors.New("imports are left unresolved")
}

func isMap(info *types.Info, e ast.Expr) bool {
	t := info.TypeOf(e)
	if t == nil {
		return false
	}
	_, ok := t.Underlying().(*types.Map)
	return ok
}

// intoMap tells whether a loop over a map does nothing but fill or empty maps under the very key, so that its order
// cannot be seen.
func intoMap(loop *ast.RangeStmt) bool {
	key, ok := loop.Key.(*ast.Ident)
	if !ok {
		return loop.Key == nil
	}
	isKey := func(e ast.Expr) bool { id, ok := e.(*ast.Ident); return ok && id.Name == key.Name }
	for _, s := range loop.Body.List {
		switch s := s.(type) {
		case *ast.AssignStmt:
			for _, left := range s.Lhs {
				if at, ok := left.(*ast.IndexExpr); !ok || !isKey(at.Index) {
					return false
				}
			}
		case *ast.ExprStmt:
			call, ok := s.X.(*ast.CallExpr)
			if !ok || callee(call) != "delete" || len(call.Args) != 2 || !isKey(call.Args[1]) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// callee is "package.Function" or "function" of a call.
func callee(call *ast.CallExpr) string {
	switch fun := call.Fun.(type) {
	case *ast.Ident:
		return fun.Name
	case *ast.SelectorExpr:
		if id, ok := fun.X.(*ast.Ident); ok {
			return id.Name + "." + fun.Sel.Name
		}
	}
	return ""
}
