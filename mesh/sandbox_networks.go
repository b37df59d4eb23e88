package mesh

import (
	"context"
	"errors"
	"time"

	"meshd/gossip"
)

// hold makes the node take part in the networks, for one sandbox (G6).
func (n *Node) hold(ctx context.Context, networks []string) error {
	defs := map[string]*networkDef{}
	var refused error
	err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
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
	return n.reg.change(ctx, &update{
		edit: func(d *draft) error {
			fresh := 0
			for _, name := range networks {
				if d.networks[name] == nil {
					fresh++
				}
			}
			if err := n.current().bounds().room(&d.registry, fresh, 0, 0); err != nil {
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
		prepare: func(c *gossip.Core, now time.Duration) (bool, error) {
			for _, name := range networks {
				if err := joinNetwork(c, now, name); err != nil {
					return false, err // those joined already are left again by the chores
				}
			}
			return false, nil
		},
		undo: func(d *draft) { d.release(networks) },
	})
}

// release ends hold. Networks that nothing else needs are left by the chores.
func (n *Node) release(ctx context.Context, networks []string) {
	err := n.reg.change(ctx, &update{edit: func(d *draft) error { d.release(networks); return nil }})
	n.check(err)
	n.chores.hurry()
}

func (d *draft) release(networks []string) {
	for _, name := range networks {
		d.hold(name, -1)
	}
}
