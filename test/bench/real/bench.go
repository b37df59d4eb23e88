//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/test/fleet"
	"meshd/test/rig"
)

const network = "bench"

// patience is how long the mesh may take to become whole.
const patience = 3 * time.Minute

// bench is a running fleet and what its nodes tell.
type bench struct {
	options
	ctx   context.Context
	nodes []*fleet.Node
	seen  chan sighting
	acks  []time.Duration // until the owner's API answered
	times []time.Duration // until an event at another node
	late  int
	down  map[*fleet.Node]bool // nodes whose daemon was killed
}

// sighting is an event of a task at a node.
type sighting struct {
	node int
	task string
	typ  control.EventType
	at   time.Time
}

// start brings the fleet up: every node sees all others and takes part in the
// network with a task of its own.
func (b *bench) start(r *rig.Rig, dir string) error {
	f, err := fleet.New(r, dir, dir)
	if err != nil {
		return err
	}
	f.LB = "none"
	for i := range b.options.nodes {
		if _, err := r.AddHost(fmt.Sprintf("host%d", i+1)); err != nil {
			return err
		}
	}
	all := r.Hosts()
	for i, h := range all {
		n := f.AddNode(h, nil, all[:min(i, 3)]...)
		b.nodes = append(b.nodes, n)
		if b.all {
			continue
		}
		if err := n.Start(b.ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if b.all {
		if err := b.startAll(ctx); err != nil {
			return err
		}
	}
	for _, n := range b.nodes {
		if err := n.Members(ctx, len(all)); err != nil {
			return err
		}
	}
	return b.populate(ctx)
}

// populate makes the network, a task on every node, and watches.
func (b *bench) populate(ctx context.Context) error {
	if _, err := b.nodes[0].API.CreateNetwork(ctx, control.CreateNetwork{
		Name:   network,
		Subnet: "10.96.0.0/16",
	}); err != nil {
		return err
	}
	for i, n := range b.nodes {
		add := func() error { return b.add(ctx, i, fmt.Sprintf("base-%d", i), 2) }
		if err := rig.Poll(ctx, add); err != nil { // until it knows the network
			return err
		}
		if err := rig.Poll(ctx, func() error { return joined(ctx, n) }); err != nil {
			return err
		}
	}
	if err := b.nodes[0].Equal(ctx, len(b.nodes)); err != nil {
		return err
	}
	return b.watch(ctx)
}

func joined(ctx context.Context, n *fleet.Node) error {
	s, err := n.API.Status(ctx)
	if err == nil && (len(s.Networks) == 0 || !s.Networks[0].Synced) {
		err = fmt.Errorf("%s has not synced yet", n.Host.Name)
	}
	return err
}

func (b *bench) add(ctx context.Context, node int, id string, addr byte) error {
	ip := b.nodes[node].Host.Subnet.Addr().As4()
	ip[3] = addr
	_, err := b.nodes[node].API.AddTask(ctx, control.AddTask{
		Network: network, Service: "web", ID: id, IPs: []string{fmt.Sprintf("%d.%d.%d.%d", ip[0], ip[1], ip[2], ip[3])},
		Ports: []string{"http:80/tcp"},
	})
	return err
}

// watch follows the events of every node and waits until the streams are open.
func (b *bench) watch(ctx context.Context) error {
	b.seen = make(chan sighting, 1<<14)
	opened := make(chan struct{}, len(b.nodes))
	for i, n := range b.nodes {
		go func() {
			err := n.API.Watch(b.ctx, control.WatchRequest{Network: network}, func(e control.Event) error {
				if e.Type == control.EventStart {
					opened <- struct{}{}
				}
				b.seen <- sighting{i, e.Task, e.Type, e.Time}
				return nil
			})
			if err != nil && !errors.Is(err, control.ErrUnreachable) && b.ctx.Err() == nil {
				fmt.Fprintf(os.Stderr, "watch %s: %v\n", n.Host.Name, err)
			}
		}()
	}
	for range b.nodes {
		select {
		case <-opened:
		case <-ctx.Done():
			return fmt.Errorf("open the watch streams: %w", ctx.Err())
		}
	}
	return nil
}

// converge adds and removes tasks, one change after the other.
func (b *bench) converge() error {
	rng := rand.New(rand.NewPCG(b.seed, 0))
	const idleFor = 10 * time.Second
	b.pause(idleFor) // what starting costs is over
	first, err := b.traffic()
	if err != nil {
		return err
	}
	b.pause(idleFor)
	before, err := b.traffic()
	if err != nil {
		return err
	}
	begin := time.Now()
	owner, id := 0, ""
	for k := range b.changes {
		if k%2 == 0 {
			owner, id = rng.IntN(len(b.nodes)), fmt.Sprintf("t%d", k)
		}
		if err := b.change(owner, id, k%2 == 0); err != nil {
			return err
		}
		b.pause(time.Duration(50+rng.IntN(150)) * time.Millisecond)
	}
	lasted := time.Since(begin)
	after, err := b.traffic()
	if err != nil {
		return err
	}
	idle := (before.bytes - first.bytes) / idleFor.Seconds()
	b.print(after.bytes-before.bytes-idle*lasted.Seconds(), after.deltas-before.deltas, idle)
	return b.ctx.Err()
}

// change adds or removes a task and waits until every other node has told so.
func (b *bench) change(owner int, id string, add bool) error {
	want, start := control.EventEndpointRemoved, time.Now()
	var err error
	if add {
		want = control.EventEndpointAdded
		err = b.add(b.ctx, owner, id, 3)
	} else {
		_, err = b.nodes[owner].API.RemoveTask(b.ctx, control.TaskRef{ID: id, Network: network})
	}
	if err != nil {
		return err
	}
	b.acks = append(b.acks, time.Since(start))
	patience := time.NewTimer(30 * time.Second)
	defer patience.Stop()
	for left := len(b.nodes) - 1; left > 0; {
		select {
		case s := <-b.seen:
			if s.node != owner && s.task == id && s.typ == want {
				b.times = append(b.times, s.at.Sub(start))
				left--
			}
		case <-patience.C:
			b.late += left
			return nil
		case <-b.ctx.Done():
			return b.ctx.Err()
		}
	}
	return nil
}

func (b *bench) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-b.ctx.Done():
	}
}

