package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// show prints v as JSON or, without -o json, what table writes.
func (s *session) show(v any, table func(w io.Writer)) error {
	if !s.json {
		var b bytes.Buffer
		table(&b)
		_, err := s.stdout.Write(b.Bytes())
		return err
	}
	enc := json.NewEncoder(s.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// warn prints warnings to stderr.
func (s *session) warn(warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(s.stderr, "warning: %s\n", printable(w))
	}
}

// table prints aligned columns. Empty cells become "-".
func table(w io.Writer, head string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, strings.Join(strings.Fields(head), "\t"))
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = orDash(c)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	_ = t.Flush() // w is a buffer
}

// pairs prints "Key:   value" lines; the arguments alternate.
func pairs(w io.Writer, kv ...string) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for i := 0; i+1 < len(kv); i += 2 {
		fmt.Fprintf(t, "%s:\t%s\n", kv[i], orDash(kv[i+1]))
	}
	_ = t.Flush() // w is a buffer
}

// section prints a heading and lines, or nothing if there are none.
func section(w io.Writer, head string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", head)
	for _, l := range lines {
		fmt.Fprintf(w, "  %s\n", printable(l))
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s)
}

// join joins what String gives with commas.
func join[T fmt.Stringer](all []T) string {
	var b strings.Builder
	for i, v := range all {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(v.String())
	}
	return b.String()
}

// count formats a figure; a negative one is absent.
func count(n int64) string {
	if n < 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// age says how long ago t was, in one unit.
func (s *session) age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := max(s.now().Sub(t), 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
