package lb

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// ErrStopped is returned by questions to a balancer whose Run has ended.
var ErrStopped = errors.New("load balancer is stopped")

// Counters are running totals and gauges of a balancer. Values in maps are
// the reader's to look at, not to change.
type Counters struct {
	Applies      uint64        // calls to the driver
	ApplyTime    time.Duration // spent in them
	LastApply    time.Duration // spent in the latest one
	LastApplyAt  time.Time     // zero before the first
	ApplyBuckets [11]uint64    // calls that took at most ApplyBounds, not cumulated; the last took longer
	Ops          [6]uint64     // operations that succeeded, by OpKind
	Failed       [6]uint64     // operations that failed, by OpKind
	Failures     uint64        // operations that failed
	Retries      uint64        // rounds of trying failed operations again

	Verifies   [3]uint64        // comparisons with the kernel, by VerifyResult
	VerifyTime time.Duration    // spent in them
	Prompted   uint64           // comparisons because somebody else had written to the kernel
	Audits     uint64           // comparisons that read the services back
	Repairs    uint64           // times that somebody else's change was found
	Drift      map[Drift]uint64 // findings

	Services    int       // in the kernel
	Desired     int       // services that should be in the kernel
	Pending     int       // services with failed operations
	Draining    int       // backends that wait for their connections to end
	Drains      [4]uint64 // drains that ended, by DrainOutcome
	Conflicts   int       // addresses that a service does not get (V5)
	Waiting     int       // services that are not planned, or not at all their addresses, for want of room (L11)
	Refused     int       // networks with pools that this host does not serve (L9)
	Unsupported bool      // no driver works on this host (R5)
	Ready       bool      // a driver works, and is set up

	Driver       string        // "" if none
	LastError    string        // "" if the latest round succeeded
	LastErrorAge time.Duration // since LastError
}

// ApplyBounds are the upper bounds of Counters.ApplyBuckets in seconds, but for
// the last bucket, which has none.
func ApplyBounds() []float64 {
	return []float64{.0005, .001, .002, .005, .01, .05, .1, .5, 1, 5}
}

// Drift is what findings are counted by.
type Drift struct {
	Area Area
	Kind FindingKind
}

// VerifyResult is the outcome of a comparison with the kernel.
type VerifyResult int

// The results.
const (
	VerifyOK    VerifyResult = iota // as we left it
	VerifyDrift                     // somebody else changed something
	VerifyError                     // it could not be compared
)

// String returns the result's name.
func (r VerifyResult) String() string { return [...]string{"ok", "drift", "error"}[r] }

// DrainOutcome says how a drain ended.
type DrainOutcome int

// The outcomes.
const (
	DrainIdle     DrainOutcome = iota // no connections were left
	DrainDeadline                     // connections were left, and cut
	DrainReturned                     // the backend is wanted again
	DrainGone                         // somebody else removed it, or its network was left
)

// String returns the outcome's name.
func (o DrainOutcome) String() string { return [...]string{"idle", "deadline", "returned", "gone"}[o] }

func (c *Counters) applied(ops []Op, errs []error, at time.Time, took time.Duration) {
	c.Applies++
	c.ApplyTime += took
	c.LastApply, c.LastApplyAt = took, at
	bucket, _ := slices.BinarySearch(ApplyBounds(), took.Seconds())
	c.ApplyBuckets[bucket]++
	for i, op := range ops {
		if errorAt(errs, i) != nil {
			c.Failures++
			c.Failed[op.Kind]++
			continue
		}
		c.Ops[op.Kind]++
	}
}

func (c *Counters) verified(r *Report) {
	c.Verifies[r.Result()]++
	c.VerifyTime += r.Took
	if r.Full && r.Error == "" {
		c.Audits++
	}
	if len(r.Findings) == 0 {
		return
	}
	c.Repairs++
	drift := maps.Clone(c.Drift) // readers have the old one
	if drift == nil {
		drift = map[Drift]uint64{}
	}
	for _, f := range r.Findings {
		drift[Drift{f.Area, f.Kind}]++
	}
	c.Drift = drift
}

// drained counts a drain that ended.
func (c *Counters) drained(d *drain, wanted bool, now time.Time) {
	outcome := DrainGone
	switch {
	case wanted:
		outcome = DrainReturned
	case d.idle:
		outcome = DrainIdle
	case !now.Before(d.deadline):
		outcome = DrainDeadline
	}
	c.Drains[outcome]++
}

// Counters returns the counters after the latest step. It does not block.
func (b *Balancer) Counters() Counters { return *b.counters.Load() }

// Working reports whether VIPs of the network are served by this host's
// kernel: a driver works and the pool's helper state is in place. If not, vip
// services answer like dnsrr (R5). It does not block or allocate.
func (b *Balancer) Working(network string) bool { return (*b.working.Load())[network] }

// Pools returns the pools that this host is to serve, those that are refused (L9)
// left out. The result must not be changed. It does not block.
func (b *Balancer) Pools() map[netip.Prefix]Pool { return *b.pools.Load() }

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
	c.Conflicts, c.Ready, c.Driver = b.planner.conflicts, b.ready, b.driverName()
	c.Refused, c.Waiting = len(b.planner.Refused()), len(b.planner.waiting)
	if c.LastError != "" {
		c.LastErrorAge = time.Since(b.trouble.at)
	}
	b.counters.Store(&c)
	if working := b.workingNetworks(); !maps.Equal(working, *b.working.Load()) {
		b.working.Store(&working)
	}
	if pools := b.planner.Desired().Pools; !maps.Equal(pools, *b.pools.Load()) {
		pools = maps.Clone(pools)
		b.pools.Store(&pools)
	}
	b.tellRefused()
}

func (b *Balancer) driverName() string {
	if b.driver == nil {
		return ""
	}
	return b.driver.Name()
}

// workingNetworks returns the networks all of whose pools are programmed.
func (b *Balancer) workingNetworks() map[string]bool {
	working := map[string]bool{}
	if !b.ready {
		return working
	}
	for name := range b.planner.networks {
		if b.planner.Works(name, b.shadow) {
			working[name] = true
		}
	}
	return working
}
