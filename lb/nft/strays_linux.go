package nft

import (
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
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
func (h *Helpers) newTaskSet(i int) *nftables.Set {
	return &nftables.Set{
		Table: h.table[i], ID: uint32(9 + i), Name: "tasks", KeyType: families[i].addr,
		Dynamic: true, HasTimeout: true, Timeout: taskTimeout, Size: maxTasks,
	}
}

// noteTask puts a packet's destination into the set.
func noteTask(f *family, tasks *nftables.Set) []expr.Any {
	return []expr.Any{f.loadDst(firstReg), &expr.Dynset{
		SrcRegKey: firstReg, SetName: tasks.Name, SetID: tasks.ID, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: taskTimeout,
	}}
}

// stray matches TCP segments of tasks that belong to no connection, but for resets
// and what is for VIPs.
func (h *Helpers) stray(i int) []expr.Any {
	const rst = 0x04
	return rules(
		[]expr.Any{families[i].loadSrc(firstReg), inSet(h.tasks[i])}, l4(unix.IPPROTO_TCP), inState(expr.CtStateBitINVALID),
		[]expr.Any{families[i].loadDst(firstReg), notInSet(h.pool[i])},
		[]expr.Any{
			&expr.Payload{DestRegister: firstReg, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
			&expr.Bitwise{SourceRegister: firstReg, DestRegister: firstReg, Len: 1, Mask: []byte{rst}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: []byte{0}},
		})
}

// inState matches packets in one of conntrack's states.
func inState(bit uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: firstReg, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: firstReg, DestRegister: firstReg, Len: 4, Mask: native32(bit), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: firstReg, Data: make([]byte, 4)},
	}
}
