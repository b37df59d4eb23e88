// Package gossip moves the streams of package state between nodes, and finds out which
// nodes live.
//
// # The state machine
//
// Core is the protocol of one node as a deterministic state machine (G10). Its inputs are
// packets of peers (Receive), reports of a membership (MemberAlive, MemberDead,
// MemberReached, Conflict), what the node itself states (Commit, JoinNetwork, Leave) and
// the passing of time (Tick, due at Next). Its outputs are packets and events, which
// Drain returns, and the state.Store, which it owns. It starts no goroutine, reads no
// clock and opens no socket: every input brings the time with it, and the random choices
// come from the generator that NewCore gets. The same inputs give the same outputs, so a
// failed run of the simulator (test/sim) repeats from its seed.
//
// A core is driven in a loop: give it an input, call Drain, send the packets and act on
// the events, then wait for the next input or until Next. Packets may be lost, doubled
// and reordered. No method may be called while another one runs.
//
// Host drives a Core over hashicorp/memberlist (G1), which brings membership, failure
// detection, encryption and the wire. One goroutine owns the core; others reach it
// through Do. Package transport keeps away from memberlist what would crash it.
//
// # Parts
//
// A core is composed of parts, each with its own state and its own file. All read env,
// which is the configuration, the clock, the dice and the store. A part knows those
// before it in this list; what it needs of a later one it states as an interface, as
// repair does with newsLog and requester.
//
//	roster       the other nodes: who takes part where, who lives
//	outbox       packets and events that wait for Drain, and the budgets of answers (G13)
//	nets         the networks of this node, and what the parts keep for each
//	pings        which member is pinged when
//	goodbyes     members that are asked whether they leave
//	liveness     the phase of each member; detector.go is its whole table
//	checks       the frames of pings and their answers
//	pace         when tables are compared
//	push         what this node wrote or relays, and what it announces
//	pull         what it asks for
//	incarnation  higher incarnations of its own streams (S7)
//	probes       hashes of tables, as packets
//	fetch        tables that this node does not have yet
//	repair       the comparison of tables
//	claims       the claims of the services hosted here (V2)
//	duplicates   another node with this node's name (S7)
//	refutation   beacons that show that this node lives (G21)
//	intake       deltas that arrive
//
// # The life of a change
//
// Commit writes records to the node's own stream in a table, and push.pushOwn takes them
// as a delta. finishStep pushes it at the end of the step to CoreConfig.Fanout random
// participants; changes closer together than Coalesce travel together. A participant that
// lacks nothing before the delta applies it (intake.apply) and relays it once. One that
// lacks something waits a moment for the missing push, then asks for it (pull). A delta
// that is too large for a datagram is not pushed: push.advertise sends random participants
// the head of the stream, and they pull. A few milliseconds after a change push.sendHot
// sends the heads of recent news to one participant after the other, chosen so that each is
// told by somebody (roster.ringPeer): who missed the push pulls. What all of that missed,
// repair finds: random pairs compare a hash per table, then hashes of buckets, then heads,
// and pull what differs (G3, G4).
//
// # The life of a death
//
// memberlist reports a node dead (MemberDead), to all nodes at about the same time. The
// core does not believe it yet: liveness.startCheck gives the node CoreConfig.VerifyFor or
// longer. About eight nodes ping it, from there and through three others; the rest wait
// for a sign of life. A node that lives and is pinged so writes a beacon (refutation), which
// reaches all of them. Any packet of the node, or such a push, ends the check; who waited
// in vain pings it, too, before the check ends. If only others
// reach it, it is served after the rest (phaseRelayed). If nothing answers, its endpoints
// are hidden (phaseDead), in the store's overlay and on this node only: no node says of
// another one that it is dead. If most members vanish at once, it is rather this node
// that is cut off, and they are kept and served last (phaseKept, S12). The dead are pinged
// now and then for ever, and the first packet of one restores it with all its records.
// Long after, its streams are no longer offered to others, then dropped
// (CoreConfig.StopOfferingAfter, DropAfter). A node that leaves in order writes a last,
// empty snapshot; whoever receives it asks the node itself whether it leaves (goodbyes).
//
// # The life of a join
//
// The joiner dials seeds and remembered peers, and memberlist then lists their members
// (MemberAlive). Until the global scope has been compared with one of them, fetch asks up
// to three members for it; its records say in which networks the others take part.
// JoinNetwork announces that this node takes part in a network, and fetch asks
// participants for its table. A table is synced once it was compared and nothing was
// missing here. A listed member that does not show that it exists is pinged, and treated
// as dead when it does not answer (G17).
//
// # The life of a claim
//
// Host says which services this node hosts. After every change of a table finishStep has
// claims look at it: the network's state.Carrier computes which claims this node has to
// write, and claims writes and pushes them like any change. While the table is not yet
// synced it waits, since it cannot see the claims of others (V3); a claim that is made
// without having compared with any other node is provisional (V11).
//
// Rules G1–G21 and S6–S15 of docs/DESIGN.md.
package gossip
