package nft

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshd/lb"
	"meshd/state"
)

// four serves port 80 on all addresses of the peer.
func (r *rig) four() {
	for _, a := range []string{"10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5"} {
		r.serve(r.peer, a+":80")
	}
}

func equalCounts(t *testing.T, what string, got, want map[string]int) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// Rules L2, L8: round robin to the connection, for the own host and a peer.
func TestRoundRobin(t *testing.T) {
	r := newRig(t)
	r.four()
	d := r.driver()
	b := []string{"10.1.0.2:80", "10.1.0.3:80", "10.1.0.4:80", "10.1.0.5:80"}
	r.program(d, table(service(vip4, 80, state.TCP, b...), service(vip4, 80, state.UDP, b...)))
	want := map[string]int{b[0]: 3, b[1]: 3, b[2]: 3, b[3]: 3}
	equalCounts(t, "own host, TCP", r.spread(r.node, "tcp", "10.96.3.7:80", 12), want)
	equalCounts(t, "own host, UDP", r.spread(r.node, "udp", "10.96.3.7:80", 12), want)
	equalCounts(t, "peer, TCP", r.spread(r.peer, "tcp", "10.96.3.7:80", 12), want)
	equalCounts(t, "peer, UDP", r.spread(r.peer, "udp", "10.96.3.7:80", 12), want)
	r.nftList()
}

// Rule L2: two services of one size do not share a counter.
func TestRoundRobinInLockstep(t *testing.T) {
	r := newRig(t)
	r.four()
	d := r.driver()
	b := []string{"10.1.0.2:80", "10.1.0.3:80"}
	other := netip.MustParseAddr("10.96.0.9")
	r.program(d, table(service(vip4, 80, state.TCP, b...), service(other, 80, state.TCP, b...)))
	got := map[string]int{}
	for range 6 {
		for _, vip := range []string{"10.96.3.7", "10.96.0.9"} {
			backend, _, err := r.ask(r.node, "tcp", vip+":80", "")
			if err != nil {
				t.Fatal(err)
			}
			got[vip+" "+backend]++
		}
	}
	equalCounts(t, "alternating", got, map[string]int{
		"10.96.3.7 10.1.0.2:80": 3, "10.96.3.7 10.1.0.3:80": 3, "10.96.0.9 10.1.0.2:80": 3, "10.96.0.9 10.1.0.3:80": 3,
	})
}

func TestWeights(t *testing.T) {
	r := newRig(t)
	r.four()
	d := r.driver()
	r.program(d, table(service(vip4, 80, state.TCP, "10.1.0.2:80*10", "10.1.0.3:80*30", "10.1.0.4:80*0")))
	equalCounts(t, "weights 1:3:0", r.spread(r.node, "tcp", "10.96.3.7:80", 12),
		map[string]int{"10.1.0.2:80": 3, "10.1.0.3:80": 9})
}

func TestIPv6(t *testing.T) {
	r := newRig(t)
	r.serve(r.peer, "[fd01::2]:80")
	r.serve(r.peer, "[fd01::3]:80")
	d := r.driver()
	b := []string{"[fd01::2]:80", "[fd01::3]:80"}
	r.program(d, table(service(vip6, 80, state.TCP, b...), service(vip6, 80, state.UDP, b...)))
	// First: the redirects that the kernel sends for what goes back out on the
	// link it came from use up the same allowance of ICMPv6 as refusals do.
	r.refused("tcp", "[fd96::37]:81")
	r.refused("udp", "[fd96::38]:80")
	want := map[string]int{b[0]: 2, b[1]: 2}
	for _, n := range []*namespace{r.node, r.peer} {
		equalCounts(t, "TCP", r.spread(n, "tcp", "[fd96::37]:80", 4), want)
		equalCounts(t, "UDP", r.spread(n, "udp", "[fd96::37]:80", 4), want)
	}
	r.nftList()
}

// Rule L3: without declared ports, every port of TCP and UDP.
func TestAllPorts(t *testing.T) {
	r := newRig(t)
	for _, a := range []string{"10.1.0.2:80", "10.1.0.3:80", "10.1.0.2:443", "10.1.0.3:443", "[fd01::2]:443"} {
		r.serve(r.peer, a)
	}
	d := r.driver()
	r.program(d, table(service(vip4, 0, 0, "10.1.0.2:0", "10.1.0.3:0"), service(vip6, 0, 0, "[fd01::2]:0")))
	equalCounts(t, "TCP 80", r.spread(r.node, "tcp", "10.96.3.7:80", 4), map[string]int{"10.1.0.2:80": 2, "10.1.0.3:80": 2})
	equalCounts(t, "UDP 443", r.spread(r.peer, "udp", "10.96.3.7:443", 4), map[string]int{"10.1.0.2:443": 2, "10.1.0.3:443": 2})
	equalCounts(t, "v6 443", r.spread(r.peer, "tcp", "[fd96::37]:443", 2), map[string]int{"[fd01::2]:443": 2})
	r.nftList()
}

// refused checks that both the own host and the peer are refused at once.
func (r *rig) refused(network, addr string) {
	r.t.Helper()
	for _, n := range []*namespace{r.node, r.peer} {
		start := time.Now()
		_, _, err := r.ask(n, network, addr, "")
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) > time.Second {
			r.t.Errorf("%s %s: %v after %v, want connection refused at once", network, addr, err, time.Since(start))
		}
	}
}

