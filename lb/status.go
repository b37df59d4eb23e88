package lb

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"meshd/lb/hostfacts"
)

// Status is everything that an operator may want to see ("meshctl lb ls").
type Status struct {
	// The driver.

	Driver  string    // "" = none
	Ready   bool      // the driver is set up
	Refused []Refusal // drivers that do not work here, and why
	Error   string    // the latest error; "" if the latest round succeeded
	ErrorAt time.Time // when Error happened

	// What it serves.

	Pools     []PoolStatus    // sorted by network and prefix
	Services  []ServiceStatus // sorted by network, name and key
	Conflicts []Conflict      // services that do not get an address
	Counters  Counters        // as of Balancer.Counters
}

// PoolStatus is one VIP pool.
type PoolStatus struct {
	Network    string
	Prefix     netip.Prefix
	Src        netip.Addr           // as of Pool
	Programmed bool                 // it is in the kernel as planned
	Conflicts  []hostfacts.Conflict // what it conflicts with: then it is not served here (L9)
}

// EntryState compares what is in the kernel with what should be there.
type EntryState string

// The states of services and backends.
const (
	EntryOK       EntryState = "ok"       // as it should be
	EntryMissing  EntryState = "missing"  // not there
	EntryExtra    EntryState = "extra"    // there, and should not be
	EntryDiffers  EntryState = "differs"  // there, with other settings
	EntryDraining EntryState = "draining" // not in the plan; it goes when its connections have ended (L5)
)

// ServiceStatus is one service, as it should be beside what it is.
type ServiceStatus struct {
	// Which service.

	Key     Key    // its address, port and protocol
	Network string // "" if the pool of its address is not known
	Name    string // "" for what a previous run left

	// What should be there, and what is.

	Desired  *Service        // nil: it is to go
	Actual   *Service        // nil: it is not in the kernel yet
	Backends []BackendStatus // of both, by address
	State    EntryState      // of the service with its backends
	Synced   bool            // the kernel holds what it should, and nothing drains
	RunsAs   string          // the scheduler that the kernel uses, if it is not the one asked for; else ""
	Error    string          // of the latest attempt; "" if it succeeded
}

// BackendStatus is one backend of a service.
type BackendStatus struct {
	Addr     netip.AddrPort
	Desired  int // weight in the plan; -1: it is not in the plan
	Actual   int // weight in the kernel; -1: it is not there
	State    EntryState
	Deadline time.Time // of a drain: when it goes at the latest
}

// poolStatus returns the pools that are planned and those that are refused.
func poolStatus(p *planner, kernel *Table) []PoolStatus {
	var all []PoolStatus
	for prefix, pool := range p.Desired().Pools {
		have, there := kernel.Pools[prefix]
		all = append(all, PoolStatus{
			Network: pool.Network, Prefix: prefix, Src: pool.Src, Programmed: there && have.Src == pool.Src,
		})
	}
	for network, conflicts := range p.Refused() {
		byPool := map[netip.Prefix][]hostfacts.Conflict{}
		for _, c := range conflicts {
			byPool[c.Pool] = append(byPool[c.Pool], c)
		}
		for prefix, conflicts := range byPool {
			all = append(all, PoolStatus{Network: network, Prefix: prefix, Conflicts: conflicts})
		}
	}
	slices.SortFunc(all, func(a, b PoolStatus) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), comparePrefixes(a.Prefix, b.Prefix))
	})
	return all
}

// serviceComparison puts services as they should be beside what they are.
type serviceComparison struct {
	desired, actual *Table
	failed          map[Key]error // services with failed operations
	drains          *drains
	kernel          *kernel // says which scheduler picks in effect
}

// all returns the services of both tables, sorted by network, name and key.
func (c serviceComparison) all() []ServiceStatus {
	var all []ServiceStatus
	for _, k := range slices.SortedFunc(keysOf(c.actual.Services, c.desired.Services), Key.Compare) {
		all = append(all, c.service(k))
	}
	slices.SortStableFunc(all, func(a, b ServiceStatus) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Name, b.Name))
	})
	return all
}

func (c serviceComparison) service(k Key) ServiceStatus {
	s := ServiceStatus{Key: k, Desired: c.desired.Services[k], Actual: c.actual.Services[k]}
	for _, labelled := range []*Service{s.Actual, s.Desired} {
		if labelled != nil {
			s.Network, s.Name = labelled.Network, labelled.Name
		}
	}
	if s.Network == "" { // what a previous run left of a service that does not exist any more
		s.Network = c.networkOf(k.VIP)
	}
	if s.Desired != nil {
		s.RunsAs = c.kernel.runsAs(s.Desired)
	} else {
		s.RunsAs = c.kernel.runsAs(s.Actual)
	}
	s.Backends = c.backends(k, s.Desired, s.Actual)
	s.State = s.state()
	s.Synced = s.Actual != nil && s.Desired != nil && s.Actual.Equal(s.Desired)
	if err := c.failed[k]; err != nil {
		s.Error = err.Error()
	}
	return s
}

// networkOf returns the network whose pool holds the address, or "".
func (c serviceComparison) networkOf(a netip.Addr) string {
	for prefix, p := range c.desired.Pools {
		if prefix.Contains(a) {
			return p.Network
		}
	}
	return ""
}

// backends returns the backends of both services, each of which may be nil, by
// address.
func (c serviceComparison) backends(k Key, want, have *Service) []BackendStatus {
	byAddr := map[netip.AddrPort]BackendStatus{}
	if want != nil {
		for _, b := range want.Backends {
			byAddr[b.Addr] = BackendStatus{Addr: b.Addr, Desired: int(b.Weight), Actual: -1}
		}
	}
	if have != nil {
		for _, b := range have.Backends {
			s, planned := byAddr[b.Addr]
			if !planned {
				s = BackendStatus{Addr: b.Addr, Desired: -1}
			}
			s.Actual = int(b.Weight)
			byAddr[b.Addr] = s
		}
	}
	all := make([]BackendStatus, 0, len(byAddr))
	for a, s := range byAddr {
		s.State = s.state()
		s.Deadline = c.drains.deadline(k, a)
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b BackendStatus) int { return a.Addr.Compare(b.Addr) })
	return all
}

// state derives the state of a service from its own settings and its backends.
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
