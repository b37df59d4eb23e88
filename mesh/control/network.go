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

// Parse checks the request and converts it. The error is an *Error of
// CodeInvalid that names the field and the fix. Birth is the caller's to fill.
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
