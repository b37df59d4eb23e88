package config

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The kinds of values that people write. Each implements flag.Value, checks what it is
// set to, and prints as nothing while it is the default.

// errEmpty refuses an empty value: it is more likely a variable that was not set than a
// wish for the default.
var errEmpty = errors.New("it has no value; give one, or leave it out")

// FlagError puts an error of flags.Parse into words for people: it names the flag as they
// write it, and a similar one if there is none of that name.
func FlagError(flags *flag.FlagSet, err error) error {
	said := err.Error()
	help := fmt.Sprintf("%q lists what there is", flags.Name()+" --help")
	if name, ok := strings.CutPrefix(said, "flag provided but not defined: -"); ok {
		return fmt.Errorf("--%s is not known; %s", name, suggestion(flags, "--", name, help))
	}
	if name, ok := strings.CutPrefix(said, "flag needs an argument: -"); ok {
		return fmt.Errorf("--%s: a value must follow", name)
	}
	if rest, ok := strings.CutPrefix(said, "invalid value "); ok {
		value, after, _ := strings.Cut(rest, " for flag -")
		name, why, _ := strings.Cut(after, ": ")
		return badValue(name, value, why)
	}
	if rest, ok := strings.CutPrefix(said, "invalid boolean value "); ok {
		value, after, _ := strings.Cut(rest, " for -")
		name, why, _ := strings.Cut(after, ": ")
		if why == "parse error" {
			why = "write true or false"
		}
		return badValue(name, value, why)
	}
	return fmt.Errorf("%w; %s", err, help)
}

// badValue shows a value in quotes before what is wrong with it, unless it is empty.
func badValue(name, value, why string) error {
	if value == `""` {
		return fmt.Errorf("--%s: %s", name, why)
	}
	return fmt.Errorf("--%s: %s: %s", name, value, why)
}

// UnexpectedArgument is the error of the first argument that is no flag, after flags were
// parsed from args.
func UnexpectedArgument(flags *flag.FlagSet, args []string) error {
	if at := len(args) - flags.NArg(); at > 0 {
		name := strings.TrimLeft(args[at-1], "-")
		f := flags.Lookup(name)
		if f != nil && name != args[at-1] {
			if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
				return fmt.Errorf("unexpected argument %q; --%s stands alone, or write --%s=%s", flags.Arg(0), name, name,
					flags.Arg(0))
			}
		}
	}
	return fmt.Errorf("unexpected argument %q; see %s --help", flags.Arg(0), flags.Name())
}

// suggestion names the flag whose name is most like the given one, with dashes before it,
// or returns help.
func suggestion(flags *flag.FlagSet, dashes, name, help string) string {
	best, distance := "", 3 // with more edits it is another word
	flags.VisitAll(func(f *flag.Flag) {
		if d := edits(strings.ReplaceAll(strings.ToLower(name), "_", "-"), f.Name); d < distance && 2*d <= len(name) {
			best, distance = f.Name, d
		}
	})
	if best == "" {
		return help
	}
	return "did you mean " + dashes + best + "?"
}

// edits is how many letters must be inserted, removed or replaced to turn one word into
// the other (Levenshtein distance).
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := slices.Clone(row)
		row[0] = i + 1
		for j := range len(b) {
			row[j+1] = min(before[j+1], row[j]) + 1
			if a[i] == b[j] {
				row[j+1] = min(row[j+1], before[j])
			} else {
				row[j+1] = min(row[j+1], before[j]+1)
			}
		}
	}
	return row[len(b)]
}

type text struct{ to *string }

func (t text) String() string {
	if t.to == nil {
		return ""
	}
	return *t.to
}

func (t text) Set(s string) error {
	if strings.TrimSpace(s) == "" {
		return errEmpty
	}
	*t.to = s
	return nil
}

// list is a comma-separated flag that may be repeated. The first use replaces the list of
// the configuration file; an empty one removes it.
type list struct {
	to       *[]string
	set      *bool // it was used
	nonEmpty bool  // an empty list is refused
}

