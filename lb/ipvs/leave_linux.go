package ipvs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/internal/conntrack"
	"meshd/lb/ipvs/genl"
	"meshd/state"
)

// Leave implements lb.Leaver. IPVS takes whatever the driver that has the
// namespace now does not match, so that its services must go; a TCP service has
// to stay, with weight 0, while it has connections, since IPVS drops those of a
// backend that is gone.
func (d *Driver) Leave(_ context.Context, how lb.Leaving) (left int, err error) {
	ours, err := d.find()
	if err != nil {
		return 0, err
	}
	if how.Alone {
		err = d.pools.RefuseAll()
	} else {
		err = d.pools.RemoveMarking()
	}
	if err != nil {
		return len(ours), err
	}
	left, err = d.retire(ours, how.Cut)
	if err != nil || left > 0 || how.Alone {
		return left, err
	}
	d.known, d.marks, d.orphans, d.missing, d.read = lb.NewTable(), newMarks(d.cfg.MarkCount), nil, nil, false
	return 0, d.pools.RemoveMarks()
}

// retire gives all backends weight 0, deletes the services that nobody uses, and
// returns how many stay.
func (d *Driver) retire(ours []remnant, cut bool) (left int, err error) {
	var reqs []genl.Request
	var gone []conntrack.Connections
	for i := range ours {
		s := &ours[i]
		dests, err := d.destinations(s.id, nil)
		if err != nil {
			return len(ours), err
		}
		live := slices.ContainsFunc(dests, func(b genl.DestinationState) bool { return b.Weight > 0 })
		if cut || s.key.Proto == state.UDP || !live && !inUse(dests) {
			reqs = append(reqs, genl.Request{Command: genl.DelService, Service: genl.Service{ID: s.id}})
			for j := range dests {
				gone = append(gone, conntrack.Connections{Service: s.key, Backend: dests[j].Addr})
			}
			continue
		}
		left++
		for j := range dests {
			if quiet := dests[j].Destination; quiet.Weight > 0 {
				quiet.Weight = 0
				reqs = append(reqs, genl.Request{Command: genl.SetDestination, Service: genl.Service{ID: s.id}, Destination: quiet})
			}
		}
	}
	var errs []error
	for batch := range slices.Chunk(reqs, maxBatch) {
		for i, err := range d.do(batch) {
			if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("IPVS service of a former run, mark %#x, %s: %w", batch[i].Service.ID.Mark,
					batch[i].Service.ID.Addr, err))
			}
		}
	}
	d.cutRetired(gone)
	return left, errors.Join(errs...)
}

// cutRetired makes conntrack forget the connections of services that went:
// else those of UDP clients that keep their port would never reach a service of
// the other driver.
func (d *Driver) cutRetired(gone []conntrack.Connections) {
	// of a mark whose address is not known
	gone = slices.DeleteFunc(gone, func(c conntrack.Connections) bool { return !c.Service.VIP.IsValid() })
	if len(gone) == 0 {
		return
	}
	if err := d.pools.Cut(gone, nil); err != nil {
		d.cfg.Log.Warn("connections of services that went stay until they time out", slog.Any("error", err))
	}
}
