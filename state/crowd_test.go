package state

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// crowds are records of one owner that have something in common, whatever that
// costs to index.
func crowds() map[string]func(i int) Change {
	end := func(e Endpoint) Change {
		e.Weight = 1
		return Change{Kind: KindEndpoint, Key: e.ID, Group: e.Service, Body: string(AppendEndpoint(nil, &e))}
	}
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	id := func(i int) string { return fmt.Sprintf("%06d", i) }
	one := netip.MustParseAddr("10.9.9.9")
	return map[string]func(i int) Change{
		"plain": func(i int) Change {
			return end(Endpoint{ID: id(i), Service: "s" + id(i), IP4: addr(i)})
		},
		"address": func(i int) Change { return end(Endpoint{ID: id(i), Service: "s" + id(i), IP4: one}) },
		"alias": func(i int) Change {
			return end(Endpoint{ID: id(i), Service: "s" + id(i), IP4: addr(i), Aliases: []string{"db"}})
		},
		"hostname": func(i int) Change {
			return end(Endpoint{ID: id(i), Service: "s" + id(i), IP4: addr(i), Hostname: "db"})
		},
		"id": func(i int) Change {
			return end(Endpoint{ID: "abcdefghijkl" + id(i), Service: "s" + id(i), IP4: addr(i)})
		},
		"ports": func(i int) Change {
			e := Endpoint{ID: id(i), Service: "web", IP4: addr(i)}
			for p := range MaxPorts {
				e.Ports = append(e.Ports, Port{
					Name:   fmt.Sprintf("p%d", (i*7919+p)%60000),
					Number: uint16(1 + (i*MaxPorts+p)*31%65535), Proto: TCP,
				})
			}
			return end(e)
		},
		"aliases": func(i int) Change {
			e := Endpoint{ID: id(i), Service: "web", IP4: addr(i)}
			for p := range MaxAliases {
				e.Aliases = append(e.Aliases, fmt.Sprintf("a%d", (i*MaxAliases+p)*7919%10000019))
			}
			return end(e)
		},
		"vip": func(i int) Change {
			return Change{
				Kind: KindVIP, Key: "s" + id(i),
				Body: string(AppendVIPClaim(nil, VIPClaim{VIP4: netip.MustParseAddr("10.96.0.99"), Birth: uint64(i)})),
			}
		},
		"settings": func(i int) Change {
			return Change{Kind: KindSettings, Key: "s" + id(i), Body: string(AppendSettings(nil, SettingsClaim{Lamport: 1}))}
		},
	}
}

// TestCrowdsCostWhatTheyAre covers S20: records that have one thing in common, an
// address, an alias, the beginning of an id, are not compared each with all
// others, neither as they come nor as they go. One that does takes minutes here.
func TestCrowdsCostWhatTheyAre(t *testing.T) {
	const n = 40_000
	for name, f := range crowds() {
		t.Run(name, func(t *testing.T) {
			b := NewStore("b", 1, DefaultLimits(), new(testClock))
			tb := b.Join("net")
			tb.SetDef(NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix("10.96.0.0/16")})
			b.SetLiveness("a", Alive)
			rs := make([]Record, n)
			for i := range rs {
				c := f(i)
				rs[i] = Record{Kind: c.Kind, Key: c.Key, Group: c.Group, Body: c.Body, Version: uint64(i + 1)}
			}
			full, empty := forge("a", 1, n, rs...), forge("a", 1, n+1)
			finished := make(chan error, 1)
			go func() {
				for i, d := range []*Delta{full, empty} {
					if r, err := b.Apply(d); r != Applied {
						finished <- fmt.Errorf("%d %w", r, err)
						return
					}
					tb.Publish(time.Duration(i+1) * time.Second)
				}
				finished <- nil
			}()
			select {
			case err := <-finished:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(time.Minute):
				t.Fatal("S20: a crowd takes more than a minute")
			}
			if tb.Len() != 0 || len(tb.View().Services()) != 0 || len(tb.index.vips.byAddr) != 0 ||
				len(tb.index.addrs.more)+len(tb.index.addrs.twin)+len(tb.index.addrs.full) != 0 {
				t.Fatal("S20: something is left of it")
			}
		})
	}
}

// TestACrowdHidesNoPorts covers S20: whatever one owner's tasks declare, the
// ports and aliases of the others' stay, and all are counted again when the
// crowd is gone.
func TestACrowdHidesNoPorts(t *testing.T) {
	b := NewStore("b", 1, DefaultLimits(), new(testClock))
	tb := b.Join("net")
	hear(t, b, "honest", 2, endpoint(t, "zz1", "web", "10.0.0.1"), endpoint(t, "zz2", "web", "10.0.0.2"))
	var cs []Change
	for i := range 100 {
		cs = append(cs, crowds()["ports"](i), crowds()["aliases"](i+1000))
	}
	hear(t, b, "hostile", 200, cs...)
	s := tb.View().Service("web")
	if !slices.Contains(s.Ports, Port{Number: 80, Proto: TCP}) || !slices.Contains(s.Aliases, "www") ||
		s.Members.Len() != 202 {
		t.Fatalf("S20: %d members, %d ports, aliases %v", s.Members.Len(), len(s.Ports), s.Aliases)
	}
	if len(s.Ports) > 1+maxOfOwner || len(s.Aliases) > 1+maxOfOwner {
		t.Fatalf("S20: %d ports, %d aliases", len(s.Ports), len(s.Aliases))
	}
	b.SetLiveness("hostile", Dead)
	b.Publish(2)
	if s := tb.View().Service("web"); len(s.Ports) != 1 || len(s.Aliases) != 1 || s.Members.Len() != 2 {
		t.Fatalf("S20: after it %v, %v", s.Ports, s.Aliases)
	}
	if s, _ := tb.index.services.Load("web"); s.crowded || s.ports[0].n != 2 {
		t.Fatalf("S20: not counted anew: %+v", s.ports)
	}
}

