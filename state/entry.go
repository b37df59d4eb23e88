package state

import (
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
	ip4      [4]byte // of endpoints; zero: none
	keyLen   uint16
	groupLen uint16
	weight   uint16
	has6     bool
	class    Class // what the owner states: Serving, Draining or Unready
	deleted  bool  // a tombstone
	poison   bool  // carried, but not readable: not shown (G8)
	gone     bool  // superseded; the table's goroutine only
	listed   bool  // in the index; these and the next: the table's goroutine only
	hidden   bool  // in the index, but not shown: the owner is dead
	merged   bool  // scratch of index.members
	row      uint32
}

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
	if !e.has6 {
		return netip.Addr{}
	}
	v, _ := findField(e.Body(), tagIP6)
	a, _ := fieldAddr(v)
	return a
}

// Weight returns the endpoint's weight, at least 1.
func (e *Entry) Weight() uint16 { return max(e.weight, 1) }

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
	ep, err := ParseEndpoint(e.Body())
	if err != nil {
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
	e.has6, e.weight = ep.IP6.IsValid(), ep.Weight
	switch {
	case ep.Draining:
		e.class = Draining
	case ep.Health != HealthPassing:
		e.class = Unready
	}
	return nil
}
