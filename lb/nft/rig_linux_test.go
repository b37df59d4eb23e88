package nft

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"meshd/lb"
	"meshd/lb/internal/linktest"
	"meshd/state"
)

// rig is a node and a peer with a link between them.
type rig struct{ *linktest.Pair }

func newRig(t testing.TB) *rig { return &rig{linktest.New(t)} }

var (
	pool4, pool6 = linktest.Pool4, linktest.Pool6
	vip4, vip6   = linktest.VIP4, linktest.VIP6
	node4, node6 = linktest.Node4, linktest.Node6
)

// driver returns a driver for the node that is set up and has both pools.
func (r *rig) driver() *Driver {
	r.T.Helper()
	d, err := New(Config{NetNS: r.Node.Path, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { d.Close() })
	if err := d.Probe(r.T.Context()); err != nil {
		r.T.Skipf("this kernel cannot: %v", err)
	}
	if err := d.Setup(r.T.Context()); err != nil {
		r.T.Fatal(err)
	}
	return d
}

// table returns a table with both pools and these services.
func table(services ...*lb.Service) *lb.Table {
	t := lb.NewTable()
	t.Pools[pool4] = lb.Pool{Prefix: pool4, Src: node4}
	t.Pools[pool6] = lb.Pool{Prefix: pool6, Src: node6}
	for _, s := range services {
		t.Services[s.Key] = s
	}
	return t
}

// service makes a service; a backend is "address:port" or "address:port*weight".
func service(vip netip.Addr, port uint16, proto state.Proto, backends ...string) *lb.Service {
	s := &lb.Service{Key: lb.Key{VIP: vip, Port: port, Proto: proto}, Scheduler: "wrr"}
	t := lb.NewTable()
	ops := []lb.Op{{Kind: lb.SetService, Key: s.Key, Service: s}}
	for _, b := range backends {
		addr, weight, weighted := strings.Cut(b, "*")
		back := lb.Backend{Addr: netip.MustParseAddrPort(addr), Weight: 1}
		if weighted {
			fmt.Sscan(weight, &back.Weight)
		}
		ops = append(ops, lb.Op{Kind: lb.SetBackend, Key: s.Key, Backend: back})
	}
	t.Apply(ops, nil)
	return t.Services[s.Key]
}

// program makes the kernel hold the table, draining nothing.
func (r *rig) program(d *Driver, desired *lb.Table) {
	r.T.Helper()
	at := lb.NewTable()
	at.Pools = d.base.Pools()
	for k, e := range d.entries {
		at.Services[k] = e.svc
	}
	now := lb.Policy{Drained: func(lb.Key, netip.AddrPort) bool { return true }}
	for range 2 { // weight 0 first, then gone
		ops := lb.Diff(at, desired, now)
		for i, err := range d.Apply(r.T.Context(), ops) {
			if err != nil {
				r.T.Fatalf("%s: %v", ops[i], err)
			}
		}
		at.Apply(ops, nil)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
