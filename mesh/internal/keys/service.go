// Package keys holds the mesh's gossip keys on one node: the key file, the keyring that
// survives a restart, and the changes of keys that commands and peers ask for (G9).
//
// A Store owns what is on disk, a Service what travels: it asks every node to list,
// install, use or remove a key, and serves the same requests of peers. Whoever has the
// gossip key may send them, so they are bounded, and a change that could cut this node
// off is made only if other nodes confirm that it does not. The package touches the key
// file, one file of the data directory and memberlist's keyring, and reaches other
// nodes through peers.Caller only. No error or log line shows a key.
package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/peers"
)

// CallName is the name of the call that Answer serves.
const CallName = "keys"

// Service changes keys on all nodes. It implements control.KeyBackend; its methods are
// safe for concurrent use.
type Service struct {
	store *Store
	ring  Ring // nil: gossip is not encrypted
	peers peers.Caller
	self  string // this node's name
	log   *slog.Logger

	verdicts verdicts // on what peers asked for
}

var _ control.KeyBackend = (*Service)(nil)

// NewService returns the service of node self. A nil ring says that gossip is not
// encrypted.
func NewService(store *Store, ring Ring, caller peers.Caller, self string, log *slog.Logger) *Service {
	return &Service{store: store, ring: ring, peers: caller, self: self, log: log}
}

// onAll runs an operation on every live node, this one last: while it encrypts with
// the former key, every node still understands it.
func (s *Service) onAll(ctx context.Context, c call) (control.KeyReply, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return control.KeyReply{}, err
	}
	answers, silent, err := peers.CallAll(ctx, s.peers, CallName, body, parseAnswer)
	if err != nil {
		return control.KeyReply{}, err
	}
	answers[s.self] = s.execute(c)
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
	for _, x := range silent {
		r.Results = append(r.Results, control.NodeResult(x))
	}
	for _, id := range slices.Sorted(maps.Keys(counts)) {
		r.Keys = append(r.Keys, *counts[id])
	}
	slices.SortStableFunc(r.Keys, func(a, b control.KeyCount) int { return b.Primary - a.Primary })
	return r, nil
}

// checkEncrypted refuses where there is no keyring.
func (s *Service) checkEncrypted() error {
	if s.ring == nil {
		return control.Refuse(control.CodeRefused, "start every meshd with the same --key-file; meshctl keygen makes one",
			"gossip is not encrypted: there is no keyring")
	}
	return nil
}

// Keys implements control.KeyBackend.
func (s *Service) Keys(ctx context.Context) (control.KeyReply, error) {
	if err := s.checkEncrypted(); err != nil {
		return control.KeyReply{}, err
	}
	return s.onAll(ctx, call{Op: opList})
}

// InstallKey implements control.KeyBackend.
func (s *Service) InstallKey(ctx context.Context, req control.KeyRequest) (control.KeyReply, error) {
	key, _, err := req.Parse()
	if err = errors.Join(err, s.checkEncrypted()); err != nil {
		return control.KeyReply{}, err
	}
	if key == nil {
		return control.KeyReply{}, control.Refuse(control.CodeInvalid,
			"give the whole key in base64; meshctl keygen makes one", "key: an id is not enough to install a key")
	}
	return s.onAll(ctx, call{Op: opInstall, Key: key})
}

// UseKey implements control.KeyBackend.
func (s *Service) UseKey(ctx context.Context, req control.KeyRequest) (control.KeyReply, error) {
	id, have, err := s.lookUp(ctx, req)
	if err != nil {
		return have, err
	}
	count := countOf(have, id)
	if count.Nodes < have.Total && (!req.Force || count.Nodes == 0) {
		return have, control.Refuse(control.CodeRefused,
			"install it everywhere first: meshctl key install KEY; --force leaves out those who do not have it",
			"key %s: only %d of %d nodes have it; those that do not answer: %s", id, count.Nodes, have.Total, silentNodes(have))
	}
	return s.onAll(ctx, call{Op: opUse, ID: id})
}

// RemoveKey implements control.KeyBackend.
func (s *Service) RemoveKey(ctx context.Context, req control.KeyRequest) (control.KeyReply, error) {
	id, have, err := s.lookUp(ctx, req)
	if err != nil {
		return have, err
	}
	if c := countOf(have, id); c.Primary > 0 {
		return have, control.Refuse(control.CodeRefused, "use another key first: meshctl key use KEY",
			"key %s: %d nodes still encrypt with it", id, c.Primary)
	}
	if countOf(have, id).Nodes == 0 && have.OK == have.Total { // a misspelt id must not look like a removal
		return have, control.Refuse(control.CodeNotFound, "meshctl key ls lists the keys that there are",
			"key %s: no node has it", id)
	}
	if req.Force {
		return s.onAll(ctx, call{Op: opRemove, ID: id})
	}
	if have.OK < have.Total {
		return have, control.Refuse(control.CodeRefused,
			"wait until every node answers, or take the silent ones out of the mesh; --force locks them out",
			"key %s: %d of %d nodes do not answer and would be locked out: %s", id, have.Total-have.OK, have.Total,
			silentNodes(have))
	}
	if missing := s.away(ctx); len(missing) > 0 {
		return have, control.Refuse(control.CodeRefused,
			"wait for them, or let meshd forget them after 72 h; --force locks them out",
			"key %s: nodes %v are away and may have only that key", id, missing)
	}
	return s.onAll(ctx, call{Op: opRemove, ID: id})
}

// silentNodes names the first nodes that did not answer.
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

// away lists dead members that may come back.
func (s *Service) away(ctx context.Context) []string {
	var out []string
	nodes, _ := s.peers.Nodes(ctx)
	for _, x := range nodes {
		if x.State == control.NodeDead && !peers.NameOnly(x) && time.Since(x.Since) < 72*time.Hour {
			out = append(out, x.Name)
		}
	}
	return out
}

// lookUp returns the id of the key that a request names, and which nodes have which
// keys.
func (s *Service) lookUp(ctx context.Context, req control.KeyRequest) (string, control.KeyReply, error) {
	key, id, err := req.Parse()
	if err = errors.Join(err, s.checkEncrypted()); err != nil {
		return "", control.KeyReply{}, err
	}
	if len(key) > 0 {
		id = control.KeyID(key)
	}
	have, err := s.onAll(ctx, call{Op: opList})
	return id, have, err
}

// countOf returns how many nodes have a key, and how many encrypt with it.
func countOf(r control.KeyReply, id string) control.KeyCount {
	for _, k := range r.Keys {
		if k.ID == id {
			return k
		}
	}
	return control.KeyCount{ID: id}
}

// Warnings says what is wrong with the keys: that there are none, or that the key file
// differs from those in use. bind is the address of gossip, insecure whether it was said
// that it needs no key, file the path of the key file.
func (k *Store) Warnings(insecure bool, bind, file string) []string {
	switch {
	case insecure:
		return []string{fmt.Sprintf("gossip is open (--insecure): everybody who reaches %s can change what this host "+
			"does; make a key with meshctl keygen --out FILE and start every meshd with --key-file FILE instead", bind)}
	case len(k.All()) == 0:
		return []string{"gossip is not encrypted: make a key with meshctl keygen --out FILE and start every meshd with " +
			"--key-file FILE"}
	}
	if d := k.Difference(file); d != "" {
		return []string{d}
	}
	return nil
}
