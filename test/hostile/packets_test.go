//go:build linux

package hostile

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"meshd/gossip/gossiptest"
	"meshd/mesh/control"
	"meshd/state"
	"meshd/test/fleet"
)

// counted are the frames that announce a number of items, up to that number,
// with the bytes that an item takes at least.
func counted() map[string]struct {
	typ   byte
	size  uint64
	start func(w *gossiptest.Writer)
} {
	type frame = struct {
		typ   byte
		size  uint64
		start func(w *gossiptest.Writer)
	}
	name := func(w *gossiptest.Writer) { w.Str(network) }
	delta := func(w *gossiptest.Writer) {
		w.Ref(network)
		w.Ref("counts")
		w.Byte(1)
		for _, v := range []uint64{1, 0, 9, 9} {
			w.Uint(v)
		}
		w.Fixed(1)
	}
	return map[string]frame{
		"hot":     {gossiptest.Hot, 13, name},
		"more":    {gossiptest.More, 13, name},
		"heads":   {gossiptest.Heads, 13, func(w *gossiptest.Writer) { name(w); w.Uint(1); w.Byte(0); w.Uint(1); w.Uint(0) }},
		"buckets": {gossiptest.Heads, 1, func(w *gossiptest.Writer) { name(w); w.Uint(256); w.Byte(0) }},
		"summary": {gossiptest.Summary, 8, name},
		"recent":  {gossiptest.Summary, 13, func(w *gossiptest.Writer) { name(w); w.Uint(1); w.Fixed(7) }},
		"wants":   {gossiptest.Wants, 5, name},
		"push":    {gossiptest.Push, 3, func(w *gossiptest.Writer) { w.Byte(0); delta(w) }},
		"delta":   {gossiptest.Delta, 3, delta},
	}
}

// packetCases are packets of an attacker who has the key.
func packetCases() []attack {
	var out []attack
	for _, name := range []string{"hot", "more", "heads", "buckets", "summary", "recent", "wants", "push", "delta"} {
		f := counted()[name]
		out = append(out, attack{
			name: "count-" + name,
			do:   func(m *mesh) error { return m.peer.say(countPackets(f.typ, f.size, f.start)...) },
		})
	}
	return append(out,
		attack{name: "grammar-of-lies", do: func(m *mesh) error { return m.peer.say(grammar(1, 1500)...) }},
		attack{name: "frames-in-one-packet", do: func(m *mesh) error { return m.peer.say(manyFrames(2000)) }},
		attack{name: "wants-in-one-packet", do: func(m *mesh) error { return m.peer.say(manyWants(20000)) }},
		attack{name: "heads-of-nobody", do: func(m *mesh) error { return m.peer.say(headsOfNobody(400)...) }},
		attack{name: "owners-of-nothing", do: func(m *mesh) error { return m.peer.say(ownersOfNothing(3000)...) }},
		attack{name: "chunks-without-end", do: func(m *mesh) error { return m.peer.say(chunks(300)...) }},
		attack{name: "own-name-ahead", do: ahead(1 << 62), check: committable},
		attack{name: "own-name-ahead-a-little", do: ahead(1 << 40), check: committable},
		attack{name: "own-name-from-elsewhere", do: sameName, check: committable},
		attack{name: "boot-ids-of-others", do: func(m *mesh) error {
			return m.peer.say(pings("host1", math.MaxUint64), pings("host2", 0), pings("host3", 1<<63))
		}},
		attack{name: "ask-to-ping-others", do: askStorm},
		attack{name: "calls-of-strangers", do: calls},
		attack{name: "versions-to-come", do: func(m *mesh) error {
			return m.peer.say([]byte{2, 4, 'e', 'v', 'i', 'l'}, []byte{255}, []byte{}, []byte{1}, []byte{1, 0},
				append([]byte{1}, make([]byte, 600)...))
		}},
		attack{name: "senders-with-odd-names", do: func(m *mesh) error {
			for _, name := range []string{
				"", "a\nlevel=ERROR msg=fake", "\x1b[2J", strings.Repeat("x", 253),
				strings.Repeat("y", 254), "host1\x00", "HOST1", "../../etc/passwd",
			} {
				if err := m.peer.say(pings(name, 1), stated(name, network, 1, endpoint("odd", "odd", "10.9.9.9"))); err != nil {
					return err
				}
			}
			return nil
		}},
		attack{name: "network-with-the-global-hash", do: func(m *mesh) error {
			return m.peer.say(stated("hash", "", 1, membership("aiapigts"), definition("aiapigts", "10.44.0.0/16", "", 5)))
		}},
	)
}

