package ipvs

import (
	"context"
	"errors"
	"net/netip"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
)

// countedServices is for how many services the traffic of each backend is asked
// for, one request per service. Beyond, only connections are told: they are in
// /proc/net/ip_vs.
const countedServices = 256

// Usage implements lb.Driver. Traffic is IPVS' counters since the service or
// the backend was made; that of backends is told for up to 256 services at a
// time. Active is how many connections IPVS has for the backend in every state:
// those that are closed count until they are forgotten, at most two minutes
// later, since the kernel does not tell them from those that are half closed
// and still in use.
func (d *Driver) Usage(_ context.Context, keys []lb.Key) (map[lb.Key]lb.Usage, error) {
	if d.pools == nil || d.kernel == nil {
		return nil, errors.New("ipvs: Usage before Setup")
	}
	wanted := make(map[genl.ID]lb.Key, len(keys))
	ids := make([]genl.ID, 0, len(keys))
	for _, k := range keys {
		if id, ok := d.id(k); ok && d.known.Services[k] != nil {
			wanted[id] = k
			ids = append(ids, id)
		}
	}
	totals, err := d.ask(ids, len(d.known.Services))
	if err != nil {
		return nil, err
	}
	usage := make(map[lb.Key]lb.Usage, len(keys))
	if len(ids) > countedServices && !d.skips {
		if err := d.countLines(wanted, usage); err != nil {
			return nil, err
		}
	}
	var list []genl.DestinationState
	for _, id := range ids {
		u, counted := usage[wanted[id]]
		if !counted {
			if list, err = d.destinations(id, list[:0]); err != nil {
				return nil, err
			}
			u = usageOf(list)
		}
		if s, there := totals[id]; there {
			u.Traffic = traffic(s.Stats)
		}
		usage[wanted[id]] = u
	}
	return usage, nil
}

func usageOf(list []genl.DestinationState) lb.Usage {
	u := lb.Usage{Traffic: lb.NoTraffic(), Backends: make(map[netip.AddrPort]lb.BackendUsage, len(list))}
	for i := range list {
		dest := &list[i]
		u.Backends[dest.Addr] = lb.BackendUsage{Traffic: traffic(dest.Stats), Active: int(dest.Active) + int(dest.Inactive)}
	}
	return u
}

// countLines takes the connections of backends from /proc/net/ip_vs. What is
// not there is not in usage.
func (d *Driver) countLines(wanted map[genl.ID]lb.Key, usage map[lb.Key]lb.Usage) error {
	return d.table(func(p procService, backends []procBackend) error {
		id, named := identify(&p, backends)
		key, want := wanted[id]
		if !named || !want {
			return nil
		}
		u := lb.Usage{Traffic: lb.NoTraffic(), Backends: make(map[netip.AddrPort]lb.BackendUsage, len(backends))}
		for _, b := range backends {
			u.Backends[b.addr] = lb.BackendUsage{Active: b.active + b.inactive, Traffic: lb.NoTraffic()}
		}
		usage[key] = u
		return nil
	})
}

func traffic(s genl.Stats) lb.Traffic {
	return lb.Traffic{
		Connections: int64(s.Connections), PacketsIn: int64(s.PacketsIn), PacketsOut: int64(s.PacketsOut),
		BytesIn: int64(s.BytesIn), BytesOut: int64(s.BytesOut),
	}
}

// id returns what names a service to the kernel; ok is false if it is for all
// ports and its address has no mark.
func (d *Driver) id(k lb.Key) (id genl.ID, ok bool) {
	if k.AllPorts() {
		return d.marks.id(k)
	}
	return idOf(k), true
}
