package nft

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"

	"github.com/google/nftables"

	"meshd/lb"
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
	return len(found), d.help.RemoveServices() // pools and masquerade serve what is open
}

// replaced takes the services away and, of connections, those of UDP: clients
// that keep their port would go to the old backend for as long as they go on.
func (d *Driver) replaced() error {
	there, err := d.help.hasTable(d.layout.table)
	if err != nil || !there {
		return err
	}
	if err := errors.Join(d.help.Discover(), d.help.RemoveServices()); err != nil {
		return err
	}
	for i := range families {
		var gone []flowName
		family := byte(familyOf([]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[i]))
		err := d.help.sock.queries.flows(family, netip.Addr{}, func(f *flow, name func() flowName) {
			if f.proto == state.UDP && d.help.Owns(f.vip.Addr()) {
				gone = append(gone, name())
			}
		})
		for _, name := range gone {
			err = errors.Join(err, d.help.sock.queries.forget(family, name))
		}
		if err != nil {
			d.cfg.Log.Warn("UDP clients may go to backends of before until they pause", slog.Any("err", err))
		}
	}
	return nil
}

// leaveOutputPriority is between the services of the nft driver and IPVS.
const leaveOutputPriority = -99

// leaveChainNames are the chains of RemoveMarking.
func leaveChainNames() []string { return []string{"leave_input", "leave_output"} }

// RemoveMarking takes away what leads packets to IPVS, and what keeps them from
// it, for another driver that has taken over: what that one leaves is refused.
// The pools stay, and the map of marks, which says what services IPVS still has.
func (h *Helpers) RemoveMarking() error {
	there, err := h.sets()
	if err != nil {
		return err
	}
	for i := range families {
		if h.mark[i] == nil || !there[h.mark[i]] && !there[h.served[i][0]] {
			continue // no IPVS was here
		}
		for _, name := range append(markChainNames(), resetChainNames()...) {
			h.dropChain(i, name)
		}
		c, f := h.sock.nft, &families[i]
		h.addReset(c, i, "leave_input", nftables.ChainHookInput, resetInputPriority, f.notOwn(), false)
		h.addReset(c, i, "leave_output", nftables.ChainHookOutput, leaveOutputPriority, sentToPool(), false)
	}
	return explain("remove marks", h.sock.commit())
}

// dropChain queues the removal of a chain, there or not.
func (h *Helpers) dropChain(i int, name string) {
	chain := &nftables.Chain{Table: h.table[i], Name: name}
	h.sock.nft.AddChain(chain)
	h.sock.nft.FlushChain(chain)
	h.sock.nft.DelChain(chain)
}

// RemoveMarks deletes the sets that only IPVS needs, and the chains that
// RemoveMarking made.
func (h *Helpers) RemoveMarks() error {
	there, err := h.sets()
	if err != nil {
		return err
	}
	for i := range families {
		if h.mark[i] == nil || !there[h.mark[i]] && !there[h.served[i][0]] {
			continue
		}
		for _, name := range leaveChainNames() {
			h.dropChain(i, name)
		}
		for _, set := range h.setsOfIPVS(i) {
			if set != nil && there[set] {
				h.sock.nft.DelSet(set)
			}
		}
	}
	h.marks, h.serves = map[lb.Key]uint32{}, map[lb.Key]bool{}
	return explain("remove the sets of IPVS", h.sock.commit())
}

// RefuseAll keeps everything from IPVS: what is new is refused.
func (h *Helpers) RefuseAll() error {
	there, err := h.sets()
	if err != nil {
		return err
	}
	for i := range families {
		for _, set := range h.served[i] {
			if set != nil && there[set] {
				h.sock.nft.FlushSet(set)
			}
		}
	}
	h.serves = map[lb.Key]bool{}
	return explain("refuse what IPVS served", h.sock.commit())
}
