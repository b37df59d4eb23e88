package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"meshd/state"
)

// Peer is a node that was once met: the reconnect loop of G2 tries it for as
// long as it is remembered.
type Peer struct {
	Name state.NodeID   `json:"name"`
	Addr netip.AddrPort `json:"addr"`
	Seen time.Time      `json:"seen"` // last time it was alive; local clock, for forgetting only
}

// peerMemory is how long a peer that was not seen is tried again.
const peerMemory = 72 * time.Hour

// LoadPeers reads a peers file. A missing file is an empty list; one that is
// not readable is an error that names it and says what to do.
func LoadPeers(path string) ([]Peer, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ps []Peer
	if err := json.Unmarshal(b, &ps); err != nil {
		return nil, fmt.Errorf("peers file %s is corrupted (%w): move it away; the node then joins through --join alone", path, err)
	}
	return ps, nil
}

// SavePeers writes a peers file so that a crash leaves the old or the new one.
func SavePeers(path string, ps []Peer) error {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, func(a, b Peer) int { return strings.Compare(string(a.Name), string(b.Name)) })
	b, err := json.MarshalIndent(ps, "", " ")
	if err != nil {
		return err
	}
	return WriteFile(path, append(b, '\n'), 0o600)
}

// WriteFile replaces a file atomically: temporary file, fsync, rename, fsync
// of the directory.
func WriteFile(path string, b []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
