package mesh

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
	"meshd/state"
)

// Keys over the mesh (G9): a node asks every other to change its keyring. Who has
// the gossip key may ask, so what is asked is bounded, and what could cut this
// node off is done only if others say that it does not.

// The operations.
const (
	keyLs      = "ls"
	keyInstall = "install"
	keyUse     = "use"
	keyRemove  = "remove"
)

const (
	maxKeyCall   = 4 << 10  // bytes of a request
	maxKeyAnswer = 16 << 10 // and of an answer
	// keyWitnesses is how many others are asked before a key is used or removed
	// because a peer said so, witnessWait for how long, and judgementLasts how
	// long what they said counts: the peer asks again several times.
	keyWitnesses   = 16
	witnessWait    = 800 * time.Millisecond
	judgementLasts = 2 * time.Second
	// judgementsAtOnce bounds the judgements that are remembered or under way.
	judgementsAtOnce = 16
	// refusalsEvery is how often a refusal is logged at most.
	refusalsEvery = 10 * time.Second
)

// keyCall is a request of one node to another about its keyring.
type keyCall struct {
	Op  string `json:"op"`
	Key []byte `json:"key,omitempty"`
	ID  string `json:"id,omitempty"`
}

// keyAnswer is its keyring afterwards.
type keyAnswer struct {
	IDs   []string `json:"ids"` // the primary first
	Error string   `json:"error,omitempty"`
}

// parseKeyCall reads a request, which comes from a peer. No error shows a key.
func parseKeyCall(body []byte) (keyCall, error) {
	var c keyCall
	if len(body) > maxKeyCall || json.Unmarshal(body, &c) != nil {
		return c, errors.New("malformed request")
	}
	switch {
	case !slices.Contains([]string{keyLs, keyInstall, keyUse, keyRemove}, c.Op):
		return c, errors.New("unknown operation; is this node older?")
	case len(c.Key) > 0 && !keySize(len(c.Key)):
		return c, errors.New("malformed key")
	case len(c.Key) == 0 && c.Op == keyInstall, len(c.Key) == 0 && c.Op != keyLs && !isKeyID(c.ID):
		return c, errors.New("the key is missing")
	}
	return c, nil
}

// parseKeyAnswer reads an answer, which comes from a peer.
func parseKeyAnswer(body []byte) (keyAnswer, error) {
	var a keyAnswer
	if len(body) > maxKeyAnswer || json.Unmarshal(body, &a) != nil || len(a.IDs) > 4*maxKeys {
		return keyAnswer{}, errors.New("malformed answer")
	}
	for _, id := range a.IDs {
		if !isKeyID(id) {
			return keyAnswer{}, errors.New("malformed answer")
		}
	}
	if len(a.Error) > 512 {
		a.Error = a.Error[:512]
	}
	return a, nil
}

// isKeyID reports whether s looks like what control.KeyID gives.
func isKeyID(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == 12
}

// onKeyCall serves a peer's request.
func (n *Node) onKeyCall(from state.NodeID, body []byte) []byte {
	var a keyAnswer
	c, err := parseKeyCall(body)
	if err == nil && (c.Op == keyUse || c.Op == keyRemove) {
		err = n.judgeKeyCall(c)
	}
	if err == nil {
		a = n.keyOp(c)
	} else {
		if n.judged.tell() {
			n.log.Warn("a peer's request about keys was refused", "peer", string(from), "error", err)
		}
		a = n.keyOp(keyCall{Op: keyLs})
		a.Error = err.Error()
	}
	b, _ := json.Marshal(a)
	return b
}

// keyOp carries out an operation on this node's keyring. Every operation is
// idempotent: calls may be repeated.
func (n *Node) keyOp(c keyCall) keyAnswer {
	ring := n.host.Keyring()
	if ring == nil {
		return keyAnswer{Error: "gossip is not encrypted on this node (no --key-file)"}
	}
	var err error
	key := c.Key
	for _, k := range ring.GetKeys() {
		if len(key) == 0 && control.KeyID(k) == c.ID {
			key = k
		}
	}
	switch {
	case c.Op == keyLs, c.Op == keyRemove && len(key) == 0: // it is gone already
	case len(key) == 0:
		err = fmt.Errorf("it has no key %s", c.ID)
	default:
		err = n.keys.change(ring, c.Op, key)
	}
	a := keyAnswer{}
	if err != nil {
		a.Error = err.Error()
	}
	for _, k := range ring.GetKeys() {
		a.IDs = append(a.IDs, control.KeyID(k))
	}
	return a
}

