package peers

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"meshd/mesh/control"
	"meshd/state"
)

// fakeMesh answers for nodes. A node without an answer is silent.
type fakeMesh struct {
	nodes   []control.Node
	answers map[string]string
	down    error

	mu    sync.Mutex // guards asked
	asked []string
}

func (m *fakeMesh) Nodes(context.Context) ([]control.Node, error) {
	return slices.Clone(m.nodes), m.down
}

func (m *fakeMesh) Call(_ context.Context, to state.NodeID, _ string, _ []byte) ([]byte, error) {
	m.mu.Lock()
	m.asked = append(m.asked, string(to))
	m.mu.Unlock()
	if a, ok := m.answers[string(to)]; ok {
		return []byte(a), nil
	}
	return nil, context.DeadlineExceeded
}

func parseText(b []byte) (string, error) {
	if len(b) == 0 {
		return "", errors.New("malformed answer")
	}
	return string(b), nil
}

// Asked are the nodes that may answer; who does not, or not in order, is named.
func TestCallAll(t *testing.T) {
	live := func(name string) control.Node {
		return control.Node{Name: name, State: control.NodeAlive, Proven: true}
	}
	m := &fakeMesh{
		nodes: []control.Node{
			{Name: "self", State: control.NodeAlive, Self: true},
			live("a"),
			{Name: "suspected", State: control.NodeSuspect, Version: "1"},
			{Name: "dead", State: control.NodeDead, Proven: true},
			{Name: "made-up", State: control.NodeAlive},
			live("z-broken"), live("silent"),
		},
		answers: map[string]string{"a": "yes", "suspected": "no", "z-broken": "", "dead": "x", "made-up": "x", "self": "x"},
	}
	answers, silent, err := CallAll(t.Context(), m, "op", nil, parseText)
	if err != nil || !maps.Equal(answers, map[string]string{"a": "yes", "suspected": "no"}) {
		t.Errorf("answers %v, %v", answers, err)
	}
	want := []control.SilentNode{{Node: "silent", Error: "does not answer"}, {Node: "z-broken", Error: "malformed answer"}}
	if !slices.Equal(silent, want) {
		t.Errorf("silent %v", silent)
	}
	slices.Sort(m.asked)
	if got := strings.Join(m.asked, " "); got != "a silent suspected z-broken" {
		t.Errorf("asked %s", got)
	}
	m.down = errors.New("stopped")
	if _, _, err := CallAll(t.Context(), m, "op", nil, parseText); !errors.Is(err, m.down) {
		t.Error(err)
	}
}
