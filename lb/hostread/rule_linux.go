package hostread

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"meshd/lb/hostcheck"
)

// Keys of conntrack's addresses that know their family.
const (
	ctSrcIP  = 19
	ctDstIP  = 20
	ctSrcIP6 = 21
	ctDstIP6 = 22
)

// bothPorts are the port of the source and that of the destination behind it, as
// iptables loads them if a rule asks for both. It is in no condition.
const bothPorts hostcheck.Field = -1

// loaded is what a register holds while a rule is read.
type loaded struct {
	field hostcheck.Field
	mask  []byte // of a bitwise operation; nil: none
}

// rule is one that is being read.
type rule struct {
	filters      *filters
	chain        *chain
	registers    map[uint32]loaded
	all          []hostcheck.Condition
	verdict      hostcheck.Verdict
	to           string
	verdictMap   []element // of a map of verdicts
	verdictField hostcheck.Field
	decided      bool
}

// rule reads a rule: several, if it has a map of verdicts, and none if it does
// not decide anything.
func (f *filters) parseRule(c *chain, expressions []byte) []hostcheck.Rule {
	r := rule{filters: f, chain: c, registers: map[uint32]loaded{}}
	eachAttribute(expressions, func(_ uint16, data []byte) {
		name, what := "", []byte(nil)
		eachAttribute(data, func(kind uint16, data []byte) {
			switch kind {
			case unix.NFTA_EXPR_NAME:
				name = cString(data)
			case unix.NFTA_EXPR_DATA:
				what = data
			}
		})
		if !r.decided {
			r.expression(name, what)
		}
	})
	if r.verdictMap == nil {
		if r.verdict == hostcheck.Nothing {
			return r.ofInterest()
		}
		return []hostcheck.Rule{{Conditions: r.all, Verdict: r.verdict, To: r.to}}
	}
	var all []hostcheck.Rule
	for i, e := range r.verdictMap {
		if e.ends || e.verdict == hostcheck.Nothing {
			continue
		}
		one := hostcheck.Condition{Field: r.verdictField}
		r.values(&one, loaded{field: r.verdictField}, untilNext(r.verdictMap, i))
		all = append(all, hostcheck.Rule{Conditions: append(slices.Clone(r.all), one), Verdict: e.verdict, To: e.to})
	}
	return all
}

// ofInterest returns a rule of kube-proxy for what it tells of addresses.
func (r *rule) ofInterest() []hostcheck.Rule {
	if r.chain.filter || len(r.all) == 0 {
		return nil
	}
	return []hostcheck.Rule{{Conditions: r.all}}
}

// untilNext returns an element with the one that ends its interval, if it has one.
func untilNext(all []element, i int) []element {
	for _, e := range all {
		if e.ends && bytes.Compare(e.value, all[i].value) > 0 {
			return withNearestEnd(all, i)
		}
	}
	return all[i : i+1]
}

// nearest returns an element and the end that follows it.
func withNearestEnd(all []element, i int) []element {
	out := []element{all[i]}
	for _, e := range all {
		if e.ends && bytes.Compare(e.value, all[i].value) > 0 && (len(out) == 1 || bytes.Compare(e.value, out[1].value) < 0) {
			out = append(out[:1], e)
		}
	}
	return out
}

func (r *rule) expression(name string, data []byte) {
	switch name {
	case "counter", "log", "notrack", "objref", "quota", "last":
	case "meta":
		r.meta(data)
	case "payload":
		r.payload(data)
	case "ct":
		r.conntrack(data)
	case "fib":
		r.fib(data)
	case "bitwise":
		r.bitwise(data)
	case "cmp":
		r.compare(data)
	case "range":
		r.rangeExpression(data)
	case "lookup":
		r.lookup(data)
	case "immediate":
		r.immediate(data)
	case "reject":
		r.decide(hostcheck.Drop, "")
	case "queue":
		r.decide(hostcheck.Undecided, "")
	case "match":
		r.match(data)
	case "target":
		r.target(data)
	default:
		r.addUnknown()
	}
}

func (r *rule) decide(v hostcheck.Verdict, to string) { r.verdict, r.to, r.decided = v, to, true }

// unclear adds a condition of which nobody knows whether a packet meets it.
func (r *rule) addUnknown() { r.all = append(r.all, hostcheck.Condition{}) }

// load notes what a register holds.
func (r *rule) setRegister(register uint32, field hostcheck.Field) {
	r.registers[registerIndex(register)] = loaded{field: field}
}

// slot makes one number of a register of 16 bytes and the first one of 4 bytes in
// it.
func registerIndex(register uint32) uint32 {
	if register >= unix.NFT_REG32_00 {
		if (register-unix.NFT_REG32_00)%4 == 0 {
			return (register-unix.NFT_REG32_00)/4 + 1
		}
		return register
	}
	return register
}

