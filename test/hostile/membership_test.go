//go:build linux

package hostile

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"meshd/gossip/gossiptest"
)

// The messages of memberlist that lie about members.
const (
	suspectMessage = 3
	aliveMessage   = 4
	deadMessage    = 5
)

// member makes such a message, as msgpack.
func member(kind byte, node string, incarnation uint32, addr netip.Addr) []byte {
	b := []byte{kind, 0x83}
	if kind == aliveMessage {
		b[1] = 0x86
	}
	text := func(key, v string) {
		b = append(b, 0xa0|byte(len(key)))
		b = append(b, key...)
		b = append(b, 0xda, byte(len(v)>>8), byte(len(v)))
		b = append(b, v...)
	}
	number := func(key string, v uint32) {
		b = append(b, 0xa0|byte(len(key)))
		b = append(b, key...)
		b = binary.BigEndian.AppendUint32(append(b, 0xce), v)
	}
	number("Incarnation", incarnation)
	text("Node", node)
	if kind != aliveMessage {
		text("From", "evil")
		return b
	}
	text("Addr", string(addr.AsSlice()))
	number("Port", 7946)
	text("Meta", "")
	text("Vsn", string([]byte{1, 5, 5, 0, 0, 0}))
	return b
}

// membershipCases are messages below those of the mesh, and streams.
func membershipCases() []attack {
	everybody := func(m *mesh, messages ...[]byte) error {
		for _, n := range m.nodes {
			for i, b := range messages {
				if err := m.peer.message(n, b); err != nil {
					return err
				}
				if i%16 == 15 {
					m.peer.pause(2 * time.Millisecond)
				}
			}
		}
		return nil
	}
	overStreams := func(count int, message func(i int) []byte) func(m *mesh) error {
		return func(m *mesh) error {
			for _, n := range m.nodes {
				for i := range count {
					if err := m.peer.stream(n, message(i)); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
	bomb := gossiptest.Compressed(make([]byte, 24<<20))
	return []attack{
		{name: "garbage-of-each-kind", do: func(m *mesh) error {
			var all [][]byte
			for kind := range 16 {
				for size := range 12 {
					b := make([]byte, 1+1<<size)
					_, _ = rand.Read(b)
					b[0] = byte(kind)
					all = append(all, b)
				}
			}
			return everybody(m, all...)
		}},
		{name: "without-encryption", do: func(m *mesh) error {
			for _, n := range m.nodes {
				for range 200 {
					if err := m.peer.raw(n, gossiptest.Datagram(stated("plain", network, 1,
						endpoint("plain", "web", "10.9.9.9")))); err != nil {
						return err
					}
				}
			}
			return nil
		}},
		{name: "encryption-of-nothing", do: func(m *mesh) error {
			for _, n := range m.nodes {
				for _, b := range [][]byte{
					{},
					{0},
					{1},
					make([]byte, 29), make([]byte, 45), append([]byte{0}, make([]byte, 60)...),
					m.peer.seal(nil, nil), append([]byte{244, 5}, "label"...),
					{244, 255},
				} {
					if err := m.peer.raw(n, b); err != nil {
						return err
					}
					c, err := m.peer.dial(n)
					if err != nil {
						return err
					}
					_, _ = c.Write(binary.BigEndian.AppendUint32([]byte{10}, uint32(len(b))))
					_, _ = c.Write(b)
				}
			}
			return nil
		}},
		{name: "streams-of-any-length", do: func(m *mesh) error {
			for _, n := range m.nodes {
				for _, size := range []uint32{0, 1, 29, 30, 1 << 20, 20 << 20, 1 << 31, 0xffffffff} {
					c, err := m.peer.dial(n)
					if err != nil {
						return err
					}
					_, _ = c.Write(append(binary.BigEndian.AppendUint32([]byte{10}, size), 1, 2, 3))
				}
			}
			return nil
		}},
		{name: "bomb-in-a-datagram", do: func(m *mesh) error {
			small := gossiptest.Compressed(make([]byte, 24<<20))
			if len(small) > 60000 {
				return fmt.Errorf("%d bytes do not fit", len(small))
			}
			return everybody(m, small, small, small, small)
		}},
		{name: "bomb-in-a-stream", do: overStreams(3, func(int) []byte { return bomb })},
		{name: "messages-in-messages", do: func(m *mesh) error {
			b := gossiptest.Datagram([]byte("x"))
			for len(b) < 40000 {
				b = gossiptest.Compound(b)
			}
			wide := make([][]byte, 255)
			for i := range wide {
				wide[i] = member(suspectMessage, "host2", uint32(i), netip.Addr{})
			}
			return everybody(m, b, gossiptest.Compound(wide...), gossiptest.Compound(gossiptest.Compressed(b)),
				gossiptest.Compressed(gossiptest.Compound(b, b)), []byte{7}, []byte{7, 255}, []byte{7, 1, 255, 255})
		}},
		{name: "members-by-the-million", do: overStreams(3, func(i int) []byte { return gossiptest.PushPull([]uint64{1 << 20, 1 << 31, 1 << 62}[i], 1<<62) })},
		{name: "message-of-20-megabytes", do: overStreams(2, func(int) []byte { return gossiptest.Stream(20<<20, make([]byte, 20<<20)) })},
		{name: "message-shorter-than-said", do: overStreams(20, func(i int) []byte { return gossiptest.Stream([]uint64{1 << 20, 1 << 40, 1 << 63}[i%3], []byte("x")) })},
		{name: "streams-that-say-nothing", do: func(m *mesh) error {
			for _, n := range m.nodes {
				for range 100 {
					if _, err := m.peer.dial(n); err != nil {
						return err
					}
				}
			}
			return nil
		}},
		{name: "streams-that-begin-and-stop", do: func(m *mesh) error {
			for _, n := range m.nodes {
				for i := range 60 {
					c, err := m.peer.dial(n)
					if err != nil {
						return err
					}
					whole := m.peer.sealStream(gossiptest.Stream(1<<20, make([]byte, 4096)))
					_, _ = c.Write(whole[:min(len(whole), 1+i*40)])
				}
			}
			return nil
		}},
		{name: "death-of-everybody", do: func(m *mesh) error {
			for range 5 {
				for _, name := range []string{"host1", "host2", "host3"} {
					for _, inc := range []uint32{0, 1, 9, 1 << 20} {
						if err := everybody(m, member(suspectMessage, name, inc, netip.Addr{}),
							member(deadMessage, name, inc, netip.Addr{})); err != nil {
							return err
						}
					}
				}
			}
			return nil
		}},
		{name: "hosts-at-another-address", do: func(m *mesh) error {
			for i, name := range []string{"host1", "host2", "host3"} {
				if err := everybody(m, member(aliveMessage, name, uint32(1000+i), m.evil.Addr),
					member(aliveMessage, name, 2000, netip.MustParseAddr("127.0.0.1"))); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "keys-changed-among-made-up-members", do: func(m *mesh) error {
			var all [][]byte
			for i := range 300 {
				all = append(all, member(aliveMessage, fmt.Sprintf("spectre-%d", i), 1,
					netip.AddrFrom4([4]byte{172, 20, 1, byte(1 + i%250)})))
			}
			if err := everybody(m, all...); err != nil {
				return err
			}
			return m.thereAndBack()
		}},
		{name: "members-that-are-not-there", do: func(m *mesh) error {
			var all [][]byte
			for i := range 60 {
				all = append(all, member(aliveMessage, fmt.Sprintf("ghost-%d", i), 1,
					netip.AddrFrom4([4]byte{172, 20, 0, byte(100 + i)})))
			}
			return everybody(m, all...)
		}, check: func(m *mesh) error { // what follows their end belongs to this case
			for _, n := range m.nodes {
				all, err := n.API.Nodes(m.ctx)
				if err != nil {
					return err
				}
				for _, x := range all {
					if strings.HasPrefix(x.Name, "ghost-") && x.State != "dead" {
						return fmt.Errorf("%s still takes %s for %s", n.Host.Name, x.Name, x.State)
					}
				}
			}
			return nil
		}},
		{name: "members-with-odd-names", do: func(m *mesh) error {
			return everybody(m,
				member(aliveMessage, "", 1, m.evil.Addr), member(aliveMessage, "a\nb", 1, m.evil.Addr),
				member(aliveMessage, string(bytes.Repeat([]byte("x"), 5000)), 1, m.evil.Addr),
				member(aliveMessage, "odd", 1, netip.AddrFrom4([4]byte{})),
				member(aliveMessage, "many", 1, netip.MustParseAddr("224.0.0.1")), member(aliveMessage, "none", 1, netip.Addr{}))
		}},
		{name: "replays", do: func(m *mesh) error {
			b := m.peer.seal(gossiptest.Datagram(stated("replay", network, 1, endpoint("replay", "replay", "10.9.9.9"))), nil)
			for range 400 {
				for _, n := range m.nodes {
					if err := m.peer.raw(n, b); err != nil {
						return err
					}
				}
			}
			return nil
		}},
	}
}
