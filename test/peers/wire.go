package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// The model of ../sim: what IP, UDP and framing add to a datagram, what a
// stream carries per packet, and TCP's time-outs.
const (
	overhead = 34
	segment  = 1400
	header   = 66
	rtoFirst = time.Second
	rtoData  = 200 * time.Millisecond
	latency  = 300 * time.Microsecond
	jitter   = 150 * time.Microsecond
)

// wire connects transports in memory.
type wire struct {
	mu      sync.Mutex // guards everything that follows
	rng     *rand.Rand
	nodes   map[string]*transport
	loss    float64
	cut     func(a, b int) bool // or nil
	bytes   uint64              // put on the wire
	dropped uint64              // because a node's queue was full
}

// lag is how long a packet takes.
func (w *wire) lag() time.Duration {
	return latency + time.Duration(w.rng.ExpFloat64()*float64(jitter))
}

func (w *wire) lost() bool { return w.loss > 0 && w.rng.Float64() < w.loss }

func (w *wire) isCut(a, b int) bool { return w.cut != nil && w.cut(a, b) }

func (w *wire) set(loss float64, cut func(a, b int) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loss, w.cut = loss, cut
}

func (w *wire) sent() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes
}

// transport is one node's place on the wire. It implements memberlist.Transport.
type transport struct {
	wire    *wire
	index   int
	addr    *net.UDPAddr
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func (w *wire) newTransport(i int) *transport {
	t := &transport{
		wire: w, index: i, addr: &net.UDPAddr{IP: net.IPv4(10, 0, byte(i>>8), byte(i)), Port: 7946},
		packets: make(chan *memberlist.Packet, 4096), streams: make(chan net.Conn, 256),
	}
	w.nodes[t.addr.String()] = t
	return t
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.addr.IP, t.addr.Port, nil
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	w := t.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes += uint64(len(b) + overhead)
	to := w.nodes[addr]
	if to == nil {
		return time.Now(), fmt.Errorf("no node has %s", addr)
	}
	if w.isCut(t.index, to.index) || w.lost() {
		return time.Now(), nil
	}
	data := append([]byte(nil), b...)
	time.AfterFunc(w.lag(), func() {
		select {
		case to.packets <- &memberlist.Packet{Buf: data, From: t.addr, Timestamp: time.Now()}:
		default:
			w.mu.Lock()
			w.dropped++
			w.mu.Unlock()
		}
	})
	return time.Now(), nil
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown implements memberlist.Transport.
func (t *transport) Shutdown() error { return nil }

var errTimeout = errors.New("i/o timeout")

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	w := t.wire
	w.mu.Lock()
	to, took := w.nodes[addr], w.lag()+w.lag()
	for rto := rtoFirst; w.lost() || w.lost(); rto *= 2 {
		took += rto
	}
	dead := to == nil || w.isCut(t.index, to.index) || took > timeout
	w.mu.Unlock()
	if dead {
		time.Sleep(timeout)
		return nil, errTimeout
	}
	time.Sleep(took)
	near, far := w.pipe(t, to)
	select {
	case to.streams <- far:
	default:
		return nil, errors.New("connection refused")
	}
	return near, nil
}

// streamDelay is how long n bytes take over a connection that is set up: slow
// start, and a time-out or a round trip for each lost segment.
func (w *wire) streamDelay(n int) time.Duration {
	segments := (n + segment - 1) / segment
	w.bytes += uint64(n + segments*header)
	rtt := w.lag() + w.lag()
	d := w.lag() + rtt*time.Duration(int(math.Log2(float64(segments)/10+1)))
	for i := range segments {
		for k := 0; w.lost(); k++ {
			if segments-i > 3 {
				d += rtt
			} else {
				d += rtoData << min(k, 5)
			}
		}
	}
	return d
}
