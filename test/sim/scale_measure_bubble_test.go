//go:build !race

package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/gossip"
	"meshd/gossip/gossiptest"
	"meshd/state"
)

// scale measures what becomes of a mesh of many whole nodes, whose membership is
// memberlist's own: nothing of it is given.
type scale struct {
	t       *testing.T
	m       *Mesh
	hostile bool // a hostile peer is there

	mu     sync.Mutex                     // guards what follows: hosts report from their goroutines
	hid    map[hidingPair]time.Duration   // who hides whom that lives, since when
	hiding []time.Duration                // for how long such a pair was hidden
	downAt map[state.NodeID]time.Duration // nodes that do not run, since when
	took   []time.Duration                // from the end of a node until another hid it
}

// hidingPair is a node that hides another one.
type hidingPair struct{ by, whom state.NodeID }

func newScale(t *testing.T) *scale {
	return &scale{t: t, hid: map[hidingPair]time.Duration{}, downAt: map[state.NodeID]time.Duration{}}
}

// observe takes an event of a host.
func (s *scale) observe(e MeshEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := hidingPair{e.Node, e.Event.Node}
	if _, ours := s.m.w.byID[p.whom]; !ours {
		return // a hostile peer made it up
	}
	switch e.Kind {
	case gossip.EventDead:
		if at, down := s.downAt[p.whom]; down {
			s.took = append(s.took, e.At-at)
		} else {
			s.hid[p] = e.At
		}
	case gossip.EventSuspect, gossip.EventAlive, gossip.EventLeft:
		if at, ok := s.hid[p]; ok {
			s.hiding = append(s.hiding, e.At-at)
			delete(s.hid, p)
		}
	}
}

// ended notes that a node runs no more.
func (s *scale) ended(id state.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.downAt[id] = s.m.Now()
}

// reset begins a new account.
func (s *scale) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took, s.hiding = nil, nil
	clear(s.hid)
}

// noticed reports whether every node that runs hides those that ended.
func (s *scale) noticed(ends int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.took) >= ends*s.m.running()
}

// scaleResult is what one deed did to the mesh. Sums are per node that runs at the end.
type scaleResult struct {
	op       string
	nodes    int             // of the mesh
	hostile  bool            // a hostile peer was there
	listed   time.Duration   // until every membership listed as many nodes as run; 0: it never did
	whole    time.Duration   // until scale.whole; 0: it never was
	never    int             // entries that are missing in all memberships together, or too many, at the end
	noticed  []time.Duration // until another node hid one that ended, sorted
	missed   int             // pairs in which an end was not noticed
	hidden   []time.Duration // for how long a node hid one that lived, sorted
	bytes    float64         // sent, memberlist's own included
	packets  float64         // datagrams sent, likewise
	peak     int             // most datagrams that arrived at one node within a second
	joins    float64         // exchanges of the whole membership that joiners asked for
	verified float64         // reported deaths that were checked
	cpu      time.Duration   // processor time, the simulator's own included
	lasted   time.Duration   // of virtual time
}

// String is the line.
func (r *scaleResult) String() string {
	ends := ""
	if len(r.noticed)+r.missed > 0 {
		ends = fmt.Sprintf(" noticed_p50_s=%.2f noticed_p99_s=%.2f noticed_max_s=%.2f missed=%d",
			sortedQuantile(r.noticed, 0.5).Seconds(), sortedQuantile(r.noticed, 0.99).Seconds(),
			sortedQuantile(r.noticed, 1).Seconds(), r.missed)
	}
	return fmt.Sprintf("scale impl=meshd membership=memberlist op=%s nodes=%d hostile=%v whole_s=%s listed_s=%s "+
		"unlisted=%d%s hidden=%d hidden_max_s=%.2f kbytes=%.0f packets=%.0f peak_packets_per_s=%d joins=%.2f checks=%.1f "+
		"cpu_ms=%.0f lasted_s=%.0f link=%s", r.op, r.nodes, r.hostile, orNever(r.whole), orNever(r.listed), r.never, ends,
		len(r.hidden), sortedQuantile(r.hidden, 1).Seconds(), r.bytes/1e3, r.packets, r.peak, r.joins, r.verified,
		r.cpu.Seconds()*1e3, r.lasted.Seconds(), "0.3ms+exp(0.15ms)")
}

func orNever(d time.Duration) string {
	if d == 0 {
		return "never"
	}
	return fmt.Sprintf("%.1f", d.Seconds())
}

func sortedQuantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	return ds[min(int(q*float64(len(ds))), len(ds)-1)]
}

