// Package state is the replicated table of meshd, one per network, and the views
// derived from it. It is pure: no I/O, no clock, no log, no goroutine. Where a rule
// needs the time, the caller passes it.
//
// # Writing
//
// A [Store] holds the tables of one node, and belongs to one goroutine. A [Table] is
// composed of parts: a set of streams, one for each owner ([Head] says how far each
// is known); the writer of this node's own stream ([Table.Commit]); the replicas of
// the others, which deltas from peers move ([Table.Apply], [Table.Delta],
// [Table.Want]); and the index, which [Table.Publish] makes visible. Entries never
// change. What changes about a record is in its slot, which the index owns.
//
// # Reading
//
// A [Source] gives the [View] of each network. Views, services and entries are safe
// for concurrent use, and immutable where they are values; a lookup of a service takes
// no lock. A reader that has to follow changes compares [View.Changes] or subscribes.
//
// # Deciding
//
// A [Carrier] decides which addresses and settings this node claims for its services.
// It reads a table and returns changes. [Definitions] are what the statements about
// networks come to. Both are pure functions of what is stated, so that all nodes with
// the same tables decide alike.
//
// The rules are S1–S20 and V1–V12 of docs/DESIGN.md.
package state

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// NodeID is the unique, persistent name of a node.
type NodeID string

// Mode says how a service name is answered.
type Mode uint8

// The modes of a service. ModeVIP is the default.
const (
	ModeVIP   Mode = iota // the name answers with the service's stable virtual IP
	ModeDNSRR             // the name answers with the addresses of the tasks
)

// String returns "vip" or "dnsrr".
func (m Mode) String() string {
	if m == ModeDNSRR {
		return "dnsrr"
	}
	return "vip"
}

// ParseMode reads "vip" or "dnsrr"; the empty string is ModeVIP.
func ParseMode(s string) (Mode, error) {
	switch s {
	case "", "vip":
		return ModeVIP, nil
	case "dnsrr":
		return ModeDNSRR, nil
	}
	return 0, fmt.Errorf("mode %q: use vip or dnsrr", s)
}

// Health is the owner's judgement of an endpoint.
type Health uint8

// The health of an endpoint. HealthFailing ones are served only where no other one is (C8).
const (
	HealthPassing  Health = iota // serve it
	HealthStarting               // not yet checked: do not serve
	HealthFailing                // checked and failed, after it had passed
)

// String returns "passing", "starting" or "failing".
func (h Health) String() string {
	switch h {
	case HealthPassing:
		return "passing"
	case HealthStarting:
		return "starting"
	}
	return "failing"
}

// Endpoint is one task as its owner states it: the decoded form, for writers
// and for people. Readers on a hot path use Entry.
type Endpoint struct {
	// Who it is.
	ID      string // unique in the network; chosen by the owner or the user
	Service string // the service that it is a task of
	Slot    uint32 // its number in the service; 0: none
	Owner   NodeID // filled on reading; not part of the record

	// How it is found.
	Name     string     // container name; empty: "<service>.<slot>.<id>"
	Hostname string     // host name; empty: none
	Aliases  []string   // extra names of the service
	IP4, IP6 netip.Addr // one at least; zero: none of the family
	Ports    []Port     // where it listens, no port twice; none: at all ports of its service

	// How it is served.
	Weight   uint16 // relative share of new connections, 1..65535; 0 is read as 1
	Health   Health // as its owner found it
	Draining bool   // no new connections; existing ones may finish

	strange bool // has ports of protocols that this version does not know, which are left out
}

// TaskName returns the name under which this very task resolves:
// "<service>.<slot>.<id>", or "<service>.<id>" without a slot.
func (e *Endpoint) TaskName() string {
	if e.Slot == 0 {
		return e.Service + "." + e.ID
	}
	return fmt.Sprintf("%s.%d.%s", e.Service, e.Slot, e.ID)
}

// Limits of names and counts in one endpoint (S13, G7).
const (
	MaxLabel   = 63  // RFC 1035 §2.3.4
	MaxName    = 253 // RFC 1035 §2.3.4, presentation form
	MaxAliases = 32
	MaxPorts   = 64
	MaxTTL     = time.Hour // of a service's DNS answers: clients would keep dead addresses for longer

	MaxDrain    = time.Hour      // of a service: the connections of a task that goes away may last so long
	MaxAffinity = 24 * time.Hour // of a service
)

// DefaultScheduler is the scheduler of a service that names none: weighted round
// robin, since IPVS's rr ignores weights (L6).
const DefaultScheduler = "wrr"

// Schedulers returns the names that a service's scheduler can have (L6): the
// kernel is asked for no other.
func Schedulers() []string { return slices.Clone(schedulers) }

// IsScheduler reports whether Schedulers has the name.
func IsScheduler(name string) bool { return slices.Contains(schedulers, name) }

var schedulers = []string{"rr", "wrr", "lc", "wlc", "sh", "mh", "sed", "nq"}

// ErrInvalid is wrapped by every error about bad input to this package.
var ErrInvalid = errors.New("invalid")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// Normalize lower-cases the names of e and sets defaults, in place.
func (e *Endpoint) Normalize() {
	e.Service, e.Name, e.Hostname = strings.ToLower(e.Service), strings.ToLower(e.Name), strings.ToLower(e.Hostname)
	e.ID = strings.ToLower(e.ID)
	for i := range e.Aliases {
		e.Aliases[i] = strings.ToLower(e.Aliases[i])
	}
	if e.Weight == 0 {
		e.Weight = 1
	}
}

// Validate reports the first thing that is wrong with e, as a *FieldError.
func (e *Endpoint) Validate() error {
	if err := checkLabel(e.ID); err != nil {
		return fieldError("id", err)
	}
	if err := CheckName(e.Service); err != nil {
		return fieldError("service", err)
	}
	if err := e.ValidateNames(); err != nil {
		return err
	}
	if len(e.Ports) > MaxPorts {
		return fieldError("ports", fmt.Errorf("%d ports, at most %d", len(e.Ports), MaxPorts))
	}
	return e.validateAddrs()
}

// ValidateNames reports the first thing that is wrong with the names by which e is
// found besides its service, as a *FieldError.
func (e *Endpoint) ValidateNames() error {
	for _, f := range []struct{ field, value string }{{"hostname", e.Hostname}, {"name", e.Name}} {
		if f.value == "" {
			continue
		}
		if err := CheckTaskName(f.value); err != nil {
			return fieldError(f.field, err)
		}
	}
	if len(e.Aliases) > MaxAliases {
		return fieldError("aliases", &ValueError{
			Problem: fmt.Sprintf("%d aliases, at most %d", len(e.Aliases), MaxAliases), Hint: "register fewer",
		})
	}
	for _, a := range e.Aliases {
		if err := CheckTaskName(a); err != nil {
			return fieldError("aliases", err)
		}
	}
	return nil
}

func (e *Endpoint) validateAddrs() error {
	if err := e.validatePorts(); err != nil {
		return err
	}
	if !e.IP4.IsValid() && !e.IP6.IsValid() {
		return fieldError("ips", errors.New("an endpoint needs an IPv4 or IPv6 address"))
	}
	if e.IP4.IsValid() && !e.IP4.Is4() || e.IP6.IsValid() && !e.IP6.Is6() {
		return fieldError("ips", fmt.Errorf("%s and %s are not of the families that they are given for", e.IP4, e.IP6))
	}
	for _, a := range []netip.Addr{e.IP4, e.IP6} {
		if !a.IsValid() {
			continue
		}
		if err := CheckTaskAddr(a); err != nil {
			return fieldError("ips", err)
		}
	}
	return nil
}
