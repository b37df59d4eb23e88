package ipvs

import (
	"errors"
	"log/slog"
	"slices"

	"golang.org/x/sys/unix"

	"meshd/lb/ipvs/genl"
)

// removeOrphans deletes services of marks in our range that belong to no
// address any more, as soon as no connection uses them: a previous run left
// them, and its mark map is lost or was of another shape. No new packet can
// reach them.
func (d *Driver) removeOrphans() {
	kept := d.orphans[:0]
	for _, id := range d.orphans {
		if list, err := d.destinations(id, nil); err != nil || inUse(list) {
			kept = append(kept, id)
			continue
		}
		errs := d.do([]genl.Request{{Command: genl.DelService, Service: genl.Service{ID: id}}})
		if errs != nil && !errors.Is(errs[0], unix.ESRCH) {
			d.cfg.Log.Warn("service of a lost mark stays", slog.Any("mark", id.Mark), slog.Any("error", errs[0]))
			continue
		}
		d.cfg.Log.Warn("removed service of a lost mark", slog.Any("mark", id.Mark))
		d.marks.unblock(id)
	}
	d.orphans = kept
}

func inUse(list []genl.DestinationState) bool {
	return slices.ContainsFunc(list, func(d genl.DestinationState) bool { return d.Active+d.Inactive > 0 })
}

// removeMissing takes marks from services that are not there any more.
func (d *Driver) removeMissing() {
	for _, k := range d.missing {
		if d.known.Services[served(k)] != nil {
			continue
		}
		if err := d.pools.DelMark(k); err != nil {
			d.cfg.Log.Warn("mark of a missing service stays", slog.String("service", k.String()), slog.Any("error", err))
			continue
		}
		d.marks.release(served(k))
		delete(d.parked, served(k))
	}
	d.missing = nil
}
