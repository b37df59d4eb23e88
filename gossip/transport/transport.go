package transport

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

// This file owns what goes from the network to memberlist, and the counters. Streams are
// counted in streams.go and checked in guard.go.

// Transport stands between memberlist and its transport: it counts bytes, bounds dials
// and streams in time, number and size (memberlist writes user messages without a
// deadline), ends them with the node, and keeps away what would crash memberlist v0.7.
// It implements memberlist.NodeAwareTransport. Safe for concurrent use.
type Transport struct {
	// Fixed by New.

	memberlist.NodeAwareTransport         // the network
	cfg                           Config  // as New got it
	encrypted                     bool    // what is not encrypted is refused
	opener                        *opener // nil: what is encrypted cannot be looked at

	// Counters.

	in       atomic.Uint64 // bytes of packets and streams, memberlist's own included
	out      atomic.Uint64 // likewise
	rejected atomic.Uint64 // packets and streams that would have done harm
	refused  atomic.Uint64 // streams over a bound: not taken, or ended for a newer one
	held     atomic.Int64  // bytes that the guards of streams have read ahead

	// What is handed to memberlist, and when that ends.

	packets      chan *memberlist.Packet // datagrams that memberlist may see
	streams      chan net.Conn           // streams, each a *stream
	injected     chan []byte             // messages of this node to its own memberlist
	lastUnopened time.Time               // when memberlist last got a packet that no key opens; receive's own
	stopping     chan struct{}           // closed when nothing is handed on any more
	stopped      chan struct{}           // closed when the network is down
	wg           sync.WaitGroup          // of receive and accept

	mu sync.Mutex // guards everything that follows

	// The streams. Invariant: incoming is the sum of streamsFrom.

	open        map[*stream]struct{} // all that have not ended
	streamsFrom map[netip.Addr]int   // how many came from each address, at most maxStreamsFrom
	incoming    int                  // how many came, at most maxStreams
	numbered    uint64               // how many there were so far
	closed      bool                 // Shutdown was called
}

// Config configures a Transport.
type Config struct {
	// Keys returns the keys of the keyring, the primary first. Nil: no encryption.
	Keys func() [][]byte
	// OnStranger gets the addresses that packets come from while Alone is set. Nil only
	// if Alone is.
	OnStranger func(netip.AddrPort)
	Alone      *atomic.Bool // no other node is listed; or nil
	// OnPacket gets the packets of the protocol above, which it must copy, with the
	// address that they came from: memberlist would not say. Nil: memberlist gets them.
	OnPacket func(from netip.AddrPort, b []byte)

	DialTimeout   time.Duration // longest dial
	StreamTimeout time.Duration // of a whole outgoing stream
}

// Counters are what a Transport counts since its start.
type Counters struct {
	In, Out  uint64 // bytes of packets and streams, memberlist's own included
	Rejected uint64 // packets and streams that would crash memberlist, or are too long
	Refused  uint64 // streams over the bound on their number
}

// Counters returns the counters of the moment.
func (t *Transport) Counters() Counters {
	return Counters{t.in.Load(), t.out.Load(), t.rejected.Load(), t.refused.Load()}
}

// Bounds of incoming streams (G7, G8). For one over them, the stream ends that has waited
// longest to show a key, see makeRoom; if there is none, the new one. The peer tries
// again.
const (
	maxStreams       = 256
	maxStreamsFrom   = 48 // of one address
	maxStreamBytes   = 4 << 20
	maxHeldBytes     = 32 << 20         // read ahead by the guards of all streams
	unopenedInterval = 10 * time.Second // between packets without a key that memberlist gets
)

// New returns a Transport over a network, which it owns: Shutdown ends both.
func New(network memberlist.NodeAwareTransport, cfg Config) *Transport {
	var o *opener
	if cfg.Keys != nil {
		o = &opener{keys: cfg.Keys}
	}
	return newTransport(network, cfg, cfg.Keys != nil, o)
}

func newTransport(network memberlist.NodeAwareTransport, cfg Config, encrypted bool, o *opener) *Transport {
	t := &Transport{
		NodeAwareTransport: network, cfg: cfg, encrypted: encrypted, opener: o, packets: make(chan *memberlist.Packet),
		streams: make(chan net.Conn), injected: make(chan []byte, maxInjected), stopping: make(chan struct{}),
		stopped: make(chan struct{}), open: map[*stream]struct{}{}, streamsFrom: map[netip.Addr]int{},
	}
	t.wg.Go(t.receive)
	t.wg.Go(t.accept)
	return t
}

// receive hands packets on. It drains the network until that is down: the
// network's Shutdown waits for goroutines that may be about to hand something
// over.
func (t *Transport) receive() {
	for {
		select {
		case p := <-t.NodeAwareTransport.PacketCh():
			t.in.Add(uint64(len(p.Buf)))
			plain, ok := t.sane(p.Buf)
			if !ok {
				t.rejected.Add(1)
				continue
			}
			if t.cfg.Alone != nil && t.cfg.Alone.Load() {
				t.cfg.OnStranger(addrPortOf(p.From))
			}
			if own := ownMessage(plain); own != nil && t.cfg.OnPacket != nil {
				t.cfg.OnPacket(addrPortOf(p.From), own)
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

// maxInjected bounds the injected messages that wait.
const maxInjected = 64

// Inject hands memberlist a message as if it had come from outside. It returns false, and
// drops the message, if too many wait, or if no key can seal it.
func (t *Transport) Inject(message []byte) bool {
	if t.encrypted {
		if t.opener == nil {
			return false
		}
		if message = t.opener.seal(message); message == nil {
			return false
		}
	}
	select {
	case t.injected <- message:
		return true
	default:
		return false
	}
}

// sane reports whether memberlist may see a packet, and returns its content, as far as it
// can be opened. A packet that no key opens can do no harm, but memberlist logs each one,
// so it gets one now and then.
func (t *Transport) sane(b []byte) (plain []byte, ok bool) {
	if !t.encrypted {
		return b, sanePlain(b)
	}
	if !sanePacket(b) {
		return nil, false
	}
	if t.opener == nil {
		return nil, true
	}
	if plain := t.opener.open(b, nil); plain != nil {
		return plain, sanePlain(plain)
	}
	now := time.Now()
	if now.Sub(t.lastUnopened) < unopenedInterval {
		return nil, false
	}
	t.lastUnopened = now
	return nil, true
}

// ownMessage returns the packet of the protocol above that a datagram holds, as
// the only message, behind a checksum or not. It returns nil for everything else.
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
func (t *Transport) accept() {
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

// addrPortOf returns the address and port of a, or the zero AddrPort if it has
// none.
func addrPortOf(a net.Addr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	ap, _ := netip.ParseAddrPort(a.String())
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// PacketCh implements memberlist.Transport.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *Transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	t.out.Add(uint64(len(b)))
	return t.NodeAwareTransport.WriteToAddress(b, a)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *Transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	c, err := t.NodeAwareTransport.DialAddressTimeout(a, min(timeout, t.cfg.DialTimeout))
	if err != nil {
		return nil, err
	}
	s := t.track(c, false)
	if s == nil {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	if err := s.SetDeadline(time.Now().Add(t.cfg.StreamTimeout)); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// Shutdown implements memberlist.Transport. It ends all streams and the network.
// A second call does nothing.
func (t *Transport) Shutdown() error {
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
