package gossip

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// TestHostileNames: a packet of a sender that can be no node, and a frame about
// such a node or network, is malformed.
func TestHostileNames(t *testing.T) {
	for _, name := range []string{"", "a.b", "UPPER", "\x00", "../x", strings.Repeat("x", 64), "-x", "tasks"} {
		c := testCore(t, "a", "b")
		e := newEncoder("b", 2)
		e.hintOf(name)
		c.Receive(3*time.Second, e.b)
		if c.Stats.Malformed != 1 || len(c.pull.pulls) > 0 {
			t.Errorf("owner %q: %d malformed, %d pulls", name, c.Stats.Malformed, len(c.pull.pulls))
		}
		c.Receive(3*time.Second, newEncoder("", 2).b)
		e = &encoder{b: []byte{wireVersion}}
		e.str(name)
		e.b = append(e.b, 0, 0, 0, 0, 0, 0, 0, 1)
		c.Receive(3*time.Second, e.b)
		if c.Stats.Malformed != 3 {
			t.Errorf("sender %q: %d malformed", name, c.Stats.Malformed)
		}
	}
}

// hintOf writes a hint about an owner with that name.
func (e *encoder) hintOf(owner string) {
	e.open(frameHot)
	e.str("net")
	e.uint(1)
	e.ref(owner)
	e.byte(0)
	e.uint(1)
	e.uint(9)
	e.uint(9)
	e.fixed(1)
	e.close()
}

// TestListed: the membership takes no name and no address that can be none, and
// no more than it may hold.
func TestListed(t *testing.T) {
	h, _ := loneHost(t)
	d := &delegate{self: "lone", core: h.core, joiner: h.joiner}
	ip := net.IPv4(10, 0, 0, 1).To4()
	for _, x := range []struct {
		node memberlist.Node
		fine bool
	}{
		{memberlist.Node{Name: "b", Addr: ip, Port: 7946}, true},
		{memberlist.Node{Name: "b", Addr: ip}, false},
		{memberlist.Node{Name: "b", Port: 7946}, false},
		{memberlist.Node{Name: "b", Addr: net.IPv4zero.To4(), Port: 7946}, false},
		{memberlist.Node{Name: "b", Addr: net.IPv4(224, 0, 0, 1), Port: 7946}, false},
		{memberlist.Node{Name: "b", Addr: net.IPv4bcast, Port: 7946}, false},
		{memberlist.Node{Name: "b\n", Addr: ip, Port: 7946}, false},
		{memberlist.Node{Name: "", Addr: ip, Port: 7946}, false},
	} {
		if err := d.NotifyAlive(&x.node); (err == nil) != x.fine {
			t.Errorf("%q at %v: %v", x.node.Name, x.node.Addr, err)
		}
	}
}

// TestNewsIsBounded: what nobody takes is kept once per node, the last of it.
func TestNewsIsBounded(t *testing.T) {
	q := newMemberQueue()
	n := &memberlist.Node{Name: "b", Addr: net.IPv4(10, 0, 0, 1).To4(), Port: 1}
	for range 10 * maxMemberEvents {
		q.add(memberJoined, n)
		q.add(memberReached, n)
		q.add(memberGone, n)
	}
	es := q.take()
	if len(es) > maxMemberEvents+1 || es[len(es)-1].kind != memberGone || q.dropped == 0 {
		t.Errorf("%d events wait, the last is of kind %d, %d dropped", len(es), es[len(es)-1].kind, q.dropped)
	}
}

// TestMembershipLogIsBounded: memberlist's lines about bad packets are few.
func TestMembershipLogIsBounded(t *testing.T) {
	var b logBudget
	now := time.Unix(1e9, 0)
	said := 0
	for i := range 1000 {
		if _, ok := b.take(now.Add(time.Duration(i) * time.Millisecond)); ok {
			said++
		}
	}
	silent, ok := b.take(now.Add(2 * time.Minute))
	if said != logLines || !ok || silent != 1000-logLines {
		t.Errorf("%d lines, then %d left out", said, silent)
	}
}
