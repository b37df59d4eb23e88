package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// This file owns which names nodes, networks, services and tasks may have (S17).

// checkLabel checks one DNS label in lower case.
func checkLabel(s string) error {
	if s == "" {
		return errors.New("empty label; use letters, digits, '-' and '_'")
	}
	if len(s) > MaxLabel {
		return fmt.Errorf("%q is longer than %d characters", s, MaxLabel)
	}
	for i, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && (c != '-' || i == 0 || i == len(s)-1) {
			return fmt.Errorf("%q has the character %q in it; use letters, digits, '_' and inner '-'", s, c)
		}
	}
	return nil
}

// wrongName returns the *FieldError of a name.
func wrongName(format string, args ...any) error {
	return &FieldError{Field: "name", Reason: fmt.Errorf(format, args...)}
}

// CheckNode reports whether s may name a node: one DNS label in lower case.
func CheckNode(s string) error {
	if err := checkLabel(s); err != nil {
		return fieldError("name", err)
	}
	return nil
}

// CheckName reports whether s may name a network or a service: one DNS label
// in lower case that is not reserved.
func CheckName(s string) error {
	if err := checkLabel(s); err != nil {
		return fieldError("name", err)
	}
	return checkReserved(s)
}

// checkReserved refuses labels that mean something else: the resolver's own
// words, and the name that every system takes for the host itself.
func checkReserved(s string) error {
	switch s {
	case "tasks", "nearest":
		return wrongName("%q is reserved (tasks.<service>, nearest.<service>)", s)
	case "localhost":
		return wrongName("%q is the host itself, everywhere", s)
	}
	return nil
}

// CheckDotted reports whether s has the form of a host name: dot-separated
// labels in lower case.
func CheckDotted(s string) error {
	if len(s) > MaxName {
		return wrongName("%d characters, at most %d", len(s), MaxName)
	}
	for rest, more := s, true; more; {
		var label string
		label, rest, more = strings.Cut(rest, ".")
		if err := checkLabel(label); err != nil {
			return fieldError("name", err)
		}
	}
	if strings.HasPrefix(s, "tasks.") || strings.HasPrefix(s, "nearest.") {
		return wrongName("%q starts with a reserved label (tasks, nearest)", s)
	}
	return nil
}

// CheckTaskName reports whether s may be an alias, host name or container name
// of a task. Its whole network resolves such a name to the task, so it must not
// be one of the public DNS: a name with dots ends in a label that no public
// domain has, because it is set apart for private use or not made of letters
// alone, or is the id of a task. Thus web.1.3f9c2a and db.internal are names,
// and github.com is not.
func CheckTaskName(s string) error {
	if err := CheckDotted(s); err != nil {
		return err
	}
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return checkReserved(s)
	}
	if last := s[i+1:]; last == "localhost" || publicLooking(last) && !madeID(s, last) &&
		!slices.Contains(privateDomains, last) && !strings.HasSuffix(s, ".home.arpa") {
		return wrongName("%q could be a domain of the internet; use a name without dots, or one that ends in .internal",
			s)
	}
	return nil
}

// privateDomains are the top-level domains that the public DNS does not
// delegate, by RFC 2606, 6761, 6762 and 7686 or by ICANN's decision, and those
// that have long been in private use.
var privateDomains = []string{
	"internal", "test", "example", "invalid", "local", "lan", "intranet", "private", "home",
	"corp",
}

// The lengths of ids that are made at random: one in fifty of the shorter ones,
// and one in three thousand of the longer, is all letters.
const (
	slotID = 12
	anyID  = 25 // longer than any top-level domain
)

// madeID reports whether the last label of a container's name is an id: a long
// one by itself, a short one behind the number of a slot, as in web.1.ID.
func madeID(name, last string) bool {
	if strings.HasPrefix(last, "xn--") || len(last) < slotID {
		return false
	}
	labels := strings.Split(name, ".")
	return len(last) >= anyID || len(labels) == 3 && len(last) == slotID && numeric(labels[1])
}

// hasLetter reports whether an ASCII letter is in s, as in every service's name
// (RFC 6335): digits and a "-" are a number, or a range of them.
func hasLetter(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r|0x20 >= 'a' && r|0x20 <= 'z' })
}

// numeric reports whether a label is a number.
func numeric(label string) bool {
	return !strings.ContainsFunc(label, func(r rune) bool { return r < '0' || r > '9' })
}

// publicLooking reports whether a label could be a top-level domain: all of
// them are letters alone, two at least, or an internationalized name.
func publicLooking(label string) bool {
	if strings.HasPrefix(label, "xn--") {
		return true
	}
	for i := range len(label) {
		if label[i] < 'a' || label[i] > 'z' {
			return false
		}
	}
	return len(label) > 1
}
