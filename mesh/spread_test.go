package mesh

import (
	"context"
	"testing"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/mesh/peers"
	"meshd/state"
)

// What a node answers to "spread" is the first thing that it lacks.
func TestLacks(t *testing.T) {
	n, ctx := startNode(t)
	if _, err := n.CreateNetwork(ctx, control.CreateNetwork{Name: "net", Subnet: "10.96.0.0/16"}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.AddTask(ctx, control.AddTask{Network: "net", Service: "web", IPs: []string{"10.1.0.7"}}); err != nil {
		t.Fatal(err)
	}
	var own state.Head
	if err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		own,
			_ = c.Store().Table("net").Head("a")
	}); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		of   state.NodeID
		ask  spreadAsk
		want lack
	}{
		"all of it":                   {"a", spreadAsk{"net", true, own.Inc, own.Version}, ""},
		"a version to come":           {"a", spreadAsk{"net", true, own.Inc, own.Version + 1}, lacksChanges},
		"an incarnation to come":      {"a", spreadAsk{"net", true, own.Inc + 1, 0}, lacksChanges},
		"a former incarnation":        {"a", spreadAsk{"net", true, own.Inc - 1, own.Version + 9}, ""},
		"a stream that is not here":   {"b", spreadAsk{"net", true, 1, 1}, lacksChanges},
		"a node that states nothing":  {"b", spreadAsk{"net", true, 0, 0}, ""},
		"a network that is not known": {"b", spreadAsk{"new", true, 1, 1}, lacksDefinition},
		"a network that was removed":  {"b", spreadAsk{"net", false, 0, 0}, lacksRemoval},
		"no network":                  {"b", spreadAsk{"none", false, 0, 0}, ""},
		"the global scope":            {"b", spreadAsk{"", false, 1, 1}, lacksChanges},
	} {
		if got := n.lacks(ctx, tt.of, tt.ask); got != tt.want {
			t.Errorf("%s: lacks %q, want %q", name, got, tt.want)
		}
	}
}

// What a peer sends for a question or an answer is not trusted.
func TestSpreadHostile(t *testing.T) {
	n, _ := startNode(t)
	for _, body := range []string{"", "x", "[]", `{"n":7}`, `{"n":"` + string(make([]byte, 2*maxSpread)) + `"}`} {
		if got := n.onSpreadCall("b", []byte(body)); got != nil {
			t.Errorf("question %.20q: answered %q", body, got)
		}
		if _, err := parseSpread([]byte(body)); err == nil && body != `{"n":7}` {
			t.Errorf("answer %.20q: accepted", body)
		}
	}
	if l, err := parseSpread([]byte(`{"l":"\u001b[2J"}`)); err != nil || l.String() != "is not done" {
		t.Errorf("an answer of another version: %q, %v", l, err)
	}
}

// Who does not answer in time is said to do so, wherever the time ended.
func TestSilentNodes(t *testing.T) {
	n, ctx := startNode(t)
	for _, limit := range []time.Duration{0, 20 * time.Millisecond} {
		short, cancel := context.WithTimeout(ctx, limit)
		_, silent := peers.Call(short, caller{n}, []control.Node{{Name: "b"}}, callSpread, nil, parseSpread)
		cancel()
		if len(silent) != 1 || silent[0] != (control.SilentNode{Node: "b", Error: "does not answer"}) {
			t.Errorf("after %v: %v", limit, silent)
		}
	}
}
