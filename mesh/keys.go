package mesh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"meshd/mesh/control"
	"meshd/state"
)

// keystore holds the keyring that the node starts with, and keeps what the
// mesh changed of it (G9). The configuration wins over a stale file: keys.json
// counts only as long as the key file is the one it was made from.
type keystore struct {
	dir *dataDir

	mu   sync.Mutex // guards what follows
	file savedKeys
}

type savedKeys struct {
	From string   `json:"from"` // hash of the key file's keys
	Keys [][]byte `json:"keys"` // the primary first
}

func openKeystore(dir *dataDir, configured [][]byte) (*keystore, error) {
	k := &keystore{dir: dir}
	h := sha256.New()
	for _, key := range configured {
		h.Write(key)
	}
	from := hex.EncodeToString(h.Sum(nil))
	if err := dir.load(fileKeys, &k.file); err != nil {
		return nil, err
	}
	if k.file.From != from {
		k.file = savedKeys{From: from, Keys: configured}
	}
	if len(configured) == 0 {
		k.file.Keys = nil
	}
	for i, key := range k.file.Keys {
		if len(key) != 16 && len(key) != 24 && len(key) != 32 {
			return nil, dir.corrupted(fileKeys, fmt.Errorf("key %d has %d bytes", i+1, len(key)), "move it away to start with --key-file alone")
		}
	}
	return k, nil
}

func (k *keystore) all() [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.file.Keys)
}

// save writes the keyring again, if the mesh ever changed it.
func (k *keystore) save() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.file.Keys) == 0 {
		return nil
	}
	return k.dir.save(fileKeys, k.file)
}

func (k *keystore) keep(keys [][]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.file.Keys = keys
	return k.dir.save(fileKeys, k.file)
}

// keyCall is a request of one node to another about its keyring.
type keyCall struct {
	Op  string `json:"op"` // install, use, remove, ls
	Key []byte `json:"key,omitempty"`
	ID  string `json:"id,omitempty"`
}

// keyAnswer is its keyring afterwards.
type keyAnswer struct {
	IDs   []string `json:"ids"` // the primary first
	Error string   `json:"error,omitempty"`
}

