//go:build linux

package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/mesh/control"
	"meshd/test/fleet"
	"meshd/test/rig"
)

// TestDoctor starts meshd on hosts that keep it from working, each in another way.
// "meshctl doctor" and the status name each, and the command that the doctor
// prints cures it, typed as it is.
func TestDoctor(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"iptables", "nft", "bridge", "sysctl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	for _, c := range cripples() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t)
		})
	}
}

func (c *crippled) test(t *testing.T) {
	for _, program := range c.programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	f := fleet.NewTest(t, 2)
	h := f.Rig.Hosts()
	sick, well := f.AddNode(h[0], c.flags), f.AddNode(h[1], nil, h[0])
	shell(t, sick.Host, c.before)
	must(t, sick.Start(t.Context()))
	must(t, well.Start(t.Context()))
	create := []string{"network", "create", network, "--subnet", "10.96.0.0/16"}
	if c.subnet != "" {
		create = append(create, "--subnet6", c.subnet)
	}
	ctl(t, sick, create...)
	task := run(t, "web", sick)[0]
	shell(t, sick.Host, c.after)
	if c.says != "packets of other nodes" { // who does not hear of it
		fleet.Within(t, 20*time.Second, func(ctx context.Context) error { return well.Members(ctx, 2) })
		run(t, "api", well)
	}

	var d control.Doctor
	fleet.Within(t, 20*time.Second, func(ctx context.Context) (err error) {
		if d, err = diagnosis(sick); err == nil {
			err = c.named(d)
		}
		return err
	})
	warnsOrDegraded(t, sick, c.says)
	if c.cut {
		c.reaches(t, task, false)
	}
	c.cure(t, sick, d)
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error {
		d, err := diagnosis(sick)
		if err == nil && len(d.Findings) > 0 {
			c.cure(t, sick, d)
			err = fmt.Errorf("after its own advice doctor finds %+v", d.Findings)
		}
		return err
	})
	if c.cut {
		c.reaches(t, task, true)
	}
}

// named returns an error unless the case is among the findings.
func (c *crippled) named(d control.Doctor) error {
	if !slices.ContainsFunc(d.Findings, func(f control.HostFinding) bool {
		return f.Code == c.code && strings.Contains(f.What, c.says) && f.Command != ""
	}) {
		return fmt.Errorf("doctor does not find %s (%s) but %+v", c.code, c.says, d.Findings)
	}
	return nil
}

// cure types the commands of the findings.
func (c *crippled) cure(t *testing.T, n *fleet.Node, d control.Doctor) {
	t.Helper()
	for _, f := range d.Findings {
		if f.Command == "" {
			t.Errorf("no command against %s: %s", f.Code, f.What)
		} else if !strings.HasPrefix(f.Command, "meshctl join") { // it goes by itself
			shell(t, n.Host, f.Command)
		}
	}
}

// reaches checks whether a container on the crippled host reaches a service of
// the other one by its VIP.
func (c *crippled) reaches(t *testing.T, from *fleet.Task, want bool) {
	t.Helper()
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error {
		api, err := from.Node.API.Service(ctx, control.ServiceRef{Network: network, Name: "api"})
		if err != nil || len(api.VIPs) == 0 {
			return fmt.Errorf("service api has VIPs %v, %w", api.VIPs, err)
		}
		once, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err = from.Get(once, api.VIPs[0]); want == (err == nil) {
			return nil
		}
		return fmt.Errorf("the VIP answers: %w, want %v", err, want)
	})
}

// diagnosis asks the doctor. Its exit code must be in step with what it found.
func diagnosis(n *fleet.Node) (d control.Doctor, err error) {
	out, err := n.Ctl("doctor", "-o", "json")
	exit, failed := errors.AsType[*exec.ExitError](err)
	if failed && exit.ExitCode() != 1 || err != nil && !failed {
		return d, err
	}
	if err = json.Unmarshal([]byte(out), &d); err == nil && failed != (len(d.Findings) > 0) {
		err = fmt.Errorf("exit code 1: %v, with %+v", failed, d.Findings)
	}
	return d, err
}

// shell types a line at a host.
func shell(t *testing.T, h *rig.Host, line string) {
	t.Helper()
	if out, err := h.Output("sh", "-ec", line); err != nil {
		t.Fatalf("%s: %s %v", line, out, err)
	}
}

