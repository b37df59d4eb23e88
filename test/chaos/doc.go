// Package chaos plays random faults on real meshd processes, each on a host of
// its own (a network namespace), while tasks come and go and clients on every
// host keep resolving and connecting.
//
// A seed draws the schedule: cuts, one-way cuts, random loss, cuts of UDP or
// TCP only, SIGSTOP, kill -9 with and without loss of the disk, a restart of
// all at once. After each round is healed, the checker asks every node, within
// a bound: all tables are equal and say what the owners registered, nothing is
// lost or resurrected, every service has the one VIP that it always had, DNS
// and the load balancer agree with the table.
//
// Every failure of a client is held against the faults in force at that
// moment. One that they do not explain fails the run.
package chaos
