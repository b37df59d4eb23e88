package compare

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"meshd/mesh/control"
	"meshd/state"
)

// ticks is a Lamport clock.
type ticks struct{ n uint64 }

func (c *ticks) Tick() uint64     { c.n++; return c.n }
func (c *ticks) Time() uint64     { return c.n }
func (c *ticks) Witness(n uint64) { c.n = max(c.n, n) }

// fakeTables is a store that belongs to one goroutine.
type fakeTables struct {
	store    *state.Store
	balanced bool
	down     error
}

func (f *fakeTables) Do(_ context.Context, do func(s *state.Store)) error {
	if f.down == nil {
		do(f.store)
	}
	return f.down
}

func (f *fakeTables) Balanced(context.Context, string) (bool, error) { return f.balanced, nil }

// fakePeers are nodes that answer what is written here.
type fakePeers map[string]string

func (p fakePeers) Nodes(context.Context) ([]control.Node, error) {
	out := []control.Node{{Name: "a", State: control.NodeAlive, Self: true, Proven: true}}
	for name := range p {
		out = append(out, control.Node{Name: name, State: control.NodeAlive, Proven: true})
	}
	return out, nil
}

func (p fakePeers) Call(_ context.Context, to state.NodeID, op string, _ []byte) ([]byte, error) {
	if p[string(to)] == "" {
		return nil, context.DeadlineExceeded
	}
	return []byte(p[string(to)]), nil
}

var errNoNetwork = errors.New("no such network")

// newService returns the service of node a, which has a task in network net.
func newService(t *testing.T, p fakePeers) (*Service, *fakeTables) {
	t.Helper()
	f := &fakeTables{store: state.NewStore("a", 3, state.DefaultLimits(), &ticks{}), balanced: true}
	claim := state.NetworkClaim{NetworkDef: state.NetworkDef{
		Name: "net", Subnet4: netip.MustParsePrefix("10.96.0.0/16"), Birth: 1,
	}}
	e := state.Endpoint{ID: "t1", Service: "web", IP4: netip.MustParseAddr("10.1.0.7"), Weight: 1}
	commit := func(table *state.Table, c state.Change) {
		t.Helper()
		if _, err := table.Commit([]state.Change{c}); err != nil {
			t.Fatal(err)
		}
	}
	commit(f.store.Global(), state.Change{
		Kind: state.KindNetwork, Key: "net", Body: string(state.AppendNetwork(nil, claim)),
	})
	commit(f.store.Join("net"), state.Change{
		Kind: state.KindEndpoint, Key: "t1", Group: "web", Body: string(state.AppendEndpoint(nil, &e)),
	})
	f.store.Publish(0)
	return New(Config{Self: "a", Tables: f, Peers: p, NoNetwork: func(string) error { return errNoNetwork }}), f
}

// What a node answers to "spread" is the first thing that it lacks.
func TestLacks(t *testing.T) {
	s, f := newService(t, nil)
	own, ok := f.store.Table("net").Head("a")
	if !ok {
		t.Fatal("it has no stream of its own")
	}
	for name, tt := range map[string]struct {
		of   state.NodeID
		ask  question
		want lack
	}{
		"all of it":                   {"a", question{"net", true, own.Inc, own.Version}, ""},
		"a version to come":           {"a", question{"net", true, own.Inc, own.Version + 1}, lacksChanges},
		"an incarnation to come":      {"a", question{"net", true, own.Inc + 1, 0}, lacksChanges},
		"a former incarnation":        {"a", question{"net", true, own.Inc - 1, own.Version + 9}, ""},
		"a stream that is not here":   {"b", question{"net", true, 1, 1}, lacksChanges},
		"a node that states nothing":  {"b", question{"net", true, 0, 0}, ""},
		"a network that is not known": {"b", question{"new", true, 1, 1}, lacksDefinition},
		"a network that was removed":  {"b", question{"net", false, 0, 0}, lacksRemoval},
		"no network":                  {"b", question{"none", false, 0, 0}, ""},
		"the global scope":            {"b", question{"", false, 1, 1}, lacksChanges},
	} {
		if got := s.lacks(t.Context(), tt.of, tt.ask); got != tt.want {
			t.Errorf("%s: lacks %q, want %q", name, got, tt.want)
		}
	}
	all := question{"net", true, own.Inc, own.Version}
	f.balanced = false
	if got := s.lacks(t.Context(), "a", all); got != lacksBalancing {
		t.Errorf("before the load balancer has it: lacks %q", got)
	}
	f.down = errors.New("stopped")
	if got := s.lacks(t.Context(), "a", all); got != lacksChanges {
		t.Errorf("of a node that stops: lacks %q", got)
	}
}

// What a peer sends for a question or an answer is not trusted.
func TestSpreadHostile(t *testing.T) {
	s, _ := newService(t, nil)
	for _, body := range []string{"", "x", "[]", `{"n":7}`, `{"n":"` + string(make([]byte, 2*maxMessage)) + `"}`} {
		if got := s.AnswerSpread("b", []byte(body)); got != nil {
			t.Errorf("question %.20q: answered %q", body, got)
		}
		if _, err := parseAnswer([]byte(body)); err == nil && body != `{"n":7}` {
			t.Errorf("answer %.20q: accepted", body)
		}
	}
	if l, err := parseAnswer([]byte(`{"l":"\u001b[2J"}`)); err != nil || l.String() != "is not done" {
		t.Errorf("an answer of another version: %q, %v", l, err)
	}
}

// A change is spread once every node that answers has it; others are named.
func TestSpread(t *testing.T) {
	s, _ := newService(t, fakePeers{"b": `{}`, "c": `{"l":"view"}`, "d": ""})
	got, err := s.Spread(t.Context(), control.SpreadRequest{Network: "net"})
	if err != nil || got.OK != 1 || got.Total != 4 {
		t.Fatalf("%+v, %v", got, err)
	}
	want := []control.NodeResult{
		{Node: "a", Error: lacksPeers.String()},
		{Node: "b"},
		{Node: "c", Error: lacksView.String()},
		{Node: "d", Error: "does not answer"},
	}
	if !slices.Equal(got.Results, want) {
		t.Errorf("results %+v", got.Results)
	}
}

// Tables with one checksum are equal; a difference is reported once it stays.
func TestDiff(t *testing.T) {
	p := fakePeers{}
	s, _ := newService(t, p)
	own := string(s.AnswerSums("b", nil))
	p["b"] = own
	d, err := s.Diff(t.Context(), control.DiffRequest{})
	if err != nil || !d.Equal || len(d.Networks) != 2 {
		t.Errorf("equal tables: %+v, %v", d, err)
	}
	if _, err := s.Diff(t.Context(), control.DiffRequest{Network: "none"}); !errors.Is(err, errNoNetwork) {
		t.Error(err)
	}
	p["b"] = `{"net":{"c":"0000000000000000","n":1}}`
	if d, err := s.Diff(t.Context(), control.DiffRequest{Network: "net"}); err != nil || d.Equal {
		t.Errorf("unequal tables: %+v, %v", d, err)
	}
	if _, err := parseSums(make([]byte, maxSums+1)); err == nil {
		t.Error("an answer that is too long is taken")
	}
}
