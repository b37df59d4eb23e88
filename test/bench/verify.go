package main

import (
	"fmt"
	"time"

	"meshd/test/sim"
)

// verify prints three lines per size and loss: what the check of a reported death costs
// the one that is checked, and whom it hides, if nodes die, if they live, and if they
// stand still for 1.5 s.
func verify(o options) {
	sizes := []int{100, 300, 1000}
	if o.quick {
		sizes = sizes[:2]
	}
	cases := []struct {
		name string
		run  func(v *sim.Verification)
	}{
		{"dead", func(v *sim.Verification) { v.Deaths(10) }},
		{"alive", func(v *sim.Verification) { v.FalseReports(20) }},
		{"stalled", func(v *sim.Verification) { v.Stalls(10, 1500*time.Millisecond, 1200*time.Millisecond) }},
	}
	for _, nodes := range sizes {
		for _, loss := range []float64{0, 0.05, 0.25} {
			for _, c := range cases {
				if o.wants("case=%s nodes=%d loss=%g", c.name, nodes, loss*100) {
					verifyOne(o, c.name, nodes, loss, c.run)
				}
			}
		}
	}
}

func verifyOne(o options, name string, nodes int, loss float64, run func(v *sim.Verification)) {
	l := sim.LAN()
	l.Loss = loss
	v := sim.NewVerification(o.seed, nodes, l)
	run(v)
	fmt.Printf("verify case=%s nodes=%d loss=%g rounds=%d packets_mean=%d packets_max=%d", name, nodes, loss*100, v.Rounds,
		v.Packets/v.Rounds, v.Most)
	if name == "dead" {
		fmt.Printf(" noticed_mean_ms=%s noticed_p99_ms=%s noticed_max_ms=%s missed=%d", ms(v.Average()), ms(v.Quantile(.99)),
			ms(v.Quantile(1)), v.Missed())
	}
	fmt.Printf(" hidden=%d of=%d not_alive_at_end=%d link=%s\n", v.Hidden, v.Rounds*(nodes-1), v.NotAlive(), link)
}
