package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"meshd/state"
)

// Rules L1, L3.
func leavesMarks(s *stage) {
	intact := s.w.marker(s.T)
	for _, six := range s.w.families() {
		s.Run(map[bool]string{false: "IPv4", true: "IPv6"}[six], func(t *testing.T) {
			s := s.with(t)
			vip := s.vip(six)
			every := netip.AddrPortFrom(vip, 0)
			s.program(s.serviceAt(every, state.TCP, "wrr", 1, 1, 1, 1), s.serviceAt(every, state.UDP, "wrr", 1, 1, 1, 1))
			for _, from := range s.w.places() {
				for _, proto := range []state.Proto{state.TCP, state.UDP} {
					s.wantSpread(from, proto, netip.AddrPortFrom(vip, 443), 1, 1, 1, 1)
				}
			}
		})
	}
	if err := intact(); err != nil {
		s.Error(err)
	}
}

// theirMark is a bit that another program sets on all packets: kube-proxy's for
// what is to be masqueraded.
const theirMark = 0x4000

func (w *fakeWorld) marker(*testing.T) func() error { return func() error { return nil } }

// marker implements world. What it sets before routing must be there where
// packets to the host are filtered, and no mark but that may leave it.
func (k *kernel) marker(t *testing.T) (intact func() error) {
	t.Helper()
	table := &nftables.Table{Name: "marker", Family: nftables.TableFamilyINet}
	native := func(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
	load := &expr.Meta{Key: expr.MetaKeyMARK, Register: 1}
	bits := func(mask, xor uint32) *expr.Bitwise {
		return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(mask), Xor: native(xor)}
	}
	// The whole mark is set, not a bit of it: some packets that the kernel makes
	// itself, reports of multicast listeners and replies of no socket, come with
	// bits that no program set.
	marks := []expr.Any{
		&expr.Immediate{Register: 1, Data: native(theirMark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	}
	lost := []expr.Any{load, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(theirMark)}, &expr.Counter{}}
	left := []expr.Any{
		load, bits(^uint32(theirMark), 0), &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(0)},
		&expr.Counter{},
	}
	k.edit(t, func(c *nftables.Conn) {
		c.AddTable(table)
		for _, chain := range []struct {
			name string
			hook *nftables.ChainHook
			prio *nftables.ChainPriority
			rule []expr.Any
		}{
			{"before", nftables.ChainHookPrerouting, nftables.ChainPriorityMangle, marks},
			{"own", nftables.ChainHookOutput, nftables.ChainPriorityMangle, marks},
			{"lost", nftables.ChainHookInput, nftables.ChainPriorityFilter, lost},
			{"left", nftables.ChainHookPostrouting, nftables.ChainPriorityFilter, left},
		} {
			made := c.AddChain(&nftables.Chain{
				Table: table, Name: chain.name, Hooknum: chain.hook, Priority: chain.prio,
				Type: nftables.ChainTypeFilter,
			})
			c.AddRule(&nftables.Rule{Table: table, Chain: made, Exprs: chain.rule})
		}
	})
	t.Cleanup(func() { k.edit(t, func(c *nftables.Conn) { c.DelTable(table) }) })
	return func() (err error) {
		k.edit(t, func(c *nftables.Conn) {
			for _, name := range []string{"lost", "left"} {
				rules, rerr := c.GetRules(table, &nftables.Chain{Name: name, Table: table})
				must(t, rerr)
				counter, ok := rules[0].Exprs[len(rules[0].Exprs)-1].(*expr.Counter)
				if !ok || counter.Packets > 0 {
					err = fmt.Errorf("somebody's mark, by chain %s: %+v", name, counter)
				}
			}
		})
		return err
	}
}
