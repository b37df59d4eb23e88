package dataplane

import (
	"fmt"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"meshd/state"
)

// The message of the backend's host is about a packet that the client never sent.
func tellsThatNobodyListens(s *stage) {
	s.eachOf(state.UDP, func(s *stage, v variant) {
		svc := s.serviceAt(netip.AddrPortFrom(s.vip(v.six), 9999), v.proto, "wrr", -1, -1, 1)
		s.program(svc)
		for _, from := range s.w.places() {
			s.refused(client{place: from}, v.proto, address(svc))
		}
	})
}

// countDatagrams receives at a backend, answers nothing, and counts what came.
func (s *stage) countDatagrams(backend int, six bool, port uint16) *atomic.Int64 {
	s.Helper()
	k := s.real()
	p, err := k.backends[backend].ListenPacket(s.Context(), "udp",
		netip.AddrPortFrom(k.backend(backend, six), port).String())
	must(s.T, err)
	s.Cleanup(func() { _ = p.Close() })
	var n atomic.Int64
	go func() {
		for buf := make([]byte, 100); ; n.Add(1) {
			if _, _, err := p.ReadFrom(buf); err != nil {
				return
			}
		}
	}()
	return &n
}

// Conntrack keeps a flow without answers for as long as its client sends.
func movesOneWayUDP(s *stage) {
	s.eachOf(state.UDP, func(s *stage, v variant) {
		const port = 8125
		one, two := s.countDatagrams(1, v.six, port), s.countDatagrams(2, v.six, port)
		for _, affinity := range []time.Duration{0, time.Hour} {
			at := netip.AddrPortFrom(s.vip(v.six), port)
			to := func(weights ...int) {
				svc := s.serviceAt(at, v.proto, "wrr", weights...)
				svc.Affinity = affinity
				s.program(svc)
			}
			for _, from := range s.w.places() {
				to(-1, 1)
				c := s.open(client{place: from}, v.proto, at).(*socket)
				arrives := func(at *atomic.Int64) {
					s.Helper()
					before := at.Load()
					within(s.T, func() error {
						_, _ = io.WriteString(c, "x") // a later call returns the refusal
						if at.Load() == before {
							return fmt.Errorf("%s sends, with affinity for %v: nothing has arrived", from, affinity)
						}
						return nil
					})
				}
				arrives(one)
				to(-1, -1, 1)
				arrives(two)
				to()
				_, _ = io.WriteString(c, "x")
				to(-1, 1)
				arrives(one)
				c.close()
			}
		}
	})
}

func keepsUDP(s *stage) {
	s.eachOf(state.UDP, func(s *stage, v variant) {
		svc := s.service(v, "wrr", 1, 1, 1)
		s.program(svc)
		var held []conn
		var met []int
		for range 6 {
			c := s.open(client{place: remote}, v.proto, address(svc))
			held, met = append(held, c), append(met, s.asks(c))
		}
		s.restart()
		s.adopts(svc)
		s.program(s.serviceAt(address(svc), v.proto, "wrr", 1, 2, 1, 1))
		for i, c := range held {
			if got := s.asks(c); got != met[i] {
				s.Errorf("a client's datagrams went from backend %d to %d", met[i], got)
			}
		}
	})
}
