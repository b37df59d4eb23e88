package lb

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// ErrStopped is returned by questions to a balancer whose Run has ended.
var ErrStopped = errors.New("load balancer is stopped")

// Counters are running totals and gauges of a balancer.
type Counters struct {
	Applies      uint64        // calls to the driver
	ApplyTime    time.Duration // spent in them
	LastApply    time.Duration // spent in the latest one
	Ops          [6]uint64     // operations that succeeded, by OpKind
	Failures     uint64        // operations that failed
	Retries      uint64        // rounds of trying failed operations again
	Audits       uint64        // full comparisons with the kernel
	Repairs      uint64        // times that somebody else's change was found
	Services     int           // in the kernel
	Desired      int           // services that should be in the kernel
	Pending      int           // services with failed operations
	Draining     int           // backends that wait for their connections to end
	Conflicts    int           // addresses that a service does not get (V5)
	Unsupported  bool          // no driver works on this host (R5)
	Driver       string        // "" if none
	LastError    string        // "" if the latest round succeeded
	LastErrorAge time.Duration // since LastError
}

func (c *Counters) applied(ops []Op, errs []error, took time.Duration) {
	c.Applies++
	c.ApplyTime += took
	c.LastApply = took
	for i, op := range ops {
		if errorAt(errs, i) != nil {
			c.Failures++
			continue
		}
		c.Ops[op.Kind]++
	}
}

// Counters returns the counters after the latest step. It does not block.
func (b *Balancer) Counters() Counters { return *b.counters.Load() }

// Working reports whether VIPs of the network are served by this host's
// kernel: a driver works and the pool's helper state is in place. If not, vip
// services answer like dnsrr (R5). It does not block or allocate.
func (b *Balancer) Working(network string) bool { return (*b.working.Load())[network] }

// trouble is the latest error, for people.
type trouble struct {
	text string
	at   time.Time
}

func (t *trouble) clear() { *t = trouble{} }

// fail notes an error. The same error again is not logged again.
func (b *Balancer) fail(now time.Time, what string, err error) {
	text := what + ": " + err.Error()
	if text != b.trouble.text {
		b.cfg.Log.Error("load balancing", slog.String("what", what), slog.Any("err", err))
	}
	b.trouble = trouble{text: text, at: now}
}

// publish copies the state for readers in other goroutines.
func (b *Balancer) publish() {
	c := b.count
	c.Services, c.Desired = len(b.shadow.Services), len(b.planner.Desired().Services)
	c.Pending, c.Draining, c.LastError = len(b.failed), b.draining, b.trouble.text
	c.Conflicts = b.planner.conflicts
	if b.driver != nil {
		c.Driver = b.driver.Name()
	}
	if c.LastError != "" {
		c.LastErrorAge = time.Since(b.trouble.at)
	}
	b.counters.Store(&c)
	if working := b.workingNetworks(); !maps.Equal(working, *b.working.Load()) {
		b.working.Store(&working)
	}
}

// workingNetworks returns the networks all of whose pools are programmed.
func (b *Balancer) workingNetworks() map[string]bool {
	working := map[string]bool{}
	if !b.ready {
		return working
	}
	for name, def := range b.planner.networks {
		ok := def.Subnet4.IsValid() || def.Subnet6.IsValid()
		for _, prefix := range []netip.Prefix{def.Subnet4, def.Subnet6} {
			if _, there := b.shadow.Pools[prefix]; prefix.IsValid() && !there {
				ok = false
			}
		}
		if ok {
			working[name] = true
		}
	}
	return working
}

// Status is everything that an operator may want to see ("meshctl lb ls").
type Status struct {
	Driver    string          `json:"driver"`  // "" = none
	Ready     bool            `json:"ready"`   // the driver is set up
	Refused   []Refusal       `json:"refused"` // drivers that do not work here, and why
	Error     string          `json:"error,omitempty"`
	ErrorAt   time.Time       `json:"error_at,omitzero"`
	Pools     []PoolStatus    `json:"pools"`
	Services  []ServiceStatus `json:"services"` // sorted by network, name and key
	Conflicts []Conflict      `json:"conflicts"`
	Counters  Counters        `json:"counters"`
}

// PoolStatus is one VIP pool.
type PoolStatus struct {
	Network    string       `json:"network"`
	Prefix     netip.Prefix `json:"prefix"`
	Src        netip.Addr   `json:"src"`
	Programmed bool         `json:"programmed"`
}

// ServiceStatus is one service, as it should be beside what it is. Desired is
// nil for one that is going, Actual for one that is not yet in the kernel.
type ServiceStatus struct {
	Key     Key      `json:"key"`
	Network string   `json:"network"`
	Name    string   `json:"name"`
	Desired *Service `json:"desired"`
	Actual  *Service `json:"actual"`
	Synced  bool     `json:"synced"` // the kernel holds what it should
	Error   string   `json:"error,omitempty"`
}

// MarshalText implements encoding.TextMarshaler with String.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// ask runs f in the balancer's goroutine.
func (b *Balancer) ask(ctx context.Context, f func()) error {
	answered := make(chan struct{})
	select {
	case b.asks <- func() { f(); close(answered) }:
		<-answered
		return nil
	case <-b.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status returns the state of the moment. It waits for a running Apply. The
// services in it are shared and immutable. The error is ErrStopped or that of
// ctx.
func (b *Balancer) Status(ctx context.Context) (Status, error) {
	var s Status
	err := b.ask(ctx, func() {
		b.publish()
		s = b.status()
	})
	return s, err
}

// Usage returns the driver's counters of all services in the kernel. What they
// mean is documented at the driver.
func (b *Balancer) Usage(ctx context.Context) (map[Key]Usage, error) {
	var usage map[Key]Usage
	var failed error
	err := b.ask(ctx, func() {
		if b.ready {
			usage, failed = b.driver.Usage(ctx, b.shadow.Keys())
		}
	})
	return usage, errors.Join(err, failed)
}

func (b *Balancer) status() Status {
	s := Status{
		Ready: b.ready, Refused: slices.Clone(b.refused), Error: b.trouble.text, ErrorAt: b.trouble.at,
		Conflicts: b.planner.Conflicts(), Counters: *b.counters.Load(),
	}
	if b.driver != nil {
		s.Driver = b.driver.Name()
	}
	for _, prefix := range sortedPrefixes(b.planner.Desired().Pools) {
		p := b.planner.Desired().Pools[prefix]
		have, ok := b.shadow.Pools[prefix]
		s.Pools = append(s.Pools, PoolStatus{Network: p.Network, Prefix: prefix, Src: p.Src, Programmed: ok && have.Src == p.Src})
	}
	for _, k := range b.allKeys() {
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
	s.Synced = s.Actual != nil && s.Desired != nil && s.Actual.Equal(s.Desired)
	if err := b.failed[k]; err != nil {
		s.Error = err.Error()
	}
	return s
}
