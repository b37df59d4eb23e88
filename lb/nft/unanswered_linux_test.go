package nft

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"

	"meshd/lb"
	"meshd/lb/internal/conntrack"
	"meshd/lb/internal/namespace"
	"meshd/state"
)

// A client waits for a backend that is dead. When that drains, its next segment
// goes to another one, long before the drain ends.
func TestUnansweredMovesOn(t *testing.T) {
	r := newRig(t)
	r.Serve(r.Peer, "10.1.0.2:80")
	r.Serve(r.Peer, "[fd01::2]:80")
	d := r.driver()
	for _, test := range []struct {
		service *lb.Service
		live    string
	}{
		{service(vip4, 80, state.TCP, "10.1.0.9:80"), "10.1.0.2:80"},
		{service(vip6, 0, state.TCP, "[fd01::9]:0"), "[fd01::2]:0"},
	} {
		t.Run(test.service.Key.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			k, dead := test.service.Key, test.service.Backends[0]
			r.deafen(dead.Addr.Addr())
			r.program(d, table(test.service))
			got := r.dialLong(ctx, netip.AddrPortFrom(k.VIP, 80))
			look(ctx, t, d, k, func(u lb.Usage) bool { return u.Backends[dead.Addr].Active == 1 })
			for i, err := range d.Apply(ctx, []lb.Op{
				{Kind: lb.SetBackend, Key: k, Backend: lb.Backend{Addr: netip.MustParseAddrPort(test.live), Weight: 1}},
				{Kind: lb.SetBackend, Key: k, Backend: lb.Backend{Addr: dead.Addr}},
			}) {
				t.Fatal(i, err)
			}
			look(ctx, t, d, k, func(u lb.Usage) bool { return u.Backends[dead.Addr].Active == 0 })
			if err := <-got; err != nil {
				t.Errorf("the client was left with the dead backend: %v", err)
			}
		})
	}
}

// What a backend has not answered yet, while it drains since a moment ago, is on its way.
func TestUnansweredWaits(t *testing.T) {
	d := &Driver{entries: map[lb.Key]*entry{}}
	s := service(vip4, 80, state.TCP, "10.1.0.2:80*0", "10.1.0.3:80")
	now := time.Now()
	before := quietSince(map[netip.AddrPort]time.Time{s.Backends[1].Addr: now}, s, now)
	d.entries[s.Key] = &entry{svc: s, quiet: quietSince(before, s, now.Add(time.Hour))}
	key := func(i int) conntrack.Key {
		return conntrack.Key{VIP: netip.AddrPortFrom(vip4, 80), Proto: state.TCP, Backend: s.Backends[i].Addr}
	}
	for _, test := range []struct {
		key   conntrack.Key
		after time.Duration
		want  bool
	}{
		{key(0), answerTime - 1, false},
		{key(0), answerTime, true},
		{key(1), 2 * time.Hour, false},
		{conntrack.Key{}, 2 * time.Hour, false},
	} {
		if got := d.unanswered(now.Add(test.after))(test.key); got != test.want {
			t.Errorf("%+v is given up after %v: %v", test.key, test.after, got)
		}
	}
}

// deafen has the node send what is for an address to nobody.
func (r *rig) deafen(a netip.Addr) {
	r.T.Helper()
	r.Node.Do(r.T, func() error {
		link, err := rtnl.LinkByName("link0")
		if err != nil {
			return err
		}
		return rtnl.NeighSet(&rtnl.Neigh{
			LinkIndex: link.Attrs().Index, State: rtnl.NUD_PERMANENT, IP: a.AsSlice(),
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9},
		})
	})
}

// dialLong connects from the node, for as long as ctx.
func (r *rig) dialLong(ctx context.Context, to netip.AddrPort) <-chan error {
	got := make(chan error, 1)
	go func() {
		got <- namespace.Inside(r.Node.Path, func() error {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
			if err == nil {
				c.Close()
			}
			return err
		})
	}()
	return got
}

// look asks for the connections of a service, as a drain does, until done says so.
func look(ctx context.Context, t *testing.T, d *Driver, k lb.Key, done func(lb.Usage) bool) {
	t.Helper()
	for tick := time.Tick(20 * time.Millisecond); ; {
		usage, err := d.Usage(ctx, []lb.Key{k})
		if err != nil {
			t.Fatal(err)
		}
		if done(usage[k]) {
			return
		}
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatalf("in the end: %+v", usage[k])
		}
	}
}
