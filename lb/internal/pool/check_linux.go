package pool

import (
	"fmt"
	"slices"

	"meshd/lb"
	"meshd/lb/nftconn"
	"meshd/lb/sysctl"
)

// Check returns how this part of the kernel differs from what was left there:
// sysctls, chains and rules, the sets of the pools, marks, routes.
func (b *Base) Check() ([]lb.Finding, error) {
	found, err := sysctl.Check(b.cfg.NetNS, b.sysctls())
	if err != nil {
		return found, err
	}
	for i := range nftconn.Families {
		more, err := b.checkFamily(i)
		found = append(found, more...)
		if err != nil {
			return found, err
		}
	}
	served, err := b.served.check()
	if err != nil {
		return append(found, served...), err
	}
	ways, err := b.routes.check(b.pools)
	return slices.Concat(found, served, ways), err
}

// sysctls returns the settings that Setup made.
func (b *Base) sysctls() []sysctl.Setting {
	if b.cfg.Local {
		return nil
	}
	all := []sysctl.Setting{{Key: sysctl.ForwardIPv4, Value: "1"}}
	for p := range b.pools {
		if p.Addr().Is6() {
			return append(all, sysctl.Setting{Key: sysctl.ForwardIPv6, Value: "1"})
		}
	}
	return all
}

// checkFamily looks at the rules and sets of one address family.
func (b *Base) checkFamily(i int) ([]lb.Finding, error) {
	found, err := b.book[i].Check(b.conn)
	if err != nil || slices.ContainsFunc(found, func(f lb.Finding) bool { return f.Area == lb.AreaTable }) {
		return found, err
	}
	pools, err := b.guard.check(i, b.pools)
	if err != nil {
		return found, err
	}
	marks, err := b.marks.check(i)
	return slices.Concat(found, pools, marks), err
}

// Number returns that of the namespace's ruleset, which every change of it
// moves. It may be called before Setup, and on a nil receiver.
func (b *Base) Number() (uint64, error) {
	if b == nil {
		return 0, fmt.Errorf("%w: not set up", lb.ErrDrift)
	}
	n, err := b.conn.Number()
	return uint64(n), err
}
