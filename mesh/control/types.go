package control

import (
	"time"
)

// Version says which build answers.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`   // GOOS/GOARCH
	API     int    `json:"api"`  // APIVersion
	Node    string `json:"node"` // empty if it is not a daemon
}

// APIVersion is the number of this API; it grows when a change is not
// compatible.
const APIVersion = 1

// The states of a member, as Node.State has them.
const (
	NodeAlive   = "alive"
	NodeSuspect = "suspect"
	NodeDead    = "dead"
	NodeLeft    = "left"
)

// Node is one member as this node sees it.
type Node struct {
	// Where the member is, and whether it lives.

	// Name is the node's unique name.
	Name string `json:"name"`
	// Address is the node's gossip address, IP:PORT.
	Address string `json:"address"`
	// State is NodeAlive, NodeSuspect, NodeDead or NodeLeft.
	State string `json:"state"`
	// Since is when this node saw the state begin, by its own clock.
	Since time.Time `json:"since"`
	// Self marks the node that answers.
	Self bool `json:"self,omitempty"`
	// Listed says that the membership lists the node. An alive node that is not
	// listed is being joined.
	Listed bool `json:"listed"`
	// Proven says that the node answered this one, or spoke and states where it
	// is. Of any other node it is only said that it exists.
	Proven bool `json:"proven"`

	// What the node states of itself; empty until its record has arrived.

	// BootID is the id of the node's run: 16 hex digits, new at each start.
	BootID string `json:"boot_id,omitempty"`
	// Incarnation is that of the node's stream in the global scope (S7).
	Incarnation uint64 `json:"incarnation,omitempty"`
	// LBDriver is the node's driver: ipvs, nft or none.
	LBDriver string `json:"lb_driver,omitempty"`
	// Networks are those in which the node participates, sorted.
	Networks []string `json:"networks"`
	// Version is that of the node's build.
	Version string `json:"version,omitempty"`

	// RTTMillis is the estimated round trip to the node, in milliseconds; 0 is
	// unknown.
	RTTMillis float64 `json:"rtt_ms,omitempty"`
}

// Status describes the daemon that answers.
type Status struct {
	// Who answers.

	// Node is the node's name.
	Node string `json:"node"`
	// BootID is the id of this run of the daemon: 16 hex digits, new at each start.
	BootID string `json:"boot_id"`
	// Incarnation is that of the node's stream in the global scope (S7).
	Incarnation uint64 `json:"incarnation"`
	// Version is that of the build.
	Version string `json:"version"`
	// Started is when the daemon started.
	Started time.Time `json:"started"`

	// How it is configured.

	// Bind is the gossip address, IP:PORT.
	Bind string `json:"bind"`
	// DNS are the addresses at which the node answers DNS, IP:PORT.
	DNS []string `json:"dns"`
	// Domain is the DNS suffix of full names, mesh.internal unless configured.
	Domain string `json:"domain"`
	// DataDir is the directory with what survives a restart.
	DataDir string `json:"data_dir"`
	// Encrypted says that gossip is encrypted.
	Encrypted bool `json:"encrypted"`

	// What it knows of the mesh.

	// Members counts the members per state, this node included.
	Members MemberCount `json:"members"`
	// Networks has one entry per network in which the node participates.
	Networks []NetworkStatus `json:"networks"`
	// Tables is how full the tables of all networks are.
	Tables TableUsage `json:"tables"`

	// What runs here.

	// LocalTasks is how many tasks are registered on this node.
	LocalTasks int `json:"local_tasks"`
	// Sandboxes is how many sandboxes are attached to this node (L4).
	Sandboxes int `json:"sandboxes"`
	// LBDriver is the host's driver: ipvs, nft or none.
	LBDriver string `json:"lb_driver"`
	// LBWhy says why this driver was chosen, for people.
	LBWhy string `json:"lb_why"`
	// LB sums up each load balancer: the host's first, then those of sandboxes by name.
	LB []LBHealth `json:"lb"`
	// EventIndex is the index of the newest event.
	EventIndex uint64 `json:"event_index"`

	// What is wrong. The lists are sentences for people, and empty if all is well.

	// Degraded is what does not work fully.
	Degraded []string `json:"degraded"`
	// Conflicts are the names, addresses and pools that are claimed twice.
	Conflicts []string `json:"conflicts"`
	// Warnings are what may become a trouble.
	Warnings []string `json:"warnings"`
	// Preserving says that too many members vanished at once, so that their last
	// known tasks are kept (S12).
	Preserving bool `json:"preserving,omitempty"`
	// Quarantined is how many records are carried for others and not shown,
	// because they are malformed or ahead of any believable time (G8, S16).
	Quarantined int `json:"quarantined,omitempty"`
}

