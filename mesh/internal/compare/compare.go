// Package compare asks all nodes whether they agree: whether their tables are equal
// ("diff"), and whether a change is in effect everywhere ("--wait", N9).
//
// Nothing is kept for it. A question costs the node that is asked no more than a look at
// its own tables, in which it takes what peers write for written by strangers.
package compare

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/peers"
	"meshd/state"
)

// The names of the calls that a Service asks and answers.
const (
	CallSums   = "sums"
	CallSpread = "spread"
)

const (
	// answerTimeout is how long a peer's question may take.
	answerTimeout = time.Second
	// diffTries is how often Diff asks before it reports a difference: a change that is
	// under way is none. diffPause is between two of them.
	diffTries = 4
	diffPause = 250 * time.Millisecond
)

// Tables is what this node holds. It is safe for concurrent use.
type Tables interface {
	// Do calls f, which must not keep the store, within one step of the core. If it
	// returns an error, f was not called and will not be.
	Do(ctx context.Context, f func(s *state.Store)) error
	// Balanced reports whether the load balancer has what the view of a network shows.
	Balanced(ctx context.Context, network string) (bool, error)
}

// Config is what a Service needs.
type Config struct {
	Self      state.NodeID
	Tables    Tables
	Peers     peers.Caller
	NoNetwork func(name string) error // the error of a network that no node knows
}

// Service compares this node with all others. It implements a part of
// control.NodeBackend; its methods are safe for concurrent use.
type Service struct{ cfg Config }

// New returns a Service.
func New(cfg Config) *Service { return &Service{cfg} }

// sums is the answer to the call "sums", by network.
type sums map[string]sum

// sum is the state of one table.
type sum struct {
	Checksum string `json:"c"`
	Entries  int    `json:"n"`
}

// AnswerSums serves a peer's question.
func (s *Service) AnswerSums(state.NodeID, []byte) []byte {
	b, _ := json.Marshal(s.sums())
	return b
}

// sums returns this node's own.
func (s *Service) sums() sums {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	out := sums{}
	_ = s.cfg.Tables.Do(ctx, func(store *state.Store) {
		for _, t := range store.Tables() {
			out[t.Network()] = sum{control.ChecksumText(t.Checksum()), t.Len()}
		}
	})
	return out
}

// Diff implements control.NodeBackend.
func (s *Service) Diff(ctx context.Context, req control.DiffRequest) (control.Diff, error) {
	var d control.Diff
	for i := range diffTries {
		var err error
		if d, err = s.diffOnce(ctx, req); err != nil || d.Equal || i == diffTries-1 {
			return d, err
		}
		select {
		case <-time.After(diffPause):
		case <-ctx.Done():
			return d, ctx.Err()
		}
	}
	return d, nil
}

// diffOnce asks every node once.
func (s *Service) diffOnce(ctx context.Context, req control.DiffRequest) (control.Diff, error) {
	answers, silent, err := peers.CallAll(ctx, s.cfg.Peers, CallSums, nil, parseSums)
	if err != nil {
		return control.Diff{}, err
	}
	answers[string(s.cfg.Self)] = s.sums()
	d := control.Diff{Networks: []control.NetworkDiff{}, Silent: silent}
	byNet := map[string][]control.NodeChecksum{}
	for _, node := range slices.Sorted(maps.Keys(answers)) {
		for name, x := range answers[node] {
			if req.Network == "" || req.Network == name {
				byNet[name] = append(byNet[name], control.NodeChecksum{Node: node, Checksum: x.Checksum, Entries: x.Entries})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byNet)) {
		d.Networks = append(d.Networks, control.NetworkDiff{Network: name, Nodes: byNet[name], Differ: []string{}})
	}
	if req.Network != "" && len(d.Networks) == 0 {
		return d, s.cfg.NoNetwork(req.Network)
	}
	d.Compare()
	return d, nil
}

// maxSums is how many bytes an answer may have: more than those of 10,000 networks.
const maxSums = 2 << 20

// parseSums reads an answer, which comes from a peer.
func parseSums(b []byte) (sums, error) {
	var s sums
	if len(b) > maxSums || json.Unmarshal(b, &s) != nil {
		return nil, errors.New("malformed answer")
	}
	return s, nil
}