// countPackets end after a number that the rest cannot hold, and whose product
// with the size of an item may be small.
func countPackets(typ byte, size uint64, start func(*gossiptest.Writer)) (out [][]byte) {
	counts := []uint64{1 << 16, 1<<20 + 1, 1 << 31, 1 << 32, 1<<63 - 1, 1 << 63, math.MaxUint64}
	for k := uint64(2); k <= 100; k++ {
		counts = append(counts, gossiptest.WrapsBy(k, 1), gossiptest.WrapsBy(k, 1)+1)
	}
	for turns := uint64(1); turns < size; turns++ {
		counts = append(counts, gossiptest.WrapsBy(size, turns))
	}
	for _, n := range counts {
		p := gossiptest.NewPacket("counts", 2)
		p.Frame(typ, func(w *gossiptest.Writer) { start(w); w.Uint(n); w.B = append(w.B, make([]byte, 10)...) })
		out = append(out, p.B)
	}
	return out
}

// grammar are packets with hostile numbers where honest ones are expected.
func grammar(seed uint64, count int) (out [][]byte) {
	world := gossiptest.World{
		Self: "host1", Peers: []string{"host2", "host3"}, Networks: []string{network},
		Addrs: []string{"172.20.0.1:7946", "172.20.0.4:9"},
	}
	for p := range gossiptest.Packets(seed, world) {
		if out = append(out, p); len(out) == count {
			break
		}
	}
	return out
}

// manyFrames asks for the same thousands of times in one packet.
func manyFrames(count int) []byte {
	p := gossiptest.NewPacket("frames", 1)
	for range count {
		p.Frame(gossiptest.Wants, func(w *gossiptest.Writer) {
			w.Str(network)
			w.Uint(3)
			for _, o := range []string{"host1", "host2", "host3"} {
				w.Ref(o)
				w.Byte(0)
				w.Uint(0)
				w.Uint(0)
				w.Uint(0)
			}
		})
		p.Frame(gossiptest.Probe, func(w *gossiptest.Writer) { w.Byte(3); w.Fixed(1) })
	}
	return p.B
}

func manyWants(count int) []byte {
	p := gossiptest.NewPacket("wants", 1)
	p.Frame(gossiptest.Wants, func(w *gossiptest.Writer) {
		w.Str(network)
		w.Uint(uint64(count))
		for i := range count {
			w.Ref([]string{"host1", "host2", "host3"}[i%3])
			w.Byte(byte(i % 2))
			w.Uint(0)
			w.Uint(0)
			w.Uint(0)
		}
	})
	return p.B
}

// headsOfNobody are heads of streams that no node has.
func headsOfNobody(count int) (out [][]byte) {
	for i := range count {
		p := gossiptest.NewPacket(fmt.Sprintf("heads-%d", i), 1)
		p.Frame(gossiptest.Hot, func(w *gossiptest.Writer) {
			w.Str(network)
			w.Uint(40)
			for k := range 40 {
				head(w, fmt.Sprintf("nobody-%d-%d", i, k), 1, 9)
			}
		})
		out = append(out, p.B)
	}
	return out
}

// ownersOfNothing are refused, since their checksum is a lie.
func ownersOfNothing(count int) (out [][]byte) {
	for i := range count {
		p := gossiptest.NewPacket("nothing", 1)
		p.Frame(gossiptest.Push, func(w *gossiptest.Writer) {
			w.Byte(0)
			w.Ref(network)
			w.Ref(fmt.Sprintf("nothing-%d", i))
			w.Byte(1)
			for _, v := range []uint64{1, 0, 1, 1} {
				w.Uint(v)
			}
			w.Fixed(1)
			w.Uint(0)
		})
		out = append(out, p.B)
	}
	return out
}

