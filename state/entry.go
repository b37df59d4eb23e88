package state

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// This file owns records as they are stored.

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

// Entry is one stored record. It is immutable, and shared by the table and the
// views; what changes about a record is in its slot.
//
// Its text is one string, kind ‖ key ‖ group ‖ body, so that a record costs
// two objects and the map key aliases it (S14).
type Entry struct {
	// Of every record.
	data     string  // kind ‖ key ‖ group ‖ body
	version  uint64  // at which the owner wrote it
	stream   *stream // of its owner; the status of the stream belongs to the table's goroutine
	keyLen   uint8   // bytes of data that are the key, at most MaxName
	groupLen uint8   // bytes of data that are the group, at most MaxName
	deleted  bool    // a tombstone
	poison   bool    // carried, but not readable: not shown (G8)

	// Of endpoints: what readers need of the body without decoding it.
	ip4    [4]byte // zero: none
	weight uint16  // as stated; 0 counts as 1
	has    fields  // optional fields of the body
	class  Class   // what the owner states: Serving, Failing, Draining or Unready
	place  place   // where it is in Service.Members; belongs to the table's goroutine
}

// fields says which fields an endpoint has that the index must look at.
type fields uint8

const (
	hasIP6 fields = 1 << iota
	hasPorts
	hasAliases
	hasNames    // a container name or a host name
	onlyStrange // ports, and all of protocols that this version does not know
	onlyMapped  // ports, and all with a target: it is at none of its service's ports (L16)
)

// Kind returns the record's kind.
func (e *Entry) Kind() Kind { return Kind(e.data[0]) }

// Key returns the record's key: a task id, a service, a network.
func (e *Entry) Key() string { return e.data[1 : 1+int(e.keyLen)] }

// Group returns the record's group: for an endpoint its service.
func (e *Entry) Group() string { return e.data[1+int(e.keyLen) : 1+int(e.keyLen)+int(e.groupLen)] }

// Body returns the record's body.
func (e *Entry) Body() string { return e.data[1+int(e.keyLen)+int(e.groupLen):] }

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

// OnlyMapped reports whether the endpoint listens at no port of its service, but at
// targets only: a client that has its address needs to know the port as well.
func (e *Entry) OnlyMapped() bool { return e.has&onlyMapped != 0 }

// EachPort calls f with the ports that the endpoint declares, of the protocols
// that this version knows. It does not allocate; names are parts of the entry.
func (e *Entry) EachPort(f func(Port)) {
	if !e.HasPorts() {
		return
	}
	_ = eachField(e.Body(), func(tag byte, v string) error {
		if p, ok := portOf(tag, v); ok {
			f(p)
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

// The lengths of a key and of a group fit their fields.
const _ = uint8(MaxName)

// mapKey identifies the record within its stream.
func (e *Entry) mapKey() string { return e.data[:1+int(e.keyLen)] }

// newEntry builds the entry of a record. The error says why the record is poison
// (G8): a known kind whose body does not parse.
func newEntry(s *stream, r Record) (*Entry, error) {
	e := &Entry{
		data:    string([]byte{byte(r.Kind)}) + r.Key + r.Group + r.Body,
		version: r.Version, stream: s, deleted: r.Deleted,
		keyLen: uint8(len(r.Key)), groupLen: uint8(len(r.Group)),
	}
	var err error
	switch r.Kind {
	case KindEndpoint:
		if !r.Deleted {
			err = e.readEndpoint()
		}
	case KindVIP, KindSettings, KindNode, KindMember, KindNetwork, KindBeacon:
		if !r.Deleted {
			err = checkBody(r)
		}
	}
	e.poison = err != nil
	return e, err
}

// readEndpoint fills the fields of an endpoint from its body.
func (e *Entry) readEndpoint() error {
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
		if !slices.ContainsFunc(ep.Ports, func(p Port) bool { return p.Target == 0 }) {
			e.has |= onlyMapped
		}
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
	case ep.Health == HealthFailing:
		e.class = Failing
	case ep.Health != HealthPassing:
		e.class = Unready
	}
	return nil
}

// samePlace reports whether two endpoints have the same addresses.
func (e *Entry) samePlace(o *Entry) bool {
	return e.ip4 == o.ip4 && (e.has|o.has)&hasIP6 == e.has&o.has&hasIP6 && e.Addr6() == o.Addr6()
}

// compareID orders endpoints by id, then by owner.
func compareID(a, b *Entry) int {
	return cmp.Or(strings.Compare(a.Key(), b.Key()), strings.Compare(string(a.Owner()), string(b.Owner())))
}
