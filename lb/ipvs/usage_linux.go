package ipvs

import (
	"context"
	"errors"
	"net/netip"

	mobyipvs "github.com/moby/ipvs"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
	"meshd/state"
)

// countedBackends is for how many services the traffic of each backend is
// asked for, one request per service. Beyond, only connections are told: they
// are in the table.
const countedBackends = 64

// Usage implements lb.Driver. Traffic is IPVS' counters since the service or
// the backend was made; that of backends is told for up to 64 services at a
// time, and wraps at 2^32 (bytes do not). Active is how many connections IPVS
// has for the backend in every state: those that are closed count until they
// are forgotten, at most two minutes later, since the table does not tell them
// from those that are half closed and still in use.
func (d *Driver) Usage(_ context.Context, keys []lb.Key) (map[lb.Key]lb.Usage, error) {
	if d.help == nil || d.kernel == nil {
		return nil, errors.New("ipvs: Usage before Setup")
	}
	usage := make(map[lb.Key]lb.Usage, len(keys))
	ids := make([]genl.ID, 0, len(keys))
	for _, k := range keys {
		if id, ok := d.id(k); ok && d.known.Services[k] != nil {
			ids = append(ids, id)
			usage[k] = lb.Usage{Traffic: lb.NoTraffic(), Backends: map[netip.AddrPort]lb.BackendUsage{}}
		}
	}
	totals, err := d.ask(ids, len(d.known.Services))
	if err != nil {
		return nil, err
	}
	for k, u := range usage {
		if id, _ := d.id(k); totals[id].ID == id {
			u.Traffic = traffic(totals[id].Stats)
			usage[k] = u
		}
	}
	if len(usage) <= countedBackends {
		if err := d.countEach(usage); !errors.Is(err, errNoCounters) {
			return usage, err
		}
	}
	return usage, d.countAll(usage)
}

// countEach asks for the backends of each service.
func (d *Driver) countEach(usage map[lb.Key]lb.Usage) error {
	for k, u := range usage {
		id, _ := d.id(k)
		var list []*mobyipvs.Destination
		err := d.kernel.call(func(k kernel) (err error) { list, err = k.Destinations(id); return err })
		if errors.Is(err, errNoCounters) {
			return err
		}
		if err != nil {
			return explain("list IPVS destinations", err)
		}
		for _, dest := range list {
			a, ok := netip.AddrFromSlice(dest.Address)
			if !ok {
				continue
			}
			if id.Family == genl.IPv4 {
				a = a.Unmap()
			}
			s := dest.Stats
			u.Backends[netip.AddrPortFrom(a, dest.Port)] = lb.BackendUsage{
				Active: dest.ActiveConnections + dest.InactiveConnections,
				Traffic: lb.Traffic{
					Connections: int64(s.Connections), PacketsIn: int64(s.PacketsIn), PacketsOut: int64(s.PacketsOut),
					BytesIn: int64(s.BytesIn), BytesOut: int64(s.BytesOut),
				},
			}
		}
	}
	return nil
}

// countAll takes the connections of backends from the table.
func (d *Driver) countAll(usage map[lb.Key]lb.Usage) error {
	pools := d.help.Pools()
	return d.table(func(p procService, backends []procBackend) error {
		_, key, _ := d.identify(&p, backends, pools)
		u, wanted := usage[key]
		if !wanted {
			return nil
		}
		for _, b := range backends {
			u.Backends[b.addr] = lb.BackendUsage{Active: b.active + b.inactive, Traffic: lb.NoTraffic()}
		}
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
		return d.marks.id(k.VIP)
	}
	return idOf(k), true
}

func protoOf(p uint8) state.Proto { return state.Proto(p) }
