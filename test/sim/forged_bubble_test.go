//go:build !race

package sim

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/state"
)

// rumour is memberlist's message that a node is suspected (3) or dead (5).
func rumour(typ byte, node, from state.NodeID, inc uint32) []byte {
	str := func(b []byte, s string) []byte { return append(append(b, 0xa0|byte(len(s))), s...) }
	b := str([]byte{typ, 0x83}, "Incarnation")
	b = binary.BigEndian.AppendUint32(append(b, 0xce), inc)
	b = str(str(b, "Node"), string(node))
	return str(str(b, "From"), string(from))
}

// TestForgedDeaths: G11. A peer that reports everybody dead, suspected and gone,
// to everybody and without end, hides nobody for more than a moment; what it makes the
// nodes ask is bounded, and ends with it.
func TestForgedDeaths(t *testing.T) {
	for name, every := range map[string]time.Duration{
		"ten a second":        100 * time.Millisecond,
		"a thousand a second": time.Millisecond,
	} {
		t.Run(name, func(t *testing.T) {
			calm(t, MeshOptions{Nodes: 8}, func(t *testing.T, m *Mesh) {
				port := m.Net.Open(99, netip.MustParseAddrPort("10.66.6.6:7946"))
				rng := rand.New(rand.NewPCG(1, 1))
				sent := func() (datagrams, checks uint64) {
					for _, c := range m.all {
						datagrams += c.Core.Stats.DatagramsOut
						checks += c.Core.Stats.Verified
					}
					return
				}
				m.Run(10 * time.Second)
				d0, _ := sent()
				m.Run(10 * time.Second)
				d1, c1 := sent()
				hidden, worst := map[[2]int]time.Duration{}, time.Duration(0)
				for n := range int(10 * time.Second / every) {
					who, to := m.all[rng.IntN(8)].ID, m.all[rng.IntN(8)]
					from := m.all[rng.IntN(8)].ID
					if err := func() error {
						_, err := port.WriteToAddress(rumour([]byte{3, 5, 5}[rng.IntN(3)], who, from, uint32(n+2)),
							memberlist.Address{Addr: to.Addr.String()})
						return err
					}(); err != nil {
						t.Fatal(err)
					}
					m.Run(every)
					for i, c := range m.all {
						for j, o := range m.all {
							if i == j || c.Store().Liveness(o.ID) != state.Dead {
								delete(hidden, [2]int{i, j})
								continue
							}
							hidden[[2]int{i, j}] += every
							worst = max(worst, hidden[[2]int{i, j}])
						}
					}
				}
				d2, c2 := sent()
				m.Run(20 * time.Second)
				within(t, m, "whole afterwards", 5*time.Second, m.Whole)
				d3, _ := sent()
				m.Run(10 * time.Second)
				d4, c4 := sent()
				t.Logf("datagrams in 10 s: %d at rest, %d under attack, %d after; checks %d, then %d; hidden for %v at most", d1-d0,
					d2-d1, d4-d3, c2-c1, c4-c2, worst)
				if worst > 500*time.Millisecond {
					t.Errorf("a living node was hidden for %v", worst)
				}
				// a check of one node by another: a ping, three requests to ping it, and what answers them
				if most := d1 - d0 + 8*7*11*14; d2-d1 > most {
					t.Errorf("%d datagrams under attack, more than %d", d2-d1, most)
				}
				if d4-d3 > 2*(d1-d0) {
					t.Errorf("%d datagrams afterwards, %d before", d4-d3, d1-d0)
				}
				final(t, m)
			})
		})
	}
}
