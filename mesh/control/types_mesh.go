package control

import (
	"net/netip"
	"time"
)

// DiffRequest asks for a comparison. An empty network means all.
type DiffRequest struct {
	Network string
}

// Diff is the comparison of the tables of all nodes.
type Diff struct {
	Equal    bool          `json:"equal"` // every network is equal and nobody is silent
	Networks []NetworkDiff `json:"networks"`
	Silent   []SilentNode  `json:"silent"` // live nodes that did not answer
}

// NetworkDiff compares the tables of one network.
type NetworkDiff struct {
	Network string         `json:"network"` // empty: the global scope
	Equal   bool           `json:"equal"`
	Differ  []string       `json:"differ"` // the nodes whose checksum is not that of the most
	Nodes   []NodeChecksum `json:"nodes"`  // sorted by name
}

// NodeChecksum is one node's answer for one network.
type NodeChecksum struct {
	Node     string `json:"node"`
	Checksum string `json:"checksum"` // 16 hex digits
	Entries  int    `json:"entries"`
}

// SilentNode is a live node that did not answer.
type SilentNode struct {
	Node  string `json:"node"`
	Error string `json:"error"`
}

// SpreadRequest asks how far this node's changes have spread. An empty network
// means the global scope.
type SpreadRequest struct {
	Network string
}

// Spread is how far this node's changes in a network have spread: whether the
// live nodes know the network as this one does, and, where they take part in it,
// hold all that this one states, answer with it and have given it to their load
// balancers. Changes are spread when OK is Total.
type Spread struct {
	Network string       `json:"network"` // empty: the global scope
	Results []NodeResult `json:"results"` // one per live node, this one included, sorted by name
	OK      int          `json:"ok"`      // nodes that are done
	Total   int          `json:"total"`
}

// KeyRequest names a key: in base64, or, where it is installed already, by the
// id that KeyID gives.
type KeyRequest struct {
	Key string `json:"key"`
	// Force, of use and remove: although some nodes do not have the key, do not
	// answer, or are away. They are locked out until somebody gives them another.
	Force bool `json:"force,omitempty"`
}

// KeyReply is the outcome of a keyring operation over all nodes.
type KeyReply struct {
	Keys    []KeyCount   `json:"keys"`    // the primary key first
	Results []NodeResult `json:"results"` // one per node, sorted by name
	OK      int          `json:"ok"`      // nodes that did it: the n of [n/m]
	Total   int          `json:"total"`   // nodes asked: the m of [n/m]
}

// KeyCount says how many nodes have a key. It never holds the key itself.
type KeyCount struct {
	ID      string `json:"id"` // KeyID
	Nodes   int    `json:"nodes"`
	Primary int    `json:"primary"` // nodes that encrypt with it
}

// NodeResult is one node's outcome.
type NodeResult struct {
	Node  string `json:"node"`
	Error string `json:"error,omitempty"` // empty: done
}

// WatchRequest says which events to send.
type WatchRequest struct {
	Network string // only events of this network and those of no network; empty: all
	From    uint64 // the index of the last event seen; 0: from now on
	Boot    string // Event.Boot of the stream that From belongs to
}

// EventType says what happened.
type EventType string

// The types of events. Programs must ignore types that they do not know.
const (
	// EventStart is the first event of a stream without a gap: all that
	// follows is what happened after Index.
	EventStart EventType = "start"
	// EventReset says that events were lost (the node restarted, or the reader
	// was away or slow for too long): read the lists again.
	EventReset EventType = "reset"

	EventEndpointAdded    EventType = "endpoint-added"
	EventEndpointUpdated  EventType = "endpoint-updated"
	EventEndpointRemoved  EventType = "endpoint-removed"
	EventEndpointHidden   EventType = "endpoint-hidden"   // its owner is dead (S9)
	EventEndpointRestored EventType = "endpoint-restored" // its owner is back

	EventVIPAssigned EventType = "vip-assigned"
	EventVIPMoved    EventType = "vip-moved"
	EventVIPReleased EventType = "vip-released"

	EventServiceAdded    EventType = "service-added"
	EventServiceUpdated  EventType = "service-updated"
	EventServiceRemoved  EventType = "service-removed"
	EventServiceConflict EventType = "service-conflict"

	EventNodeAlive    EventType = "node-alive"
	EventNodeSuspect  EventType = "node-suspect"
	EventNodeDead     EventType = "node-dead"
	EventNodeLeft     EventType = "node-left"
	EventNodeConflict EventType = "node-conflict" // two nodes with one name (S7)

	EventNetworkAdded    EventType = "network-added"
	EventNetworkRemoved  EventType = "network-removed"
	EventNetworkConflict EventType = "network-conflict"

	EventLBDrift EventType = "lb-drift" // somebody else changed the kernel's load balancing

	EventHostFound  EventType = "host-found"  // something of the host is against meshd
	EventHostMended EventType = "host-mended" // and is not any more

	EventPoolRefused EventType = "pool-refused" // a network's pool touches this host: it is not served here
	EventPoolServed  EventType = "pool-served"  // and nothing stands against it any more

	EventSandboxAttached EventType = "sandbox-attached"
	EventSandboxDetached EventType = "sandbox-detached"
	EventSandboxLost     EventType = "sandbox-lost" // its namespace or its process has ended
)

// Event is one change, as this node saw it.
type Event struct {
	Index     uint64       `json:"index"` // grows by one per event; Boot says in what run of the daemon
	Time      time.Time    `json:"time"`  // local clock
	Type      EventType    `json:"type"`
	Network   string       `json:"network,omitempty"`
	Service   string       `json:"service,omitempty"`
	Task      string       `json:"task,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Sandbox   string       `json:"sandbox,omitempty"`
	Node      string       `json:"node,omitempty"`   // the owner, or the node in question
	Boot      string       `json:"boot,omitempty"`   // of start and reset: the daemon's boot id
	Detail    string       `json:"detail,omitempty"` // for people
}
