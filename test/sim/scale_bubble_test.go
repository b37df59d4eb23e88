//go:build !race

package sim

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/state"
)

var (
	benchScale = flag.Int("scale", 0, "run the benchmark of large meshes with so many whole nodes (make bench-scale)")
	ops        = flag.String("ops", "start,tenth_lost,back,rolling", "what is done to them, in this order")
)

// scaleBounds are what the scenarios of the small mesh must keep to. Where membership is
// completed by exchanges of all of it, each node asks for half as many as there are nodes.
const (
	scaleSmall    = 40
	scaleWhole    = 10 * time.Second
	scaleNoticed  = 5 * time.Second
	scaleMostJoin = 15  // per node
	scaleMostKB   = 130 // per node at a mass start
)

// TestScale measures whole nodes that nobody told of each other: all start at once, a
// tenth is lost at once, all are restarted one after the other, and the same beside a
// hostile peer.
func TestScale(t *testing.T) {
	nodes := scaleSmall
	if *benchScale > 0 {
		nodes = *benchScale
	}
	for _, hostile := range []bool{false, true} {
		s := newScale(t)
		inBubble(t, MeshOptions{Nodes: nodes, Seed: 1, OnEvent: s.observe}, func(t *testing.T, m *Mesh) {
			s.m, s.hostile = m, hostile
			if hostile {
				defer s.attack(100)()
			}
			do := *ops
			if hostile && *benchScale == 0 {
				do = "start,tenth_lost"
			}
			for op := range strings.SplitSeq(do, ",") {
				deed, ok := s.deeds()[op]
				if !ok {
					t.Fatalf("there is no %q", op)
				}
				r := s.measure(op, time.Minute, deed)
				if *benchScale > 0 {
					fmt.Println(r)
				} else {
					t.Log(r)
					s.judge(r)
				}
				m.Run(3 * time.Second)
			}
		})
	}
}

// judge applies the bounds.
func (s *scale) judge(r *scaleResult) {
	s.t.Helper()
	if r.never > 0 && !r.hostile || r.whole == 0 || r.whole > scaleWhole {
		s.t.Errorf("%s, hostile %v: whole after %v, %d entries missing or too many", r.op, r.hostile, r.whole, r.never)
	}
	latest := scaleNoticed
	if r.hostile {
		latest = scaleWhole // whoever forges deaths has others checked before
	}
	if r.missed > 0 || sortedQuantile(r.noticed, 1) > latest {
		s.t.Errorf("%s: the last end was noticed after %v, %d were not", r.op, sortedQuantile(r.noticed, 1), r.missed)
	}
	if longest := sortedQuantile(r.hidden, 1); len(r.hidden) > 0 && !r.hostile || longest > time.Second {
		s.t.Errorf("%s: nodes that lived were hidden %d times, for up to %v", r.op, len(r.hidden), longest)
	}
	if !r.hostile && (r.joins > scaleMostJoin || r.op == "start" && r.bytes > scaleMostKB*1000) {
		s.t.Errorf("%s: a node asked for %.1f whole memberships and sent %.0f bytes", r.op, r.joins, r.bytes)
	}
}

// deeds are what can be done to a mesh, by name. Each returns how many nodes it ended.
func (s *scale) deeds() map[string]func() int {
	return map[string]func() int{
		"start": s.start, "tenth_lost": s.lose, "back": s.back, "rolling": s.roll,
		"idle": func() int { s.m.Run(10 * time.Second); return 0 },
	}
}

// start starts all machines within a fifth of a second, each with two tasks on its disk.
func (s *scale) start() int {
	m := s.m
	apart := 200 * time.Millisecond / time.Duration(len(m.all))
	for i, c := range m.all {
		c.Node.disk.stated[m.w.opt.Network] = map[string]state.Change{}
		c.remember([]state.Change{
			Endpoint(TaskID(c.Node, 0), fmt.Sprintf("svc%d", i/10), i), Endpoint(TaskID(c.Node, 1), "web", i),
		})
		if err := c.Start(); err != nil {
			s.t.Fatal(err)
		}
		m.Run(apart/2 + time.Duration(m.rng.Int64N(int64(apart))))
	}
	return 0
}

// lose ends a tenth of the machines at once, with their hosts.
func (s *scale) lose() int {
	var lost []*Machine
	for i, c := range s.m.all {
		if i%10 == 7 {
			c.Port.Vanish()
			c.cancel()
			s.ended(c.ID)
			lost = append(lost, c)
		}
	}
	for _, c := range lost {
		if err := c.end(); err != nil {
			s.t.Fatal(err)
		}
	}
	return len(lost)
}

// back starts those again that do not run.
func (s *scale) back() int {
	for _, c := range s.m.all {
		if c.up {
			continue
		}
		s.mu.Lock()
		delete(s.downAt, c.ID)
		s.mu.Unlock()
		if err := c.Start(); err != nil {
			s.t.Fatal(err)
		}
		s.m.Run(time.Millisecond)
	}
	return 0
}

// roll restarts all machines in order, a twentieth at a time: each leaves, ends, and
// starts half a second later.
func (s *scale) roll() int {
	for some := range slices.Chunk(s.m.all, max(len(s.m.all)/20, 1)) {
		var wg sync.WaitGroup
		for _, c := range some {
			s.ended(c.ID)
			wg.Go(func() { _ = c.Host.Leave(context.Background()) })
		}
		wg.Wait()
		for _, c := range some {
			if err := c.end(); err != nil {
				s.t.Fatal(err)
			}
		}
		s.m.Run(500 * time.Millisecond)
		s.back()
		s.m.Run(500 * time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = nil // they left in order: whoever missed that noticed their end
	return 0
}
