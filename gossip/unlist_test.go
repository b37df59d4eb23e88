package gossip

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestUnlist: G18. The membership is told that a node is not where it lists it,
// with ever higher numbers, until it does not list it there any more; and no more
// often than it takes, nor for ever.
func TestUnlist(t *testing.T) {
	now := time.Now()
	j := testJoiner(nil)
	sent := 0
	j.inject = func([]byte) bool { sent++; return true }
	told := func() (n int) {
		n, sent = sent, 0
		return n
	}
	j.setListed("a", addr(1))
	j.unlist("a", addr(1)) // it is there
	j.unlist("b", addr(2)) // it is not listed
	if j.unlistMoved(now); told() != 0 {
		t.Fatal("who is where it is listed is reported dead")
	}
	j.unlist("a", addr(2))
	if again := j.unlistMoved(now); told() != 1 || again != unlistInterval {
		t.Fatalf("the next is after %v", again)
	}
	if j.unlistMoved(now); told() != 0 {
		t.Fatal("told again at once")
	}
	if j.unlistMoved(now.Add(unlistInterval)); told() != 1 {
		t.Fatal("the first number did not suffice, and no other is tried")
	}
	j.setListed("a", netip.AddrPort{})
	if j.unlistMoved(now.Add(time.Second)); told() != 0 || len(j.moves) > 0 {
		t.Fatal("it is not listed any more")
	}
	j.setListed("a", addr(1))
	j.unlist("a", addr(2))
	all := 0
	for i := range 1000 {
		j.unlistMoved(now.Add(time.Duration(i) * unlistInterval))
		all += told()
	}
	if len(j.moves) > 0 || all > 64 {
		t.Errorf("told %d times, %d go on", all, len(j.moves))
	}
}

// TestPingIsAnsweredWhereItCameFrom: G18. Two that moved at once know each other's
// former places only, and find each other nevertheless.
func TestPingIsAnsweredWhereItCameFrom(t *testing.T) {
	a := testCore(t, "a", "b")
	a.Drain()
	e := newEncoder("b", 1)
	e.ping(framePing, pingFrame{nonce: 7, target: "a"})
	for from, to := range map[string]string{"10.9.9.9:7000": "10.9.9.9:7000", "0.0.0.0:0": "invalid AddrPort"} {
		a.ReceiveFrom(2*time.Second, netip.MustParseAddrPort(from), e.b)
		sends, _ := a.Drain()
		found := false
		for _, s := range sends {
			found = found || s.To == "b" && fmt.Sprint(s.Addr) == to && len(s.Data) < 40
		}
		if !found {
			t.Errorf("from %s: %+v", from, sends)
		}
	}
}