// TestDoctorBeforeTheStart looks at a host on which no meshd runs.
func TestDoctorBeforeTheStart(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("iptables is not installed")
	}
	f := fleet.NewTest(t, 1)
	h := f.Rig.Hosts()[0]
	config := t.TempDir() + "/meshd.yaml"
	text := fmt.Sprintf("bind: %s\nkey-file: %s\ndns: %s:53\n", h.Addr, f.KeyFile, h.Gateway)
	must(t, os.WriteFile(config, []byte(text), 0o600))
	look := func(want int) string {
		t.Helper()
		out, err := h.Output(f.Meshctl, "doctor", "--socket", "/nonexistent", "--config", config)
		code := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code = exit.ExitCode()
		}
		if code != want {
			t.Errorf("exit code %d, %v, want %d: %s", code, err, want, out)
		}
		return string(out)
	}
	if out := look(0); !strings.Contains(out, "nothing is against meshd on this host, where no meshd answers") {
		t.Errorf("a good host: %s", out)
	}
	shell(t, h, allOfUfw)
	out := look(1)
	_, command, _ := strings.Cut(out, "mend:  ")
	command, _, _ = strings.Cut(command, "\n")
	if !strings.Contains(out, "firewall-forward (fault)") || command == "" {
		t.Fatalf("ufw: %s", out)
	}
	shell(t, h, command)
	look(0)
	must(t, os.WriteFile(config, []byte("bind: 172.20.0.77\ninsecure: true\n"), 0o600))
	if out := look(1); !strings.Contains(out, "172.20.0.77:7946 is to be listened on") ||
		!strings.Contains(out, "ip address add 172.20.0.77/32 dev eth0") {
		t.Errorf("an address of nobody: %s", out)
	}
	must(t, os.WriteFile(config, []byte("bind: 172.20.0.1\n"), 0o600))
	if out := look(1); !strings.Contains(out, "meshd would not start: key-file") {
		t.Errorf("without a key: %s", out)
	}
	must(t, os.WriteFile(config, []byte("bnd: 172.20.0.1\n"), 0o600))
	look(2)
}

// TestDoctorWithoutNetNSDirectory looks at a host as the shipped unit shows it to meshd:
// /etc cannot be written to, and /etc/netns was not there when the unit started. With
// the directory there at the start, nothing is found.
func TestDoctorWithoutNetNSDirectory(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"unshare", "mount", "mkdir"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	f := fleet.NewTest(t, 1)
	h := f.Rig.Hosts()[0]
	config := t.TempDir() + "/meshd.yaml"
	must(t, os.WriteFile(config, fmt.Appendf(nil, "bind: %s\nkey-file: %s\n", h.Addr, f.KeyFile), 0o600))
	look := func(made string) (d control.Doctor) {
		t.Helper()
		line := "mount --bind " + t.TempDir() + " /etc; " + made + " mount -o remount,bind,ro /etc; INVOCATION_ID=a1 exec " +
			f.Meshctl + " doctor -o json --socket /nonexistent --config " + config
		out, err := h.Output("unshare", "-m", "sh", "-ec", line)
		if code := exitCode(err); code > 1 {
			t.Fatalf("%s: %s %v", line, out, err)
		}
		must(t, json.Unmarshal(out, &d))
		return d
	}
	d := look("")
	if len(d.Findings) != 1 || d.Findings[0].Code != "netns-directory" ||
		!strings.HasPrefix(d.Findings[0].Command, "mkdir -p /etc/netns && ") {
		t.Errorf("without /etc/netns: %+v", d.Findings)
	}
	made, _, _ := strings.Cut(d.Findings[0].Command, " && ") // no unit is there to start anew
	if d := look(made + "; mount -t tmpfs none /etc/netns;"); len(d.Findings) > 0 {
		t.Errorf("with /etc/netns: %+v", d.Findings)
	}
}

