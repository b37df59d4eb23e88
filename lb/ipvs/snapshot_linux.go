package ipvs

import (
	"context"
	"errors"
	"net/netip"

	mobyipvs "github.com/moby/ipvs"

	"meshd/lb"
)

// Snapshot implements lb.Driver, with one request per service.
func (d *Driver) Snapshot(context.Context) (*lb.Table, error) {
	if d.help == nil {
		return nil, errors.New("ipvs: Snapshot before Setup")
	}
	ours, err := d.services()
	if err != nil {
		return nil, err
	}
	t := lb.NewTable()
	t.Pools = d.help.Pools()
	for _, f := range ours {
		list, err := d.destinations(f.kernel)
		if err != nil {
			return nil, err
		}
		f.ours.Backends = fromDestinations(list, f.kernel.AddressFamily)
		if wantFlags, _ := serviceFlags(f.ours); wantFlags != f.kernel.Flags&^flagHashed {
			f.ours.Scheduler += "?" // other flags than ours: set it again
		}
		t.Services[f.ours.Key] = f.ours
	}
	d.known = t.Clone()
	return t, nil
}

func (d *Driver) destinations(s *mobyipvs.Service) (list []*mobyipvs.Destination, err error) {
	err = d.kernel.call(func(k kernel) (err error) { list, err = k.GetDestinations(s); return err })
	if err != nil {
		return nil, explain("list IPVS destinations", err)
	}
	return list, nil
}

// Usage implements lb.Driver. Traffic is IPVS' counters since the service or
// the backend was made, Active the connections in its table in every state:
// those that are closing count until they are gone.
func (d *Driver) Usage(_ context.Context, keys []lb.Key) (map[lb.Key]lb.Usage, error) {
	if d.help == nil {
		return nil, errors.New("ipvs: Usage before Setup")
	}
	ours, err := d.services()
	if err != nil {
		return nil, err
	}
	wanted := make(map[lb.Key]bool, len(keys))
	for _, k := range keys {
		wanted[k] = true
	}
	usage := make(map[lb.Key]lb.Usage, len(keys))
	for _, f := range ours {
		if !wanted[f.ours.Key] {
			continue
		}
		if usage[f.ours.Key], err = d.usage(f.kernel); err != nil {
			return nil, err
		}
	}
	return usage, nil
}

func (d *Driver) usage(s *mobyipvs.Service) (lb.Usage, error) {
	list, err := d.destinations(s)
	if err != nil {
		return lb.Usage{}, err
	}
	u := lb.Usage{Traffic: traffic(mobyipvs.DstStats(s.Stats)), Backends: make(map[netip.AddrPort]lb.BackendUsage, len(list))}
	for _, dest := range list {
		a := netip.AddrPortFrom(addrOf(dest.Address, s.AddressFamily), dest.Port)
		u.Backends[a] = lb.BackendUsage{
			Active: dest.ActiveConnections + dest.InactiveConnections, Traffic: traffic(dest.Stats),
		}
	}
	return u, nil
}

// traffic returns the kernel's counters of a service or a destination.
func traffic(s mobyipvs.DstStats) lb.Traffic {
	return lb.Traffic{
		Connections: int64(s.Connections), PacketsIn: int64(s.PacketsIn), PacketsOut: int64(s.PacketsOut),
		BytesIn: int64(s.BytesIn), BytesOut: int64(s.BytesOut),
	}
}
