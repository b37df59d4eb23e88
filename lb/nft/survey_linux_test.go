package nft

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"meshd/lb"
	"meshd/state"
)

// table of connections that counts how it is read.
type fakeConntrack struct {
	flowsOf   []flow
	blind     bool // like a kernel before 5.8
	interrupt int  // how many reads are disturbed
	whole     int  // reads of everything
	told      int  // connections that were told of
	forgotten int
}

func (c *fakeConntrack) flows(family byte, to netip.Addr, each func(f *flow, name func() flowName)) error {
	if !to.IsValid() {
		c.whole++
	}
	for _, f := range c.flowsOf {
		if families[familyIndex(f.vip.Addr())].nfproto != family || to.IsValid() && !c.blind && f.vip.Addr() != to {
			continue
		}
		if to.IsValid() && f.vip.Addr() != to {
			return errUnfiltered
		}
		c.told++
		each(&f, func() flowName { return flowName{} })
	}
	if c.interrupt > 0 {
		c.interrupt--
		return errInterrupted
	}
	return nil
}

func (c *fakeConntrack) forget(byte, flowName) error {
	c.forgotten++
	return nil
}

// someFlows are n connections of a backend of each VIP, and many of others.
func someFlows(n int, vips ...netip.Addr) []flow {
	var all []flow
	for i := range 10_000 {
		all = append(all, flow{
			vip: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), uint16(i)), proto: state.TCP,
			backend: netip.MustParseAddrPort("192.0.2.1:80"), tcpState: 3,
		})
	}
	for _, vip := range vips {
		for range n {
			all = append(all, flow{vip: netip.AddrPortFrom(vip, 80), proto: state.TCP, backend: surveyBackend, tcpState: 3})
		}
	}
	return all
}

var surveyBackend = netip.MustParseAddrPort("10.1.0.2:80")

// What counts and cuts reads few connections of others for few services, the
// table once for many, and the same comes out with every kernel.
func TestSurvey(t *testing.T) {
	for _, test := range []struct {
		vips      int
		blind     bool
		interrupt int
		whole     int
	}{
		{vips: 1},
		{vips: 1, interrupt: 2},
		{vips: filteredPasses},
		{vips: filteredPasses + 1, whole: 1},
		{vips: 2, blind: true, whole: 1},
		{vips: 2, blind: true, interrupt: 1, whole: 2},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			usage, doomed := map[lb.Key]lb.Usage{}, &flows{}
			var vips []netip.Addr
			for i, a := 0, vip4; i < test.vips; i, a = i+1, a.Next() {
				vips = append(vips, a)
				k := lb.Key{VIP: a, Port: 80, Proto: state.TCP}
				usage[k] = lb.Usage{Backends: map[netip.AddrPort]lb.BackendUsage{}}
				doomed.add(k, surveyBackend)
			}
			c := &fakeConntrack{flowsOf: someFlows(3, vips...), blind: test.blind, interrupt: test.interrupt}
			if err := countFlows(c, usage, none, none); err != nil {
				t.Fatal(err)
			}
			for k, u := range usage {
				if n := u.Backends[surveyBackend].Active; n != 3 {
					t.Errorf("%s: %d connections, want 3", k, n)
				}
			}
			if c.whole != test.whole {
				t.Errorf("everything was read %d times, want %d", c.whole, test.whole)
			}
			if test.whole == 0 && c.told > 3*test.vips*(1+test.interrupt) {
				t.Errorf("told of %d connections", c.told)
			}
			c.interrupt = test.interrupt
			if err := doomed.delete(c, nil); err != nil {
				t.Fatal(err)
			}
			if c.forgotten != 3*test.vips || c.whole != 2*test.whole {
				t.Errorf("%d connections cut, want %d; everything was read %d times", c.forgotten, 3*test.vips, c.whole)
			}
		})
	}
	c := &fakeConntrack{flowsOf: someFlows(1)}
	if err := errors.Join(countFlows(c, nil, none, none), (&flows{}).delete(c, nil)); err != nil || c.whole+c.told > 0 {
		t.Errorf("for nothing, %d connections were read: %v", c.told, err)
	}
}

// The kernel tells of the connections to one address only. Those of IPv6 are not
// asked for so, and found all the same.
func TestKernelFiltersConnections(t *testing.T) {
	r := newRig(t)
	d := r.driver()
	r.program(d, table(service(vip4, 0, 0, "10.1.0.2:0"), service(vip6, 0, 0, "[fd01::2]:0")))
	r.crowd(1000)
	r.node.do(t, func() error {
		for _, vip := range []netip.Addr{vip4, vip6} {
			c, err := net.Dial("udp", netip.AddrPortFrom(vip, 7).String())
			if err != nil {
				return err
			}
			_, _ = c.Write([]byte("x"))
			c.Close()
		}
		return nil
	})
	q := d.help.sock.queries
	for i, vip := range []netip.Addr{vip4, vip6} {
		told := 0
		parts, err := survey(q, i, map[netip.Addr]struct{}{vip: {}}, func(found *[]flow, f *flow, _ func() flowName) {
			told++
			if f.vip.Addr() == vip {
				*found = append(*found, *f)
			}
		})
		if found := slices.Concat(parts...); err != nil || len(found) != 1 || found[0].vip != netip.AddrPortFrom(vip, 7) {
			t.Errorf("%s: %+v, %v", vip, found, err)
		}
		if told != 1 && !q.unfiltered {
			t.Errorf("%s: told of %d connections", vip, told)
		}
	}
}

// none gives up nothing.
func none(flowKey) bool { return false }
