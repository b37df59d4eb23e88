package lb

import (
	"fmt"
	"net/netip"
	"testing"

	"meshd/state"
)

// crowded are the services of a network whose owners' tasks are given. Some of
// the owners are suspected.
func crowded(t *testing.T, tasks map[state.NodeID][]state.Endpoint, suspects ...state.NodeID) state.View {
	t.Helper()
	s := state.NewStore("self", 1, state.DefaultLimits(), new(tick))
	table := s.Join("net")
	table.SetDef(state.NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix("10.96.0.0/16")})
	claimed := map[string]bool{}
	for owner, all := range tasks {
		from := state.NewStore(owner, 1, state.DefaultLimits(), new(tick))
		own := from.Join("net")
		var cs []state.Change
		for i := range all {
			e := &all[i]
			e.Normalize()
			cs = append(cs, state.Change{
				Kind: state.KindEndpoint, Key: e.ID, Group: e.Service,
				Body: string(state.AppendEndpoint(nil, e)),
			})
			if !claimed[e.Service] {
				n := len(claimed)
				claimed[e.Service] = true
				cs = append(cs, state.Change{
					Kind: state.KindVIP, Key: e.Service,
					Body: string(state.AppendVIPClaim(nil,
						state.VIPClaim{VIP4: netip.AddrFrom4([4]byte{10, 96, byte(1 + n>>8), byte(n)}), Birth: 1})),
				})
			}
		}
		if _, err := own.Commit(cs); err != nil {
			t.Fatal(err)
		}
		s.SetLiveness(owner, state.Alive)
		if r, err := s.Apply(own.Delta(state.Want{Owner: owner}, 1<<30)); r != state.Applied {
			t.Fatal(r, err)
		}
	}
	for _, o := range suspects {
		s.SetLiveness(o, state.Suspected)
	}
	s.Publish(1)
	return table.View()
}

type tick uint64

func (t *tick) Time() uint64     { return uint64(*t) }
func (t *tick) Tick() uint64     { *t++; return uint64(*t) }
func (t *tick) Witness(v uint64) { *t = max(*t, tick(v)) }

func total(table *Table) (n int) {
	for _, s := range table.Services {
		n += len(s.Backends)
	}
	return n
}

// TestPortsTimesTasks covers L11: a thousand tasks that declare a thousand ports
// are no million backends, and the port that most nodes declare stays.
func TestPortsTimesTasks(t *testing.T) {
	tasks := map[state.NodeID][]state.Endpoint{}
	for i := range 3 {
		tasks[state.NodeID(fmt.Sprintf("honest%d", i))] = []state.Endpoint{{
			ID: fmt.Sprintf("h%d", i), Service: "web",
			IP4: netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), Ports: []state.Port{{Number: 8080, Proto: state.TCP}},
		}}
	}
	for o := range 15 {
		owner := state.NodeID(fmt.Sprintf("evil%d", o))
		for i := range 80 {
			e := state.Endpoint{
				ID: fmt.Sprintf("e%d-%d", o, i), Service: "web",
				IP4: netip.AddrFrom4([4]byte{10, 9, byte(o), byte(i)}),
			}
			for p := range state.MaxPorts {
				e.Ports = append(e.Ports, state.Port{Number: uint16(1 + o*state.MaxPorts + p), Proto: state.TCP})
			}
			tasks[owner] = append(tasks[owner], e)
		}
	}
	table := Plan(Node{}, []state.View{crowded(t, tasks)})
	if n := total(table); n > maxServiceBackends || n < maxServiceBackends-80 {
		t.Errorf("L11: %d backends, have room for %d", n, maxServiceBackends)
	}
	s := table.Services[Key{VIP: netip.MustParseAddr("10.96.1.0"), Port: 8080, Proto: state.TCP}]
	if s == nil || len(s.Backends) != 3 {
		t.Errorf("L11: port 8080 is not planned with its three tasks: %+v", s)
	}
}

// TestPortsOfManyNodes covers L11: every node has a vote on the ports that stay,
// wherever its tasks are in the order of the service.
func TestPortsOfManyNodes(t *testing.T) {
	tasks := map[state.NodeID][]state.Endpoint{}
	node := func(i int, prefix string, ports ...state.Port) {
		owner := state.NodeID(fmt.Sprintf("%s%d", prefix, i))
		tasks[owner] = []state.Endpoint{{
			ID: fmt.Sprintf("%s%d", prefix, i), Service: "web",
			IP4: netip.AddrFrom4([4]byte{10, prefix[0], byte(i >> 8), byte(i)}), Ports: ports,
		}}
	}
	for i := range 260 {
		var ports []state.Port
		for p := range state.MaxPorts {
			ports = append(ports, state.Port{Number: uint16(1000 + i%16*state.MaxPorts + p), Proto: state.TCP})
		}
		node(i, "a", ports...)
	}
	for i := range 300 {
		node(i, "b", state.Port{Number: 80, Proto: state.TCP})
	}
	for i := range 300 { // of those without ports, all ports have a backend more
		node(i, "c")
	}
	table := Plan(Node{}, []state.View{crowded(t, tasks)})
	s := table.Services[Key{VIP: netip.MustParseAddr("10.96.1.0"), Port: 80, Proto: state.TCP}]
	if s == nil || len(table.Services) > 300 {
		t.Errorf("L11: of %d ports, the one that most nodes declare is not among those that stay", len(table.Services))
	}
}

