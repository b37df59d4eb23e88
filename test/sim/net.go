package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Net is an in-memory network for whole nodes in a testing/synctest bubble.
// Its ports are memberlist transports. One goroutine delivers everything, in
// the order of virtual time; nobody blocks while holding a lock, so that the
// bubble's clock can move.
type Net struct {
	start time.Time     // when its time began
	wake  chan struct{} // holds a token when there is something new to deliver

	mu sync.Mutex // guards everything that follows, and all ports and conns

	// What it is like.

	rng   *rand.Rand               // of delays and losses
	opt   Link                     // where links has none
	links map[pair]*Link           // by the numbers of two hosts
	cuts  map[pair]Cut             // links that carry nothing at present
	ports map[netip.AddrPort]*Port // who listens where
	hosts map[int32]*hostState     // by their numbers

	// What is under way.

	q    queue  // what is delivered when
	seq  uint64 // orders what is delivered at one moment
	Sent uint64 // datagrams
	Lost uint64 // by links, cuts and full buffers
	peak int    // most datagrams that arrived at one port in one second
}

// hostState is what a simulated host does to all its ports.
type hostState struct {
	resume chan struct{} // not nil while paused; closed to end the pause
	held   []func()      // what arrived meanwhile
}

// NewNet returns a network whose links are all like l. Run must be started.
func NewNet(seed uint64, l Link) *Net {
	return &Net{
		start: time.Now(), wake: make(chan struct{}, 1), rng: rand.New(rand.NewPCG(seed, 2)), opt: l,
		links: map[pair]*Link{}, cuts: map[pair]Cut{}, ports: map[netip.AddrPort]*Port{}, hosts: map[int32]*hostState{},
	}
}

// Run delivers until ctx ends.
func (n *Net) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		case <-timer.C:
		}
		if next, ok := n.deliver(); ok {
			timer.Reset(next)
		}
	}
}

// deliver does what is due and says when the next delivery is.
func (n *Net) deliver() (time.Duration, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.q) > 0 {
		if d := n.q[0].at - n.now(); d > 0 {
			return d, true
		}
		n.q.pop().fn()
	}
	return 0, false
}

func (n *Net) now() time.Duration { return time.Since(n.start) }

// after does f in d, under the lock. The caller holds the lock.
func (n *Net) after(d time.Duration, f func()) {
	n.seq++
	first := len(n.q) == 0 || n.now()+d < n.q[0].at
	n.q.push(event{at: n.now() + d, seq: n.seq, fn: f})
	if first {
		signal(n.wake)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (n *Net) chance(p float64) bool { return p > 0 && n.rng.Float64() < p }

func (n *Net) latency(l *Link) time.Duration {
	return l.Base + time.Duration(n.rng.ExpFloat64()*float64(l.Jitter))
}

func (n *Net) link(from, to int32) (*Link, Cut) {
	if l := n.links[pair{from, to}]; l != nil {
		return l, n.cuts[pair{from, to}]
	}
	return &n.opt, n.cuts[pair{from, to}]
}

// host returns what is known of a host. The caller holds the lock.
func (n *Net) host(i int32) *hostState {
	h := n.hosts[i]
	if h == nil {
		h = &hostState{}
		n.hosts[i] = h
	}
	return h
}

// SetLinks gives every link other properties.
func (n *Net) SetLinks(l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opt = l
}

// Cut makes the directed link drop what c says; 0 mends it.
func (n *Net) Cut(from, to int, c Cut) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := (pair{int32(from), int32(to)}); c == 0 {
		delete(n.cuts, p)
	} else {
		n.cuts[p] = c
	}
}

// Mend ends all cuts.
func (n *Net) Mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
}

// Pause stops a host as SIGSTOP does: what it sends waits, and what arrives.
func (n *Net) Pause(host int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.host(int32(host)); h.resume == nil {
		h.resume = make(chan struct{})
	}
}

// Resume ends a pause.
func (n *Net) Resume(host int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.host(int32(host))
	if h.resume == nil {
		return
	}
	close(h.resume)
	held := h.held
	h.resume, h.held = nil, nil
	for _, f := range held {
		f()
	}
}

// maxHeld is how many datagrams wait for a paused host: 208 KiB of kernel
// memory in skbs.
const maxHeld = 700

// arrive does f at a host, or when its pause ends. The caller holds the lock.
func (n *Net) arrive(host int32, f func()) {
	h := n.host(host)
	switch {
	case h.resume == nil:
		f()
	case len(h.held) < maxHeld:
		h.held = append(h.held, f)
	default:
		n.Lost++
	}
}