// chunks begin deltas that never end, each with 4 KiB and more of a record.
func chunks(count int) (out [][]byte) {
	for i := range count {
		p := gossiptest.NewPacket("chunks", 1)
		p.Frame(gossiptest.Delta, func(w *gossiptest.Writer) {
			w.Ref(network)
			w.Ref(fmt.Sprintf("chunks-%d", i))
			w.Byte(3) // a chunk of a snapshot
			for _, v := range []uint64{1, 0, 1 << 20, 1 << 20} {
				w.Uint(v)
			}
			w.Fixed(1)
			w.Uint(0)
			w.Uint(7)
			w.Uint(7)
			for k := range 7 {
				w.Byte(99)
				w.Uint(1)
				w.Str(fmt.Sprint(k))
				w.Ref("")
				w.Str(strings.Repeat("x", state.MaxBody))
			}
		})
		out = append(out, p.B)
	}
	return out
}

// ahead tells each host that its own stream is at that incarnation.
func ahead(inc uint64) func(m *mesh) error {
	return func(m *mesh) error {
		for _, n := range m.nodes {
			for _, name := range []string{network, ""} {
				p := gossiptest.NewPacket("ahead", 1)
				p.Frame(gossiptest.Hot, func(w *gossiptest.Writer) {
					w.Str(name)
					w.Uint(1)
					head(w, n.Host.Name, inc, 1)
				})
				if err := m.peer.sayTo(n, p.B, stated(n.Host.Name, name, inc)); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// committable: what each host says reaches all.
func committable(m *mesh) error {
	var ids []string
	for i, n := range m.nodes {
		id := fmt.Sprintf("said-%d-%d", m.cases, i)
		ids = append(ids, id)
		known, err := m.knows(n, id)
		if err != nil {
			return err
		}
		if known {
			continue
		}
		if _, err := n.Ctl("task", "add", "--network", network, "--service", "said", "--id", id, "--ip",
			fmt.Sprintf("10.1.%d.77", i+1), "--port", "80"); err != nil {
			return err
		}
		m.later(func() { _, _ = n.Ctl("task", "rm", id) })
	}
	for _, n := range m.nodes {
		if known, err := m.knows(n, ids...); err != nil || !known {
			return fmt.Errorf("%s does not know what the others say, %w", n.Host.Name, err)
		}
	}
	return nil
}

// knows reports whether the node knows tasks of all these ids.
func (m *mesh) knows(n *fleet.Node, ids ...string) (bool, error) {
	all, err := n.API.Tasks(m.ctx, control.TaskFilter{Network: network, All: true})
	found := 0
	for _, t := range all {
		if slices.Contains(ids, t.ID) {
			found++
		}
	}
	return found == len(ids), err
}

func pings(from string, boot uint64) []byte {
	p := gossiptest.NewPacket(from, boot)
	p.Frame(gossiptest.Ping, func(w *gossiptest.Writer) { w.Uint(7); w.Str("host1"); w.Str("172.20.0.1:7946") })
	return p.B
}

// sameName is a second node of each host's name, and of an older life.
func sameName(m *mesh) error {
	for range 20 {
		for _, n := range m.nodes {
			if err := m.peer.sayTo(n, pings(n.Host.Name, 0), pings(n.Host.Name, 1),
				pings(n.Host.Name, math.MaxUint64)); err != nil {
				return err
			}
		}
		m.peer.pause(20e6)
	}
	return nil
}

func askStorm(m *mesh) error {
	var out [][]byte
	for i := range 500 {
		p := gossiptest.NewPacket("asks", 1)
		p.Frame(gossiptest.Ask, func(w *gossiptest.Writer) {
			w.Uint(uint64(i))
			w.Str([]string{"host2", "nobody"}[i%2])
			w.Str([]string{"172.20.0.4:53", "127.0.0.1:22", "255.255.255.255:9", "[ff02::1]:9", "0.0.0.0:0"}[i%5])
		})
		out = append(out, p.B)
	}
	return m.peer.say(out...)
}

func calls(m *mesh) error {
	var out [][]byte
	for i, op := range []string{"keys", "sums", "", "leave", strings.Repeat("o", 63), strings.Repeat("o", 64)} {
		for k, body := range []string{
			"", "{", "null", `{"op":"remove","id":"x"}`, `{"op":"install","key":"AAAA"}`,
			`{"op":"use","id":""}`, strings.Repeat("[", 20000),
		} {
			for _, typ := range []byte{gossiptest.Call, gossiptest.Reply} {
				p := gossiptest.NewPacket("calls", 1)
				p.Frame(typ, func(w *gossiptest.Writer) { w.Uint(uint64(i*100 + k)); w.Str(op); w.B = append(w.B, body...) })
				out = append(out, p.B)
			}
		}
	}
	return m.peer.say(out...)
}
