package dataplane

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	mobyipvs "github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/ipvs"
)

// ipvsWorld is lb/ipvs on a real kernel.
type ipvsWorld struct{ *kernel }

func (w *ipvsWorld) name() string { return "ipvs" }

func (w *ipvsWorld) newDriver(t *testing.T, log *logBook) lb.Driver {
	t.Helper()
	d, err := ipvs.New(ipvs.Config{NetNS: w.box.Path(), Local: w.local, Log: log.logger(), CallLimit: *patience})
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// table opens the host's IPVS with a library that is not the driver's own way.
func (w *ipvsWorld) table(t *testing.T) *mobyipvs.Handle {
	t.Helper()
	h, err := mobyipvs.New(w.box.Path())
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

// idle implements world: IPVS forgets first, and then drops the entry of conntrack.
func (w *ipvsWorld) idle(t *testing.T, vip netip.Addr, last func()) {
	h := w.table(t)
	old, err := h.GetConfig()
	must(t, err)
	must(t, h.SetConfig(&mobyipvs.Config{TimeoutTCP: time.Second, TimeoutTCPFin: time.Second, TimeoutUDP: time.Second}))
	t.Cleanup(func() { must(t, h.SetConfig(old)) })
	last()
	within(t, func() error {
		n, err := w.connections(vip)
		if err == nil && n > 0 {
			err = fmt.Errorf("IPVS still has %d connections to %s", n, vip)
		}
		return err
	})
}

// connections counts the entries of IPVS' connection table, templates of
// affinity included.
func (w *ipvsWorld) connections(vip netip.Addr) (n int, err error) {
	text, err := w.read("/proc/net/ip_vs_conn")
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 3 && addrOfProc(f[3]) == vip {
			n++
		}
	}
	return n, err
}

// addrOfProc reads an address as /proc/net/ip_vs_conn has it.
func addrOfProc(s string) netip.Addr {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return a
	}
	raw, _ := hex.DecodeString(s)
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// find returns the service of the kernel.
func (w *ipvsWorld) find(t *testing.T, s *lb.Service) (*mobyipvs.Handle, *mobyipvs.Service) {
	t.Helper()
	h := w.table(t)
	all, err := h.GetServices()
	must(t, err)
	for _, one := range all {
		if a, _ := netip.AddrFromSlice(one.Address); one.FWMark == 0 && a.Unmap() == s.VIP && one.Port == s.Port &&
			one.Protocol == uint16(s.Proto) {
			return h, one
		}
	}
	t.Fatalf("IPVS has no service %s", s.Key)
	return nil, nil
}

func (w *ipvsWorld) vandals() []vandal {
	withDest := func(f func(*mobyipvs.Handle, *mobyipvs.Service, *mobyipvs.Destination) error) func(*testing.T,
		*lb.Service) {
		return func(t *testing.T, s *lb.Service) {
			h, svc := w.find(t, s)
			dests, err := h.GetDestinations(svc)
			must(t, err)
			must(t, f(h, svc, dests[0]))
		}
	}
	sysctl := func(key, value string) vandal {
		return vandal{name: "sysctl " + key + " is set to " + value, do: func(t *testing.T, _ *lb.Service) {
			must(t, w.box.Sysctl(key, value))
		}}
	}
	return append(w.ruleVandals(),
		vandal{name: "IPVS is flushed", do: func(t *testing.T, _ *lb.Service) { must(t, w.table(t).Flush()) }},
		vandal{name: "an IPVS service is deleted", do: func(t *testing.T, s *lb.Service) {
			h, svc := w.find(t, s)
			must(t, h.DelService(svc))
		}},
		vandal{name: "an IPVS service gets another scheduler", do: func(t *testing.T, s *lb.Service) {
			h, svc := w.find(t, s)
			svc.SchedName = "sh"
			must(t, h.UpdateService(svc))
		}},
		vandal{
			name: "an IPVS server is deleted",
			do: withDest(func(h *mobyipvs.Handle, s *mobyipvs.Service, d *mobyipvs.Destination) error {
				return h.DelDestination(s, d)
			}),
		},
		vandal{
			name: "an IPVS server gets another weight",
			do: withDest(func(h *mobyipvs.Handle, s *mobyipvs.Service, d *mobyipvs.Destination) error {
				d.Weight = 9
				return h.UpdateDestination(s, d)
			}),
		},
		vandal{
			name: "an IPVS server is added",
			do: withDest(func(h *mobyipvs.Handle, s *mobyipvs.Service, d *mobyipvs.Destination) error {
				d.Port++
				return h.NewDestination(s, d)
			}),
		},
		vandal{name: "the firewall marks are deleted", do: func(t *testing.T, s *lb.Service) {
			w.edit(t, func(c *nftables.Conn) {
				c.FlushSet(&nftables.Set{Table: &nftables.Table{Name: "meshd", Family: familyOf(s.VIP)}, Name: "marks"})
			})
		}},
		sysctl("net.ipv4.vs.conntrack", "0"),
		sysctl("net.ipv4.vs.expire_nodest_conn", "0"),
		sysctl("net.ipv4.vs.expire_quiescent_template", "0"),
	)
}

// foreigners plants a service, and one with a mark, beside what the nft driver
// must leave alone.
func (w *ipvsWorld) foreigners(t *testing.T) func() error {
	h := w.table(t)
	theirs := []*mobyipvs.Service{
		{Address: netip.MustParseAddr("192.0.2.1").AsSlice(), Port: 80, Protocol: unix.IPPROTO_TCP, SchedName: "rr", AddressFamily: unix.AF_INET, Netmask: 0xffffffff},
		{FWMark: 256, SchedName: "rr", AddressFamily: unix.AF_INET, Netmask: 0xffffffff},
	}
	dest := &mobyipvs.Destination{
		Address: netip.MustParseAddr("192.0.2.9").AsSlice(), Port: 80, Weight: 1,
		AddressFamily: unix.AF_INET,
	}
	for _, s := range theirs {
		must(t, h.NewService(s))
		must(t, h.NewDestination(s, dest))
		t.Cleanup(func() { _ = h.DelService(s) })
	}
	table, route := w.plantTable(t), w.plantRoute(t)
	return func() error {
		err := errors.Join(table(), route())
		for _, s := range theirs {
			dests, derr := h.GetDestinations(s)
			if derr == nil && !h.IsServicePresent(s) || len(dests) != 1 {
				derr = fmt.Errorf("somebody's IPVS service %v:%d mark %d is gone or empty", s.Address, s.Port, s.FWMark)
			}
			err = errors.Join(err, derr)
		}
		return err
	}
}

func (w *ipvsWorld) leftovers(t *testing.T) []string {
	left := w.ruleLeftovers(t)
	all, err := w.table(t).GetServices()
	must(t, err)
	for _, s := range all {
		a, _ := netip.AddrFromSlice(s.Address)
		if pool4.Contains(a.Unmap()) || pool6.Contains(a) || s.FWMark > 256 {
			left = append(left, fmt.Sprintf("IPVS service %v:%d mark %d", s.Address, s.Port, s.FWMark))
		}
	}
	return left
}
