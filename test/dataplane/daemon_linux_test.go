package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"meshd/lb"
	"meshd/lb/lbtest"
	"meshd/state"
)

// network is the one network of the daemons here.
const network = "net"

// daemon is a balancer over views, with the driver of a stage.
type daemon struct {
	*stage
	views *lbtest.Views
	b     *lb.Balancer
	stop  func()
}

// daemon starts one. Its periods are short but for the full audit: what is
// found within a verify period is found by Driver.Check.
func (s *stage) daemon() *daemon {
	s.Helper()
	d := &daemon{stage: s, views: lbtest.NewViews(state.NetworkDef{
		Name: network, Subnet4: pool4, Subnet6: pool6,
		Birth: 1,
	})}
	d.start()
	return d
}

func (d *daemon) start() {
	d.Helper()
	b, err := lb.New(lb.Config{
		Source: d.views, Drivers: []lb.Driver{d.w.newDriver(d.T, d.log)}, Log: d.log.logger(),
		Node:   lb.Node{Src4: d.w.node(false), Src6: d.w.node(true)},
		Verify: 200 * time.Millisecond, DrainPoll: 100 * time.Millisecond,
		Audit: time.Hour, Grace: time.Hour, // a removal needs a complete view
	})
	if err != nil {
		d.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.Run(ctx) }()
	d.b, d.stop = b, func() { cancel(); <-ended }
	d.Cleanup(d.stop)
}

// commit writes changes to the views.
func (d *daemon) commit(changes ...state.Change) {
	d.Helper()
	if err := d.views.Commit(network, changes...); err != nil {
		d.Fatal(err)
	}
}

// task states that a backend serves a service.
func (d *daemon) task(service string, backend int) state.Change {
	return lbtest.Task(&state.Endpoint{
		ID: fmt.Sprintf("%s-%d", service, backend), Service: service, Weight: 1,
		IP4: d.w.backend(backend, false), IP6: d.w.backend(backend, true),
		Ports: []state.Port{{Number: port, Proto: state.TCP}, {Number: port, Proto: state.UDP}},
	})
}

func (d *daemon) gone(service string, backend int) state.Change {
	return lbtest.Gone(fmt.Sprintf("%s-%d", service, backend))
}

// settled waits until the kernel holds what the views say, and the weights are
// those of the backends; one below 0 is absent.
func (d *daemon) settled(vip netip.Addr, proto state.Proto, weights ...int) {
	d.Helper()
	d.settledAt(netip.AddrPortFrom(vip, port), proto, weights...)
}

// settledAt is settled for an address; port 0 is for all ports.
func (d *daemon) settledAt(at netip.AddrPort, proto state.Proto, weights ...int) {
	d.Helper()
	want := d.serviceAt(at, proto, "wrr", weights...)
	within(d.T, func() error {
		st, err := d.b.Status(d.Context())
		if err != nil {
			return err
		}
		for _, one := range st.Services {
			if one.Key == want.Key {
				if one.Actual == nil || !slices.Equal(one.Actual.Backends, want.Backends) {
					return fmt.Errorf("the kernel holds %+v, want %+v; last error %q", one.Actual, want, st.Error)
				}
				return nil
			}
		}
		return fmt.Errorf("%s is not there: %+v", want.Key, st)
	})
}

// deserted waits until no backend of an address gets new connections. It names no
// ports, because they are those of tasks.
func (d *daemon) deserted(vip netip.Addr) {
	d.Helper()
	within(d.T, func() error {
		st, err := d.b.Status(d.Context())
		for _, one := range st.Services {
			for _, b := range one.Backends {
				if one.Key.VIP == vip && b.Actual > 0 {
					return fmt.Errorf("%s still has %s", one.Key, b.Addr)
				}
			}
		}
		return err
	})
}

// web starts a service of backends 0 and 1 on new addresses.
func (d *daemon) web(settings state.Settings) (vip4, vip6 netip.Addr) {
	d.Helper()
	vip4, vip6 = d.vip(false), d.vip(true)
	d.commit(lbtest.VIPs("web", vip4, vip6, 1), lbtest.Settings("web", settings), d.task("web", 0), d.task("web", 1))
	for _, v := range d.variants() {
		d.settled(map[bool]netip.Addr{false: vip4, true: vip6}[v.six], v.proto, 1, 1)
	}
	return vip4, vip6
}

