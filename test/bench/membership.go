package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"meshd/gossip"
	"meshd/state"
)

// How memberlist's own idle traffic is measured: real nodes on loopback in real
// time. It does not depend on the size of the mesh: a node probes one other
// per interval.
const (
	membershipNodes = 10
	membershipRest  = 5 * time.Second
	membershipFor   = 15 * time.Second
)

// membershipBytes returns what memberlist sends per node and second when
// nothing happens, in the lan profile, without IP and UDP headers.
func membershipBytes() (float64, error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var hosts []*gossip.Host
	for i := range membershipNodes {
		cfg := gossip.HostConfig{
			Self: state.NodeID(fmt.Sprintf("n%04d", i)), Bind: netip.MustParseAddrPort("127.0.0.1:0"), Incarnation: 1,
			Log: slog.New(slog.DiscardHandler),
		}
		if i > 0 {
			cfg.Join = []string{hosts[0].Addr().String()}
		}
		h, err := gossip.NewHost(cfg)
		if err != nil {
			return 0, err
		}
		wg.Go(func() { _ = h.Run(ctx) })
		hosts = append(hosts, h)
	}
	<-time.After(membershipRest)
	before, err := membershipSent(ctx, hosts)
	if err != nil {
		return 0, err
	}
	<-time.After(membershipFor)
	after, err := membershipSent(ctx, hosts)
	return float64(after-before) / membershipFor.Seconds() / membershipNodes, err
}

// membershipSent sums what the hosts sent, our own payload left out.
func membershipSent(ctx context.Context, hosts []*gossip.Host) (uint64, error) {
	var sum uint64
	for _, h := range hosts {
		var ours uint64
		if err := h.Do(ctx, func(c *gossip.Core, _ time.Duration) { ours = c.Stats.BytesOut }); err != nil {
			return 0, err
		}
		sum += h.Stats().Out - ours
	}
	return sum, nil
}
