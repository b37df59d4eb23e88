package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meshd/state"
)

const (
	poolsTimeout  = time.Second // for all nodes
	maxPoolsAsked = 2           // one of each family
	maxPoolText   = 300         // characters of what a node says
	maxNamed      = 5           // nodes that an error or a reply names
)

// poolsCall asks a node whether its host can serve some pools. It travels as JSON.
type poolsCall struct {
	Pools []netip.Prefix `json:"pools"`
	// Name and Birth are those of the network that is to have the pools. Versions that
	// do not send them ask about the host only.
	Name  string `json:"name,omitempty"`
	Birth uint64 `json:"birth,omitempty"`
	// Known says that the asking node knows a definition of that name. Then another
	// definition is no news to it: a person is deciding between them.
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

// PoolsAnswer is the answer to a poolsCall: the conflicts there, for people, or "".
type PoolsAnswer struct {
	Against string `json:"against,omitempty"`
}

// ParsePoolsAnswer reads an answer, which comes from a peer, and shortens it.
func ParsePoolsAnswer(b []byte) (PoolsAnswer, error) {
	var a PoolsAnswer
	err := json.Unmarshal(b, &a)
	a.Against = a.Against[:min(len(a.Against), maxPoolText)]
	return a, err
}

// AnswerPools answers a poolsCall of a peer.
func (api *NetworkAPI) AnswerPools(from state.NodeID, body []byte) []byte {
	var c poolsCall
	var a PoolsAnswer
	if json.Unmarshal(body, &c) == nil && len(c.Pools) <= maxPoolsAsked {
		all := []string{api.r.cfg.Balancing.AgainstPools(c.Pools)}
		if def, ok := c.def(); ok {
			all = append(all, api.r.Snapshot().against(&def, c.Known), api.r.proposed.against(from, &def))
		}
		a.Against = strings.Join(slices.DeleteFunc(all, func(text string) bool { return text == "" }), "; ")
	}
	b, _ := json.Marshal(a)
	return b
}

// against names a network that this node states and that excludes a definition. The
// node that asks may not have heard of it yet.
func (s *Snapshot) against(def *state.NetworkDef, known bool) string {
	for _, name := range slices.Sorted(maps.Keys(s.networks)) {
		o, ok := s.networks[name].states(name)
		if ok && excludes(&o, def) && (o.Name != def.Name || !known) {
			return fmt.Sprintf("network %q with %s is defined there", name, PoolsText(o))
		}
	}
	return ""
}

// askPools asks this host and every other live node for conflicts with the pools of a
// definition. It returns them, a line per node, and the nodes that did not answer. A
// node that cannot serve a pool does not serve it, and says so (L9), so silent nodes do
// not hold up a definition.
func (api *NetworkAPI) askPools(ctx context.Context, def *state.NetworkDef, known bool) (
	against, silent []string, err error,
) {
	c := newPoolsCall(def, known)
	if text := api.r.cfg.Balancing.AgainstPools(c.Pools); text != "" {
		against = append(against, "this host cannot serve "+text)
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, nil, err
	}
	ask, cancel := context.WithTimeout(ctx, poolsTimeout)
	defer cancel()
	answers, mute, err := api.r.cfg.Peers.AskPools(ask, body)
	if err != nil && ctx.Err() != nil {
		return nil, nil, err
	}
	for _, node := range slices.Sorted(maps.Keys(answers)) {
		if text := answers[node].Against; text != "" {
			against = append(against, fmt.Sprintf("node %s: %s", node, text))
		}
	}
	if more := len(against) - maxNamed; more > 0 {
		against = append(against[:maxNamed], fmt.Sprintf("and %d more", more))
	}
	for _, s := range mute {
		silent = append(silent, s.Node)
	}
	return against, silent, nil
}
