// Package gossip moves the streams of package state between nodes.
//
// Core is the protocol as a deterministic state machine: time and packets go
// in, packets and events come out (G10). Host runs a Core over
// hashicorp/memberlist, which gives membership, failure detection, encryption
// and the wire (G1). Rules G1–G11 and S9, S12 of docs/DESIGN.md.
package gossip