// Rules L2, L5: what is no service is refused, and so is a service without
// backends, even if the host listens on the port.
func TestGuard(t *testing.T) {
	r := newRig(t)
	r.serve(r.node, "0.0.0.0:22")
	d := r.driver()
	r.program(d, table(service(vip4, 80, state.TCP), service(vip4, 53, state.UDP, "10.1.0.2:53*0")))
	r.refused("tcp", "10.96.3.7:80")
	r.refused("udp", "10.96.3.7:53")
	r.refused("tcp", "10.96.3.7:22")
	r.refused("tcp", "10.96.77.77:22")
	r.refused("udp", "10.96.77.77:22")
	if _, _, err := r.ask(r.peer, "tcp", "10.1.0.1:22", ""); err != nil {
		t.Errorf("the host's own address: %v", err)
	}
}

// Rule L2: a backend that connects to its own VIP gets an answer.
func TestHairpin(t *testing.T) {
	r := newRig(t)
	r.serve(r.peer, "10.1.0.2:80")
	r.serve(r.node, "10.1.0.1:8080")
	d := r.driver()
	r.program(d, table(service(vip4, 80, state.TCP, "10.1.0.2:80"), service(vip4, 80, state.UDP, "10.1.0.2:80"),
		service(vip4, 8080, state.TCP, "10.1.0.1:8080")))
	for _, network := range []string{"tcp", "udp"} {
		_, client, err := r.ask(r.peer, network, "10.96.3.7:80", "10.1.0.2:0")
		if err != nil {
			t.Fatalf("%s: %v", network, err)
		}
		if a := netip.MustParseAddrPort(client).Addr(); a != node4 {
			t.Errorf("%s: the backend saw %s, want the node %s", network, a, node4)
		}
	}
	for _, n := range []*namespace{r.node, r.peer} { // a backend on the node itself
		if _, _, err := r.ask(n, "tcp", "10.96.3.7:8080", ""); err != nil {
			t.Errorf("backend on the own host: %v", err)
		}
	}
}

// Affinity: one client, one backend; a change moves few clients.
func TestAffinity(t *testing.T) {
	r := newRig(t)
	r.four()
	d := r.driver()
	s := *service(vip4, 80, state.TCP, "10.1.0.2:80", "10.1.0.3:80", "10.1.0.4:80", "10.1.0.5:80")
	s.Affinity = time.Hour
	r.program(d, table(&s))
	if got := r.spread(r.node, "tcp", "10.96.3.7:80", 6); len(got) != 1 {
		t.Errorf("own host met %v, want one backend", got)
	}
	r.nftList()
}

// Rule L1: a new process takes over what the old one left, without a gap and
// without losing connections.
func TestAdoption(t *testing.T) {
	r := newRig(t)
	r.four()
	d := r.driver()
	hash := *service(vip6, 443, state.TCP, "[fd01::2]:443")
	hash.Scheduler = "sh"
	want := table(service(vip4, 80, state.TCP, "10.1.0.2:80", "10.1.0.3:80*2"), service(vip4, 80, state.UDP, "10.1.0.4:80"),
		service(vip6, 0, 0, "[fd01::4]:0"), &hash)
	r.program(d, want)
	conn, err := r.dial(r.peer, "tcp", "10.96.3.7:80", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before, _, _ := say(conn)

	again := r.driver()
	got, err := again.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if ops := lb.Diff(got, want, lb.Policy{}); len(ops) > 0 {
		t.Errorf("after a restart %v, want nothing to do", ops)
	}
	r.program(again, want)
	if after, _, err := say(conn); err != nil || after != before {
		t.Errorf("the connection went to %q, then to %q: %v", before, after, err)
	}
	equalCounts(t, "after", r.spread(r.node, "tcp", "10.96.3.7:80", 6), map[string]int{"10.1.0.2:80": 2, "10.1.0.3:80": 4})
	r.program(again, table())
	r.refused("tcp", "10.96.3.7:80")
}

// Rule L5: UDP leaves a removed backend with the next packet; TCP stays with a
// draining one and is cut when it is removed.
func TestRemovalOfBackends(t *testing.T) {
	r := newRig(t)
	r.four()
	d := r.driver()
	r.program(d, table(service(vip4, 80, state.TCP, "10.1.0.2:80"), service(vip4, 80, state.UDP, "10.1.0.2:80")))
	tcp, err := r.dial(r.peer, "tcp", "10.96.3.7:80", "10.1.0.5:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := r.dial(r.peer, "udp", "10.96.3.7:80", "10.1.0.5:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if b, _, err := say(tcp); b != "10.1.0.2:80" || err != nil {
		t.Fatal(b, err)
	}
	if b, _, err := say(udp); b != "10.1.0.2:80" || err != nil {
		t.Fatal(b, err)
	}
	key := lb.Key{VIP: vip4, Port: 80, Proto: state.TCP}
	usage, err := d.Usage(t.Context(), []lb.Key{key})
	if err != nil || usage[key].Connections != 1 || usage[key].Backends[netip.MustParseAddrPort("10.1.0.2:80")].Active != 1 {
		t.Errorf("usage %+v, %v; want one connection", usage, err)
	}

	r.program(d, table(service(vip4, 80, state.TCP, "10.1.0.2:80*0", "10.1.0.3:80"), service(vip4, 80, state.UDP, "10.1.0.3:80")))
	if b, _, err := say(tcp); b != "10.1.0.2:80" || err != nil {
		t.Errorf("draining TCP connection: %s, %v", b, err)
	}
	if b, _, err := say(udp); b != "10.1.0.3:80" || err != nil {
		t.Errorf("UDP after its backend went: %s, %v; want 10.1.0.3:80", b, err)
	}
	equalCounts(t, "new connections", r.spread(r.node, "tcp", "10.96.3.7:80", 3), map[string]int{"10.1.0.3:80": 3})

	r.program(d, table(service(vip4, 80, state.TCP, "10.1.0.3:80")))
	if b, _, err := say(tcp); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("TCP connection past its drain: %q, %v; want a reset", b, err)
	}
}
