package test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents are the texts whose commands must exist.
func documents(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	docs := map[string]string{}
	for _, p := range append(paths, "../README.md", "../CONTRIBUTING.md", "../CHANGELOG.md") {
		docs[strings.TrimPrefix(p, "../")] = read(t, p)
	}
	return docs
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMakeTargetsInDocs checks that each `make target` that a document names
// is in the Makefile.
func TestMakeTargetsInDocs(t *testing.T) {
	makefile := read(t, "../Makefile")
	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`).FindAllStringSubmatch(makefile, -1) {
		targets = append(targets, m[1])
	}
	mention := regexp.MustCompile("(?m)(?:`|^ *)make ([a-z][a-z0-9-]*)")
	for name, text := range documents(t) {
		for _, m := range mention.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(targets, m[1]) {
				t.Errorf("%s says \"make %s\"; the Makefile has %v", name, m[1], targets)
			}
		}
	}
}

// TestEveryTargetIsExplained checks that `make` alone lists every target.
func TestEveryTargetIsExplained(t *testing.T) {
	for line := range strings.Lines(read(t, "../Makefile")) {
		target, rest, ok := strings.Cut(line, ":")
		if ok && regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(target) && !strings.Contains(rest, "## ") {
			t.Errorf("Makefile: target %s has no ## line", target)
		}
	}
}

// TestLinksInDocs checks that files which a document links to exist.
func TestLinksInDocs(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for name, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			path := filepath.Join("..", filepath.Dir(name), m[1])
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
	}
}

// TestReadmeNamesEveryPackage checks the package map; a package inside another
// is spoken for by that one.
func TestReadmeNamesEveryPackage(t *testing.T) {
	readme := read(t, "../README.md")
	for pkg := range mayImport {
		_, err := os.Stat(filepath.Join("..", pkg))
		outer := filepath.ToSlash(filepath.Dir(pkg))
		if err == nil && !strings.Contains(readme, "`"+pkg+"`") &&
			(outer == "test" || !strings.Contains(readme, "`"+outer+"`")) {
			t.Errorf("the package map of README.md lacks `%s`", pkg)
		}
	}
}

// TestUnitNamesInstalledFiles checks that what the systemd unit names under
// /usr/local is what make install puts there.
func TestUnitNamesInstalledFiles(t *testing.T) {
	makefile := read(t, "../Makefile")
	for _, path := range regexp.MustCompile(`/usr/local/[^ \n]+`).FindAllString(read(t,
		"../examples/systemd/meshd.service"), -1) {
		dir, name := filepath.Split(path)
		if !strings.Contains(makefile, "$(DESTDIR)"+strings.TrimSuffix(dir, "/")) || !strings.Contains(makefile, name) {
			t.Errorf("the unit names %s, which make install does not make", path)
		}
	}
}
