package gossip

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func coordDelegate() *delegate {
	j := testJoiner(nil)
	return &delegate{self: j.self, joiner: j, coords: j.coords, events: j.events}
}

func TestRTTFromPings(t *testing.T) {
	a, b := coordDelegate(), coordDelegate()
	a.joiner.setListed("b", addr(2))
	b.joiner.setListed("a", addr(1))
	for range 200 {
		a.NotifyPingComplete(&memberlist.Node{Name: "b"}, 40*time.Millisecond, b.AckPayload())
		b.NotifyPingComplete(&memberlist.Node{Name: "a"}, 40*time.Millisecond, a.AckPayload())
	}
	if d, ok := a.coords.rtt("b"); !ok || d < 30*time.Millisecond || d > 50*time.Millisecond {
		t.Errorf("a link of 40 ms is taken for %v, %v", d, ok)
	}
	if d, ok := a.coords.rtt("self"); !ok || d != 0 {
		t.Errorf("to itself: %v, %v", d, ok)
	}
	if _, ok := a.coords.rtt("nobody"); ok {
		t.Error("a round trip time of nobody")
	}
	a.joiner.forgetPeer("b")
	if _, ok := a.coords.rtt("b"); ok {
		t.Error("one that left is not forgotten")
	}
}

// TestRTTBehindTheEnd: an answer to a probe that comes when its node is listed no
// more leaves nothing behind, or names that come and go fill the memory (G8).
func TestRTTBehindTheEnd(t *testing.T) {
	a, b := coordDelegate(), coordDelegate()
	a.joiner.setListed("b", addr(2))
	a.joiner.setListed("b", netip.AddrPort{})
	a.NotifyPingComplete(&memberlist.Node{Name: "b"}, 40*time.Millisecond, b.AckPayload())
	if _, ok := a.coords.rtt("b"); ok {
		t.Error("the coordinate of one that is gone is kept")
	}
}

// TestRTTHostile: coordinates come from peers (G8).
func TestRTTHostile(t *testing.T) {
	a := coordDelegate()
	a.joiner.setListed("b", addr(2))
	nan := bytes.Repeat([]byte{0xff}, len(a.AckPayload()))
	for _, p := range [][]byte{nil, {1}, nan, nan[:len(nan)-1], append(nan, 0)} {
		a.NotifyPingComplete(&memberlist.Node{Name: "b"}, time.Millisecond, p)
		a.NotifyPingComplete(&memberlist.Node{Name: "b"}, -time.Hour, p)
	}
	if _, ok := a.coords.rtt("b"); ok {
		t.Error("nonsense was taken for a coordinate")
	}
	if !a.coords.client.GetCoordinate().IsValid() {
		t.Error("and spoilt our own")
	}
}

func TestMembershipLogHasLevels(t *testing.T) {
	var out bytes.Buffer
	l := slog.NewLogLogger(levelHandler{slog.NewTextHandler(&out, nil), &logBudget{}}, slog.LevelDebug)
	l.Print("[DEBUG] memberlist: quiet")
	l.Print("[WARN] memberlist: told")
	l.Print("[ERR] memberlist: loud")
	if s := out.String(); strings.Contains(s, "quiet") || !strings.Contains(s, "said=told") ||
		!strings.Contains(s, "level=WARN") {
		t.Errorf("got %s", s)
	}
}
