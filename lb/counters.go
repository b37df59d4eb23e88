package lb

import (
	"maps"
	"slices"
	"time"
)

// Counters are running totals and gauges of a balancer, as after its latest step.
// The map is shared and must not be changed.
type Counters struct {
	// What was written to the kernel since the start.

	Applies      uint64        // calls to the driver
	ApplyTime    time.Duration // spent in them
	LastApply    time.Duration // spent in the latest one
	LastApplyAt  time.Time     // when the latest one began; zero before the first
	ApplyBuckets [11]uint64    // calls that took at most ApplyBounds, not cumulated; the last took longer
	Ops          [6]uint64     // operations that succeeded, by OpKind
	Failed       [6]uint64     // operations that failed, by OpKind
	Failures     uint64        // operations that failed
	Retries      uint64        // rounds of trying failed operations again

	// What comparisons with the kernel found since the start.

	Verifies   [3]uint64        // comparisons, by VerifyResult
	VerifyTime time.Duration    // spent in them
	Triggered  uint64           // comparisons because somebody else may have written to the kernel
	Audits     uint64           // comparisons that read the services back
	Repairs    uint64           // comparisons that found a change by somebody else
	Drift      map[Drift]uint64 // findings

	// What is there now, but for Drains.

	Services  int       // in the kernel
	Desired   int       // services that should be in the kernel
	Pending   int       // services with failed operations
	Draining  int       // backends that wait for their connections to end
	Drains    [4]uint64 // drains that ended since the start, by DrainOutcome
	Conflicts int       // addresses that a service does not get (V5)
	Waiting   int       // services that are not planned at some of their addresses, for lack of room (L11)
	Refused   int       // networks with pools that this host does not serve (L9)

	// Whether the driver works now.

	Unsupported  bool          // no driver works on this host (R5)
	Ready        bool          // a driver works, and is set up
	Driver       string        // "" if none
	LastError    string        // "" if the latest round succeeded
	LastErrorAge time.Duration // since LastError
}

// ApplyBounds returns the upper bounds of Counters.ApplyBuckets in seconds, but for
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
	VerifyOK    VerifyResult = iota // the kernel is as it was left
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
	DrainReturned                     // the backend is in the plan again
	DrainGone                         // somebody else removed it, or its network was left
)

// String returns the outcome's name.
func (o DrainOutcome) String() string { return [...]string{"idle", "deadline", "returned", "gone"}[o] }

// applied counts a call to the driver.
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

// verified counts a comparison with the kernel.
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
