package ipvs

import (
	"fmt"
	"slices"

	"meshd/lb"
)

// gives reports whether a service has a backend for new connections. One that
// has none is kept from IPVS: the guard refuses better (lb/nft).
func gives(s *lb.Service) bool {
	return s != nil && slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return b.Weight > 0 })
}

// refuse takes, before anything is done, the services out of IPVS' way that
// will have no backend: while IPVS has none, it must not be asked.
func (a *application) refuse() {
	touched := &lb.Table{Services: map[lb.Key]*lb.Service{}, Pools: lb.NewTable().Pools}
	var keys []lb.Key
	for i := range a.ops {
		op := &a.ops[i]
		if op.Kind == lb.SetPool || op.Kind == lb.DelPool {
			continue
		}
		if s := a.d.known.Services[op.Key]; gives(s) && touched.Services[op.Key] == nil {
			touched.Services[op.Key] = s
			keys = append(keys, op.Key)
		}
	}
	if len(keys) == 0 {
		return
	}
	touched.Apply(a.ops, nil)
	keys = slices.DeleteFunc(keys, func(k lb.Key) bool { return gives(touched.Services[k]) })
	if err := a.d.pools.Serve(nil, keys); err != nil {
		a.failAll(keys, err)
	}
}

// serve lets packets through to the services that have backends now.
func (a *application) serve() {
	var more, less []lb.Key
	for i := range a.ops {
		op := &a.ops[i]
		if op.Kind == lb.SetPool || op.Kind == lb.DelPool || i > 0 && a.ops[i-1].Key == op.Key {
			continue
		}
		if gives(a.d.known.Services[op.Key]) {
			more = append(more, op.Key)
		} else {
			less = append(less, op.Key)
		}
	}
	if err := a.d.pools.Serve(more, less); err != nil {
		a.failAll(append(more, less...), err)
	}
}

// failAll makes the operations on services be tried again.
func (a *application) failAll(keys []lb.Key, err error) {
	for i := range a.ops {
		if a.errs[i] == nil && slices.Contains(keys, a.ops[i].Key) {
			a.fail(i, err)
		}
	}
}

// letThrough makes what is let through to IPVS follow what it holds.
func (d *Driver) letThrough() error {
	var more, less []lb.Key
	for k, s := range d.known.Services {
		if gives(s) {
			more = append(more, k)
		}
	}
	for _, k := range d.pools.Served() {
		if !gives(d.known.Services[k]) {
			less = append(less, k)
		}
	}
	if err := d.pools.Serve(more, less); err != nil {
		return fmt.Errorf("let packets through to IPVS: %w", err)
	}
	return nil
}