// TestCrowdsOfOwnersHideNoPorts covers S20: as many owners as would fill the
// bound with what one of them may state take nothing from one that comes last.
func TestCrowdsOfOwnersHideNoPorts(t *testing.T) {
	b := NewStore("b", 1, DefaultLimits(), new(testClock))
	tb := b.Join("net")
	for o := range 3 * maxDeclared / maxOfOwner {
		var cs []Change
		for i := range 3 {
			cs = append(cs, crowds()["ports"](o*3+i), crowds()["aliases"](5000+o*3+i))
		}
		hear(t, b, NodeID(fmt.Sprintf("hostile%d", o)), 6, cs...)
	}
	hear(t, b, "honest", 1, endpoint(t, "zz1", "web", "10.0.0.1"))
	s := tb.View().Service("web")
	if !slices.Contains(s.Ports, Port{Number: 80, Proto: TCP}) || !slices.Contains(s.Aliases, "www") {
		t.Fatalf("S20: the honest owner's port or alias is not among %d ports, %d aliases", len(s.Ports), len(s.Aliases))
	}
	if len(s.Ports) > maxDeclared || len(s.Aliases) > maxDeclared {
		t.Fatalf("S20: %d ports, %d aliases", len(s.Ports), len(s.Aliases))
	}
}

// TestManyClaimOneService covers S20: what many owners claim for one service is
// neither published with each claim nor programmed as addresses of it, and goes
// as it came.
func TestManyClaimOneService(t *testing.T) {
	const n = 20_000
	b := NewStore("b", 1, DefaultLimits(), new(testClock))
	tb := b.Join("net")
	tb.SetDef(NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix("10.96.0.0/16")})
	body := func(i int) string {
		return string(AppendVIPClaim(nil, VIPClaim{
			VIP4:  netip.AddrFrom4([4]byte{10, 96, byte(64 + i>>8), byte(i)}),
			Birth: uint64(1 + i),
		}))
	}
	published, now := 0, time.Duration(0)
	var last *Service
	step := func(d *Delta) {
		if r, err := b.Apply(d); r != Applied {
			t.Fatal(r, err)
		}
		now += time.Millisecond
		b.Publish(now)
		if s := tb.View().Service("web"); s != last {
			last = s
			published++
		}
	}
	for i := range n {
		step(forge(NodeID(fmt.Sprintf("o%d", i)), 1, 1, Record{Kind: KindVIP, Key: "web", Body: body(i)}))
	}
	if published > bigService+100 {
		t.Errorf("S20: published %d times for %d claims", published, n)
	}
	for again := b.Publish(now); again > 0; again = b.Publish(now) {
		now += again
	}
	if s := tb.View().Service("web"); s.VIP4 != netip.MustParseAddr("10.96.64.0") || len(s.OtherVIPs) > maxOtherVIPs {
		t.Errorf("S20: %v and %d more addresses", s.VIP4, len(s.OtherVIPs))
	}
	for i := range n {
		step(forge(NodeID(fmt.Sprintf("o%d", i)), 1, 2))
	}
	for again := b.Publish(now); again > 0; again = b.Publish(now) {
		now += again
	}
	if s := tb.View().Service("web"); s != nil || len(tb.index.vips.bySvc)+len(tb.index.vips.byAddr) != 0 {
		t.Errorf("S20: left: %+v", s)
	}
	if f := tb.index.vips.takeFreed(); len(f) != n {
		t.Errorf("V5: %d freed", len(f))
	}
}

// TestFreedAddressesAreBounded covers V5: those outside the pool do not rest, for
// nobody gets them, and of the others no more than are worth their memory.
func TestFreedAddressesAreBounded(t *testing.T) {
	v := newVIPTable(NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix("10.0.0.0/9")})
	for i := range 2 * maxFreed {
		for _, first := range []byte{10, 11} {
			c := VIPClaim{Service: "web", VIP4: netip.AddrFrom4([4]byte{first, byte(i >> 16), byte(i >> 8), byte(i)})}
			v.add(c, "", func(string) {})
			v.remove(c, func(string) {})
		}
	}
	f := v.takeFreed()
	if _, inside := f[netip.MustParseAddr("10.0.0.1")]; len(f) != maxFreed || !inside {
		t.Errorf("V5: %d freed", len(f))
	}
	for a := range f {
		if !v.def.Subnet4.Contains(a) {
			t.Fatalf("V5: %s rests", a)
		}
	}
}

// TestAFullPoolIsLookedThroughOnce covers V7: for all services of a node that
// find no address together, not for each of them.
func TestAFullPoolIsLookedThroughOnce(t *testing.T) {
	d := &NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix("10.96.0.0/16")}
	looks, passed := 0, uint64(0)
	for i := range 100 {
		if _, err := allocateFrom(d, fmt.Sprint(i), &passed, func(netip.Addr) bool { looks++; return false }); !errors.Is(err,
			ErrExhausted) {
			t.Fatal(err)
		}
	}
	if most := 1<<16 + 100*probes; looks > most {
		t.Errorf("V7: %d looks, not %d", looks, most)
	}
}
