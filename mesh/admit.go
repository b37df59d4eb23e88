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
	"meshd/mesh/control"
	"meshd/state"
)

const (
	poolsTimeout  = time.Second // for all nodes together
	maxPoolsAsked = 2           // one of each family
	maxPoolText   = 300         // characters of what a node says
	toldNodes     = 5           // that are named in an error
)

// poolsCall asks a node whether it could serve these pools.
type poolsCall struct {
	Pools []netip.Prefix `json:"pools"`
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
func (n *Node) onPoolCall(_ state.NodeID, body []byte) []byte {
	var c poolsCall
	var a poolsAnswer
	if json.Unmarshal(body, &c) == nil && len(c.Pools) <= maxPoolsAsked {
		a.Against = n.against(c.Pools)
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
	return lb.Against(all)
}

// admitPools refuses pools that touch this host or another live node, and
// returns the nodes that did not answer: what they will not serve, they will
// not serve, and say so (L9).
func (n *Node) admitPools(ctx context.Context, def *state.NetworkDef) (silent []string, err error) {
	const fix = "choose a pool that no host of the mesh uses; ip address and ip route show what a host uses"
	c := poolsCall{}
	for _, p := range []netip.Prefix{def.Subnet4, def.Subnet6} {
		if p.IsValid() {
			c.Pools = append(c.Pools, p)
		}
	}
	if text := n.against(c.Pools); text != "" {
		return nil, control.Refuse(control.CodeConflict, fix, "subnet: this host cannot serve %s", text)
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	ask, cancel := context.WithTimeout(ctx, poolsTimeout)
	defer cancel()
	answers, mute, err := callAll(ask, n, callPools, body, parsePoolsAnswer)
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	var said []string
	for _, node := range slices.Sorted(maps.Keys(answers)) {
		text := answers[node].Against
		if text == "" {
			continue
		}
		if len(said) == toldNodes {
			said = append(said, "and more")
			break
		}
		said = append(said, fmt.Sprintf("node %s: %s", node, text))
	}
	if len(said) > 0 {
		return nil, control.Refuse(control.CodeConflict, fix, "subnet: %s", strings.Join(said, "; "))
	}
	for _, s := range mute {
		silent = append(silent, s.Node)
	}
	return silent, nil
}
