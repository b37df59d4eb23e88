package lb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// Driver programs one network namespace of one kernel. It is used by one
// goroutine at a time. Every operation is idempotent, and a driver touches
// only what it made: services whose address lies in its pools (L1).
type Driver interface {
	// Name returns the driver's name: "ipvs" or "nft".
	Name() string
	// Probe reports whether this kernel and these privileges suffice, without
	// leaving anything behind. The error says what is missing and how to get it;
	// it wraps ErrUnsupported unless asking again may help (L7).
	Probe(ctx context.Context) error
	// Setup creates or repairs what does not depend on pools and services, and
	// adopts what a previous run left. It does not disturb traffic. An error
	// that wraps ErrUnsupported means that another driver should be tried.
	Setup(ctx context.Context) error
	// Apply carries out ops in order. It returns nil if all succeeded, else one
	// error (or nil) per operation: a failing operation does not keep others
	// from being applied, but for DelService after a failure of that service.
	Apply(ctx context.Context, ops []Op) []error
	// Snapshot reads back what the kernel holds in our pools, whoever wrote it: all
	// of a service but its labels, which are empty. The result is the caller's.
	Snapshot(ctx context.Context) (*Table, error)
	// Check compares what is beside the services (sysctls, tables, rules, sets,
	// routes) with what the driver left there, and returns what differs. It
	// changes nothing, and its cost does not grow with the services. Setup and
	// Snapshot repair what it finds. The error says that the kernel could not be
	// asked; it wraps ErrDrift if Setup and Snapshot are needed.
	Check(ctx context.Context) ([]Finding, error)
	// Usage returns counters of the services, in one pass over what the kernel
	// has. What each counter means is the driver's to document.
	Usage(ctx context.Context, keys []Key) (map[Key]Usage, error)
	// Remnants lists everything of ours in the kernel, also what another process
	// left, without Setup and without changing anything. What a kernel cannot
	// hold is not there: no error.
	Remnants(ctx context.Context) ([]Remnant, error)
	// Teardown removes everything of ours, and nothing else. It needs no Setup,
	// does not change sysctls, and finding nothing is no error.
	Teardown(ctx context.Context) error
	// Close releases the driver's sockets. The kernel keeps balancing.
	Close() error
}

// Watchful is implemented by drivers that can tell cheaply whether anybody changed
// the kernel's services.
type Watchful interface {
	// Untouched reports whether nobody else has changed what Snapshot would read
	// since the driver last wrote or read it. False also means that it is not known.
	Untouched(ctx context.Context) bool
}

// Numbered is implemented by drivers whose kernel numbers the changes of what
// Check looks at, or of a part of it.
type Numbered interface {
	// Number returns a number other than 0 that differs after each such change,
	// whoever made it. It costs one short question to the kernel.
	Number(ctx context.Context) (uint64, error)
}

// Imitator is implemented by drivers whose kernel does not have every scheduler.
type Imitator interface {
	// RunsAs returns the name of the scheduler that the kernel really uses for s.
	RunsAs(s *Service) string
}

// Traffic is what a driver counts of a service or a backend since the kernel's
// entry was made. A figure below 0 is not counted; bytes are those of the packets
// counted.
type Traffic struct {
	Connections          int64 // new connections
	PacketsIn, BytesIn   int64 // from clients
	PacketsOut, BytesOut int64 // to clients
}

// NoTraffic returns a Traffic in which nothing is counted.
func NoTraffic() Traffic { return Traffic{-1, -1, -1, -1, -1} }

// Usage is what a driver can count of one service.
type Usage struct {
	Traffic

	Backends map[netip.AddrPort]BackendUsage
}

// BackendUsage is what a driver can count of one backend.
type BackendUsage struct {
	Traffic

	Active int // connections that the kernel tracks now
}

// ErrUnsupported is wrapped by Probe when this kernel or these privileges
// cannot do it at all.
var ErrUnsupported = errors.New("not supported here")

// ErrDrift is wrapped by errors of Check and Apply after which Setup and Snapshot
// are needed, since somebody else changed what is ours or the kernel stopped
// answering.
var ErrDrift = errors.New("kernel state is not as we left it")

// Refusal says why a driver was not chosen.
type Refusal struct {
	Driver string
	Reason string
}

// chooseDriver returns the first driver whose Probe succeeds (L7), and why those
// before it were refused. If none succeeds, the driver is nil: the daemon goes on
// without load balancing and answers vip services like dnsrr (R5).
func chooseDriver(ctx context.Context, drivers []Driver) (Driver, []Refusal) {
	var refused []Refusal
	for _, d := range drivers {
		err := d.Probe(ctx)
		if err == nil {
			return d, refused
		}
		refused = append(refused, Refusal{Driver: d.Name(), Reason: err.Error()})
	}
	return nil, refused
}

// errorAt returns the error of operation i in the result of Driver.Apply.
func errorAt(errs []error, i int) error {
	if i < len(errs) {
		return errs[i]
	}
	return nil
}

// firstError returns the first error with its operation's name, or nil.
func firstError(ops []Op, errs []error) error {
	for i, op := range ops {
		if err := errorAt(errs, i); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	return nil
}
