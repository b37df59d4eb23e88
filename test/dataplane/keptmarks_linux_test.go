package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/state"
)

// Rules L1, L3.
func keepsMarks(s *stage) {
	intact := s.w.marksRequests(s.T, s.w.name() == "ipvs") // the nft driver uses the priority up
	for _, six := range s.w.families() {
		s.Run(map[bool]string{false: "IPv4", true: "IPv6"}[six], func(t *testing.T) {
			s := s.with(t)
			vip := s.vip(six)
			every, to := netip.AddrPortFrom(vip, 0), netip.AddrPortFrom(vip, 443)
			s.program(s.serviceAt(every, state.TCP, "wrr", 1, 1, 1, 1), s.serviceAt(every, state.UDP, "wrr", 1, 1, 1, 1))
			for _, from := range s.w.places() {
				for _, proto := range []state.Proto{state.TCP, state.UDP} {
					s.wantSpread(from, proto, to, 1, 1, 1, 1)
				}
			}
			end := s.w.barsMark(t)
			for _, from := range s.w.places() {
				s.wantSpread(from, state.TCP, to, 1, 1, 1, 1)
				if err := s.unanswered(from, to); err != nil {
					s.Errorf("UDP of %s to %s has a mark that leads nowhere: %v", from, to, err)
				}
			}
			end()
			for _, from := range s.w.places() {
				s.wantSpread(from, state.UDP, to, 1, 1, 1, 1)
			}
		})
	}
	if err := intact(); err != nil {
		s.Error(err)
	}
}

// unanswered sends UDP to as many backends as there are; none may answer but the
// host itself, which is found before any rule.
func (s *stage) unanswered(from place, to netip.AddrPort) error {
	for range 4 {
		c, err := s.w.dial(client{place: from}, state.UDP, to)
		if err != nil {
			return err
		}
		a, err := c.askFor(300 * time.Millisecond)
		c.close()
		if err == nil && a.backend.Addr() != s.w.node(to.Addr().Is6()) {
			return fmt.Errorf("%s answered", a.backend)
		}
	}
	return nil
}

// What somebody else gives to packets: marks, and the priority of UDP.
const (
	markOfTCP     = 0x80000001
	markOfUDP     = 0x00044000
	markOfAnswers = 0x6c000010
	priorityOfUDP = 0x00010002
)

func (w *fakeWorld) marksRequests(*testing.T, bool) func() error { return func() error { return nil } }

func (w *fakeWorld) barsMark(*testing.T) func() { return func() {} }

// request is what somebody else sees of packets to VIPs.
type request struct {
	proto          byte
	mark, priority uint32
}

// marksRequests implements world. Packets are marked only while they have a VIP.
func (k *kernel) marksRequests(t *testing.T, priority bool) (intact func() error) {
	t.Helper()
	table := &nftables.Table{Name: "kept", Family: nftables.TableFamilyINet}
	all := []request{{unix.IPPROTO_TCP, markOfTCP, 0}, {unix.IPPROTO_UDP, markOfUDP, 0}}
	if priority {
		all[1].priority = priorityOfUDP
	}
	var counted []string // what each of the rules behind counts
	k.edit(t, func(c *nftables.Conn) {
		c.AddTable(table)
		for name, hook := range map[string]*nftables.ChainHook{
			"before": nftables.ChainHookPrerouting, "own": nftables.ChainHookOutput,
		} {
			made := c.AddChain(&nftables.Chain{
				Table: table, Name: name, Hooknum: hook, Priority: nftables.ChainPriorityMangle,
				Type: nftables.ChainTypeFilter,
			})
			add := func(parts ...[]expr.Any) {
				c.AddRule(&nftables.Rule{Table: table, Chain: made, Exprs: slices.Concat(parts...)})
			}
			for _, r := range all {
				for _, p := range k.pools() {
					add(ofProto(r.proto), toPrefix(p), r.set())
				}
				add(ofProto(r.proto), ofPort(0), (&request{mark: markOfAnswers}).set())
			}
		}
		behind := c.AddChain(&nftables.Chain{
			Table: table, Name: "behind", Hooknum: nftables.ChainHookPostrouting,
			Priority: nftables.ChainPriorityFilter, Type: nftables.ChainTypeFilter,
		})
		for _, r := range all {
			counted = slices.Concat(counted, countMarks(c, behind, slices.Concat(ofProto(r.proto), ofPort(2)), r),
				countMarks(c, behind, slices.Concat(ofProto(r.proto), ofPort(0)), request{mark: markOfAnswers}))
		}
	})
	t.Cleanup(func() { k.edit(t, func(c *nftables.Conn) { c.DelTable(table) }) })
	return func() (err error) {
		k.edit(t, func(c *nftables.Conn) {
			rules, rerr := c.GetRules(table, &nftables.Chain{Name: "behind", Table: table})
			must(t, rerr)
			for i, r := range rules {
				counter, ok := r.Exprs[len(r.Exprs)-1].(*expr.Counter)
				if !ok || (counted[i] == "seen") != (counter.Packets > 0) {
					err = errors.Join(err, fmt.Errorf("somebody's rule %d behind the balancer, %s: %+v", i+1, counted[i], counter))
				}
			}
		})
		return err
	}
}