// onKeyCall serves a peer's request. A peer that has the gossip key may ask.
func (n *Node) onKeyCall(_ state.NodeID, body []byte) []byte {
	var c keyCall
	a := keyAnswer{Error: "malformed request"}
	if json.Unmarshal(body, &c) == nil {
		a = n.keyOp(c)
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
	key := c.Key
	if key == nil {
		for _, k := range ring.GetKeys() {
			if control.KeyID(k) == c.ID {
				key = k
			}
		}
	}
	var err error
	switch {
	case c.Op == "ls":
	case c.Op == "remove" && key == nil: // gone already
	case key == nil:
		err = fmt.Errorf("has no key %s", c.ID)
	case c.Op == "install":
		err = ring.AddKey(key)
	case c.Op == "use":
		err = ring.UseKey(key)
	case c.Op == "remove":
		err = ring.RemoveKey(key)
	default:
		err = fmt.Errorf("unknown operation %q", c.Op)
	}
	if err == nil && c.Op != "ls" {
		err = n.keys.keep(ring.GetKeys())
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

// keyAll runs an operation on every live node, this one last: while it
// encrypts with the old key, everybody still understands it.
func (n *Node) keyAll(ctx context.Context, c keyCall) (control.KeyReply, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return control.KeyReply{}, err
	}
	answers, silent, err := callAll[keyAnswer](ctx, n, callKeys, body)
	if err != nil {
		return control.KeyReply{}, err
	}
	answers[n.cfg.Node] = n.keyOp(c)
	r := control.KeyReply{Keys: []control.KeyCount{}, Results: []control.NodeResult{}, Total: len(answers) + len(silent)}
	counts := map[string]*control.KeyCount{}
	for _, node := range slices.Sorted(maps.Keys(answers)) {
		a := answers[node]
		r.Results = append(r.Results, control.NodeResult{Node: node, Error: a.Error})
		if a.Error == "" {
			r.OK++
		}
		for i, id := range a.IDs {
			if counts[id] == nil {
				counts[id] = &control.KeyCount{ID: id}
			}
			counts[id].Nodes++
			if i == 0 {
				counts[id].Primary++
			}
		}
	}
	for _, s := range silent {
		r.Results = append(r.Results, control.NodeResult(s))
	}
	for _, id := range slices.Sorted(maps.Keys(counts)) {
		r.Keys = append(r.Keys, *counts[id])
	}
	slices.SortStableFunc(r.Keys, func(a, b control.KeyCount) int { return b.Primary - a.Primary })
	return r, nil
}

func (n *Node) encrypted() error {
	if n.host.Keyring() == nil {
		return control.Refuse(control.CodeRefused, "start every meshd with the same --key-file; meshctl keygen makes one", "gossip is not encrypted: there is no keyring")
	}
	return nil
}

// Keys implements control.KeyBackend.
func (n *Node) Keys(ctx context.Context) (control.KeyReply, error) {
	if err := n.encrypted(); err != nil {
		return control.KeyReply{}, err
	}
	return n.keyAll(ctx, keyCall{Op: "ls"})
}

// InstallKey implements control.KeyBackend.
func (n *Node) InstallKey(ctx context.Context, req control.KeyRequest) (control.KeyReply, error) {
	key, _, err := req.Parse()
	if err = errors.Join(err, n.encrypted()); err != nil {
		return control.KeyReply{}, err
	}
	if key == nil {
		return control.KeyReply{}, control.Refuse(control.CodeInvalid, "give the whole key in base64; meshctl keygen makes one", "key: an id is not enough to install a key")
	}
	return n.keyAll(ctx, keyCall{Op: "install", Key: key})
}

// UseKey implements control.KeyBackend.
func (n *Node) UseKey(ctx context.Context, req control.KeyRequest) (control.KeyReply, error) {
	id, have, err := n.keyState(ctx, req)
	if err != nil {
		return have, err
	}
	count := countOf(have, id)
	if count.Nodes < have.Total {
		return have, control.Refuse(control.CodeRefused, "install it everywhere first: meshctl key install KEY", "key %s: only %d of %d nodes have it", id, count.Nodes, have.Total)
	}
	return n.keyAll(ctx, keyCall{Op: "use", ID: id})
}

// RemoveKey implements control.KeyBackend.
func (n *Node) RemoveKey(ctx context.Context, req control.KeyRequest) (control.KeyReply, error) {
	id, have, err := n.keyState(ctx, req)
	if err != nil {
		return have, err
	}
	if c := countOf(have, id); c.Primary > 0 {
		return have, control.Refuse(control.CodeRefused, "use another key first: meshctl key use KEY", "key %s: %d nodes still encrypt with it", id, c.Primary)
	}
	if have.OK < have.Total {
		return have, control.Refuse(control.CodeRefused, "wait until every node answers, or take the silent ones out of the mesh", "key %s: %d of %d nodes do not answer; they would be locked out", id, have.Total-have.OK, have.Total)
	}
	if missing := n.away(ctx); len(missing) > 0 {
		return have, control.Refuse(control.CodeRefused, "wait for them, or let meshd forget them after 72 h", "key %s: nodes %v are away and may have only that key", id, missing)
	}
	return n.keyAll(ctx, keyCall{Op: "remove", ID: id})
}

// away lists dead members that are still expected back.
func (n *Node) away(ctx context.Context) []string {
	var out []string
	nodes, _ := n.Nodes(ctx)
	for _, x := range nodes {
		if x.State == control.NodeDead && time.Since(x.Since) < 72*time.Hour {
			out = append(out, x.Name)
		}
	}
	return out
}

func (n *Node) keyState(ctx context.Context, req control.KeyRequest) (string, control.KeyReply, error) {
	key, id, err := req.Parse()
	if err = errors.Join(err, n.encrypted()); err != nil {
		return "", control.KeyReply{}, err
	}
	if !bytes.Equal(key, nil) {
		id = control.KeyID(key)
	}
	have, err := n.keyAll(ctx, keyCall{Op: "ls"})
	return id, have, err
}

func countOf(r control.KeyReply, id string) control.KeyCount {
	for _, k := range r.Keys {
		if k.ID == id {
			return k
		}
	}
	return control.KeyCount{ID: id}
}
