package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"meshd/lb"
	"meshd/lb/lbtest"
	"meshd/state"
)

// fakeWorld is lbtest.Fake with addresses as in the worlds with a kernel.
type fakeWorld struct{ fake *lbtest.Fake }

func newFakeWorld() *fakeWorld { return &fakeWorld{fake: &lbtest.Fake{}} }

func (w *fakeWorld) name() string { return "fake" }

// newDriver returns the same fake: it is the kernel, and forgets nothing.
func (w *fakeWorld) newDriver(t *testing.T, _ *logBook) lb.Driver {
	before := len(w.fake.Faults())
	t.Cleanup(func() {
		for _, fault := range w.fake.Faults()[before:] {
			t.Errorf("rule broken: %s", fault)
		}
	})
	return w.fake
}

func (w *fakeWorld) places() []place { return everywhere }

func (w *fakeWorld) kindOfHost() string { return "" }

func (w *fakeWorld) families() []bool { return []bool{false, true} }

func (w *fakeWorld) look(*testing.T) {}

func (w *fakeWorld) reloaded(*testing.T) bool { return false }

func (w *fakeWorld) node(six bool) netip.Addr { return fakeAddr(six, 0, 1) }

func (w *fakeWorld) backend(i int, six bool) netip.Addr { return fakeAddr(six, 1, byte(2+i)) }

func (w *fakeWorld) seenAs(_ int, six bool) netip.Addr { return w.node(six) }

func fakeAddr(six bool, net, host byte) netip.Addr {
	if six {
		return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x20, 7: net, 15: host})
	}
	return netip.AddrFrom4([4]byte{10, 1, net, host})
}

func (w *fakeWorld) dial(from client, proto state.Proto, to netip.AddrPort) (conn, error) {
	host := map[place]byte{remote: 3, ownHost: 1, container: 4, hairpin: 5}[from.place]
	a := fakeAddr(to.Addr().Is6(), 2, host+byte(10*from.address))
	if from.place == hairpin {
		a = w.backend(0, to.Addr().Is6())
	}
	fl, err := w.fake.Dial(proto, netip.AddrPortFrom(a, from.port), to)
	if err != nil {
		return nil, err
	}
	return fakeConn{fl}, nil
}

type fakeConn struct{ *lbtest.Flow }

func (c fakeConn) ask() (answer, error) {
	backend, seen, err := c.Ask()
	return answer{backend: backend, seen: seen}, err
}

func (c fakeConn) askFor(time.Duration) (answer, error) { return c.ask() }

func (c fakeConn) askAtLength(int) (answer, error) { return c.ask() }

func (c fakeConn) askForStray() (answer, error) { return c.ask() }

func (c fakeConn) close() { c.Close() }

func (w *fakeWorld) ping(_ place, to netip.Addr) error { return w.fake.Ping(to) }

func (w *fakeWorld) idle(_ *testing.T, _ netip.Addr, last func()) {
	last()
	w.fake.ForgetFlows()
}

func (w *fakeWorld) vandals() []vandal {
	return []vandal{
		{name: "everything is flushed", do: func(*testing.T, *lb.Service) { w.fake.Flush() }},
		{name: "a service is deleted", do: func(_ *testing.T, s *lb.Service) {
			w.fake.ChangeKernel(lb.Op{Kind: lb.DelService, Key: s.Key})
		}},
		{name: "a backend is deleted", balance: true, do: func(_ *testing.T, s *lb.Service) {
			w.fake.ChangeKernel(lb.Op{Kind: lb.DelBackend, Key: s.Key, Backend: s.Backends[0]})
		}},
		{name: "a weight is changed", balance: true, do: func(_ *testing.T, s *lb.Service) {
			w.fake.ChangeKernel(lb.Op{Kind: lb.SetBackend, Key: s.Key, Backend: lb.Backend{Addr: s.Backends[0].Addr, Weight: 9}})
		}},
		{name: "a pool is deleted", do: func(_ *testing.T, s *lb.Service) {
			for p := range w.fake.Kernel().Pools {
				if p.Contains(s.VIP) {
					w.fake.ChangeKernel(lb.Op{Kind: lb.DelPool, Pool: lb.Pool{Prefix: p}})
				}
			}
		}},
	}
}

func (w *fakeWorld) foreigners(*testing.T) func() error { return func() error { return nil } }

func (w *fakeWorld) leftovers(*testing.T) []string {
	var left []string
	k := w.fake.Kernel()
	for p := range k.Pools {
		left = append(left, p.String())
	}
	for _, key := range k.Keys() {
		left = append(left, key.String())
	}
	return left
}
