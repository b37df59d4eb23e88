package hostread

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"meshd/lb/hostcheck"
)

// entry is one rule of a table of iptables' own.
type entry struct {
	head   []byte // the conditions that all rules have
	rest   []byte // matches
	target string // empty: a verdict
	data   []byte // of the target
	size   int    // in bytes
}

// The sizes in bytes of the header of a match or target, which has its size, name and
// revision, and of the name in it.
const (
	extension     = 32
	extensionName = 29
)

// code returns the verdict of an entry without a target.
func (e *entry) code() int {
	if e.target != "" || len(e.data) < 4 {
		return legacyAccept
	}
	return int(int32(binary.NativeEndian.Uint32(e.data)))
}

// chain returns the name of the chain whose first entry this is.
func (e *entry) chain() string { return unix.ByteSliceToString(e.data) }

// matches calls take for each match of the entry.
func (e *entry) matches(take func(name string, revision uint32, info []byte)) {
	for b := e.rest; len(b) >= extension; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < extension || n > len(b) {
			return
		}
		take(cString(b[2:2+extensionName]), uint32(b[2+extensionName]), b[extension:n])
		b = b[n:]
	}
}

// layout says where an entry has what, in bytes from its beginning. The source and
// the destination come first, then their masks.
type layout struct {
	address  int // the size of an address
	devices  int // two names of devices, then their masks
	protocol int // the number
	flags    int // one byte
	inverse  int // the conditions that are negated, one byte
	offsets  int // where the target and the next entry are, two bytes each
	matches  int // the first match

	// Bits in flags.

	gotos      byte // a jump does not return
	protocolIf byte // the protocol is a condition; 0: it is whenever it is not 0
	unread     byte // a condition that is not understood: fragments (IPv4), traffic class (IPv6)
}

var (
	layout4 = layout{
		address: 4, devices: 16, protocol: 80, flags: 82, inverse: 83, offsets: 88, matches: 112, gotos: 2,
		unread: 1,
	}
	layout6 = layout{
		address: 16, devices: 64, protocol: 128, flags: 131, inverse: 132, offsets: 140, matches: 168,
		gotos: 4, protocolIf: 1, unread: 2,
	}
)

// jumps reports whether a jump of an entry returns.
func (l *layout) jumps(head []byte) bool { return head[l.flags]&l.gotos == 0 }

// entry reads the entry at the beginning of b; ok: it is complete.
func (l *layout) entry(b []byte) (e entry, ok bool) {
	if len(b) < l.matches {
		return e, false
	}
	target, next := int(binary.NativeEndian.Uint16(b[l.offsets:])), int(binary.NativeEndian.Uint16(b[l.offsets+2:]))
	if target < l.matches || next < target+extension || next > len(b) {
		return e, false
	}
	e = entry{head: b[:l.matches], rest: b[l.matches:target], size: next}
	e.target, e.data = cString(b[target+2:target+2+extensionName]), b[target+extension:next]
	return e, true
}

// The bits of layout.inverse.
const (
	notIn       = 1 << 0
	notOut      = 1 << 1
	notSource   = 1 << 3
	notTarget   = 1 << 4
	notProtocol = 1 << 6
)

// conditions adds the conditions in the fixed part of an entry.
func (l *layout) conditions(r *rule, head []byte) {
	not := head[l.inverse]
	address := func(field hostcheck.Field, at int, not bool) {
		mask := head[(at+2)*l.address:][:l.address]
		if !bytes.ContainsFunc(mask, func(b rune) bool { return b != 0 }) {
			return
		}
		p, ok := r.prefix(loaded{field: field, mask: mask}, head[at*l.address:][:l.address])
		if !ok {
			r.addUnknown()
			return
		}
		r.all = append(r.all, hostcheck.Condition{Field: field, Not: not, Spans: []hostcheck.Span{hostcheck.SpanOf(p)}})
	}
	address(hostcheck.Source, 0, not&notSource != 0)
	address(hostcheck.Destination, 1, not&notTarget != 0)
	device := func(field hostcheck.Field, at int, not bool) {
		name, mask := head[l.devices+at*unix.IFNAMSIZ:][:unix.IFNAMSIZ], head[l.devices+(at+2)*unix.IFNAMSIZ:][:unix.IFNAMSIZ]
		if mask[0] == 0 {
			return
		}
		compared := bytes.IndexByte(mask, 0)
		if compared < 0 {
			compared = len(mask)
		}
		n := cString(name[:compared])
		if len(n) == compared { // the end of the name is not compared
			n += "*"
		}
		r.all = append(r.all, hostcheck.Condition{Field: field, Not: not, Names: []string{n}})
	}
	device(hostcheck.InDevice, 0, not&notIn != 0)
	device(hostcheck.OutDevice, 1, not&notOut != 0)
	if p := uint32(binary.NativeEndian.Uint16(head[l.protocol:])); p != 0 &&
		(l.protocolIf == 0 || head[l.flags]&l.protocolIf != 0) {
		r.all = append(r.all, hostcheck.Condition{
			Field: hostcheck.Protocol, Not: not&notProtocol != 0,
			Numbers: []hostcheck.Numbers{{First: p, Last: p}},
		})
	}
	if head[l.flags]&l.unread != 0 {
		r.addUnknown()
	}
}
