package source

import (
	"errors"
	"strings"
	"testing"

	"meshd/mesh/control"
	"meshd/state"
)

// What a source says is shown in tables and kept on disk: it is bounded, and printable.
func TestNamesOfUnits(t *testing.T) {
	for _, x := range []struct {
		unit Unit
		says string
	}{
		{Unit{File, "web.yaml"}, ""},
		{Unit{Docker, "web-1"}, ""},
		{Unit{API, ""}, ""},
		{Unit{API, "nightly"}, ""},
		{Unit{File, ""}, "missing"},
		{Unit{"", "x"}, "origin"},
		{Unit{"a:b", "x"}, "origin"},
		{Unit{File, "a\nb"}, "U+000A"},
		{Unit{File, "a\x1b[31mb"}, "U+001B"},
		{Unit{File, "\xff"}, "UTF-8"},
		{Unit{File, strings.Repeat("x", MaxName)}, ""},
		{Unit{File, strings.Repeat("x", MaxName+1)}, "at most 255"},
	} {
		err := x.unit.Check()
		if (err != nil) != (x.says != "") || err != nil && (!strings.Contains(err.Error(), x.says) ||
			!errors.Is(err, control.ErrInvalid)) {
			t.Errorf("%q: %v", x.unit, err)
		}
	}
}

func TestWhatIsSaidOfTasks(t *testing.T) {
	for _, x := range []struct {
		task Task
		says string
	}{
		{Task{Location: "web.yaml:12", Checks: make([]byte, MaxChecks)}, ""},
		{Task{Location: "a\x00"}, "location"},
		{Task{Checks: make([]byte, MaxChecks+1)}, "checks"},
		{Task{Health: state.HealthFailing + 1}, "health"},
	} {
		err := x.task.Check()
		if (err != nil) != (x.says != "") || err != nil && !strings.Contains(err.Error(), x.says) {
			t.Errorf("%.40v: %v", x.task, err)
		}
	}
}

func TestOriginsAsShown(t *testing.T) {
	for want, got := range map[string]string{
		"docker:web-1": Unit{Docker, "web-1"}.String(), "api": Unit{API, ""}.String(),
		"file:web.yaml": Unit{File, "web.yaml"}.String(), "file:web.yaml:12": Unit{File, "web.yaml"}.At("web.yaml:12"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