func (r *rule) meta(data []byte) {
	var key, to uint32
	eachAttribute(data, func(kind uint16, data []byte) {
		switch kind {
		case unix.NFTA_META_KEY:
			key = uint32Of(data)
		case unix.NFTA_META_DREG:
			to = uint32Of(data)
		}
	})
	fields := map[uint32]hostcheck.Field{
		unix.NFT_META_IIFNAME: hostcheck.InDevice, unix.NFT_META_OIFNAME: hostcheck.OutDevice,
		unix.NFT_META_IIF: hostcheck.InDevice,
		unix.NFT_META_OIF: hostcheck.OutDevice, unix.NFT_META_L4PROTO: hostcheck.Protocol,
		unix.NFT_META_NFPROTO: hostcheck.Family,
	}
	if to != 0 {
		r.setRegister(to, fields[key])
	}
}

func (r *rule) payload(data []byte) {
	var base, at, size, to uint32
	eachAttribute(data, func(kind uint16, data []byte) {
		switch kind {
		case unix.NFTA_PAYLOAD_DREG:
			to = uint32Of(data)
		case unix.NFTA_PAYLOAD_BASE:
			base = uint32Of(data)
		case unix.NFTA_PAYLOAD_OFFSET:
			at = uint32Of(data)
		case unix.NFTA_PAYLOAD_LEN:
			size = uint32Of(data)
		}
	})
	if to != 0 {
		r.setRegister(to, r.header(base, at, size))
	}
}

// header says what is in a header at a place. Of addresses the first bytes may
// be loaded only.
func (r *rule) header(base, at, size uint32) hostcheck.Field {
	is6 := r.family6()
	switch {
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && at == 0 && size == 2:
		return hostcheck.SourcePort
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && at == 2 && size == 2:
		return hostcheck.DestinationPort
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && at == 0 && size == 4:
		return bothPorts
	case base != unix.NFT_PAYLOAD_NETWORK_HEADER:
		return hostcheck.Incomprehensible
	case !is6 && at == 9 && size == 1, is6 && at == 6 && size == 1:
		return hostcheck.Protocol
	case !is6 && at == 12 && size <= 4, is6 && at == 8 && size <= 16:
		return hostcheck.Source
	case !is6 && at == 16 && size <= 4, is6 && at == 24 && size <= 16:
		return hostcheck.Destination
	}
	return hostcheck.Incomprehensible
}

// family6 reports whether the rule is for IPv6 only: by its table, or by what it
// asked before.
func (r *rule) family6() bool {
	if r.chain.family != unix.NFPROTO_INET {
		return r.chain.family == unix.NFPROTO_IPV6
	}
	return slices.ContainsFunc(r.all, func(c hostcheck.Condition) bool {
		return c.Field == hostcheck.Family && !c.Not && len(c.Numbers) == 1 && c.Numbers[0].First == 6
	})
}

// What nft looks up of an address, and of which (nf_tables.h).
const (
	fibRegister    = 1
	fibResult      = 2
	fibFlags       = 3
	fibType        = 3
	fibDestination = 1 << 1
)

// fib understands the type of a destination; not whether another device would be
// used.
func (r *rule) fib(data []byte) {
	var to, result, flags uint32
	eachAttribute(data, func(kind uint16, data []byte) {
		switch kind {
		case fibRegister:
			to = uint32Of(data)
		case fibResult:
			result = uint32Of(data)
		case fibFlags:
			flags = uint32Of(data)
		}
	})
	field := hostcheck.Incomprehensible
	if result == fibType && flags == fibDestination {
		field = hostcheck.DestinationType
	}
	if to != 0 {
		r.setRegister(to, field)
	}
}

func (r *rule) conntrack(data []byte) {
	var key, to, direction uint32
	eachAttribute(data, func(kind uint16, data []byte) {
		switch kind {
		case unix.NFTA_CT_DREG:
			to = uint32Of(data)
		case unix.NFTA_CT_KEY:
			key = uint32Of(data)
		case unix.NFTA_CT_DIRECTION:
			if len(data) > 0 {
				direction = uint32(data[0])
			}
		}
	})
	if to == 0 {
		return
	}
	field := hostcheck.Incomprehensible
	switch key {
	case unix.NFT_CT_STATE:
		field = hostcheck.State
	case unix.NFT_CT_STATUS:
		field = hostcheck.Status
	case unix.NFT_CT_SRC, ctSrcIP, ctSrcIP6:
		field = hostcheck.OriginalSource
	case unix.NFT_CT_DST, ctDstIP, ctDstIP6:
		field = hostcheck.OriginalDestination
	}
	if direction != 0 {
		field = hostcheck.Incomprehensible
	}
	r.setRegister(to, field)
}
