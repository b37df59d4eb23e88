package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"meshd/lb"
	"meshd/state"
	"meshd/test/rig"
)

// stage is one behaviour's test in one world: a driver that is set up, and the
// table that it has so far.
type stage struct {
	*testing.T
	*scene
}

// scene is what a behaviour's subtests share.
type scene struct {
	root *testing.T // the behaviour's own
	name string     // of the behaviour
	w    world
	d    lb.Driver
	log  *logBook
	at   *lb.Table // what the kernel should hold
	vips *int      // virtual addresses handed out in this world
}

// newStage sets a driver up. At the end it is torn down, which must leave
// nothing.
func newStage(t *testing.T, w world, name string, vips *int) *stage {
	s := &stage{T: t, scene: &scene{root: t, name: name, w: w, log: &logBook{}, at: lb.NewTable(), vips: vips}}
	t.Cleanup(func() { s.end() })
	s.restart()
	return s
}

// with returns the stage for a subtest.
func (s *stage) with(t *testing.T) *stage { return &stage{T: t, scene: s.scene} }

// restart replaces the driver by that of a new process, as after a kill -9:
// the old one is not closed.
func (s *stage) restart() {
	s.Helper()
	s.d = s.w.newDriver(s.root, s.log)
	if err := s.d.Setup(s.Context()); err != nil {
		s.Fatalf("setup: %v", err)
	}
	s.w.look(s.T)
}

func (s *stage) end() {
	ctx := context.Background() // the test's own has ended
	if err := s.d.Teardown(ctx); err != nil {
		s.Errorf("teardown: %v", err)
	}
	if left := s.w.leftovers(s.T); len(left) > 0 {
		s.Errorf("teardown left %v", left)
	}
	if s.Failed() {
		s.Logf("the driver's log:\n%s", s.log)
	}
}

// variant is a protocol over an address family.
type variant struct {
	proto state.Proto
	six   bool
}

func (v variant) String() string {
	family := map[bool]string{false: "IPv4", true: "IPv6"}[v.six]
	return map[state.Proto]string{state.TCP: "TCP", state.UDP: "UDP"}[v.proto] + " over " + family
}

var variants = []variant{{state.TCP, false}, {state.UDP, false}, {state.TCP, true}, {state.UDP, true}}

// variants are those of the families that the host has.
func (s *stage) variants() []variant {
	return slices.DeleteFunc(slices.Clone(variants),
		func(v variant) bool { return !slices.Contains(s.w.families(), v.six) })
}

// each runs f for both protocols over both families.
func (s *stage) each(f func(s *stage, v variant)) {
	for _, v := range s.variants() {
		s.Run(v.String(), func(t *testing.T) { f(s.with(t), v) })
	}
}

// eachOf runs f for one protocol over both families.
func (s *stage) eachOf(proto state.Proto, f func(s *stage, v variant)) {
	for _, six := range s.w.families() {
		v := variant{proto, six}
		s.Run(v.String(), func(t *testing.T) { f(s.with(t), v) })
	}
}

// vip returns an address that no other test of this world has.
func (s *stage) vip(six bool) netip.Addr {
	*s.vips++
	n := *s.vips
	if six {
		return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x96, 14: byte(n >> 8), 15: byte(n)})
	}
	return netip.AddrFrom4([4]byte{10, 96, byte(n >> 8), byte(n)})
}

// port is where services are offered and where the backends listen.
const port = 80

// service makes a service on a new address. The weights are those of backends
// 0, 1, …; one below 0 leaves the backend out.
func (s *stage) service(v variant, scheduler string, weights ...int) *lb.Service {
	return s.serviceAt(netip.AddrPortFrom(s.vip(v.six), port), v.proto, scheduler, weights...)
}

// serviceAt is service for an address; port 0 is for all ports.
func (s *stage) serviceAt(at netip.AddrPort, proto state.Proto, scheduler string, weights ...int) *lb.Service {
	svc := &lb.Service{Key: lb.Key{VIP: at.Addr(), Port: at.Port(), Proto: proto}, Scheduler: scheduler}
	for i, w := range weights {
		if w >= 0 {
			a := netip.AddrPortFrom(s.w.backend(i, at.Addr().Is6()), at.Port())
			svc.Backends = append(svc.Backends, lb.Backend{Addr: a, Weight: uint32(w)})
		}
	}
	slices.SortFunc(svc.Backends, func(a, b lb.Backend) int { return a.Addr.Compare(b.Addr) })
	return svc
}

// address is where clients reach a service.
func address(svc *lb.Service) netip.AddrPort {
	return netip.AddrPortFrom(svc.VIP, max(svc.Port, port*b2u(svc.Port == 0)))
}

func b2u(b bool) uint16 {
	if b {
		return 1
	}
	return 0
}

// table returns a table with both pools and these services.
func (s *stage) table(services ...*lb.Service) *lb.Table {
	t := lb.NewTable()
	t.Pools[pool4] = lb.Pool{Prefix: pool4, Src: s.w.node(false)}
	if slices.Contains(s.w.families(), true) {
		t.Pools[pool6] = lb.Pool{Prefix: pool6, Src: s.w.node(true)}
	}
	for _, svc := range services {
		t.Services[svc.Key] = svc
	}
	return t
}

