package lbtest

import (
	"net/netip"
	"time"

	"meshd/state"
)

// Views is a store with one node, which states everything. Its views are real ones,
// and complete from the start. It is not safe for concurrent use.
type Views struct {
	*state.Store
	now time.Duration
}

// ticks is a Lamport clock for one node.
type ticks uint64

func (c *ticks) Tick() uint64     { *c++; return uint64(*c) }
func (c *ticks) Time() uint64     { return uint64(*c) }
func (c *ticks) Witness(t uint64) { *c = max(*c, ticks(t)) }

// NewViews returns the views of a node that takes part in these networks.
func NewViews(networks ...state.NetworkDef) *Views {
	v := &Views{Store: state.NewStore("node", 1, state.DefaultLimits(), new(ticks))}
	for _, def := range networks {
		table := v.Join(def.Name)
		table.SetDef(def)
		table.SetSynced()
	}
	v.publish()
	return v
}

func (v *Views) publish() {
	v.now += time.Minute // beyond every bound on the rate
	v.Publish(v.now)
}

// Commit writes changes to a network and publishes them.
func (v *Views) Commit(network string, changes ...state.Change) error {
	_, err := v.Table(network).Commit(changes)
	v.publish()
	return err
}

// VIPs claims addresses for a service; one of them may be the zero Addr.
func VIPs(service string, vip4, vip6 netip.Addr, birth uint64) state.Change {
	c := state.VIPClaim{Service: service, VIP4: vip4, VIP6: vip6, Birth: birth}
	return state.Change{Kind: state.KindVIP, Key: service, Body: string(state.AppendVIPClaim(nil, c))}
}

// Settings claims settings for a service.
func Settings(service string, s state.Settings) state.Change {
	body := state.AppendSettings(nil, state.SettingsClaim{Settings: s, Lamport: 1})
	return state.Change{Kind: state.KindSettings, Key: service, Body: string(body)}
}

// Task states an endpoint, after putting it in order.
func Task(e *state.Endpoint) state.Change {
	e.Normalize()
	return state.Change{Kind: state.KindEndpoint, Key: e.ID, Group: e.Service, Body: string(state.AppendEndpoint(nil, e))}
}

// Gone deletes the endpoint.
func Gone(id string) state.Change {
	return state.Change{Kind: state.KindEndpoint, Key: id, Delete: true}
}