func (b *bench) print(bytes, deltas, idle float64) {
	slices.Sort(b.times)
	slices.Sort(b.acks)
	per := float64(b.changes) * float64(len(b.nodes))
	fmt.Printf("converge impl=meshd real=1 nodes=%d loss=0 p50_ms=%s p99_ms=%s max_ms=%s copies=%.2f "+
		"bytes_per_change=%.0f "+
		"changes=%d late=%d ack_p50_ms=%s idle_bytes_per_s=%.0f load1=%s link=veth from=api-call\n",
		len(b.nodes), ms(b.times, .5), ms(b.times, .99), ms(b.times, 1), deltas/per, bytes/per,
		b.changes, b.late, ms(b.acks, .5), idle/float64(len(b.nodes)), rig.LoadAverage())
}

// ms is a quantile of sorted durations, in milliseconds.
func ms(ds []time.Duration, q float64) string {
	if len(ds) == 0 {
		return "nan"
	}
	d := ds[min(int(q*float64(len(ds))), len(ds)-1)]
	return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond))
}

// traffic is what all nodes together sent, and the deltas they received.
type traffic struct{ bytes, deltas float64 }

func (b *bench) traffic() (sum traffic, err error) {
	for _, n := range b.nodes {
		var text strings.Builder
		if err := n.API.Metrics(b.ctx, &text); err != nil {
			return sum, err
		}
		sum.bytes += sample(text.String(), "meshd_transport_out_bytes_total")
		sum.deltas += sample(text.String(), "meshd_gossip_deltas_in_total")
	}
	return sum, nil
}

// sample finds the value of a metric without labels.
func sample(text, name string) (v float64) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			_, _ = fmt.Sscan(value, &v)
		}
	}
	return v
}
