package hostread

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"meshd/lb/hostcheck"
)

// values adds the values of a comparison or of a set to a condition, and reports
// whether they are understood.
func (r *rule) values(c *hostcheck.Condition, l loaded, all []element) bool {
	if l.mask != nil && len(all) != 1 {
		return false
	}
	intervals := false
	for _, e := range all {
		intervals = intervals || e.ends
	}
	for i, e := range all {
		ok := true
		switch {
		case intervals && e.ends:
		case intervals:
			next := withNearestEnd(all, i)
			last := bytes.Repeat([]byte{0xff}, len(e.value))
			if len(next) > 1 {
				last = next[1].value
			}
			ok = addInterval(c, e.value, last, len(next) > 1)
		default:
			ok = r.value(c, l, e.value)
		}
		if !ok {
			return false
		}
	}
	return len(all) > 0
}

// value adds one value to a condition, and reports whether it is understood.
func (r *rule) value(c *hostcheck.Condition, l loaded, v []byte) bool {
	switch c.Field {
	case hostcheck.InDevice, hostcheck.OutDevice:
		return l.mask == nil && r.device(c, v)
	case hostcheck.State, hostcheck.Status:
		return flagValues(c, l, v)
	case hostcheck.DestinationType:
		if l.mask != nil || len(v) != 4 || binary.NativeEndian.Uint32(v) > 31 {
			return false
		}
		c.Mask |= 1 << binary.NativeEndian.Uint32(v)
		return true
	case hostcheck.Source, hostcheck.Destination, hostcheck.OriginalSource, hostcheck.OriginalDestination:
		p, ok := r.prefix(l, v)
		if ok {
			c.Spans = append(c.Spans, hostcheck.SpanOf(p))
		}
		return ok
	}
	return l.mask == nil && addInterval(c, v, v, false)
}

// device adds a device: by its number, by its name, or all with the same beginning.
func (r *rule) device(c *hostcheck.Condition, v []byte) bool {
	name := cString(v)
	if len(v) == 4 {
		if known := r.filters.names[binary.NativeEndian.Uint32(v)]; known != "" {
			c.Names = append(c.Names, known)
			return true
		}
	}
	if len(v) < unix.IFNAMSIZ && !bytes.ContainsRune(v, 0) {
		name += "*" // only the beginning is compared
	}
	c.Names = append(c.Names, name)
	return name != "" && !strings.ContainsRune(name, 0)
}

// flagValues adds a comparison of flags. nft writes "ct state new" as
// (state & new) != 0, and in sets as the flag itself.
func flagValues(c *hostcheck.Condition, l loaded, v []byte) bool {
	if len(v) != 4 {
		return false
	}
	n := binary.NativeEndian.Uint32(v)
	if l.mask == nil { // ct state == established
		c.Mask |= n
		return n != 0
	}
	if len(l.mask) != 4 {
		return false
	}
	mask := binary.NativeEndian.Uint32(l.mask)
	switch {
	case n == 0: // (state & mask) != 0 is "any of them"; == 0 is "none"
		c.Mask, c.Not = mask, !c.Not
	case n == mask && mask&(mask-1) == 0:
		c.Mask = mask
	default:
		return false
	}
	return true
}

// prefix reads an address, of which a rule may compare only the first bytes.
func (r *rule) prefix(l loaded, v []byte) (netip.Prefix, bool) {
	size := 4
	if r.family6() || len(v) == 16 && r.chain.family == unix.NFPROTO_INET && l.field >= hostcheck.OriginalSource {
		size = 16
	}
	if len(v) == 0 || len(v) > size && len(v) != 16 {
		return netip.Prefix{}, false
	}
	n := 8 * min(len(v), size)
	if l.mask != nil {
		ones, ok := prefixLength(l.mask[:min(len(l.mask), size)])
		if !ok {
			return netip.Prefix{}, false
		}
		n = ones
	}
	full := make([]byte, size)
	copy(full, v)
	a, _ := netip.AddrFromSlice(full)
	p, err := a.Prefix(n)
	return p, err == nil
}

// prefixLength returns how many ones a mask begins with; ok: only zeros follow.
func prefixLength(mask []byte) (n int, ok bool) {
	zeros := false
	for _, b := range mask {
		for i := 7; i >= 0; i-- {
			one := b>>i&1 == 1
			if one && zeros {
				return 0, false
			}
			zeros = zeros || !one
			if one {
				n++
			}
		}
	}
	return n, true
}

// addInterval adds the values from first to last, without last if open, and reports
// whether they are understood.
func addInterval(c *hostcheck.Condition, first, last []byte, open bool) bool {
	switch c.Field {
	case hostcheck.Source, hostcheck.Destination, hostcheck.OriginalSource, hostcheck.OriginalDestination:
		from, ok := netip.AddrFromSlice(first)
		to, both := netip.AddrFromSlice(last)
		if open {
			to = to.Prev()
		}
		c.Spans = append(c.Spans, hostcheck.Span{First: from, Last: to})
		return ok && both && to.IsValid()
	case hostcheck.Protocol, hostcheck.SourcePort, hostcheck.DestinationPort, hostcheck.Family:
		from, to := bigEndian(first), bigEndian(last)
		if open {
			to--
		}
		if c.Field == hostcheck.Family {
			from, to = familyNumber(from), familyNumber(to)
		}
		c.Numbers = append(c.Numbers, hostcheck.Numbers{First: from, Last: to})
		return len(first) > 0 && len(first) <= 2
	}
	return false
}

// familyNumber translates the kernel's number of a family to 4 or 6.
func familyNumber(n uint32) uint32 {
	switch n {
	case unix.NFPROTO_IPV4:
		return 4
	case unix.NFPROTO_IPV6:
		return 6
	}
	return n + 1000 // no packet has it
}

// bigEndian reads a number in network order.
func bigEndian(b []byte) (n uint32) {
	for _, one := range b {
		n = n<<8 | uint32(one)
	}
	return n
}