// measure does something and waits until the mesh is whole again, for patience at most.
// The times of a start are from its beginning, all others from the end of the deed.
func (s *scale) measure(op string, patience time.Duration, deed func() (ends int)) *scaleResult {
	m := s.m
	r := &scaleResult{op: op, nodes: len(m.all), hostile: s.hostile}
	before, began := m.spent(), m.Now()
	s.reset()
	m.Net.PeakArrived()
	ends := deed()
	changed := m.Now()
	if op == "start" {
		changed = began
	}
	const step = 100 * time.Millisecond
	m.Until(func() bool {
		if r.listed == 0 && m.listing() == 0 {
			r.listed = max(m.Now()-changed, step)
		}
		if r.whole == 0 && s.noticed(ends) && s.whole() {
			r.whole = max(m.Now()-changed, step)
		}
		return (r.listed > 0 || r.hostile) && r.whole > 0 // a hostile peer lists whom it likes
	}, step, patience)
	r.never = m.listing()
	r.lasted, r.peak = m.Now()-began, m.Net.PeakArrived()
	r.costs(before, m.spent(), float64(m.running()))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.hid {
		s.hiding = append(s.hiding, m.Now()-at)
	}
	r.noticed, r.hidden = slices.Sorted(slices.Values(s.took)), slices.Sorted(slices.Values(s.hiding))
	r.missed = max(ends*m.running()-len(r.noticed), 0)
	return r
}

// costs fills in what was used, per node.
func (r *scaleResult) costs(before, after spent, nodes float64) {
	per := func(a, b uint64) float64 { return float64(b-a) / nodes }
	r.bytes, r.packets = per(before.bytes, after.bytes), per(before.packets, after.packets)
	r.joins, r.verified = per(before.joins, after.joins), per(before.checks, after.checks)
	r.cpu = time.Duration(float64(after.cpu-before.cpu) / nodes)
}

// whole reports whether all is well again. Beside a hostile peer somebody is always
// doubted, so that it is enough there that each node serves the tasks of all others.
func (s *scale) whole() bool {
	if !s.hostile {
		return s.m.Whole()
	}
	for _, c := range s.m.all {
		for _, o := range s.m.all {
			if c != o && c.up && o.up && (c.Store().Liveness(o.ID) == state.Dead ||
				len(c.Table(s.m.w.opt.Network).OwnerEntries(o.ID, state.KindEndpoint)) != 2) {
				return false
			}
		}
	}
	return true
}

// running returns how many machines run.
func (m *Mesh) running() (n int) {
	for _, c := range m.all {
		if c.up {
			n++
		}
	}
	return n
}

// listing returns how many entries are missing in all memberships together, or too many.
func (m *Mesh) listing() (wrong int) {
	n := m.running()
	for _, c := range m.all {
		if c.up {
			listed := c.Host.Listed()
			wrong += max(n-listed, listed-n)
		}
	}
	return wrong
}

// attack begins what a peer with the key does that means harm, in all so many messages a
// second to random nodes: half of them say of a node that it is dead or suspected, half
// are packets of our protocol that no honest node sends. The function that it returns
// ends it.
func (s *scale) attack(perSecond int) (stop func()) {
	m := s.m
	port := m.Net.Open(1<<20, netip.MustParseAddrPort("10.66.6.6:7946"))
	rng, source := rand.New(rand.NewPCG(6, 6)), gossiptest.Seeded(6)
	world := gossiptest.World{Peers: []string{"made-up"}, Networks: []string{m.w.opt.Network, "blue"}}
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		ticker := time.NewTicker(time.Second / time.Duration(perSecond))
		defer ticker.Stop()
		for n := uint32(2); ; n++ {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			to := m.all[rng.IntN(len(m.all))]
			message := rumour([]byte{3, 5}[rng.IntN(2)], m.all[rng.IntN(len(m.all))].ID, m.all[rng.IntN(len(m.all))].ID, n)
			if n%2 == 0 {
				world.Self = string(to.ID)
				message = append([]byte{8}, gossiptest.Packet(source, world)...)
			}
			_, _ = port.WriteToAddress(message, memberlist.Address{Addr: to.Addr.String()})
		}
	}()
	return func() { close(done); <-over }
}

// spent returns what all machines used until now.
func (m *Mesh) spent() spent {
	m.Net.mu.Lock()
	sum := spent{packets: m.Net.Sent, cpu: processTime()}
	m.Net.mu.Unlock()
	for _, c := range m.all {
		sum.bytes, sum.joins, sum.checks = sum.bytes+c.past.bytes, sum.joins+c.past.joins, sum.checks+c.past.checks
		if c.up {
			sum.add(c.Core, c.Host)
		}
	}
	return sum
}

// processTime returns the processor time that this process has used.
func processTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
