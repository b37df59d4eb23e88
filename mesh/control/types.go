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
	Name    string    `json:"name"`
	Address string    `json:"address"` // gossip, IP:PORT
	State   string    `json:"state"`   // NodeAlive, ...
	Since   time.Time `json:"since"`   // of the state; local clock
	Self    bool      `json:"self,omitempty"`
	Listed  bool      `json:"listed"` // by the membership; a node that is alive and is not is being joined
	// it answered this node, or spoke and states where it is; else it is only said to exist
	Proven      bool     `json:"proven"`
	BootID      string   `json:"boot_id,omitempty"`
	Incarnation uint64   `json:"incarnation,omitempty"`
	LBDriver    string   `json:"lb_driver,omitempty"` // ipvs, nft, none
	Networks    []string `json:"networks"`            // sorted
	Version     string   `json:"version,omitempty"`
	RTTMillis   float64  `json:"rtt_ms,omitempty"` // estimated; 0 = unknown
}

// Status describes the daemon that answers.
type Status struct {
	Node        string    `json:"node"`
	BootID      string    `json:"boot_id"`
	Incarnation uint64    `json:"incarnation"`
	Version     string    `json:"version"`
	Started     time.Time `json:"started"`
	Bind        string    `json:"bind"` // gossip, IP:PORT
	DNS         []string  `json:"dns"`  // the addresses that answer
	Domain      string    `json:"domain"`
	DataDir     string    `json:"data_dir"`
	Encrypted   bool      `json:"encrypted"`

	Members     MemberCount     `json:"members"`
	Networks    []NetworkStatus `json:"networks"`
	Tables      TableUsage      `json:"tables"`
	LocalTasks  int             `json:"local_tasks"`
	Sandboxes   int             `json:"sandboxes"` // attached to this node (L4)
	LBDriver    string          `json:"lb_driver"` // ipvs, nft, none
	LBWhy       string          `json:"lb_why"`    // why this driver
	LB          []LBHealth      `json:"lb"`        // the host's first, then those of sandboxes
	EventIndex  uint64          `json:"event_index"`
	Degraded    []string        `json:"degraded"`  // what does not work fully, for people; empty = all well
	Conflicts   []string        `json:"conflicts"` // names, addresses and pools claimed twice
	Warnings    []string        `json:"warnings"`
	Preserving  bool            `json:"preserving,omitempty"`  // self-preservation is on (S12)
	Quarantined int             `json:"quarantined,omitempty"` // records refused as poison (G8)
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

// Doctor is what was found of the host.
type Doctor struct {
	Node     string        `json:"node"` // empty: no meshd answered, and the host was looked at without one
	At       time.Time     `json:"at"`
	Findings []HostFinding `json:"findings"` // faults first; none: nothing is against meshd
}

// The severities of findings.
const (
	SeverityFault   = "fault"   // something does not work
	SeverityWarning = "warning" // something may not work
)

// HostFinding is one thing of the host that is against meshd.
type HostFinding struct {
	Code     string `json:"code"`              // what kind, for programs
	Severity string `json:"severity"`          // SeverityFault, ...
	What     string `json:"what"`              // for people
	Command  string `json:"command,omitempty"` // for a shell of root: it mends it
	Document string `json:"document"`          // where more is said
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
	Told     int  `json:"told"`     // live members that acknowledged or were sent the goodbye
	Stopping bool `json:"stopping"` // the daemon ends now
}

// ResolveRequest asks how a name resolves in a network.
type ResolveRequest struct {
	Name    string
	Network string
	Type    string // one of ResolveTypes; empty: A and AAAA
	Trace   bool   // also send a name of others to its upstreams, and say which path answers
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
