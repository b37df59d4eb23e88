//go:build linux

package hostile

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/gossip"
	"meshd/state"
	"meshd/test/rig"
)

// living is a node on the evil host that keeps to the protocol, so that the
// others take it for alive and show what it states, and states what it likes.
type living struct {
	m    *mesh
	host *gossip.Host
	gone bool
}

// transport is that of meshd, in a namespace.
type transport struct {
	memberlist.NodeAwareTransport
	from *rig.Host
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return t.from.Dial(ctx, "tcp", a.Addr)
}

// live starts such a node, until the case has ended, and waits until it knows
// the network.
func (m *mesh) live(name string, port uint16) (*living, error) {
	text, err := os.ReadFile(m.fleet.KeyFile)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, err
	}
	t := transport{from: m.evil}
	err = m.evil.Do(func() (err error) {
		t.NodeAwareTransport, err = gossip.OpenTransport(netip.AddrPortFrom(m.evil.Addr, port))
		return err
	})
	if err != nil {
		return nil, err
	}
	h, err := gossip.NewHost(gossip.HostConfig{
		Self: state.NodeID(name), Bind: netip.AddrPortFrom(m.evil.Addr, port), Advertise: m.evil.Addr,
		Join: []string{m.nodes[0].Host.Addr.String() + ":7946"},
		Keys: [][]byte{key}, Incarnation: 1, Transport: t, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(m.ctx)
	ended := make(chan struct{})
	go func() { _ = h.Run(ctx); close(ended) }()
	l := &living{m: m, host: h}
	m.later(func() {
		l.leave()
		cancel()
		<-ended
	})
	info := state.AppendNode(nil, state.NodeInfo{Boot: h.Boot(), Addr: h.Addr(), Version: "evil", LB: "none"})
	if err := l.state("", state.Change{Kind: state.KindNode, Body: string(info)}); err != nil {
		return nil, err
	}
	err = l.do(func(c *gossip.Core, now time.Duration) error { return c.JoinNetwork(now, network) })
	if err != nil {
		return nil, err
	}
	return l, m.soon(toRest, func() error {
		if v := h.Source().View(network); v == nil || !v.Synced() {
			return fmt.Errorf("%s does not know the network", name)
		}
		return nil
	})
}

func (l *living) do(f func(c *gossip.Core, now time.Duration) error) error {
	ctx, cancel := context.WithTimeout(l.m.ctx, 10*time.Second)
	defer cancel()
	var err error
	if e := l.host.Do(ctx, func(c *gossip.Core, now time.Duration) { err = f(c, now) }); e != nil {
		return e
	}
	return err
}

// state writes changes to its own stream.
func (l *living) state(name string, changes ...state.Change) error {
	return l.do(func(c *gossip.Core, now time.Duration) error { return c.Commit(now, name, changes) })
}

// leave says goodbye, so that nothing of it stays.
func (l *living) leave() {
	if l.gone {
		return
	}
	l.gone = true
	_ = l.do(func(c *gossip.Core, now time.Duration) error { c.Leave(now); return nil })
	l.m.peer.pause(300 * time.Millisecond)
}

// changes are records as edits of a stream.
func changes(records ...state.Record) (out []state.Change) {
	for _, r := range records {
		out = append(out, state.Change{Kind: r.Kind, Key: r.Key, Group: r.Group, Body: r.Body})
	}
	return out
}
