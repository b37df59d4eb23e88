package control

import (
	"net/netip"
	"time"
)

// Schedulers are the names that a service's scheduler can have (L6).
func Schedulers() []string {
	return []string{"rr", "wrr", "lc", "wlc", "sh", "mh", "sed", "nq"}
}

// LBTable is the desired load balancer table beside the actual one.
type LBTable struct {
	Driver    string      `json:"driver"` // ipvs, nft, none
	Why       string      `json:"why"`    // why this driver
	LastApply time.Time   `json:"last_apply,omitzero"`
	LastError string      `json:"last_error,omitempty"`
	Pending   int         `json:"pending"` // operations still to apply
	Services  []LBService `json:"services"`
}

// The states of LBService and LBBackend.
const (
	LBOK       = "ok"       // as desired
	LBMissing  = "missing"  // desired, not there
	LBExtra    = "extra"    // there, not desired
	LBDiffers  = "differs"  // there, with other settings
	LBDraining = "draining" // no new connections, then removed
)

// LBService is one virtual service.
type LBService struct {
	Network   string      `json:"network"`
	Service   string      `json:"service"`
	VIP       netip.Addr  `json:"vip"`
	Port      string      `json:"port"` // PORT/PROTO, or "all" for a service without declared ports
	Scheduler string      `json:"scheduler"`
	State     string      `json:"state"` // LBOK, ...
	Counters  Counters    `json:"counters"`
	Backends  []LBBackend `json:"backends"`
}

// LBBackend is one task behind a virtual service.
type LBBackend struct {
	Task     string         `json:"task"` // empty if it is not a task that we know
	Node     string         `json:"node"`
	Address  netip.AddrPort `json:"address"` // port 0: the same as the client's
	Desired  int            `json:"desired"` // weight; -1: not desired
	Actual   int            `json:"actual"`  // weight; -1: not there
	State    string         `json:"state"`   // LBOK, ...
	Counters Counters       `json:"counters"`
}

// Counters are what a driver counts. Absent figures are -1, so that "not
// counted" is not read as "none".
type Counters struct {
	Active      int64 `json:"active"`      // connections open now
	Connections int64 `json:"connections"` // since the entry was made
	PacketsIn   int64 `json:"packets_in"`
	PacketsOut  int64 `json:"packets_out"`
	BytesIn     int64 `json:"bytes_in"`
	BytesOut    int64 `json:"bytes_out"`
}

// NoCounters returns Counters in which every figure is absent.
func NoCounters() Counters { return Counters{-1, -1, -1, -1, -1, -1} }

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

// KeyRequest names a key: in base64, or, where it is installed already, by the
// id that KeyID gives.
type KeyRequest struct {
	Key string `json:"key"`
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
	Node      string       `json:"node,omitempty"`   // the owner, or the node in question
	Boot      string       `json:"boot,omitempty"`   // of start and reset: the daemon's boot id
	Detail    string       `json:"detail,omitempty"` // for people
}
