package control

import (
	"net/netip"
	"strings"

	"meshd/state"
)

// CreateNetwork defines a network. At least one subnet must be given.
type CreateNetwork struct {
	Name    string `json:"name"`
	Subnet  string `json:"subnet,omitempty"`  // IPv4 CIDR: the pool of VIPs
	Subnet6 string `json:"subnet6,omitempty"` // IPv6 CIDR, at most /64
}

// Network is one network as this node sees it.
type Network struct {
	// The definition (V6).

	// Name is the network's name, in lower case.
	Name string `json:"name"`
	// Subnet is the IPv4 pool of VIPs; absent if there is none.
	Subnet netip.Prefix `json:"subnet,omitzero"`
	// Subnet6 is the IPv6 pool of VIPs; absent if there is none.
	Subnet6 netip.Prefix `json:"subnet6,omitzero"`

	// Who participates, and what is in the table. Without Joined, the counts
	// are unknown, and 0.

	// Joined says that this node participates and carries the table.
	Joined bool `json:"joined"`
	// Nodes are the participants, sorted.
	Nodes []string `json:"nodes"`
	// Services is how many services the network has.
	Services int `json:"services"`
	// Tasks is how many tasks the network has.
	Tasks int `json:"tasks"`

	// What is wrong, for people.

	// Conflict is what is wrong with the definition, or keeps the pool from being
	// served on this node.
	Conflict string `json:"conflict,omitempty"`
	// Against answers the creation of a network that exists already: what stands
	// against its pools, and on which node.
	Against []string `json:"against,omitempty"`
	// Silent answers a creation: the live nodes that did not say whether the pools
	// are free there.
	Silent []string `json:"silent,omitempty"`
}

// NetworkDetail is Network with what only inspection shows.
type NetworkDetail struct {
	Network

	// Birth is the Lamport time of the network's creation (S8).
	Birth uint64 `json:"birth"`
	// Synced says that the first full exchange with a peer is done.
	Synced bool `json:"synced"`
	// Checksum is that of the table, 16 hex digits; empty without a table.
	Checksum string `json:"checksum,omitempty"`
	// VIPsUsed is how many addresses of the IPv4 pool are claimed, served or not.
	VIPsUsed int `json:"vips_used"`
	// VIPsFree is how many addresses of the IPv4 pool are left.
	VIPsFree uint64 `json:"vips_free"`
	// Streams is what this node holds per owner, sorted by owner.
	Streams []Stream `json:"streams"`
	// ServiceList are the services of the network.
	ServiceList []Service `json:"service_list"`
	// Warnings are what works less well than it could, for people.
	Warnings []string `json:"warnings"`
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

// Parse checks the request and converts it. The error is an *Error of
// CodeInvalid that names the field and the fix. The caller fills Birth.
func (r CreateNetwork) Parse() (state.NetworkDef, error) {
	def := state.NetworkDef{Name: strings.ToLower(r.Name)}
	if err := CheckName("name", def.Name); err != nil {
		return state.NetworkDef{}, err
	}
	if r.Subnet == "" && r.Subnet6 == "" {
		return state.NetworkDef{}, invalid("subnet",
			"give the pool of virtual IPs, for example 10.9.0.0/16, in subnet or subnet6", "a network needs a subnet")
	}
	var err error
	if def.Subnet4, err = parsePool("subnet", r.Subnet, state.IPv4); err != nil {
		return state.NetworkDef{}, err
	}
	if def.Subnet6, err = parsePool("subnet6", r.Subnet6, state.IPv6); err != nil {
		return state.NetworkDef{}, err
	}
	return def, nil
}

// parsePool reads a pool that may be left out.
func parsePool(field, s string, f state.Family) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	p, err := state.ParsePool(s, f)
	if err != nil {
		return netip.Prefix{}, invalidValue(field, err)
	}
	return p, nil
}
