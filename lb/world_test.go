package lb_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"meshd/state"
)

// world is a store whose one node says everything: the views are the real ones.
type world struct {
	t     testing.TB
	store *state.Store
	at    time.Duration
}

type ticks uint64

func (c *ticks) Tick() uint64     { *c++; return uint64(*c) }
func (c *ticks) Time() uint64     { return uint64(*c) }
func (c *ticks) Witness(t uint64) { *c = max(*c, ticks(t)) }

func newWorld(t testing.TB, networks ...string) *world {
	limits := state.DefaultLimits()
	limits.AllowLoopback = true // what state lets through, the balancer judges for itself
	w := &world{t: t, store: state.NewStore("node", 1, limits, new(ticks))}
	for _, n := range networks {
		w.store.Join(n).SetDef(state.NetworkDef{Name: n, Subnet4: pool4, Subnet6: pool6, Birth: 1})
	}
	w.publish()
	return w
}

func (w *world) publish() {
	w.at += time.Minute // beyond every bound on the rate
	w.store.Publish(w.at)
}

// commit writes changes to a network and publishes them.
func (w *world) commit(network string, changes ...state.Change) {
	w.t.Helper()
	if _, err := w.store.Table(network).Commit(changes); err != nil {
		w.t.Fatal(err)
	}
	w.publish()
}

// vip claims an address for a service.
func vip(service, addr string) state.Change {
	a, c := netip.MustParseAddr(addr), state.VIPClaim{Service: service, Birth: 1}
	if a.Is4() {
		c.VIP4 = a
	} else {
		c.VIP6 = a
	}
	return state.Change{Kind: state.KindVIP, Key: service, Body: string(state.AppendVIPClaim(nil, c))}
}

func settings(service string, s state.Settings) state.Change {
	body := state.AppendSettings(nil, state.SettingsClaim{Settings: s, Lamport: 1})
	return state.Change{Kind: state.KindSettings, Key: service, Body: string(body)}
}

// task states an endpoint; ports are as of state.ParsePort.
func (w *world) task(id, service, addr string, weight uint16, ports ...string) state.Change {
	return w.change(state.Endpoint{ID: id, Service: service, IP4: netip.MustParseAddr(addr), Weight: weight}, ports...)
}

func (w *world) sick(id, service, addr string, h state.Health, ports ...string) state.Change {
	return w.change(state.Endpoint{ID: id, Service: service, IP4: netip.MustParseAddr(addr), Health: h}, ports...)
}

func (w *world) change(e state.Endpoint, ports ...string) state.Change {
	w.t.Helper()
	for _, p := range ports {
		port, err := state.ParsePort(p)
		if err != nil {
			w.t.Fatal(err)
		}
		e.Ports = append(e.Ports, port)
	}
	e.Normalize()
	if err := e.Validate(); err != nil {
		w.t.Fatal(err)
	}
	return state.Change{Kind: state.KindEndpoint, Key: e.ID, Group: e.Service, Body: string(state.AppendEndpoint(nil, &e))}
}

func gone(id string) state.Change {
	return state.Change{Kind: state.KindEndpoint, Key: id, Delete: true}
}

// tasks states n endpoints of a service.
func (w *world) tasks(service string, n int, ports ...string) []state.Change {
	var all []state.Change
	for i := range n {
		all = append(all, w.task(fmt.Sprintf("%s-%d", service, i), service, fmt.Sprintf("10.0.0.%d", i+1), 1, ports...))
	}
	return all
}
