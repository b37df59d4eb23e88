package ipvs

import (
	"net/netip"
	"slices"
	"sync"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
)

// listed is a service of ours as the kernel lists it.
type listed struct {
	id   genl.ID
	svc  *lb.Service
	sure bool // its line told all of its settings
}

// reading is one pass over the kernel's table.
type reading struct {
	d       *Driver
	pools   map[netip.Prefix]lb.Pool
	list    []listed
	orphans []genl.ID // of our marks, without an address
	foreign int       // services of others
	empty   []uint32  // marks of ours whose line does not tell the family
	scratch []lb.Backend
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
	key, ours := r.d.owner(id, r.pools)
	switch {
	case !ours:
		r.foreign++
		return nil
	case !key.VIP.IsValid():
		r.orphans = append(r.orphans, id)
		return nil
	}
	for i := range backends {
		r.scratch = append(r.scratch, backends[i].backend())
	}
	svc := &lb.Service{Key: key, Scheduler: p.scheduler, Backends: r.takeBackends()}
	r.list = append(r.list, listed{id: id, svc: svc, sure: tellsAll(&p)})
	return nil
}

// takeBackends empties scratch into a sorted list. The kernel tells the last
// one first.
func (r *reading) takeBackends() []lb.Backend {
	byAddr := func(a, b lb.Backend) int { return a.Addr.Compare(b.Addr) }
	slices.Reverse(r.scratch)
	if !slices.IsSortedFunc(r.scratch, byAddr) {
		slices.SortFunc(r.scratch, byAddr)
	}
	out := append(make([]lb.Backend, 0, len(r.scratch)), r.scratch...)
	r.scratch = r.scratch[:0]
	return out
}

// total returns about how many services the namespace has.
func (r *reading) total() int { return len(r.list) + len(r.orphans) + len(r.empty) + r.foreign }

// complete reports whether every service that we know is there, once.
func (r *reading) complete() bool {
	seen := make(map[lb.Key]bool, len(r.list))
	for _, s := range r.list {
		if seen[s.svc.Key] {
			return false
		}
		seen[s.svc.Key] = true
	}
	missing := len(r.d.known.Services)
	for k := range r.d.known.Services {
		if seen[k] {
			missing--
		}
	}
	return missing == 0 || missing <= len(r.empty) && r.onlyMarksMissing(seen)
}

// onlyMarksMissing reports whether what is missing may be among the marks whose
// family is not known yet.
func (r *reading) onlyMarksMissing(seen map[lb.Key]bool) bool {
	for k := range r.d.known.Services {
		if id, _ := r.d.marks.id(k.VIP); !seen[k] && (!k.AllPorts() || !slices.Contains(r.empty, id.Mark)) {
			return false
		}
	}
	return true
}

// covers reports whether every service of ours in the kernel's list is there,
// once, and nothing else.
func (r *reading) covers(list []genl.Service) bool {
	seen := make(map[genl.ID]bool, len(r.list))
	for _, s := range r.list {
		if seen[s.id] {
			return false
		}
		seen[s.id] = true
	}
	for _, id := range r.orphans {
		seen[id] = true
	}
	missing, ours := 0, 0
	for i := range list {
		if _, mine := r.d.owner(list[i].ID, r.pools); !mine {
			continue
		}
		ours++
		if !seen[list[i].ID] {
			missing++
			if list[i].Mark == 0 || !slices.Contains(r.empty, list[i].Mark) {
				return false
			}
		}
	}
	return missing == len(r.empty) && ours == len(seen)+missing
}

// questions returns what the lines did not tell.
func (r *reading) questions() []genl.ID {
	var ids []genl.ID
	for _, s := range r.list {
		if !s.sure {
			ids = append(ids, s.id)
		}
	}
	for _, mark := range r.empty {
		ids = append(ids, genl.ByMark(genl.IPv4, mark), genl.ByMark(genl.IPv6, mark))
	}
	return ids
}

// answers takes what was asked for.
func (r *reading) answers(have map[genl.ID]genl.Service) {
	seen := map[genl.ID]bool{}
	for _, s := range r.list {
		if s.id.Mark != 0 {
			seen[s.id] = true
		}
		if s.sure {
			continue
		}
		if svc, ok := have[s.id]; ok {
			adoptSettings(s.svc, &svc)
		} else {
			s.svc.Scheduler += oddSettings // gone meanwhile
		}
	}
	for _, mark := range r.empty {
		for _, f := range []genl.Family{genl.IPv4, genl.IPv6} {
			id := genl.ByMark(f, mark)
			if svc, ok := have[id]; ok && !seen[id] {
				seen[id] = true
				r.addEmpty(id, &svc)
			}
		}
	}
}

// addEmpty takes a mark's service without backends.
func (r *reading) addEmpty(id genl.ID, have *genl.Service) {
	key, _ := r.d.owner(id, r.pools)
	if !key.VIP.IsValid() {
		if r.d.marks.ours(id.Mark) {
			r.orphans = append(r.orphans, id)
		}
		return
	}
	svc := &lb.Service{Key: key}
	adoptSettings(svc, have)
	r.list = append(r.list, listed{id: id, svc: svc, sure: true})
}
