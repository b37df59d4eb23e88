package control

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meshd/state"
)

// This file has all that the API knows of a service: its settings, how they are
// checked, and how a service is shown. A new setting is added here.

// SetService changes a service's settings; what is empty stays as it is, or is
// the default where the service is new. The names are those of the flags of
// "meshctl service set" and "meshctl task add".
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
	// Which service it is, and at which addresses it is reached.

	// Name is the service's name, in lower case.
	Name string `json:"name"`
	// Network is the network in which it resolves.
	Network string `json:"network"`
	// Mode is vip or dnsrr, as asked for. Degraded says if it is answered otherwise.
	Mode string `json:"mode"`
	// VIPs are its addresses, of the families of its tasks; none in dnsrr mode.
	VIPs []netip.Addr `json:"vips"`
	// OtherVIPs are addresses that are served beside VIPs during a move (V5).
	OtherVIPs []netip.Addr `json:"other_vips,omitempty"`
	// Ports are those that its tasks declare, as [NAME:]PORT/PROTO; where each task listens,
	// the tasks say.
	Ports []string `json:"ports"`

	// Settings, the same on every node.

	// Scheduler is how backends are picked (L6), as asked for; the driver may run another.
	Scheduler string `json:"scheduler"`
	// Affinity is how long a client stays with its backend, in milliseconds; 0 is not at all.
	Affinity int64 `json:"affinity_ms,omitempty"`
	// Drain is how long a removed backend may finish its connections, in
	// milliseconds; 0 is the node's default.
	Drain int64 `json:"drain_ms,omitempty"`
	// TTL is that of DNS answers, in seconds; 0 is each node's default.
	TTL int64 `json:"ttl_s,omitempty"`

	// What it consists of.

	// Aliases are its further names, sorted.
	Aliases []string `json:"aliases,omitempty"`
	// Tasks counts its tasks per state.
	Tasks TaskCount `json:"tasks"`

	// What is wrong, for people.

	// Degraded says why a vip service is answered like dnsrr (R5, V7).
	Degraded string `json:"degraded,omitempty"`
	// Panic says that no task is healthy, so that the failing ones are served (C8).
	Panic string `json:"panic,omitempty"`
	// Conflict says what of its settings or addresses is claimed twice.
	Conflict string `json:"conflict,omitempty"`
}

// panicText is said of a service that has nothing but failing tasks.
const panicText = "no task is healthy: the failing ones are served"

// TaskCount counts tasks per state.
type TaskCount struct {
	Serving  int `json:"serving"`
	Suspect  int `json:"suspect"`
	Failing  int `json:"failing"`
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

// Apply returns the settings with what the request changes. The error is an
// *Error of CodeInvalid that names the field and the fix.
func (r SetService) Apply(s state.Settings) (state.Settings, error) {
	if r == (SetService{}) {
		return s, invalid("mode", "give a mode, a scheduler or a TTL", "the request changes nothing")
	}
	return r.apply(s)
}

// apply is Apply for a request that need not change anything.
func (r SetService) apply(s state.Settings) (state.Settings, error) {
	if r.Mode != "" {
		mode, err := state.ParseMode(strings.ToLower(r.Mode))
		if err != nil {
			return s, invalid("mode", "vip gives the service a stable virtual IP, dnsrr answers with the task addresses",
				"%q is not vip or dnsrr", r.Mode)
		}
		s.Mode = mode
	}
	if r.Scheduler != "" {
		s.Scheduler = strings.ToLower(r.Scheduler)
		if !slices.Contains(Schedulers(), s.Scheduler) {
			return s, invalid("scheduler", "use one of "+strings.Join(Schedulers(), ", "), "%q is not known", r.Scheduler)
		}
	}
	if r.TTL != "" {
		var err error
		if s.TTL, err = parseTTL(r.TTL); err != nil {
			return s, err
		}
	}
	return s, nil
}

// parseTTL reads the TTL of a service's DNS answers; "default" is 0.
func parseTTL(s string) (time.Duration, error) {
	if s == "default" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second || d > state.MaxTTL || d%time.Second != 0 {
		return 0, invalid("ttl", "write whole seconds from 1s to 1h, for example 2s", "%q is not a TTL of DNS answers", s)
	}
	return d, nil
}

// FromService describes a service of the table. The caller fills Degraded: the
// table does not know whether a VIP is served.
func FromService(s *state.Service) Service {
	out := Service{
		Name: s.Name, Network: s.Network, Mode: s.Mode.String(), Scheduler: cmp.Or(s.Scheduler, state.DefaultScheduler),
		VIPs: addrs(s.VIP4, s.VIP6), OtherVIPs: slices.Clone(s.OtherVIPs), Ports: portStrings(s.Ports),
		Affinity: s.Affinity.Milliseconds(), Drain: s.Drain.Milliseconds(), TTL: int64(s.TTL / time.Second),
		Aliases: slices.Clone(s.Aliases), Conflict: s.Conflict,
	}
	out.Tasks = TaskCount{
		Serving: int(s.Count[state.Serving]), Suspect: int(s.Count[state.Suspect]),
		Failing: int(s.Count[state.Failing]), Draining: int(s.Count[state.Draining]), Unready: int(s.Count[state.Unready]),
	}
	if s.Panicking() {
		out.Panic = panicText
	}
	return out
}
