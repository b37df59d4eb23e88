package hostread

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"meshd/lb/hostcheck"
)

// The keys of conntrack's addresses of one family (nf_tables.h).
const (
	ctSrcIP  = 19
	ctDstIP  = 20
	ctSrcIP6 = 21
	ctDstIP6 = 22
)

// bothPorts stands for the source port with the destination port behind it: iptables
// loads both at once if a rule compares both. It does not appear in conditions.
const bothPorts hostcheck.Field = -1

// loaded is what a register holds while a rule is read.
type loaded struct {
	field hostcheck.Field
	mask  []byte // of a bitwise operation; nil: none
}

// rule is a rule that is being read.
type rule struct {
	filters   *filters          // reads the sets that the rule refers to
	chain     *chain            // that has the rule
	registers map[uint32]loaded // by registerIndex

	all     []hostcheck.Condition // in the order of the rule's expressions
	verdict hostcheck.Verdict     // Nothing: none was met so far
	to      string                // the chain of a jump
	decided bool                  // the verdict is known: expressions that follow do not count

	verdictMap   []element       // a map that gives the verdict; nil: none
	verdictField hostcheck.Field // that the map is asked with
}

// parseRule turns a rule of the kernel into rules: one for each element of a map of
// verdicts, and none if it decides nothing.
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

// ofInterest returns a rule without a verdict if it is one of kube-proxy, since it
// shows addresses.
func (r *rule) ofInterest() []hostcheck.Rule {
	if r.chain.filter || len(r.all) == 0 {
		return nil
	}
	return []hostcheck.Rule{{Conditions: r.all}}
}

// untilNext returns an element and, if it begins an interval, the one that ends it.
func untilNext(all []element, i int) []element {
	for _, e := range all {
		if e.ends && bytes.Compare(e.value, all[i].value) > 0 {
			return withNearestEnd(all, i)
		}
	}
	return all[i : i+1]
}

// withNearestEnd returns an element and the end of an interval that follows it.
func withNearestEnd(all []element, i int) []element {
	out := []element{all[i]}
	for _, e := range all {
		if e.ends && bytes.Compare(e.value, all[i].value) > 0 && (len(out) == 1 || bytes.Compare(e.value, out[1].value) < 0) {
			out = append(out[:1], e)
		}
	}
	return out
}

// expression understands one expression of the rule. One that is not known becomes a
// condition that may or may not be met.
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

// decide sets the verdict.
func (r *rule) decide(v hostcheck.Verdict, to string) { r.verdict, r.to, r.decided = v, to, true }

// addUnknown adds a condition that a packet may or may not meet.
func (r *rule) addUnknown() { r.all = append(r.all, hostcheck.Condition{}) }

// setRegister records what a register holds.
func (r *rule) setRegister(register uint32, field hostcheck.Field) {
	r.registers[registerIndex(register)] = loaded{field: field}
}

// registerIndex returns one number for a register of 16 bytes and for the first of 4
// bytes in it, which are the same place.
func registerIndex(register uint32) uint32 {
	if register >= unix.NFT_REG32_00 {
		if (register-unix.NFT_REG32_00)%4 == 0 {
			return (register-unix.NFT_REG32_00)/4 + 1
		}
		return register
	}
	return register
}

// meta understands what is loaded of a packet's devices and protocol.
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
		unix.NFT_META_IIF: hostcheck.InDevice, unix.NFT_META_OIF: hostcheck.OutDevice,
		unix.NFT_META_L4PROTO: hostcheck.Protocol,
		unix.NFT_META_NFPROTO: hostcheck.Family,
	}
	if to != 0 {
		r.setRegister(to, fields[key])
	}
}

// payload understands what is loaded of a packet's headers.
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

// header returns the field at a place of a header, at and size in bytes. Of an address
// there may be only the first bytes.
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

// family6 reports whether the rule is for IPv6 only, by its table or by a condition
// before.
func (r *rule) family6() bool {
	if r.chain.family != unix.NFPROTO_INET {
		return r.chain.family == unix.NFPROTO_IPV6
	}
	return slices.ContainsFunc(r.all, func(c hostcheck.Condition) bool {
		return c.Field == hostcheck.Family && !c.Not && len(c.Numbers) == 1 && c.Numbers[0].First == 6
	})
}

// What the expression fib looks up, and of which address (nf_tables.h).
const (
	fibRegister    = 1
	fibResult      = 2
	fibFlags       = 3
	fibType        = 3
	fibDestination = 1 << 1
)

// fib understands the type of the destination. Other questions to the routing table
// are not understood.
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

// conntrack understands what is loaded of a packet's connection, in the direction of
// its first packet.
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