// MemberCount counts members per state.
type MemberCount struct {
	Alive   int `json:"alive"`
	Suspect int `json:"suspect"`
	Dead    int `json:"dead"`
	Left    int `json:"left"`
}

// TableUsage is what the tables of a node hold, over all networks and owners, and
// may hold (S19).
type TableUsage struct {
	Records    int `json:"records"` // tombstones included
	MaxRecords int `json:"max_records"`
	Bytes      int `json:"bytes"` // of their text
	MaxBytes   int `json:"max_bytes"`
}

// NetworkStatus is what Status says of one network that this node takes part in.
type NetworkStatus struct {
	Network  string `json:"network"`
	Synced   bool   `json:"synced"`   // the first full exchange with a peer is done
	Checksum string `json:"checksum"` // of the table; 16 hex digits
	Services int    `json:"services"`
	Tasks    int    `json:"tasks"`
}

// Doctor is what the examination of the host found.
type Doctor struct {
	Node     string        `json:"node"` // empty if no meshd answered, and the host was examined without one
	At       time.Time     `json:"at"`
	Findings []HostFinding `json:"findings"` // faults first; empty if all is well
}

// The severities of findings.
const (
	SeverityFault   = "fault"   // something does not work
	SeverityWarning = "warning" // something may not work
)

// HostFinding is one thing about the host that keeps meshd from working, or may.
type HostFinding struct {
	Code     string `json:"code"`              // the kind of finding, for programs; never changes
	Severity string `json:"severity"`          // SeverityFault or SeverityWarning
	What     string `json:"what"`              // for people
	Command  string `json:"command,omitempty"` // mends it in a shell of root
	Document string `json:"document"`          // names the document that says more
}

// JoinRequest asks to contact nodes.
type JoinRequest struct {
	Addresses []string `json:"addresses"` // HOST or IP, each with an optional :PORT
}

// JoinReply says which addresses answered.
type JoinReply struct {
	Results []JoinResult `json:"results"` // in the order of the request
	Members int          `json:"members"` // alive after the join, this node included
}

// JoinResult is the outcome for one address.
type JoinResult struct {
	Address string `json:"address"`
	Error   string `json:"error,omitempty"` // empty: it answered
}

// LeaveReply says what leaving did.
type LeaveReply struct {
	Informed int  `json:"told"`     // live members that acknowledged or were sent the goodbye
	Stopping bool `json:"stopping"` // the daemon ends now
}

// ResolveRequest asks how a name resolves in a network.
type ResolveRequest struct {
	Name    string
	Network string
	Type    string // one of ResolveTypes; empty: A and AAAA
	Trace   bool   // also send a foreign name to its upstreams, and say which path answers
}

// Resolution is the reply to ResolveRequest.
type Resolution struct {
	Name    string   `json:"name"`
	Network string   `json:"network"`
	Type    string   `json:"type"`
	RCode   string   `json:"rcode"` // NOERROR, NXDOMAIN, ...
	TTL     uint32   `json:"ttl"`   // seconds
	Answers []string `json:"answers"`
	Steps   []Step   `json:"steps"`
}

// Step is one thing that resolution tried, in order.
type Step struct {
	Scope  string   `json:"scope"`  // where: a network, or "upstream"
	Rule   string   `json:"rule"`   // what: service, alias, task name, tasks., ...
	Answer []string `json:"answer"` // empty: the rule did not answer
	Why    string   `json:"why"`
}