// countMarks counts packets, and those of them that have another mark or priority. It
// returns what each of its rules counts.
func countMarks(c *nftables.Conn, chain *nftables.Chain, which []expr.Any, want request) (counted []string) {
	add := func(what string, more ...expr.Any) {
		counted = append(counted, what)
		c.AddRule(&nftables.Rule{
			Table: chain.Table, Chain: chain, Exprs: slices.Concat(which, more, []expr.Any{&expr.Counter{}}),
		})
	}
	differs := func(key expr.MetaKey, v uint32) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, v)},
		}
	}
	add("seen")
	add("without its mark", differs(expr.MetaKeyMARK, want.mark)...)
	if want.priority != 0 {
		add("without its priority", differs(expr.MetaKeyPRIORITY, want.priority)...)
	}
	return counted
}

// set gives packets what is seen of them.
func (r *request) set() []expr.Any {
	set := func(key expr.MetaKey, v uint32) []expr.Any {
		return []expr.Any{
			&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, v)},
			&expr.Meta{Key: key, SourceRegister: true, Register: 1},
		}
	}
	all := set(expr.MetaKeyMARK, r.mark)
	if r.priority != 0 {
		all = append(all, set(expr.MetaKeyPRIORITY, r.priority)...)
	}
	return all
}

func ofProto(proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
	}
}

// ofPort matches the port of the services here, at an offset: 0 is the source.
func ofPort(offset uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, 443)},
	}
}

// toPrefix matches destinations in a prefix of whole bytes.
func toPrefix(p netip.Prefix) []expr.Any {
	family, offset := byte(unix.NFPROTO_IPV4), uint32(16)
	if p.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, 24
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(p.Bits() / 8)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Addr().AsSlice()[:p.Bits()/8]},
	}
}

// barsMark implements world.
func (k *kernel) barsMark(t *testing.T) (end func()) {
	t.Helper()
	const table = 77
	h, err := k.handle(unix.NETLINK_ROUTE)
	must(t, err)
	var undo []func() error
	for _, six := range k.families() {
		family, everywhere := unix.AF_INET, netip.MustParsePrefix("0.0.0.0/0")
		if six {
			family, everywhere = unix.AF_INET6, netip.MustParsePrefix("::/0")
		}
		route := &rtnl.Route{Family: family, Dst: ipNet(everywhere), Table: table, Type: unix.RTN_UNREACHABLE}
		must(t, h.RouteAdd(route))
		undo = append(undo, func() error { return h.RouteDel(route) })
		for i := range k.backends {
			rule := rtnl.NewRule()
			rule.Family, rule.Table, rule.Mark, rule.Priority = family, table, markOfUDP, 90
			a := k.backend(i, six)
			rule.Dst = &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
			must(t, h.RuleAdd(rule))
			undo = append(undo, func() error { return h.RuleDel(rule) })
		}
	}
	return func() {
		defer h.Close()
		for _, u := range undo {
			must(t, u())
		}
	}
}
