package ipvs

import (
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
	"meshd/state"
)

// Thousands of services load, are read back, change and go.
func TestKernelMany(t *testing.T) {
	h := onKernel(t)
	d := newOn(t, h)
	want := lb.NewTable()
	want.Pools[pool4], want.Pools[pool6] = lb.Pool{Prefix: pool4}, lb.Pool{Prefix: pool6}
	const services, backends = 2000, 10
	for i := range services {
		k := lb.Key{VIP: netip.AddrFrom4([4]byte{10, 96, byte(1 + i>>8), byte(i)}), Port: 80, Proto: state.TCP}
		s := &lb.Service{Key: k, Scheduler: "wrr"}
		switch i % 10 {
		case 0:
			s.Scheduler = "mh"
		case 1:
			s.Affinity = time.Hour
		case 2:
			s.Port, s.Proto = 0, 0
		case 3:
			s.VIP = netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x96, 14: byte(i >> 8), 15: byte(i)})
		}
		for j := range backends {
			a := netip.AddrFrom4([4]byte{10, 1, byte(i), byte(1 + j)})
			if s.VIP.Is6() {
				a = netip.AddrFrom16([16]byte{0: 0xfd, 1: 1, 14: byte(i), 15: byte(1 + j)})
			}
			s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrPortFrom(a, s.Port), Weight: uint32(j)})
		}
		want.Services[s.Key] = s
	}
	start := time.Now()
	apply(t, d, lb.Diff(lb.NewTable(), want, lb.Policy{}))
	t.Logf("%d services with %d backends each: %s", services, backends, time.Since(start))
	start = time.Now()
	got, err := newOn(t, h).Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("read back in %s", time.Since(start))
	if found := lb.Compare(got, want); len(found) > 0 {
		t.Errorf("%d differences, first %s", len(found), found[0])
	}
	usage, err := d.Usage(t.Context(), d.known.Keys())
	if err != nil || len(usage) != services {
		t.Errorf("usage of %d services, %v", len(usage), err)
	}
	gone := want.Clone()
	clear(gone.Services)
	for range 2 { // weights to 0, then away
		ops := lb.Diff(got, gone, lb.Policy{Drained: always})
		apply(t, d, ops)
		got.Apply(ops, nil)
	}
	if left := listing(t, h); len(left) > 0 {
		t.Errorf("%d lines left, as %s", len(left), left[0])
	}
}

// Several namespaces with services do not get in each other's way: not even in
// /proc/net/ip_vs, where this kernel mixes their places up.
func TestKernelNamespaces(t *testing.T) {
	var drivers []*Driver
	want := lb.NewTable()
	want.Pools[pool4] = lb.Pool{Prefix: pool4}
	for i := range 700 {
		s := &lb.Service{Key: lb.Key{
			VIP: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Port: 80,
			Proto: state.TCP,
		}, Scheduler: "wrr"}
		for j := range 10 {
			a := netip.AddrFrom4([4]byte{10, 1, byte(i), byte(1 + j)})
			s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrPortFrom(a, 80), Weight: 1})
		}
		want.Services[s.Key] = s
	}
	for range 3 {
		d := newOn(t, onKernel(t))
		apply(t, d, lb.Diff(lb.NewTable(), want, lb.Policy{}))
		drivers = append(drivers, d)
	}
	for _, d := range drivers {
		for range 2 {
			got, err := d.Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if found := lb.Compare(got, want); len(found) > 0 {
				t.Errorf("%d differences, first %s", len(found), found[0])
			}
		}
		usage, err := d.Usage(t.Context(), d.known.Keys())
		for k := range want.Services {
			if len(usage[k].Backends) != 10 {
				t.Fatalf("%d backends of %s counted, %v", len(usage[k].Backends), k, err)
			}
		}
	}
	t.Logf("places are mixed up: %v", drivers[0].skips)
}

// Rule L7: without the privilege the probe says so; with IPVS there, it must
// not say that IPVS is missing.
func TestKernelNoPrivilege(t *testing.T) {
	onKernel(t)
	got := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread loses its privileges
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&hdr, &none[0]); err != nil {
			got <- err
			return
		}
		got <- probeIPVS("", time.Second)
	}()
	err := <-got
	if !errors.Is(err, lb.ErrUnsupported) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") ||
		errors.Is(err, genl.ErrNoIPVS) {
		t.Errorf("%v; want the missing privilege", err)
	}
}
