package state

import (
	"cmp"
	"net/netip"
	"strings"
)

// Kind is the kind of a record. Kinds that this version does not know are
// carried and relayed like any other (S11).
type Kind uint8

// The kinds of records. Never reuse a number.
const (
	KindEndpoint Kind = 1 // in a network: key = task id, group = service
	KindVIP      Kind = 2 // in a network: key = service; a carried claim (V2)
	KindSettings Kind = 3 // in a network: key = service; carried, highest Lamport time wins (S8)

	KindNode    Kind = 16 // in the global scope: key = ""; the node's addresses and capabilities
	KindMember  Kind = 17 // in the global scope: key = network; the node takes part in it (G6)
	KindNetwork Kind = 18 // in the global scope: key = network; a carried definition (V6)
	KindBeacon  Kind = 19 // in the global scope: key = ""; a time stamp to measure propagation by
)

// Entry is one stored record. It is immutable but for the fields that only
// the table's goroutine touches, and shared by the table and the views.
//
// Its text is one string, kind ‖ key ‖ group ‖ body, so that a record costs
// two objects and the map key aliases it (S14).
type Entry struct {
	data     string
	version  uint64
	stream   *stream
	svc      *svc    // of a listed endpoint; the table's goroutine only
	ip4      [4]byte // of endpoints; zero: none
	row      uint32  // in addrIndex; 0: none; the table's goroutine only
	keyLen   uint16
	groupLen uint16
	weight   uint16
	has      fields
	class    Class // what the owner states: Serving, Draining or Unready
	deleted  bool  // a tombstone
	poison   bool  // carried, but not readable: not shown (G8)
	bar      Bar   // carried, but not shown here (S18); the table's goroutine only

	// What follows belongs to the table's goroutine.
	gone   bool  // superseded
	listed bool  // current and readable: known to the index
	hidden bool  // listed, but the owner is dead: not to be shown
	shown  bool  // a member of the published view of its service
	as     Class // under which class it is shown
}

// fields says which fields an endpoint has that the index must look at.
type fields uint8

const (
	hasIP6 fields = 1 << iota
	hasPorts
	hasAliases
	hasNames    // a container name or a host name
	onlyStrange // ports, and all of protocols that this version does not know
)

// Kind returns the record's kind.
func (e *Entry) Kind() Kind { return Kind(e.data[0]) }

// Key returns the record's key: a task id, a service, a network.
func (e *Entry) Key() string { return e.data[1 : 1+e.keyLen] }

// Group returns the record's group: for an endpoint its service.
func (e *Entry) Group() string { return e.data[1+e.keyLen : 1+e.keyLen+e.groupLen] }

// Body returns the record's body.
func (e *Entry) Body() string { return e.data[1+e.keyLen+e.groupLen:] }

// Version returns the version at which the owner wrote the record.
func (e *Entry) Version() uint64 { return e.version }

// Owner returns the node that wrote the record.
func (e *Entry) Owner() NodeID { return e.stream.owner }

// ID returns the task id of an endpoint.
func (e *Entry) ID() string { return e.Key() }

// Addr4 returns the endpoint's IPv4 address, or the zero Addr.
func (e *Entry) Addr4() netip.Addr {
	if e.ip4 == [4]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom4(e.ip4)
}

// Addr6 returns the endpoint's IPv6 address, or the zero Addr.
func (e *Entry) Addr6() netip.Addr {
	if e.has&hasIP6 == 0 {
		return netip.Addr{}
	}
	v, _ := findField(e.Body(), tagIP6)
	a, _ := fieldAddr(v)
	return a
}

// Weight returns the endpoint's weight, at least 1.
func (e *Entry) Weight() uint16 { return max(e.weight, 1) }

// HasPorts reports whether the endpoint declares any port: one that declares none
// is at all of its service.
func (e *Entry) HasPorts() bool { return e.has&hasPorts != 0 }

