package gossip

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport wraps memberlist's transport: it counts bytes, bounds dials and
// streams in time, number and size (memberlist writes user messages without a
// deadline), ends them with the node, and keeps away what would crash
// memberlist v0.7 (see guard.go).
type transport struct {
	memberlist.NodeAwareTransport
	cfg          transportConfig
	in, out      atomic.Uint64 // bytes of packets and streams, memberlist's own included
	held         atomic.Int64  // bytes that the guards of streams have read ahead
	lastUnopened time.Time     // when memberlist last got a packet that no key opens; receive's own
	rejected     atomic.Uint64 // packets and streams that would have done harm
	refused      atomic.Uint64 // streams over a bound: not taken, or ended for a newer one
	packets      chan *memberlist.Packet
	streams      chan net.Conn
	injected     chan []byte   // what this node tells its own membership
	stopping     chan struct{} // nothing is handed on any more
	stopped      chan struct{} // the inner transport is down
	wg           sync.WaitGroup

	mu          sync.Mutex // guards everything that follows
	open        map[*stream]struct{}
	streamsFrom map[netip.Addr]int // incoming streams
	incoming    int
	numbered    uint64 // of all streams so far
	closed      bool
}

type transportConfig struct {
	encrypted  bool
	opener     *opener              // nil: what is encrypted cannot be looked at
	onStranger func(netip.AddrPort) // hears where packets come from while alone; may be nil
	alone      *atomic.Bool         // nobody is listed; may be nil
	// ours takes the packets of the protocol above, which it must copy, with where
	// they came from: memberlist would not tell. Nil: memberlist gets them.
	onPacket func(from netip.AddrPort, b []byte)
	dial     time.Duration // longest dial
	deadline time.Duration // of a whole outgoing stream
}

// Bounds of incoming streams (G7, G8). For one over them the stream ends that
// has waited longest to show a key, see makeRoom; if there is none, the new one.
// The peer tries again.
const (
	maxStreams       = 256
	maxStreamsFrom   = 48 // of one address
	maxStreamBytes   = 4 << 20
	maxHeldBytes     = 32 << 20 // read ahead by the guards of all streams
	unopenedInterval = 10 * time.Second
)

func newTransport(inner memberlist.NodeAwareTransport, cfg transportConfig) *transport {
	t := &transport{
		NodeAwareTransport: inner, cfg: cfg, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		injected: make(chan []byte, maxInjected),
		stopping: make(chan struct{}), stopped: make(chan struct{}), open: map[*stream]struct{}{},
		streamsFrom: map[netip.Addr]int{},
	}
	t.wg.Go(t.receive)
	t.wg.Go(t.accept)
	return t
}

// receive hands packets on. It drains the inner transport until that is down:
// its Shutdown waits for goroutines which may be about to hand something over.
func (t *transport) receive() {
	for {
		select {
		case p := <-t.NodeAwareTransport.PacketCh():
			t.in.Add(uint64(len(p.Buf)))
			plain, ok := t.sane(p.Buf)
			if !ok {
				t.rejected.Add(1)
				continue
			}
			if t.cfg.alone != nil && t.cfg.alone.Load() {
				t.cfg.onStranger(addrPortOf(p.From))
			}
			if own := ownMessage(plain); own != nil && t.cfg.onPacket != nil {
				t.cfg.onPacket(addrPortOf(p.From), own)
				continue
			}
			select {
			case t.packets <- p:
			case <-t.stopping:
			}
		case b := <-t.injected:
			select {
			case t.packets <- &memberlist.Packet{Buf: b, From: &net.UDPAddr{IP: net.IPv6loopback}, Timestamp: time.Now()}:
			case <-t.stopping:
			}
		case <-t.stopped:
			return
		}
	}
}

// maxInjected bounds what waits to be told to the membership.
const maxInjected = 64

// inject hands memberlist a message as if it had come from outside. It is dropped
// if too many wait.
func (t *transport) inject(message []byte) {
	if t.cfg.encrypted {
		if t.cfg.opener == nil {
			return
		}
		if message = t.cfg.opener.seal(message); message == nil {
			return
		}
	}
	select {
	case t.injected <- message:
	default:
	}
}

// sane reports whether memberlist may see a packet, and what is in it, as far as
// it can be opened. What no key opens can do no harm; but memberlist logs each
// such packet, so it gets one now and then.
func (t *transport) sane(b []byte) (plain []byte, ok bool) {
	if !t.cfg.encrypted {
		return b, sanePlain(b)
	}
	if !sanePacket(b) {
		return nil, false
	}
	if t.cfg.opener == nil {
		return nil, true
	}
	if plain := t.cfg.opener.open(b, nil); plain != nil {
		return plain, sanePlain(plain)
	}
	now := time.Now()
	if now.Sub(t.lastUnopened) < unopenedInterval {
		return nil, false
	}
	t.lastUnopened = now
	return nil, true
}

// ownMessage returns the packet of ours that a datagram holds: alone, as we send
// them, behind a checksum or not. It returns nil for everything else.
func ownMessage(plain []byte) []byte {
	if len(plain) >= 5 && plain[0] == msgCRC {
		if crc32.ChecksumIEEE(plain[5:]) != binary.BigEndian.Uint32(plain[1:]) {
			return nil
		}
		plain = plain[5:]
	}
	if len(plain) == 0 || plain[0] != msgUser {
		return nil
	}
	return plain[1:]
}

// accept hands incoming streams on.
func (t *transport) accept() {
	for {
		select {
		case c := <-t.NodeAwareTransport.StreamCh():
			s := t.track(c, true)
			if s == nil {
				_ = c.Close()
				continue
			}
			select {
			case t.streams <- s:
			case <-t.stopping:
				_ = s.Close()
			}
		case <-t.stopped:
			return
		}
	}
}

func addrOf(a net.Addr) netip.Addr { return addrPortOf(a).Addr() }

// addrPortOf returns the zero AddrPort for what is none.
func addrPortOf(a net.Addr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	ap, _ := netip.ParseAddrPort(a.String())
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	t.out.Add(uint64(len(b)))
	return t.NodeAwareTransport.WriteToAddress(b, a)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	c, err := t.NodeAwareTransport.DialAddressTimeout(a, min(timeout, t.cfg.dial))
	if err != nil {
		return nil, err
	}
	s := t.track(c, false)
	if s == nil {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	if err := s.SetDeadline(time.Now().Add(t.cfg.deadline)); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// Shutdown implements memberlist.Transport. It ends all streams.
func (t *transport) Shutdown() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	var open []*stream
	for s := range t.open {
		open = append(open, s)
	}
	t.mu.Unlock()
	close(t.stopping)
	for _, s := range open {
		_ = s.Close()
	}
	err := t.NodeAwareTransport.Shutdown()
	close(t.stopped)
	t.wg.Wait()
	return err
}
