package source

import (
	"unicode"
	"unicode/utf8"

	"meshd/mesh/control"
	"meshd/state"
)

// Check refuses a unit whose names cannot be shown or kept, as an *control.Error of
// CodeInvalid.
func (u Unit) Check() error {
	if err := CheckOrigin(u.Origin); err != nil {
		return err
	}
	if u.Name == "" && u.Origin != API {
		return invalid("unit", "name what states the tasks", "it is missing")
	}
	return checkText("unit", u.Name, MaxName)
}

// CheckOrigin refuses a text that is no kind of origin.
func CheckOrigin(origin string) error {
	if err := state.CheckName(origin); err != nil {
		return invalid("origin", "use a short name such as file or docker", err.Error())
	}
	return nil
}

// Check refuses what is said of a task beside what control.AddTask says, which has its
// own constructor.
func (t *Task) Check() error {
	if t.Health > state.HealthFailing {
		return invalid("health", "use passing, starting or failing", "it is not known")
	}
	if len(t.Checks) > MaxChecks {
		return control.Refuse(control.CodeTooLarge, "define fewer or smaller checks",
			"checks: they have %d bytes, at most %d", len(t.Checks), MaxChecks)
	}
	return checkText("location", t.Location, MaxLocation)
}

// checkText refuses a text that does not fit into a line of a table.
func checkText(field, s string, most int) error {
	switch {
	case len(s) > most:
		return control.Refuse(control.CodeInvalid, "shorten it", "%s: it has %d bytes, at most %d", field, len(s), most)
	case !utf8.ValidString(s):
		return invalid(field, "write it in UTF-8", "it is not UTF-8")
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return control.Refuse(control.CodeInvalid, "leave the character out", "%s: it has the character %U", field, r)
		}
	}
	return nil
}

// invalid is the refusal of a field.
func invalid(field, hint, problem string) error {
	return &control.Error{Code: control.CodeInvalid, Field: field, Hint: hint, Message: field + ": " + problem}
}

// String returns the origin as people see it: "docker:web-1", "file:web.yaml", "api".
func (u Unit) String() string { return u.At("") }

// At returns the origin of a task of the unit at a location in it.
func (u Unit) At(position string) string {
	if position == "" {
		position = u.Name
	}
	if position == "" {
		return u.Origin
	}
	return u.Origin + ":" + position
}

// String names the change, for logs.
func (c Change) String() string {
	switch c {
	case Added:
		return "added"
	case Changed:
		return "changed"
	case Waiting:
		return "waiting"
	}
	return "unchanged"
}
