package ipvs

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

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

// Snapshot implements lb.Driver: one read of /proc/net/ip_vs, and questions
// about the services whose line there does not tell everything.
func (d *Driver) Snapshot(context.Context) (*lb.Table, error) {
	if d.help == nil || d.kernel == nil {
		return nil, errors.New("ipvs: Snapshot before Setup")
	}
	t := lb.NewTable()
	t.Pools = d.help.Pools()
	r, err := d.readTable()
	if err != nil {
		return nil, err
	}
	for _, s := range r.list {
		t.Services[s.svc.Key] = s.svc
	}
	d.orphans, d.strays = r.orphans, nil
	for _, id := range r.orphans {
		d.marks.block(id)
	}
	for vip := range d.help.Marks() {
		if t.Services[lb.Key{VIP: vip}] == nil {
			d.strays = append(d.strays, vip)
		}
	}
	d.known, d.read = t.Clone(), true
	return t, nil
}

// readAttempts bounds how often the table is read because it changed
// meanwhile: the kernel tells it piece by piece, by position.
const readAttempts = 2

// readTable reads our services.
func (d *Driver) readTable() (r *reading, err error) {
	for range readAttempts {
		r = &reading{d: d, pools: d.help.Pools()}
		if err := d.table(r.add); err != nil {
			return nil, err
		}
		if err := r.settings(); err != nil {
			return nil, err
		}
		if r.complete() {
			break
		}
	}
	return r, nil
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

// complete reports whether every service that we know is there, once.
func (r *reading) complete() bool {
	seen := make(map[lb.Key]bool, len(r.list))
	for _, s := range r.list {
		if seen[s.svc.Key] {
			return false
		}
		seen[s.svc.Key] = true
	}
	for k := range r.d.known.Services {
		if !seen[k] {
			return false
		}
	}
	return true
}

// identify returns what a line of the table stands for. The ID is not complete
// for a mark without backends: the kernel does not tell its family.
func (d *Driver) identify(p *procService, backends []procBackend, pools map[netip.Prefix]lb.Pool) (id genl.ID, key lb.Key, ours bool) {
	if p.mark == 0 {
		key = lb.Key{VIP: p.addr.Addr(), Port: p.addr.Port(), Proto: protoOf(p.proto)}
		return idOf(key), key, owned(pools, key.VIP) || d.known.Services[key] != nil
	}
	if len(backends) == 0 {
		return genl.ID{Mark: p.mark}, key, d.marks.ours(p.mark) || d.marks.hands(p.mark)
	}
	id = genl.ByMark(genl.FamilyOf(backends[0].addr.Addr()), p.mark)
	key.VIP = d.marks.byMark[id]
	return id, key, key.VIP.IsValid() || d.marks.ours(p.mark)
}

// add takes a service of the table if it is ours.
func (r *reading) add(p procService, backends []procBackend) error {
	id, key, ours := r.d.identify(&p, backends, r.pools)
	switch {
	case !ours:
		r.foreign++
		return nil
	case id.Family == 0:
		r.empty = append(r.empty, p.mark)
		return nil
	case !key.VIP.IsValid():
		r.orphans = append(r.orphans, id)
		return nil
	}
	svc := &lb.Service{Key: key, Scheduler: p.scheduler, Backends: r.backends(backends)}
	r.list = append(r.list, listed{id: id, svc: svc, sure: tellsAll(&p)})
	return nil
}

// backends translates and sorts. The kernel lists the last one first.
func (r *reading) backends(list []procBackend) []lb.Backend {
	r.scratch = r.scratch[:0]
	for i := len(list) - 1; i >= 0; i-- {
		r.scratch = append(r.scratch, toBackend(&list[i]))
	}
	byAddr := func(a, b lb.Backend) int { return a.Addr.Compare(b.Addr) }
	if !slices.IsSortedFunc(r.scratch, byAddr) {
		slices.SortFunc(r.scratch, byAddr)
	}
	return append(make([]lb.Backend, 0, len(list)), r.scratch...)
}

// settings asks for what the table's lines do not tell.
func (r *reading) settings() error {
	var ids []genl.ID
	for _, s := range r.list {
		if !s.sure {
			ids = append(ids, s.id)
		}
	}
	for _, mark := range r.empty {
		ids = append(ids, genl.ByMark(genl.IPv4, mark), genl.ByMark(genl.IPv6, mark))
	}
	have, err := r.d.ask(ids, len(r.list)+r.foreign)
	if err != nil {
		return err
	}
	seen := map[genl.ID]bool{}
	for _, s := range r.list {
		seen[s.id] = true
		if !s.sure {
			if svc, ok := have[s.id]; ok {
				adoptSettings(s.svc, &svc)
			} else {
				s.svc.Scheduler += oddSettings // gone meanwhile
			}
		}
	}
	for id, svc := range have {
		if id.Mark != 0 && !seen[id] {
			r.addEmpty(id, &svc)
		}
	}
	return nil
}

// addEmpty takes a mark's service without backends.
func (r *reading) addEmpty(id genl.ID, have *genl.Service) {
	vip := r.d.marks.byMark[id]
	if !vip.IsValid() {
		if r.d.marks.ours(id.Mark) {
			r.orphans = append(r.orphans, id)
		}
		return
	}
	svc := &lb.Service{Key: lb.Key{VIP: vip}}
	adoptSettings(svc, have)
	r.list = append(r.list, listed{id: id, svc: svc, sure: true})
}

// askShare says when it is cheaper to list all services than to ask for some:
// when there are fewer than so many of them for each one.
const askShare = 4

// ask returns the settings and counters of those services that exist. total is
// about how many the kernel has.
func (d *Driver) ask(ids []genl.ID, total int) (map[genl.ID]genl.Service, error) {
	have := make(map[genl.ID]genl.Service, len(ids))
	if len(ids) == 0 {
		return have, nil
	}
	wanted := make(map[genl.ID]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	err := d.kernel.call(func(k kernel) error {
		if len(ids)*askShare < total {
			return askEach(k, ids, have)
		}
		list, err := k.Services()
		for _, s := range list {
			if wanted[s.ID] {
				have[s.ID] = s
			}
		}
		return err
	})
	if err != nil {
		return nil, explain("ask for services", err)
	}
	return have, nil
}

func askEach(k kernel, ids []genl.ID, have map[genl.ID]genl.Service) error {
	for _, id := range ids {
		s, err := k.Service(id)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return err
		}
		have[id] = s
	}
	return nil
}
