//go:build linux

package netns

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"meshd/test/fleet"
	"meshd/test/rig"
)

// TestHairpinIsMended takes the port of a task out of hairpin mode: meshd puts it
// back, so that the task reaches itself through its VIP, remembers that over a
// kill, and cleanup undoes it.
func TestHairpinIsMended(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bridge"); err != nil {
		t.Skip("bridge is not installed")
	}
	f := fleet.NewTest(t, 1)
	n := f.AddNode(f.Rig.Hosts()[0], nil)
	must(t, n.Start(t.Context()))
	ctl(t, n, "network", "create", network, "--subnet", "10.96.0.0/16")
	task := run(t, "web", n)[0]
	answersAt(t, task, "web", "10.96.0.0/16")
	hairpin := func(want string) {
		t.Helper()
		fleet.Within(t, 20*time.Second, func(context.Context) error {
			if out := inside(t, n.Host, "bridge -d link show dev task1"); !strings.Contains(out, "hairpin "+want) {
				return fmt.Errorf("want hairpin %s: %s", want, out)
			}
			return nil
		})
	}
	inside(t, n.Host, "bridge link set dev task1 hairpin off")
	hairpin("on")
	answersAt(t, task, "web", "10.96.0.0/16")
	warns(t, n, "port task1")
	fleet.Within(t, 5*time.Second, func(context.Context) error {
		out, err := n.Host.Output("cat", n.DataDir+"/sysctls.json")
		if err == nil && !strings.Contains(string(out), "task1") {
			err = fmt.Errorf("sysctls.json: %s", out)
		}
		return err
	})
	n.Proc.Kill()
	must(t, n.Start(t.Context()))
	warns(t, n, "port task1")
	n.Proc.Kill()
	out, err := n.Host.Output(f.Meshd, "cleanup", "--data-dir", n.DataDir, "--socket", n.Socket)
	if err != nil || !strings.Contains(string(out), "put back hairpin mode of port task1") {
		t.Errorf("cleanup: %s %v", out, err)
	}
	hairpin("off")
}

// TestPortsAreForgotten ends a container whose port was put into hairpin mode: the
// status does not go on to tell of that port.
func TestPortsAreForgotten(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bridge"); err != nil {
		t.Skip("bridge is not installed")
	}
	f := fleet.NewTest(t, 1)
	n := f.AddNode(f.Rig.Hosts()[0], nil)
	must(t, n.Start(t.Context()))
	ctl(t, n, "network", "create", network, "--subnet", "10.96.0.0/16")
	run(t, "web", n)
	inside(t, n.Host, "bridge link set dev task1 hairpin off")
	warns(t, n, "port task1")
	inside(t, n.Host, "ip link delete task1")
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error {
		s, err := n.API.Status(ctx)
		if text := strings.Join(s.Warnings, "\n"); err == nil && strings.Contains(text, "port task1") {
			err = fmt.Errorf("it warns of %q", text)
		}
		return err
	})
}

// TestAdvertisedAddressOfAnother gives a node an address to advertise that its
// host does not have, as one behind a translation does: VIPs work all the same,
// and the doctor says what is odd (a warning, since it may be right).
func TestAdvertisedAddressOfAnother(t *testing.T) {
	t.Parallel()
	f := fleet.NewTest(t, 1)
	n := f.AddNode(f.Rig.Hosts()[0], []string{"--advertise", "203.0.113.5"})
	must(t, n.Start(t.Context()))
	ctl(t, n, "network", "create", network, "--subnet", "10.96.0.0/16")
	answersAt(t, run(t, "web", n)[0], "web", "10.96.0.0/16")
	warns(t, n, "203.0.113.5, which is no address of this host")
}

