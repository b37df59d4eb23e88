// Package lbtest has a driver that behaves like a kernel, without one.
package lbtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"

	"meshd/lb"
)

// ErrInjected is returned by operations that Fake fails on purpose.
var ErrInjected = errors.New("injected failure")

// Fake is an lb.Driver whose kernel is a table in memory. It checks what a driver
// may rely on, and fails at random if asked to. Set the exported fields before the
// first use. It is safe for concurrent use.
type Fake struct {
	// How it behaves.

	DriverName      string     // returned by Name; empty means "fake"
	Refuse          error      // returned by Probe
	RefuseSetup     error      // returned by Setup
	FailProbability float64    // of each operation and each call, in [0, 1]
	Rand            *rand.Rand // decides what fails; nil: nothing does

	mu sync.Mutex // guards what follows

	// The kernel.

	kernel   *lb.Table                         // nil: empty
	ready    bool                              // Setup has succeeded, and nobody has flushed the kernel since
	flushed  bool                              // by Flush: not ready, and the balancer cannot know yet
	injected []lb.Finding                      // by InjectFindings: what the next Setup repairs
	active   map[lb.Key]map[netip.AddrPort]int // by SetActive: connections of backends

	// What was done, for the test.

	ops       []lb.Op  // operations that succeeded since TakeOps
	faults    []string // rules that were broken
	snapshots int      // calls of Snapshot

	// The traffic model.

	flows  map[*Flow]struct{}                // that are open
	sticky map[clientOf]stickiness           // which backends clients keep by affinity
	turns  map[lb.Key]map[netip.AddrPort]int // flows that each backend got since the backends changed
}

// Name implements lb.Driver.
func (f *Fake) Name() string {
	if f.DriverName != "" {
		return f.DriverName
	}
	return "fake"
}

// Probe implements lb.Driver.
func (f *Fake) Probe(context.Context) error { return f.Refuse }

// succeeds decides whether an operation, or a call, succeeds.
func (f *Fake) succeeds() bool {
	return f.Rand == nil || f.FailProbability == 0 || f.Rand.Float64() >= f.FailProbability
}

func (f *Fake) table() *lb.Table {
	if f.kernel == nil {
		f.kernel = lb.NewTable()
	}
	return f.kernel
}

// Setup implements lb.Driver.
func (f *Fake) Setup(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.RefuseSetup != nil {
		return f.RefuseSetup
	}
	if !f.succeeds() {
		return fmt.Errorf("setup: %w", ErrInjected)
	}
	f.ready, f.flushed, f.injected = true, false, nil
	return nil
}

// Apply implements lb.Driver.
func (f *Fake) Apply(_ context.Context, ops []lb.Op) []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := make([]error, len(ops))
	failed := false
	broken := map[lb.Key]bool{}
	for i, op := range ops {
		if !f.succeeds() || op.Kind == lb.DelService && broken[op.Key] {
			errs[i] = fmt.Errorf("%s: %w", op, ErrInjected)
			failed, broken[op.Key] = true, true
			continue
		}
		f.checkRules(op)
		if one := f.table().Apply([]lb.Op{op}, nil); one != nil {
			errs[i], failed, broken[op.Key] = one[0], true, true
			continue
		}
		if op.Kind > lb.SetService {
			delete(f.turns, op.Key)
		}
		f.ops = append(f.ops, op)
	}
	if !failed {
		return nil
	}
	return errs
}

// checkRules records a fault if the operation breaks a rule.
func (f *Fake) checkRules(op lb.Op) {
	if !f.ready && !f.flushed {
		f.addFault("%s before setup", op)
	}
	switch op.Kind {
	case lb.SetService:
		if !f.inPool(op.Key.VIP) {
			f.addFault("%s outside of the pools (L2: helpers before services)", op)
		}
	case lb.DelService:
		if s := f.table().Services[op.Key]; s != nil && len(s.Backends) > 0 {
			f.addFault("%s has backends left", op)
		}
	case lb.DelPool:
		for k := range f.table().Services {
			if op.Pool.Prefix.Contains(k.VIP) {
				f.addFault("%s while %s is there", op, k)
			}
		}
	}
}

