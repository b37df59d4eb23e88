package mesh

import (
	"fmt"
	"strings"
	"testing"

	"meshd/state"
)

// However many services have no address, a status says so in a few lines.
func TestConflictsAreSummedUp(t *testing.T) {
	var services []*state.Service
	for i := range 88 {
		services = append(services, &state.Service{
			Name:     fmt.Sprintf("s%02d", i),
			Conflict: "no IPv4 VIP: the pool 10.9.0.0/28 is exhausted",
		})
	}
	services = append(services, &state.Service{Name: "web"}, &state.Service{Name: "x", Conflict: "pinned twice"})
	got := strings.Join(conflictsIn("net", services), "\n")
	want := "network net: 88 services: no IPv4 VIP: the pool 10.9.0.0/28 is exhausted; first: s00\nnetwork net service " +
		"x: pinned twice"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for i := range services {
		services[i].Conflict = fmt.Sprint("reason ", i)
	}
	if out := conflictsIn("net", services); len(out) != maxShown+1 ||
		!strings.Contains(out[maxShown], "80 more services") {
		t.Errorf("%d lines, the last: %s", len(out), out[len(out)-1])
	}
}
