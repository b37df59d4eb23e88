package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/mesh/peers"
	"meshd/state"
)

// spreadAsk is the call "spread": whether the answering node has what the asking
// one knows of a network. Nodes that do not know the call do not answer.
type spreadAsk struct {
	Network string `json:"n,omitempty"` // empty: the global scope
	Defined bool   `json:"d,omitempty"` // the asking node knows the network
	Inc     uint64 `json:"i,omitempty"` // head of its own stream there; 0: it has none
	Version uint64 `json:"v,omitempty"`
}

// spreadAnswer says what the answering node lacks.
type spreadAnswer struct {
	Lacks lack `json:"l,omitempty"`
}

// lack is the first thing that a change still has to do on a node before it is in
// effect there; empty: it is. The words travel between nodes.
type lack string

const (
	lacksDefinition lack = "definition"
	lacksRemoval    lack = "removal"
	lacksChanges    lack = "changes"
	lacksView       lack = "view"
	lacksBalancing  lack = "balancing"
	lacksPeers      lack = "peers" // of the asking node only
)

// String is the lack for people, as a predicate of the node.
func (l lack) String() string {
	switch l {
	case lacksDefinition:
		return "does not know the network yet"
	case lacksRemoval:
		return "still knows the network"
	case lacksChanges:
		return "does not have all changes of this node yet"
	case lacksView:
		return "does not answer with the changes yet"
	case lacksBalancing:
		return "has not given the changes to its load balancer yet"
	case lacksPeers:
		return "has not compared its table with a peer yet"
	}
	return "is not done"
}

// maxSpread is more than any question or answer.
const maxSpread = 1024

// Spread implements control.NodeBackend.
func (n *Node) Spread(ctx context.Context, req control.SpreadRequest) (control.Spread, error) {
	ask, synced, err := n.spreadAsk(ctx, req.Network)
	if err != nil {
		return control.Spread{}, err
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return control.Spread{}, err
	}
	answers, silent, err := peers.CallAll(ctx, caller{n}, callSpread, body, parseSpread)
	if err != nil {
		return control.Spread{}, err
	}
	own := n.lacks(ctx, state.NodeID(n.cfg.Node), ask)
	if own == "" && !synced {
		own = lacksPeers
	}
	answers[n.cfg.Node] = own
	out := control.Spread{Network: req.Network, Results: []control.NodeResult{}, Total: len(answers) + len(silent)}
	for node, l := range answers {
		r := control.NodeResult{Node: node}
		if l != "" {
			r.Error = l.String()
		} else {
			out.OK++
		}
		out.Results = append(out.Results, r)
	}
	for _, s := range silent {
		out.Results = append(out.Results, control.NodeResult(s))
	}
	slices.SortFunc(out.Results, func(a, b control.NodeResult) int { return strings.Compare(a.Node, b.Node) })
	return out, nil
}

// spreadAsk says how far this node is in a network, and whether its own table
// there is complete.
func (n *Node) spreadAsk(ctx context.Context, network string) (ask spreadAsk, synced bool, err error) {
	ask = spreadAsk{Network: network}
	err = n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		_, ask.Defined = c.Store().Defs()[network]
		t := c.Store().Table(network)
		if synced = t == nil || t.View().Synced(); t == nil {
			return
		}
		if h, ok := t.Head(state.NodeID(n.cfg.Node)); ok {
			ask.Inc, ask.Version = h.Inc, h.Version
		}
	})
	return ask, synced, err
}

// lacks says what of a node's changes is not in effect here.
func (n *Node) lacks(ctx context.Context, of state.NodeID, ask spreadAsk) (l lack) {
	takesPart := false
	err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		t := c.Store().Table(ask.Network)
		takesPart = t != nil
		l = lackIn(c, t, of, ask)
	})
	if err != nil {
		return lacksChanges
	}
	if l != "" || !takesPart {
		return l
	}
	if applied, err := n.balancer.Applied(ctx, ask.Network); err != nil || !applied {
		return lacksBalancing
	}
	return ""
}

// lackIn looks at what the core holds; t is nil where this node takes no part.
func lackIn(c *gossip.Core, t *state.Table, of state.NodeID, ask spreadAsk) lack {
	if ask.Network != "" {
		switch _, defined := c.Store().Defs()[ask.Network]; {
		case ask.Defined && !defined:
			return lacksDefinition
		case !ask.Defined && defined:
			return lacksRemoval
		}
	}
	if t == nil {
		return ""
	}
	h, _ := t.Head(of)
	if h.Inc < ask.Inc || h.Inc == ask.Inc && h.Version < ask.Version {
		return lacksChanges
	}
	if t.Unpublished() {
		return lacksView
	}
	return ""
}

// onSpreadCall answers another node's question.
func (n *Node) onSpreadCall(from state.NodeID, body []byte) []byte {
	var ask spreadAsk
	if len(body) > maxSpread || json.Unmarshal(body, &ask) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	b, _ := json.Marshal(spreadAnswer{n.lacks(ctx, from, ask)})
	return b
}

// parseSpread reads an answer, which comes from a peer.
func parseSpread(b []byte) (lack, error) {
	var a spreadAnswer
	if len(b) > maxSpread || json.Unmarshal(b, &a) != nil {
		return "", errors.New("malformed answer")
	}
	return a.Lacks, nil
}
