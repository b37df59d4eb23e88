//go:build linux

package engine

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"meshd/test/fleet"
	"meshd/test/rig"
)

// A label is a name, a VIP and an answer on another host, and nothing else is typed; a
// restart of the node changes nothing, and the end of the container takes all of it away.
func TestLabelsBecomeNames(t *testing.T) {
	f := fleet.NewTest(t, 2)
	hosts := f.Rig.Hosts()
	w := newEngine(t, hosts[0])
	one, two := f.AddNode(hosts[0], []string{"--docker", w.socket()}), f.AddNode(hosts[1], nil, hosts[0])
	for _, n := range []*fleet.Node{one, two} {
		must(t, n.Start(t.Context()))
	}
	if out, err := one.Ctl("network", "create", "front", "--subnet", "10.96.0.0/16", "--wait"); err != nil {
		t.Fatal(out, err)
	}
	asker, err := two.Run(t.Context(), fleet.Spec{Network: "front", Service: "asker", ID: "asker", Slot: 1})
	must(t, err)
	id := w.create("web-1", func(o *client.ContainerCreateOptions) {
		port := network.MustParsePort("80/tcp")
		o.Config.Labels["mesh.address"], o.Config.ExposedPorts = "node", network.PortSet{port: {}}
		o.HostConfig.PortBindings = network.PortMap{port: {{HostIP: netip.IPv4Unspecified(), HostPort: "80"}}}
	})
	names := func(ctx context.Context, want ...string) error {
		a, err := asker.Resolve(ctx, "tasks.web", dns.TypeA)
		if err != nil || !slices.Equal(a.Data, want) {
			return fmt.Errorf("tasks.web is %v, want %v; %w", a.Data, want, err)
		}
		return nil
	}
	begun := time.Now()
	w.start(id)
	started := time.Since(begun)
	known := func(ctx context.Context) error { return names(ctx, hosts[0].Addr.String()) }
	fleet.Within(t, rig.Patience(10*time.Second), known)
	t.Logf("docker start took %v; its name was known on the other host after %v", started.Round(time.Millisecond),
		time.Since(begun).Round(time.Millisecond))
	fleet.Within(t, rig.Patience(10*time.Second), func(ctx context.Context) error {
		a, err := asker.Resolve(ctx, "web", dns.TypeA)
		if err != nil || len(a.Data) != 1 {
			return fmt.Errorf("web is %v; %w", a.Data, err)
		}
		if text, err := fleet.Get(ctx, asker.Namespace, netip.MustParseAddr(a.Data[0])); err != nil || text != id[:12] {
			return fmt.Errorf("http://web/ answers %q; %w", text, err)
		}
		return nil
	})
	t.Logf("http://web/ answers on the other host %v after docker start began", time.Since(begun).Round(time.Millisecond))
	if out, err := one.Ctl("source", "ls"); err != nil {
		t.Error(out, err)
	} else {
		t.Log(out)
	}
	one.Proc.Kill()
	must(t, one.Start(t.Context()))
	fleet.Within(t, rig.Patience(10*time.Second), known)
	begun = time.Now()
	_, err = w.api.ContainerKill(t.Context(), id, client.ContainerKillOptions{})
	must(t, err)
	fleet.Within(t, rig.Patience(10*time.Second), func(ctx context.Context) error { return names(ctx) })
	t.Logf("its name was gone on the other host %v after docker kill began", time.Since(begun).Round(time.Millisecond))
}
