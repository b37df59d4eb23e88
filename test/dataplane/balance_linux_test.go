package dataplane

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/lb"
	"meshd/state"
)

func spreadsEvenly(s *stage) {
	s.each(func(s *stage, v variant) {
		svc := s.service(v, "wrr", 1, 1, 1, 1)
		s.program(svc)
		for _, from := range s.w.places() {
			s.wantSpread(from, v.proto, address(svc), 2, 2, 2, 2)
		}
	})
}

func weighs(s *stage) {
	s.each(func(s *stage, v variant) {
		svc := s.service(v, "wrr", 30, 10, 0, 20)
		s.program(svc)
		for _, from := range []place{remote, ownHost} {
			s.wantSpread(from, v.proto, address(svc), 6, 2, 0, 4)
		}
	})
}

// countingSchedulers are those that hand out connections by number.
var countingSchedulers = []string{"rr", "wrr", "lc", "wlc", "sed", "nq"}

// eachScheduler runs f for both protocols, where the driver can.
func (s *stage) eachScheduler(schedulers []string, f func(s *stage, v variant, scheduler string)) {
	for _, scheduler := range schedulers {
		for _, v := range []variant{{state.TCP, false}, {state.UDP, false}, {state.TCP, true}} {
			if !slices.Contains(s.w.families(), v.six) {
				continue
			}
			s.Run(scheduler+" "+v.String(), func(t *testing.T) {
				skipLimit(t, s.w, s.name, scheduler+" "+strings.ToUpper(v.proto.String()))
				f(s.with(t), v, scheduler)
			})
		}
	}
}

func schedules(s *stage) {
	s.eachScheduler(countingSchedulers, func(s *stage, v variant, scheduler string) {
		svc := s.service(v, scheduler, 1, 1, 1, 1)
		s.program(svc)
		s.wantSpread(remote, v.proto, address(svc), 3, 3, 3, 3)
	})
}

func schedulesByWeight(s *stage) {
	s.eachScheduler([]string{"wrr", "wlc", "sed"}, func(s *stage, v variant, scheduler string) {
		svc := s.service(v, scheduler, 3, 1)
		s.program(svc)
		s.wantSpread(container, v.proto, address(svc), 6, 2)
	})
}

func hashesClients(s *stage) {
	s.each(func(s *stage, v variant) {
		svc := s.service(v, "sh", 1, 1, 1, 1)
		s.program(svc)
		for _, from := range s.w.places() {
			if got := s.spread(from, v.proto, address(svc), 5); len(got) != 1 {
				s.Errorf("connections of %s spread %v, want one backend", from, got)
			}
		}
	})
}

func hashesPorts(s *stage) {
	s.each(func(s *stage, v variant) {
		svc := s.service(v, "mh", 1, 1, 1, 1)
		s.program(svc)
		for source := range uint16(4) {
			from := client{place: container, address: 1, port: 20000 + source}
			first, err := s.once(from, v.proto, address(svc))
			for range 2 {
				again, e := s.once(from, v.proto, address(svc))
				if err != nil || e != nil || again != first {
					s.Errorf("port %d met backend %d, then %d: %v, %v", from.port, first, again, err, e)
				}
			}
		}
	})
}

// Clients of many addresses and ports; which of them goes where is fixed by
// the hash, so this does not depend on luck.
func hashesEverywhere(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		for _, scheduler := range []string{"sh", "mh"} {
			svc := s.service(v, scheduler, 1, 1, 1, 1)
			s.program(svc)
			got := map[int]int{}
			for i := range addressesOfClient {
				backend, err := s.once(client{container, i + 1, uint16(21000 + i)}, v.proto, address(svc))
				if err != nil {
					s.Fatal(err)
				}
				got[backend]++
			}
			if len(got) != 4 {
				s.Errorf("%s spread %d clients %v, want all four backends", scheduler, addressesOfClient, got)
			}
		}
	})
}

func sticks(s *stage) {
	s.each(func(s *stage, v variant) {
		svc := s.service(v, "wrr", 1, 1, 1, 1)
		svc.Affinity = time.Hour
		s.program(svc)
		met := map[int]bool{}
		for i := range 8 {
			for range 3 {
				backend, err := s.once(client{place: container, address: i + 1}, v.proto, address(svc))
				if err != nil {
					s.Fatal(err)
				}
				met[backend] = true
			}
			if got := len(met); got > i+1 {
				s.Fatalf("%d clients met %d backends", i+1, got)
			}
		}
		if len(met) < 2 {
			s.Errorf("8 clients met backends %v, want more than one", met)
		}
	})
}

