package nft

import (
	"fmt"
	"net/netip"
	"testing"

	"meshd/lb"
	"meshd/state"
)

// The services of the nft driver can be loaded, and are taken over. (Until then
// they go to the first backend each: nft lists a slot as read after it is reset.)
func TestSavedServices(t *testing.T) {
	r := newRig(t)
	d := r.driver()
	for i := 2; i <= 5; i++ {
		r.Serve(r.Peer, fmt.Sprintf("10.1.0.%d:80", i))
		r.Serve(r.Peer, fmt.Sprintf("[fd01::%d]:80", i))
	}
	sticky := service(vip4, 0, state.UDP, "10.1.0.2:0", "10.1.0.3:0*2")
	sticky.Scheduler = "sh"
	want := table(
		service(vip4, 80, state.TCP, "10.1.0.2:80", "10.1.0.3:80", "10.1.0.4:80*2", "10.1.0.5:80*0"),
		service(vip6, 80, state.UDP, "[fd01::2]:80", "[fd01::3]:80"),
		service(vip4, 81, state.TCP), sticky)
	r.program(d, want)
	saved := r.Reload()
	if now := r.NftList(); now != saved {
		t.Errorf("saved\n%s\nloaded\n%s", saved, now)
	}
	r.Spread(r.Peer, "tcp", "10.96.3.7:80", 4) // answered, by whichever
	next := r.driver()
	have, err := next.Snapshot(t.Context())
	must(t, err)
	ops := lb.Diff(have, want, lb.Policy{Drained: func(lb.Key, netip.AddrPort) bool { return true }})
	for i, err := range next.Apply(t.Context(), ops) {
		if err != nil {
			t.Errorf("%s: %v", ops[i], err)
		}
	}
	have, err = next.Snapshot(t.Context())
	must(t, err)
	found, err := next.Check(t.Context())
	must(t, err)
	if found = append(found, lb.Compare(have, want)...); len(found) > 0 {
		t.Errorf("loaded, the next process leaves %v", found)
	}
	if got := r.Spread(r.Peer, "tcp", "10.96.3.7:80", 8); got["10.1.0.2:80"] != 2 || got["10.1.0.3:80"] != 2 ||
		got["10.1.0.4:80"] != 4 {
		t.Errorf("loaded, and programmed again, TCP spreads %v", got)
	}
	if got := r.Spread(r.Peer, "udp", "[fd96::37]:80", 4); got["[fd01::2]:80"] != 2 || got["[fd01::3]:80"] != 2 {
		t.Errorf("loaded, and programmed again, UDP spreads %v", got)
	}
}
