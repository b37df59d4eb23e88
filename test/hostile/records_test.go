package hostile

import (
	"net/netip"
	"time"

	"meshd/gossip/gossiptest"
	"meshd/state"
)

// definition is a definition of a network; pools are CIDRs, and may be empty.
func definition(name, pool4, pool6 string, birth uint64) state.Record {
	c := state.NetworkClaim{NetworkDef: state.NetworkDef{Name: name, Birth: birth}, Pinned: true}
	if pool4 != "" {
		c.Subnet4 = netip.MustParsePrefix(pool4)
	}
	if pool6 != "" {
		c.Subnet6 = netip.MustParsePrefix(pool6)
	}
	return state.Record{Kind: state.KindNetwork, Key: name, Body: string(state.AppendNetwork(nil, c))}
}

// removal says that a network was removed.
func removal(name string, birth, lamport uint64) state.Record {
	c := state.NetworkClaim{NetworkDef: state.NetworkDef{Name: name, Birth: birth}, Removed: true, Lamport: lamport}
	return state.Record{Kind: state.KindNetwork, Key: name, Body: string(state.AppendNetwork(nil, c))}
}

// membership says that the owner takes part in a network.
func membership(network string) state.Record {
	return state.Record{Kind: state.KindMember, Key: network}
}

// nodeRecord says where the owner is.
func nodeRecord(addr string, boot uint64) state.Record {
	return state.Record{
		Kind: state.KindNode,
		Body: string(state.AppendNode(nil, state.NodeInfo{
			Boot: boot, Addr: netip.MustParseAddrPort(addr), Version: "evil",
			LB: "none",
		})),
	}
}

// endpoint is a task at an address, with a port that it declares.
func endpoint(id, service, addr string, more ...func(*state.Endpoint)) state.Record {
	e := state.Endpoint{ID: id, Service: service, Weight: 1, Ports: []state.Port{{Number: 80, Proto: state.TCP}}}
	if a := netip.MustParseAddr(addr); a.Is4() {
		e.IP4 = a
	} else {
		e.IP6 = a
	}
	for _, f := range more {
		f(&e)
	}
	return state.Record{Kind: state.KindEndpoint, Key: id, Group: service, Body: string(state.AppendEndpoint(nil, &e))}
}

// vipClaim claims an address for a service.
func vipClaim(service, addr string, pinned bool, birth uint64) state.Record {
	c := state.VIPClaim{Service: service, Pinned: pinned, Birth: birth}
	if a := netip.MustParseAddr(addr); a.Is4() {
		c.VIP4 = a
	} else {
		c.VIP6 = a
	}
	return state.Record{Kind: state.KindVIP, Key: service, Body: string(state.AppendVIPClaim(nil, c))}
}

// settings are those of a service.
func settings(service string, s state.Settings, lamport uint64) state.Record {
	return state.Record{
		Kind: state.KindSettings, Key: service,
		Body: string(state.AppendSettings(nil, state.SettingsClaim{Settings: s, Lamport: lamport})),
	}
}

// beacon is a wall clock.
func beacon(stamp uint64) state.Record {
	return state.Record{Kind: state.KindBeacon, Body: string(state.AppendBeacon(nil, time.Duration(stamp)))}
}

// stated is the packet by which an owner states all that it has in a network.
// The checksum is true, so that the records get where records go.
func stated(owner, network string, inc uint64, records ...state.Record) []byte {
	var all []gossiptest.Record
	for i, r := range records {
		all = append(all, gossiptest.Record{
			Kind: byte(r.Kind), Version: uint64(i) + 1, Key: r.Key, Group: r.Group,
			Body: r.Body,
		})
	}
	to := uint64(len(records)) + 2
	p := gossiptest.NewPacket(owner, 1)
	p.Frame(gossiptest.Push, func(w *gossiptest.Writer) {
		w.Byte(0)
		w.Ref(network)
		w.Ref(owner)
		w.Byte(1) // a snapshot
		w.Uint(inc)
		w.Uint(0)
		w.Uint(to)
		w.Uint(to) // floor 0
		w.Fixed(gossiptest.Sum(all))
		w.Uint(uint64(len(all)))
		for _, r := range all {
			w.Byte(r.Kind)
			w.Uint(1)
			w.Str(r.Key)
			w.Ref(r.Group)
			w.Str(r.Body)
		}
	})
	return p.B
}

// head says how far a stream of an owner goes, without any of it.
func head(w *gossiptest.Writer, owner string, inc, version uint64) {
	w.Ref(owner)
	w.Byte(0)
	w.Uint(inc)
	w.Uint(version)
	w.Uint(version)
	w.Fixed(inc ^ version)
}
