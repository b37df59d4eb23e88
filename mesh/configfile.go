package mesh

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxConfigSize is more than any configuration has.
const maxConfigSize = 1 << 20

// ReadConfig reads a YAML file, a plain one: one document, a flag's name and its value per
// entry, a list as a sequence or with commas. The error names the line and what
// to write instead.
func ReadConfig(path string) (Config, error) {
	var c Config
	b, err := readPlain(path, maxConfigSize, func(info fs.FileInfo) error { return onlyOurs(path, info) })
	if err != nil {
		return c, fmt.Errorf("config: %w", err)
	}
	if err := c.parse(string(b)); err != nil {
		return Config{}, fmt.Errorf("config %s: %w", path, err)
	}
	return c, nil
}

// onlyOurs refuses a file that anybody can change: it says whom meshd trusts.
func onlyOurs(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() && info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("%s can be changed by anybody (mode %04o); chmod o-w %s", path, info.Mode().Perm(), path)
	}
	return nil
}

// parse sets what the document says.
func (c *Config) parse(text string) error {
	if n := tabLine(text); n > 0 {
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

// tabLine returns the number of the first line that a tab begins, or 0.
func tabLine(text string) int {
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

// plain takes the library's name from its errors.
func plain(err error) error {
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
				meant(flags, "", name, "meshd --help lists what there is"))
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
	if many.some && len(v.Content) == 0 {
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
