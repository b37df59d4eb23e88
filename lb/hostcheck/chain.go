package hostcheck

import (
	"net/netip"
	"slices"
	"strings"
)

// Hook is a place where the kernel hands packets to filters.
type Hook string

// The hooks.
const (
	Prerouting Hook = "prerouting"
	Input      Hook = "input"
	Forward    Hook = "forward"
	Output     Hook = "output"
)

// Chain is a chain of nftables, of iptables on top of it, or of iptables' own
// tables in the kernel, with what can be understood of its rules. Chains without a
// hook are jumped to.
type Chain struct {
	// Program writes the table, if that is one of iptables' own in the kernel, and
	// is empty otherwise. Such a table and one of nftables may have the same name.
	Program  string
	Family   string // ip, ip6, inet
	Table    string
	Name     string
	Hook     Hook // empty: none
	Priority int32
	Drops    bool // the policy
	Rules    []Rule
}

// Verdict is what becomes of a packet that a rule matches.
type Verdict int8

// The verdicts.
const (
	Nothing Verdict = iota // it goes on to the next rule
	Accept                 // by this chain of a hook; others may drop it yet
	Drop                   // or reject
	Jump
	Goto
	Return
	Undecided // nobody knows: it may be accepted
)

// Rule is one rule: what all conditions match gets the verdict.
type Rule struct {
	Conditions []Condition
	Verdict    Verdict
	To         string // of Jump and Goto
}

// Field is what a condition looks at.
type Field int8

// The fields. OriginalDestination is where the connection was sent to before it
// was translated, in both directions of it.
const (
	Incomprehensible Field = iota // something that is not understood
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
	DestinationType // of an address: the host's own, somebody's, or many hosts'
)

// Condition compares a field with values of one kind; one of them is enough.
type Condition struct {
	Field   Field
	Not     bool
	Numbers []Numbers // Family, ports, Protocol
	Mask    uint32    // State, Status, DestinationType: any of these bits
	Names   []string  // devices; a * at the end stands for anything
	Spans   []Span    // addresses
}

// Numbers are those from First to Last.
type Numbers struct{ First, Last uint32 }

// Span are the addresses from First to Last.
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

// The bits of types of addresses: a bit per number of the kernel's (rtnetlink.h).
// An address of a pool is not the host's own to rules: they do not follow the
// routing rule that makes it so.
const (
	TypeUnicast uint32 = 1 << 1
	TypeLocal   uint32 = 1 << 2
)

// packet is one for which chains are asked what becomes of it. What is not known
// of it is empty.
type packet struct {
	in, out                string
	src, dst, osrc, odst   netip.Addr
	state, status          uint32
	proto                  uint32
	sourcePort, targetPort uint32
	targetType             uint32
}

// reply returns the packet that answers a first one.
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

// matches says whether a packet meets a condition.
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
			return maybe // of what else happened to the connection nothing is known
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

// matches says whether a packet meets all conditions.
func (r *Rule) matches(p *packet) truth {
	least := yes
	for i := range r.Conditions {
		least = min(least, r.Conditions[i].matches(p))
	}
	return least
}

// key names a chain in its table.
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

// beside names a chain of the same table.
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

// maxDepth is the kernel's bound on jumps, and maxSteps bounds the rules that are
// looked at for one packet: chains that jump to each other many times are not
// worth more. So many values of a rule are compared in the time of another rule.
const (
	maxDepth      = 16
	maxSteps      = 20000
	valuesPerStep = 32
)

// walk asks one base chain what becomes of a packet. Whatever is not understood
// may accept it, and never drops it: what is told is true.
type walk struct {
	rules     ruleset
	packet    *packet
	mayAccept bool // something may have accepted it
	steps     int
	droppedBy *Chain // where it is dropped
	byPolicy  bool   // by the policy
}

// drops reports whether a base chain certainly drops a packet, and how many steps
// it took to know.
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

// chain returns Accept, Drop, or Nothing if the packet comes back. certain says
// that it comes here for sure.
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

// rule returns what a rule that matches does, and whether the chain ends there.
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
		// A packet that may go back may miss what follows.
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

// onlyAccepts reports whether it makes a packet's end no better to miss rules of
// a chain: none of them drops or leads elsewhere.
func (w *walk) onlyAccepts(c *Chain) bool {
	return !slices.ContainsFunc(c.Rules, func(r Rule) bool {
		return r.Verdict == Drop || r.Verdict == Jump ||
			r.Verdict == Goto
	})
}
