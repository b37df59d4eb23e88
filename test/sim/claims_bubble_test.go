//go:build !race

package sim

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
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
			inMesh(t, MeshOptions{Nodes: 8, Seed: 3, Profile: x.profile, Link: LAN(), Pool: netip.MustParsePrefix("10.96.0.0/24")}, func(t *testing.T, m *Mesh) {
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
				within(t, m, "the new host's services have VIPs", 2*time.Minute, func() bool { return len(vips(m.Machine(0))) == 80 })
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
