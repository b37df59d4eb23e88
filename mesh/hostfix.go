package mesh

import (
	"context"

	"meshd/lb/hostcheck"
	"meshd/lb/hostmend"
	"meshd/lb/sysctl"
)

// Fix implements lookout.Host.
func (h *hostView) Fix(ctx context.Context, f *hostcheck.Facts, needs *hostcheck.Needs,
	accept []hostcheck.AcceptRule,
) (changed bool) {
	h.n.sysctls.KeepPorts(f.Devices)
	if needs.Driver != "" {
		unplaced := hostcheck.UnknownPorts(f, needs)
		for _, a := range unplaced[:min(len(unplaced), samples)] {
			_ = hostmend.ResolveAddress(a) // the next look knows
		}
	}
	mended := h.mend(f, needs)
	return h.accept(ctx, accept) || mended
}

// switchOn makes settings of the host 1, and calls changed for each that was not.
func switchOn(keys []string, changed func(sysctl.Change)) error {
	var settings []sysctl.Setting
	for _, key := range keys {
		settings = append(settings, sysctl.Setting{Key: key, Value: "1", Optional: true})
	}
	_, err := sysctl.Set("", settings, changed)
	return err
}

// mend switches hairpin mode on for ports of this host's tasks, and forwarding for
// devices where the configuration says so, unless the host's administrator sees to that.
// It reports whether it changed anything.
func (h *hostView) mend(f *hostcheck.Facts, needs *hostcheck.Needs) (changed bool) {
	if !needs.FixesHost || needs.Driver == "" {
		return false
	}
	if needs.ForwardsByDevice {
		settings := hostcheck.MissingForwarding(f, needs)
		if err := switchOn(settings, h.n.sysctls.Sysctl); err != nil {
			h.n.log.Debug("devices cannot be made to forward", "error", err)
		} else if len(settings) > 0 {
			changed = true
			h.n.lookout.Fixed("forwarding", func(before int) {
				h.n.log.Warn("devices forward now, so that containers reach VIPs; meshd cleanup puts it back", "settings", settings,
					"times_before", before)
			})
		}
	}
	for _, name := range hostcheck.MissingHairpin(f, needs) {
		port, err := hostmend.Hairpin(name)
		if err != nil {
			h.n.log.Debug("a port of a bridge cannot be mended", "port", name, "error", err)
			continue
		}
		changed = true
		h.n.sysctls.Port(port)
		h.n.lookout.Fixed("hairpin "+name, func(before int) {
			h.n.log.Warn("hairpin mode is on for a port of a bridge, so that its container reaches itself through a VIP; "+
				"forwarding: off leaves that to you, and meshd cleanup puts it back", "port", name, "times_before", before)
		})
	}
	return changed
}
