package registry_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"meshd/mesh/control"
	"meshd/mesh/internal/registry/registrytest"
	"meshd/mesh/source"
	"meshd/state"
)

// task is one of the service web at an address.
func task(id, ip string) source.Task {
	return source.Task{AddTask: control.AddTask{Network: "net", Service: "web", ID: id, IPs: []string{ip}}}
}

func (l *life) replace(t *testing.T, unit source.Unit, tasks ...source.Task) []source.Outcome {
	t.Helper()
	out, err := l.Sink().Replace(t.Context(), unit, tasks)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// origins are the tasks of the node with who states them.
func (l *life) origins(t *testing.T) string {
	t.Helper()
	tasks, err := l.Tasks().Tasks(t.Context(), control.TaskFilter{})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, x := range tasks {
		out = append(out, x.ID+"="+x.Origin)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// N10: of a unit only what differs changes; what it does not name any more goes.
func TestUnitsAreCompared(t *testing.T) {
	l := start(t, &registrytest.Disk{}, 1)
	l.network(t)
	unit := source.Unit{Origin: source.File, Name: "web.yaml"}
	first := task("", "10.1.0.1")
	first.Location = "web.yaml:3"
	out := l.replace(t, unit, first, task("b", "10.1.0.2"))
	if out[0].Change != source.Added || out[1].Change != source.Added || len(out[0].ID) != 25 {
		t.Fatalf("%+v", out)
	}
	if got := l.origins(t); !strings.Contains(got, "=file:web.yaml:3") || !strings.Contains(got, "b=file:web.yaml") {
		t.Error(got)
	}
	if again := l.replace(t, unit, first, task("b", "10.1.0.2")); again[0].Change != source.Unchanged ||
		again[0].ID != out[0].ID || again[1].Change != source.Unchanged {
		t.Errorf("the same again: %+v", again)
	}
	changed := task("b", "10.1.0.3")
	if again := l.replace(t, unit, changed); again[0].Change != source.Changed {
		t.Errorf("%+v", again)
	}
	if got := l.origins(t); got != "b=file:web.yaml" {
		t.Error(got)
	}
	for what, do := range map[string]func() error{
		"file:": nil,
		"web.yaml": func() error {
			_, err := l.Tasks().RemoveTask(t.Context(), control.TaskRef{ID: "b"})
			return err
		},
		"definition file": func() error {
			_, err := l.Tasks().DrainTask(t.Context(), control.TaskRef{ID: "b"})
			return err
		},
	} {
		if do == nil {
			continue
		}
		if err := do(); !errors.Is(err, control.ErrRefused) || !strings.Contains(err.Error(), what) {
			t.Errorf("the API changes it: %v", err)
		}
	}
	l.replace(t, unit)
	if got := l.origins(t); got != "" {
		t.Errorf("the unit is gone, and there is %s", got)
	}
}

// Of two origins that state one id, or one place, the first keeps it; the second has it
// when that goes.
func TestFirstOriginKeepsAnId(t *testing.T) {
	l := start(t, &registrytest.Disk{}, 1)
	l.network(t)
	a, b := source.Unit{Origin: source.File, Name: "a.yaml"}, source.Unit{Origin: source.Docker, Name: "b-1"}
	l.replace(t, a, task("one", "10.1.0.1"), task("two", "10.1.0.2"))
	out := l.replace(t, b, task("one", "10.1.0.9"), task("three", "10.1.0.2"), task("four", "10.1.0.4"))
	if out[0].Change != source.Waiting || out[1].Change != source.Waiting || out[2].Change != source.Added {
		t.Fatalf("%+v", out)
	}
	text := strings.Join(l.Sink().Waiting(), "\n")
	for _, want := range []string{"docker:b-1", "file:a.yaml", `"one"`, "10.1.0.2"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s does not name %s", text, want)
		}
	}
	l.replace(t, a)
	eventually(t, func() string {
		if got := l.origins(t); got != "four=docker:b-1 one=docker:b-1 three=docker:b-1" {
			return got
		}
		return ""
	})
	if w := l.Sink().Waiting(); len(w) > 0 {
		t.Error(w)
	}
}

// What a source stated is held over a restart until it has reported: what it names or
// keeps stays, what it does not name goes.
func TestUnitsAreHeldUntilSynced(t *testing.T) {
	disk := &registrytest.Disk{}
	l := start(t, disk, 1)
	l.network(t)
	units := map[string]source.Unit{}
	for i, name := range []string{"stays", "kept", "gone"} {
		units[name] = source.Unit{Origin: source.File, Name: name}
		l.replace(t, units[name], task(name, "10.1.0."+string(rune('1'+i))))
	}
	l.replace(t, source.Unit{Origin: source.Docker, Name: "c"}, task("other", "10.1.0.7"))
	l.stop()
	l = start(t, disk, 2)
	const all = "gone=file:gone kept=file:kept other=docker:c stays=file:stays"
	if got := l.origins(t); got != all {
		t.Fatal(got)
	}
	if out := l.replace(t, units["stays"], task("stays", "10.1.0.1")); out[0].Change != source.Unchanged {
		t.Errorf("%+v", out)
	}
	if err := errors.Join(l.Sink().Keep(t.Context(), units["kept"]),
		l.Sink().Synced(t.Context(), source.File)); err != nil {
		t.Fatal(err)
	}
	if got := l.origins(t); got != "kept=file:kept other=docker:c stays=file:stays" {
		t.Error(got)
	}
}

// A verdict needs no disk, outlives a restart once the disk works, and is not undone
// when the unit is handed over again.
func TestVerdicts(t *testing.T) {
	disk := &registrytest.Disk{}
	l := start(t, disk, 1)
	l.network(t)
	unit, ref := source.Unit{Origin: source.Docker, Name: "c"}, source.Ref{Network: "net", ID: "one"}
	l.replace(t, unit, task("one", "10.1.0.1"))
	health := func() state.Health { return l.mesh.Source().View("net").Task("one").Endpoint().Health }
	disk.Fail(errors.New("no space left on device"))
	err := l.Sink().SetHealth(t.Context(), []source.Verdict{
		{Ref: ref, Health: state.HealthFailing},
		{Ref: source.Ref{Network: "none", ID: "x"}, Health: state.HealthFailing},
	})
	if err != nil || health() != state.HealthFailing {
		t.Fatal(err, health())
	}
	disk.Fail(nil)
	moved := task("one", "10.1.0.2")
	if out := l.replace(t, unit, moved); out[0].Change != source.Changed || health() != state.HealthFailing {
		t.Errorf("%+v, it is %v", out, health())
	}
	eventually(t, func() string {
		if e, ok := l.Snapshot().Task("net", "one"); !ok || e.Health != state.HealthFailing {
			return "the verdict is not saved"
		}
		return ""
	})
	l.stop()
	l = start(t, disk, 2)
	if health() != state.HealthFailing {
		t.Error("after the restart it is", health())
	}
}

// What waits is tried again as it was handed over last, and never as it was before.
func TestRetriesAreOfTheLatest(t *testing.T) {
	l := start(t, &registrytest.Disk{}, 1)
	l.network(t)
	a, b := source.Unit{Origin: source.File, Name: "a"}, source.Unit{Origin: source.File, Name: "b"}
	l.replace(t, a, task("one", "10.1.0.1"))
	l.replace(t, b, task("one", "10.1.0.2"), task("two", "10.1.0.3"))
	l.replace(t, b, task("one", "10.1.0.4"))
	l.replace(t, a)
	eventually(t, func() string {
		e, ok := l.Snapshot().Task("net", "one")
		if got := l.origins(t); !ok || e.IP4.String() != "10.1.0.4" || got != "one=file:b" {
			return got + " " + e.IP4.String()
		}
		return ""
	})
}
