package test

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the documents name of the code is there: files (`gossip/detector.go`) and
// what packages declare (`state.Store`, `mesh/internal/box.New`, `gossip.Core.Receive`;
// unexported names, too).
func TestNamedInDocuments(t *testing.T) {
	declaredIn := map[string]map[string]bool{}
	labels := map[string]bool{} // of containers: mesh.network looks like a name in package mesh
	for _, s := range sources(t) {
		if s.pkg == "mesh/source/docker" {
			for _, l := range literals(s.file) {
				labels[l] = true
			}
		}
		if declaredIn[s.pkg] == nil {
			declaredIn[s.pkg] = map[string]bool{}
		}
		for _, name := range qualified(s.file) {
			declaredIn[s.pkg][name] = true
		}
	}
	quoted := regexp.MustCompile("`([^`\n]+)`")
	file := regexp.MustCompile(`^[a-z0-9_/-]+/[a-z0-9_{},*-]+\.(go|md|txt|yaml|service)$`)
	name := regexp.MustCompile(`^([a-z0-9]+(?:/[a-z0-9]+)*)\.([A-Za-z][A-Za-z0-9]*(?:\.[A-Za-z][A-Za-z0-9]*)?)(?:\(.*\))?$`)
	for path, text := range documents(t) {
		for _, m := range quoted.FindAllStringSubmatch(text, -1) {
			if file.MatchString(m[1]) && !strings.HasPrefix(m[1], "/") && !strings.ContainsAny(m[1], "{}*") {
				if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
					t.Errorf("%s names the file %s, which is not there", path, m[1])
				}
				continue
			}
			parts := name.FindStringSubmatch(m[1])
			if parts == nil || declaredIn[parts[1]] == nil || labels[m[1]] {
				continue
			}
			if !declaredIn[parts[1]][parts[2]] {
				t.Errorf("%s names %s: package %s declares no %s", path, m[1], parts[1], parts[2])
			}
		}
	}
}

// literals are the texts between quotes in a file.
func literals(f *ast.File) (all []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			all = append(all, strings.Trim(l.Value, `"`))
		}
		return true
	})
	return all
}

// qualified are the names that a file declares: F, T, T.Method and T.field.
func qualified(f *ast.File) []string {
	var names []string
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				names = append(names, d.Name.Name)
			} else {
				names = append(names, receiver(d.Recv.List[0].Type)+"."+d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					names = append(names, identifiers(spec.Names)...)
				case *ast.TypeSpec:
					names = append(names, spec.Name.Name)
					for _, member := range members(spec.Type) {
						names = append(names, spec.Name.Name+"."+member)
					}
				}
			}
		}
	}
	return names
}
