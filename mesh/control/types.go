package control

import (
	"net/netip"
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

// CreateNetwork defines a network. At least one subnet must be given.
type CreateNetwork struct {
	Name    string `json:"name"`
	Subnet  string `json:"subnet,omitempty"`  // IPv4 CIDR: the pool of VIPs
	Subnet6 string `json:"subnet6,omitempty"` // IPv6 CIDR, at most /64
}

// Network is one network as this node sees it.
type Network struct {
	Name     string       `json:"name"`
	Subnet   netip.Prefix `json:"subnet,omitzero"`
	Subnet6  netip.Prefix `json:"subnet6,omitzero"`
	Joined   bool         `json:"joined"` // this node takes part and holds the table; else the counts are unknown
	Nodes    []string     `json:"nodes"`  // that take part, sorted
	Services int          `json:"services"`
	Tasks    int          `json:"tasks"`
	Conflict string       `json:"conflict,omitempty"` // what is wrong with the definition (V6)
	// of a creation of what was there: what stands against its pools, on which node
	Against []string `json:"against,omitempty"`
	// of a creation: live nodes that did not say whether the pools are free there
	Silent []string `json:"silent,omitempty"`
}

// NetworkDetail is Network with what only inspection shows.
type NetworkDetail struct {
	Network
	Birth       uint64    `json:"birth"` // Lamport time of the creation
	Synced      bool      `json:"synced"`
	Checksum    string    `json:"checksum,omitempty"`
	VIPsUsed    int       `json:"vips_used"`
	VIPsFree    uint64    `json:"vips_free"` // of the IPv4 pool
	Streams     []Stream  `json:"streams"`   // sorted by owner
	ServiceList []Service `json:"service_list"`
	Warnings    []string  `json:"warnings"`
}

// Stream is what this node holds of one owner in one network (S2).
type Stream struct {
	Owner       string `json:"owner"`
	Incarnation uint64 `json:"incarnation"`
	Version     uint64 `json:"version"`
	Floor       uint64 `json:"floor"`
	Entries     int    `json:"entries"`
	State       string `json:"state"` // of the owner: NodeAlive, ...
}

// AddTask registers a task. The names are those of the flags of
// "meshctl task add".
type AddTask struct {
	Network   string   `json:"network"`
	Service   string   `json:"service"`
	ID        string   `json:"id,omitempty"` // empty: the node generates one
	Slot      uint32   `json:"slot,omitempty"`
	IPs       []string `json:"ips"`             // one, or one IPv4 and one IPv6
	Ports     []string `json:"ports,omitempty"` // [NAME:]PORT[/tcp|udp]; none: all ports
	Mode      string   `json:"mode,omitempty"`  // vip or dnsrr; empty: as the service is, vip if it is new
	Aliases   []string `json:"aliases,omitempty"`
	Hostname  string   `json:"hostname,omitempty"`
	Name      string   `json:"name,omitempty"`      // container name
	Weight    uint16   `json:"weight,omitempty"`    // 0: 1
	VIPs      []string `json:"vips,omitempty"`      // pins the service's VIP: one, or one IPv4 and one IPv6
	Scheduler string   `json:"scheduler,omitempty"` // of Schedulers; empty: as the service is, wrr if it is new
	TTL       string   `json:"ttl,omitempty"`       // of the service's DNS answers, 1s to 1h; empty: as the service is
}

// TaskAdded is the reply to AddTask.
type TaskAdded struct {
	Task     Task         `json:"task"`
	VIPs     []netip.Addr `json:"vips"` // of the service; none in dnsrr mode
	Mode     string       `json:"mode"` // in which the service is answered now
	Warnings []string     `json:"warnings"`
}

// TaskRef names a task. Network may be empty if the id is unique on this node.
type TaskRef struct {
	ID      string `json:"id"`
	Network string `json:"network,omitempty"`
}

// TaskFilter selects tasks. Empty fields select all.
type TaskFilter struct {
	Network string
	Service string
	All     bool // of every node, not only of this one
}

// Task is one task as this node sees it.
type Task struct {
	ID       string       `json:"id"`
	Network  string       `json:"network"`
	Service  string       `json:"service"`
	Slot     uint32       `json:"slot,omitempty"`
	TaskName string       `json:"task_name"`      // <service>.<slot>.<id>, which resolves
	Name     string       `json:"name,omitempty"` // container name
	Hostname string       `json:"hostname,omitempty"`
	Aliases  []string     `json:"aliases,omitempty"`
	IPs      []netip.Addr `json:"ips"`
	Ports    []string     `json:"ports,omitempty"`
	Weight   uint16       `json:"weight"`
	Health   string       `json:"health"` // passing, starting, failing
	State    string       `json:"state"`  // serving, suspect, draining, unready, hidden
	Node     string       `json:"node"`
	Reason   string       `json:"reason,omitempty"` // of a hidden one whose node lives: why it is not served
}

// SetService changes a service's settings; what is empty stays as it is.
type SetService struct {
	Mode      string `json:"mode,omitempty"`      // vip or dnsrr
	Scheduler string `json:"scheduler,omitempty"` // of Schedulers
	TTL       string `json:"ttl,omitempty"`       // of the DNS answers, 1s to 1h; "default": each node's own
}

// ServiceRef names a service.
type ServiceRef struct {
	Network string
	Name    string
}

// Service is one service as this node sees it.
type Service struct {
	Name      string       `json:"name"`
	Network   string       `json:"network"`
	Mode      string       `json:"mode"` // as asked for: vip or dnsrr
	VIPs      []netip.Addr `json:"vips"`
	OtherVIPs []netip.Addr `json:"other_vips,omitempty"` // still served during a move (V5)
	Ports     []string     `json:"ports"`
	Scheduler string       `json:"scheduler"`
	Affinity  int64        `json:"affinity_ms,omitempty"`
	Drain     int64        `json:"drain_ms,omitempty"` // 0: the node's default
	TTL       int64        `json:"ttl_s,omitempty"`    // of DNS answers; 0: each node's default
	Aliases   []string     `json:"aliases,omitempty"`
	Tasks     TaskCount    `json:"tasks"`
	Degraded  string       `json:"degraded,omitempty"` // why a vip service is answered like dnsrr (R5, V7)
	Conflict  string       `json:"conflict,omitempty"` // what is wrong, for people
}

// TaskCount counts tasks per state.
type TaskCount struct {
	Serving  int `json:"serving"`
	Suspect  int `json:"suspect"`
	Draining int `json:"draining"`
	Unready  int `json:"unready"`
}

// ServiceDetail is Service with what only inspection shows.
type ServiceDetail struct {
	Service
	Claims   []Claim  `json:"claims"` // on the VIPs, the winner first
	Names    []string `json:"names"`  // under which it resolves
	TaskList []Task   `json:"task_list"`
	Warnings []string `json:"warnings"`
}

// Claim is one node's claim on a VIP (V2).
type Claim struct {
	VIP    netip.Addr `json:"vip"`
	Node   string     `json:"node"` // that carries it
	Pinned bool       `json:"pinned,omitempty"`
	Birth  uint64     `json:"birth"`
	Wins   bool       `json:"wins"`
}

// ResolveRequest asks how a name resolves in a network.
type ResolveRequest struct {
	Name    string
	Network string
	Type    string // A, AAAA, SRV, PTR, ANY; empty: A and AAAA
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
