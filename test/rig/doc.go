// Package rig builds a small data centre on one Linux machine: a switch,
// hosts and tasks, each a network namespace, with the processes that run in
// them and the faults between them. It needs no external tools.
//
// A program calls [Main] first. Main starts the program again inside user (if
// it is not root), network, mount and process namespaces of its own, so that
// the machine's own network is never touched and the kernel removes every
// namespace, link, rule and process when the program ends, however it ends.
//
//	switch ── bridge "switch" ──┬── eth0 172.20.0.1  host 1 ── bridge "tasks" 10.1.1.1 ──┬── task 10.1.1.2
//	                            │                                                        └── task 10.1.1.3
//	                            └── eth0 172.20.0.2  host 2 ── bridge "tasks" 10.1.2.1 ───── task 10.1.2.2
//
// Hosts route to each other's tasks; a task's default route is its host. The
// same holds for IPv6, with fd20::/64 between the hosts and fd21:0:0:<host>::/64
// for the tasks.
//
// Namespaces have no name under /run/netns: they are held by open files.
package rig
