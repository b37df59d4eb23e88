package lb

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"meshd/lb/hostfacts"
)

// Status is everything that an operator may want to see ("meshctl lb ls").
type Status struct {
	Driver    string    // "" = none
	Ready     bool      // the driver is set up
	Refused   []Refusal // drivers that do not work here, and why
	Error     string
	ErrorAt   time.Time
	Pools     []PoolStatus
	Services  []ServiceStatus // sorted by network, name and key
	Conflicts []Conflict
	Counters  Counters
}

// PoolStatus is one VIP pool.
type PoolStatus struct {
	Network    string
	Prefix     netip.Prefix
	Src        netip.Addr
	Programmed bool
	Conflicts  []hostfacts.Conflict // what stands against it: then it is not served here (L9)
}

// EntryState says how what is in the kernel stands to what should be.
type EntryState string

// The states of services and backends.
const (
	EntryOK       EntryState = "ok"       // as it should be
	EntryMissing  EntryState = "missing"  // not there
	EntryExtra    EntryState = "extra"    // there, and should not be
	EntryDiffers  EntryState = "differs"  // there, with other settings
	EntryDraining EntryState = "draining" // not wanted; it goes when its connections have ended (L5)
)

// ServiceStatus is one service, as it should be beside what it is. Desired is
// nil for one that is going, Actual for one that is not yet in the kernel.
type ServiceStatus struct {
	Key      Key
	Network  string
	Name     string
	Desired  *Service
	Actual   *Service
	RunsAs   string // the scheduler that picks in effect, if it is another than asked for; else ""
	State    EntryState
	Synced   bool            // the kernel holds what it should, and nothing drains
	Backends []BackendStatus // of both, by address
	Error    string          // of the latest attempt
}

// BackendStatus is one backend of a service.
type BackendStatus struct {
	Addr     netip.AddrPort
	Desired  int // weight; -1: it should not be there
	Actual   int // weight; -1: it is not there
	State    EntryState
	Deadline time.Time // of a drain: when it goes at the latest
}

// ask runs f in the balancer's goroutine, with the context of Run.
func ask[T any](ctx context.Context, b *Balancer, f func(context.Context) T) (T, error) {
	answer := make(chan T, 1)
	var none T
	select {
	case b.asks <- func(run context.Context) { answer <- f(run) }:
	case <-b.done:
		return none, ErrStopped
	case <-ctx.Done():
		return none, ctx.Err()
	}
	select {
	case v := <-answer:
		return v, nil
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// Status returns the state of the moment. It waits for a running Apply. The
// services in it are shared and immutable. The error is ErrStopped or that of
// ctx.
func (b *Balancer) Status(ctx context.Context) (Status, error) {
	return ask(ctx, b, func(context.Context) Status {
		b.publish()
		return b.status()
	})
}

// Applied reports whether the kernel has been given all that the view of a network
// says by now, or there is nothing that it could be given. What the kernel refused
// was given: Status tells of it. The error is ErrStopped or that of ctx.
func (b *Balancer) Applied(ctx context.Context, network string) (bool, error) {
	return ask(ctx, b, func(context.Context) bool {
		if b.held || b.count.Unsupported {
			return true
		}
		view := b.cfg.Source.View(network)
		if view == nil || !b.cfg.Only(network) {
			return true
		}
		if w := b.watches[network]; w == nil || w.view != view {
			return false // Run is about to follow it
		}
		b.collect()
		if b.full || len(b.dirty) > 0 {
			b.clock.by(alarmApply, later(time.Now().Add(b.cfg.Coalesce), b.rest))
			return false
		}
		return b.ready
	})
}

// Usage returns the driver's counters of all services in the kernel. What they
// mean is documented at the driver.
func (b *Balancer) Usage(ctx context.Context) (map[Key]Usage, error) {
	type answer struct {
		usage map[Key]Usage
		err   error
	}
	a, err := ask(ctx, b, func(run context.Context) (a answer) {
		if b.ready {
			a.usage, a.err = b.driver.Usage(run, b.shadow.Keys())
		}
		return a
	})
	return a.usage, errors.Join(err, a.err)
}

func (b *Balancer) status() Status {
	s := Status{
		Driver: b.driverName(), Ready: b.ready, Refused: slices.Clone(b.refused), Error: b.trouble.text,
		ErrorAt:   b.trouble.at,
		Conflicts: b.planner.Conflicts(), Counters: *b.counters.Load(),
	}
	for _, prefix := range sortedPrefixes(b.planner.Desired().Pools) {
		p := b.planner.Desired().Pools[prefix]
		have, ok := b.shadow.Pools[prefix]
		s.Pools = append(s.Pools, PoolStatus{Network: p.Network, Prefix: prefix, Src: p.Src, Programmed: ok &&
			have.Src == p.Src})
	}
	for network, against := range b.planner.Refused() {
		for prefix, conflicts := range byPool(against) {
			s.Pools = append(s.Pools, PoolStatus{Network: network, Prefix: prefix, Conflicts: conflicts})
		}
	}
	slices.SortFunc(s.Pools, func(a, b PoolStatus) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), comparePrefixes(a.Prefix, b.Prefix))
	})
	for _, k := range slices.SortedFunc(keysOf(b.shadow.Services, b.planner.Desired().Services), Key.Compare) {
		s.Services = append(s.Services, b.serviceStatus(k))
	}
	slices.SortStableFunc(s.Services, func(a, b ServiceStatus) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Name, b.Name))
	})
	return s
}

