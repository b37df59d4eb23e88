// Package transport stands between memberlist and the network.
//
// memberlist v0.7 trusts what it reads: a datagram of 20 bytes makes it allocate 4 GiB,
// a frame without content or one in encryption version 0 makes it panic, and a stream
// that says nothing is waited for (G8, G14). Transport looks at every packet and at the
// first message of every stream before memberlist does, with the same keys, and bounds
// streams in number, size and time. It also takes the packets of the protocol above out
// of the datagrams, since memberlist does not say where they came from.
//
// Sockets is the network below it: UDP and TCP on one port, where a datagram for which
// there is no room is lost and nothing waits.
package transport
