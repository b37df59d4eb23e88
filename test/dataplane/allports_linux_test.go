package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"meshd/lb"
	"meshd/lb/lbtest"
	"meshd/state"
)

// serves states that a backend serves on these ports; without any, on all.
func (d *daemon) serves(backend int, ports ...state.Port) state.Change {
	return lbtest.Task(&state.Endpoint{
		ID: d.every(backend), Service: "every", Weight: 1, Ports: ports,
		IP4: d.w.backend(backend, false), IP6: d.w.backend(backend, true),
	})
}

func (d *daemon) every(backend int) string { return "every-" + string(rune('0'+backend)) }

// everyOf starts a service for all ports of a backend, on new addresses, that
// drains for that long.
func (d *daemon) everyOf(backend int, drain time.Duration) []netip.Addr {
	d.Helper()
	vips := []netip.Addr{d.vip(false), d.vip(true)}[:len(d.w.families())]
	six := netip.Addr{}
	if len(vips) > 1 {
		six = vips[1]
	}
	d.commit(lbtest.VIPs("every", vips[0], six, 1), lbtest.Settings("every", state.Settings{Drain: drain}),
		d.serves(backend))
	for _, vip := range vips {
		for _, proto := range []state.Proto{state.TCP, state.UDP} {
			d.settledAt(netip.AddrPortFrom(vip, 0), proto, weightsOf(backend, 1)...)
		}
	}
	return vips
}

// weightsOf returns those of the backends when only one is there.
func weightsOf(backend, weight int) []int {
	all := []int{-1, -1, -1, -1}
	all[backend] = weight
	return all
}

// Rules L3, L5.
func drainsUDPOfAllPorts(s *stage) {
	d := s.daemon()
	vips := d.everyOf(0, time.Hour)
	held := map[netip.AddrPort][2]conn{}
	for _, vip := range vips {
		to := netip.AddrPortFrom(vip, 443)
		both := [2]conn{s.open(client{place: remote}, state.TCP, to), s.open(client{place: remote}, state.UDP, to)}
		for _, c := range both {
			if got := s.asks(c); got != 0 {
				s.Fatalf("backend %d of %s answered, want 0", got, to)
			}
		}
		held[to] = both
	}
	d.commit(d.serves(2), lbtest.Gone(d.every(0)))
	for to, both := range held {
		d.settledAt(netip.AddrPortFrom(to.Addr(), 0), state.UDP, -1, -1, 1)
		d.settledAt(netip.AddrPortFrom(to.Addr(), 0), state.TCP, 0, -1, 1)
		if got := s.asks(both[1]); got != 2 {
			s.Errorf("UDP to %s was answered by backend %d, want 2", to, got)
		}
		if got := s.asks(both[0]); got != 0 {
			s.Errorf("TCP to %s was answered by backend %d, want 0", to, got)
		}
		s.wantSpread(remote, state.TCP, to, 0, 0, 2)
	}
}

// Rules L1, L3, L5: what was connected to other ports goes on, what is new
// finds the declared port only.
func declaresPorts(s *stage) {
	d := s.daemon()
	vips := d.everyOf(0, time.Hour)
	var held []conn
	for _, vip := range vips {
		c := s.open(client{place: remote}, state.TCP, netip.AddrPortFrom(vip, 443))
		s.asks(c)
		held = append(held, c)
	}
	d.commit(d.serves(0, state.Port{Number: port, Proto: state.TCP}))
	for _, when := range []string{"declared", "restarted"} {
		for i, vip := range vips {
			d.settled(vip, state.TCP, 1)
			d.settledAt(netip.AddrPortFrom(vip, 0), state.TCP, 0)
			if got := s.asks(held[i]); got != 0 {
				s.Errorf("%s: the connection to %s went to backend %d", when, vip, got)
			}
			s.wantSpread(remote, state.TCP, netip.AddrPortFrom(vip, port), 2)
			for _, proto := range []state.Proto{state.TCP, state.UDP} {
				s.refused(client{place: remote}, proto, netip.AddrPortFrom(vip, 443))
			}
		}
		d.stop()
		d.start()
	}
	d.commit(d.serves(0))
	for i, vip := range vips {
		d.settledAt(netip.AddrPortFrom(vip, 0), state.TCP, 1)
		d.settledAt(netip.AddrPortFrom(vip, 0), state.UDP, 1)
		if got := s.asks(held[i]); got != 0 {
			s.Errorf("taken back: the connection to %s went to backend %d", vip, got)
		}
		for _, proto := range []state.Proto{state.TCP, state.UDP} {
			s.wantSpread(remote, proto, netip.AddrPortFrom(vip, 443), 2)
		}
	}
}

// Rule L12: of two tasks one declares a port. There both get connections, and the other
// one gets those to all the rest, until it declares the port as well: then what it
// has got there goes on, also beyond the end of the drain of the rest.
func mixesPorts(s *stage) {
	d := s.daemon()
	vips := d.everyOf(0, time.Second)
	declared := state.Port{Number: port, Proto: state.TCP}
	d.commit(d.serves(2, declared))
	stays, goes := map[netip.Addr]conn{}, map[netip.Addr]conn{}
	for _, vip := range vips {
		d.settled(vip, state.TCP, 1, -1, 1)
		for _, proto := range []state.Proto{state.TCP, state.UDP} {
			d.settledAt(netip.AddrPortFrom(vip, 0), proto, weightsOf(0, 1)...)
			s.wantSpread(remote, proto, netip.AddrPortFrom(vip, 443), 2)
		}
		for _, from := range s.w.places() {
			s.wantSpread(from, state.TCP, netip.AddrPortFrom(vip, port), 1, 0, 1)
		}
		goes[vip] = s.open(client{place: remote}, state.TCP, netip.AddrPortFrom(vip, 443))
		for range 8 { // of two in turn one is backend 0
			if stays[vip] = s.open(client{place: remote}, state.TCP, netip.AddrPortFrom(vip, port)); s.asks(stays[vip]) == 0 {
				break
			}
		}
		if got := s.asks(goes[vip]); got != 0 {
			s.Errorf("backend %d answered at another port of %s, want 0", got, vip)
		}
	}
	d.commit(d.serves(0, declared))
	for _, vip := range vips {
		d.settled(vip, state.TCP, 1, -1, 1)
		d.ended(lb.Key{VIP: vip, Proto: state.TCP})
		if got := s.asks(stays[vip]); got != 0 {
			s.Errorf("at the declared port of %s backend %d answers what was backend 0's", vip, got)
		}
		if err := untilCut(goes[vip]); !errors.Is(err, syscall.ECONNRESET) {
			s.Errorf("behind the drain of all ports of %s: %v, want a reset", vip, err)
		}
		for _, proto := range []state.Proto{state.TCP, state.UDP} {
			s.refused(client{place: remote}, proto, netip.AddrPortFrom(vip, 443))
		}
	}
}

// ended waits until a service is gone.
func (d *daemon) ended(k lb.Key) {
	d.Helper()
	within(d.T, func() error {
		st, err := d.b.Status(d.Context())
		if slices.ContainsFunc(st.Services, func(s lb.ServiceStatus) bool { return s.Key == k }) {
			return fmt.Errorf("%s is still there", k)
		}
		return err
	})
}
