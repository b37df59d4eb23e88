package dataplane

import (
	"net/netip"
	"time"

	"meshd/lb/lbtest"
	"meshd/state"
)

// changesPortTaskByTask covers rule L12. The backends listen on both ports, so that
// who gets connections at a port that it does not declare shows in who answers.
// Whoever connects all the time, to a port that some task declares, is answered.
func changesPortTaskByTask(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		d := s.daemon()
		before, after := state.Port{Number: port, Proto: state.TCP}, state.Port{Number: 443, Proto: state.TCP}
		vip := d.vip(v.six)
		from, to := netip.AddrPortFrom(vip, before.Number), netip.AddrPortFrom(vip, after.Number)
		claim := lbtest.VIPs("every", vip, netip.Addr{}, 1)
		if v.six {
			claim = lbtest.VIPs("every", netip.Addr{}, vip, 1)
		}
		d.commit(claim, lbtest.Settings("every", state.Settings{Drain: time.Hour}), d.serves(0, before), d.serves(1, before))
		d.settledAt(from, state.TCP, 1, 1)
		held := s.open(client{place: remote}, state.TCP, from)
		first := s.asks(held)
		second := 1 - first

		lost := s.keepsConnecting(from)
		d.commit(d.serves(first, after))
		d.settledAt(from, state.TCP, d.weights(first, 0)...)
		d.settledAt(to, state.TCP, d.weights(second, -1)...)
		lost("while the first task changes its port")
		s.wantSpread(remote, state.TCP, from, d.spreadOf(first)...)
		s.wantSpread(remote, state.TCP, to, d.spreadOf(second)...)
		if got := s.asks(held); got != first {
			s.Errorf("a connection to the former port went from backend %d to %d", first, got)
		}

		lost = s.keepsConnecting(to)
		d.commit(d.serves(second, after))
		d.settledAt(to, state.TCP, 1, 1)
		lost("while the second task changes its port")
		s.wantSpread(remote, state.TCP, to, 2, 2)
		s.refused(client{place: remote}, state.TCP, from)
		if got := s.asks(held); got != first {
			s.Errorf("a connection to a port that nobody declares any more went from backend %d to %d", first, got)
		}
	})
}

// keepsConnecting connects again and again until the returned function is
// called, which fails the test if a connection was not answered.
func (s *stage) keepsConnecting(to netip.AddrPort) (stop func(when string)) {
	end, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-end:
				ended <- nil
				return
			default:
			}
			if _, err := s.answer(client{place: remote}, state.TCP, to); err != nil {
				ended <- err
				return
			}
		}
	}()
	return func(when string) {
		s.Helper()
		close(end)
		if err := <-ended; err != nil {
			s.Errorf("a connection to %s was lost %s: %v", to, when, err)
		}
	}
}

// losesAFamily covers rules V12 and L5: the last task of a family goes, tasks of
// the other one stay.
func losesAFamily(s *stage) {
	d := s.daemon()
	vips := map[bool]netip.Addr{false: d.vip(false), true: d.vip(true)}
	task := func(six bool) state.Change {
		e := state.Endpoint{ID: "of4", Service: "web", Weight: 1, Ports: []state.Port{{Number: port, Proto: state.TCP}}}
		if six {
			e.ID, e.IP6 = "of6", d.w.backend(1, true)
		} else {
			e.IP4 = d.w.backend(0, false)
		}
		return lbtest.Task(&e)
	}
	d.commit(lbtest.VIPs("web", vips[false], vips[true], 1), lbtest.Settings("web", state.Settings{Drain: time.Hour}),
		task(false), task(true))
	for _, six := range []bool{false, true} {
		id, goes := map[bool]string{false: "of4", true: "of6"}[six], netip.AddrPortFrom(vips[six], port)
		stays := netip.AddrPortFrom(vips[!six], port)
		d.settledAt(goes, state.TCP, weightsOf(int(b2u(six)), 1)...)
		held := s.open(client{place: remote}, state.TCP, goes)
		s.asks(held)
		lost := s.keepsConnecting(stays)
		d.commit(lbtest.Gone(id))
		d.deserted(goes.Addr())
		lost("while the other family lost its tasks")
		s.refused(client{place: remote}, state.TCP, goes)
		if _, err := held.ask(); err != nil {
			s.Errorf("a connection to %s was lost with the last task of its family: %v", goes, err)
		}
		d.commit(task(six))
		d.settledAt(goes, state.TCP, weightsOf(int(b2u(six)), 1)...)
		if _, err := held.ask(); err != nil {
			s.Errorf("a connection to %s was lost as its family was back: %v", goes, err)
		}
		want := []int{0, 0}
		want[b2u(six)] = 2
		s.wantSpread(remote, state.TCP, goes, want...)
	}
}