var drained = lb.Policy{Drained: func(lb.Key, netip.AddrPort) bool { return true }}

// program makes the kernel hold these services and no others. What goes is
// not given time to drain.
func (s *stage) program(services ...*lb.Service) {
	s.Helper()
	s.reach(s.table(services...))
}

func (s *stage) reach(want *lb.Table) {
	s.Helper()
	for range 2 { // weight 0 first, then gone
		ops := lb.Diff(s.at, want, drained)
		for i, err := range s.d.Apply(s.Context(), ops) {
			if err != nil {
				s.Fatalf("%s: %v", ops[i], err)
			}
		}
		s.at.Apply(ops, nil)
	}
	if s.w.reloaded(s.T) {
		s.compare()
	}
}

// compare does what a daemon does upon a change by another program: it compares
// everything, and mends it.
func (s *stage) compare() {
	s.Helper()
	if _, err := s.d.Check(s.Context()); err != nil && !errors.Is(err, lb.ErrDrift) {
		s.Fatalf("check: %v", err)
	}
	must(s.T, s.d.Setup(s.Context()))
	have, err := s.d.Snapshot(s.Context())
	must(s.T, err)
	ops := lb.Diff(have, s.at, drained)
	for i, err := range s.d.Apply(s.Context(), ops) {
		if err != nil {
			s.Fatalf("%s: %v", ops[i], err)
		}
	}
}

// also programs more services, or other versions of those that are there.
func (s *stage) also(services ...*lb.Service) {
	s.Helper()
	want := s.at.Clone()
	maps.Copy(want.Pools, s.table().Pools)
	for _, svc := range services {
		want.Services[svc.Key] = svc
	}
	s.reach(want)
}

// open connects, which must succeed.
func (s *stage) open(from client, proto state.Proto, to netip.AddrPort) conn {
	s.Helper()
	c, err := s.w.dial(from, proto, to)
	if err != nil {
		s.Fatalf("%s connects to %s/%s: %v", from.place, to, proto, err)
	}
	s.Cleanup(c.close)
	return c
}

// asks makes a request on a connection, which must be answered, and returns by
// which backend.
func (s *stage) asks(c conn) int {
	s.Helper()
	a, err := c.ask()
	if err != nil {
		s.Fatalf("a request was not answered: %v", err)
	}
	return s.index(a)
}

// index returns the number of the backend that answered.
func (s *stage) index(a answer) int {
	for i := range 4 {
		if s.w.backend(i, a.backend.Addr().Is6()) == a.backend.Addr() {
			return i
		}
	}
	return -1 // the host's own service
}

// once connects, makes one request and returns who answered.
func (s *stage) once(from client, proto state.Proto, to netip.AddrPort) (int, error) {
	a, err := s.answer(from, proto, to)
	return s.index(a), err
}

func (s *stage) answer(from client, proto state.Proto, to netip.AddrPort) (answer, error) {
	c, err := s.w.dial(from, proto, to)
	if err != nil {
		return answer{}, err
	}
	defer c.close()
	return c.ask()
}

// spread makes n connections, open at once, and counts them by backend.
func (s *stage) spread(from place, proto state.Proto, to netip.AddrPort, n int) map[int]int {
	s.Helper()
	got := map[int]int{}
	for range n {
		c, err := s.w.dial(client{place: from}, proto, to)
		if err != nil {
			s.Fatalf("%s connects to %s/%s: %v", from, to, proto, err)
		}
		defer c.close()
		a, err := c.ask()
		if err != nil {
			s.Fatalf("%s asks %s/%s: %v", from, to, proto, err)
		}
		got[s.index(a)]++
	}
	return got
}

// spreadTries is how often connections are spread until the spread is right. On a
// busy machine, once in some thousands of times and with either driver, something
// unknown takes a turn between two connections. A scheduler that is wrong is wrong
// each time.
const spreadTries = 3

// wantSpread checks how connections spread: want[i] of them to backend i. One that
// reaches a backend which should get none is an error at once.
func (s *stage) wantSpread(from place, proto state.Proto, to netip.AddrPort, want ...int) {
	s.Helper()
	total, counts := 0, map[int]int{}
	for i, n := range want {
		total += n
		if n > 0 {
			counts[i] = n
		}
	}
	for try := 1; ; try++ {
		got := s.spread(from, proto, to, total)
		if maps.Equal(got, counts) {
			return
		}
		usage, err := s.d.Usage(s.Context(), slices.Collect(maps.Keys(s.at.Services)))
		what := fmt.Sprintf("%d connections of %s to %s/%s spread %v, want %v; the kernel counts %+v %v", total, from, to,
			proto, got, counts, usage, err)
		for backend := range got {
			if counts[backend] == 0 {
				try = spreadTries
			}
		}
		if try >= spreadTries {
			s.Error(what)
			return
		}
		s.Log(what)
	}
}

// within waits until check succeeds.
func within(t *testing.T, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), *patience)
	defer cancel()
	if err := rig.Poll(ctx, check); err != nil {
		t.Fatalf("not within %v: %v", *patience, err)
	}
}

// logBook keeps what a driver and a balancer log.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.String(a.Key, a.Value.Time().Format(time.StampMilli))
			}
			return a
		},
	}))
}
