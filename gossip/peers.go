package gossip

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"meshd/state"
)

// This file owns the form of the two peers files, what they may hold, and when a peer is
// too old. Who writes them when is the caller's choice, see HostConfig.SavePeers.
//
// The peers file holds all peers of a moment, the log what changed since: a line per
// change, with its checksum before it. Its first line says of which peers file it goes on.

// Peer is a node that once answered: the reconnect loop of G2 dials it for as
// long as it is remembered.
type Peer struct {
	Name state.NodeID   `json:"name"`
	Addr netip.AddrPort `json:"addr,omitzero"`
	Seen time.Time      `json:"seen,omitzero"` // last time it was alive; local clock, for forgetting only
}

// PeerChange is a change of what is remembered.
type PeerChange struct {
	Peer
	Gone bool `json:"gone,omitempty"` // the peer is forgotten; of Peer only the name counts
}

// peerMemory is how long a peer that was not seen is dialled.
const peerMemory = 72 * time.Hour

// maxPeers bounds the peers that are remembered: as many as a mesh has nodes. Host.PeerRoom
// tells of it.
const maxPeers = maxMembers

// maxPeerLine bounds a line of the log, in bytes: names and addresses are far shorter.
const maxPeerLine = 1024

// peerLogHead is the first line of a log.
type peerLogHead struct {
	After string `json:"after"` // hash of the peers file, in hexadecimal digits
}

// DecodePeers reads the content of a peers file and of its log. It returns the peers, by
// name, and how many lines of the log were left out because they are damaged; a last line
// that was not written to its end is not counted. A log of another peers file, as an
// earlier version leaves it behind, is not read. A peers file that holds what EncodePeers
// does not write is an error. A clock that is wrong, now or when the files were written,
// makes no peer be forgotten.
func DecodePeers(file, log []byte, now time.Time) (ps []Peer, damaged int, err error) {
	known, err := decodeFile(file)
	if err != nil {
		return nil, 0, err
	}
	damaged = replayLog(known, file, log)
	for _, name := range slices.Sorted(maps.Keys(known)) {
		ps = append(ps, known[name])
	}
	return plausible(ps, now), damaged, nil
}

// decodeFile reads a peers file. It takes no more memory than the peers that there may be.
func decodeFile(file []byte) (map[state.NodeID]Peer, error) {
	dec := json.NewDecoder(bytes.NewReader(file))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.Join(errors.New("it is no list of peers"), err)
	}
	known := map[state.NodeID]Peer{}
	for dec.More() {
		var p Peer
		if err := dec.Decode(&p); err != nil {
			return nil, err
		}
		if err := checkPeer(&p); err != nil {
			return nil, err
		}
		if _, twice := known[p.Name]; twice {
			return nil, fmt.Errorf("peer %q is there twice", p.Name)
		}
		if known[p.Name] = p; len(known) > maxPeers {
			return nil, fmt.Errorf("more than %d peers", maxPeers)
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after its end")
	}
	return known, nil
}

func checkPeer(p *Peer) error {
	if err := state.CheckName(string(p.Name)); err != nil {
		return err
	}
	if err := state.CheckPeerAddr(p.Addr); err != nil {
		return fmt.Errorf("address of peer %q: %w", p.Name, err)
	}
	return nil
}

// replayLog makes the changes of a log that goes on from file. It returns how many lines
// are damaged.
func replayLog(known map[state.NodeID]Peer, file, log []byte) (damaged int) {
	first, rest, _ := bytes.Cut(log, []byte("\n"))
	var head peerLogHead
	if !openLine(first, &head) || head.After != fileHash(file) {
		return 0
	}
	for {
		line, more, whole := bytes.Cut(rest, []byte("\n"))
		if !whole {
			return damaged
		}
		rest = more
		var c PeerChange
		if !openLine(line, &c) || !replay(known, &c) {
			damaged++
		}
	}
}

// replay makes one change, unless it is none that can be made.
func replay(known map[state.NodeID]Peer, c *PeerChange) bool {
	if c.Gone {
		delete(known, c.Name)
		return true
	}
	if _, ok := known[c.Name]; checkPeer(&c.Peer) != nil || !ok && len(known) >= maxPeers {
		return false
	}
	known[c.Name] = c.Peer
	return true
}

// sealLine appends v as a line of the log.
func sealLine(b []byte, v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(append(fmt.Appendf(b, "%08x ", crc32.ChecksumIEEE(text)), text...), '\n'), nil
}

// openLine reads a line of the log into v, and reports whether it is as it was written.
func openLine(line []byte, v any) bool {
	sum, text, _ := bytes.Cut(line, []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	return err == nil && len(line) <= maxPeerLine && uint32(want) == crc32.ChecksumIEEE(text) &&
		json.Unmarshal(text, v) == nil
}

func fileHash(file []byte) string { return fmt.Sprintf("%016x", xxhash.Sum64(file)) }

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

// EncodePeers returns the content of a peers file, and of the log that goes on from it.
func EncodePeers(ps []Peer) (file, log []byte, err error) {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, func(a, b Peer) int { return strings.Compare(string(a.Name), string(b.Name)) })
	if ps == nil {
		ps = []Peer{}
	}
	if file, err = json.MarshalIndent(ps, "", " "); err != nil {
		return nil, nil, err
	}
	file = append(file, '\n')
	log, err = sealLine(nil, peerLogHead{After: fileHash(file)})
	return file, log, err
}

// EncodePeerChanges returns what is to be appended to the log.
func EncodePeerChanges(changes []PeerChange) (lines []byte, err error) {
	for i := range changes {
		if lines, err = sealLine(lines, &changes[i]); err != nil {
			return nil, err
		}
	}
	return lines, nil
}
