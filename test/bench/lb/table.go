//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"meshd/lb"
	"meshd/state"
)

var pool = netip.MustParsePrefix("10.96.0.0/16")

const (
	servicePort = 80
	backendPort = 8080
)

// key names the i-th service.
func key(i int) lb.Key {
	return lb.Key{VIP: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Port: servicePort, Proto: state.TCP}
}

// backend is the j-th backend of the i-th service.
func backend(i, j int) lb.Backend {
	a := netip.AddrFrom4([4]byte{10, byte(100 + j), byte(i >> 8), byte(i)})
	return lb.Backend{Addr: netip.AddrPortFrom(a, backendPort), Weight: 1}
}

// table has services with backends each, and no pool.
func table(services, backends int) *lb.Table {
	t := lb.NewTable()
	for i := range services {
		s := &lb.Service{Key: key(i), Scheduler: "wrr"}
		for j := range backends {
			s.Backends = append(s.Backends, backend(i, j))
		}
		slices.SortFunc(s.Backends, func(a, b lb.Backend) int { return a.Addr.Compare(b.Addr) })
		t.Services[s.Key] = s
	}
	return t
}

// start sets a driver up in a namespace, with the pool. The own host's clients
// get src, if it is not zero.
func start(ctx context.Context, d lb.Driver, src netip.Addr) error {
	if err := d.Probe(ctx); err != nil {
		return err
	}
	if err := d.Setup(ctx); err != nil {
		return err
	}
	if _, err := d.Snapshot(ctx); err != nil {
		return err
	}
	return apply(ctx, d, []lb.Op{{Kind: lb.SetPool, Pool: lb.Pool{Prefix: pool, Src: src}}})
}

func apply(ctx context.Context, d lb.Driver, ops []lb.Op) error {
	return errors.Join(d.Apply(ctx, ops)...)
}

// driverRun measures one of our drivers, which is set up in an empty kernel:
// cold load, one change of two kinds, and a comparison of everything.
func (b *bench) driverRun(d lb.Driver, services, backends int) error {
	if err := start(b.ctx, d, netip.Addr{}); err != nil {
		return err
	}
	want := table(services, backends)
	w := what{d.Name(), "meshd", "cold", services, backends}
	c, err := measure(func() error { return apply(b.ctx, d, lb.Diff(lb.NewTable(), want, lb.Policy{})) })
	if err != nil {
		return fmt.Errorf("cold load: %w", err)
	}
	b.report.add(w, c)
	w.op = "change"
	for _, change := range changes(services, backends) {
		c, err := b.measureChange(d, change)
		if err != nil {
			return fmt.Errorf("%s: %w", change.kind, err)
		}
		b.report.add(w, c, "change="+change.kind)
	}
	left := []lb.Op{
		{Kind: lb.DelBackend, Key: key(services / 2), Backend: backend(services/2, backends)},
		{Kind: lb.DelBackend, Key: key(services / 2), Backend: backend(services/2, backends+1)},
	}
	if err := apply(b.ctx, d, left); err != nil {
		return fmt.Errorf("take away what drains: %w", err)
	}
	return b.verify(d, want)
}

// changes is how many changes are measured, an even number.
func (b *bench) changes() int {
	if b.quick {
		return 20
	}
	return 200
}

// change is a kind of change to one service in the middle of the table, in the
// operations that the balancer sends. Two in a row leave what was before.
type change struct {
	kind    string
	prepare []lb.Op // before each, not measured
	count   bool    // count connections before each, not measured, as the balancer does while something drains
	ops     [2][]lb.Op
}

// changes returns the kinds: an endpoint that moves (its old place drains), one
// that comes or goes, one whose drain has ended since it has no connections
// left, and one that is removed before.
func changes(services, backends int) []change {
	k, old := key(services/2), backend(services/2, 0)
	other, extra := backend(services/2, backends), backend(services/2, backends+1)
	set := func(b lb.Backend, weight uint32) lb.Op {
		b.Weight = weight
		return lb.Op{Kind: lb.SetBackend, Key: k, Backend: b}
	}
	drain, gone := []lb.Op{set(extra, 1), set(extra, 0)}, []lb.Op{{Kind: lb.DelBackend, Key: k, Backend: extra}}
	return []change{
		{kind: "move", ops: [2][]lb.Op{{set(other, 1), set(old, 0)}, {set(old, 1), set(other, 0)}}},
		{kind: "resize", ops: [2][]lb.Op{{set(extra, 1)}, {set(extra, 0)}}},
		{kind: "drained", prepare: drain, count: true, ops: [2][]lb.Op{gone, gone}},
		{kind: "cut", prepare: drain, ops: [2][]lb.Op{gone, gone}},
	}
}

func (b *bench) measureChange(d lb.Driver, change change) (cost, error) {
	var m meter
	for i := range 2 + b.changes() {
		for _, op := range change.prepare {
			if err := apply(b.ctx, d, []lb.Op{op}); err != nil {
				return cost{}, err
			}
		}
		if change.count {
			if _, err := d.Usage(b.ctx, []lb.Key{change.ops[0][0].Key}); err != nil {
				return cost{}, err
			}
		}
		m.start()
		if err := apply(b.ctx, d, change.ops[i%2]); err != nil {
			return cost{}, err
		}
		m.stop()
	}
	m.forget(2) // the first of its kind may cost more, but is no typical one
	return m.cost(), nil
}

// verify measures what the balancer does at each audit: ask whether anybody
// changed anything, where the kernel can tell, and compare everything.
func (b *bench) verify(d lb.Driver, want *lb.Table) error {
	w := what{d.Name(), "meshd", "verify", len(want.Services), len(want.Services[key(0)].Backends)}
	if quiet, ok := d.(lb.Watchful); ok {
		if _, err := d.Snapshot(b.ctx); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		c, err := measureEach(b.changes(), func(int) error {
			if !quiet.Untouched(b.ctx) {
				return errors.New("somebody else changes the kernel's tables")
			}
			return nil
		})
		if err != nil {
			return err
		}
		b.report.add(w, c, "verify=untouched")
	}
	times := 5
	if b.quick || b.instructions {
		times = 1
	}
	c, err := measureEach(times, func(int) error {
		if found, err := d.Check(b.ctx); err != nil || len(found) > 0 {
			return fmt.Errorf("check: %v, %w", found, err)
		}
		have, err := d.Snapshot(b.ctx)
		if err != nil {
			return err
		}
		have.Pools = nil
		if found := lb.Compare(have, want); len(found) > 0 {
			return fmt.Errorf("%d differences, the first %s", len(found), found[0])
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	b.report.add(w, c, "verify=full")
	return nil
}
