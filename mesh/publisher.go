package mesh

import (
	"context"
	"errors"
	"time"

	"meshd/gossip"
	"meshd/mesh/config"
	"meshd/mesh/control"
	"meshd/mesh/internal/peers"
	"meshd/mesh/internal/registry"
	"meshd/state"
)

// publisher is the mesh as the registry sees it: a gossip.Host.
type publisher struct{ *gossip.Host }

var _ registry.Publisher = publisher{}

// Do implements registry.Publisher.
func (p publisher) Do(ctx context.Context, f func(c registry.Core)) error {
	err := p.Host.Do(ctx, func(c *gossip.Core, now time.Duration) { f(coreStep{c, now}) })
	if errors.Is(err, gossip.ErrStopped) {
		return registry.ErrStopped
	}
	return err
}

// coreStep is one step of the core.
type coreStep struct {
	core *gossip.Core
	now  time.Duration
}

func (s coreStep) Now() time.Duration             { return s.now }
func (s coreStep) Store() *state.Store            { return s.core.Store() }
func (s coreStep) Yielded() bool                  { return s.core.Yielded() }
func (s coreStep) Left() bool                     { return s.core.Left() }
func (s coreStep) LeaveNetwork(name string) error { return s.core.LeaveNetwork(s.now, name) }

func (s coreStep) Host(network, service string, h state.Hosting) { s.core.Host(network, service, h) }

func (s coreStep) Commit(network string, changes []state.Change) error {
	return s.core.Commit(s.now, network, changes)
}

func (s coreStep) JoinNetwork(name string) error {
	err := s.core.JoinNetwork(s.now, name)
	if errors.Is(err, gossip.ErrNameTaken) {
		return nameTakenError{err}
	}
	return err
}

func (s coreStep) MemberStates() map[state.NodeID]string {
	states := map[state.NodeID]string{}
	for _, m := range s.core.Members() {
		states[m.ID] = m.State
	}
	return states
}

// nameTakenError is a registry.ErrNameTaken with gossip's text.
type nameTakenError struct{ error }

func (nameTakenError) Is(target error) bool { return target == registry.ErrNameTaken }
func (e nameTakenError) Unwrap() error      { return e.error }

// registryPeers are the other nodes as the registry asks them.
type registryPeers struct{ *Node }

// AskPools implements registry.Peers.
func (p registryPeers) AskPools(ctx context.Context, body []byte) (
	map[string]registry.PoolsAnswer, []control.SilentNode, error,
) {
	return peers.CallAll(ctx, caller{p.Node}, callPools, body, registry.ParsePoolsAnswer)
}

// boundsOf returns what limits this node's statements.
func boundsOf(s *config.Settings) registry.Bounds {
	b := registry.DefaultBounds()
	if s.MaxTasks > 0 {
		b.Tasks = s.MaxTasks
	}
	if s.Reservation > 0 {
		b.Reservation = time.Duration(s.Reservation)
	}
	return b
}
