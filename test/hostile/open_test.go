//go:build linux

package hostile

import (
	"fmt"
	"net"
	"path/filepath"
	"time"

	"meshd/gossip/gossiptest"
	"meshd/test/fleet"
)

// openCases attack a daemon without a key, which takes packets from any sender.
func openCases() []attack {
	var counts [][]byte
	for _, f := range counted() {
		counts = append(counts, countPackets(f.typ, f.size, f.start)...)
	}
	bomb := gossiptest.Compressed(make([]byte, 24<<20))
	nested := gossiptest.Datagram([]byte("x"))
	for len(nested) < 40000 {
		nested = gossiptest.Compound(nested)
	}
	return []attack{
		{name: "open-counts", do: openly(func(m *mesh, send func(...[]byte) error) error { return send(datagrams(counts)...) })},
		{name: "open-grammar", do: openly(func(m *mesh, send func(...[]byte) error) error { return send(datagrams(grammar(2, 2000))...) })},
		{name: "open-bombs", do: openly(func(m *mesh, send func(...[]byte) error) error { return send(bomb, bomb, bomb, bomb, nested, nested) })},
	}
}

func datagrams(packets [][]byte) (out [][]byte) {
	for _, p := range packets {
		out = append(out, gossiptest.Datagram(p))
	}
	return out
}

// openly gives a case a daemon without a key, and looks that it is well.
func openly(do func(m *mesh, send func(...[]byte) error) error) func(m *mesh) error {
	return func(m *mesh) error {
		dir, err := m.sub("open")
		if err != nil {
			return err
		}
		cmd, err := m.start(dir, append(without(m.daemon(dir), "--key-file"), "--insecure")...)
		if err != nil {
			return err
		}
		before, _, err := usage(cmd.Process.Pid)
		if err != nil {
			return err
		}
		c, err := m.nodes[0].Host.Dial(m.ctx, "udp", "172.20.0.4:7950")
		if err != nil {
			return err
		}
		defer c.Close()
		if err := do(m, func(all ...[]byte) error { return m.sendAll(c, all) }); err != nil {
			return err
		}
		return m.soon(toRest, func() error {
			if out, err := m.ctl(dir, "status"); err != nil {
				return fmt.Errorf("%w: %s %s", err, out, fleet.Tail(filepath.Join(dir, "log"), 5))
			}
			if now, _, err := usage(cmd.Process.Pid); err != nil || now > before+moreMemory {
				return fmt.Errorf("it has %d MiB of memory, %d before, %w", now>>20, before>>20, err)
			}
			return nil
		})
	}
}

func (m *mesh) sendAll(c net.Conn, all [][]byte) error {
	for i, b := range all {
		if len(b) > 60000 {
			continue // no datagram
		}
		if _, err := c.Write(b); err != nil {
			return err
		}
		if i%32 == 31 {
			m.peer.pause(2 * time.Millisecond)
		}
	}
	return nil
}
