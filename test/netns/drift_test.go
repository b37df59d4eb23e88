//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/test/fleet"
)

// metric reads one figure of a node.
func metric(t *testing.T, n *fleet.Node, name string) (value int) {
	t.Helper()
	_, after, found := strings.Cut(ctl(t, n, "metrics"), "\n"+name+" ")
	if _, err := fmt.Sscan(after, &value); !found || err != nil {
		t.Fatalf("no figure %s: %v", name, err)
	}
	return value
}

// unasked starts a daemon that compares with the kernel once an hour, so that
// what is repaired sooner was heard, with a service in a network.
func unasked(t *testing.T) (*fleet.Node, []*fleet.Task) {
	t.Helper()
	for _, tool := range []string{"nft", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	f := fleet.NewTest(t, 1)
	n := f.AddNode(f.Rig.Hosts()[0], []string{"--lb-verify", "1h"})
	must(t, n.Start(t.Context()))
	createNetwork(t, []*fleet.Node{n})
	web := run(t, "web", n)
	answersAt(t, web[0], "web", "10.96.0.0/16")
	return n, web
}

// tryOften removes something so many times, each time until it is back and the
// daemon is done, and logs how long it took to be back.
func tryOften(t *testing.T, what string, times int, remove func(), back func(context.Context) error, done func() bool) {
	t.Helper()
	var took []time.Duration
	for range times {
		begin, attempt := time.Now(), 20*time.Millisecond
		remove()
		fleet.Within(t, 15*time.Second, func(ctx context.Context) error {
			// A first packet that was lost is sent again only after a second.
			ctx, cancel := context.WithTimeout(ctx, attempt)
			defer cancel()
			attempt += attempt / 4
			return back(ctx)
		})
		took = append(took, time.Since(begin))
		fleet.Within(t, 15*time.Second, func(context.Context) error {
			if !done() {
				return errors.New("the daemon has not finished repairing")
			}
			return nil
		})
	}
	slices.Sort(took)
	t.Logf("%s: back after %v, at most %v", what, took[times/2].Round(time.Millisecond),
		took[times-1].Round(time.Millisecond))
}

// TestFlushIsHeard flushes the rules of a host and of a sandbox again and again:
// each time the daemon hears of it, and VIPs and names work again.
func TestFlushIsHeard(t *testing.T) {
	t.Parallel()
	n, web := unasked(t)
	client := sandboxed(t, network, "client", n)[0]
	vip := vips(t, n, network, "web", 1)[0]
	serves := func(from *fleet.Task) func(context.Context) error {
		return func(ctx context.Context) error {
			got, err := from.Get(ctx, vip)
			if err == nil && got != web[0].ID {
				err = fmt.Errorf("%s answers", got)
			}
			return err
		}
	}
	names := func(ctx context.Context) error { return answers(ctx, client, "web", dns.TypeA, vip.String()) }
	fleet.Within(t, 15*time.Second, serves(client))
	fleet.Within(t, 15*time.Second, names)
	const times = 20
	for _, c := range []struct {
		box   string
		from  *fleet.Task
		flush func()
	}{
		{"", web[0], func() { inside(t, n.Host, "nft flush ruleset") }},
		{client.Box, client, func() { withinBox(t, client, "nft flush ruleset") }},
	} {
		of := fmt.Sprintf("{sandbox=%q}", c.box)
		if metric(t, n, "meshd_rules_heard"+of) != 1 {
			t.Fatal("changes of the rules are not heard")
		}
		before, repaired, flushed := metric(t, n, "meshd_lb_verifies_prompted_total"+of),
			metric(t, n, "meshd_lb_repairs_total"+of), 0
		tryOften(t, "nft flush ruleset"+of, times, func() { c.flush(); flushed++ }, func(ctx context.Context) error {
			if err := serves(c.from)(ctx); err != nil || c.box == "" {
				return err
			}
			return names(ctx)
		}, func() bool { return metric(t, n, "meshd_lb_repairs_total"+of) >= repaired+flushed })
		// What is due meanwhile, as services that could not be read yet, repairs as well.
		if prompted := metric(t, n, "meshd_lb_verifies_prompted_total"+of) - before; prompted < times/2 {
			t.Errorf("%s: %d comparisons were prompted by %d flushes", c.box, prompted, times)
		}
		if heard := metric(t, n, "meshd_rules_events_total"+of); heard < times {
			t.Errorf("%s: heard %d transactions", c.box, heard)
		}
	}
	// Names are answered before the last one is counted.
	if made, heard := metric(t, n, "meshd_sandbox_redirects_total"),
		metric(t, n, "meshd_sandbox_redirects_prompted_total"); made < times/2 || heard < times/2 {
		t.Errorf("%d redirects of port 53 were made again, %d of them because their end was heard", made, heard)
	}
}

// TestRoutesAreHeard takes away what the routes to a pool hang on: the route and
// the rules themselves, and the address and the device that it needs. Each is put back as
// soon as it can be, on the host and in a sandbox.
func TestRoutesAreHeard(t *testing.T) {
	t.Parallel()
	n, web := unasked(t)
	client := sandboxed(t, network, "client", n)[0]
	vip := vips(t, n, network, "web", 1)[0]
	fleet.Within(t, 15*time.Second, func(ctx context.Context) error { _, err := client.Get(ctx, vip); return err })
	address := strings.TrimSpace(inside(t, n.Host, "ip -o -4 address show dev eth0 scope global"))
	own := strings.Fields(address)[3]
	for _, command := range []string{
		"ip route flush table 109",
		"ip rule delete pref 108",
		"ip rule delete pref 109",
		fmt.Sprintf("ip address delete %s dev eth0; ip address add %s dev eth0", own, own),
		"ip link set lo down; ip link set lo up",
	} {
		repaired := metric(t, n, `meshd_lb_repairs_total{sandbox=""}`)
		begin := time.Now()
		if out, err := n.Host.Output("sh", "-c", command); err != nil {
			t.Fatalf("%s: %s %v", command, out, err)
		}
		fleet.Within(t, 15*time.Second, func(context.Context) error {
			outlives := strings.Contains(command, "; ") // as IPv4 routes of this kind do
			if now := metric(t, n, `meshd_lb_repairs_total{sandbox=""}`); now == repaired && !outlives {
				return fmt.Errorf("after %q nothing was repaired", command)
			}
			_, err := n.Ctl("lb", "verify", "--dry-run")
			return err
		})
		answersAt(t, web[0], "web", "10.96.0.0/16")
		t.Logf("%s: as before after %v", command, time.Since(begin).Round(10*time.Millisecond))
	}
	for _, command := range []string{"ip route flush table 109", "ip rule delete pref 109"} {
		withinBox(t, client, command)
		fleet.Within(t, 15*time.Second, func(ctx context.Context) error {
			got, err := client.Get(ctx, vip)
			if err == nil && got != web[0].ID {
				err = fmt.Errorf("after %q %s answers", command, got)
			}
			return err
		})
	}
}
