package lb

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"meshd/lb/hostfacts"
	"meshd/state"
)

// SetFacts plans for what the host is and needs: pools that conflict with it are
// refused (L9). The facts must not change afterwards.
func (p *planner) SetFacts(f *hostfacts.Facts) {
	if p.facts.Equal(f) {
		return
	}
	p.facts, p.stale = f, true
}

// Refused returns, by network, what its pools conflict with, for the networks some
// of whose pools are refused. It belongs to the planner, like the table of Desired.
func (p *planner) Refused() map[string][]hostfacts.Conflict {
	p.refresh()
	return p.refused
}

// refresh plans pools and backends anew after a change of a definition or of the
// host, on which all of them depend.
func (p *planner) refresh() {
	if !p.stale {
		return
	}
	p.stale = false
	p.planPools()
	for id := range p.services {
		p.removePlanned(id)
	}
	for id := range p.services {
		p.planService(id)
	}
}

// planPools plans the pools without conflicts. There are no more of them than
// networks, so all are planned each time. Of two networks whose pools overlap the
// older has them (V9) on every host that serves both, even where its own pool is
// refused: all hosts have to agree which of the two it is.
func (p *planner) planPools() {
	clear(p.desired.Pools)
	clear(p.refused)
	defs := slices.SortedFunc(maps.Values(p.networks), func(a, b state.NetworkDef) int { return state.ByAge(&a, &b) })
	for i, def := range defs {
		for _, pool := range p.poolsOf(&def) {
			against := slices.Concat(olderPools(pool.Prefix, defs[:i]), hostfacts.Conflicts(pool.Prefix, p.facts))
			if len(against) > 0 {
				p.refused[def.Name] = append(p.refused[def.Name], against...)
				continue
			}
			p.desired.Pools[pool.Prefix] = pool
		}
	}
}

// poolsOf returns the pools of a definition.
func (p *planner) poolsOf(def *state.NetworkDef) []Pool {
	var all []Pool
	if def.Subnet4.IsValid() {
		all = append(all, Pool{Prefix: def.Subnet4, Src: p.node.Src4, Network: def.Name})
	}
	if def.Subnet6.IsValid() {
		all = append(all, Pool{Prefix: def.Subnet6, Src: p.node.Src6, Network: def.Name})
	}
	return all
}

// olderPools returns the pools of older networks that overlap a pool.
func olderPools(pool netip.Prefix, older []state.NetworkDef) []hostfacts.Conflict {
	var found []hostfacts.Conflict
	for _, def := range older {
		for _, o := range []netip.Prefix{def.Subnet4, def.Subnet6} {
			if o.IsValid() && o.Overlaps(pool) && len(found) < hostfacts.MaxConflicts {
				found = append(found, hostfacts.Conflict{
					Pool: pool, Kind: hostfacts.KindPool, What: fmt.Sprintf("pool %s of network %s, which is older", o, def.Name),
				})
			}
		}
	}
	return found
}

// inPlannedPool reports whether a network's address lies in a planned pool of its own.
func (p *planner) inPlannedPool(network string, a netip.Addr) bool {
	def := p.networks[network]
	for _, prefix := range []netip.Prefix{def.Subnet4, def.Subnet6} {
		if prefix.IsValid() && prefix.Contains(a) {
			return p.desired.Pools[prefix].Network == network
		}
	}
	return false
}

// Programmed reports whether all pools of a network are planned, and are in the
// kernel's table.
func (p *planner) programmed(network string, kernel *Table) bool {
	def, known := p.networks[network]
	if !known || len(p.Refused()[network]) > 0 {
		return false
	}
	pools := p.poolsOf(&def)
	for _, pool := range pools {
		if _, there := kernel.Pools[pool.Prefix]; !there {
			return false
		}
	}
	return len(pools) > 0
}

// Forbids reports whether a pool that is in the kernel must go at once, because the
// host itself or an older network has its addresses.
func (p *planner) forbids(pool netip.Prefix) bool {
	p.refresh()
	if _, planned := p.desired.Pools[pool]; planned {
		return false
	}
	for other := range p.desired.Pools {
		if other.Overlaps(pool) {
			return true
		}
	}
	return len(hostfacts.Conflicts(pool, p.facts)) > 0
}

// backendAddr returns the member's address of the VIP's family, or the zero Addr if
// it has none that may be a backend. Connections to a VIP must not lead to services
// of the host itself that listen on loopback, nor to another VIP.
func (p *planner) backendAddr(e *state.Entry, vip netip.Addr) netip.Addr {
	a := addrFor(e, vip)
	switch {
	case !a.IsValid():
		return a
	case a.IsLoopback() && !p.node.AllowLoopback:
		return netip.Addr{}
	case !a.IsLoopback() && p.facts.OnLoopback(a) && e.Owner() != p.node.Self:
		return netip.Addr{}
	}
	for _, def := range p.networks {
		if def.Contains(a) {
			return netip.Addr{}
		}
	}
	return a
}
