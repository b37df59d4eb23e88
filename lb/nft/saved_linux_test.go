package nft

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/google/nftables"

	"meshd/lb"
	"meshd/state"
)

// reload saves the node's ruleset, flushes it, and loads it again, as hosts do
// that keep their rules over a restart.
func (r *rig) reload() (saved string) {
	r.t.Helper()
	if saved = r.nftList(); saved == "" {
		r.t.Skip("needs nft")
	}
	r.node.do(r.t, func() error {
		load := exec.Command("nft", "-f", "-")
		load.Stdin = bytes.NewReader([]byte("flush ruleset\n" + saved))
		if out, err := load.CombinedOutput(); err != nil {
			return fmt.Errorf("nft -f: %w: %s\nof\n%s", err, out, saved)
		}
		return nil
	})
	return saved
}

// What the helpers of IPVS leave can be saved and loaded, and means the same.
func TestSavedHelpers(t *testing.T) {
	r := newRig(t)
	h := r.helpers()
	for _, p := range []lb.Pool{{Prefix: pool4, Src: node4}, {Prefix: pool6, Src: node6}} {
		must(t, h.SetPool(p))
	}
	var served []lb.Key
	for _, a := range []netip.Addr{vip4, vip6} {
		must(t, h.SetMarks(map[lb.Key]uint32{
			allTCP(a): FirstMark + 1, allUDP(a): FirstMark + 2,
			{VIP: a, Proto: 255}: FirstMark + 3,
		}))
		served = append(served, allTCP(a), lb.Key{VIP: a, Port: 80, Proto: state.UDP})
	}
	must(t, h.Serve(served, nil))
	saved := r.reload()
	if now := r.nftList(); now != saved {
		t.Errorf("saved\n%s\nloaded\n%s", saved, now)
	}
	again := r.helpers()
	if !maps.Equal(again.Marks(), h.Marks()) || fmt.Sprint(again.Served()) != fmt.Sprint(h.Served()) {
		t.Errorf("loaded marks %v and services %v, want %v and %v", again.Marks(), again.Served(), h.Marks(), h.Served())
	}
}

// Rule L1: what a version left whose map of marks has a name that nft does not
// load keeps its marks.
func TestMarksOfAnUnloadableMap(t *testing.T) {
	r := newRig(t)
	old := r.helpers()
	marks := map[lb.Key]uint32{allTCP(vip4): FirstMark + 1, allUDP(vip6): FirstMark + 2}
	c := old.sock.nft
	for i := range families {
		set := old.oldMarks(i)
		must(t, c.AddSet(set, nil))
		for k, mark := range marks {
			if familyIndex(k.VIP) == i {
				must(t, c.SetAddElements(set, []nftables.SetElement{markElement(k, mark)}))
			}
		}
	}
	must(t, old.sock.commit())
	looking, err := NewHelpers(Config{NetNS: r.node.path, Log: slog.New(slog.DiscardHandler)}, true)
	must(t, err)
	t.Cleanup(func() { looking.Close() })
	if err := looking.Discover(); err != nil || !maps.Equal(looking.Marks(), marks) {
		t.Errorf("looked: marks %v, %v; want %v", looking.Marks(), err, marks)
	}
	next := r.helpers()
	if found, err := next.Check(); !maps.Equal(next.Marks(), marks) || err != nil || len(found) > 0 {
		t.Errorf("marks %v, check %v, %v; want marks %v", next.Marks(), found, err, marks)
	}
	r.reload()
}

// The services of the nft driver can be loaded, and are taken over. (Until then
// they go to the first backend each: nft lists a slot as read after it is reset.)
func TestSavedServices(t *testing.T) {
	r := newRig(t)
	d := r.driver()
	for i := 2; i <= 5; i++ {
		r.serve(r.peer, fmt.Sprintf("10.1.0.%d:80", i))
		r.serve(r.peer, fmt.Sprintf("[fd01::%d]:80", i))
	}
	sticky := service(vip4, 0, state.UDP, "10.1.0.2:0", "10.1.0.3:0*2")
	sticky.Scheduler = "sh"
	want := table(
		service(vip4, 80, state.TCP, "10.1.0.2:80", "10.1.0.3:80", "10.1.0.4:80*2", "10.1.0.5:80*0"),
		service(vip6, 80, state.UDP, "[fd01::2]:80", "[fd01::3]:80"),
		service(vip4, 81, state.TCP), sticky)
	r.program(d, want)
	saved := r.reload()
	if now := r.nftList(); now != saved {
		t.Errorf("saved\n%s\nloaded\n%s", saved, now)
	}
	r.spread(r.peer, "tcp", "10.96.3.7:80", 4) // answered, by whichever
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
	if got := r.spread(r.peer, "tcp", "10.96.3.7:80", 8); got["10.1.0.2:80"] != 2 || got["10.1.0.3:80"] != 2 ||
		got["10.1.0.4:80"] != 4 {
		t.Errorf("loaded, and programmed again, TCP spreads %v", got)
	}
	if got := r.spread(r.peer, "udp", "[fd96::37]:80", 4); got["[fd01::2]:80"] != 2 || got["[fd01::3]:80"] != 2 {
		t.Errorf("loaded, and programmed again, UDP spreads %v", got)
	}
}
