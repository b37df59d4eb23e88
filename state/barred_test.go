package state

import (
	"fmt"
	"net/netip"
	"testing"
)

// shown returns the ids and owners of a service's members.
func shown(t *Table, service string) string {
	s := t.View().Service(service)
	if s == nil {
		return "[]"
	}
	var out []string
	for _, e := range s.Members.All() {
		out = append(out, e.Key()+"@"+string(e.Owner()))
	}
	return fmt.Sprint(out)
}

// state makes a store take what an owner says in one delta.
func hear(t *testing.T, s *Store, o NodeID, version uint64, cs ...Change) {
	t.Helper()
	var rs []Record
	for i, c := range cs {
		rs = append(rs, Record{
			Kind: c.Kind, Key: c.Key, Group: c.Group, Body: c.Body,
			Version: version - uint64(len(cs)-1-i),
		})
	}
	if r, err := s.Apply(forge(o, 1, version, rs...)); r != Applied {
		t.Fatal(r, err)
	}
	s.SetLiveness(o, Alive)
	s.Publish(1)
}

// TestAnIDIsOneTasks covers S18: of two owners' tasks with one id all nodes show
// the same one, in whatever order they come, and the other when that is gone.
func TestAnIDIsOneTasks(t *testing.T) {
	var winner string
	for i, order := range [][]NodeID{{"b", "c", "d"}, {"d", "c", "b"}, {"c", "d", "b"}} {
		s := NewStore("a", 1, DefaultLimits(), new(testClock))
		table := s.Join("net")
		for n, o := range order {
			hear(t, s, o, 5, endpoint(t, "dup", "web", fmt.Sprintf("10.0.0.%d", o[0])),
				endpoint(t, "x"+string(o), "web", "10.0.0.9"))
			if s := table.View().Service("web"); s.Members.Len() != n+2 {
				t.Fatalf("S18: %s", shown(table, "web"))
			}
		}
		m := table.View().Lookup("dup")
		if len(m.Endpoints) != 1 || len(table.Barred()) != 2 || table.Barred()[0].Reason == "" {
			t.Fatalf("S18: %+v, barred %v", m, table.Barred())
		}
		got := string(m.Endpoints[0].Owner())
		if i == 0 {
			winner = got
		}
		if got != winner {
			t.Fatalf("S18: %s wins after %v, %s before", got, order, winner)
		}
		for _, b := range table.Barred() {
			if e := table.View().ByIP(b.Endpoint.Addr4()).Endpoint; e != nil {
				t.Fatalf("S18: %v is found by its address", b)
			}
		}
		for n := range 2 { // one after the other
			s.SetLiveness(m.Endpoints[0].Owner(), Dead)
			s.Publish(2)
			if m = table.View().Lookup("dup"); len(m.Endpoints) != 1 || len(table.Barred()) != 1-n {
				t.Fatalf("S18: nobody took the id: %s %v", shown(table, "web"), table.Barred())
			}
		}
		for _, o := range order {
			s.SetLiveness(o, Alive)
		}
		s.Publish(3)
		if got := string(table.View().Lookup("dup").Endpoints[0].Owner()); got != winner {
			t.Fatalf("S18: %s has it after all came back", got)
		}
		for _, o := range order {
			table.Retire(o)
		}
		s.Publish(4)
		if table.View().Service("web") != nil || len(table.index.bars.barred)+len(table.index.bars.twins) != 0 {
			t.Fatal("S18: something is left")
		}
	}
}

// TestLoopbackTasksAreNotShown covers S18.
func TestLoopbackTasksAreNotShown(t *testing.T) {
	for _, allow := range []bool{false, true} {
		limits := DefaultLimits()
		limits.AllowLoopback = allow
		s := NewStore("a", 1, limits, new(testClock))
		table := s.Join("net")
		hear(t, s, "b", 5, endpoint(t, "t1", "web", "127.0.0.1"), endpoint(t, "t2", "web", "10.0.0.1"))
		six := Endpoint{IP6: netip.MustParseAddr("::1")}
		commit(t, table, Change{Kind: KindEndpoint, Key: "t3", Group: "web", Body: string(AppendEndpoint(nil, &six))})
		s.Publish(1)
		want := "[t2@b]"
		if allow {
			want = "[t1@b t2@b t3@a]"
		}
		if got := shown(table, "web"); got != want {
			t.Errorf("S18: allowed %v: %s", allow, got)
		}
	}
}