// everyPort starts a service for all ports of backend 2.
func (d *daemon) everyPort(six bool) netip.Addr {
	d.Helper()
	vip := d.vip(six)
	claim := lbtest.VIPs("any", vip, netip.Addr{}, 1)
	if six {
		claim = lbtest.VIPs("any", netip.Addr{}, vip, 1)
	}
	d.commit(claim, lbtest.Task(&state.Endpoint{
		ID: "any-2", Service: "any", Weight: 1, IP4: d.w.backend(2, false), IP6: d.w.backend(2, true),
	}))
	within(d.T, func() error {
		st, err := d.b.Status(d.Context())
		synced := 0
		for _, one := range st.Services {
			if one.Key.VIP == vip && one.Key.AllPorts() && one.Synced {
				synced++
			}
		}
		if synced == 2 { // TCP and UDP
			return err
		}
		return fmt.Errorf("%s is not served yet: %w", vip, err)
	})
	return vip
}

func follows(s *stage) {
	d := s.daemon()
	vip4, vip6 := d.web(state.Settings{})
	if both := slices.Contains(s.w.families(), true); d.b.Working(network) != both { // R5
		s.Errorf("the network is said to work: %v, want %v", !both, both)
	}
	spread := func(want ...int) {
		s.Helper()
		for _, v := range s.variants() {
			vip := map[bool]netip.Addr{false: vip4, true: vip6}[v.six]
			s.wantSpread(remote, v.proto, netip.AddrPortFrom(vip, port), want...)
		}
	}
	spread(2, 2)
	d.commit(d.task("web", 2), d.gone("web", 0))
	vips := map[bool]netip.Addr{false: vip4, true: vip6}
	for _, v := range s.variants() {
		d.settled(vips[v.six], v.proto, -1, 1, 1)
	}
	spread(0, 2, 2)
	d.commit(d.gone("web", 1), d.gone("web", 2))
	for _, six := range s.w.families() {
		d.deserted(vips[six])
		s.refused(client{place: remote}, state.TCP, netip.AddrPortFrom(vips[six], port))
		s.refused(client{place: remote}, state.UDP, netip.AddrPortFrom(vips[six], port))
	}
}

func drainsUntilIdle(s *stage) {
	d := s.daemon()
	vip, _ := d.web(state.Settings{Drain: time.Hour})
	to := netip.AddrPortFrom(vip, port)
	c, backend := d.held(to)
	d.commit(d.gone("web", backend))
	d.settled(vip, state.TCP, d.weights(backend, 0)...)
	if got := s.asks(c); got != backend {
		s.Errorf("the connection went from backend %d to %d", backend, got)
	}
	s.wantSpread(remote, state.TCP, to, d.spreadOf(backend)...)
	c.close()
	d.settled(vip, state.TCP, d.weights(backend, -1)...)
	if n := d.b.Counters().Draining; n != 0 {
		s.Errorf("%d backends still drain", n)
	}
}

// The new daemon finds the backend in the kernel, and nowhere else.
func drainsOverRestart(s *stage) {
	d := s.daemon()
	vip, _ := d.web(state.Settings{Drain: time.Hour})
	c, backend := d.held(netip.AddrPortFrom(vip, port))
	d.commit(d.gone("web", backend))
	d.settled(vip, state.TCP, d.weights(backend, 0)...)
	d.stop()
	d.start()
	d.settled(vip, state.TCP, d.weights(backend, 0)...)
	if got := s.asks(c); got != backend {
		s.Errorf("the connection went from backend %d to %d", backend, got)
	}
	c.close()
	d.settled(vip, state.TCP, d.weights(backend, -1)...)
}

// held opens a connection and says to which backend.
func (d *daemon) held(to netip.AddrPort) (conn, int) {
	d.Helper()
	c := d.open(client{place: remote}, state.TCP, to)
	return c, d.asks(c)
}

// weights returns the weights of backends 0 and 1: that of one is given, and that
// of the other 1.
func (d *daemon) weights(backend, weight int) []int {
	weights := []int{1, 1}
	weights[backend] = weight
	return weights
}

// spreadOf is what connections meet without a backend.
func (d *daemon) spreadOf(without int) []int {
	want := []int{3, 3}
	want[without] = 0
	return want
}

func drainsUntilDeadline(s *stage) {
	d := s.daemon()
	vip, _ := d.web(state.Settings{Drain: time.Second})
	to := netip.AddrPortFrom(vip, port)
	c, backend := d.held(to)
	d.commit(d.gone("web", backend))
	d.settled(vip, state.TCP, d.weights(backend, -1)...)
	if a, err := c.ask(); !errors.Is(err, syscall.ECONNRESET) {
		s.Errorf("after the deadline: answer of %v, %v; want a reset", a.backend, err)
	}
	s.wantSpread(remote, state.TCP, to, d.spreadOf(backend)...)
}

