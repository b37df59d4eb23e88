//go:build !race

package sim

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"meshd/state"
)

// TestNewHostTakesNoVIP: V3. A host that is new and has not yet seen the claims
// of the others, because packets are lost or the network is slow, does not claim
// the address of an existing service, however long that lasts.
func TestNewHostTakesNoVIP(t *testing.T) {
	slow := Link{Base: 450 * time.Millisecond, Jitter: 50 * time.Millisecond}
	for name, x := range map[string]struct {
		link    Link
		profile string
	}{"a quarter lost": {lossy(0.25), "lan"}, "slow": {slow, "wan"}} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, MeshOptions{
				Nodes: 8, Seed: 3, Profile: x.profile, Link: LAN(),
				Pool: netip.MustParsePrefix("10.96.0.0/24"),
			}, func(t *testing.T, m *Mesh) {
				for k := range 40 {
					if err := m.Machine(k % 8).Commit(Endpoint(fmt.Sprintf("old-%d", k), fmt.Sprintf("old%d", k), 1)); err != nil {
						t.Fatal(err)
					}
				}
				within(t, m, "whole", 20*time.Second, m.Whole)
				m.Run(20 * time.Second)
				before := vips(m.Machine(0))
				m.Net.SetLinks(x.link)
				fresh := m.Add("fresh")
				if err := fresh.Start(); err != nil {
					t.Fatal(err)
				}
				for k := range 40 {
					if err := fresh.Commit(Endpoint(fmt.Sprintf("new-%d", k), fmt.Sprintf("new%d", k), 1)); err != nil {
						t.Fatal(err)
					}
				}
				within(t, m, "the new host's services have VIPs", 2*time.Minute,
					func() bool { return len(vips(m.Machine(0))) == 80 })
				m.Run(time.Minute)
				after := vips(m.Machine(0))
				for s, a := range before {
					if after[s] != a {
						t.Errorf("%s moved from %v to %v", s, a, after[s])
					}
				}
			})
		})
	}
}

// TestIsolatedHostTakesNoVIP: V11. A host that starts where it reaches nobody, or
// so slowly that it takes everybody for dead, claims addresses at its low time,
// some for services that exist. When it meets the others, restarted meanwhile or
// not, no address of theirs moves, not for a moment.
func TestIsolatedHostTakesNoVIP(t *testing.T) {
	type host struct {
		link    Link
		restart bool
	}
	for name, x := range map[string]host{
		"cut off": {LAN(), false}, "cut off, restarted": {LAN(), true}, "too slow": {Link{Base: 1200 * time.Millisecond}, false},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, MeshOptions{Nodes: 4, Seed: 5, Link: LAN(), Pool: netip.MustParsePrefix("10.96.0.0/24")},
				func(t *testing.T, m *Mesh) {
					for k := range 40 {
						if err := m.Machine(k % 4).Commit(Endpoint(fmt.Sprintf("old-%d", k), fmt.Sprintf("old%d", k), 1)); err != nil {
							t.Fatal(err)
						}
					}
					within(t, m, "whole", 20*time.Second, m.Whole)
					m.Run(20 * time.Second)
					before, mesh := vips(m.Machine(0)), len(m.all)
					fresh := m.Add("fresh")
					if x.link == LAN() {
						m.Partition(func(i int) int { return i / mesh })
					} else {
						m.Net.SetLinks(x.link)
					}
					start := func() {
						if err := fresh.Start(); err != nil {
							t.Fatal(err)
						}
					}
					start()
					for k := range 40 {
						if err := fresh.Commit(Endpoint(fmt.Sprintf("new-%d", k), fmt.Sprintf("new%d", k), 1)); err != nil {
							t.Fatal(err)
						}
					}
					if err := fresh.Commit(Endpoint("more", "old7", 1)); err != nil {
						t.Fatal(err)
					}
					m.Run(20 * time.Second)
					if x.restart {
						if err := fresh.Crash(false, true); err != nil {
							t.Fatal(err)
						}
						start()
						m.Run(10 * time.Second)
					}
					if x.link == LAN() && len(vips(fresh)) < 41 {
						t.Fatalf("alone, it gave %d of 41 services addresses", len(vips(fresh)))
					}
					m.Net.Mend()
					m.Net.SetLinks(LAN())
					for range 600 {
						m.Run(100 * time.Millisecond)
						for s, a := range before {
							if got := vips(m.Machine(0))[s]; got != a {
								t.Fatalf("%s moved from %v to %v", s, a, got)
							}
						}
					}
					within(t, m, "whole at the end", 10*time.Second, m.Whole)
					after := vips(fresh)
					for s, a := range before {
						if after[s] != a {
							t.Errorf("the new host has %s at %v, not at %v", s, after[s], a)
						}
					}
					if len(after) != 80 {
						t.Errorf("%d of 80 services have addresses", len(after))
					}
					for _, e := range fresh.Table("net").Own(state.KindVIP) {
						if c, _ := state.ParseVIPClaim(e.Key(), e.Body()); c.Provisional {
							t.Errorf("%+v is still provisional", c)
						}
					}
				})
		})
	}
}

// vips returns the addresses of the services that have one.
func vips(c *Machine) map[string]netip.Addr {
	out := map[string]netip.Addr{}
	for _, prefix := range []string{"old", "new"} {
		for k := range 40 {
			name := fmt.Sprintf("%s%d", prefix, k)
			if s := c.Table("net").View().Service(name); s != nil && s.VIP4.IsValid() {
				out[name] = s.VIP4
			}
		}
	}
	return out
}