// An entry of UDP goes before the affinity ends, as it does with times of
// minutes.
func sticksForAWhile(s *stage) {
	for _, six := range s.w.families() {
		v := variant{state.UDP, six}
		s.Run(v.String(), func(t *testing.T) {
			s := s.with(t)
			svc := s.service(v, "wrr", 1, 1)
			svc.Affinity = 4 * time.Second
			s.program(svc)
			var first int
			s.w.idle(t, svc.VIP, func() {
				var err error
				if first, err = s.once(client{place: remote}, v.proto, address(svc)); err != nil {
					t.Fatal(err)
				}
			})
			if again, err := s.once(client{place: remote}, v.proto, address(svc)); err != nil || again == first {
				t.Errorf("backend %d, and after the affinity's end %d, %v; want the other one", first, again, err)
			}
		})
	}
}

func sticksToLiveOnes(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		svc := s.service(v, "wrr", 1, 1)
		svc.Affinity = time.Hour
		s.program(svc)
		from := client{place: remote}
		held := s.open(from, v.proto, address(svc))
		first := s.asks(held)
		weights := []int{1, 1}
		weights[first] = 0
		next := s.serviceAt(address(svc), v.proto, "wrr", weights...)
		next.Affinity = time.Hour
		s.program(next)
		for range 3 {
			if got, err := s.once(from, v.proto, address(svc)); err != nil || got == first {
				s.Errorf("a new connection met drained backend %d: got %d, %v", first, got, err)
			}
		}
		if got := s.asks(held); got != first {
			s.Errorf("the old connection went from backend %d to %d", first, got)
		}
	})
}

// Rule L3: TCP and UDP, any port.
func balancesAllPorts(s *stage) {
	for _, six := range s.w.families() {
		s.Run(map[bool]string{false: "IPv4", true: "IPv6"}[six], func(t *testing.T) {
			s := s.with(t)
			vip := s.vip(six)
			every := netip.AddrPortFrom(vip, 0)
			s.program(s.serviceAt(every, state.TCP, "wrr", 1, 1, 1, 1), s.serviceAt(every, state.UDP, "wrr", 1, 1, 1, 1))
			for _, from := range s.w.places() {
				for _, proto := range []state.Proto{state.TCP, state.UDP} {
					for _, p := range []uint16{80, 443} {
						s.wantSpread(from, proto, netip.AddrPortFrom(vip, p), 1, 1, 1, 1)
					}
				}
			}
		})
	}
}

// Rule L2: every connection is masqueraded, so that answers come back the same
// way, wherever client and backend are.
func masquerades(s *stage) {
	s.each(func(s *stage, v variant) {
		svc := s.service(v, "wrr", 1, -1, 1)
		s.program(svc)
		for _, from := range s.w.places() {
			for range 2 {
				a, err := s.answer(client{place: from}, v.proto, address(svc))
				if err != nil {
					s.Errorf("%s got no answer: %v", from, err)
				} else if want := s.w.seenAs(s.index(a), v.six); a.seen != want {
					s.Errorf("backend %d saw %s as %s, want %s", s.index(a), from, a.seen, want)
				}
			}
		}
	})
}

// A task in the network of the host, as opposed to one in a container.
func servesOnHost(s *stage) {
	s.each(func(s *stage, v variant) {
		svc, host := s.service(v, "wrr"), netip.AddrPortFrom(s.w.node(v.six), portOfHost)
		svc.Backends = []lb.Backend{{Addr: host, Weight: 1}}
		s.program(svc)
		for _, from := range s.w.places() {
			if a, err := s.answer(client{place: from}, v.proto, address(svc)); err != nil || a.backend != host {
				s.Errorf("%s was answered by %s, %v; want the host", from, a.backend, err)
			}
		}
	})
}

func answersPing(s *stage) {
	for _, six := range s.w.families() {
		s.Run(map[bool]string{false: "IPv4", true: "IPv6"}[six], func(t *testing.T) {
			s := s.with(t)
			svc := s.service(variant{state.TCP, six}, "wrr", 1)
			s.program(svc, s.serviceAt(netip.AddrPortFrom(s.vip(six), 0), state.TCP, "wrr", 1))
			for vip := range s.addresses() {
				for _, from := range s.w.places() {
					if err := s.w.ping(from, vip); err != nil {
						t.Errorf("%s pings %s: %v", from, vip, err)
					}
				}
			}
		})
	}
}

// addresses yields the addresses of the services.
func (s *stage) addresses() map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for k := range s.at.Services {
		all[k.VIP] = true
	}
	return all
}

// Rule L2: the first one too, before any message has told the client how much its
// network carries.
func carriesLargeDatagrams(s *stage) {
	s.eachOf(state.UDP, func(s *stage, v variant) {
		for _, from := range s.w.places() {
			s.Run(string(from), func(t *testing.T) {
				if v.six {
					skipLimit(t, s.w, s.name, string(from)+" over IPv6")
				}
				s := s.with(t)
				svc := s.service(v, "wrr", -1, -1, 1) // on another host
				s.program(svc)
				for _, n := range []int{4000, 1473, 1453} {
					if a, err := s.open(client{place: from}, v.proto, address(svc)).askAtLength(n); err != nil || s.index(a) != 2 {
						s.Errorf("a datagram of %d bytes of %s: %v by %s, want backend 2", n, from, err, a.backend)
					}
				}
			})
		}
	})
}
