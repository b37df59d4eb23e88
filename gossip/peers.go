package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"meshd/state"
)

// This file owns the form of a peers file: what it may hold, and when a peer is too old.
// Who writes it when is the caller's choice, see HostConfig.SavePeers.

// Peer is a node that once answered: the reconnect loop of G2 dials it for as
// long as it is remembered.
type Peer struct {
	Name state.NodeID   `json:"name"`
	Addr netip.AddrPort `json:"addr"`
	Seen time.Time      `json:"seen"` // last time it was alive; local clock, for forgetting only
}

// peerMemory is how long a peer that was not seen is dialled.
const peerMemory = 72 * time.Hour

// maxPeers bounds the peers of a file: more than a mesh has nodes.
const maxPeers = 16_384

// LoadPeers reads a peers file. A missing file is an empty list. A file that
// cannot be read, or holds what EncodePeers does not write, is an error that
// names it. A clock that is wrong, now or when the file was written, makes no
// peer be forgotten.
func LoadPeers(path string, now time.Time) ([]Peer, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ps []Peer
	if err := json.Unmarshal(b, &ps); err != nil {
		return nil, fmt.Errorf("peers file %s is corrupted (%w)", path, err)
	}
	if err := checkPeers(ps); err != nil {
		return nil, fmt.Errorf("peers file %s is corrupted (%w)", path, err)
	}
	return plausible(ps, now), nil
}

func checkPeers(ps []Peer) error {
	if len(ps) > maxPeers {
		return fmt.Errorf("%d peers; at most %d", len(ps), maxPeers)
	}
	seen := map[state.NodeID]bool{}
	for _, p := range ps {
		if err := state.CheckName(string(p.Name)); err != nil {
			return err
		}
		if err := state.CheckPeerAddr(p.Addr); err != nil {
			return fmt.Errorf("address of peer %q: %w", p.Name, err)
		}
		if seen[p.Name] {
			return fmt.Errorf("peer %q is there twice", p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

// plausible moves the times of all peers if the latest of them is ahead of now,
// or so far behind that all would be forgotten: then one of the clocks was wrong,
// and no time passed.
func plausible(ps []Peer, now time.Time) []Peer {
	var latest time.Time
	for _, p := range ps {
		if p.Seen.After(latest) {
			latest = p.Seen
		}
	}
	if away := now.Sub(latest); away >= 0 && away < peerMemory {
		return ps
	}
	for i := range ps {
		ps[i].Seen = now.Add(-min(latest.Sub(ps[i].Seen), peerMemory))
	}
	return ps
}

// EncodePeers returns the content of a peers file.
func EncodePeers(ps []Peer) ([]byte, error) {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, func(a, b Peer) int { return strings.Compare(string(a.Name), string(b.Name)) })
	b, err := json.MarshalIndent(ps, "", " ")
	return append(b, '\n'), err
}