// TestPortOfManyNames covers L11: a node that declares one port under many names
// has one vote for it, and each of its tasks one place there.
func TestPortOfManyNames(t *testing.T) {
	tasks := map[state.NodeID][]state.Endpoint{}
	for i := range 3 {
		tasks[state.NodeID(fmt.Sprintf("honest%d", i))] = []state.Endpoint{{
			ID: fmt.Sprintf("h%d", i), Service: "web",
			IP4: netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), Ports: []state.Port{{Number: 80, Proto: state.TCP}},
		}}
	}
	for i := range 1140 {
		e := state.Endpoint{
			ID: fmt.Sprintf("e%04d", i), Service: "web",
			IP4: netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}),
		}
		for p := range state.MaxPorts {
			port := state.Port{Number: 9999, Proto: state.TCP, Name: fmt.Sprintf("n%d", p)}
			if i > 1030 {
				port = state.Port{Number: uint16(10000 + p), Proto: state.TCP}
			}
			e.Ports = append(e.Ports, port)
		}
		tasks["evil"] = append(tasks["evil"], e)
	}
	table := Plan(Node{}, []state.View{crowded(t, tasks)})
	s := table.Services[Key{VIP: netip.MustParseAddr("10.96.1.0"), Port: 80, Proto: state.TCP}]
	if s == nil || len(s.Backends) != 3 {
		t.Errorf("L11: of %d ports, the one that three nodes declare is not among those that stay", len(table.Services))
	}
}

// TestManyPortsOfFewTasksEach covers L12: what counts is which task declares
// which port, so that a thousand tasks with a port of their own each have it.
func TestManyPortsOfFewTasksEach(t *testing.T) {
	tasks := map[state.NodeID][]state.Endpoint{}
	for i := range 1000 {
		owner := state.NodeID(fmt.Sprintf("host%d", i/64))
		tasks[owner] = append(tasks[owner], state.Endpoint{
			ID: fmt.Sprintf("t%d", i), Service: "web", IP4: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}),
			Ports: []state.Port{{Number: uint16(20000 + i), Proto: state.TCP}},
		})
	}
	table := Plan(Node{}, []state.View{crowded(t, tasks)})
	if n := total(table); n != 1000 || len(table.Services) != 1000 {
		t.Errorf("L12: %d backends of %d ports, want one of each of 1000", n, len(table.Services))
	}
}

// TestSuspectsByPort covers L12: a port that only suspected tasks declare leads to
// them, whoever serves at others.
func TestSuspectsByPort(t *testing.T) {
	view := crowded(t, map[state.NodeID][]state.Endpoint{
		"sure": {{ID: "a", Service: "web", IP4: netip.MustParseAddr("10.1.0.1"), Ports: []state.Port{{Number: 80, Proto: state.TCP}}}},
		"doubted": {{ID: "b", Service: "web", IP4: netip.MustParseAddr("10.1.0.2"), Ports: []state.Port{
			{Number: 80, Proto: state.TCP}, {Number: 81, Proto: state.TCP},
		}}},
	}, "doubted")
	table := Plan(Node{}, []state.View{view})
	for port, want := range map[uint16]string{80: "10.1.0.1:80", 81: "10.1.0.2:81"} {
		s := table.Services[Key{VIP: netip.MustParseAddr("10.96.1.0"), Port: port, Proto: state.TCP}]
		if s == nil || len(s.Backends) != 1 || s.Backends[0].Addr.String() != want || s.Backends[0].Weight != 1 {
			t.Errorf("L12: port %d leads to %+v, want %s", port, s, want)
		}
	}
}

// TestBackendsOfAllServices covers L11: what has no room waits, small services
// have some that large ones have not, and those that wait are planned when there
// is room.
func TestBackendsOfAllServices(t *testing.T) {
	tasks := map[state.NodeID][]state.Endpoint{}
	for o := range 12 {
		owner := state.NodeID(fmt.Sprintf("evil%d", o))
		for i := range 800 {
			e := state.Endpoint{
				ID: fmt.Sprintf("e%d-%d", o, i), Service: fmt.Sprintf("s%d", o),
				IP4: netip.AddrFrom4([4]byte{10, 9, byte(o*4 + i>>8), byte(i)}),
			}
			for p := range state.MaxPorts {
				e.Ports = append(e.Ports, state.Port{Number: uint16(1 + p), Proto: state.TCP})
			}
			tasks[owner] = append(tasks[owner], e)
		}
	}
	tasks["honest"] = []state.Endpoint{{
		ID: "h", Service: "zz", IP4: netip.MustParseAddr("10.1.0.1"),
		Ports: []state.Port{{Number: 80, Proto: state.TCP}},
	}}
	view := crowded(t, tasks)
	p := newPlanner(Node{})
	p.SetNetwork(view.Def())
	for _, s := range view.Services() {
		p.Set("net", s.Name, s)
	}
	large := 800 * state.MaxPorts
	room := maxBackends / 4 * 3 / large
	p.TakeDirty()
	if n := total(p.Desired()); n != room*large+1 || n != p.backends || len(p.waiting) != 12-room {
		t.Fatalf("L11: %d backends, counted %d, %d services wait; room for %d", n, p.backends, len(p.waiting), room)
	}
	for i := range room - 2 {
		p.Set("net", fmt.Sprintf("s%d", i), nil)
	}
	p.TakeDirty()
	left := 12 - (room - 2)
	if n := total(p.Desired()); n != min(left, room)*large+1 || n != p.backends || len(p.waiting) != left-min(left, room) {
		t.Fatalf("L11: afterwards %d backends, counted %d, %d services wait", n, p.backends, len(p.waiting))
	}
	for _, s := range view.Services() {
		p.Set("net", s.Name, nil)
	}
	if p.TakeDirty(); p.backends != 0 || len(p.waiting) != 0 || len(p.Desired().Services) != 0 {
		t.Fatalf("L11: left: %d, %v", p.backends, p.waiting)
	}
}
