package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// texts returns the contents of all files in which people refer to a document:
// documents, source and recipes, by their paths from the top.
func texts(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		name := filepath.Base(path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == "testdata"):
			return filepath.SkipDir
		case d.IsDir():
			return nil
		case name == "Makefile" || filepath.Base(filepath.Dir(path)) == ".ci" ||
			slices.Contains([]string{".go", ".md", ".sh", ".service", ".yaml", ".yml"}, filepath.Ext(name)):
			found[strings.TrimPrefix(path, "../")] = read(t, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestSectionsExist checks each reference to a numbered section: the document
// has that section. A reference without a document is to the one that it is in.
// Sections of RFCs and papers are not ours to check.
func TestSectionsExist(t *testing.T) {
	reference := regexp.MustCompile(`(\S+)?[ \n/]*§ ?([0-9]+)`)
	heading := regexp.MustCompile(`(?m)^## ([0-9]+)\. `)
	sections := map[string][]string{}
	for name, text := range documents(t) {
		for _, m := range heading.FindAllStringSubmatch(text, -1) {
			sections[name] = append(sections[name], m[1])
		}
	}
	ours := regexp.MustCompile(`^\(?(?:docs/)?([A-Z]+)(?:\.md)?$`)
	others := regexp.MustCompile(`RFC [0-9]+(, [0-9]+)*,?$|[A-Z]+ [12][0-9]{3},$`) // RFC 2308, NSDI 2016,
	for path, text := range texts(t) {
		text = strings.ReplaceAll(text, "\n//", "")
		for _, at := range reference.FindAllStringSubmatchIndex(text, -1) {
			number, document := text[at[4]:at[5]], path
			before := strings.TrimSpace(strings.TrimRight(text[max(0, at[0]-20):at[4]], "§ "))
			if others.MatchString(before) {
				continue
			}
			if word := before[strings.LastIndexAny(before, " \n")+1:]; ours.MatchString(word) {
				document = "docs/" + ours.FindStringSubmatch(word)[1] + ".md"
			}
			if !slices.Contains(sections[document], number) {
				t.Errorf("%s: %q: %s has no section %s", path, text[max(0, at[0]-20):at[1]], document, number)
			}
		}
	}
}

// TestRulesExist checks that each rule, or step of a rule, that a comment or a
// document cites is in docs/DESIGN.md, and is there once.
func TestRulesExist(t *testing.T) {
	const design = "docs/DESIGN.md"
	all := texts(t)
	rules := map[string]bool{}
	rule := regexp.MustCompile(`(?m)^ *- ([SVGRLNC][0-9]{1,2}(?:\.[0-9]{1,2})?) `)
	for _, m := range rule.FindAllStringSubmatch(all[design], -1) {
		if rules[m[1]] {
			t.Errorf("%s has two rules %s", design, m[1])
		}
		rules[m[1]] = true
	}
	if len(rules) < 60 {
		t.Fatalf("%s: only %d rules are found", design, len(rules))
	}
	comment := regexp.MustCompile(`(?m)(?:^|\s)//.*$`)
	citation := regexp.MustCompile(`\b[SVGRLNC][1-9][0-9]?(?:\.[1-9][0-9]?)?\b`)
	for path, text := range all {
		if filepath.Ext(path) == ".go" {
			text = strings.Join(comment.FindAllString(text, -1), "\n")
		}
		for _, rule := range citation.FindAllString(text, -1) {
			if !rules[rule] {
				t.Errorf("%s cites %s, which %s does not have", path, rule, design)
			}
		}
	}
}

// TestNamedDocumentsExist checks that a document that a comment names is there.
func TestNamedDocumentsExist(t *testing.T) {
	document := regexp.MustCompile(`(?m)//.*?\b(docs/[A-Z]+\.md|[a-z]+\.md)\b`)
	for path, text := range texts(t) {
		if filepath.Ext(path) != ".go" {
			continue
		}
		for _, m := range document.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
				t.Errorf("%s names %s, which is not there", path, m[1])
			}
		}
	}
}
