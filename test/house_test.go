package test

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// Limits of the house (CONTRIBUTING.md). A limit is not a goal: most files have
// 150 lines, and most types a dozen methods.
const (
	maxLines   = 400
	maxMethods = 40
	maxColumns = 120
	maxFields  = 8 // a struct with more explains each of its fields
)

// A violation is one place that does not keep a rule.
type violation struct{ where, what string }

// report fails the test for each violation.
func report(t *testing.T, found []violation) {
	t.Helper()
	for _, v := range found {
		t.Errorf("%s: %s", v.where, v.what)
	}
}

func TestFilesAreShort(t *testing.T) {
	var found []violation
	for _, s := range sources(t) {
		if s.lines > maxLines {
			found = append(found, violation{s.path, fmt.Sprintf("%d lines; %d are the limit", s.lines, maxLines)})
		}
	}
	report(t, found)
}

// Lines of texts between backquotes and rows of a test's table may be longer.
func TestLinesAreShort(t *testing.T) {
	var found []violation
	for _, s := range sources(t) {
		text, err := os.ReadFile(filepath.Join("..", s.path))
		if err != nil {
			t.Fatal(err)
		}
		raw := rawLines(s)
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			line = strings.TrimSuffix(line, "\n")
			if utf8.RuneCountInString(line) > maxColumns && !raw[n] && (!s.test || !isRow(line)) {
				found = append(found, violation{
					fmt.Sprintf("%s:%d", s.path, n),
					fmt.Sprintf("%d columns; %d are the limit", utf8.RuneCountInString(line), maxColumns),
				})
			}
		}
	}
	report(t, found)
}

// rawLines are the lines of s on which a text between backquotes stands.
func rawLines(s source) map[int]bool {
	lines := map[int]bool{}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING && strings.HasPrefix(l.Value, "`") {
			for k := s.set.Position(l.Pos()).Line; k <= s.set.Position(l.End()).Line; k++ {
				lines[k] = true
			}
		}
		return true
	})
	return lines
}

// isRow says whether a line is one element of a table: {…}, or key: {…}, or
// pairs of texts.
func isRow(line string) bool {
	line = strings.TrimSpace(line)
	return strings.HasSuffix(line, "},") || strings.HasSuffix(line, ",") && strings.HasPrefix(line, `"`)
}

func TestTypesAreSmall(t *testing.T) {
	methods := map[string]int{}
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil && !s.test {
				methods[s.pkg+"."+receiver(f.Recv.List[0].Type)]++
			}
		}
	}
	var found []violation
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		if n := methods[name]; n > maxMethods {
			found = append(found, violation{name, fmt.Sprintf("%d methods; %d are the limit", n, maxMethods)})
		}
	}
	report(t, found)
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

// A struct with many fields says of each what it is.
func TestFieldsAreExplained(t *testing.T) {
	var found []violation
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			st, ok := spec.Type.(*ast.StructType)
			if !ok || st.Fields.NumFields() <= maxFields {
				return true
			}
			for _, f := range st.Fields.List {
				if f.Doc == nil && f.Comment == nil && len(f.Names) > 0 {
					found = append(found, violation{s.path, fmt.Sprintf("field %s.%s has no comment; %s has %d fields",
						spec.Name.Name, f.Names[0].Name, spec.Name.Name, st.Fields.NumFields())})
				}
			}
			return true
		})
	}
	report(t, found)
}

// An error in the log has one key.
func TestLogKeys(t *testing.T) {
	levels := []string{"Debug", "Info", "Warn", "Error", "Log", "With", "Any", "String"}
	var found []violation
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains(levels, sel.Sel.Name) {
				return true
			}
			for _, arg := range call.Args {
				if l, ok := arg.(*ast.BasicLit); ok && l.Value == `"err"` {
					found = append(found, violation{s.path, `a log line with the key "err"; it is "error" everywhere`})
				}
			}
			return true
		})
	}
	report(t, found)
}
