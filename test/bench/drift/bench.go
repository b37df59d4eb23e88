//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"meshd/mesh/control"
	"meshd/test/fleet"
	"meshd/test/rig"
)

const network = "bench"

// bench is a daemon that compares with the kernel once an hour, so that whatever
// is put back sooner was heard; a service, a container of the host, a sandbox.
type bench struct {
	options
	ctx         context.Context
	node        *fleet.Node
	web, client *fleet.Task
	vip         netip.Addr
}

func (b *bench) start(r *rig.Rig, dir string) error {
	f, err := fleet.New(r, dir, dir)
	if err != nil {
		return err
	}
	host, err := r.AddHost("host1")
	if err != nil {
		return err
	}
	b.node = f.AddNode(host, []string{"--lb-verify", "1h"})
	if err := b.node.Start(b.ctx); err != nil {
		return err
	}
	if _, err := b.node.API.CreateNetwork(b.ctx, control.CreateNetwork{
		Name:   network,
		Subnet: "10.96.0.0/16",
	}); err != nil {
		return err
	}
	if b.web, err = b.node.Run(b.ctx, fleet.Spec{Network: network, Service: "web", Slot: 1, ID: "web"}); err != nil {
		return err
	}
	if b.client, err = b.node.Run(b.ctx, fleet.Spec{
		Network: network, Service: "client", Slot: 1, ID: "bench-client-1",
		Sandbox: true,
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	return rig.Poll(ctx, func() error {
		s, err := b.node.API.Service(ctx, control.ServiceRef{Network: network, Name: "web"})
		if err != nil || len(s.VIPs) == 0 {
			return fmt.Errorf("web has no VIP, %w", err)
		}
		b.vip = s.VIPs[0]
		return errors.Join(b.serves(ctx, b.web), b.serves(ctx, b.client), b.named(ctx))
	})
}

// serves makes a connection to the VIP.
func (b *bench) serves(ctx context.Context, from *fleet.Task) error {
	got, err := from.Get(ctx, b.vip)
	if err == nil && got != b.web.ID {
		err = fmt.Errorf("%s answers", got) // without rules, the sandbox itself
	}
	return err
}

// named asks for the service's name in the sandbox.
func (b *bench) named(ctx context.Context) error {
	a, err := b.client.Resolve(ctx, "web", dns.TypeA)
	if err == nil && a.String() != b.vip.String() {
		err = fmt.Errorf("web is %s", a)
	}
	return err
}

// removal is something that somebody else does to the kernel.
type removal struct {
	what    string
	in      *rig.Namespace
	command string
	back    func(context.Context) error
}

// removals measures each removal: from before the command is run until a new
// connection, or a question, is answered as it should be.
func (b *bench) removals() error {
	host, box := b.node.Host.Namespace, b.client.Namespace
	fromWeb := func(ctx context.Context) error { return b.serves(ctx, b.web) }
	fromBox := func(ctx context.Context) error { return b.serves(ctx, b.client) }
	for _, r := range []removal{
		{"nft-flush-host", host, "nft flush ruleset", fromWeb},
		{"nft-flush-sandbox-vip", box, "nft flush ruleset", fromBox},
		{"nft-flush-sandbox-name", box, "nft flush ruleset", b.named},
		{"rule-flush-host", host, "ip rule delete pref 109", fromWeb},
		{"route-flush-host", host, "ip route flush table 109", fromWeb},
		{"route-flush-sandbox", box, "ip route flush table 109", fromBox},
	} {
		var took []time.Duration
		for range b.tries {
			d, err := b.try(&r)
			if err != nil {
				return fmt.Errorf("%s: %w", r.what, err)
			}
			took = append(took, d)
			if !b.pause(time.Second) { // a calm moment
				return b.ctx.Err()
			}
		}
		slices.Sort(took)
		fmt.Printf("drift what=%s tries=%d p50_ms=%s p90_ms=%s max_ms=%s load1=%s\n", r.what, b.tries, ms(took, .5),
			ms(took, .9), ms(took, 1), rig.LoadAverage())
	}
	return nil
}

func (b *bench) try(r *removal) (time.Duration, error) {
	begin, attempt := time.Now(), 10*time.Millisecond
	args := strings.Fields(r.command)
	if out, err := r.in.Output(args[0], args[1:]...); err != nil {
		return 0, fmt.Errorf("%s: %w %s", r.command, err, out)
	}
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	for {
		// A first packet that was lost is sent again only after a second.
		one, cancel := context.WithTimeout(ctx, attempt)
		err := r.back(one)
		cancel()
		if err == nil || ctx.Err() != nil {
			return time.Since(begin), err
		}
		attempt += attempt / 8
	}
}

// pause waits. It reports whether the measurement goes on.
func (b *bench) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
	case <-b.ctx.Done():
	}
	return b.ctx.Err() == nil
}

// ms is a quantile of sorted durations, in milliseconds.
func ms(ds []time.Duration, q float64) string {
	d := ds[min(int(q*float64(len(ds))), len(ds)-1)]
	return fmt.Sprintf("%.0f", float64(d)/float64(time.Millisecond))
}
