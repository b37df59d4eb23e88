//go:build linux

package netns

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/test/fleet"
	"meshd/test/rig"
)

// TestDNSClients asks a daemon that answers on all its addresses: from the
// host itself, from a task on its bridge, from a neighbour, and from a task
// behind another host, which comes over a router and is refused until its subnet
// is named.
func TestDNSClients(t *testing.T) {
	t.Parallel()
	f := fleet.NewTest(t, 2)
	hosts := f.Rig.Hosts()
	n := f.AddNode(hosts[0], nil)
	n.DNS = netip.AddrPortFrom(netip.IPv4Unspecified(), 53) // not also the bridge's: it is one of all
	must(t, n.Start(t.Context()))
	createNetwork(t, []*fleet.Node{n})
	tasks := run(t, "web", n)
	stranger, err := hosts[1].AddTask("stranger")
	must(t, err)
	at := netip.AddrPortFrom(hosts[0].Gateway, 53)
	name := "tasks.web." + network + ".mesh.internal."
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		if got := asked(ctx, hosts[0].Namespace, "udp", at, name); got != tasks[0].Addr.String() {
			return fmt.Errorf("from the host itself: %s", got)
		}
		return nil
	})
	for from, ns := range map[string]*rig.Namespace{
		"a task on the bridge": tasks[0].Namespace,
		"a neighbour":          hosts[1].Namespace,
	} {
		for _, proto := range []string{"udp", "tcp"} {
			if got := asked(t.Context(), ns, proto, at, name); got != tasks[0].Addr.String() {
				t.Errorf("from %s over %s: %s", from, proto, got)
			}
		}
	}
	if got := asked(t.Context(), stranger.Namespace, "udp", at, name); got != "REFUSED" {
		t.Errorf("from behind a router: %s", got)
	}
	if got := asked(t.Context(), stranger.Namespace, "tcp", at, name); !strings.HasPrefix(got, "no answer") {
		t.Errorf("from behind a router over TCP: %s", got)
	}
	s, err := n.API.Status(t.Context())
	must(t, err)
	if !strings.Contains(strings.Join(s.Warnings, "\n"), stranger.Addr.String()) {
		t.Errorf("status does not tell of the stranger %s: %q", stranger.Addr, s.Warnings)
	}
	// Registered here, it is one of ours, wherever it is.
	ctl(t, n, "task", "add", "--network", network, "--service", "far", "--ip", stranger.Addr.String(), "--id", "far")
	if got := asked(t.Context(), stranger.Namespace, "udp", at, name); got != tasks[0].Addr.String() {
		t.Errorf("registered here: %s", got)
	}
	ctl(t, n, "task", "rm", "far")
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		if got := asked(ctx, stranger.Namespace, "udp", at, name); got != "REFUSED" {
			return fmt.Errorf("after its end: %s", got)
		}
		return nil
	})
	must(t, n.Proc.Stop(10*time.Second))
	named := f.AddNode(hosts[0], []string{"--dns-clients", stranger.Addr.String() + "/32"})
	must(t, named.Start(t.Context()))
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		if got := asked(ctx, stranger.Namespace, "udp", at, name); got != tasks[0].Addr.String() {
			return fmt.Errorf("named with --dns-clients: %s", got)
		}
		return nil
	})
	if got := asked(t.Context(), hosts[1].Namespace, "udp", at, name); got != "REFUSED" {
		t.Errorf("a neighbour that is not named: %s", got)
	}
	if got := asked(t.Context(), tasks[0].Namespace, "udp", at, "tasks.web."); got != tasks[0].Addr.String() {
		t.Errorf("a task that is registered here: %s", got)
	}
}

// asked asks for an address from inside a namespace and returns the answer, or
// what there was instead.
func asked(ctx context.Context, from *rig.Namespace, proto string, server netip.AddrPort, name string) string {
	ctx, cancel := context.WithTimeout(ctx, rig.Patience(2*time.Second))
	defer cancel()
	c, err := from.Dial(ctx, proto, server.String())
	if err != nil {
		return fmt.Sprintf("no connection: %v", err)
	}
	defer c.Close()
	m, _, err := (&dns.Client{Net: proto, Timeout: rig.Patience(2 * time.Second)}).ExchangeWithConnContext(ctx,
		new(dns.Msg).SetQuestion(name, dns.TypeA), &dns.Conn{Conn: c})
	switch {
	case err != nil:
		return fmt.Sprintf("no answer: %v", err)
	case len(m.Answer) == 1:
		return m.Answer[0].(*dns.A).A.String()
	}
	return dns.RcodeToString[m.Rcode]
}
