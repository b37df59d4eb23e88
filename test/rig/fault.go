//go:build linux

package rig

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Proto says which packets a fault concerns.
type Proto byte

// The kinds of packets.
const (
	All Proto = 0
	TCP Proto = unix.IPPROTO_TCP
	UDP Proto = unix.IPPROTO_UDP
)

// Fault is something wrong with the way from one host to another.
type Fault struct {
	Proto Proto
	Loss  int // per cent of the packets that are lost; 100 is a cut
}

// SetFaults replaces what is wrong with the way from one host to another (and
// their tasks), in that direction only. Without faults the way is healthy.
//
// Packets are dropped as the receiver gets them, by a firewall table of their
// own; ARP passes.
func (r *Rig) SetFaults(from, to *Host, faults ...Fault) error {
	for _, f := range faults {
		if f.Loss < 0 || f.Loss > 100 {
			return fmt.Errorf("a loss of %d%% is impossible", f.Loss)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	to.faults[from] = slices.Clone(faults)
	return to.applyFaults()
}

// Cut loses every packet between two hosts, in both directions.
func (r *Rig) Cut(a, b *Host) error {
	cut := Fault{Loss: 100}
	return errors.Join(r.SetFaults(a, b, cut), r.SetFaults(b, a, cut))
}

// Heal takes the faults between two hosts away, in both directions.
func (r *Rig) Heal(a, b *Host) error {
	return errors.Join(r.SetFaults(a, b), r.SetFaults(b, a))
}

// Partition cuts every way between the given hosts and all others.
func (r *Rig) Partition(side ...*Host) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	cut := []Fault{{Loss: 100}}
	for _, a := range side {
		for _, b := range r.hosts {
			if !slices.Contains(side, b) {
				a.faults[b], b.faults[a] = cut, cut
			}
		}
	}
	var errs []error
	for _, h := range r.hosts { // one transaction each
		errs = append(errs, h.applyFaults())
	}
	return errors.Join(errs...)
}

// HealAll takes every fault away.
func (r *Rig) HealAll() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, h := range r.hosts {
		clear(h.faults)
		errs = append(errs, h.applyFaults())
	}
	return errors.Join(errs...)
}

// applyFaults writes the host's faults to the kernel in one transaction;
// rig.mu is held.
func (h *Host) applyFaults() error {
	c, err := nftables.New(nftables.WithNetNSFd(int(h.file.Fd())))
	if err != nil {
		return fmt.Errorf("open nftables in %s: %w", h.Name, err)
	}
	table := c.AddTable(&nftables.Table{Name: "rig_faults", Family: nftables.TableFamilyINet})
	chain := c.AddChain(&nftables.Chain{
		Name: "arriving", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: new(*nftables.ChainPriorityRaw - 10),
	})
	c.FlushChain(chain)
	for from, faults := range h.faults {
		for _, f := range faults {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: f.match(from)})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("set faults in %s: %w", h.Name, err)
	}
	return nil
}

// match drops what the fault concerns. The sender is known by its Ethernet
// address, so that its tasks and both IP families are covered.
func (f Fault) match(from *Host) []expr.Any {
	const sourceMAC, macLen, percent = 6, 6, 100
	rule := []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: sourceMAC, Len: macLen},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: from.mac},
	}
	if f.Proto != All {
		rule = append(rule,
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(f.Proto)}})
	}
	if f.Loss < percent {
		rule = append(rule,
			&expr.Numgen{Register: 1, Modulus: percent, Type: unix.NFT_NG_RANDOM},
			&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
			&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binaryutil.BigEndian.PutUint32(uint32(f.Loss))})
	}
	return append(rule, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
}
