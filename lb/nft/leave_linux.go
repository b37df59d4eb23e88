package nft

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"

	"meshd/lb"
	"meshd/lb/internal/conntrack"
	"meshd/lb/nftconn"
	"meshd/state"
)

// Leave implements lb.Leaver. Open connections are conntrack's and need nothing
// of the driver's, so that its services go at once.
func (d *Driver) Leave(ctx context.Context, how lb.Leaving) (left int, err error) {
	if err := d.open(); err != nil {
		return 0, err
	}
	switch {
	case !how.Alone:
		return 0, d.replaced()
	case how.Cut:
		return 0, d.Teardown(ctx)
	}
	found, err := d.Remnants(ctx)
	if err != nil || len(found) == 0 {
		return 0, err
	}
	return len(found), d.conn.DropTable(d.layout.table) // pools and masquerade serve what is open
}

// replaced takes the services away and, of connections, those of UDP: clients
// that keep their port would go to the old backend for as long as they go on.
func (d *Driver) replaced() error {
	there, err := d.conn.HasTable(d.layout.table)
	if err != nil || !there {
		return err
	}
	if err := errors.Join(d.base.Discover(), d.conn.DropTable(d.layout.table)); err != nil {
		return err
	}
	for i := range nftconn.Families {
		var gone []conntrack.Name
		family := nftconn.Families[i].Proto
		err := d.flows.Flows(family, netip.Addr{}, func(f *conntrack.Flow, name func() conntrack.Name) {
			if f.Proto == state.UDP && d.base.Owns(f.VIP.Addr()) {
				gone = append(gone, name())
			}
		})
		for _, name := range gone {
			err = errors.Join(err, d.flows.Forget(family, name))
		}
		if err != nil {
			d.cfg.Log.Warn("UDP clients may go to backends of before until they pause", slog.Any("error", err))
		}
	}
	return nil
}
