package lbtest_test

import (
	"context"
	"fmt"
	"net/netip"

	"meshd/lb"
	"meshd/lb/lbtest"
	"meshd/state"
)

// The fake kernel carries traffic: a backend with weight 0 keeps its connections and
// gets no new ones.
func ExampleFake_Dial() {
	k := lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: state.TCP}
	first, second := netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80")
	kernel := &lbtest.Fake{}
	_ = kernel.Setup(context.Background())
	kernel.Apply(context.Background(), []lb.Op{
		{Kind: lb.SetPool, Pool: lb.Pool{Prefix: netip.MustParsePrefix("10.96.0.0/16")}},
		{Kind: lb.SetService, Key: k, Service: &lb.Service{Key: k, Scheduler: "wrr"}},
		{Kind: lb.SetBackend, Key: k, Backend: lb.Backend{Addr: first, Weight: 1}},
	})
	client, vip := netip.MustParseAddrPort("10.0.0.9:40000"), netip.AddrPortFrom(k.VIP, k.Port)
	old, _ := kernel.Dial(state.TCP, client, vip)
	kernel.Apply(context.Background(), []lb.Op{
		{Kind: lb.SetBackend, Key: k, Backend: lb.Backend{Addr: second, Weight: 1}},
		{Kind: lb.SetBackend, Key: k, Backend: lb.Backend{Addr: first}},
	})
	fresh, _ := kernel.Dial(state.TCP, client, vip)
	for _, flow := range []*lbtest.Flow{old, fresh} {
		backend, _, err := flow.Ask()
		fmt.Println(backend, err)
	}
	fmt.Println("rules broken:", len(kernel.Faults()))
	// Output:
	// 10.0.0.1:80 <nil>
	// 10.0.0.2:80 <nil>
	// rules broken: 0
}