func (f *Fake) inPool(a netip.Addr) bool {
	for p := range f.table().Pools {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (f *Fake) addFault(format string, args ...any) {
	f.faults = append(f.faults, fmt.Sprintf(format, args...))
}

// Snapshot implements lb.Driver.
func (f *Fake) Snapshot(context.Context) (*lb.Table, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snapshots++
	if !f.succeeds() {
		return nil, fmt.Errorf("snapshot: %w", ErrInjected)
	}
	t := f.table().Clone()
	for k, s := range t.Services {
		bare := *s
		bare.Network, bare.Name, bare.Drain = "", "", 0
		t.Services[k] = &bare
	}
	return t, nil
}

// Check implements lb.Driver.
func (f *Fake) Check(context.Context) ([]lb.Finding, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ready {
		return []lb.Finding{{Area: lb.AreaTable, Kind: lb.FindingMissing, What: "what setup made"}}, nil
	}
	return append([]lb.Finding(nil), f.injected...), nil
}

// Remnants implements lb.Driver.
func (f *Fake) Remnants(context.Context) ([]lb.Remnant, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var left []lb.Remnant
	for _, p := range f.table().Pools {
		left = append(left, lb.Remnant{Area: lb.AreaRoute, What: lb.PoolRoute(p)})
	}
	for k, s := range f.table().Services {
		left = append(left, lb.Remnant{
			Area: lb.AreaService, What: "service " + k.String(),
			Detail: fmt.Sprintf("%d backends", len(s.Backends)),
		})
	}
	lb.SortRemnants(left)
	return left, nil
}

// Usage implements lb.Driver.
func (f *Fake) Usage(_ context.Context, keys []lb.Key) (map[lb.Key]lb.Usage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	usage := map[lb.Key]lb.Usage{}
	for _, k := range keys {
		u := lb.Usage{Traffic: lb.NoTraffic(), Backends: map[netip.AddrPort]lb.BackendUsage{}}
		for a, n := range f.active[k] {
			u.Backends[a] = lb.BackendUsage{Traffic: lb.NoTraffic(), Active: n}
		}
		if s := f.table().Services[k]; s != nil {
			for _, b := range s.Backends {
				t := lb.NoTraffic()
				t.Connections = int64(f.flowsGiven(k, b))
				u.Backends[b.Addr] = lb.BackendUsage{Traffic: t, Active: u.Backends[b.Addr].Active + f.openFlows(s, b)}
			}
		}
		usage[k] = u
	}
	return usage, nil
}

// Teardown implements lb.Driver.
func (f *Fake) Teardown(context.Context) error {
	f.Flush()
	return nil
}

// Close implements lb.Driver.
func (f *Fake) Close() error { return nil }

// SetActive sets how many connections a backend has.
func (f *Fake) SetActive(k lb.Key, backend netip.AddrPort, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.active == nil {
		f.active = map[lb.Key]map[netip.AddrPort]int{}
	}
	if f.active[k] == nil {
		f.active[k] = map[netip.AddrPort]int{}
	}
	f.active[k][backend] = n
}

// Flush empties the kernel behind the balancer's back, as another program might
// ("nft flush ruleset").
func (f *Fake) Flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kernel, f.ready, f.flushed = lb.NewTable(), false, true
}

// ChangeKernel changes the kernel's table behind the balancer's back.
func (f *Fake) ChangeKernel(ops ...lb.Op) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.table().Apply(ops, nil)
}

// InjectFindings changes what is beside the services behind the balancer's back:
// Check returns the findings until the next Setup.
func (f *Fake) InjectFindings(findings ...lb.Finding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.injected = append(f.injected, findings...)
}

// Snapshots returns how often Snapshot was called.
func (f *Fake) Snapshots() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snapshots
}

// Kernel returns a copy of the kernel's table.
func (f *Fake) Kernel() *lb.Table {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.table().Clone()
}

// TakeOps returns the operations that succeeded since the last call.
func (f *Fake) TakeOps() []lb.Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	ops := f.ops
	f.ops = nil
	return ops
}

// Faults returns the rules that were broken so far, for people.
func (f *Fake) Faults() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.faults...)
}
