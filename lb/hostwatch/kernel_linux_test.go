package hostwatch_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"meshd/lb/hostfacts"
	"meshd/lb/hostwatch"
	"meshd/test/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.TestMain(nil, m.Run)) }

// watchHost watches a host's namespace for the length of a test.
func watchHost(t *testing.T, host *rig.Host) *hostwatch.Watcher {
	t.Helper()
	w := hostwatch.New(func() (hostwatch.Kernel, error) { return hostwatch.Open(host.Path(), hostfacts.DefaultPools()) },
		slog.New(slog.DiscardHandler))
	if facts, _ := w.Facts(); facts.Unknown != "" {
		t.Fatal(facts.Unknown)
	}
	run(t, w)
	return w
}

// TestKernelTellsEveryChange makes devices, addresses and routes of every kind
// in a host's namespace: each stands against a pool, or not, soon after it
// came, and no longer than it is there.
func TestKernelTellsEveryChange(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed")
	}
	host := rig.NewTest(t, 1).Hosts()[0]
	w := watchHost(t, host)
	pool4, pool6 := netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/64")
	against := func(want string) {
		t.Helper()
		wait, cancel := context.WithTimeout(t.Context(), rig.Patience(5*time.Second))
		defer cancel()
		err := rig.Poll(wait, func() error {
			facts, _ := w.Facts()
			found := append(hostfacts.Conflicts(pool4, facts), hostfacts.Conflicts(pool6, facts)...)
			if text := fmt.Sprint(found); want == "" && len(found) > 0 || !strings.Contains(text, want) {
				return fmt.Errorf("against the pools stands %s, want %q", text, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	against("")
	for _, c := range []struct{ make, want, undo string }{
		{"ip address add 10.96.1.1/24 dev eth0", "route 10.96.1.0/24 of device eth0", "ip address delete 10.96.1.1/24 dev eth0"},
		{"ip address add fd96::1:1/112 dev eth0", "route fd96::1:0/112 of device eth0", "ip address delete fd96::1:1/112 dev eth0"},
		{"ip address add 10.96.1.1/32 dev lo", "address 10.96.1.1 of device lo", "ip address delete 10.96.1.1/32 dev lo"},
		{"ip address add 10.99.0.1/12 dev eth0", "route 10.96.0.0/12 of device eth0", "ip address delete 10.99.0.1/12 dev eth0"},
		{"ip route add 10.96.3.0/24 via 172.20.0.9", "route 10.96.3.0/24 of device eth0", "ip route delete 10.96.3.0/24"},
		{"ip route add 10.96.0.0/12 via 172.20.0.9", "", "ip route delete 10.96.0.0/12"},
		{"ip route add 10.96.0.0/12 dev eth0", "route 10.96.0.0/12 of device eth0", "ip route delete 10.96.0.0/12"},
		{"ip route add blackhole 10.96.3.0/24", "route 10.96.3.0/24", "ip route delete blackhole 10.96.3.0/24"},
		{"ip route add 10.96.3.0/24 via 172.20.0.9 table 52", "route 10.96.3.0/24 of device eth0", "ip route delete 10.96.3.0/24 table 52"},
		{"ip route add local 10.96.0.0/16 dev lo table local", "route 10.96.0.0/16 of device lo", "ip route delete local 10.96.0.0/16 dev lo table local"},
		{"ip route add local 10.96.0.0/16 dev lo table local proto 109", "", "ip route delete local 10.96.0.0/16 dev lo table local"},
		{"ip route add local 10.96.0.0/16 dev lo table 109 proto 109", "", "ip route delete local 10.96.0.0/16 dev lo table 109"},
		{"ip route add default via 172.20.0.9", "", "ip route delete default"},
	} {
		if out, err := host.Output("sh", "-c", c.make); err != nil {
			t.Fatalf("%s: %s %v", c.make, out, err)
		}
		against(c.want)
		if out, err := host.Output("sh", "-c", c.undo); err != nil {
			t.Fatalf("%s: %s %v", c.undo, out, err)
		}
		against("")
	}
	gateway := "ip address add 192.0.2.1/24 dev eth0; ip route add default via 10.96.0.1 dev eth0 onlink"
	if out, err := host.Output("sh", "-c", gateway); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	against("default gateway 10.96.0.1")
}

// TestKernelTellsWhatEnds removes routes and routing rules with our number, and
// what takes them along, in a host's namespace: each is told of.
func TestKernelTellsWhatEnds(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed")
	}
	host := rig.NewTest(t, 1).Hosts()[0]
	w := watchHost(t, host)
	quiet := func() bool {
		select {
		case <-w.RoutesChanged():
			return false
		default:
			return true
		}
	}
	do := func(command string) {
		t.Helper()
		if out, err := host.Output("sh", "-c", command); err != nil {
			t.Fatalf("%s: %s %v", command, out, err)
		}
	}
	do("ip address add 192.0.2.1/32 dev eth0")
	for _, c := range []struct{ make, end string }{
		{"ip rule add pref 109 to 10.96.0.0/16 lookup 109 protocol 109", "ip rule delete pref 109"},
		{"ip -6 rule add pref 108 to fd96::/64 lookup main suppress_prefixlength 63 protocol 109", "ip -6 rule delete pref 108"},
		{"ip route add local 10.96.0.0/16 dev lo table 109 proto 109", "ip route flush table 109"},
		{"ip route add local 10.96.0.0/16 dev lo table 109 proto 109 src 192.0.2.1", "ip address delete 192.0.2.1/32 dev eth0"},
		{"ip route replace local 10.96.0.0/16 dev lo table 109 proto 109", "ip link set lo down"},
	} {
		do(c.make)
		quiet() // perhaps the end of what was before was told twice
		// What others add and remove is heard by the time that it was read.
		reads := w.Counters().Reads
		do("ip route add 10.7.0.0/16 via 172.20.0.9; ip route delete 10.7.0.0/16; ip rule add pref 77 lookup 77; ip rule " +
			"delete pref 77")
		await(t, func() bool { return w.Counters().Reads > reads })
		if !quiet() && c.end != "ip link set lo down" {
			t.Errorf("after %q something is told to have ended", c.make)
		}
		do(c.end)
		await(t, func() bool { return !quiet() })
	}
}

// await waits until something holds.
func await(t *testing.T, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patience(5*time.Second))
	defer cancel()
	err := rig.Poll(ctx, func() error {
		if !holds() {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
