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
	// Which load balancer it is.

	// Sandbox is the name of the sandbox; empty is the host.
	Sandbox string `json:"sandbox,omitempty"`
	// Driver is ipvs, nft or none.
	Driver string `json:"driver"`
	// Why says why this driver was chosen, for people.
	Why string `json:"why"`

	// How the whole table is, whatever part of it was asked for.

	// InSync says that every service is ok or drains, and nothing failed.
	InSync bool `json:"in_sync"`
	// LastApply is when the kernel was last changed; absent: never.
	LastApply time.Time `json:"last_apply,omitzero"`
	// LastError is what the latest attempt failed with; empty: it did not.
	LastError string `json:"last_error,omitempty"`
	// Pending is how many services have failed operations, which are tried again.
	Pending int `json:"pending"`
	// Draining is how many backends wait for their connections to end.
	Draining int `json:"draining"`
	// LastVerify is the latest comparison with the kernel, without its differences.
	LastVerify LBReport `json:"last_verify,omitzero"`

	// Services are those that were asked for.
	Services []LBService `json:"services"`
}

// The states of LBService and LBBackend.
const (
	LBOK       = "ok"       // as desired
	LBMissing  = "missing"  // desired, not there
	LBExtra    = "extra"    // there, not desired
	LBDiffers  = "differs"  // there, with other settings
	LBDraining = "draining" // no new connections, then removed; of a service: nothing else differs
)

// LBService is one virtual service: a VIP at one port.
type LBService struct {
	// What it serves, and where.

	// Network is the network of the service.
	Network string `json:"network"`
	// Service is the name of the service.
	Service string `json:"service"`
	// VIP is the address that clients connect to.
	VIP netip.Addr `json:"vip"`
	// Port is PORT/PROTO, or all/PROTO for a service without declared ports.
	Port string `json:"port"`

	// How it balances.

	// Scheduler is the one that was asked for (L6).
	Scheduler string `json:"scheduler"`
	// RunsAs is what picks in effect, where the driver has no such scheduler.
	RunsAs string `json:"runs_as,omitempty"`

	// How it is.

	// State is LBOK, LBMissing, LBExtra, LBDiffers or LBDraining.
	State string `json:"state"`
	// Error is what the latest attempt to program it failed with; empty: it did not.
	Error string `json:"error,omitempty"`
	// Counters are the service's totals.
	Counters Counters `json:"counters"`
	// Backends are its tasks.
	Backends []LBBackend `json:"backends"`
}

// LBBackend is one task behind a virtual service.
type LBBackend struct {
	// Which task it is.

	// Task is the task's id; empty if it is no task that this node knows.
	Task string `json:"task"`
	// TaskName is that of the task, as Task.TaskName; empty without Task.
	TaskName string `json:"task_name,omitempty"`
	// Node is the one that runs the task.
	Node string `json:"node"`
	// Address is where packets go; port 0 is the port that the client asked for.
	Address netip.AddrPort `json:"address"`

	// How it is balanced.

	// Desired is its weight as planned; -1: it should not be there.
	Desired int `json:"desired"`
	// Actual is its weight in the kernel; -1: it is not there.
	Actual int `json:"actual"`
	// State is LBOK, LBMissing, LBExtra, LBDiffers or LBDraining.
	State string `json:"state"`
	// Until is when a drain ends at the latest; absent without one.
	Until time.Time `json:"until,omitzero"`
	// Counters are the backend's own.
	Counters Counters `json:"counters"`
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
	LBDrift  = "drift"   // another program changed what is listed
	LBBehind = "pending" // nothing differed, but operations have failed and are tried again
	LBFailed = "error"   // it could not be compared
)

// LBReport is one comparison of a load balancer with its kernel.
type LBReport struct {
	// What was compared.

	// Sandbox is the name of the sandbox; empty is the host.
	Sandbox string `json:"sandbox,omitempty"`
	// Driver is ipvs, nft or none.
	Driver string `json:"driver"`
	// At is when the comparison began.
	At time.Time `json:"at"`
	// TookMillis is how long it took, in milliseconds.
	TookMillis float64 `json:"took_ms"`

	// What came of it.

	// Result is LBInSync, LBDrift, LBBehind or LBFailed.
	Result string `json:"result"`
	// Full says that services were read back, not only what is beside them.
	Full bool `json:"full"`
	// Services is how many services were read back.
	Services int `json:"services"`
	// Backends is how many backends were read back.
	Backends int `json:"backends"`
	// Pending is how many services have failed operations.
	Pending int `json:"pending"`
	// Found is how many differences there were. It is more than len(Differences)
	// where they are very many.
	Found int `json:"found"`
	// Repaired is how many of Differences were repaired.
	Repaired int `json:"repaired"`
	// Differences are at most 1000.
	Differences []LBDifference `json:"differences"`
	// Error says why it could not be compared; empty unless Result is LBFailed.
	Error string `json:"error,omitempty"`
}

// IsZero reports that there was no comparison yet.
func (r LBReport) IsZero() bool { return r.At.IsZero() }

// LBDifference is one difference between what the daemon left in the kernel
// and what is there.
type LBDifference struct {
	Area     string `json:"area"` // sysctl, table, rule, set, mark, route, service, backend
	Kind     string `json:"kind"` // missing, extra, changed
	What     string `json:"what"` // which object, for people
	Found    string `json:"found,omitempty"`
	Want     string `json:"want,omitempty"`
	Repaired bool   `json:"repaired"`
	Outcome  string `json:"note,omitempty"` // what was done about it, for people
}

// LBHealth sums a load balancer up.
type LBHealth struct {
	// Which load balancer it is.

	// Sandbox is the name of the sandbox; empty is the host.
	Sandbox string `json:"sandbox,omitempty"`
	// Driver is ipvs, nft or none.
	Driver string `json:"driver"`
	// Why says why this driver was chosen, for people.
	Why string `json:"why"`

	// How far the kernel is what it should be.

	// InSync says that nothing is pending, and that the latest comparison left
	// nothing unrepaired.
	InSync bool `json:"in_sync"`
	// Services is how many services are in the kernel.
	Services int `json:"services"`
	// Desired is how many services should be there.
	Desired int `json:"desired"`
	// Pending is how many services have failed operations, which are tried again.
	Pending int `json:"pending"`
	// Draining is how many backends wait for their connections to end.
	Draining int `json:"draining"`
	// LastError is what the latest attempt failed with; empty: it did not.
	LastError string `json:"last_error,omitempty"`

	// The latest comparison with the kernel; absent before the first.

	// LastVerify is when it was.
	LastVerify time.Time `json:"last_verify,omitzero"`
	// LastResult is LBInSync, LBDrift, LBBehind or LBFailed.
	LastResult string `json:"last_result,omitempty"`
}
