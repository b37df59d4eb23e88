package control

import (
	"net/netip"
	"strings"
	"time"

	"meshd/state"
)

// Schedulers are the names that a service's scheduler can have (L6).
func Schedulers() []string { return state.Schedulers() }

// LBRequest asks for a load balancer's table. Empty fields mean all, but for
// Sandbox: empty means the host.
type LBRequest struct {
	Network string
	Service string
	Sandbox string
}

// LBTable is the desired load balancer table beside the actual one.
type LBTable struct {
	Sandbox string `json:"sandbox,omitempty"` // empty: the host
	Driver  string `json:"driver"`            // ipvs, nft, none
	Why     string `json:"why"`               // why this driver
	// every service is ok or drains; of the whole table, whatever was asked for
	InSync     bool        `json:"in_sync"`
	LastApply  time.Time   `json:"last_apply,omitzero"`
	LastError  string      `json:"last_error,omitempty"`
	Pending    int         `json:"pending"`              // services with failed operations, which are tried again
	Draining   int         `json:"draining"`             // backends that wait for their connections to end
	LastVerify LBReport    `json:"last_verify,omitzero"` // without its differences
	Services   []LBService `json:"services"`
}

// The states of LBService and LBBackend.
const (
	LBOK       = "ok"       // as desired
	LBMissing  = "missing"  // desired, not there
	LBExtra    = "extra"    // there, not desired
	LBDiffers  = "differs"  // there, with other settings
	LBDraining = "draining" // no new connections, then removed; of a service: nothing else differs
)

// LBService is one virtual service.
type LBService struct {
	Network   string      `json:"network"`
	Service   string      `json:"service"`
	VIP       netip.Addr  `json:"vip"`
	Port      string      `json:"port"`              // PORT/PROTO; "all/PROTO" for a service without declared ports
	Scheduler string      `json:"scheduler"`         // as asked for
	RunsAs    string      `json:"runs_as,omitempty"` // the one that picks in effect, where the driver has no other
	State     string      `json:"state"`             // LBOK, ...
	Error     string      `json:"error,omitempty"`   // of the latest attempt to program it
	Counters  Counters    `json:"counters"`
	Backends  []LBBackend `json:"backends"`
}

// LBBackend is one task behind a virtual service.
type LBBackend struct {
	Task     string         `json:"task"`                // its id; empty if it is not a task that we know
	TaskName string         `json:"task_name,omitempty"` // SERVICE.SLOT.ID, or its own
	Node     string         `json:"node"`
	Address  netip.AddrPort `json:"address"`        // port 0: the same as the client's
	Desired  int            `json:"desired"`        // weight; -1: not desired
	Actual   int            `json:"actual"`         // weight; -1: not there
	State    string         `json:"state"`          // LBOK, ...
	Until    time.Time      `json:"until,omitzero"` // of a drain: when it ends at the latest
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

// LBVerifyRequest asks to compare the kernel with what should be in it.
type LBVerifyRequest struct {
	Sandbox    string `json:"sandbox,omitempty"`     // only this one; empty: the host and all sandboxes
	Host       bool   `json:"host,omitempty"`        // only the host
	ReportOnly bool   `json:"report_only,omitempty"` // repair nothing
}

// Check reports what is wrong with the request, as an *Error of CodeInvalid.
func (r LBVerifyRequest) Check() error {
	if r.Sandbox != "" && r.Host {
		return invalid("host", "name the sandbox, or the host, or neither for all", "a sandbox is named too")
	}
	return checkSandbox(r.Sandbox)
}

// Check reports what is wrong with the request, as an *Error of CodeInvalid.
func (r LBRequest) Check() error {
	if r.Network != "" {
		if err := CheckName("network", r.Network); err != nil {
			return err
		}
	}
	if r.Service != "" {
		if err := CheckName("service", r.Service); err != nil {
			return err
		}
	}
	return checkSandbox(r.Sandbox)
}

// checkSandbox checks the form of a sandbox's name; empty is fine.
func checkSandbox(name string) error {
	const longest = 253
	if len(name) > longest || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' || c == '/' }) {
		return invalid("sandbox", `"meshctl sandbox ls" lists the names`, "%.300q cannot be a sandbox's name", name)
	}
	return nil
}

// LBVerifyReply is the outcome of a comparison.
type LBVerifyReply struct {
	InSync  bool       `json:"in_sync"` // every report says so
	Reports []LBReport `json:"reports"` // the host's first, then those of sandboxes by name
}

// The results of LBReport.
const (
	LBInSync = "in-sync" // nothing differed, nothing is pending
	LBDrift  = "drift"   // somebody else changed what is listed
	LBBehind = "pending" // nothing differed, but operations have failed and are tried again
	LBFailed = "error"   // it could not be compared
)

// LBReport is one comparison of a load balancer with its kernel.
type LBReport struct {
	Sandbox     string         `json:"sandbox,omitempty"` // empty: the host
	Driver      string         `json:"driver"`
	At          time.Time      `json:"at"`
	TookMillis  float64        `json:"took_ms"`
	Result      string         `json:"result"`   // LBInSync, ...
	Full        bool           `json:"full"`     // services were read back, not only what is beside them
	Services    int            `json:"services"` // read back
	Backends    int            `json:"backends"` // read back
	Pending     int            `json:"pending"`  // services with failed operations
	Found       int            `json:"found"`    // differences; more than are listed if they are very many
	Repaired    int            `json:"repaired"` // of those that are listed
	Differences []LBDifference `json:"differences"`
	Error       string         `json:"error,omitempty"`
}

// IsZero reports that there was no comparison yet.
func (r LBReport) IsZero() bool { return r.At.IsZero() }

// LBDifference is one difference between what the daemon left in the kernel
// and what is there.
type LBDifference struct {
	Area     string `json:"area"` // sysctl, table, rule, set, mark, route, service, backend
	Kind     string `json:"kind"` // missing, extra, changed
	What     string `json:"what"` // for people
	Found    string `json:"found,omitempty"`
	Want     string `json:"want,omitempty"`
	Repaired bool   `json:"repaired"`
	Note     string `json:"note,omitempty"` // what became of it
}

// LBHealth sums a load balancer up.
type LBHealth struct {
	Sandbox string `json:"sandbox,omitempty"` // empty: the host
	Driver  string `json:"driver"`
	Why     string `json:"why"` // why this driver
	// nothing is pending, and the latest comparison found nothing that is not repaired
	InSync     bool      `json:"in_sync"`
	Services   int       `json:"services"` // in the kernel
	Desired    int       `json:"desired"`  // that should be
	Pending    int       `json:"pending"`
	Draining   int       `json:"draining"` // backends
	LastError  string    `json:"last_error,omitempty"`
	LastVerify time.Time `json:"last_verify,omitzero"`
	LastResult string    `json:"last_result,omitempty"` // LBInSync, ...
}
