package nft

import (
	"net/netip"
	"testing"

	"github.com/google/nftables"

	"meshd/lb"
	"meshd/lb/nftconn"
	"meshd/state"
)

// Rule L3: TCP and UDP of all ports are services of their own.
func TestAllPortsByProtocol(t *testing.T) {
	r := newRig(t)
	for _, addr := range []string{"10.1.0.2:80", "10.1.0.3:80"} {
		r.Serve(r.Peer, addr)
	}
	d := r.driver()
	tcp, udp := service(vip4, 0, state.TCP, "10.1.0.2:0"), service(vip4, 0, state.UDP, "10.1.0.3:0")
	r.program(d, table(tcp, udp))
	check := func(who *Driver) {
		t.Helper()
		got, err := who.Snapshot(t.Context())
		if found := lb.Compare(got, table(tcp, udp)); err != nil || len(found) > 0 {
			t.Errorf("read back: %v, %v", found, err)
		}
		equalCounts(t, "TCP", r.Spread(r.Node, "tcp", "10.96.3.7:80", 2), map[string]int{"10.1.0.2:80": 2})
		equalCounts(t, "UDP", r.Spread(r.Node, "udp", "10.96.3.7:80", 2), map[string]int{"10.1.0.3:80": 2})
	}
	check(d)
	check(r.driver())
	r.program(d, table(tcp))
	r.refused("udp", "10.96.3.7:80")
	equalCounts(t, "TCP alone", r.Spread(r.Node, "tcp", "10.96.3.7:80", 2), map[string]int{"10.1.0.2:80": 2})
}

// Rule L1: what a version left that had one service for both protocols is
// replaced.
func TestServicesOfAnotherShape(t *testing.T) {
	r := newRig(t)
	r.Serve(r.Peer, "10.1.0.2:80")
	v := vandal{r.Vandal()}
	l := newLayout()
	old := *l.maps[0].all
	old.KeyType, old.Concatenation = nftconn.Families[0].Addr, false
	v.Nftables.AddTable(l.table)
	v.Must(v.Nftables.AddSet(&old, []nftables.SetElement{{Key: vip4.AsSlice(), Val: []byte{0, 0, 0, 0}}}))
	d := r.driver()
	s := service(vip4, 0, state.TCP, "10.1.0.2:0")
	r.program(d, table(s))
	if found, err := d.Check(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("check %v, %v", found, err)
	}
	equalCounts(t, "TCP", r.Spread(r.Node, "tcp", netip.AddrPortFrom(vip4, 80).String(), 2),
		map[string]int{"10.1.0.2:80": 2})
}
