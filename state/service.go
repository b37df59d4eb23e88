package state

import (
	"net/netip"
	"time"
)

// This file owns what readers see: services, matches, and the interfaces to read them by.

// Class says how an endpoint is served, from the owner's statements and the
// local liveness of the owner (S9). Lower is better.
type Class uint8

// The classes, in the order of Service.Members.
const (
	Serving  Class = iota // owner alive, passing, not draining
	Suspect               // owner suspected or preserved (S9, S12): only if nothing serves, or after what does
	Failing               // failing: only if nothing serves and nothing is suspected (C8)
	Draining              // no new connections
	Unready               // starting: not served
	Hidden                // owner dead: not a member at all
)

// String returns the class's name in lower case.
func (c Class) String() string {
	return [...]string{"serving", "suspect", "failing", "draining", "unready", "hidden"}[min(c, Hidden)]
}

// Service is an immutable view of one service. A changed service is a new
// Service, so a pointer that is still current is a valid cache key.
//
// Invariant: Count adds up to Members.Len(), and Members is in the order of classes.
type Service struct {
	Network string // never empty
	Name    string // unique in the network, lower case
	Settings

	// Its addresses.
	VIP4, VIP6 netip.Addr   // canonical; zero: none (dnsrr, exhausted pool, in re-probe, no task of the family)
	OtherVIPs  []netip.Addr // further addresses of this service during a move (V5); program, do not answer
	Conflict   string       // non-empty: what is wrong, for people (V6, V7)

	// Its tasks.
	Members Members       // sorted by class, then by id; hidden ones left out
	Count   [Hidden]int32 // members per class
	Ports   []Port        // declared by its members, sorted by protocol and number, without targets and repeats
	Aliases []string      // declared by its members, sorted
}

// Settings are what a service's hosts agree on by Lamport time (S8).
type Settings struct {
	Mode      Mode
	Scheduler string        // IPVS name; "" = DefaultScheduler
	Affinity  time.Duration // client stickiness; 0 = none
	Drain     time.Duration // how long connections may finish; 0 = the daemon's default
	TTL       time.Duration // of the service's DNS answers, whole seconds; 0 = the daemon's default
}

// count returns how many members a class has.
func (s *Service) count(c Class) int { return int(s.Count[c]) }

// Class returns the class of the i-th of Members.
func (s *Service) Class(i int) Class {
	for c := range Hidden {
		if i -= s.count(c); i < 0 {
			return c
		}
	}
	return Hidden
}

// Panicking reports whether the failing members are served, since there are no others
// (C8): a failure that all have in common must not leave clients with nothing.
func (s *Service) Panicking() bool {
	return s.Count[Serving]+s.Count[Suspect] == 0 && s.Count[Failing] > 0
}

// standing orders services by what they have to serve: nothing, failing tasks, others.
func (s *Service) standing() int {
	switch {
	case s.Panicking():
		return 1
	case s.Balanced().Len() > 0:
		return 2
	}
	return 0
}

// Serving returns the members to answer with: the serving ones first, then the
// suspected ones (S9); the failing ones if there are neither (C8).
func (s *Service) Serving() (members Members, preferred int) {
	if s.Panicking() {
		return s.Members.Part(0, s.count(Failing)), s.count(Failing)
	}
	return s.Members.Part(0, s.count(Serving)+s.count(Suspect)), s.count(Serving)
}

// Balanced returns the members that new connections go to: the serving ones, or, if
// there is none, the suspected ones, or else the failing ones. Which of them at which port depends
// on what they declare.
func (s *Service) Balanced() Members {
	if n := s.count(Serving); n > 0 {
		return s.Members.Part(0, n)
	}
	if s.Panicking() {
		return s.Members.Part(0, s.count(Failing))
	}
	return s.Members.Part(0, s.count(Suspect))
}

// DrainingMembers returns the members that keep their connections but get no new ones.
func (s *Service) DrainingMembers() Members {
	from := s.count(Serving) + s.count(Suspect) + s.count(Failing)
	return s.Members.Part(from, from+s.count(Draining))
}

// MatchKind says what a name is.
type MatchKind uint8

// What a name can be, in order of precedence.
const (
	MatchNone     MatchKind = iota
	MatchService            // Match.Service
	MatchAlias              // Match.Service through an alias
	MatchEndpoint           // Match.Endpoints: a task name, container name, host name or (short) id
)

// Match is what a name stands for in one network.
type Match struct {
	Kind      MatchKind
	Service   *Service // of MatchService and MatchAlias; of MatchEndpoint where it has one
	Endpoints []*Entry // of MatchEndpoint; not hidden, sorted by id
	Shadowed  []string // other services that claim the same alias, for people
}

// IPMatch is what an address stands for in one network.
type IPMatch struct {
	Service  *Service // set if the address is a VIP of this service
	Endpoint *Entry   // set if the address is a task's
}

// View reads one network. It is a handle onto the current state, not a
// snapshot: each method returns immutable values of its moment. Safe for
// concurrent use.
type View interface {
	// Network returns the network's name.
	Network() string
	// Def returns the effective definition of the network.
	Def() NetworkDef
	// Service returns the service of that lower-case name, or nil. It takes no
	// lock and does not allocate.
	Service(name string) *Service
	// Lookup resolves one lower-case name without its network suffix, by the
	// precedence of MatchKind.
	Lookup(name string) Match
	// Task returns the endpoint with that very id, or nil.
	Task(id string) *Entry
	// ByIP says what an address is. The zero IPMatch means: not ours.
	ByIP(a netip.Addr) IPMatch
	// Services returns the services of the moment, sorted by name.
	Services() []*Service
	// Synced reports whether the network's first full exchange with a peer is
	// done, or there was no peer to ask (R4).
	Synced() bool
	// Changes grows with every change that readers can see, after it can be
	// seen: what was read between two equal results was read of one state. It
	// takes no lock and does not allocate.
	Changes() uint64
	// ChangedSince calls f with the services that changed in the changes from
	// since to until, both as Changes gave them, and with "" for the network
	// itself. It returns false, perhaps after some calls, if that is no longer
	// known: then anything may have changed. It takes no lock.
	ChangedSince(since, until uint64, f func(service string)) bool
	// Subscribe starts a subscription to the names of changed services.
	Subscribe() *Subscription
}

// Source gives the views of the networks that this node takes part in. Safe
// for concurrent use.
type Source interface {
	// View returns the view of a network, or nil.
	View(network string) View
	// Networks returns the networks of the moment, sorted, and a channel that
	// is closed when the set is stale.
	Networks() (names []string, stale <-chan struct{})
}
