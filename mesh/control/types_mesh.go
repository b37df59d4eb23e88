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
	Equal    bool          `json:"equal"` // every network is equal, and every live node answered
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
	// Force makes UseKey and RemoveKey act although some nodes lack the key, do not
	// answer, or are away. Those are locked out until they get another key.
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

	EventLBDrift EventType = "lb-drift" // another program changed the kernel's load balancing

	EventHostFound  EventType = "host-found"  // the doctor has a new finding about the host
	EventHostMended EventType = "host-mended" // a finding is gone

	EventPoolRefused EventType = "pool-refused" // a network's pool is not served here: it overlaps with something
	EventPoolServed  EventType = "pool-served"  // the overlap is gone: the pool is served again

	EventSandboxAttached EventType = "sandbox-attached"
	EventSandboxDetached EventType = "sandbox-detached"
	EventSandboxLost     EventType = "sandbox-lost" // its namespace or its process has ended
)

// Event is one change, as this node saw it.
type Event struct {
	// Where in the stream it is, and what it says.

	// Index grows by one per event during one run of the daemon.
	Index uint64 `json:"index"`
	// Time is when this node saw the change, by its own clock.
	Time time.Time `json:"time"`
	// Type is what happened.
	Type EventType `json:"type"`

	// What it is about; empty where it does not apply.

	// Network is the network of what changed.
	Network string `json:"network,omitempty"`
	// Service is the name of the service.
	Service string `json:"service,omitempty"`
	// Task is the id of the task.
	Task string `json:"task,omitempty"`
	// Addresses are the task's, or the VIPs.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Sandbox is the name of the sandbox.
	Sandbox string `json:"sandbox,omitempty"`
	// Node is the owner of what changed, or the node in question.
	Node string `json:"node,omitempty"`

	// Boot is the daemon's boot id, in EventStart and EventReset.
	Boot string `json:"boot,omitempty"`
	// Detail says more, for people.
	Detail string `json:"detail,omitempty"`
}
