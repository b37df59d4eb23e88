package hostread

import (
	"slices"

	"golang.org/x/sys/unix"

	"meshd/lb/hostcheck"
)

// bitwise understands a mask on what a register holds.
func (r *rule) bitwise(data []byte) {
	var from, to uint32
	var mask, xor []byte
	eachAttribute(data, func(kind uint16, data []byte) {
		switch kind {
		case unix.NFTA_BITWISE_SREG:
			from = uint32Of(data)
		case unix.NFTA_BITWISE_DREG:
			to = uint32Of(data)
		case unix.NFTA_BITWISE_MASK:
			mask = value(data)
		case unix.NFTA_BITWISE_XOR:
			xor = value(data)
		}
	})
	l := r.registers[registerIndex(from)]
	if l.mask != nil || mask == nil || slices.ContainsFunc(xor, func(b byte) bool { return b != 0 }) {
		l.field = hostcheck.Incomprehensible
	}
	l.mask = mask
	r.registers[registerIndex(to)] = l
}

// value returns the bytes in an attribute with a value.
func value(b []byte) (v []byte) {
	eachAttribute(b, func(kind uint16, data []byte) {
		if kind == unix.NFTA_DATA_VALUE {
			v = data
		}
	})
	return v
}

// compare understands a comparison with one value.
func (r *rule) compare(data []byte) {
	var from, op uint32
	var v []byte
	eachAttribute(data, func(kind uint16, data []byte) {
		switch kind {
		case unix.NFTA_CMP_SREG:
			from = uint32Of(data)
		case unix.NFTA_CMP_OP:
			op = uint32Of(data)
		case unix.NFTA_CMP_DATA:
			v = value(data)
		}
	})
	l := r.registers[registerIndex(from)]
	if l.field == bothPorts {
		r.comparePorts(l, op, v)
		return
	}
	c := hostcheck.Condition{Field: l.field, Not: op == unix.NFT_CMP_NEQ}
	if op != unix.NFT_CMP_EQ && op != unix.NFT_CMP_NEQ || !r.values(&c, l, []element{{value: v}}) {
		c = hostcheck.Condition{}
	}
	r.all = append(r.all, c)
}

// comparePorts adds a condition for the source port and one for the destination port.
func (r *rule) comparePorts(l loaded, op uint32, v []byte) {
	if op != unix.NFT_CMP_EQ || l.mask != nil || len(v) != 4 {
		r.addUnknown()
		return
	}
	for i, field := range []hostcheck.Field{hostcheck.SourcePort, hostcheck.DestinationPort} {
		n := bigEndian(v[2*i : 2*i+2])
		r.all = append(r.all, hostcheck.Condition{Field: field, Numbers: []hostcheck.Numbers{{First: n, Last: n}}})
	}
}

// rangeExpression understands a comparison with a range of values.
func (r *rule) rangeExpression(data []byte) {
	var from, op uint32
	var first, last []byte
	eachAttribute(data, func(kind uint16, data []byte) {
		switch kind {
		case unix.NFTA_RANGE_SREG:
			from = uint32Of(data)
		case unix.NFTA_RANGE_OP:
			op = uint32Of(data)
		case unix.NFTA_RANGE_FROM_DATA:
			first = value(data)
		case unix.NFTA_RANGE_TO_DATA:
			last = value(data)
		}
	})
	l := r.registers[registerIndex(from)]
	c := hostcheck.Condition{Field: l.field, Not: op == unix.NFT_RANGE_NEQ}
	if l.mask != nil || !addInterval(&c, first, last, false) {
		c = hostcheck.Condition{}
	}
	r.all = append(r.all, c)
}

// lookup understands a comparison with a set, or a map of verdicts.
func (r *rule) lookup(data []byte) {
	var from, flags uint32
	set, verdicts := "", false
	eachAttribute(data, func(kind uint16, data []byte) {
		switch kind {
		case unix.NFTA_LOOKUP_SET:
			set = cString(data)
		case unix.NFTA_LOOKUP_SREG:
			from = uint32Of(data)
		case unix.NFTA_LOOKUP_DREG:
			verdicts = uint32Of(data) == unix.NFT_REG_VERDICT
		case unix.NFTA_LOOKUP_FLAGS:
			flags = uint32Of(data)
		}
	})
	l := r.registers[registerIndex(from)]
	all := r.filters.elements(r.chain, set)
	if verdicts {
		if l.mask != nil || l.field == bothPorts {
			l.field = hostcheck.Incomprehensible
		}
		r.verdictMap, r.verdictField, r.decided = all, l.field, true
		if all == nil {
			r.decide(hostcheck.Undecided, "")
		}
		return
	}
	c := hostcheck.Condition{Field: l.field, Not: flags&unix.NFT_LOOKUP_F_INV != 0}
	if all == nil || l.field == bothPorts || l.mask != nil || !r.values(&c, l, all) {
		c = hostcheck.Condition{}
	}
	r.all = append(r.all, c)
}

// immediate understands a verdict.
func (r *rule) immediate(data []byte) {
	eachAttribute(data, func(kind uint16, data []byte) {
		if kind != unix.NFTA_IMMEDIATE_DATA {
			return
		}
		if v, to := parseVerdict(data); v != hostcheck.Nothing {
			r.decide(v, to)
		}
	})
}

// target reads a target of iptables.
func (r *rule) target(data []byte) {
	name := ""
	eachAttribute(data, func(kind uint16, data []byte) {
		if kind == unix.NFTA_TARGET_NAME {
			name = cString(data)
		}
	})
	r.xtTarget(name)
}

// xtTarget understands a target of iptables, by its name.
func (r *rule) xtTarget(name string) {
	switch name {
	case "REJECT":
		r.decide(hostcheck.Drop, "")
	case "LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "TRACE", "AUDIT", "DSCP", "TOS", "CLASSIFY", "SET", "CT":
	default:
		r.decide(hostcheck.Undecided, "")
	}
}
