package nft

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshd/lb"
	"meshd/lb/internal/linktest"
	"meshd/state"
)

// four serves port 80 on all addresses of the peer.
func (r *rig) four() {
	for _, a := range []string{"10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5"} {
		r.Serve(r.Peer, a+":80")
	}
}

func equalCounts(t *testing.T, what string, got, want map[string]int) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
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
			backend, _, err := r.Ask(r.Node, "tcp", vip+":80", "")
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

// refused checks that both the own host and the peer are refused at once.
func (r *rig) refused(network, addr string) {
	r.T.Helper()
	for _, n := range []*linktest.Namespace{r.Node, r.Peer} {
		start := time.Now()
		_, _, err := r.Ask(n, network, addr, "")
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) > time.Second {
			r.T.Errorf("%s %s: %v after %v, want connection refused at once", network, addr, err, time.Since(start))
		}
	}
}

// What the driver writes, the nft tool lists; it is easily made to abort.
func TestListable(t *testing.T) {
	r := newRig(t)
	r.NftList() // test/dataplane shows what connections meet
	d := r.driver()
	sticky, hash := *service(vip4, 443, state.TCP, "10.1.0.2:80", "10.1.0.3:80*2"),
		*service(vip6, 443, state.UDP, "[fd01::2]:443")
	sticky.Affinity, hash.Scheduler = time.Hour, "sh"
	r.program(d, table(
		service(vip4, 80, state.TCP, "10.1.0.2:80", "10.1.0.3:80*0"),
		service(vip4, 80, state.UDP, "10.1.0.4:80*30", "10.1.0.5:80*10"),
		service(vip6, 80, state.TCP, "[fd01::2]:80", "[fd01::3]:80"), service(vip6, 81, state.TCP), &sticky, &hash,
		service(vip4.Next(), 0, 0, "10.1.0.2:0"), service(vip6.Next(), 0, 0, "[fd01::4]:0")))
	if list := r.NftList(); list != "" && !strings.Contains(list, `comment "wrr affinity 1h0m0s"`) {
		t.Errorf("no note of affinity in %s", list)
	}
}

func TestUsage(t *testing.T) {
	r := newRig(t)
	r.four()
	d := r.driver()
	r.program(d, table(service(vip4, 80, state.TCP, "10.1.0.2:80")))
	c, err := r.Dial(r.Peer, "tcp", "10.96.3.7:80", "10.1.0.5:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	key := lb.Key{VIP: vip4, Port: 80, Proto: state.TCP}
	usage, err := d.Usage(t.Context(), []lb.Key{key})
	if err != nil || usage[key].Connections != 1 ||
		usage[key].Backends[netip.MustParseAddrPort("10.1.0.2:80")].Active != 1 {
		t.Errorf("usage %+v, %v; want one connection", usage, err)
	}
}
