package ipvs

import (
	"net/netip"
	"slices"
	"sync"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
)

// reading is one pass over the kernel's table. Services that are as we know
// them are not made anew: a reading without differences allocates little.
type reading struct {
	// What is read for, and what counts as ours.
	d     *Driver
	pools map[netip.Prefix]lb.Pool // a service is ours if its address lies in one

	// What was read.
	services map[lb.Key]*lb.Service // of ours
	double   bool                   // the kernel gave a service twice
	familiar int                    // services that we know
	unsure   []genl.ID              // whose line does not tell all settings
	empty    []uint32               // marks of ours whose line does not tell the family
	orphans  []genl.ID              // services of our marks, without an address
	foreign  int                    // services of others

	// Reused from line to line.
	scratch []lb.Backend // of one service
}

func (d *Driver) newReading() *reading {
	return &reading{d: d, pools: d.pools.Pools(), services: make(map[lb.Key]*lb.Service, len(d.known.Services))}
}

// table reads /proc/net/ip_vs.
func (d *Driver) table(each func(procService, []procBackend) error) error {
	var mu sync.Mutex // a call that was given up must not go on calling each
	var over bool
	defer func() {
		mu.Lock()
		over = true
		mu.Unlock()
	}()
	return d.kernel.call(func(k kernel) error {
		return k.Table(func(p procService, backends []procBackend) error {
			mu.Lock()
			defer mu.Unlock()
			if over {
				return errStuck
			}
			return each(p, backends)
		})
	})
}

// identify returns what names the service of a line to the kernel; ok is false
// for a mark without backends, whose family the line does not tell.
func identify(p *procService, backends []procBackend) (id genl.ID, ok bool) {
	switch {
	case p.mark == 0:
		a := p.addr.Addr()
		return genl.ID{Family: genl.FamilyOf(a), Proto: p.proto, Port: p.addr.Port(), Addr: a}, true
	case len(backends) == 0:
		return genl.ID{Mark: p.mark}, false
	}
	return genl.ByMark(genl.FamilyOf(backends[0].addr.Addr()), p.mark), true
}

// add takes a service of /proc/net/ip_vs if it is ours.
func (r *reading) add(p procService, backends []procBackend) error {
	id, named := identify(&p, backends)
	if !named {
		if r.d.marks.ours(p.mark) || r.d.marks.hands(p.mark) {
			r.empty = append(r.empty, p.mark)
		} else {
			r.foreign++
		}
		return nil
	}
	key, ours := r.owner(id)
	if !ours {
		return nil
	}
	for i := range backends {
		r.scratch = append(r.scratch, backends[i].backend())
	}
	r.put(&lb.Service{Key: key, Scheduler: p.scheduler})
	if !tellsAll(&p) {
		r.unsure = append(r.unsure, id)
	}
	return nil
}

// owner returns which of our keys a service stands for, and counts those that
// stand for none.
func (r *reading) owner(id genl.ID) (key lb.Key, ours bool) {
	key, ours = r.d.owner(id, r.pools)
	switch {
	case !ours:
		r.foreign++
	case !key.VIP.IsValid():
		r.orphans = append(r.orphans, id)
		return key, false
	}
	return key, ours
}

// put takes a service with the backends in scratch, which the kernel tells the
// last one first.
func (r *reading) put(s *lb.Service) {
	byAddr := func(a, b lb.Backend) int { return a.Addr.Compare(b.Addr) }
	slices.Reverse(r.scratch)
	if !slices.IsSortedFunc(r.scratch, byAddr) {
		slices.SortFunc(r.scratch, byAddr)
	}
	if _, there := r.services[s.Key]; there {
		r.double = true
	}
	known := r.d.known.Services[s.Key]
	if known != nil {
		r.familiar++
	}
	if known != nil && known.Scheduler == s.Scheduler && known.Affinity == s.Affinity &&
		slices.Equal(known.Backends, r.scratch) {
		r.services[s.Key] = known
	} else {
		made := *s // so that s itself need not be allocated
		made.Backends = append(make([]lb.Backend, 0, len(r.scratch)), r.scratch...)
		r.services[s.Key] = &made
	}
	r.scratch = r.scratch[:0]
}

// total returns about how many services the namespace has.
func (r *reading) total() int {
	return len(r.services) + len(r.orphans) + len(r.empty) + r.foreign
}

// complete reports whether every service that we know is there, once.
func (r *reading) complete() bool { return !r.double && r.familiar == len(r.d.known.Services) }

// covers reports whether what is ours in the kernel's list is there, once, and
// nothing else.
func (r *reading) covers(list []genl.Service) bool {
	ours := 0
	for i := range list {
		key, mine := r.d.owner(list[i].ID, r.pools)
		switch {
		case !mine:
			continue
		case !key.VIP.IsValid():
			if !slices.Contains(r.orphans, list[i].ID) {
				return false
			}
		case r.services[key] == nil:
			return false
		}
		ours++
	}
	return !r.double && ours == len(r.services)+len(r.orphans)
}

// questions returns what the lines did not tell.
func (r *reading) questions() []genl.ID {
	ids := r.unsure
	for _, mark := range r.empty {
		ids = append(ids, genl.ByMark(genl.IPv4, mark), genl.ByMark(genl.IPv6, mark))
	}
	return ids
}

// answers takes what was asked for.
func (r *reading) answers(have map[genl.ID]genl.Service) {
	for _, id := range r.unsure {
		key, _ := r.d.owner(id, r.pools)
		if svc, ok := have[id]; ok {
			r.adopt(key, &svc)
		} else {
			r.services[key] = &lb.Service{Key: key, Scheduler: oddSettings} // gone meanwhile
		}
	}
	for _, mark := range r.empty {
		for _, f := range []genl.Family{genl.IPv4, genl.IPv6} {
			svc, ok := have[genl.ByMark(f, mark)]
			if key, _ := r.d.owner(svc.ID, r.pools); ok && r.services[key] == nil && !slices.Contains(r.orphans, svc.ID) {
				r.addEmpty(&svc)
			}
		}
	}
	r.unsure, r.empty = nil, nil
}

// adopt gives a service the kernel's settings.
func (r *reading) adopt(key lb.Key, have *genl.Service) {
	old := r.services[key]
	s := &lb.Service{Key: key, Backends: old.Backends}
	adoptSettings(s, have)
	if known := r.d.known.Services[key]; known != nil && known.Equal(s) {
		s = known
	}
	r.services[key] = s
}

// addEmpty takes a mark's service without backends.
func (r *reading) addEmpty(have *genl.Service) {
	if key, ours := r.owner(have.ID); ours {
		s := &lb.Service{Key: key}
		adoptSettings(s, have)
		r.put(s)
	}
}