// TestFirewallAccept lets meshd add rules to the firewalls of a host, of iptables
// and of nft: VIPs work, also after the firewall was loaded anew, no rule
// is added twice, nothing else is let through, and cleanup removes them.
func TestFirewallAccept(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"iptables", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	f := fleet.NewTest(t, 2)
	h := f.Rig.Hosts()
	sick, well := f.AddNode(h[0], []string{"--firewall", "accept"}), f.AddNode(h[1], nil, h[0])
	shell(t, sick.Host, allOfDocker)
	shell(t, sick.Host, aForwardDrop)
	must(t, sick.Start(t.Context()))
	must(t, well.Start(t.Context()))
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error { return well.Members(ctx, 2) })
	ctl(t, sick, "network", "create", network, "--subnet", "10.96.0.0/16")
	task := run(t, "web", sick)[0]
	run(t, "api", well)
	healthy := func() {
		t.Helper()
		c := crippled{}
		c.reaches(t, task, true)
		fleet.Within(t, 20*time.Second, func(context.Context) error {
			d, err := diagnosis(sick)
			if err != nil {
				return err
			}
			for _, f := range d.Findings { // other hosts' ways are the operator's to open
				if strings.Contains(f.What, "VIPs") {
					return fmt.Errorf("doctor finds %+v", f)
				}
			}
			return nil
		})
	}
	healthy()
	warns(t, sick, "rules in chain iptables ip filter DOCKER-USER", "rules in chain nft inet filter forward")
	shell(t, sick.Host, "nft delete table inet filter")
	shell(t, sick.Host, aForwardDrop)
	healthy()
	for range 3 {
		_, _ = diagnosis(sick) // each looks, and must not add more
	}
	shell(t, sick.Host, `handle=$(nft -a list chain inet filter forward | sed -n 's/.*comment "meshd" # handle //p')
		nft replace rule inet filter forward handle $handle ct original ip daddr 10.88.0.0/16 accept comment '"meshd"' `)
	healthy()
	if out := inside(t, sick.Host, "nft list table inet filter"); strings.Contains(out, "10.88.0.0/16") {
		t.Errorf("a rule of meshd that was changed by hand is still there: %s", out)
	}
	for range 3 {
		shell(t, sick.Host, "nft flush chain inet filter forward")
		_, _ = diagnosis(sick)
	}
	// of each chain, and once more after a minute
	if log, _ := os.ReadFile(sick.Proc.Log); strings.Count(string(log), "rules are added to a firewall") > 3 {
		t.Errorf("each time that rules are added is told: %s", log)
	}
	ours := func(want int) {
		t.Helper()
		out := inside(t, sick.Host, "iptables -S") + inside(t, sick.Host, "nft list table inet filter")
		if got := strings.Count(out, "--comment meshd") + strings.Count(out, `comment "meshd"`); got != want {
			t.Errorf("%d rules of meshd, want %d: %s", got, want, out)
		}
	}
	fleet.Within(t, 5*time.Second, func(context.Context) error {
		out, err := sick.Host.Output("cat", sick.DataDir+"/sysctls.json")
		if err == nil && !strings.Contains(string(out), "DOCKER-USER") {
			err = fmt.Errorf("sysctls.json: %s", out)
		}
		return err
	})
	ours(2) // of the pool, in each
	ctl(t, sick, "network", "create", "other", "--subnet", "10.97.0.0/16")
	ctl(t, sick, "task", "add", "--network", "other", "--service", "web", "--id", "other", "--ip", task.Addr.String())
	rules := func() string {
		return inside(t, sick.Host, "iptables -S") + inside(t, sick.Host, "nft list table inet filter")
	}
	opened := func(want bool) {
		t.Helper()
		fleet.Within(t, 20*time.Second, func(context.Context) error {
			_, _ = diagnosis(sick)
			if text := rules(); strings.Contains(text, "10.97.0.0/16") != want || !strings.Contains(text, "10.96.0.0/16") {
				return fmt.Errorf("10.97.0.0/16 is let through: %v, want %v: %s", !want, want, text)
			}
			return nil
		})
	}
	opened(true)
	ctl(t, sick, "task", "rm", "other")
	ctl(t, sick, "network", "rm", "other")
	opened(false) // and the pool that is served still is
	ours(2)
	sick.Proc.Kill()
	out, err := sick.Host.Output(f.Meshd, "cleanup", "--data-dir", sick.DataDir, "--socket", sick.Socket)
	if err != nil || !strings.Contains(string(out), "put back firewall: rules in chain nft inet filter forward") {
		t.Errorf("cleanup: %s %v", out, err)
	}
	ours(0)
}

// TestFirewallAcceptNoRefusedPool has a network whose pool is a subnet of the host,
// as an older definition of a peer may say: its firewall is not opened for that.
func TestFirewallAcceptNoRefusedPool(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	const refused = "192.168.77.0/24"
	f := fleet.NewTest(t, 2)
	h := f.Rig.Hosts()
	// IPVS does not forward
	here, there := f.AddNode(h[0], []string{"--lb", "nft", "--firewall", "accept"}), f.AddNode(h[1], nil, h[0])
	shell(t, here.Host, aForwardDrop)
	shell(t, here.Host, "nft 'add chain inet filter input { type filter hook input priority 0; policy drop; }; add "+
		"rule inet filter input ip saddr 172.20.0.0/16 accept; add rule inet filter input iif lo accept'")
	must(t, here.Start(t.Context()))
	must(t, there.Start(t.Context()))
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error { return there.Members(ctx, 2) })
	ctl(t, there, "network", "create", "lan", "--subnet", refused)
	shell(t, here.Host, "ip link add lan type bridge; ip address add 192.168.77.1/24 dev lan; ip link set lan up")
	ctl(t, here, "network", "create", network, "--subnet", "10.96.0.0/16")
	run(t, "web", here)
	ctl(t, here, "task", "add", "--network", "lan", "--service", "web", "--ip", "10.1.1.77")
	warnsOrDegraded(t, here, refused)
	warns(t, here, "rules in chain nft inet filter forward", "rules in chain nft inet filter input")
	_, _ = diagnosis(here)
	if out := inside(t, here.Host, "nft list table inet filter"); strings.Contains(out, refused) {
		t.Errorf("the host's own subnet is let through: %s", out)
	}
}

