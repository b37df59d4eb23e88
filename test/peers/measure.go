package main

import (
	"fmt"
	"slices"
	"time"
)

// converge makes changes one after the other, each when the last is visible.
func converge(c *cluster, params string) {
	changes := 200
	if len(c.dbs) >= 100 {
		changes = 40
	}
	var times []time.Duration
	rate := c.idleRate()
	before, begin, late, owner := c.wire.sent(), time.Now(), 0, 0
	for k := range changes {
		if k%2 == 0 {
			owner = c.rng.IntN(len(c.dbs))
		}
		c.do(owner, key(k/2), k%2 == 1, &times)
		if _, ok := until(func() bool { return c.backlog() == 0 }, 10*time.Millisecond, 2*time.Minute); !ok {
			late += c.backlog()
			c.giveUp()
		}
		time.Sleep(time.Duration(c.rng.IntN(1000)) * time.Millisecond)
	}
	bytes := float64(c.wire.sent()-before) - rate*time.Since(begin).Seconds()
	p := quantiles(times)
	fmt.Printf("converge impl=networkdb %s p50_ms=%s p99_ms=%s max_ms=%s bytes_per_change=%.0f changes=%d late=%d "+
		"link=%s\n",
		params, p(.5), p(.99), p(1), bytes/float64(changes*len(c.dbs)), changes, late, link)
}

// idleRate is how many bytes per second all nodes send when nothing changes.
func (c *cluster) idleRate() float64 {
	before := c.wire.sent()
	time.Sleep(3 * time.Minute)
	return float64(c.wire.sent()-before) / 180
}

func (c *cluster) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.pending)
}

// burst makes many entries at once, as many on each node.
func burst(c *cluster, params string, entries int) {
	var times []time.Duration
	before := c.wire.sent()
	for k := range entries {
		c.do(k%len(c.dbs), key(k), false, &times)
	}
	took, ok := until(func() bool { return c.backlog() == 0 }, 10*time.Millisecond, 10*time.Minute)
	p := quantiles(times)
	fmt.Printf("burst impl=networkdb %s equal_ms=%d p50_ms=%s p99_ms=%s bytes=%d complete=%v link=%s\n", // bytes per node
		params, took.Milliseconds(), p(.5), p(.99), (c.wire.sent()-before)/uint64(len(c.dbs)), ok, link)
}

// churn replaces endpoints at a constant rate for 20 s. An entry that was
// removed before a node saw it has no time there: the times are those of the
// entries that were seen.
func churn(c *cluster, params string, perSecond int) {
	var times, removals []time.Duration
	last, live := make([]string, len(c.dbs)), map[string]bool{}
	for k := range 20 * perSecond {
		owner, id := c.rng.IntN(len(c.dbs)), key(k)
		c.do(owner, id, false, &times)
		live[id] = true
		if old := last[owner]; old != "" {
			c.do(owner, old, true, &removals)
			delete(live, old)
		}
		last[owner] = id
		time.Sleep(time.Second / time.Duration(perSecond))
	}
	backlog := c.differs(live)
	took, ok := until(func() bool { return c.differs(live) == 0 }, time.Second, 10*time.Minute)
	p := quantiles(times)
	fmt.Printf("churn impl=networkdb %s p50_ms=%s p90_ms=%s p99_ms=%s max_ms=%s backlog=%d equal_after_ms=%d "+
		"complete=%v unseen=%d link=%s\n",
		params, p(.5), p(.9), p(.99), p(1), backlog, took.Milliseconds(), ok, 20*perSecond*(len(c.dbs)-1)-len(times), link)
}

// heal cuts the cluster in two halves, changes entries on both sides, and
// waits until all tables are equal after the link is back.
func heal(c *cluster, params string, split time.Duration, changes int) {
	half := len(c.dbs) / 2
	side := func(i int) bool { return i <= half } // transports count from 1
	c.wire.set(0, func(a, b int) bool { return side(a) != side(b) })
	var ignored []time.Duration
	want := map[string]bool{}
	for k := range changes {
		c.do(k%len(c.dbs), key(k), false, &ignored)
		want[key(k)] = true
		time.Sleep(split / time.Duration(changes))
	}
	c.wire.set(0, nil)
	took, ok := until(func() bool { return c.differs(want) == 0 }, 100*time.Millisecond, 10*time.Minute)
	fmt.Printf("heal impl=networkdb %s equal_ms=%d complete=%v link=%s\n", params, took.Milliseconds(), ok, link)
}

// idle measures what is sent when nothing changes.
func idle(c *cluster, params string, entries int) {
	var ignored []time.Duration
	for k := range entries {
		c.do(k%len(c.dbs), key(k), false, &ignored)
	}
	_, ok := until(func() bool { return c.backlog() == 0 }, 100*time.Millisecond, 10*time.Minute)
	time.Sleep(5 * time.Minute)
	fmt.Printf("idle impl=networkdb %s bytes_per_s=%.0f complete=%v link=%s\n", params, c.idleRate()/float64(len(c.dbs)),
		ok, link)
}

// quantiles returns a function that gives a quantile in milliseconds.
func quantiles(ds []time.Duration) func(q float64) string {
	slices.Sort(ds)
	return func(q float64) string {
		if len(ds) == 0 {
			return "nan"
		}
		d := ds[min(int(q*float64(len(ds))), len(ds)-1)]
		return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond))
	}
}
