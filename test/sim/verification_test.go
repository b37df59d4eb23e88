package sim

import (
	"testing"
	"time"

	"meshd/gossip"
)

func verified(t *testing.T, nodes int, loss float64, run func(v *Verification)) *Verification {
	t.Helper()
	l := LAN()
	l.Loss = loss
	v := NewVerification(1, nodes, l)
	run(v)
	t.Logf("%d nodes, loss %g: %d packets to a suspect, %d at most; noticed after %v, %v at most; hidden %d", nodes, loss,
		v.Packets/v.Rounds, v.Most, v.Average(), v.Quantile(1), v.Hidden)
	if v.Hidden > 0 {
		t.Errorf("%d times a node hid one that lives", v.Hidden)
	}
	if n := v.NotAlive(); n > 0 {
		t.Errorf("at the end %d nodes do not take another for alive", n)
	}
	return v
}

// bounded fails if a suspect got more packets than the bound of G11.
func bounded(t *testing.T, v *Verification) {
	t.Helper()
	if n := v.Packets / v.Rounds; n > 300+2*len(v.World.nodes) {
		t.Errorf("%d packets to one suspect of %d nodes", n, len(v.World.nodes))
	}
}

// TestVerificationOfTheDead: G11. All notice a death, and the dead host's address gets
// a bounded number of packets.
func TestVerificationOfTheDead(t *testing.T) {
	for _, nodes := range []int{40, 100} {
		v := verified(t, nodes, 0, func(v *Verification) { v.Deaths(4) })
		bounded(t, v)
		if v.Missed() > 0 {
			t.Errorf("%d nodes, %d did not notice", nodes, v.Missed())
		}
	}
}

// TestFalseReports: G11, G21. Nobody is hidden because all are told that it is dead, at
// any loss, and nobody drowns in pings.
func TestFalseReports(t *testing.T) {
	for _, x := range []struct {
		nodes int
		loss  float64
		times int
	}{{40, 0.25, 4}, {100, 0, 2}, {100, 0.05, 2}, {100, 0.25, 4}, {300, 0.25, 1}} {
		bounded(t, verified(t, x.nodes, x.loss, func(v *Verification) { v.FalseReports(x.times) }))
	}
}

// TestFalseReportsToSome: G11. If only a few are told, perhaps none of them pings the
// suspect: their last look keeps it.
func TestFalseReportsToSome(t *testing.T) {
	for _, share := range []int{2, 10, 50} {
		verified(t, 100, 0.05, func(v *Verification) {
			v.Tells = func(o, _ *Node) bool { return o.Number()%share == 0 }
			v.FalseReports(4)
		})
	}
}

// TestStalledHost: G11. A host that stands still for 1.5 s is not hidden.
func TestStalledHost(t *testing.T) {
	bounded(t, verified(t, 100, 0, func(v *Verification) { v.Stalls(4, 1500*time.Millisecond, 1200*time.Millisecond) }))
}

// TestPingersCutOff: G11. Suspects that half of the nodes cannot reach, or of whose packets
// half get none, are not hidden: a change reaches everybody through others.
func TestPingersCutOff(t *testing.T) {
	for name, cut := range map[string]func(w *World, suspect, other int){
		"half do not reach it":   func(w *World, s, o int) { w.CutOff(o, s, CutAll) },
		"it does not reach half": func(w *World, s, o int) { w.CutOff(s, o, CutAll) },
		"neither":                func(w *World, s, o int) { w.CutOff(s, o, CutAll); w.CutOff(o, s, CutAll) },
	} {
		t.Run(name, func(t *testing.T) {
			v := NewVerification(1, 100, LAN())
			for i := range 4 {
				for o := range 100 {
					if o != 7*i && o%2 != 0 {
						cut(v.World, 7*i, o)
					}
				}
			}
			v.FalseReports(4)
			if v.Hidden > 0 {
				t.Errorf("%d times a node hid one that lives", v.Hidden)
			}
		})
	}
}

// TestEverybodyReportedDead: G11, G21. A peer with the key that reports everybody dead
// to everybody, again and again, hides nobody, and what it makes the mesh send is
// bounded.
func TestEverybodyReportedDead(t *testing.T) {
	const nodes, seconds = 60, 5
	v := NewVerification(1, nodes, LAN())
	w := v.World
	counts := func() (s gossip.Stats) {
		for _, n := range w.Nodes() {
			s.DatagramsOut += n.Core.Stats.DatagramsOut
			s.Refutations += n.Core.Stats.Refutations
		}
		return s
	}
	before := counts()
	for range seconds {
		for _, n := range w.Nodes() {
			for _, o := range w.Nodes() {
				if n != o {
					at := w.oracle.between(0, time.Second)
					w.Report(n, o, at)
					w.List(n, o, at+w.oracle.between(300*time.Millisecond, 600*time.Millisecond))
				}
			}
		}
		w.Run(time.Second)
	}
	w.Run(5 * time.Second)
	after := counts()
	packets, beacons := after.DatagramsOut-before.DatagramsOut, after.Refutations-before.Refutations
	t.Logf("%d packets a node and second, %d beacons, hidden %d", packets/nodes/seconds, beacons, v.Hidden)
	if v.Hidden > 0 || v.NotAlive() > 0 {
		t.Errorf("%d times a node hid one that lives; %d pairs at the end", v.Hidden, v.NotAlive())
	}
	if most := uint64(nodes + 32*(seconds+8)); beacons > most {
		t.Errorf("%d beacons, more than %d", beacons, most)
	}
}