func newList(to *[]string) list { return list{to: to, set: new(bool)} }

// newBounds is a list of what is allowed. It must not be empty: that would be the
// default, which allows more than the author of an empty list wants.
func newBounds(to *[]string) list { return list{to: to, set: new(bool), nonEmpty: true} }

func (l list) String() string {
	if l.to == nil {
		return ""
	}
	return strings.Join(*l.to, ",")
}

// replace removes the list of the file at the first use.
func (l list) replace() {
	if !*l.set {
		*l.set, *l.to = true, nil
	}
}

func (l list) Set(s string) error {
	if l.nonEmpty && strings.Trim(s, ", \t\n") == "" {
		return errEmpty
	}
	l.replace()
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			*l.to = append(*l.to, v)
		}
	}
	return nil
}

// span is a duration between two bounds, both allowed.
type span struct {
	to       *Duration
	min, max time.Duration
}

func (d span) String() string {
	if d.to == nil || *d.to == 0 {
		return ""
	}
	return short(time.Duration(*d.to))
}

func (d span) Set(s string) error {
	if strings.TrimSpace(s) == "" {
		return errEmpty
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("it is not a duration; write 5s, 10m or 24h")
	}
	if v < d.min || v > d.max {
		return fmt.Errorf("use %s to %s", short(d.min), short(d.max))
	}
	*d.to = Duration(v)
	return nil
}

// short is a duration without the units that are zero.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// number is a whole number between two bounds, both allowed.
type number struct {
	to       *int
	min, max int
}

func (n number) String() string {
	if n.to == nil || *n.to == 0 {
		return ""
	}
	return strconv.Itoa(*n.to)
}

func (n number) Set(s string) error {
	if strings.TrimSpace(s) == "" {
		return errEmpty
	}
	v, err := strconv.Atoi(s)
	if err != nil || v < n.min || v > n.max {
		return fmt.Errorf("use a number from %d to %d", n.min, n.max)
	}
	*n.to = v
	return nil
}

// size is a number of bytes that people write as 512MiB or 2GiB.
type size struct {
	to       *int
	min, max int
}

func (z size) String() string {
	if z.to == nil || *z.to == 0 {
		return ""
	}
	return sizeText(*z.to)
}

// sizeText is a number of bytes in the largest unit that gives a whole number.
func sizeText(n int) string {
	for _, u := range sizeUnits {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.Itoa(n/u.bytes) + u.name
		}
	}
	return strconv.Itoa(n)
}

var sizeUnits = [...]struct {
	name  string
	bytes int
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

func (z size) Set(s string) error {
	s = strings.TrimSpace(s)
	if s == "" {
		return errEmpty
	}
	unit := 1
	for _, u := range sizeUnits {
		if digits, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = digits, u.bytes
			break
		}
	}
	v, err := strconv.Atoi(s)
	if err != nil || v < 0 || v > z.max/unit || v*unit < z.min {
		return fmt.Errorf("use a size from %s to %s, such as 512MiB", sizeText(z.min), sizeText(z.max))
	}
	*z.to = v * unit
	return nil
}

// share is above 0 and at most 1.
type share struct{ to *float64 }

func (r share) String() string {
	if r.to == nil || *r.to == 0 {
		return ""
	}
	return strconv.FormatFloat(*r.to, 'g', -1, 64)
}

func (r share) Set(s string) error {
	if strings.TrimSpace(s) == "" {
		return errEmpty
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || v <= 0 || v > 1 {
		return errors.New("use a share above 0 and up to 1, such as 0.6")
	}
	*r.to = v
	return nil
}

type toggle struct{ to *bool }

func (b toggle) IsBoolFlag() bool { return true } // --insecure alone is true

func (b toggle) String() string {
	if b.to == nil || !*b.to {
		return ""
	}
	return "true"
}

func (b toggle) Set(s string) error {
	switch strings.ToLower(s) {
	case "true", "yes", "on":
		*b.to = true
	case "false", "no", "off":
		*b.to = false
	case "":
		return errEmpty
	default:
		return errors.New("write true or false")
	}
	return nil
}
