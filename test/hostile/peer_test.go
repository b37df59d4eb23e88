//go:build linux

package hostile

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"meshd/gossip/gossiptest"
	"meshd/test/fleet"
)

// peer speaks to daemons with the key of the mesh, from a host of its own.
type peer struct {
	m    *mesh
	gcm  cipher.AEAD
	conn net.PacketConn
	n    uint64 // of nonces
}

func newPeer(m *mesh) (*peer, error) {
	text, err := os.ReadFile(m.fleet.KeyFile)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	p := &peer{m: m}
	if p.gcm, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	if p.conn, err = m.evil.ListenPacket(m.ctx, "udp", netip.AddrPortFrom(m.evil.Addr, 7946).String()); err != nil {
		return nil, err
	}
	m.t.Cleanup(func() { _ = p.conn.Close() })
	return p, listen(m)
}

// seal encrypts as memberlist does in version 1.
func (p *peer) seal(message, with []byte) []byte {
	p.n++
	nonce := binary.BigEndian.AppendUint64([]byte("evil"), p.n)
	return p.gcm.Seal(append([]byte{1}, nonce...), nonce, message, with)
}

// sealStream encrypts a message for a stream.
func (p *peer) sealStream(message []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{10}, uint32(1+12+len(message)+16))
	return append(head, p.seal(message, head)...)
}

// raw sends a datagram as it is.
func (p *peer) raw(to *fleet.Node, b []byte) error {
	_, err := p.conn.WriteTo(b, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Host.Addr, 7946)))
	return err
}

// message sends one of memberlist's messages, encrypted.
func (p *peer) message(to *fleet.Node, message []byte) error { return p.raw(to, p.seal(message, nil)) }

// say sends packets to all daemons: in datagrams, or over streams what is too large.
func (p *peer) say(packets ...[]byte) error {
	for _, n := range p.m.nodes {
		if err := p.sayTo(n, packets...); err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) sayTo(to *fleet.Node, packets ...[]byte) error {
	for i, b := range packets {
		var err error
		if len(b) < 32<<10 {
			err = p.message(to, gossiptest.Datagram(b))
		} else {
			err = p.stream(to, gossiptest.Stream(uint64(len(b)), b))
		}
		if err != nil {
			return err
		}
		if i%32 == 31 {
			p.pause(2 * time.Millisecond) // so that the socket's buffer does not lose most of it
		}
	}
	return nil
}

func (p *peer) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-p.m.ctx.Done():
	}
}

// dial opens a stream to a daemon, which is closed after the case.
func (p *peer) dial(to *fleet.Node) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(p.m.ctx, 2*time.Second)
	defer cancel()
	c, err := p.m.evil.Dial(ctx, "tcp", netip.AddrPortFrom(to.Host.Addr, 7946).String())
	if err != nil {
		return nil, fmt.Errorf("stream to %s: %w", to.Host.Name, err)
	}
	p.m.later(func() { _ = c.Close() })
	return c, nil
}

// stream sends one message over a stream, encrypted. The daemon may refuse to
// read on.
func (p *peer) stream(to *fleet.Node, message []byte) error {
	c, err := p.dial(to)
	if err != nil {
		return err
	}
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	_, _ = c.Write(p.sealStream(message))
	return c.Close()
}
