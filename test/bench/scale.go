package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"meshd/test/sim"
)

// scale measures the core alone, on up to 10,000 nodes that all know each
// other, and fits value = a·nodes^b to each figure.
func scale(o options) {
	sizes := []int{100, 300, 1000, 3000, 10_000}
	if o.quick {
		sizes = sizes[:3]
	}
	var ns, p99s, bytes, idles []float64
	for _, nodes := range sizes {
		if !o.wants("nodes=%d", nodes) {
			continue
		}
		p99, perChange, idle := scaleOne(o, nodes)
		fmt.Printf("scale impl=meshd nodes=%d p99_ms=%s bytes_per_change=%.0f idle_bytes_per_s=%.0f link=%s\n", nodes,
			ms(p99), perChange, idle, link)
		ns, p99s = append(ns, float64(nodes)), append(p99s, float64(p99))
		bytes, idles = append(bytes, perChange), append(idles, idle)
	}
	if len(ns) > 1 {
		fmt.Printf("scale_fit impl=meshd p99_exponent=%.3f bytes_per_change_exponent=%.3f idle_exponent=%.3f\n",
			exponent(ns, p99s), exponent(ns, bytes), exponent(ns, idles))
	}
}

func scaleOne(o options, nodes int) (p99 time.Duration, perChange, idle float64) {
	const changes = 30
	var v *watch
	w := sim.New(sim.Options{Seed: o.seed, Nodes: nodes, Static: true, OnStep: func(n *sim.Node) {
		if v != nil && v.left > 0 {
			v.step(n, n.Number())
		}
	}})
	w.Start(0)
	w.Run(2 * time.Second)
	idle = idleRate(w)
	v = newWatch(w)
	before, begin := measure(w), w.Now()
	for k := range changes {
		v.change(w.Rand().IntN(nodes), k)
		w.Until(func() bool { return v.left == 0 }, 100*time.Millisecond, 10*time.Second)
	}
	w.Run(2 * time.Second)
	after := measure(w)
	slices.Sort(v.times)
	sent := float64(after.bytes-before.bytes) - idle*(w.Now()-begin).Seconds()*float64(nodes)
	return quantile(v.times, .99), sent / changes / float64(nodes), idle
}

// exponent is the slope of the least squares line through (log x, log y).
func exponent(x, y []float64) float64 {
	var sx, sy, sxx, sxy float64
	n := float64(len(x))
	for i := range x {
		a, b := math.Log(x[i]), math.Log(y[i])
		sx, sy, sxx, sxy = sx+a, sy+b, sxx+a*a, sxy+a*b
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}
