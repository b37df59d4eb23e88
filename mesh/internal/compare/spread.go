package compare

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"meshd/mesh/control"
	"meshd/mesh/internal/peers"
	"meshd/state"
)

// question is the call "spread": whether the answering node has what the asking node
// knows of a network. Nodes that do not know the call do not answer.
type question struct {
	Network string `json:"n,omitempty"` // empty: the global scope
	Defined bool   `json:"d,omitempty"` // the asking node knows the network
	Inc     uint64 `json:"i,omitempty"` // head of its own stream there; 0: it has none
	Version uint64 `json:"v,omitempty"`
}

// answer says what the answering node lacks.
type answer struct {
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

// maxMessage is how many bytes a question or an answer may have; none needs as many.
const maxMessage = 1024

// Spread implements control.NodeBackend.
func (s *Service) Spread(ctx context.Context, req control.SpreadRequest) (control.Spread, error) {
	q, synced, err := s.question(ctx, req.Network)
	if err != nil {
		return control.Spread{}, err
	}
	body, err := json.Marshal(q)
	if err != nil {
		return control.Spread{}, err
	}
	answers, silent, err := peers.CallAll(ctx, s.cfg.Peers, CallSpread, body, parseAnswer)
	if err != nil {
		return control.Spread{}, err
	}
	own := s.lacks(ctx, s.cfg.Self, q)
	if own == "" && !synced {
		own = lacksPeers
	}
	answers[string(s.cfg.Self)] = own
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
	for _, x := range silent {
		out.Results = append(out.Results, control.NodeResult(x))
	}
	slices.SortFunc(out.Results, func(a, b control.NodeResult) int { return strings.Compare(a.Node, b.Node) })
	return out, nil
}

// question says how far this node is in a network, and whether its own table there is
// complete.
func (s *Service) question(ctx context.Context, network string) (q question, synced bool, err error) {
	q = question{Network: network}
	err = s.cfg.Tables.Do(ctx, func(store *state.Store) {
		_, q.Defined = store.Defs()[network]
		t := store.Table(network)
		if synced = t == nil || t.View().Synced(); t == nil {
			return
		}
		if h, ok := t.Head(s.cfg.Self); ok {
			q.Inc, q.Version = h.Inc, h.Version
		}
	})
	return q, synced, err
}

// lacks says what of a node's changes is not in effect here.
func (s *Service) lacks(ctx context.Context, of state.NodeID, q question) (l lack) {
	takesPart := false
	err := s.cfg.Tables.Do(ctx, func(store *state.Store) {
		t := store.Table(q.Network)
		takesPart = t != nil
		l = lackIn(store, t, of, q)
	})
	if err != nil {
		return lacksChanges
	}
	if l != "" || !takesPart {
		return l
	}
	if balanced, err := s.cfg.Tables.Balanced(ctx, q.Network); err != nil || !balanced {
		return lacksBalancing
	}
	return ""
}

// lackIn looks at what the core holds; t is nil where this node takes no part.
func lackIn(s *state.Store, t *state.Table, of state.NodeID, q question) lack {
	if q.Network != "" {
		switch _, defined := s.Defs()[q.Network]; {
		case q.Defined && !defined:
			return lacksDefinition
		case !q.Defined && defined:
			return lacksRemoval
		}
	}
	if t == nil {
		return ""
	}
	h, _ := t.Head(of)
	if h.Inc < q.Inc || h.Inc == q.Inc && h.Version < q.Version {
		return lacksChanges
	}
	if t.Unpublished() {
		return lacksView
	}
	return ""
}

// AnswerSpread serves a peer's question; nil: it is none.
func (s *Service) AnswerSpread(from state.NodeID, body []byte) []byte {
	var q question
	if len(body) > maxMessage || json.Unmarshal(body, &q) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	b, _ := json.Marshal(answer{s.lacks(ctx, from, q)})
	return b
}

// parseAnswer reads an answer, which comes from a peer.
func parseAnswer(b []byte) (lack, error) {
	var a answer
	if len(b) > maxMessage || json.Unmarshal(b, &a) != nil {
		return "", errors.New("malformed answer")
	}
	return a.Lacks, nil
}
