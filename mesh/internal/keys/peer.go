package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/peers"
	"meshd/state"
)

// The operations of a call.
const (
	opList    = "ls"
	opInstall = "install"
	opUse     = "use"
	opRemove  = "remove"
)

const (
	maxCall   = 4 << 10  // bytes of a request
	maxAnswer = 16 << 10 // bytes of an answer
	// maxWitnesses is how many other nodes are asked before a key is used or removed
	// because a peer asked for it, and witnessTimeout how long they have.
	maxWitnesses   = 16
	witnessTimeout = 800 * time.Millisecond
	// verdictLifetime is how long their answers count: the peer repeats its request.
	verdictLifetime = 2 * time.Second
	// maxVerdicts bounds the verdicts that are remembered or being found.
	maxVerdicts = 16
	// refusalInterval is how often a refusal is logged at most.
	refusalInterval = 10 * time.Second
)

// call is a request to another node about its keyring.
type call struct {
	Op  string `json:"op"`
	Key []byte `json:"key,omitempty"`
	ID  string `json:"id,omitempty"`
}

// answer is the keyring of the node that was asked, after it did what was asked.
type answer struct {
	IDs   []string `json:"ids"` // the primary first
	Error string   `json:"error,omitempty"`
}

// parseCall reads a request, which comes from a peer. No error shows a key.
func parseCall(body []byte) (call, error) {
	var c call
	if len(body) > maxCall || json.Unmarshal(body, &c) != nil {
		return c, errors.New("malformed request")
	}
	switch {
	case !slices.Contains([]string{opList, opInstall, opUse, opRemove}, c.Op):
		return c, errors.New("unknown operation; is this node older?")
	case len(c.Key) > 0 && !validSize(len(c.Key)):
		return c, errors.New("malformed key")
	case len(c.Key) == 0 && c.Op == opInstall, len(c.Key) == 0 && c.Op != opList && !isID(c.ID):
		return c, errors.New("the key is missing")
	}
	return c, nil
}

// parseAnswer reads an answer, which comes from a peer.
func parseAnswer(body []byte) (answer, error) {
	var a answer
	if len(body) > maxAnswer || json.Unmarshal(body, &a) != nil || len(a.IDs) > 4*maxKeys {
		return answer{}, errors.New("malformed answer")
	}
	for _, id := range a.IDs {
		if !isID(id) {
			return answer{}, errors.New("malformed answer")
		}
	}
	if len(a.Error) > 512 {
		a.Error = a.Error[:512]
	}
	return a, nil
}

// isID reports whether s looks like what control.KeyID gives.
func isID(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == 12
}

// Answer serves a peer's request.
func (s *Service) Answer(from state.NodeID, body []byte) []byte {
	var a answer
	c, err := parseCall(body)
	if err == nil && (c.Op == opUse || c.Op == opRemove) {
		err = s.checkCall(c)
	}
	if err == nil {
		a = s.execute(c)
	} else {
		if s.verdicts.logRefusal() {
			s.log.Warn("a peer's request about keys was refused", "peer", string(from), "error", err)
		}
		a = s.execute(call{Op: opList})
		a.Error = err.Error()
	}
	b, _ := json.Marshal(a)
	return b
}

// execute carries out an operation on this node's keyring. Every operation is
// idempotent, so a call may be repeated.
func (s *Service) execute(c call) answer {
	ring := s.ring
	if ring == nil {
		return answer{Error: "gossip is not encrypted on this node (no --key-file)"}
	}
	var err error
	key := c.Key
	for _, k := range ring.GetKeys() {
		if len(key) == 0 && control.KeyID(k) == c.ID {
			key = k
		}
	}
	switch {
	case c.Op == opList, c.Op == opRemove && len(key) == 0: // it is gone already
	case len(key) == 0:
		err = fmt.Errorf("it has no key %s", c.ID)
	default:
		err = s.store.change(ring, c.Op, key)
	}
	a := answer{}
	if err != nil {
		a.Error = err.Error()
	}
	for _, k := range ring.GetKeys() {
		a.IDs = append(a.IDs, control.KeyID(k))
	}
	return a
}

