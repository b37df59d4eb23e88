package resolver_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/miekg/dns"

	"meshd/resolver"
	"meshd/state"
)

// clock is the Lamport clock that a store needs.
type clock struct{ now uint64 }

func (c *clock) Tick() uint64     { c.now++; return c.now }
func (c *clock) Time() uint64     { return c.now }
func (c *clock) Witness(t uint64) { c.now = max(c.now, t) }

// source returns a store with one network and one service with a task.
func source() *state.Store {
	store := state.NewStore("host1", 1, state.DefaultLimits(), new(clock))
	table := store.Join("shop")
	table.SetSynced()
	task := state.Endpoint{ID: "web1", Service: "web", Slot: 1, IP4: netip.MustParseAddr("192.0.2.10")}
	change := state.Change{
		Kind: state.KindEndpoint, Key: task.ID, Group: task.Service, Body: string(state.AppendEndpoint(nil, &task)),
	}
	if _, err := table.Commit([]state.Change{change}); err != nil {
		panic(err)
	}
	store.Publish(0)
	return store
}

// A server answers names of the views that it is given.
func Example() {
	server, err := resolver.New(resolver.Config{Source: source()})
	if err != nil {
		panic(err)
	}
	defer server.Close(context.Background())
	bound, err := server.Listen(resolver.Listener{
		Addr: netip.MustParseAddrPort("127.0.0.1:0"), Networks: []string{"shop"},
	})
	if err != nil {
		panic(err)
	}
	reply, err := dns.Exchange(new(dns.Msg).SetQuestion("web.", dns.TypeA), bound.Addr().String())
	if err != nil {
		panic(err)
	}
	fmt.Println(reply.Answer[0].(*dns.A).A)
	// Output: 192.0.2.10
}

// Explain says how a name is answered in a network, and why.
func ExampleServer_Explain() {
	server, err := resolver.New(resolver.Config{Source: source()})
	if err != nil {
		panic(err)
	}
	defer server.Close(context.Background())
	e, err := server.Explain("shop", "db.shop", "A")
	if err != nil {
		panic(err)
	}
	fmt.Println(e.Rcode)
	for _, step := range e.Steps {
		fmt.Println(step.Rule+":", step.Text)
	}
	// Output:
	// NXDOMAIN
	// scope: networks shop
	// name: "db" in network shop
	// nxdomain: no such name in network shop, or the network is not in scope
}
