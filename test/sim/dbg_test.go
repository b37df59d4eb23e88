package sim

import (
	"fmt"
	"testing"

	"meshd/state"
)

func TestDbg(t *testing.T) {
	c := NewChaos(1565)
	last := ""
	c.World.opt.OnStep = func(n *Node) {
		c.Check.Step(n)
		s := ""
		for _, n := range c.World.nodes {
			if !n.up {
				continue
			}
			tb := n.Table("net")
			for _, o := range tb.Owners() {
				h, _ := tb.Head(o)
				for _, e := range tb.OwnerEntries(o, state.KindVIP) {
					if e.Key() == "svc4" {
						cl, _ := state.ParseVIPClaim(e.Key(), e.Body())
						s += fmt.Sprintf("   at %s of %s inc %d: %v birth %d\n", n.ID, o, h.Inc, cl.VIP4, cl.Birth)
					}
				}
			}
			s += fmt.Sprintf("   %s hosts %v synced %v\n", n.ID, n.states("net", "svc4"), tb.View().Synced())
		}
		if s != last {
			fmt.Println(c.World.now, n.ID)
			fmt.Print(s)
			last = s
		}
	}
	c.Run()
}
