package mesh_test

import (
	"errors"
	"strings"
	"testing"

	"meshd/mesh/config"
	"meshd/mesh/control"
)

// An id that is in several networks names no task: docs/API.md promises a
// conflict, whose message lists the networks. With a network it names one.
func TestTaskIDInSeveralNetworks(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	a.network("net", "10.96.0.0/16")
	a.network("other", "10.97.0.0/16")
	for _, network := range []string{"net", "other"} {
		_, err := a.AddTask(t.Context(), control.AddTask{
			Network: network, Service: "web", ID: "twin", IPs: []string{"10.1.0.1"},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	both := control.TaskRef{ID: "twin"}
	_, drain := a.DrainTask(t.Context(), both)
	_, remove := a.RemoveTask(t.Context(), both)
	for what, err := range map[string]error{"drain": drain, "remove": remove} {
		e, ok := errors.AsType[*control.Error](err)
		if !ok || e.Code != control.CodeConflict || !strings.Contains(e.Message, "net, other") ||
			!strings.Contains(e.Hint, "--network") {
			t.Errorf("%s without a network: got %#v, want a conflict that lists net and other", what, err)
		}
	}
	for _, network := range []string{"net", "other"} {
		got, err := a.RemoveTask(t.Context(), control.TaskRef{ID: "twin", Network: network})
		if err != nil || got.Network != network {
			t.Errorf("remove in %s: got %+v, %v", network, got, err)
		}
	}
}
