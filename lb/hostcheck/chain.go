package hostcheck

import (
	"net/netip"
	"slices"
	"strings"
)

// Hook is a point on a packet's way through the kernel where filters are called.
type Hook string

// The hooks.
const (
	Prerouting Hook = "prerouting"
	Input      Hook = "input"
	Forward    Hook = "forward"
	Output     Hook = "output"
)

// Chain is a chain of nftables, of iptables on top of it, or of iptables' own tables
// in the kernel, with its rules as far as they are understood. Chains without a hook
// are only jumped to.
type Chain struct {
	// Program is what writes the table if it is one of iptables' own in the kernel,
	// and empty otherwise. Such a table and one of nftables may have the same name.
	Program  string
	Family   string // ip, ip6, inet
	Table    string
	Name     string
	Hook     Hook // empty: none
	Priority int32
	Drops    bool // the policy is drop
	Rules    []Rule
}

// Verdict is what becomes of a packet that a rule matches.
type Verdict int8

// The verdicts.
const (
	Nothing Verdict = iota // the packet goes on to the next rule
	Accept                 // this chain accepts it; others at the hook may still drop it
	Drop                   // or reject
	Jump
	Goto
	Return
	Undecided // not understood: the packet may be accepted
)

// Rule is one rule: a packet that meets all conditions gets the verdict.
type Rule struct {
	Conditions []Condition
	Verdict    Verdict
	To         string // the chain that Jump and Goto lead to
}

// Field is what a condition looks at.
type Field int8

// The fields. OriginalSource and OriginalDestination are those of the connection's
// first packet before translation, for packets of both directions.
const (
	Incomprehensible Field = iota // not understood
	Family                        // 4 or 6
	Protocol
	SourcePort
	DestinationPort
	State  // of conntrack, its bits
	Status // of conntrack, its bits
	InDevice
	OutDevice
	Source
	Destination
	OriginalSource
	OriginalDestination
	DestinationType // of the destination: the host's own, one of another host, a broadcast …
)

// Condition compares a field with values of one kind. It is met if one of them
// matches, or, with Not, if none does.
type Condition struct {
	Field   Field
	Not     bool
	Numbers []Numbers // Family, ports, Protocol
	Mask    uint32    // State, Status, DestinationType: one of these bits is enough
	Names   []string  // devices; a * at the end matches any rest
	Spans   []Span    // addresses
}

// Numbers are the numbers from First to Last, both included.
type Numbers struct{ First, Last uint32 }

// Span are the addresses from First to Last, both included.
type Span struct{ First, Last netip.Addr }

// SpanOf returns the addresses of a prefix.
func SpanOf(p netip.Prefix) Span {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < p.Addr().BitLen(); i++ {
		last[i/8] |= 1 << (7 - i%8)
	}
	to, _ := netip.AddrFromSlice(last)
	return Span{p.Addr(), to}
}

// The bits of conntrack's state and status, as in the kernel.
const (
	StateInvalid     uint32 = 1
	StateEstablished uint32 = 2
	StateRelated     uint32 = 4
	StateNew         uint32 = 8
	StatusDNAT       uint32 = 32
)

// The bits of types of addresses, one for each of the kernel's numbers (rtnetlink.h).
// To a filter, an address of a pool is not the host's own, since it does not follow
// the routing rule that makes it so.
const (
	TypeUnicast uint32 = 1 << 1
	TypeLocal   uint32 = 1 << 2
)

// packet is a packet as a filter sees it. What is not known of it is zero, and then
// a condition on it is neither met nor missed for certain.
type packet struct {
	in         string     // device by which it came
	out        string     // device by which it leaves
	src        netip.Addr // as in its header now
	dst        netip.Addr // as in its header now
	osrc       netip.Addr // source of the connection's first packet
	odst       netip.Addr // destination of the connection's first packet, before translation
	state      uint32     // conntrack's, one of the bits State…
	status     uint32     // conntrack's, the bits Status…
	proto      uint32     // protocol number
	sourcePort uint32     // of TCP or UDP
	targetPort uint32     // of TCP or UDP
	targetType uint32     // of dst, one of the bits Type…
}

// reply returns the packet that answers the first one of a connection.
func (p packet) reply() packet {
	p.in, p.out = p.out, p.in
	p.src, p.dst = p.dst, p.src
	p.sourcePort, p.targetPort = p.targetPort, p.sourcePort
	p.state = StateEstablished
	return p
}

func (p *packet) is6() bool { return p.dst.Is6() || p.src.Is6() || p.odst.Is6() }

// truth is yes, no, or not known.
type truth int8

