// Package dataplane holds one suite of behaviours for every driver of lb: what
// connections meet that go to a virtual address, while services change, daemons
// die and others meddle.
//
// Each behaviour runs in several worlds: lbtest.Fake with its model of traffic,
// lb/nft on this machine's kernel, and lb/ipvs where the kernel has IPVS. The
// worlds with a kernel are hosts and containers made of network namespaces:
//
//	                host1 (node)           host2             host3
//	container ──┐   the driver under       backends 2, 3     remote client
//	backend 0 ──┼── test; own-host
//	backend 1 ──┘   client
//
// In other worlds the driver is in the container of backend 0, for its own
// processes alone (L4).
//
// Besides, host1 is one of each kind of test/hostkind, as people have them: what
// depends on the host is tested there, too, and what mends such a host is what the
// daemon has for that.
//
// What a driver cannot do is in one table, limits, and is skipped with the
// reason. The same table is in docs/OPERATIONS.md.
//
// The tests of one world share its hosts, and each starts with a driver that
// has never run there and ends with its Teardown, after which nothing of ours
// may be left. Every test uses virtual addresses of its own.
package dataplane
