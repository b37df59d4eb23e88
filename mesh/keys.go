package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/mesh/control"
)

// keyAll runs an operation on every live node, this one last: while it
// encrypts with the old key, everybody still understands it.
func (n *Node) keyAll(ctx context.Context, c keyCall) (control.KeyReply, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return control.KeyReply{}, err
	}
	answers, silent, err := callAll(ctx, n, callKeys, body, parseKeyAnswer)
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
		return control.Refuse(control.CodeRefused, "start every meshd with the same --key-file; meshctl keygen makes one",
			"gossip is not encrypted: there is no keyring")
	}
	return nil
}

// Keys implements control.KeyBackend.
func (n *Node) Keys(ctx context.Context) (control.KeyReply, error) {
	if err := n.encrypted(); err != nil {
		return control.KeyReply{}, err
	}
	return n.keyAll(ctx, keyCall{Op: keyLs})
}

// InstallKey implements control.KeyBackend.
func (n *Node) InstallKey(ctx context.Context, req control.KeyRequest) (control.KeyReply, error) {
	key, _, err := req.Parse()
	if err = errors.Join(err, n.encrypted()); err != nil {
		return control.KeyReply{}, err
	}
	if key == nil {
		return control.KeyReply{}, control.Refuse(control.CodeInvalid,
			"give the whole key in base64; meshctl keygen makes one", "key: an id is not enough to install a key")
	}
	return n.keyAll(ctx, keyCall{Op: keyInstall, Key: key})
}

// UseKey implements control.KeyBackend.
func (n *Node) UseKey(ctx context.Context, req control.KeyRequest) (control.KeyReply, error) {
	id, have, err := n.keyState(ctx, req)
	if err != nil {
		return have, err
	}
	count := countOf(have, id)
	if count.Nodes < have.Total && (!req.Force || count.Nodes == 0) {
		return have, control.Refuse(control.CodeRefused,
			"install it everywhere first: meshctl key install KEY; --force leaves out those who do not have it",
			"key %s: only %d of %d nodes have it; those that do not answer: %s", id, count.Nodes, have.Total, silentNodes(have))
	}
	return n.keyAll(ctx, keyCall{Op: keyUse, ID: id})
}

// RemoveKey implements control.KeyBackend.
func (n *Node) RemoveKey(ctx context.Context, req control.KeyRequest) (control.KeyReply, error) {
	id, have, err := n.keyState(ctx, req)
	if err != nil {
		return have, err
	}
	if c := countOf(have, id); c.Primary > 0 {
		return have, control.Refuse(control.CodeRefused, "use another key first: meshctl key use KEY",
			"key %s: %d nodes still encrypt with it", id, c.Primary)
	}
	if countOf(have, id).Nodes == 0 && have.OK == have.Total { // a typing error must not look like a removal
		return have, control.Refuse(control.CodeNotFound, "meshctl key ls lists the keys that there are",
			"key %s: no node has it", id)
	}
	if req.Force {
		return n.keyAll(ctx, keyCall{Op: keyRemove, ID: id})
	}
	if have.OK < have.Total {
		return have, control.Refuse(control.CodeRefused,
			"wait until every node answers, or take the silent ones out of the mesh; --force locks them out",
			"key %s: %d of %d nodes do not answer and would be locked out: %s", id, have.Total-have.OK, have.Total,
			silentNodes(have))
	}
	if missing := n.away(ctx); len(missing) > 0 {
		return have, control.Refuse(control.CodeRefused,
			"wait for them, or let meshd forget them after 72 h; --force locks them out",
			"key %s: nodes %v are away and may have only that key", id, missing)
	}
	return n.keyAll(ctx, keyCall{Op: keyRemove, ID: id})
}

// silentNodes names the first few that did not answer.
func silentNodes(r control.KeyReply) string {
	const shown = 5
	var names []string
	for _, x := range r.Results {
		if x.Error != "" {
			names = append(names, x.Node)
		}
	}
	switch more := len(names) - shown; {
	case len(names) == 0:
		return "none"
	case more > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), more)
	}
	return strings.Join(names, ", ")
}

// away lists dead members that are still expected back.
func (n *Node) away(ctx context.Context) []string {
	var out []string
	nodes, _ := n.Nodes(ctx)
	for _, x := range nodes {
		if x.State == control.NodeDead && !nameOnly(x) && time.Since(x.Since) < 72*time.Hour {
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
	have, err := n.keyAll(ctx, keyCall{Op: keyLs})
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

// keyWarnings says what is not as it should be about keys.
func (n *Node) keyWarnings() []string {
	switch {
	case n.cfg.Insecure:
		return []string{fmt.Sprintf("gossip is open (--insecure): everybody who reaches %s can change what this host "+
			"does; make a key with meshctl keygen --out FILE and start every meshd with --key-file FILE instead", n.cfg.bind)}
	case len(n.keys.all()) == 0:
		return []string{"gossip is not encrypted: make a key with meshctl keygen --out FILE and start every meshd with " +
			"--key-file FILE"}
	}
	if d := n.keys.differs(n.current().KeyFile); d != "" {
		return []string{d}
	}
	return nil
}
