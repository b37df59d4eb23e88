package pool

import (
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"meshd/lb/nftconn"
)

// A segment of a backend that conntrack takes for invalid, since it lies beyond
// the window, keeps the address that the masquerade gave: it comes to the host
// itself, which has no such connection and would answer with a reset that ends
// it. So it is lost instead, as a segment may be; the backend sends it again.
//
//	masq   ct original ip daddr @pool update @tasks { ip daddr timeout 30d }
//	guard  ip saddr @tasks ip daddr != @pool meta l4proto tcp ct state invalid tcp flags & rst == 0 drop
//
// Only what comes from where connections to VIPs were led: what else a host does
// with such segments is its own affair. A task may be a client too: what it sends
// to a VIP in a connection that conntrack does not take up (the last segment of
// one that was cut, or any with nf_conntrack_tcp_loose=0) is refused like others'. It is the guard that
// drops, behind IPVS,
// which takes those of the host's own connections for what they are.

// taskTimeout is how long an address to which no new connection was led counts
// as that of a task.
const taskTimeout = 30 * 24 * time.Hour

// maxTasks bounds the addresses. Those above it are not noted.
const maxTasks = 65536

// newTaskSet makes the set of a family. The kernel fills it.
func (g *guard) newTaskSet(i int) *nftables.Set {
	return &nftables.Set{
		Table: g.table[i], ID: uint32(9 + i), Name: "tasks", KeyType: nftconn.Families[i].Addr,
		Dynamic: true, HasTimeout: true, Timeout: taskTimeout, Size: maxTasks,
	}
}

// recordTask puts a packet's destination into the set.
func recordTask(f *nftconn.Family, tasks *nftables.Set) []expr.Any {
	return []expr.Any{f.LoadDestination(nftconn.FirstRegister), &expr.Dynset{
		SrcRegKey: nftconn.FirstRegister, SetName: tasks.Name, SetID: tasks.ID,
		Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: taskTimeout,
	}}
}

// invalid matches TCP segments of tasks that belong to no connection, but for resets
// and what is for VIPs.
func (g *guard) invalid(i int) []expr.Any {
	const rst = 0x04
	return nftconn.Concat(
		nftconn.Families[i].SourceIn(g.tasks[i]), nftconn.IsProtocol(unix.IPPROTO_TCP),
		nftconn.InState(expr.CtStateBitINVALID),
		[]expr.Any{nftconn.Families[i].LoadDestination(nftconn.FirstRegister), nftconn.NotInSet(g.pool[i])},
		[]expr.Any{
			&expr.Payload{DestRegister: nftconn.FirstRegister, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
			nftconn.Mask([]byte{rst}),
			nftconn.Equal([]byte{0}),
		})
}
