//go:build !race

package gossip_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/gossip"
	"meshd/gossip/gossiptest"
	"meshd/state"
)

// deaf is a transport that receives what the test says, and loses the rest.
type deaf struct {
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func (d *deaf) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IPv4(10, 9, 0, 1), 7946, nil
}
func (d *deaf) PacketCh() <-chan *memberlist.Packet                 { return d.packets }
func (d *deaf) StreamCh() <-chan net.Conn                           { return d.streams }
func (d *deaf) WriteTo([]byte, string) (time.Time, error)           { return time.Now(), nil }
func (d *deaf) Shutdown() error                                     { return nil }
func (d *deaf) DialTimeout(string, time.Duration) (net.Conn, error) { return nil, net.ErrClosed }
func (d *deaf) WriteToAddress([]byte, memberlist.Address) (time.Time, error) {
	return time.Now(), nil
}

func (d *deaf) DialAddressTimeout(memberlist.Address, time.Duration) (net.Conn, error) {
	return nil, net.ErrClosed
}

// TestHostUnderGrammar: a whole node goes on under hostile packets, over
// datagrams and streams, without a panic, keeps what it states, and its queues
// are empty afterwards.
func TestHostUnderGrammar(t *testing.T) {
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) { underGrammar(t, seed) })
	}
}

func underGrammar(t *testing.T, seed uint64) {
	d := &deaf{make(chan *memberlist.Packet), make(chan net.Conn)}
	h, err := gossip.NewHost(gossip.HostConfig{
		Self: "a", Bind: netip.MustParseAddrPort("10.9.0.1:7946"), Profile: "lan", Incarnation: 1, Seed: seed + 1,
		Transport: d, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	finished := make(chan error, 1)
	go func() { finished <- h.Run(ctx) }()
	e := state.Endpoint{ID: "t1", Service: "web", IP4: netip.MustParseAddr("10.0.0.1")}
	e.Normalize()
	do(t, h, func(c *gossip.Core, now time.Duration) {
		if err := c.JoinNetwork(now, "net"); err != nil {
			t.Error(err)
		}
		ch := state.Change{Kind: state.KindEndpoint, Key: e.ID, Group: e.Service, Body: string(state.AppendEndpoint(nil, &e))}
		if err := c.Commit(now, "net", []state.Change{ch}); err != nil {
			t.Error(err)
		}
	})
	world := gossiptest.World{Self: "a", Peers: []string{"b", "c"}, Networks: []string{"net"}}
	from := &net.UDPAddr{IP: net.IPv4(10, 9, 0, 2), Port: 7946}
	n := 0
	for p := range gossiptest.Packets(seed, world) {
		if n%7 > 0 {
			d.packets <- &memberlist.Packet{Buf: gossiptest.Datagram(p), From: from, Timestamp: time.Now()}
		} else {
			a, b := net.Pipe()
			d.streams <- a
			_, _ = b.Write(gossiptest.Stream(uint64(len(p)), p))
			_ = b.Close()
		}
		time.Sleep(time.Millisecond) // of the bubble's time
		if n++; n == 1500 {
			break
		}
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	if s := h.Stats(); s.Panics > 0 || s.InboxBytes != 0 || s.Inbox != 0 || s.BulkBytes != 0 {
		t.Errorf("seed %d: %d panics, %d packets of %d bytes in the inbox, %d bytes to be sent", seed, s.Panics, s.Inbox,
			s.InboxBytes, s.BulkBytes)
	}
	do(t, h, func(c *gossip.Core, _ time.Duration) {
		if own := c.Store().Table("net").OwnerEntries("a", state.KindEndpoint); len(own) != 1 {
			t.Errorf("seed %d: %d own entries", seed, len(own))
		}
	})
	stop()
	if err := <-finished; err != nil {
		t.Error(err)
	}
}
