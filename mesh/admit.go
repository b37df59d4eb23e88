package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meshd/lb"
	"meshd/lb/hostfacts"
	"meshd/state"
)

const (
	poolsTimeout  = time.Second // for all nodes together
	maxPoolsAsked = 2           // one of each family
	maxPoolText   = 300         // characters of what a node says
	toldNodes     = 5           // that are named in an error or a reply
)

// poolsCall asks a node what stands against these pools there.
type poolsCall struct {
	Pools []netip.Prefix `json:"pools"`
	// Name and Birth are those of the network that is to have them. Versions that
	// do not say them ask about the host only.
	Name  string `json:"name,omitempty"`
	Birth uint64 `json:"birth,omitempty"`
	// Known: a definition of that name is known where somebody asks, so that one
	// with other pools is no news, but what a person decides about.
	Known bool `json:"known,omitempty"`
}

// newPoolsCall returns the question about a definition.
func newPoolsCall(def *state.NetworkDef, known bool) poolsCall {
	c := poolsCall{Name: def.Name, Birth: def.Birth, Known: known}
	for _, p := range []netip.Prefix{def.Subnet4, def.Subnet6} {
		if p.IsValid() {
			c.Pools = append(c.Pools, p)
		}
	}
	return c
}

// def returns the definition that a question is about, and whether it is one.
func (c *poolsCall) def() (state.NetworkDef, bool) {
	d := state.NetworkDef{Name: c.Name, Birth: c.Birth}
	for _, p := range c.Pools {
		if p.Addr().Is4() {
			d.Subnet4 = p
		} else {
			d.Subnet6 = p
		}
	}
	return d, d.Validate() == nil
}

// poolsAnswer is what stands against them there, for people; empty: nothing.
type poolsAnswer struct {
	Against string `json:"against,omitempty"`
}

// parsePoolsAnswer reads what another node says, shortened for people.
func parsePoolsAnswer(b []byte) (poolsAnswer, error) {
	var a poolsAnswer
	err := json.Unmarshal(b, &a)
	a.Against = a.Against[:min(len(a.Against), maxPoolText)]
	return a, err
}

// onPoolCall serves a peer's question.
func (n *Node) onPoolCall(from state.NodeID, body []byte) []byte {
	var c poolsCall
	var a poolsAnswer
	if json.Unmarshal(body, &c) == nil && len(c.Pools) <= maxPoolsAsked {
		all := []string{n.against(c.Pools)}
		if def, ok := c.def(); ok {
			all = append(all, n.reg.registry().against(&def, c.Known), n.proposed.against(from, &def))
		}
		a.Against = strings.Join(slices.DeleteFunc(all, func(text string) bool { return text == "" }), "; ")
	}
	b, _ := json.Marshal(a)
	return b
}

// against says what on this host stands against some pools.
func (n *Node) against(pools []netip.Prefix) string {
	facts, _ := n.watch.Facts()
	var all []hostfacts.Conflict
	for _, p := range pools {
		if p.IsValid() && p == p.Masked() {
			all = append(all, hostfacts.Conflicts(p, facts)...)
		}
	}
	return lb.FormatConflicts(all)
}

// against says which network that this node states stands against a
// definition: the node that asks may not have heard of it yet.
func (r *registry) against(def *state.NetworkDef, known bool) string {
	for _, name := range slices.Sorted(maps.Keys(r.networks)) {
		o, ok := r.networks[name].states(name)
		if ok && excludes(&o, def) && (o.Name != def.Name || !known) {
			return fmt.Sprintf("network %q with %s is defined there", name, pools(o))
		}
	}
	return ""
}

// askPools asks this host and every other live node what stands against the
// pools of a definition there. It returns that, a line per node, and the nodes
// that did not answer: what they cannot serve, they will not serve, and say so
// (L9).
func (n *Node) askPools(ctx context.Context, def *state.NetworkDef, known bool) (against, silent []string, err error) {
	c := newPoolsCall(def, known)
	if text := n.against(c.Pools); text != "" {
		against = append(against, "this host cannot serve "+text)
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, nil, err
	}
	ask, cancel := context.WithTimeout(ctx, poolsTimeout)
	defer cancel()
	answers, mute, err := callAll(ask, n, callPools, body, parsePoolsAnswer)
	if err != nil && ctx.Err() != nil {
		return nil, nil, err
	}
	for _, node := range slices.Sorted(maps.Keys(answers)) {
		if text := answers[node].Against; text != "" {
			against = append(against, fmt.Sprintf("node %s: %s", node, text))
		}
	}
	if more := len(against) - toldNodes; more > 0 {
		against = append(against[:toldNodes], fmt.Sprintf("and %d more", more))
	}
	for _, s := range mute {
		silent = append(silent, s.Node)
	}
	return against, silent, nil
}
