package test

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// privateWords are no names: who reads one has to read the body to know what it
// stands for. A name says what is done to what, in the field's terms.
var privateWords = strings.Fields(`
	acquaint acquainted aside calm condemn disown doom doubt doubts excuse exhume fit greet heed hurry judge land
	lately lets lucky mean meant meddle midway nobody note prompted rejudge settle settles settled slurp somebody
	spare spared still stray stumble tidy told unnote vet wave wonder wreck`)

func TestNoPrivateWords(t *testing.T) {
	var found []violation
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, name := range declared(s.file) {
			for _, w := range words(name) {
				if slices.Contains(privateWords, w) {
					found = append(found, violation{s.path, fmt.Sprintf("the name %s: %q is a private word", name, w)})
				}
			}
		}
	}
	report(t, found)
}

// The glossary of docs/DESIGN.md has one word for each thing. Its third column lists
// the other words for it, which exported names do not use.
func TestGlossary(t *testing.T) {
	instead := map[string]string{}
	for line := range strings.Lines(read(t, "../docs/DESIGN.md")) {
		cells := strings.Split(line, "|")
		if strings.HasPrefix(line, "## 2") {
			break
		}
		if len(cells) != 5 || strings.Contains(line, "---") || strings.Contains(line, "| meaning |") {
			continue
		}
		for _, other := range strings.FieldsFunc(cells[3], func(r rune) bool { return r == ',' || r == ' ' }) {
			instead[strings.ToLower(other)] = strings.TrimSpace(cells[1])
		}
	}
	if len(instead) < 20 {
		t.Fatalf("the glossary of docs/DESIGN.md has only %d words in its column of words not to be used", len(instead))
	}
	var found []violation
	for _, s := range sources(t) {
		if s.test || strings.HasPrefix(s.pkg, "test") || strings.HasPrefix(s.pkg, "examples") {
			continue
		}
		for _, name := range declared(s.file) {
			for _, w := range words(name) {
				if word, ok := instead[w]; ok && ast.IsExported(name) {
					what := fmt.Sprintf("the exported name %s says %q; the word is %s", name, w, word)
					found = append(found, violation{s.path, what})
				}
			}
		}
	}
	report(t, found)
}

// declared are the names of functions, methods, types, fields, constants and
// variables that a file declares.
func declared(f *ast.File) []string {
	var names []string
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names = append(names, d.Name.Name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					names = append(names, identifiers(spec.Names)...)
				case *ast.TypeSpec:
					names = append(append(names, spec.Name.Name), members(spec.Type)...)
				}
			}
		}
	}
	return names
}

// members are the names of a struct's fields or an interface's methods.
func members(e ast.Expr) []string {
	var list *ast.FieldList
	switch e := e.(type) {
	case *ast.StructType:
		list = e.Fields
	case *ast.InterfaceType:
		list = e.Methods
	default:
		return nil
	}
	var names []string
	for _, f := range list.List {
		names = append(names, identifiers(f.Names)...)
	}
	return names
}

func identifiers(ids []*ast.Ident) []string {
	var names []string
	for _, id := range ids {
		names = append(names, id.Name)
	}
	return names
}

// words splits a name at its capital letters: clampEDNSSize is clamp, edns, size.
func words(name string) []string {
	var all []string
	rs := []rune(name)
	start := 0
	for i := 1; i <= len(rs); i++ {
		if i == len(rs) || unicode.IsUpper(rs[i]) &&
			(!unicode.IsUpper(rs[i-1]) || i+1 < len(rs) && unicode.IsLower(rs[i+1])) {
			all = append(all, strings.ToLower(string(rs[start:i])))
			start = i
		}
	}
	return all
}