// TestPoolsHideTasks covers S18: an endpoint inside a pool of a network that this
// node takes part in is hidden as long as that is so, but for its own; pools of
// other networks hide nothing.
func TestPoolsHideTasks(t *testing.T) {
	s := NewStore("a", 1, DefaultLimits(), new(testClock))
	table := s.Join("net")
	commit(t, table, endpoint(t, "own", "web", "10.9.0.1"))
	hear(t, s, "b", 5, endpoint(t, "t1", "web", "10.9.0.2"), endpoint(t, "t2", "web", "10.8.0.2"))
	define := func(name, pool string) {
		t.Helper()
		d := NetworkDef{Name: name, Subnet4: netip.MustParsePrefix(pool), Birth: 1}
		commit(t, s.Global(), Change{
			Kind: KindNetwork, Key: name,
			Body: string(AppendNetwork(nil, NetworkClaim{NetworkDef: d})),
		})
		s.Publish(2)
	}
	define("other", "10.0.0.0/8")
	if got := shown(table, "web"); got != "[own@a t1@b t2@b]" {
		t.Fatalf("S18: the pool of a network elsewhere hides: %s", got)
	}
	define("net", "10.9.0.0/16")
	if got := shown(table, "web"); got != "[own@a t2@b]" || len(table.Barred()) != 1 || table.Barred()[0].Bar != BarPool {
		t.Fatalf("S18: %s %v", got, table.Barred())
	}
	define("net", "10.8.0.0/16")
	if got := shown(table, "web"); got != "[own@a t1@b]" {
		t.Fatalf("S18: after the pool moved: %s", got)
	}
	s.Join("other")
	s.Publish(3)
	if got := shown(table, "web"); got != "[own@a]" {
		t.Fatalf("S18: after joining: %s", got)
	}
	s.Leave("other")
	s.Publish(4)
	if got := shown(table, "web"); got != "[own@a t1@b]" {
		t.Fatalf("S18: after leaving: %s", got)
	}
}

// TestTasksOfUnknownProtocolsAreNotShown covers S18: of an endpoint with ports of
// a protocol to come the known ones count; one that has no others does not get
// every port of its service's address.
func TestTasksOfUnknownProtocolsAreNotShown(t *testing.T) {
	s := NewStore("a", 1, DefaultLimits(), new(testClock))
	table := s.Join("net")
	const sctp, http = "\x00\x50\x84", "\x00\x50\x06"
	plain := endpoint(t, "x", "web", "10.0.0.1")
	e, err := ParseEndpoint(plain.Body)
	if err != nil {
		t.Fatal(err)
	}
	e.Ports = nil
	bare := string(AppendEndpoint(nil, &e))
	strange := bare + string(putField(nil, tagPort, []byte(sctp)...))
	both := strange + string(putField(nil, tagPort, []byte(http)...))
	hear(t, s, "b", 5, Change{Kind: KindEndpoint, Key: "none", Group: "web", Body: bare},
		Change{Kind: KindEndpoint, Key: "sctp", Group: "web", Body: strange},
		Change{Kind: KindEndpoint, Key: "both", Group: "web", Body: both})
	if got := shown(table, "web"); got != "[both@b none@b]" {
		t.Errorf("S18: shown are %s", got)
	}
	if b := table.Barred(); len(b) != 1 || b[0].Endpoint.Key() != "sctp" || b[0].Bar != BarPorts || b[0].Reason == "" {
		t.Errorf("S18: barred are %v", b)
	}
	if s := table.View().Service("web"); len(s.Ports) != 1 || s.Ports[0].String() != "80/tcp" {
		t.Errorf("S18: the service has the ports %v", s.Ports)
	}
}
