package hostread

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"meshd/lb/hostcheck"
)

// Bounds of what is read of the filters of a host, or of a container.
const (
	maxChains = 1024
	maxRules  = 1 << 15
	maxValues = 4096    // of one set
	maxAll    = 1 << 18 // values in all rules and sets

	maxRulesInside = 1 << 12 // of a container: there may be a thousand of them
	patienceInside = 500 * time.Millisecond
)

// filters reads the chains of packet filters.
type filters struct {
	conn   *conn             // for chains and rules
	sets   *conn             // for sets, which are read in the middle of a list of rules
	names  map[uint32]string // of devices, by index
	inside bool              // of a container: chains at the hook output count too, and bounds are lower

	until  time.Time // when reading ends at the latest
	rules  int       // that were read; at most maxRules()
	values int       // in the conditions of all rules, and in sets; at most maxAll
	known  map[setKey][]element
}

type setKey struct {
	family     byte
	table, set string
}

// nftMessage returns the type of a netlink message of nftables.
func nftMessage(message uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | message }

// header returns the header of nfnetlink.
func header(family byte) []byte { return []byte{family, unix.NFNETLINK_V0, 0, 0} }

// generation returns the number of the ruleset, which differs after each change; 0:
// not known.
func (f *filters) generation() (gen uint32) {
	m := f.conn.request(nftMessage(unix.NFT_MSG_GETGEN), header(unix.NFPROTO_UNSPEC), nil)
	if len(m) < 4 {
		return 0
	}
	eachAttribute(m[4:], func(kind uint16, data []byte) {
		if kind == unix.NFTA_GEN_ID {
			gen = uint32Of(data)
		}
	})
	return gen
}

// chain is a chain with what is needed to read its rules.
type chain struct {
	hostcheck.Chain

	family byte // NFPROTO_…
	filter bool // its verdicts count: not a chain of nat
}

// resetBounds allows to read as much as the bounds say from now on.
func (f *filters) resetBounds() {
	f.rules, f.values, f.known, f.until = 0, 0, map[setKey][]element{}, time.Now().Add(f.patience())
}

// patience returns how long reading may take.
func (f *filters) patience() time.Duration {
	if f.inside {
		return patienceInside
	}
	return patience
}

// maxRules returns how many rules may be read.
func (f *filters) maxRules() int {
	if f.inside {
		return maxRulesInside
	}
	return maxRules
}

// read returns the chains at the hooks that count, those to which they lead, and
// those that show addresses of kube-proxy.
func (f *filters) read() ([]hostcheck.Chain, error) {
	f.resetBounds()
	known, queue, err := f.chains()
	if err != nil {
		return nil, err
	}
	var all []hostcheck.Chain
	done := map[*chain]bool{}
	for len(queue) > 0 {
		c := queue[0]
		queue = queue[1:]
		if done[c] {
			continue
		}
		if done[c] = true; len(done) > maxChains {
			return nil, fmt.Errorf("more than %d chains", maxChains)
		}
		if err := f.readRules(c); err != nil {
			return nil, fmt.Errorf("rules of chain %s %s %s: %w", c.Family, c.Table, c.Name, err)
		}
		all = append(all, c.Chain)
		for _, r := range c.Rules {
			if to := known[chainKey(c.family, c.Table, r.To)]; to != nil && c.filter {
				to.filter = true
				queue = append(queue, to)
			}
		}
	}
	return append(all, f.kubeProxyChains(known)...), nil
}

// kubeProxyChains returns a chain with the addresses of kube-proxy's services in its
// mode nftables. They are in sets, alone or followed by protocol and port.
func (f *filters) kubeProxyChains(known map[string]*chain) (all []hostcheck.Chain) {
	done := map[byte]bool{}
	for _, c := range known {
		if c.Table != "kube-proxy" || done[c.family] {
			continue
		}
		done[c.family] = true
		size := 4
		if c.family == unix.NFPROTO_IPV6 {
			size = 16
		}
		o := hostcheck.Condition{Field: hostcheck.Destination}
		for _, name := range []string{"cluster-ips", "service-ips"} {
			for _, e := range f.elements(c, name) {
				if a, ok := netip.AddrFromSlice(e.value[:min(size, len(e.value))]); ok {
					o.Spans = append(o.Spans, hostcheck.Span{First: a, Last: a})
				}
			}
		}
		all = append(all, hostcheck.Chain{
			Family: c.Family, Table: c.Table, Name: "service-ips",
			Rules: []hostcheck.Rule{{Conditions: []hostcheck.Condition{o}}},
		})
	}
	return all
}

// chainKey identifies a chain among those of the kernel.
func chainKey(family byte, table, name string) string {
	return string(family) + table + "\x00" + name
}

// chains returns all chains by chainKey, and those with which reading begins.
func (f *filters) chains() (known map[string]*chain, first []*chain, err error) {
	known = map[string]*chain{}
	err = f.conn.dump(nftMessage(unix.NFT_MSG_GETCHAIN), header(unix.NFPROTO_UNSPEC), nil, func(m []byte) error {
		c := parseChain(m)
		if c == nil {
			return nil
		}
		known[chainKey(c.family, c.Table, c.Name)] = c
		if c.Hook != "" && c.filter && (f.inside || c.Hook != hostcheck.Output) || c.Name == "KUBE-SERVICES" {
			first = append(first, c)
		}
		return nil
	})
	return known, first, err
}

var familyNames = map[byte]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}

var hookNames = map[uint32]hostcheck.Hook{
	unix.NF_INET_PRE_ROUTING: hostcheck.Prerouting,
	unix.NF_INET_LOCAL_IN:    hostcheck.Input, unix.NF_INET_FORWARD: hostcheck.Forward,
	unix.NF_INET_LOCAL_OUT: hostcheck.Output,
}

