package hostread_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"meshd/lb/hostcheck"
	"meshd/lb/hostread"
	"meshd/test/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.TestMain(nil, m.Run)) }

// needs skips a test whose programs are not there.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(p + " is not installed")
		}
	}
}

func shell(t *testing.T, h *rig.Host, line string) {
	t.Helper()
	if out, err := h.Output("sh", "-ec", line); err != nil {
		t.Fatalf("%s: %s %v", line, out, err)
	}
}

// read reads a host of the rig.
func read(t *testing.T, h *rig.Host) (f *hostcheck.Facts) {
	t.Helper()
	err := h.Do(func() error {
		r := hostread.Open()
		f = r.Read(hostread.Want{})
		return r.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestTablesOfIptables reads tables of iptables' own in the kernel, and judges by
// them what becomes of connections to VIPs: as if iptables had written nftables.
func TestTablesOfIptables(t *testing.T) {
	t.Parallel()
	needs(t, "iptables-legacy", "ip6tables-legacy")
	addr := netip.MustParseAddr
	for name, c := range map[string]struct{ rules, want string }{
		"nothing":                     {"true", ""},
		"an empty table":              {"iptables-legacy -L", ""},
		"a policy":                    {"iptables-legacy -P FORWARD DROP", "the policy of chain FORWARD of table ip filter of iptables-legacy (hook forward) is drop"},
		"a policy of IPv6":            {"ip6tables-legacy -P FORWARD DROP", "the policy of chain FORWARD of table ip6 filter of ip6tables-legacy (hook forward) is drop"},
		"a policy and what lets pass": {"iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD -m conntrack --ctorigdst 10.96.0.0/16 -j ACCEPT; iptables-legacy -A FORWARD -m conntrack --ctorigdst 10.1.1.0/24 -j ACCEPT; iptables-legacy -A FORWARD -m conntrack --ctorigsrc 10.1.1.0/24 -j ACCEPT", ""},
		"a chain":                     {"iptables-legacy -N own; iptables-legacy -A FORWARD -p udp -j RETURN; iptables-legacy -A FORWARD -j own; iptables-legacy -A own ! -o lo -j REJECT", "a rule of chain own, of chain FORWARD of table ip filter of iptables-legacy (hook forward), drops packets"},
		"a chain for others":          {"iptables-legacy -N own; iptables-legacy -A FORWARD -i eth7 -g own; iptables-legacy -A own -j DROP", ""},
		"the beginning of a name":     {"iptables-legacy -A FORWARD -i task+ -j DROP", "a rule of chain FORWARD of table ip filter of iptables-legacy (hook forward) drops packets"},
		"another address":             {"iptables-legacy -A FORWARD -s 10.77.0.0/16 -j DROP; iptables-legacy -A FORWARD -d 10.77.0.0/16 -j DROP", ""},
		"not an address":              {"iptables-legacy -A FORWARD ! -s 10.77.0.0/16 -j DROP", "a rule of chain FORWARD"},
		"a port":                      {"iptables-legacy -A FORWARD -p tcp --dport 80 -j DROP", "a rule of chain FORWARD"},
		"another port":                {"iptables-legacy -A FORWARD -p tcp --dport 81 -j DROP; iptables-legacy -A FORWARD -p udp -j DROP", ""},
		"what is not understood":      {"iptables-legacy -A FORWARD -m limit --limit 1/s -j DROP", ""},
		"before it is routed":         {"iptables-legacy -t raw -A PREROUTING -d 10.1.1.0/24 ! -i tasks -j DROP", "a rule of chain PREROUTING of table ip raw of iptables-legacy (hook prerouting) drops packets"},
		"kube-proxy":                  {"iptables-legacy -t nat -N KUBE-SERVICES; iptables-legacy -t nat -A KUBE-SERVICES -d 10.96.0.10/32 -p tcp --dport 53 -j ACCEPT; iptables-legacy -t nat -A OUTPUT -j DROP || iptables-legacy -t nat -A OUTPUT -j KUBE-SERVICES", "kube-proxy balances addresses of pool 10.96.0.0/16 (chain KUBE-SERVICES of table ip nat of iptables-legacy)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := rig.NewTest(t, 1).Hosts()[0]
			shell(t, h, c.rules)
			needs := &hostcheck.Needs{
				Driver: "nft", FixesHost: true, Targets: []uint16{80}, Tasks: []netip.Addr{addr("10.1.1.2"), addr("fd01:1::2")},
				Pools:    []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/64")},
				Backends: []netip.Addr{addr("10.1.2.2"), addr("fd01:2::2")}, Peers: []netip.Addr{addr("172.20.0.2")},
			}
			var said []string
			for _, f := range hostcheck.Findings(read(t, h), needs) {
				if f.Code == hostcheck.FirewallForward || f.Code == hostcheck.Unreadable || f.Code == hostcheck.KubeProxy {
					said = append(said, f.String())
				}
			}
			if c.want == "" && said != nil || !strings.Contains(strings.Join(said, "\n"), c.want) {
				t.Errorf("after %s found %q, want %q", c.rules, said, c.want)
			}
		})
	}
}

// rulesOf returns the rules of a chain.
func rulesOf(f *hostcheck.Facts, table, name string) []hostcheck.Rule {
	i := slices.IndexFunc(f.Chains, func(c hostcheck.Chain) bool { return c.Table == table && c.Name == name })
	if i < 0 {
		return nil
	}
	return f.Chains[i].Rules
}

// allocated returns how much it takes to read a host.
func allocated(t *testing.T, h *rig.Host) (uint64, *hostcheck.Facts) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f := read(t, h)
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, f
}

// TestTooManyRules gives a host more rules than are looked at: what it has is not
// known then, and said, and twice as many take no more memory. No other test runs
// beside it.
func TestTooManyRules(t *testing.T) {
	needs(t, "nft")
	h := rig.NewTest(t, 1).Hosts()[0]
	file := t.TempDir() + "/rules"
	text := "table ip many {\nchain f { type filter hook forward priority 0;\n" +
		strings.Repeat("ip saddr 10.9.9.9 drop\n", 40_000) + "}\n}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var took []uint64
	for range 2 {
		shell(t, h, "nft -f "+file) // adds to what is there
		n, f := allocated(t, h)
		took = append(took, n)
		if got := strings.Join(f.Unreadable,
			"\n"); got != "packet filters: rules of chain ip many f: more than is looked at: there are more than 32768 rules" {
			t.Errorf("not looked at is %q", got)
		}
	}
	if took[1] > took[0]*5/4 {
		t.Errorf("reading took %d KiB, and %d with twice as many rules", took[0]>>10, took[1]>>10)
	}
	shell(t, h, "nft flush chain ip many f; nft add rule ip many f drop")
	if f := read(t, h); len(f.Unreadable) > 0 || len(rulesOf(f, "many", "f")) != 1 {
		t.Errorf("with few rules again: %q, %+v", f.Unreadable, f.Chains)
	}
}

// TestTooManyRulesOfIptables is the same for a table of its own.
func TestTooManyRulesOfIptables(t *testing.T) {
	t.Parallel()
	needs(t, "iptables-legacy-restore")
	h := rig.NewTest(t, 1).Hosts()[0]
	file := t.TempDir() + "/rules"
	text := "*filter\n:FORWARD ACCEPT [0:0]\n" + strings.Repeat("-A FORWARD -s 10.9.9.9 -j DROP\n", 40_000) + "COMMIT\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	shell(t, h, "iptables-legacy-restore "+file)
	if got := strings.Join(read(t, h).Unreadable,
		"\n"); got != "packet filters of iptables: rules of filter (see iptables-legacy-save -t filter): more than is "+
		"looked at: there are more than 32768 rules" {
		t.Errorf("not looked at is %q", got)
	}
	shell(t, h, "iptables-legacy -F FORWARD; iptables-legacy -A FORWARD -j DROP")
	if f := read(t, h); len(f.Unreadable) > 0 || len(rulesOf(f, "filter", "FORWARD")) != 1 {
		t.Errorf("with few rules again: %q, %+v", f.Unreadable, f.Chains)
	}
}

// TestTooManyValues has few rules, each of which compares with as many values as one
// set may have: what counts is how much there is in all.
func TestTooManyValues(t *testing.T) {
	t.Parallel()
	needs(t, "nft")
	h := rig.NewTest(t, 1).Hosts()[0]
	var text strings.Builder
	text.WriteString("table ip many {\nset s { type ipv4_addr; elements = { 10.9.0.0")
	for i := 1; i < 4000; i++ {
		fmt.Fprintf(&text, ", 10.9.%d.%d", i/256, i%256)
	}
	text.WriteString(" }\n}\nchain f { type filter hook forward priority 0;\n" +
		strings.Repeat("ip saddr @s drop\n", 200) + "}\n}\n")
	file := t.TempDir() + "/nft"
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	shell(t, h, "nft -f "+file)
	if got := strings.Join(read(t, h).Unreadable, "\n"); !strings.Contains(got, "values in rules") {
		t.Errorf("not looked at is %q", got)
	}
}

// TestRulesOfUfw reads rules of the kinds that ufw's package has and that were not
// understood: of both ports at once, and of types of addresses.
func TestRulesOfUfw(t *testing.T) {
	t.Parallel()
	needs(t, "iptables", "nft")
	r := rig.NewTest(t, 1)
	h := r.Hosts()[0]
	shell(t, h, "iptables -N rules; iptables -A INPUT -j rules; iptables -A rules -p udp --sport 67 --dport 68 -j "+
		"ACCEPT; iptables -A rules -m addrtype --dst-type LOCAL -j RETURN; iptables -A rules -m addrtype ! --dst-type "+
		"LOCAL,MULTICAST -j DROP")
	shell(t, h, "nft 'add table ip types; add chain ip types rules { type filter hook input priority 9; }; add rule ip "+
		"types rules fib daddr type local accept; add rule ip types rules fib daddr type != local accept'")
	if out, _ := h.Output("nft", "list", "table", "ip", "filter"); !strings.Contains(string(out), "rules") {
		t.Skip("iptables does not write nftables here")
	}
	f := read(t, h)
	var got []string
	for _, c := range f.Chains {
		if c.Name != "rules" {
			continue
		}
		for _, rule := range c.Rules {
			for _, condition := range rule.Conditions {
				got = append(got, fmt.Sprint(condition.Field == hostcheck.Incomprehensible, condition.Not, condition.Numbers,
					condition.Mask))
			}
		}
	}
	want := []string{
		"false false [{17 17}] 0", "false false [{67 67}] 0", "false false [{68 68}] 0",
		"false false [] 4", "false true [] 36", "false false [] 4", "false true [] 4",
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestTablesThatMayNotBeRead reads a host as one who may not know which tables of
// iptables there are: that their rules are not known is said.
func TestTablesThatMayNotBeRead(t *testing.T) {
	t.Parallel()
	needs(t, "iptables-legacy")
	h := rig.NewTest(t, 1).Hosts()[0]
	shell(t, h, "iptables-legacy -P FORWARD DROP")
	const nobody = 65534
	there, text := false, ""
	err := h.Do(func() error {
		_, _ = unix.Setfsgid(nobody), unix.Setfsuid(nobody) // of this thread, with what root may do to files
		defer func() { _, _ = unix.Setfsuid(0), unix.Setfsgid(0) }()
		now, _ := unix.SetfsuidRetUid(-1)
		if there = now == nobody; there {
			text = strings.Join(hostread.ReadContainer(hostread.Want{}).Unreadable, "\n")
		}
		return nil
	})
	switch {
	case err != nil:
		t.Fatal(err)
	case !there:
		t.Skip("the user namespace of the test has no second user")
	case !strings.Contains(text,
		"packet filters of iptables: open /proc/thread-self/net/ip_tables_names: permission denied"):
		t.Errorf("not looked at is %q", text)
	}
}
