package sim

import (
	"fmt"
	"slices"
	"time"

	"meshd/gossip"
	"meshd/state"
)

// Detection measures how soon crashes are noticed, and how often a living
// node is hidden.
type Detection struct {
	Took      []time.Duration // from a crash until one other node hides it
	Missed    int             // not within patience
	Hidden    []Hiding        // of nodes that lived
	UpFor     time.Duration   // how long was watched for that
	Suspected int             // times a death was reported and checked, all nodes together
	stops     map[state.NodeID][]stop
}

// stop is when a machine stood still.
type stop struct{ from, to time.Duration }

// Hiding is a stretch of time in which a node did not serve another that lived.
// For leaves out what the node itself stood still meanwhile: it served nobody.
type Hiding struct {
	By, Whom state.NodeID
	At, For  time.Duration
}

// patience is how long a crash may take to be noticed everywhere.
const patience = 2 * time.Minute

// Crashes ends random machines one after the other, half of them with their
// whole host, and measures until every other one hides them.
func (d *Detection) Crashes(m *Mesh, times int) error {
	for k := range times {
		c := m.all[m.rng.IntN(len(m.all))]
		from, at := m.mark(), m.Now()
		if err := c.Crash(k%2 == 0, true); err != nil {
			return err
		}
		m.Until(func() bool { return m.hides(c.ID) }, 100*time.Millisecond, patience)
		d.latencies(m, c, from, at)
		if err := c.Start(); err != nil {
			return err
		}
		m.Until(m.Whole, 100*time.Millisecond, time.Minute)
		m.Run(time.Duration(m.rng.Int64N(int64(2 * time.Second))))
	}
	return nil
}

// mark is where the list of events ends now.
func (m *Mesh) mark() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.Events)
}

// since returns the events after a mark.
func (m *Mesh) since(mark int) []MeshEvent {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.Events[mark:])
}

// hides reports whether all running nodes hide one.
func (m *Mesh) hides(id state.NodeID) bool {
	for _, c := range m.all {
		if c.up && c.Store().Liveness(id) != state.Dead {
			return false
		}
	}
	return true
}

func (d *Detection) latencies(m *Mesh, crashed *Machine, from int, at time.Duration) {
	first := map[state.NodeID]time.Duration{}
	for _, e := range m.since(from) {
		if e.Kind == gossip.EventDead && e.Event.Node == crashed.ID && first[e.Node] == 0 {
			first[e.Node] = e.At - at
		}
	}
	for _, c := range m.all {
		switch t, ok := first[c.ID]; {
		case ok:
			d.Took = append(d.Took, t)
		case c.up:
			d.Missed++
		}
	}
}

// Watch lets time pass while nobody crashes, and notes who is hidden. While it
// passes, starved machines stop for up to stall, over and over.
func (d *Detection) Watch(m *Mesh, span time.Duration, starved int, stall time.Duration) {
	from, end := m.mark(), m.Now()+span
	d.stops = map[state.NodeID][]stop{}
	wakes, stopped := make([]time.Duration, starved), make([]bool, starved)
	for m.Now() < end {
		if starved == 0 {
			m.Run(span)
			continue
		}
		for i := range wakes {
			if m.Now() < wakes[i] {
				continue
			}
			if stopped[i] = !stopped[i]; stopped[i] {
				m.Net.Pause(i)
				wakes[i] = m.Now() + time.Duration(m.rng.Int64N(int64(stall)))
				id := m.all[i].ID
				d.stops[id] = append(d.stops[id], stop{m.Now(), wakes[i]})
			} else {
				m.Net.Resume(i)
				wakes[i] = m.Now() + time.Duration(m.rng.Int64N(int64(stall/2)))
			}
		}
		m.Run(20 * time.Millisecond)
	}
	for i := range wakes {
		m.Net.Resume(i)
	}
	m.Run(5 * time.Second)
	d.UpFor += span
	d.hidings(m, from)
}

// hidings pairs the events of hiding and restoring.
func (d *Detection) hidings(m *Mesh, from int) {
	type pair struct{ by, whom state.NodeID }
	open := map[pair]time.Duration{}
	for _, e := range m.since(from) {
		p := pair{e.Node, e.Event.Node}
		switch e.Kind {
		case gossip.EventDead:
			open[p] = e.At
		case gossip.EventSuspect:
			d.Suspected++
			fallthrough
		case gossip.EventAlive:
			if at, ok := open[p]; ok {
				d.Hidden = append(d.Hidden, Hiding{p.by, p.whom, at, d.awake(p.by, at, e.At)})
				delete(open, p)
			}
		}
	}
	for p, at := range open {
		d.Hidden = append(d.Hidden, Hiding{p.by, p.whom, at, d.awake(p.by, at, m.Now())})
	}
}

// awake returns how much of a stretch of time a machine did not stand still.
func (d *Detection) awake(id state.NodeID, from, to time.Duration) time.Duration {
	t := to - from
	for _, s := range d.stops[id] {
		t -= max(min(s.to, to)-max(s.from, from), 0)
	}
	return t
}

// Longest returns the longest time that somebody who lived was hidden.
func (d *Detection) Longest() (t time.Duration) {
	for _, h := range d.Hidden {
		t = max(t, h.For)
	}
	return t
}

// Quantile returns the q-quantile of the detection times.
func (d *Detection) Quantile(q float64) time.Duration {
	if len(d.Took) == 0 {
		return 0
	}
	slices.Sort(d.Took)
	return d.Took[min(int(q*float64(len(d.Took))), len(d.Took)-1)]
}

// String is the figures as key=value.
func (d *Detection) String() string {
	ms := func(t time.Duration) int64 { return t.Milliseconds() }
	return fmt.Sprintf("p50_ms=%d p99_ms=%d max_ms=%d false_positives=%d hidden_max_ms=%d suspicions=%d watched_s=%.0f "+
		"samples=%d missed=%d",
		ms(d.Quantile(0.5)), ms(d.Quantile(0.99)), ms(d.Quantile(1)), len(d.Hidden), ms(d.Longest()), d.Suspected,
		d.UpFor.Seconds(), len(d.Took), d.Missed)
}