const (
	no truth = iota
	maybe
	yes
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// matches reports whether a packet meets the condition.
func (c *Condition) matches(p *packet) truth {
	got := c.matchField(p)
	if c.Not {
		return yes - got
	}
	return got
}

func (c *Condition) matchField(p *packet) truth {
	switch c.Field {
	case Family:
		family := uint32(4)
		if p.is6() {
			family = 6
		}
		return c.matchNumber(family)
	case Protocol:
		return c.matchNumber(p.proto)
	case SourcePort:
		return c.matchNumber(p.sourcePort)
	case DestinationPort:
		return c.matchNumber(p.targetPort)
	case State:
		return truthOf(p.state&c.Mask != 0)
	case Status:
		if p.status&c.Mask == 0 && c.Mask&^StatusDNAT != 0 {
			return maybe // it is not known what else happened to the connection
		}
		return truthOf(p.status&c.Mask != 0)
	case InDevice:
		return c.matchName(p.in)
	case OutDevice:
		return c.matchName(p.out)
	case Source:
		return c.matchAddress(p.src)
	case Destination:
		return c.matchAddress(p.dst)
	case OriginalSource:
		return c.matchAddress(p.osrc)
	case OriginalDestination:
		return c.matchAddress(p.odst)
	case DestinationType:
		if p.targetType == 0 {
			return maybe
		}
		return truthOf(p.targetType&c.Mask != 0)
	}
	return maybe
}

func (c *Condition) matchNumber(n uint32) truth {
	if n == 0 {
		return maybe
	}
	return truthOf(slices.ContainsFunc(c.Numbers, func(r Numbers) bool { return r.First <= n && n <= r.Last }))
}

func (c *Condition) matchName(device string) truth {
	if device == "" {
		return maybe
	}
	return truthOf(slices.ContainsFunc(c.Names, func(n string) bool {
		if stem, ok := strings.CutSuffix(n, "*"); ok {
			return strings.HasPrefix(device, stem)
		}
		return n == device
	}))
}

func (c *Condition) matchAddress(a netip.Addr) truth {
	if !a.IsValid() {
		return maybe
	}
	return truthOf(slices.ContainsFunc(c.Spans, func(s Span) bool {
		return s.First.Is4() == a.Is4() && s.First.Compare(a) <= 0 && a.Compare(s.Last) <= 0
	}))
}

// matches reports whether a packet meets all conditions.
func (r *Rule) matches(p *packet) truth {
	least := yes
	for i := range r.Conditions {
		least = min(least, r.Conditions[i].matches(p))
	}
	return least
}

// chainKey identifies a chain.
type chainKey struct{ program, family, table, name string }

func (c *Chain) key() chainKey { return c.keyOf(c.Name) }

// String names the chain for people.
func (c *Chain) String() string {
	s := "chain " + c.Name + " of table " + c.Family + " " + c.Table
	if c.Program != "" {
		s += " of " + c.Program
	}
	return s
}

// keyOf returns the key of the chain of that name in the same table.
func (c *Chain) keyOf(name string) chainKey { return chainKey{c.Program, c.Family, c.Table, name} }

// Values returns how many values the conditions of a rule compare with.
func (r *Rule) Values() (n int) {
	for i := range r.Conditions {
		c := &r.Conditions[i]
		n += len(c.Numbers) + len(c.Names) + len(c.Spans)
	}
	return n
}

// ruleset are chains by name.
type ruleset map[chainKey]*Chain

// maxDepth is the kernel's bound on jumps. maxSteps bounds the rules that are
// followed for one packet in one base chain, since chains can jump to each other in
// very many ways. Comparing valuesPerStep values takes as long as another rule.
const (
	maxDepth      = 16
	maxSteps      = 20000
	valuesPerStep = 32
)

// walk follows a packet through a base chain. What is not understood may accept it,
// and never drops it, so that a finding is never false.
type walk struct {
	rules     ruleset
	packet    *packet
	mayAccept bool // something may have accepted it
	steps     int
	droppedBy *Chain // where it is dropped
	byPolicy  bool   // by the policy
}

// evaluate returns the walk that ended in a drop if the base chain certainly drops
// the packet, else nil, and how many steps that took.
func (r ruleset) evaluate(base *Chain, p *packet) (dropped *walk, steps int) {
	if base.Family == "ip" && p.is6() || base.Family == "ip6" && !p.is6() {
		return nil, 1
	}
	w := &walk{rules: r, packet: p}
	verdict := w.walkChain(base, 0, true)
	if verdict == Nothing && base.Drops {
		verdict, w.droppedBy, w.byPolicy = Drop, base, true
	}
	if verdict != Drop || w.mayAccept {
		return nil, w.steps + 1
	}
	return w, w.steps + 1
}

// walkChain returns Accept, Drop, or Nothing if the packet leaves the chain at its
// end. certain: the packet certainly enters the chain.
func (w *walk) walkChain(c *Chain, depth int, certain bool) Verdict {
	if depth > maxDepth {
		w.mayAccept = true
		return Nothing
	}
	for i := range c.Rules {
		r := &c.Rules[i]
		if w.steps += 1 + r.Values()/valuesPerStep; w.steps > maxSteps {
			w.mayAccept = true
			return Nothing
		}
		m := r.matches(w.packet)
		if m == no {
			continue
		}
		verdict, ends := w.applyRule(c, r, depth, certain && m == yes)
		if ends {
			return verdict
		}
	}
	return Nothing
}

// applyRule returns what becomes of a packet that meets, or may meet, a rule, and
// whether it goes no further in the chain.
func (w *walk) applyRule(c *Chain, r *Rule, depth int, certain bool) (verdict Verdict, ends bool) {
	switch r.Verdict {
	case Accept:
		if !certain {
			w.mayAccept = true
		}
		return Accept, certain
	case Drop:
		if certain {
			w.droppedBy = c
		}
		return Drop, certain
	case Return:
		// A packet that may return may miss the rules that follow.
		if !certain {
			w.mayAccept = w.mayAccept || !w.onlyAccepts(c)
		}
		return Nothing, certain
	case Jump, Goto:
		to := w.rules[c.keyOf(r.To)]
		if to == nil {
			w.mayAccept = true
			return Nothing, false
		}
		got := w.walkChain(to, depth+1, certain)
		return got, certain && (got != Nothing || r.Verdict == Goto)
	case Undecided:
		w.mayAccept = true
	}
	return Nothing, false
}

// onlyAccepts reports whether no rule of a chain drops or leads elsewhere: then a
// packet that misses some of them is not better off.
func (w *walk) onlyAccepts(c *Chain) bool {
	return !slices.ContainsFunc(c.Rules, func(r Rule) bool {
		return r.Verdict == Drop || r.Verdict == Jump ||
			r.Verdict == Goto
	})
}
