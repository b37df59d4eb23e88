package dataplane

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"meshd/lb/hostcheck"
	"meshd/lb/hostmend"
	"meshd/lb/hostread"
	"meshd/test/hostkind"
	"meshd/test/rig"
)

// everyKind has all behaviours tested on all kinds of hosts: those that do not
// depend on the host as well.
var everyKind = flag.Bool("every", false, "test every behaviour on every kind of host, also what does not depend on it")

// notOfHost are behaviours that do not depend on what the host is: how a driver
// picks backends, and what a daemon asks of it.
var notOfHost = []string{
	"a weight is a share of connections",
	"every scheduler spreads connections evenly",
	"every scheduler honours weights",
	"sh sends a client back to the same backend",
	"mh sends a client's port back to the same backend",
	"sh and mh use every backend",
	"affinity keeps a client with its backend",
	"affinity ends when the client was away for long enough",
	"affinity leaves a drained backend",
	"a daemon that dies in the middle of a change leaves what the next one can finish",
	"idle connections past the timeout survive with hashing by port",
	"idle connections past the timeout are reset with round robin",
	"the daemon drains until the last connection ends",
	"the daemon drains until the deadline",
	"a drain goes on over a restart of the daemon",
	"the daemon takes a task back that drains, without a dropped connection",
	"the daemon serves both addresses of a service that moves",
}

// ofHost are those of the reported ones that depend on it: firewalls have a say in
// what becomes of errors.
var ofHost = []string{
	"a backend's host tells a client of UDP that nobody listens",
	"a way that carries small packets only is found out, in both directions",
}

// onKinds are the behaviours that are tested on every kind of host.
func onKinds() []behaviour {
	of := slices.DeleteFunc(slices.Clone(behaviours), func(b behaviour) bool { return slices.Contains(notOfHost, b.name) })
	return append(of, slices.DeleteFunc(slices.Clone(reported),
		func(b behaviour) bool { return !slices.Contains(ofHost, b.name) })...)
}

// TestKinds runs the behaviours on hosts that are not prepared for the tests.
func TestKinds(t *testing.T) {
	tested := onKinds()
	if *everyKind {
		tested = behaviours
	}
	for _, kind := range hostkind.All() {
		t.Run(kind.Name, func(t *testing.T) {
			t.Parallel()
			for _, driver := range []string{"nft", "ipvs"} {
				t.Run(driver, func(t *testing.T) {
					w := worldOf(driver, newKernelOf(t, kind, driver))
					conform(t, w, tested)
				})
			}
		})
	}
}

func worldOf(driver string, k *kernel) world {
	if driver == "ipvs" {
		return &ipvsWorld{k}
	}
	return &nftWorld{k}
}

// newKernelOf makes hosts. The first, which balances, is of the kind; the others
// have backends and clients, and are prepared.
func newKernelOf(t *testing.T, kind hostkind.Kind, driver string) *kernel {
	t.Helper()
	r := rig.NewTest(t, 0)
	_, err := kind.AddHost(r, "host1")
	if errors.Is(err, hostkind.ErrMissing) {
		t.Skip(err)
	}
	must(t, err)
	for _, name := range []string{"host2", "host3"} {
		_, err := r.AddHost(name)
		must(t, err)
	}
	return newKernelOn(t, r, &kernel{kind: &kind, driver: driver})
}

// kindOfHost implements world.
func (k *kernel) kindOfHost() string {
	if k.kind == nil {
		return ""
	}
	return k.kind.Name
}

// families implements world.
func (k *kernel) families() []bool {
	if k.kind != nil && k.kind.NoIPv6 {
		return []bool{false}
	}
	return []bool{false, true}
}

func (k *kernel) pools() []netip.Prefix { return []netip.Prefix{pool4, pool6}[:len(k.families())] }

// reloaded implements world.
func (k *kernel) reloaded(t *testing.T) bool {
	if k.kind == nil || !k.kind.Reloads {
		return false
	}
	t.Helper()
	must(t, hostkind.Reload(k.box))
	return true
}

// look implements world: a host of some kind is looked at as a daemon does that may
// open its firewall, until nothing is left to mend.
func (k *kernel) look(t *testing.T) {
	if k.kind == nil {
		return
	}
	t.Helper()
	within(t, func() error { return k.box.Do(func() error { return k.lookOnce(t) }) })
}

// needs are those of a daemon that has both pools.
func (k *kernel) needs() *hostcheck.Needs {
	n := &hostcheck.Needs{
		Driver: k.driver, FixesHost: true, Pools: k.pools(), Ports: []uint16{80}, Targets: []uint16{80},
		Gossip: netip.AddrPortFrom(k.host.Addr, 7946),
	}
	for _, six := range k.families() {
		n.Tasks = append(n.Tasks, k.backend(0, six), k.backend(1, six), k.addresses[b2i(six)][0])
		n.Backends = append(n.Backends, k.backend(2, six), k.backend(3, six))
	}
	for _, h := range k.rig.Hosts()[1:] {
		n.Peers = append(n.Peers, h.Addr)
	}
	return n
}

// lookOnce looks at the host and mends what a daemon mends. The error says that it
// has to be looked at again.
func (k *kernel) lookOnce(t *testing.T) error {
	t.Helper()
	r := hostread.Open()
	defer r.Close()
	needs := k.needs()
	facts := r.Read(hostread.Want{Tasks: needs.Tasks, Destinations: slices.Concat(needs.Backends, needs.Peers)})
	_, lets := hostcheck.Check(facts, needs)
	lets = slices.DeleteFunc(lets, func(l hostcheck.AcceptRule) bool { return !l.VIPs })
	again := facts.Unreadable
	for _, a := range hostcheck.UnknownPorts(facts, needs) {
		again = append(again, fmt.Sprintf("where %s is", a))
		_ = hostmend.ResolveAddress(a)
	}
	for _, port := range hostcheck.MissingHairpin(facts, needs) {
		again = append(again, port)
		t.Logf("hairpin mode of port %s", port)
		if _, err := hostmend.Hairpin(port); err != nil {
			return err
		}
	}
	for _, group := range hostmend.ByChain(lets) {
		again = append(again, group[0].ChainID())
		t.Logf("rules in chain %s", group[0].ChainID())
		if _, err := hostmend.Accept(t.Context(), group); err != nil {
			return err
		}
	}
	if len(again) > 0 {
		return fmt.Errorf("to be looked at again: %s", strings.Join(again, ", "))
	}
	return nil
}
