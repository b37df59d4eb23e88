package gossip

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestNetworkHashes: "aiapigts" has 32 bits of the global scope's hash. A node
// that takes part in it compares both, also with a node of a version that has
// only 32 bits of them, and still compares the global scope after it left.
func TestNetworkHashes(t *testing.T) {
	c := testCore(t, "a", "b")
	if err := c.JoinNetwork(time.Second, "aiapigts"); err != nil {
		t.Fatal(err)
	}
	equal := func(typ byte, network uint64, name string) []Send {
		c.Tick(5 * time.Second)
		c.Drain()
		e := newEncoder("b", 2)
		e.probe(typ, probeFrame{ack: true, tables: []tableHash{{network, c.nets.byName[name].table.Hash()}}})
		c.Receive(5*time.Second, e.b)
		sends, _ := c.Drain()
		return sends
	}
	for _, name := range []string{"", "net", "aiapigts"} {
		sends := equal(frameProbe, networkHash(name), name)
		if len(sends) != 1 || FrameName(int(frameOf(t, sends[0]))) != "equal" {
			t.Errorf("the probe of %q: %d packets", name, len(sends))
		}
	}
	if sends := equal(frameProbe32, 0x51d8e999, ""); len(sends) > 0 {
		t.Error("of two networks with one short hash, one was compared")
	}
	if err := c.LeaveNetwork(4*time.Second, "aiapigts"); err != nil {
		t.Fatal(err)
	}
	if sends := equal(frameProbe, networkHash(""), ""); len(sends) != 1 {
		t.Error("the global scope is not compared any more")
	}
	if sends := equal(frameProbe32, 0x51d8e999, ""); len(sends) != 1 || frameOf(t, sends[0]) != frameEqual32 {
		t.Error("an old probe of the global scope was not answered in its own way")
	}
}

func frameOf(t *testing.T, s Send) byte {
	t.Helper()
	_, rest, err := decodeHead(s.Data)
	if err != nil || len(rest) == 0 {
		t.Fatal("no frame", err)
	}
	return rest[0]
}

// TestHashCollision: a network whose hash is another's is refused, with both
// names, and disturbs nothing.
func TestHashCollision(t *testing.T) {
	c := testCore(t, "a", "b")
	c.nets.hashOf = func(name string) uint64 { return networkHash(strings.TrimSuffix(name, "2")) }
	err := c.JoinNetwork(time.Second, "net2")
	if !errors.Is(err, ErrNameTaken) || !strings.Contains(err.Error(), `"net2"`) ||
		!strings.Contains(err.Error(), `"net"`) {
		t.Fatalf("not refused: %v", err)
	}
	byHash := c.nets.byHash[networkHash("net")]
	if c.nets.byName["net2"] != nil || c.store.Table("net2") != nil || byHash != c.nets.byName["net"] {
		t.Error("the refused network left something behind")
	}
	if err := c.JoinNetwork(time.Second, "Not.A.Name"); err == nil {
		t.Error("a name that is none was taken")
	}
}
