package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The numbers of DESIGN's rules are for who reads the code. Who reads a message
// gets words.
func TestMessagesHaveNoRuleNumbers(t *testing.T) {
	number := regexp.MustCompile(`\((S|V|G|R|L|N)[0-9]+\)`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.BasicLit); ok && s.Kind == token.STRING && number.MatchString(s.Value) {
				t.Errorf("%s: a message with the number of a rule: %s", set.Position(s.Pos()), s.Value)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
