package dataplane

import (
	"fmt"
	"net/netip"
	"testing"

	"meshd/lb"
	"meshd/state"
)

// TestDriverChanges: Rules L1, L5. A driver that is left behind takes nothing
// from the one that follows, keeps what is open, and goes with the last
// connection.
func TestDriverChanges(t *testing.T) {
	k := newKernel(t, false)
	byName := map[string]world{"ipvs": &ipvsWorld{k}, "nft": &nftWorld{k}}
	needs(t, byName["ipvs"])
	vips := 0
	for _, to := range []string{"nft", "ipvs"} {
		from := map[string]string{"nft": "ipvs", "ipvs": "nft"}[to]
		t.Run("from "+from+" to "+to, func(t *testing.T) {
			changesDriver(newStage(t, byName[from], to, &vips), byName[to])
		})
		t.Run("from "+from+" to none", func(t *testing.T) {
			s := newStage(t, byName[from], "none", &vips)
			leavesForNone(s, byName["ipvs"].newDriver(t, s.log), byName["nft"].newDriver(t, s.log))
		})
	}
}

func changesDriver(s *stage, to world) {
	for _, six := range []bool{false, true} {
		stays, goes := s.service(variant{state.TCP, six}, "wrr", 1, 1), s.service(variant{state.TCP, six}, "wrr", 1)
		datagrams := s.service(variant{state.UDP, six}, "wrr", 1)
		every := s.serviceAt(netip.AddrPortFrom(s.vip(six), 0), state.TCP, "wrr", 1, 1)
		s.also(stays, goes, datagrams, every)
		held := []conn{
			s.open(client{place: remote}, state.TCP, address(stays)),
			s.open(client{place: remote}, state.TCP, address(every)),
		}
		socket := s.open(client{place: remote}, state.UDP, address(datagrams))
		backends := []int{s.asks(held[0]), s.asks(held[1])}
		s.asks(socket)

		next := &stage{T: s.T, scene: &scene{root: s.root, name: s.name, w: to, log: s.log, at: lb.NewTable(), vips: s.vips}}
		next.restart()
		fresh := next.service(variant{state.TCP, six}, "wrr", -1, 1)
		now := []*lb.Service{ // backend 0 has gone meanwhile, and one service
			next.serviceAt(address(stays), state.TCP, "wrr", -1, 1), next.serviceAt(address(datagrams), state.UDP, "wrr", -1, 1),
			next.serviceAt(netip.AddrPortFrom(every.VIP, 0), state.TCP, "wrr", -1, 1), fresh,
		}
		next.program(now...)
		old := s.d.(lb.Leaver)
		left, err := old.Leave(s.Context(), lb.Leaving{})
		must(s.T, err)
		for _, from := range s.w.places() {
			for _, svc := range now {
				s.wantSpread(from, svc.Proto, address(svc), 0, 10)
			}
			s.refused(client{place: from}, state.TCP, address(goes))
		}
		if got := s.asks(socket); got != 1 {
			s.Errorf("UDP of a client that keeps its port goes to backend %d, want 1", got)
		}
		for i, c := range held {
			if got := s.asks(c); got != backends[i] {
				s.Errorf("a connection went from backend %d to %d", backends[i], got)
			}
			c.close()
		}
		s.Logf("%d services of the old driver were in use", left)
		within(s.T, func() error {
			left, err := old.Leave(s.Context(), lb.Leaving{Cut: true})
			if err == nil && left > 0 {
				err = fmt.Errorf("%d services are left", left)
			}
			return err
		})
		next.wantSpread(remote, state.TCP, address(fresh), 0, 4)
		next.audit(next.table(now...), "after the other one left")
		must(s.T, next.d.Teardown(s.Context()))
		s.restart()
		s.at = lb.NewTable()
	}
}

// leavesForNone ends what a driver left, as a daemon does that is to use none.
func leavesForNone(s *stage, former ...lb.Driver) {
	var services []*lb.Service
	var held []conn
	for _, v := range s.variants() {
		svc := s.service(v, "wrr", 1, 1)
		services = append(services, svc)
		s.also(svc)
		if v.proto == state.TCP {
			held = append(held, s.open(client{place: remote}, v.proto, address(svc)))
		}
	}
	s.unharmed(held, "before the end")
	for _, how := range []lb.Leaving{{Alone: true}, {Alone: true}, {Alone: true, Cut: true}} {
		total := 0
		for _, d := range former {
			left, err := d.(lb.Leaver).Leave(s.Context(), how)
			must(s.T, err)
			total += left
		}
		if (total == 0) != how.Cut {
			s.Errorf("%+v: %d are left", how, total)
		}
		if how.Cut {
			break
		}
		s.unharmed(held, "while the driver leaves")
		for _, svc := range services {
			for _, from := range s.w.places() {
				s.refused(client{place: from}, svc.Proto, address(svc))
			}
		}
	}
	if left := s.w.leftovers(s.T); len(left) > 0 {
		s.Errorf("at the end are left %v", left)
	}
	s.restart()
}
