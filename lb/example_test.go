package lb_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"meshd/lb"
	"meshd/lb/lbtest"
	"meshd/state"
)

// Diff says how to get from what the kernel holds to what it should hold. A
// backend that is not in the plan any more is not removed but drained.
func ExampleDiff() {
	k := lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: state.TCP}
	actual, desired := lb.NewTable(), lb.NewTable()
	actual.Services[k] = &lb.Service{Key: k, Scheduler: "wrr", Backends: []lb.Backend{
		{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1},
		{Addr: netip.MustParseAddrPort("10.0.0.2:80"), Weight: 1},
	}}
	desired.Services[k] = &lb.Service{Key: k, Scheduler: "wrr", Backends: []lb.Backend{
		{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1},
		{Addr: netip.MustParseAddrPort("10.0.0.3:80"), Weight: 2},
	}}
	for _, op := range lb.Diff(actual, desired, lb.Policy{}) {
		fmt.Println(op)
	}
	// Output:
	// set-backend 10.96.0.1:80/tcp 10.0.0.3:80 weight 2
	// set-backend 10.96.0.1:80/tcp 10.0.0.2:80 weight 0
}

// A balancer follows the views and keeps the kernel equal to them. Here the kernel
// is a fake one; with lb/nft or lb/ipvs as the driver it is that of the host.
func ExampleBalancer() {
	pool := netip.MustParsePrefix("10.96.0.0/16")
	views := lbtest.NewViews(state.NetworkDef{Name: "net", Subnet4: pool, Birth: 1})
	b, err := lb.New(lb.Config{
		Source: views, Drivers: []lb.Driver{&lbtest.Fake{DriverName: "fake"}}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = b.Run(ctx) }()

	port, _ := state.ParsePort("80/tcp")
	task := &state.Endpoint{
		ID: "web-1", Service: "web", IP4: netip.MustParseAddr("10.0.0.1"), Weight: 1, Ports: []state.Port{port},
	}
	if err := views.Commit("net", lbtest.VIPs("web", pool.Addr().Next(), netip.Addr{}, 1), lbtest.Task(task)); err != nil {
		fmt.Println(err)
		return
	}
	for applied := false; !applied; { // until the kernel has what the view says
		if applied, err = b.Applied(ctx, "net"); err != nil {
			fmt.Println(err)
			return
		}
	}
	status, err := b.Status(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range status.Services {
		fmt.Println(s.Name, s.Key, s.State, s.Backends[0].Addr)
	}
	// Output:
	// web 10.96.0.1:80/tcp ok 10.0.0.1:80
}
