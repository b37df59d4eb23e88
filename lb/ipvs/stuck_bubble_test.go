//go:build linux && !race

package ipvs

import (
	"errors"
	"testing"
	"testing/synctest"

	"meshd/lb"
)

// Rule L7: a call that the kernel does not answer ends all the same, and Setup
// starts anew.
func TestStuckKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, h, d := setup(t)
		k.block = make(chan struct{})
		pool := lb.Op{Kind: lb.SetPool, Pool: lb.Pool{Prefix: pool4}}
		set := lb.Op{Kind: lb.SetService, Key: web, Service: sample().Services[web]}
		errs := d.Apply(t.Context(), []lb.Op{pool, set})
		if errs == nil || errs[0] != nil || !errors.Is(errs[1], errStuck) {
			t.Fatal(errs)
		}
		if errs = d.Apply(t.Context(), []lb.Op{set}); errs == nil || !errors.Is(errs[0], errStuck) {
			t.Errorf("after that: %v, want no further call", errs)
		}
		if _, err := d.Snapshot(t.Context()); !errors.Is(err, lb.ErrDrift) {
			t.Errorf("snapshot: %v, want drift", err)
		}
		close(k.block)
		synctest.Wait()
		k.block = nil
		if err := d.Setup(t.Context()); err != nil { // a new handle
			t.Fatal(err)
		}
		if k.closed != 0 {
			t.Error("closed a socket that a stuck call may still use")
		}
		apply(t, d, []lb.Op{set})
		if len(k.services) != 1 || len(h.pools) != 1 {
			t.Error(k.names(), h.pools)
		}
	})
}
