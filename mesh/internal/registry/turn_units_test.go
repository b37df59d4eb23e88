package registry

import (
	"fmt"
	"testing"

	"meshd/mesh/source"
)

// Units that are gone leave nothing behind, however many there were; no turn comes
// twice, so that a late retry of one never passes for the next; and there is room for
// so many units (N10).
func TestUnitsAreBounded(t *testing.T) {
	s := newSink(nil)
	unit := source.Unit{Origin: source.Docker, Name: "web-1"}
	first, err := s.beginTurn(unit, true)
	if err != nil || !s.latest(unit, first) {
		t.Fatal(first, err)
	}
	s.remember(unit, nil, nil, first)
	if len(s.handed) != 0 || len(s.reported) != 0 {
		t.Errorf("of a unit that is gone %v and %v are left", s.handed, s.reported)
	}
	if second, _ := s.beginTurn(unit, true); second == first || s.latest(unit, first) {
		t.Error("a late retry passes for what was handed over since")
	}
	for i := len(s.handed); i < source.MaxUnits; i++ {
		if _, err := s.beginTurn(source.Unit{Origin: source.Docker, Name: fmt.Sprint(i)}, true); err != nil {
			t.Fatal(i, err)
		}
	}
	more := source.Unit{Origin: source.File, Name: "more.yaml"}
	if _, err := s.beginTurn(more, true); err == nil {
		t.Error("one more unit is taken")
	}
	for _, u := range []struct {
		unit  source.Unit
		tasks bool
	}{{unit, true}, {more, false}} {
		if _, err := s.beginTurn(u.unit, u.tasks); err != nil {
			t.Error(u, err)
		}
	}
}