// EachPort calls f with the ports that the endpoint declares, of the protocols
// that this version knows. It does not allocate; names are parts of the entry.
func (e *Entry) EachPort(f func(Port)) {
	if !e.HasPorts() {
		return
	}
	_ = eachField(e.Body(), func(tag byte, v string) error {
		if tag == tagPort {
			if p, _ := fieldPort(v); p.Proto.known() {
				f(p)
			}
		}
		return nil
	})
}

// Endpoint decodes the endpoint in full. The result is the caller's.
func (e *Entry) Endpoint() Endpoint {
	ep, _ := ParseEndpoint(strings.Clone(e.Body())) // checked when the entry was made
	ep.ID, ep.Service, ep.Owner = e.Key(), e.Group(), e.Owner()
	return ep
}

// mapKey identifies the record within its stream.
func (e *Entry) mapKey() string { return e.data[:1+e.keyLen] }

// newEntry builds the entry of a live record. The error says why the record
// is poison (G8): a known kind whose body does not parse.
func newEntry(s *stream, r Record) (*Entry, error) {
	e := &Entry{
		data:    string([]byte{byte(r.Kind)}) + r.Key + r.Group + r.Body,
		version: r.Version, stream: s, deleted: r.Deleted,
		keyLen: uint16(len(r.Key)), groupLen: uint16(len(r.Group)),
	}
	if r.Deleted {
		return e, nil
	}
	switch r.Kind {
	case KindEndpoint:
		return e, e.index()
	case KindVIP, KindSettings, KindNode, KindMember, KindNetwork, KindBeacon:
		return e, checkBody(r)
	}
	return e, nil
}

// index fills the hot fields of an endpoint.
func (e *Entry) index() error {
	var ports [4]Port // so that the usual endpoint costs no allocation
	var aliases [4]string
	ep := Endpoint{Weight: 1, Ports: ports[:0], Aliases: aliases[:0]}
	if err := ep.parse(e.Body()); err != nil {
		return err
	}
	if err := checkLabel(e.Key()); err != nil {
		return err
	}
	if err := CheckName(e.Group()); err != nil {
		return err
	}
	if ep.IP4.IsValid() {
		e.ip4 = ep.IP4.As4()
	}
	e.weight = ep.Weight
	if ep.IP6.IsValid() {
		e.has |= hasIP6
	}
	if len(ep.Ports) > 0 {
		e.has |= hasPorts
	}
	if ep.strange && len(ep.Ports) == 0 {
		e.has |= onlyStrange
	}
	if len(ep.Aliases) > 0 {
		e.has |= hasAliases
	}
	if ep.Name != "" || ep.Hostname != "" {
		e.has |= hasNames
	}
	switch {
	case ep.Draining:
		e.class = Draining
	case ep.Health != HealthPassing:
		e.class = Unready
	}
	return nil
}

// effective is the class of an endpoint under its owner's liveness.
func (e *Entry) effective() Class {
	if e.bar != BarNone {
		return Hidden
	}
	switch e.stream.status {
	case Alive:
		return e.class
	case Suspected, Kept:
		if e.class == Serving {
			return Suspect
		}
		return e.class
	}
	return Hidden
}

// samePlace reports whether two endpoints have the same addresses.
func (e *Entry) samePlace(o *Entry) bool {
	return e.ip4 == o.ip4 && (e.has|o.has)&hasIP6 == e.has&o.has&hasIP6 && e.Addr6() == o.Addr6()
}

// compareID orders endpoints by id, then by owner.
func compareID(a, b *Entry) int {
	return cmp.Or(strings.Compare(a.Key(), b.Key()), strings.Compare(string(a.Owner()), string(b.Owner())))
}

// compareMember orders the members of a service: by class, then by id.
func compareMember(a, b *Entry) int {
	if n := cmp.Compare(a.as, b.as); n != 0 {
		return n
	}
	return compareID(a, b)
}
