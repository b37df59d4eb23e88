package state_test

import (
	"fmt"
	"net/netip"
	"time"

	"meshd/state"
)

// clock is the simplest Lamport clock.
type clock uint64

func (c *clock) Time() uint64     { return uint64(*c) }
func (c *clock) Tick() uint64     { *c++; return uint64(*c) }
func (c *clock) Witness(t uint64) { *c = max(*c, clock(t)) }

// node returns the store of a node that takes part in the network "shop".
func node(name state.NodeID) (*state.Store, *state.Table) {
	s := state.NewStore(name, 1, state.DefaultLimits(), new(clock))
	return s, s.Join("shop")
}

func task(id, ip string) state.Change {
	e := state.Endpoint{IP4: netip.MustParseAddr(ip), Ports: []state.Port{{Number: 80, Proto: state.TCP}}}
	return state.Change{
		Kind: state.KindEndpoint, Key: id, Group: "web", Body: string(state.AppendEndpoint(nil, &e)),
	}
}

// One node states a task, another takes it over by a delta and shows it.
func ExampleTable_Apply() {
	_, a := node("a")
	if _, err := a.Commit([]state.Change{task("t1", "10.1.0.7")}); err != nil {
		fmt.Println(err)
	}

	store, b := node("b")
	store.SetLiveness("a", state.Alive)
	head, _ := a.Head("a")
	want, lacking := b.Want("a", head)
	fmt.Println(lacking)
	result, err := b.Apply(a.Delta(want, 1<<16))
	fmt.Println(result == state.Applied, err)

	store.Publish(time.Second)
	for _, e := range store.View("shop").Service("web").Members.All() {
		fmt.Println(e.ID(), e.Owner(), e.Addr4())
	}
	// Output:
	// true
	// true <nil>
	// t1 a 10.1.0.7
}

// A reader waits for changes and reads the view again.
func ExampleView() {
	store, table := node("a")
	view := store.View("shop")
	changes := view.Subscribe()
	defer changes.Close()

	if _, err := table.Commit([]state.Change{task("t1", "10.1.0.7")}); err != nil {
		fmt.Println(err)
	}
	store.Publish(time.Second)

	<-changes.Ready()
	for _, service := range changes.Drain() {
		fmt.Println(service, view.Service(service).Balanced().Len())
	}
	fmt.Println(view.ByIP(netip.MustParseAddr("10.1.0.7")).Endpoint.ID())
	// Output:
	// web 1
	// t1
}

// A node that hosts a service claims an address for it.
func ExampleCarrier_Carry() {
	store, table := node("a")
	table.SetDef(state.NetworkDef{Name: "shop", Subnet4: netip.MustParsePrefix("10.96.0.0/16")})
	carrier := state.NewCarrier(30*time.Second, 10*time.Minute)
	carrier.Services["web"] = &state.Hosting{Tasks: 1}

	changes, _, exhausted := carrier.Carry(table, time.Second)
	if _, err := table.Commit(append(changes, task("t1", "10.1.0.7"))); err != nil {
		fmt.Println(err)
	}
	store.Publish(time.Second)
	fmt.Println(store.View("shop").Service("web").VIP4, len(exhausted))
	// Output:
	// 10.96.86.70 0
}

// What a person writes is checked where it is written; the error says what to write.
func ExampleParsePool() {
	_, err := state.ParsePool("10.9.0.1/16", state.IPv4)
	fmt.Println(err)
	// Output:
	// 10.9.0.1/16 has bits set after its prefix; write 10.9.0.0/16
}