func (b *Balancer) serviceStatus(k Key) ServiceStatus {
	s := ServiceStatus{Key: k, Desired: b.planner.Desired().Services[k], Actual: b.shadow.Services[k]}
	for _, labelled := range []*Service{s.Actual, s.Desired} {
		if labelled != nil {
			s.Network, s.Name = labelled.Network, labelled.Name
		}
	}
	if s.Network == "" { // what a previous run left of a service that is no more
		s.Network = b.networkOf(k.VIP)
	}
	s.RunsAs = b.runsAs(&s)
	s.Backends = b.backendStatus(k, s.Desired, s.Actual)
	s.State = s.state()
	s.Synced = s.Actual != nil && s.Desired != nil && s.Actual.Equal(s.Desired)
	if err := b.failed[k]; err != nil {
		s.Error = err.Error()
	}
	return s
}

// runsAs says which scheduler picks the service's backends, if it is another than
// was asked for.
func (b *Balancer) runsAs(s *ServiceStatus) string {
	as, imitates := b.driver.(Imitator)
	one := s.Desired
	if one == nil {
		one = s.Actual
	}
	if !imitates || one == nil {
		return ""
	}
	if name := as.RunsAs(one); name != one.Scheduler {
		return name
	}
	return ""
}

// networkOf returns the network whose pool holds the address, or "".
func (b *Balancer) networkOf(a netip.Addr) string {
	for prefix, p := range b.planner.Desired().Pools {
		if prefix.Contains(a) {
			return p.Network
		}
	}
	return ""
}

// state judges a service by its own settings and by its backends.
func (s *ServiceStatus) state() EntryState {
	switch {
	case s.Actual == nil:
		return EntryMissing
	case s.Desired == nil && s.Actual.closing():
		return EntryDraining
	case s.Desired == nil:
		return EntryExtra
	case !s.Actual.sameSettings(s.Desired):
		return EntryDiffers
	}
	state := EntryOK
	for _, b := range s.Backends {
		switch {
		case b.State == EntryDraining && b.Desired < 0:
			state = EntryDraining
		case b.State != EntryOK && b.State != EntryDraining:
			return EntryDiffers
		}
	}
	return state
}

func (b *Balancer) backendStatus(k Key, want, have *Service) []BackendStatus {
	weights := map[netip.AddrPort]BackendStatus{}
	if want != nil {
		for _, x := range want.Backends {
			weights[x.Addr] = BackendStatus{Addr: x.Addr, Desired: int(x.Weight), Actual: -1}
		}
	}
	if have != nil {
		for _, x := range have.Backends {
			s, wanted := weights[x.Addr]
			if !wanted {
				s = BackendStatus{Addr: x.Addr, Desired: -1}
			}
			s.Actual = int(x.Weight)
			weights[x.Addr] = s
		}
	}
	all := make([]BackendStatus, 0, len(weights))
	for a, s := range weights {
		s.State = s.state()
		if d := b.drains[k][a]; d != nil {
			s.Deadline = d.deadline
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b BackendStatus) int { return a.Addr.Compare(b.Addr) })
	return all
}

func (s BackendStatus) state() EntryState {
	switch {
	case s.Actual == 0 && s.Desired <= 0: // also a task that its operator drains
		return EntryDraining
	case s.Actual == s.Desired:
		return EntryOK
	case s.Actual < 0:
		return EntryMissing
	case s.Desired < 0:
		return EntryExtra
	}
	return EntryDiffers
}

func byPool(all []hostfacts.Conflict) map[netip.Prefix][]hostfacts.Conflict {
	pools := map[netip.Prefix][]hostfacts.Conflict{}
	for _, c := range all {
		pools[c.Pool] = append(pools[c.Pool], c)
	}
	return pools
}