// verdicts remembers what witnesses said of changes that peers asked for, so that a
// request costs nothing when it is repeated. It is safe for concurrent use.
type verdicts struct {
	mu      sync.Mutex          // guards the fields below
	byCall  map[string]*verdict // at most maxVerdicts
	refused time.Time           // when a refusal was logged last
}

// verdict is what witnesses said of one change.
type verdict struct {
	at   time.Time
	done chan struct{} // closed when err is set
	err  error         // why the change is refused; nil: it is not
}

// logRefusal reports whether a refusal is to be logged now.
func (v *verdicts) logRefusal() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if time.Since(v.refused) < refusalInterval {
		return false
	}
	v.refused = time.Now()
	return true
}

// get returns the verdict on a change: the one that is remembered, or what find
// returns. Callers that ask for the same change at once share one find.
func (v *verdicts) get(change string, find func() error) error {
	v.mu.Lock()
	for c, x := range v.byCall {
		if time.Since(x.at) > verdictLifetime {
			delete(v.byCall, c)
		}
	}
	have := v.byCall[change]
	if have == nil && len(v.byCall) >= maxVerdicts {
		v.mu.Unlock()
		return errors.New("too many requests about keys; ask again in some seconds")
	}
	first := have == nil
	if first {
		have = &verdict{at: time.Now(), done: make(chan struct{})}
		if v.byCall == nil {
			v.byCall = map[string]*verdict{}
		}
		v.byCall[change] = have
	}
	v.mu.Unlock()
	if first {
		have.find(find)
	}
	<-have.done
	return have.err
}

// find sets the verdict; those who wait for it go on even if find panics.
func (x *verdict) find(find func() error) {
	defer close(x.done)
	x.err = errors.New("internal error: it was not found out; see the log")
	x.err = find()
}

// checkCall asks some other nodes whether a change would cut this node off.
func (s *Service) checkCall(c call) error {
	id := c.ID
	if len(c.Key) > 0 {
		id = control.KeyID(c.Key)
	}
	return s.verdicts.get(c.Op+" "+id, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), witnessTimeout)
		defer cancel()
		own := s.execute(call{Op: opList})
		if len(own.IDs) == 0 {
			return nil // execute says why
		}
		rings, err := s.witnesses(ctx)
		if err != nil {
			return err
		}
		return checkChange(c.Op, id, own.IDs[0], rings)
	})
}

// witnesses returns the keyrings of some nodes that answer. Only proven nodes (G17) are
// asked: names that a peer made up would fill the sample.
func (s *Service) witnesses(ctx context.Context) (map[string]answer, error) {
	body, err := json.Marshal(call{Op: opList})
	if err != nil {
		return nil, err
	}
	nodes, err := s.peers.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	nodes = slices.DeleteFunc(nodes, func(x control.Node) bool {
		return x.Self || !x.Proven || x.State != control.NodeAlive
	})
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	rings, _ := peers.Call(ctx, s.peers, nodes[:min(len(nodes), maxWitnesses)], CallName, body, parseAnswer)
	return rings, nil
}

// checkChange refuses to use or remove a key by what the keyrings of others hold;
// primary is the key with which this node encrypts.
func checkChange(op, id, primary string, rings map[string]answer) error {
	if len(rings) == 0 {
		return errors.New("no other node says which keys it has")
	}
	for node, a := range rings {
		switch {
		case op == opUse && !slices.Contains(a.IDs, id):
			return fmt.Errorf("node %s has no key %s", node, id)
		case op == opRemove && len(a.IDs) > 0 && a.IDs[0] == id:
			return fmt.Errorf("node %s encrypts with key %s", node, id)
		case op == opRemove && !slices.Contains(a.IDs, primary):
			return fmt.Errorf("node %s has no key %s, with which this one encrypts", node, primary)
		}
	}
	return nil
}
