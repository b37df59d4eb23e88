package pool

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/nftconn"
)

// Rules L1, L3: what the host itself sends to a service for all ports has the mark and
// the priority that its socket gave it behind IPVS (of which there is none here), as
// long as there is room for the pair; what finds none has no mark, and is counted.
func TestKeptMarks(t *testing.T) {
	for i, vip := range []netip.Addr{vip4, vip6} {
		t.Run(nftconn.FamilyName(i), func(t *testing.T) {
			r := newRig(t)
			h := r.marked()
			must(t, h.SetPool(lb.Pool{Prefix: pool4, Src: node4}))
			must(t, h.SetPool(lb.Pool{Prefix: pool6, Src: node6}))
			must(t, h.SetMark(allUDP(vip), FirstMark+1))
			must(t, h.Serve([]lb.Key{allUDP(vip)}, nil))
			const extra = 10
			seen := r.watchMarks(vip)
			for n := range uint32(maxKept + extra) {
				mark, priority := (n+1)*0x01000193&^markTag|0x40000000, n%3
				r.send(vip, mark, priority)
				got := seen()
				switch want := [2]uint32{mark, priority}; {
				case n < maxKept && got != want:
					t.Fatalf("packet %d left with mark and priority %#x, want %#x", n, got, want)
				case n >= maxKept && got[0] != 0:
					t.Fatalf("packet %d left with mark and priority %#x, want no mark", n, got)
				}
			}
			r.send(vip, 0, 7)
			if got := seen(); got != [2]uint32{0, 7} {
				t.Errorf("a packet without a mark left with mark and priority %#x", got)
			}
			chain := &nftables.Chain{Table: h.Base.table[i], Name: "keep_mark"}
			rules, err := h.Base.conn.Nftables.GetRules(chain.Table, chain)
			must(t, err)
			if lost, ok := rules[2].Exprs[0].(*expr.Counter); !ok || lost.Packets != extra {
				t.Errorf("counted %+v, want %d packets without their mark", lost, extra)
			}
			if saved := r.Reload(); !strings.Contains(saved, "timeout 1m") {
				t.Errorf("saved %s", saved)
			}
			if found, err := r.marked().Check(); err != nil || len(found) > 0 {
				t.Errorf("loaded: %v, %v", found, err)
			}
		})
	}
}

// watchMarks returns what tells mark and priority of the last packet to an address
// when it was about to leave the host.
func (r *rig) watchMarks(to netip.Addr) func() [2]uint32 {
	v := r.Vandal()
	c := v.Nftables
	table := &nftables.Table{Name: "watch", Family: nftables.TableFamilyINet}
	set := &nftables.Set{
		Table: table, Name: "seen", KeyType: nftables.MustConcatSetType(nftables.TypeMark, nftables.TypeClassID),
		Concatenation: true, Dynamic: true,
	}
	c.AddTable(table)
	chain := c.AddChain(&nftables.Chain{
		Table: table, Name: "behind", Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityFilter,
		Type: nftables.ChainTypeFilter,
	})
	v.Must(c.AddSet(set, nil))
	f := &nftconn.Families[nftconn.FamilyIndex(to)]
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: nftconn.Concat(f.Match(), []expr.Any{
		f.LoadDestination(nftconn.FirstRegister), nftconn.Equal(to.AsSlice()),
		nftconn.LoadMeta(expr.MetaKeyMARK),
		&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: nftconn.FirstRegister + 1},
		&expr.Dynset{
			SrcRegKey: nftconn.FirstRegister, SetName: set.Name, SetID: set.ID, Operation: unix.NFT_DYNSET_OP_ADD,
		},
	})})
	v.Must(c.Flush())
	return func() [2]uint32 {
		r.T.Helper()
		elems, err := c.GetSetElements(set)
		v.Must(err)
		if len(elems) != 1 {
			r.T.Fatalf("saw %d packets, want one", len(elems))
		}
		c.FlushSet(set)
		v.Must(c.Flush())
		key := elems[0].Key
		return [2]uint32{binary.NativeEndian.Uint32(key), binary.NativeEndian.Uint32(key[4:])}
	}
}

// send sends a datagram from the node through a socket that has a mark and a priority.
func (r *rig) send(to netip.Addr, mark, priority uint32) {
	r.T.Helper()
	r.Node.Do(r.T, func() error {
		p, err := net.ListenPacket("udp", "")
		if err != nil {
			return err
		}
		defer p.Close()
		raw, err := p.(*net.UDPConn).SyscallConn()
		if err != nil {
			return err
		}
		var set error
		err = raw.Control(func(fd uintptr) {
			set = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, int(priority)))
		})
		if err := errors.Join(err, set); err != nil {
			return err
		}
		_, err = p.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 443)))
		return err
	})
}
