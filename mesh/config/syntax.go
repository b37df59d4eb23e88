package config

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxSearched is how many lines a file may have for brokenLine to search it: the search
// parses it once for each line.
const maxSearched = 400

// syntaxError says which line of a file is no YAML, and what to write instead. The line
// of the library's error is where it gave up or, more often, where the value that it was
// reading begins.
func syntaxError(text string, err error) error {
	n := brokenLine(text)
	if n == 0 {
		return withoutPrefix(err)
	}
	said := linePrefix.ReplaceAllString(withoutPrefix(err).Error(), "")
	return fmt.Errorf("line %d: %s%s", n, said, advice(strings.Split(text, "\n")[n-1]))
}

var linePrefix = regexp.MustCompile(`^line \d+: `)

// brokenLine returns the number of the first line without which the text before it is
// YAML and with which it is not, or 0.
func brokenLine(text string) int {
	lines := strings.Split(text, "\n")
	if len(lines) > maxSearched {
		return 0
	}
	for good := range slices.Backward(lines) {
		if !parses(strings.Join(lines[:good], "\n")) {
			continue
		}
		for i, line := range lines[good:] {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				return good + i + 1
			}
		}
	}
	return 0
}

// parses reports whether a text is YAML.
func parses(text string) bool {
	var doc yaml.Node
	err := yaml.NewDecoder(strings.NewReader(text)).Decode(&doc)
	return err == nil || errors.Is(err, io.EOF)
}

var entry = regexp.MustCompile(`^(\s*)([A-Za-z0-9_-]+):(.*)$`)

// advice says what to write instead of a line that is no YAML; it may be empty.
func advice(line string) string {
	m := entry.FindStringSubmatch(strings.TrimRight(line, "\r"))
	if m == nil {
		if strings.Contains(line, "=") {
			return "; write entries like \"node: host1\""
		}
		return ""
	}
	value := strings.TrimSpace(m[3])
	quotes := fmt.Sprintf("; put the value into quotes: %s: '%s'", m[2], value)
	switch {
	case value != "" && !strings.HasPrefix(m[3], " "):
		return "; a space goes behind the colon"
	case strings.Count(value, `"`) == 1 || strings.Count(value, "'") == 1:
		return "; a quote has no end"
	case strings.HasPrefix(value, "- "):
		return "; each item of a list has a line of its own, or write [ITEM, ITEM]"
	case strings.Count(value, "[") > strings.Count(value, "]"):
		return "; the list has no ] at its end"
	case strings.ContainsAny(value, `"'`):
		return ""
	case value != "" && strings.ContainsAny(value[:1], "[*&!%@`|>"), strings.Contains(value, ": "),
		strings.HasSuffix(value, ":"):
		return quotes
	case m[1] != "":
		return "; entries begin at the start of their line"
	}
	return ""
}
