// Package ipvs balances connections with the kernel's IPVS (L7): every
// scheduler, connection counts, and drains by weight.
//
// A service with ports is a virtual service VIP:port; one for all ports of a
// protocol is a firewall-mark service, fed by one nftables map from VIP and
// protocol to mark (L3). TCP and UDP have marks of their own because they leave
// a backend in different ways: TCP drains, UDP goes at once (L5). Routes,
// guard, masquerade and marks are pool.Marked; nothing here needs iptables,
// ipset or a dummy interface (L2).
//
// # Ownership
//
// Only what is ours is touched (L1): virtual services whose address lies in
// one of our pools, and those of firewall marks that our map hands out or that
// lie in our range. Nothing is flushed. A restart adopts what it finds; the
// marks survive in the kernel's map.
//
// # Writing and reading
//
// Changes travel through lb/ipvs/genl: up to 512 operations in one system call,
// with one acknowledgement, and the kernel's refusals by number. Whether
// something must be made or changed is a guess that the kernel corrects
// (EEXIST, ENOENT), so that a change never has to read first, and costs the
// same in any table. The order of operations on one service or backend is kept.
//
// The table is read back in one pass over /proc/net/ip_vs; only services whose
// line there does not tell everything (mh, sh, affinity, marks without
// backends) are asked for by netlink. Kernels with one table for all namespaces
// leave services out of that file when another namespace has some, so the first
// reading, and each that misses something, is checked against a netlink list;
// where the file is not complete, services are read one by one.
//
// Every wait has an end; a kernel that does not answer is asked anew through a
// new socket, after Setup.
//
// github.com/moby/ipvs tells the kernel's timeouts, and reads what this package
// wrote in the tests. It is not asked whether there is an IPVS, since it reports
// success on kernels without, and it writes nothing: it makes a round trip for
// every operation, reads weights with 16 bits and counters with 32, waits for
// ever, and takes an IPv6 backend of an IPv4 service for another address.
//
// # What connections meet
//
// A TCP backend that leaves gets weight 0: its connections go on, new ones go
// elsewhere. It is deleted when IPVS has none of its connections left or at the
// drain's deadline (L5). A UDP backend is deleted at once, and its clients move
// with their next packet (expire_nodest_conn). A service without backends stays
// and refuses.
//
// IPVS forgets a TCP connection that was idle for 15 minutes (2 minutes after
// the first FIN, UDP 5 minutes). The next packet of such a connection is
// balanced anew. With scheduler mh it finds the same backend, since the hash
// covers the client's address and port, and goes on (sloppy_tcp, unless
// conntrack is not to take up connections either: nf_conntrack_tcp_loose); with the
// other schedulers it may reach a backend that does not know the connection and
// is reset. Clients with longer silences should choose mh or send keepalives.
package ipvs

import (
	"log/slog"
	"time"

	"meshd/lb/nftconn"
	"meshd/lb/sysctl"
)

// Config are the settings of a driver.
type Config struct {
	// NetNS is the path of the network namespace to program (L4); empty means
	// the caller's own. IPVS' services and sysctls belong to the namespace.
	NetNS string
	// Local says that only the namespace's own processes are clients, as in a
	// container (L4): forwarding stays as it is.
	Local bool
	// OnSysctl is as of pool.Config.
	OnSysctl func(sysctl.Change)
	// Listener is as of pool.Config.
	Listener nftconn.Listener
	// Log receives what is repaired and what is odd. Required.
	Log *slog.Logger
	// MarkCount is how many firewall marks there are for services for all ports,
	// in each address family: pool.FirstMark with numbers in pool.MarkBits. Services
	// of these marks are taken for ours. A service for all ports takes two of them
	// for each of its addresses, one for TCP and one for UDP. Default 65536.
	MarkCount uint32
	// CallLimit is how long the kernel may take to answer. Default 10 s.
	CallLimit time.Duration
}
