package conntrack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"meshd/lb"
	"meshd/lb/internal/linktest"
	"meshd/lb/nftconn"
	"meshd/state"
)

// table of connections that counts how it is read.
type fakeConntrack struct {
	flowsOf   []Flow
	blind     bool // like a kernel before 5.8
	interrupt int  // how many reads are disturbed
	whole     int  // reads of everything
	told      int  // connections that were told of
	forgotten int
}

func (c *fakeConntrack) Flows(family byte, to netip.Addr, each func(f *Flow, name func() Name)) error {
	if !to.IsValid() {
		c.whole++
	}
	for _, f := range c.flowsOf {
		vip := f.VIP.Addr()
		if nftconn.Families[nftconn.FamilyIndex(vip)].Proto != family || to.IsValid() && !c.blind && vip != to {
			continue
		}
		if to.IsValid() && f.VIP.Addr() != to {
			return errUnfiltered
		}
		c.told++
		each(&f, func() Name { return Name{} })
	}
	if c.interrupt > 0 {
		c.interrupt--
		return nftconn.ErrInterrupted
	}
	return nil
}

func (c *fakeConntrack) Forget(byte, Name) error {
	c.forgotten++
	return nil
}

// someFlows are n connections of a backend of each VIP, and many of others.
func someFlows(n int, vips ...netip.Addr) []Flow {
	var all []Flow
	for i := range 10_000 {
		all = append(all, Flow{
			VIP: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), uint16(i)), Proto: state.TCP,
			Backend: netip.MustParseAddrPort("192.0.2.1:80"), tcpState: 3,
		})
	}
	for _, vip := range vips {
		for range n {
			all = append(all, Flow{VIP: netip.AddrPortFrom(vip, 80), Proto: state.TCP, Backend: surveyBackend, tcpState: 3})
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
			usage, gone := map[lb.Key]lb.Usage{}, &Set{}
			var vips []netip.Addr
			for i, a := 0, linktest.VIP4; i < test.vips; i, a = i+1, a.Next() {
				vips = append(vips, a)
				k := lb.Key{VIP: a, Port: 80, Proto: state.TCP}
				usage[k] = lb.Usage{Backends: map[netip.AddrPort]lb.BackendUsage{}}
				gone.Add(k, surveyBackend)
			}
			c := &fakeConntrack{flowsOf: someFlows(3, vips...), blind: test.blind, interrupt: test.interrupt}
			if err := Count(c, usage, none, none); err != nil {
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
			if err := gone.Delete(c, nil); err != nil {
				t.Fatal(err)
			}
			if c.forgotten != 3*test.vips || c.whole != 2*test.whole {
				t.Errorf("%d connections cut, want %d; everything was read %d times", c.forgotten, 3*test.vips, c.whole)
			}
		})
	}
	c := &fakeConntrack{flowsOf: someFlows(1)}
	if err := errors.Join(Count(c, nil, none, none), (&Set{}).Delete(c, nil)); err != nil || c.whole+c.told > 0 {
		t.Errorf("for nothing, %d connections were read: %v", c.told, err)
	}
}

// The kernel tells of the connections to one address only. Those of IPv6 are not
// asked for so, and found all the same.
func TestKernelFiltersConnections(t *testing.T) {
	r := newRig(t)
	to4, to6 := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd01::2")
	r.crowd(1000)
	r.Node.Do(t, func() error {
		for _, vip := range []netip.Addr{to4, to6} {
			c, err := net.Dial("udp", netip.AddrPortFrom(vip, 7).String())
			if err != nil {
				return err
			}
			_, _ = c.Write([]byte("x"))
			c.Close()
		}
		return nil
	})
	q := r.kernel
	for i, vip := range []netip.Addr{to4, to6} {
		told := 0
		parts, err := survey(q, i, map[netip.Addr]struct{}{vip: {}}, func(found *[]Flow, f *Flow, _ func() Name) {
			told++
			if f.VIP.Addr() == vip {
				*found = append(*found, *f)
			}
		})
		if found := slices.Concat(parts...); err != nil || len(found) != 1 || found[0].VIP != netip.AddrPortFrom(vip, 7) {
			t.Errorf("%s: %+v, %v", vip, found, err)
		}
		if told != 1 && !q.unfiltered {
			t.Errorf("%s: told of %d connections", vip, told)
		}
	}
}

// none gives up nothing.
func none(Key) bool { return false }
