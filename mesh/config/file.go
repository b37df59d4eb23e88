package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"go.yaml.in/yaml/v3"

	"meshd/mesh/internal/store"
)

// maxConfigSize is how many bytes a file may have; none needs as many.
const maxConfigSize = 1 << 20

// Read reads a plain file of YAML: one document with an entry for each flag, its name and
// value; lists are sequences or have commas. The error names the file, the line and what
// to write instead. Whether the values can work together is checked by Config.Check.
func Read(path string) (Config, error) {
	var c Config
	b, err := store.ReadPlain(path, maxConfigSize, func(info fs.FileInfo) error { return checkWritable(path, info) })
	if err != nil {
		return c, fmt.Errorf("config: %w", err)
	}
	if err := c.parse(string(b)); err != nil {
		return Config{}, fmt.Errorf("config %s: %w", path, err)
	}
	return c, nil
}

// checkWritable refuses a file that every user can change, since it says whom meshd
// trusts.
func checkWritable(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() && info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("%s can be changed by anybody (mode %04o); chmod o-w %s", path, info.Mode().Perm(), path)
	}
	return nil
}

// parse sets the fields of the document's entries.
func (c *Config) parse(text string) error {
	if n := lineWithTab(text); n > 0 {
		return fmt.Errorf("line %d: a tab; YAML takes spaces only", n)
	}
	d := yaml.NewDecoder(strings.NewReader(text))
	var doc, more yaml.Node
	if err := d.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // nothing, or comments only
	} else if err != nil {
		return syntaxError(text, err)
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		if err != nil {
			return syntaxError(text, err)
		}
		return fmt.Errorf("line %d: a second document; write everything into one, without ---", more.Line)
	}
	return c.entries(doc.Content[0])
}

// lineWithTab returns the number of the first line that is indented with a tab, or 0.
func lineWithTab(text string) int {
	n := 0
	for line := range strings.Lines(text) {
		n++
		if rest := strings.TrimLeft(line, " "); strings.HasPrefix(rest, "\t") && strings.TrimSpace(rest) != "" &&
			!strings.HasPrefix(strings.TrimSpace(rest), "#") {
			return n
		}
	}
	return 0
}

// withoutPrefix takes the library's name from its errors.
func withoutPrefix(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
}

func (c *Config) entries(top *yaml.Node) error {
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return nil
	}
	if top.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: write entries like \"node: host1\", one a line", top.Line)
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	c.RegisterFlags(flags)
	lines := map[string]int{}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		name := key.Value
		to := flags.Lookup(name)
		if key.Kind != yaml.ScalarNode || to == nil {
			return fmt.Errorf("line %d: %q is not known; %s", key.Line, name,
				suggestion(flags, "", name, "meshd --help lists what there is"))
		}
		if first := lines[name]; first > 0 {
			return fmt.Errorf("line %d: %s is there twice, in line %d too; keep one", key.Line, name, first)
		}
		lines[name] = key.Line
		if err := set(to.Value, value); err != nil {
			return fmt.Errorf("line %d: %s: %w", value.Line, name, err)
		}
	}
	return nil
}

// set gives a flag what an entry says.
func set(to flag.Value, v *yaml.Node) error {
	if v.Kind == yaml.AliasNode {
		v = v.Alias
	}
	many, isList := to.(list)
	switch {
	case v.Kind == yaml.ScalarNode && (v.Tag == "!!null" || strings.TrimSpace(v.Value) == ""):
		return errEmpty
	case v.Kind == yaml.ScalarNode:
		return quoted(v.Value, to.Set(v.Value))
	case v.Kind == yaml.MappingNode && v.Style&yaml.FlowStyle != 0:
		return errors.New("it has entries of its own, in braces; is it a template that was not filled in? write one value " +
			"behind it")
	case v.Kind != yaml.SequenceNode:
		return errors.New("it has entries of its own; write one value behind it")
	case !isList:
		return errors.New("it takes one value, not a list")
	}
	if many.nonEmpty && len(v.Content) == 0 {
		return errEmpty
	}
	many.replace()
	for _, item := range v.Content {
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" || strings.TrimSpace(item.Value) == "" {
			return errors.New("every item of the list must be one value")
		}
		if err := many.Set(item.Value); err != nil {
			return quoted(item.Value, err)
		}
	}
	return nil
}

// quoted puts the value before what is wrong with it.
func quoted(value string, err error) error {
	if err == nil || errors.Is(err, errEmpty) {
		return err
	}
	return fmt.Errorf("%q: %w", value, err)
}
