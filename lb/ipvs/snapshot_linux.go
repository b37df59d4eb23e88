package ipvs

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"

	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
)

// Snapshot implements lb.Driver.
func (d *Driver) Snapshot(context.Context) (*lb.Table, error) {
	if d.pools == nil || d.kernel == nil {
		return nil, errors.New("ipvs: Snapshot before Setup")
	}
	t := lb.NewTable()
	t.Pools = d.pools.Pools()
	r, err := d.readTable()
	if err != nil {
		return nil, err
	}
	t.Services = r.services
	d.orphans, d.missing = r.orphans, nil
	for _, id := range r.orphans {
		d.marks.block(id)
	}
	for k := range d.pools.Marks() {
		if t.Services[served(k)] == nil {
			d.missing = append(d.missing, k)
		}
	}
	d.known, d.read = t.Clone(), true // the services in it are shared, and immutable
	return t, d.letThrough()
}

// readAttempts bounds how often /proc/net/ip_vs is read before it is taken for
// incomplete: the kernel tells it piece by piece, by position, and it may have
// changed meanwhile.
const readAttempts = 2

// readTable reads our services: one pass over /proc/net/ip_vs, and questions
// about what its lines do not tell.
//
// Kernels with one table for all namespaces leave services out of that file
// when another namespace has some: they find the place where a read goes on by
// counting others' services in one way and not in the other. The first reading,
// and each that misses a service which we know, is therefore compared with a
// list by netlink. Where the file is not complete, the services are read one by
// one.
func (d *Driver) readTable() (*reading, error) {
	if d.skips {
		return d.readEach()
	}
	for range readAttempts {
		r := d.newReading()
		if err := d.table(r.add); err != nil {
			return nil, err
		}
		if d.read {
			have, err := d.ask(r.questions(), r.total())
			if err != nil {
				return nil, err
			}
			if r.answers(have); r.complete() {
				return r, nil
			}
		}
		list, err := d.services()
		if err != nil {
			return nil, err
		}
		if r.answers(byID(list)); r.covers(list) {
			return r, nil
		}
	}
	d.skips = true
	d.cfg.Log.Debug("this kernel's /proc/net/ip_vs leaves services out; reading them one by one",
		slog.String("netns", d.cfg.NetNS))
	return d.readEach()
}

// readEach lists the services, and then each one's destinations.
func (d *Driver) readEach() (*reading, error) {
	list, err := d.services()
	if err != nil {
		return nil, err
	}
	r := d.newReading()
	var dests []genl.DestinationState
	for i := range list {
		s := &list[i]
		key, ours := r.owner(s.ID)
		if !ours {
			continue
		}
		if dests, err = d.destinations(s.ID, dests[:0]); err != nil {
			return nil, err
		}
		svc := &lb.Service{Key: key}
		adoptSettings(svc, s)
		for j := range dests {
			r.scratch = append(r.scratch, toBackend(&dests[j].Destination))
		}
		r.put(svc)
	}
	return r, nil
}

// services lists the services of the namespace.
func (d *Driver) services() (list []genl.Service, err error) {
	err = d.kernel.call(func(k kernel) error {
		got, err := k.Services()
		if err == nil {
			list = got
		}
		return err
	})
	return list, explain("list services", err)
}

// destinations appends the destinations of a service to list.
func (d *Driver) destinations(id genl.ID, list []genl.DestinationState) ([]genl.DestinationState, error) {
	var got []genl.DestinationState
	err := d.kernel.call(func(k kernel) (err error) { got, err = k.Destinations(id, list); return err })
	if err != nil {
		return nil, explain("list destinations", err)
	}
	return got, nil
}

// owner returns which of our keys a service stands for; the key has no address
// if the mark belongs to none.
func (d *Driver) owner(id genl.ID, pools map[netip.Prefix]lb.Pool) (key lb.Key, ours bool) {
	if id.Mark != 0 {
		key = d.marks.byMark[id]
		return key, key.VIP.IsValid() || d.marks.ours(id.Mark)
	}
	key = keyOf(id)
	return key, owned(pools, key.VIP) || d.known.Services[key] != nil
}

// askShare says when it is cheaper to list all services than to ask for some:
// when there are fewer than so many of them for each one.
const askShare = 4

// ask returns the settings and counters of those services that exist. total is
// about how many the kernel has.
func (d *Driver) ask(ids []genl.ID, total int) (map[genl.ID]genl.Service, error) {
	if len(ids)*askShare >= total && len(ids) > 0 {
		list, err := d.services()
		return byID(list), err
	}
	have := make(map[genl.ID]genl.Service, len(ids))
	for _, id := range ids {
		var s genl.Service
		err := d.kernel.call(func(k kernel) (err error) { s, err = k.Service(id); return err })
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return nil, explain("ask for a service", err)
		}
		have[id] = s
	}
	return have, nil
}

func byID(list []genl.Service) map[genl.ID]genl.Service {
	have := make(map[genl.ID]genl.Service, len(list))
	for _, s := range list {
		have[s.ID] = s
	}
	return have
}
