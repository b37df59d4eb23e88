package registry

import (
	"context"
	"errors"
)

// Hold makes the node take part in the networks, for one sandbox (G6). Release ends it.
func (r *Registry) Hold(ctx context.Context, networks []string) error {
	defs := map[string]*networkDef{}
	var refused error
	err := r.do(ctx, func(c Core) {
		for _, name := range networks {
			def, ok := c.Store().Definitions().Effective[name]
			if !ok {
				refused = noNetworkYet(name)
				return
			}
			if c.Store().Global().View().Synced() && vouched(c.Store().Definitions(), name) && believable(def) {
				defs[name] = newNetworkDef(def)
			}
		}
	})
	if err = errors.Join(err, refused); err != nil {
		return err
	}
	return r.change(ctx, &update{
		edit: func(d *draft) error {
			fresh := 0
			for _, name := range networks {
				if d.networks[name] == nil {
					fresh++
				}
			}
			if err := r.cfg.Bounds().room(&d.Snapshot, fresh, 0, 0); err != nil {
				return err
			}
			for _, name := range networks {
				d.hold(name, 1)
				if l := d.networks[name]; defs[name] != nil && l.def == nil && l.carried == nil {
					d.setCarried(name, defs[name]) // so that a restart knows the pools at once
				}
			}
			return nil
		},
		prepare: func(c Core) (bool, error) {
			for _, name := range networks {
				if err := joinNetwork(c, name); err != nil {
					return false, err // those joined already are left again by the upkeep
				}
			}
			return false, nil
		},
		undo: func(d *draft) { d.release(networks) },
	})
}

// Release ends one Hold. Networks that nothing else needs are left soon after.
func (r *Registry) Release(ctx context.Context, networks []string) {
	err := r.change(ctx, &update{edit: func(d *draft) error { d.release(networks); return nil }})
	r.check(err)
	r.Wake()
}

func (d *draft) release(networks []string) {
	for _, name := range networks {
		d.hold(name, -1)
	}
}