// parseChain reads a message about a chain of others; nil: the chain is ours, or of
// a family or hook that does not count.
func parseChain(m []byte) *chain {
	c := &chain{family: m[0]}
	c.Family = familyNames[m[0]]
	based := false
	eachAttribute(m[4:], func(kind uint16, data []byte) {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			c.Table = cString(data)
		case unix.NFTA_CHAIN_NAME:
			c.Name = cString(data)
		case unix.NFTA_CHAIN_TYPE:
			c.filter = cString(data) == "filter"
		case unix.NFTA_CHAIN_POLICY:
			c.Drops = uint32Of(data) == 0 // NF_DROP
		case unix.NFTA_CHAIN_HOOK:
			based = true
			eachAttribute(data, func(kind uint16, data []byte) {
				switch kind {
				case unix.NFTA_HOOK_HOOKNUM:
					c.Hook = hookNames[uint32Of(data)]
				case unix.NFTA_HOOK_PRIORITY:
					c.Priority = int32(uint32Of(data))
				}
			})
		}
	})
	if c.Family == "" || based && c.Hook == "" && c.Name != "KUBE-SERVICES" || strings.HasPrefix(c.Table, "meshd") {
		return nil
	}
	return c
}

// readRules reads the rules of a chain.
func (f *filters) readRules(c *chain) error {
	where := attribute(attribute(nil, unix.NFTA_RULE_TABLE, []byte(c.Table+"\x00")), unix.NFTA_RULE_CHAIN,
		[]byte(c.Name+"\x00"))
	return f.conn.dump(nftMessage(unix.NFT_MSG_GETRULE), header(c.family), where, func(m []byte) error {
		var expressions []byte
		eachAttribute(m[4:], func(kind uint16, data []byte) {
			if kind == unix.NFTA_RULE_EXPRESSIONS {
				expressions = data
			}
		})
		return f.addRules(c, f.parseRule(c, expressions))
	})
}

// addRules adds to a chain what one rule of the kernel was turned into. A rule that
// decides nothing counts as one too, since it was read.
func (f *filters) addRules(c *chain, all []hostcheck.Rule) error {
	f.rules += max(len(all), 1)
	for i := range all {
		f.values += all[i].Values()
	}
	c.Rules = append(c.Rules, all...)
	switch {
	case f.rules > f.maxRules():
		return fmt.Errorf("%w: there are more than %d rules", errTooMuch, f.maxRules())
	case f.values > maxAll:
		return fmt.Errorf("%w: there are more than %d values in rules", errTooMuch, maxAll)
	case time.Now().After(f.until):
		return fmt.Errorf("%w: it takes longer than %v", errTooMuch, f.patience())
	}
	return nil
}

// element is an element of a set or of a map of verdicts.
type element struct {
	value   []byte
	ends    bool              // value is the first one after an interval
	verdict hostcheck.Verdict // of a map
	to      string            // of a map, for jumps: the chain
}

// elements returns the elements of a set; nil: there are too many, or they cannot be
// read.
func (f *filters) elements(c *chain, set string) []element {
	k := setKey{c.family, c.Table, set}
	if all, ok := f.known[k]; ok {
		return all
	}
	where := attribute(attribute(nil, unix.NFTA_SET_ELEM_LIST_TABLE, []byte(c.Table+"\x00")), unix.NFTA_SET_ELEM_LIST_SET,
		[]byte(set+"\x00"))
	all := []element{}
	err := f.sets.dump(nftMessage(unix.NFT_MSG_GETSETELEM), header(c.family), where, func(m []byte) error {
		eachAttribute(m[4:], func(kind uint16, data []byte) {
			if kind == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				eachAttribute(data, func(_ uint16, data []byte) { all = append(all, parseElement(data)) })
			}
		})
		if len(all) > maxValues {
			return errTooMuch
		}
		return nil
	})
	if f.values += len(all); f.values > maxAll {
		err = errTooMuch
	}
	if err != nil {
		all = nil
	}
	f.known[k] = all
	return all
}

// parseElement reads the attributes of an element.
func parseElement(b []byte) (e element) {
	eachAttribute(b, func(kind uint16, data []byte) {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			eachAttribute(data, func(_ uint16, data []byte) { e.value = slices.Clone(data) })
		case unix.NFTA_SET_ELEM_DATA:
			e.verdict, e.to = parseVerdict(data)
		case unix.NFTA_SET_ELEM_FLAGS:
			e.ends = uint32Of(data)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		}
	})
	return e
}

// parseVerdict reads the data of a verdict.
func parseVerdict(b []byte) (v hostcheck.Verdict, to string) {
	eachAttribute(b, func(kind uint16, data []byte) {
		if kind != unix.NFTA_DATA_VERDICT {
			return
		}
		eachAttribute(data, func(kind uint16, data []byte) {
			switch kind {
			case unix.NFTA_VERDICT_CODE:
				v = verdictNumber(data)
			case unix.NFTA_VERDICT_CHAIN:
				to = cString(data)
			}
		})
	})
	return v, to
}

// verdictNumber translates the kernel's number of a verdict.
func verdictNumber(data []byte) hostcheck.Verdict {
	if len(data) != 4 {
		return hostcheck.Undecided
	}
	switch int32(binary.BigEndian.Uint32(data)) {
	case 0:
		return hostcheck.Drop
	case 1:
		return hostcheck.Accept
	case unix.NFT_CONTINUE, unix.NFT_BREAK:
		return hostcheck.Nothing
	case unix.NFT_JUMP:
		return hostcheck.Jump
	case unix.NFT_GOTO:
		return hostcheck.Goto
	case unix.NFT_RETURN:
		return hostcheck.Return
	}
	return hostcheck.Undecided
}