// TestForwardingOfDevices starts meshd on a host that does not forward, and has it
// switch on what its containers need: VIPs work, the host does not become a router
// between its other networks, and cleanup puts all back.
func TestForwardingOfDevices(t *testing.T) {
	t.Parallel()
	f := fleet.NewTest(t, 2)
	h := f.Rig.Hosts()
	still, well := f.AddNode(h[0], []string{"--forwarding", "devices"}), f.AddNode(h[1], nil, h[0])
	must(t, still.Host.Sysctl("net.ipv4.ip_forward", "0"))
	must(t, still.Host.Sysctl("net.ipv6.conf.all.forwarding", "0"))
	shell(t, still.Host, "ip link add lan type bridge; ip address add 192.168.7.1/24 dev lan; ip link set lan up")
	_, err := still.Host.Output("test", "-e", "/proc/sys/net/ipv6/conf/lan/force_forwarding")
	six := err == nil // of Linux 6.17
	must(t, still.Start(t.Context()))
	must(t, well.Start(t.Context()))
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error { return well.Members(ctx, 2) })
	create := []string{"network", "create", network, "--subnet", "10.96.0.0/16"}
	if six {
		create = append(create, "--subnet6", "fd96::/64")
	}
	ctl(t, still, create...)
	task := run(t, "web", still)[0]
	run(t, "api", well)
	(&crippled{}).reaches(t, task, true)
	const v4, v6 = "net.ipv4.conf.", "net.ipv6.conf."
	settings(t, still.Host, "net.ipv4.ip_forward", "0", v4+"lan.forwarding", "0", v4+"tasks.forwarding", "1",
		v4+"eth0.forwarding", "1")
	if six {
		settings(t, still.Host, v6+"all.forwarding", "0", v6+"tasks.force_forwarding", "1", v6+"eth0.force_forwarding", "1",
			v6+"lan.force_forwarding", "0")
	}
	warns(t, still, v4+"tasks.forwarding=1 (was 0)", v4+"eth0.forwarding=1 (was 0)")
	if d, err := diagnosis(still); err != nil || len(d.Findings) > 0 {
		t.Errorf("doctor finds %+v %v", d.Findings, err)
	}
	must(t, still.Proc.Stop(10*time.Second))
	if out, err := still.Host.Output(f.Meshd, "cleanup", "--data-dir", still.DataDir, "--socket",
		still.Socket); err != nil {
		t.Fatalf("cleanup: %s %v", out, err)
	}
	settings(t, still.Host, v4+"tasks.forwarding", "0", v4+"eth0.forwarding", "0")
	if six {
		settings(t, still.Host, v6+"tasks.force_forwarding", "0", v6+"eth0.force_forwarding", "0")
	}
}

// TestDoctorNamesTheLonely starts a node with another key than the one that it is
// to join has: the doctor says so, with what to try.
func TestDoctorNamesTheLonely(t *testing.T) {
	t.Parallel()
	f := fleet.NewTest(t, 2)
	h := f.Rig.Hosts()
	other, err := fleet.New(f.Rig, rig.Dir(), t.TempDir())
	must(t, err)
	// itself, as in a file that is the same on all hosts
	here, there := f.AddNode(h[0], nil), other.AddNode(h[1], nil, h[1], h[0])
	must(t, here.Start(t.Context()))
	must(t, there.Start(t.Context()))
	fleet.Within(t, 40*time.Second, func(context.Context) error {
		d, err := diagnosis(there)
		if err == nil && (len(d.Findings) != 1 || d.Findings[0].Code != "alone" ||
			d.Findings[0].Command != "meshctl join "+h[0].Addr.String()+":7946") {
			err = fmt.Errorf("doctor finds %+v", d.Findings)
		}
		return err
	})
}