// judgements remembers what others said of changes that a peer asked for, so
// that asking again and again costs nothing.
type judgements struct {
	mu   sync.Mutex // guards what follows
	last map[string]*judgement
	told time.Time // when a refusal was logged last
}

// tell reports whether it is time to log a refusal.
func (j *judgements) tell() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if time.Since(j.told) < refusalsEvery {
		return false
	}
	j.told = time.Now()
	return true
}

type judgement struct {
	at   time.Time
	done chan struct{} // closed when err is set
	err  error
}

// judge returns what was found lately, or lets find find it.
func (j *judgements) judge(what string, find func() error) error {
	j.mu.Lock()
	for w, x := range j.last {
		if time.Since(x.at) > judgementLasts {
			delete(j.last, w)
		}
	}
	have := j.last[what]
	if have == nil && len(j.last) >= judgementsAtOnce {
		j.mu.Unlock()
		return errors.New("too many requests about keys; ask again in some seconds")
	}
	mine := have == nil
	if mine {
		have = &judgement{at: time.Now(), done: make(chan struct{})}
		if j.last == nil {
			j.last = map[string]*judgement{}
		}
		j.last[what] = have
	}
	j.mu.Unlock()
	if mine {
		have.find(find)
	}
	<-have.done
	return have.err
}

// find lets others be found out, and those who wait go on, whatever becomes of it.
func (x *judgement) find(find func() error) {
	defer close(x.done)
	x.err = errors.New("internal error: it was not found out; see the log")
	x.err = find()
}

// judgeKeyCall asks some others whether a change would cut this node off.
func (n *Node) judgeKeyCall(c keyCall) error {
	id := c.ID
	if len(c.Key) > 0 {
		id = control.KeyID(c.Key)
	}
	return n.judged.judge(c.Op+" "+id, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), witnessWait)
		defer cancel()
		own := n.keyOp(keyCall{Op: keyLs})
		if len(own.IDs) == 0 {
			return nil // keyOp says why
		}
		said, err := n.witnesses(ctx)
		if err != nil {
			return err
		}
		return judgeKeys(c.Op, id, own.IDs[0], said)
	})
}

// witnesses returns the keyrings of some nodes that answer, of those who showed
// that they are there: names that somebody made up would fill the sample.
func (n *Node) witnesses(ctx context.Context) (map[string]keyAnswer, error) {
	body, err := json.Marshal(keyCall{Op: keyLs})
	if err != nil {
		return nil, err
	}
	nodes, err := n.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	nodes = slices.DeleteFunc(nodes, func(x control.Node) bool {
		return x.Self || !x.Proven ||
			x.State != control.NodeAlive
	})
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	said, _ := callNodes(ctx, n, nodes[:min(len(nodes), keyWitnesses)], callKeys, body, parseKeyAnswer)
	return said, nil
}

// judgeKeys decides whether a key may be used, or removed, by what others have.
func judgeKeys(op, id, primary string, said map[string]keyAnswer) error {
	if len(said) == 0 {
		return errors.New("no other node says which keys it has")
	}
	for node, a := range said {
		switch {
		case op == keyUse && !slices.Contains(a.IDs, id):
			return fmt.Errorf("node %s has no key %s", node, id)
		case op == keyRemove && len(a.IDs) > 0 && a.IDs[0] == id:
			return fmt.Errorf("node %s encrypts with key %s", node, id)
		case op == keyRemove && !slices.Contains(a.IDs, primary):
			return fmt.Errorf("node %s has no key %s, with which this one encrypts", node, primary)
		}
	}
	return nil
}