// awake waits until a host is not paused.
func (n *Net) awake(host int32) {
	for {
		n.mu.Lock()
		c := n.host(host).resume
		n.mu.Unlock()
		if c == nil {
			return
		}
		<-c
	}
}

// Port is one node's attachment to the network, a memberlist transport.
type Port struct {
	net     *Net                    // to which it belongs
	host    int32                   // the number of its host
	addr    netip.AddrPort          // where others reach it
	packets chan *memberlist.Packet // datagrams that arrived
	streams chan net.Conn           // connections that were taken
	down    bool                    // the process ended
	silent  bool                    // the whole host is gone: nothing answers
	conns   map[*Conn]bool          // that are open

	second  time.Duration // the one of which arrived is
	arrived int           // datagrams in it
}

var errDown = errors.New("the port is closed")

// Open attaches a host at an address, in place of what was there.
func (n *Net) Open(host int, addr netip.AddrPort) *Port {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := &Port{
		net: n, host: int32(host), addr: addr, conns: map[*Conn]bool{},
		packets: make(chan *memberlist.Packet, 4096), streams: make(chan net.Conn, 1024),
	}
	n.ports[addr] = p
	return p
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (p *Port) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return p.addr.Addr().AsSlice(), int(p.addr.Port()), nil
}

// PacketCh implements memberlist.Transport.
func (p *Port) PacketCh() <-chan *memberlist.Packet { return p.packets }

// StreamCh implements memberlist.Transport.
func (p *Port) StreamCh() <-chan net.Conn { return p.streams }

// WriteTo implements memberlist.Transport.
func (p *Port) WriteTo(b []byte, addr string) (time.Time, error) {
	return p.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (p *Port) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	addr, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return time.Time{}, err
	}
	n := p.net
	n.awake(p.host)
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.down {
		return time.Time{}, errDown
	}
	n.Sent++
	if peer := n.ports[addr]; peer != nil {
		n.datagram(p, addr, peer.host, append([]byte(nil), b...))
	}
	return time.Now(), nil
}

// datagram puts a datagram on the wire. The caller holds the lock.
func (n *Net) datagram(from *Port, to netip.AddrPort, host int32, b []byte) {
	l, cut := n.link(from.host, host)
	if cut&CutDatagrams != 0 || n.chance(l.Loss) {
		n.Lost++
		return
	}
	d := n.latency(l)
	if n.chance(l.Reorder) {
		d += time.Duration(n.rng.Float64() * float64(l.Hold))
	}
	src := net.UDPAddrFromAddrPort(from.addr)
	land := func() {
		n.arrive(host, func() {
			if p := n.ports[to]; p != nil && !p.down {
				select {
				case p.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: src, Timestamp: time.Now()}:
					p.count()
				default:
					n.Lost++
				}
			}
		})
	}
	n.after(d, land)
	if n.chance(l.Dup) {
		n.after(d+n.latency(l), land)
	}
}

// count counts a datagram that arrived. The caller holds the lock.
func (p *Port) count() {
	if s := p.net.now().Truncate(time.Second); s != p.second {
		p.second, p.arrived = s, 0
	}
	p.arrived++
	p.net.peak = max(p.net.peak, p.arrived)
}

// PeakArrived returns how many datagrams arrived at most at one port in one second since
// it was last asked.
func (n *Net) PeakArrived() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	peak := n.peak
	n.peak = 0
	return peak
}

// Shutdown implements memberlist.Transport. Its connections are reset.
func (p *Port) Shutdown() error {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	p.down = true
	for c := range p.conns {
		c.abort()
	}
	return nil
}

// Vanish makes the host disappear as in a power cut: nobody is told.
func (p *Port) Vanish() {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	p.down, p.silent = true, true
	for c := range p.conns {
		c.abort()
	}
}

// DialTimeout implements memberlist.Transport.
func (p *Port) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return p.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (p *Port) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	addr, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return nil, err
	}
	p.net.awake(p.host)
	d := &dial{from: p, to: addr, done: make(chan error, 1)}
	p.net.mu.Lock()
	if p.down {
		p.net.mu.Unlock()
		return nil, errDown
	}
	d.try(rtoFirst)
	p.net.mu.Unlock()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case err = <-d.done:
	case <-timer.C:
		err = os.ErrDeadlineExceeded
	}
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	d.over = true
	if err == nil && !p.down {
		return d.conn, nil
	}
	if d.conn != nil {
		d.conn.abort()
	}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: cmpErr(err, errDown)}
}

func cmpErr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