// TestDoctorIPVS is for hosts that balance by IPVS: what reaches it passes the
// hook input, and it takes addresses of a pool from a daemon that balances by nft.
func TestDoctorIPVS(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/net/ip_vs"); err != nil {
		t.Skip("this kernel has no IPVS; make netns-vm has one")
	}
	t.Run("input drops", func(t *testing.T) {
		t.Parallel()
		c := crippled{before: anInputDrop, code: "firewall-input", says: "connections of containers to VIPs", cut: true}
		c.before = strings.Replace(c.before, "22, 9100-9199", "22, 53, 7946", 1) +
			"\nnft add rule inet filter input udp dport '{ 53, 7946 }' accept"
		c.test(t)
	})
	t.Run("IPVS beside nft", func(t *testing.T) {
		t.Parallel()
		c := crippled{
			flags: []string{"--lb", "nft"}, after: "ipvsadm -A -t 10.96.0.9:80",
			code: "ipvs-foreign", says: "IPVS balances 10.96.0.9:80",
		}
		c.test(t)
	})
}

// TestDoctorKubeProxy gives a host the rules of kube-proxy for a service in the
// pool, as two of its modes make them, and the device of the third: each is named.
// There is no command against it.
func TestDoctorKubeProxy(t *testing.T) {
	t.Parallel()
	f := fleet.NewTest(t, 1)
	n := f.AddNode(f.Rig.Hosts()[0], nil)
	must(t, n.Start(t.Context()))
	ctl(t, n, "network", "create", network, "--subnet", "10.96.0.0/16")
	run(t, "web", n)
	for _, c := range []struct{ make, undo, says string }{
		{"nft 'add table ip nat; add chain ip nat KUBE-SERVICES; add rule ip nat KUBE-SERVICES ip daddr 10.96.0.10 tcp dport 53 counter'", "nft delete table ip nat", "chain KUBE-SERVICES of table ip nat"},
		{"nft 'add table ip kube-proxy; add chain ip kube-proxy services; add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.96.0.10 . tcp . 53 : goto services } }'", "nft delete table ip kube-proxy", "table ip kube-proxy"},
		{"nft 'add table ip nat; add chain ip nat KUBE-SERVICES; add rule ip nat KUBE-SERVICES ip daddr 10.43.0.10 tcp dport 53 counter'", "nft delete table ip nat", ""},
	} {
		shell(t, n.Host, c.make)
		d, err := diagnosis(n)
		must(t, err)
		found := slices.ContainsFunc(d.Findings, func(f control.HostFinding) bool {
			return f.Code == "kube-proxy" &&
				strings.Contains(f.What, c.says)
		})
		if found != (c.says != "") {
			t.Errorf("after %s doctor finds %+v", c.make, d.Findings)
		}
		shell(t, n.Host, c.undo)
	}
	if d, err := diagnosis(n); err != nil || len(d.Findings) > 0 {
		t.Errorf("without kube-proxy: %+v %v", d.Findings, err)
	}
}

// TestHostFindingsAreEvents drops what containers send, and lets it pass again.
// Both are events, and the metric follows.
func TestHostFindingsAreEvents(t *testing.T) {
	t.Parallel()
	f := fleet.NewTest(t, 1)
	n := f.AddNode(f.Rig.Hosts()[0], []string{"--lb", "nft"}) // what IPVS delivers is not forwarded
	must(t, n.Start(t.Context()))
	ctl(t, n, "network", "create", network, "--subnet", "10.96.0.0/16")
	run(t, "web", n)
	told := make(chan control.Event, 1024)
	go func() {
		_ = n.API.Watch(t.Context(), control.WatchRequest{}, func(e control.Event) error { told <- e; return nil })
	}()
	if e := <-told; e.Type != control.EventStart {
		t.Fatalf("first %+v", e)
	}
	await := func(kind control.EventType) {
		t.Helper()
		for {
			select {
			case e := <-told:
				if e.Type == kind && strings.HasPrefix(e.Detail, "firewall-forward") {
					return
				}
			case <-time.After(rig.Patience(20 * time.Second)):
				t.Fatalf("no event %s", kind)
			}
		}
	}
	metric := func(want string) {
		t.Helper()
		if out := ctl(t, n, "metrics"); !strings.Contains(out, `meshd_host_findings{code="firewall-forward"} `+want+"\n") {
			t.Errorf("the metric is not %s", want)
		}
	}
	shell(t, n.Host, aForwardDrop)
	await(control.EventHostFound)
	metric("1")
	shell(t, n.Host, "nft delete table inet filter")
	await(control.EventHostMended)
	metric("0")
}