// The same task, and another one in its place at the same address.
func daemonUndrains(s *stage) {
	d := s.daemon()
	vip, _ := d.web(state.Settings{Drain: time.Hour})
	to := netip.AddrPortFrom(vip, port)
	c, backend := d.held(to)
	before := d.b.Counters().Ops
	d.commit(d.gone("web", backend))
	d.settled(vip, state.TCP, d.weights(backend, 0)...)
	d.commit(d.task("web", backend))
	d.settled(vip, state.TCP, 1, 1)
	if got := s.asks(c); got != backend {
		s.Errorf("the connection went from backend %d to %d", backend, got)
	}
	s.wantSpread(remote, state.TCP, to, 2, 2)
	after := d.b.Counters().Ops
	if n := after[lb.DelService] - before[lb.DelService]; n != 0 {
		s.Errorf("%d services were deleted on the way", n)
	}
}

func daemonRestarts(s *stage) {
	d := s.daemon()
	vip, _ := d.web(state.Settings{Scheduler: "wrr", Affinity: time.Hour})
	c, backend := d.held(netip.AddrPortFrom(vip, port))
	d.stop()
	if got := s.asks(c); got != backend {
		s.Errorf("without a daemon the connection went from backend %d to %d", backend, got)
	}
	d.start()
	within(s.T, func() error {
		st, err := d.b.Status(s.Context())
		if err != nil || !st.Ready || st.Counters.Desired == 0 {
			return fmt.Errorf("%+v, %w", st, err)
		}
		for _, one := range st.Services {
			if slices.Contains(s.w.families(), one.Key.VIP.Is6()) && !one.Synced {
				return fmt.Errorf("%s is not in step: %+v", one.Key, st)
			}
		}
		return nil
	})
	if n := d.b.Counters().Ops; n != [6]uint64{} {
		s.Errorf("the new daemon carried out %v operations, want none", n)
	}
	if got := s.asks(c); got != backend {
		s.Errorf("after the restart the connection went from backend %d to %d", backend, got)
	}
}

// Rule V5: the claim of another node wins, and the service keeps both
// addresses for the grace.
func daemonMoves(s *stage) {
	d := s.daemon()
	before, six := d.web(state.Settings{})
	c, backend := d.held(netip.AddrPortFrom(before, port))
	after := d.vip(false)
	claim := lbtest.VIPs("web", after, six, 2)
	claim.Key += "~" // as another node has it: beside ours, not in its place
	d.commit(claim)
	d.settled(after, state.TCP, 1, 1)
	d.settled(before, state.TCP, 1, 1)
	for _, vip := range []netip.Addr{before, after} {
		s.wantSpread(remote, state.TCP, netip.AddrPortFrom(vip, port), 2, 2)
	}
	if got := s.asks(c); got != backend {
		s.Errorf("the connection went from backend %d to %d", backend, got)
	}
}

// Rule L1: another program changes what is ours. Verify is the only period that is
// short, so it must be Driver.Check that notices.
func repairs(s *stage) {
	for _, v := range s.w.vandals() {
		for _, six := range s.w.families() {
			name := v.name + map[bool]string{false: ", IPv4", true: ", IPv6"}[six]
			s.Run(name, func(t *testing.T) {
				skipLimit(t, s.w, s.name, v.name)
				s.with(t).repairs(v, six)
			})
		}
	}
}

func (s *stage) repairs(v vandal, six bool) {
	d := s.daemon()
	vip, vip6 := d.web(state.Settings{})
	if six {
		vip = vip6
	}
	to, every := netip.AddrPortFrom(vip, port), d.everyPort(six)
	healthy := func() {
		s.Helper()
		for _, from := range []place{remote, ownHost} {
			s.wantSpread(from, state.TCP, to, 2, 2)
			s.wantSpread(from, state.UDP, netip.AddrPortFrom(every, 443), 0, 0, 2)
			s.refused(client{place: from}, state.TCP, netip.AddrPortFrom(vip, 22))
		}
		if a, err := s.answer(client{place: container}, state.TCP, to); err != nil || a.seen != s.w.seenAs(s.index(a), six) {
			s.Errorf("a backend saw %s, %v", a.seen, err)
		}
	}
	healthy()
	before, log := d.b.Counters().Repairs, len(s.log.String())
	v.do(s.T, s.serviceAt(to, state.TCP, "wrr", 1, 1))
	within(s.T, func() error {
		c := d.b.Counters()
		if c.Repairs == before || c.Pending > 0 || c.LastError != "" {
			return fmt.Errorf("%d repairs, was %d; %d pending; %q", c.Repairs, before, c.Pending, c.LastError)
		}
		return nil
	})
	d.settled(vip, state.TCP, 1, 1)
	healthy()
	if told := s.log.String()[log:]; !strings.Contains(told, "level=WARN") && !strings.Contains(told, "level=ERROR") {
		s.Errorf("nobody was told: %s", told)
	}
}
