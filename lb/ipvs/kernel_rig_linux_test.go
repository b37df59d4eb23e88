package ipvs

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	mobyipvs "github.com/moby/ipvs"
	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/internal/namespace"
	"meshd/lb/ipvs/genl"
)

// namespace is a network namespace that lives as long as the test.
type testNamespace struct{ path string }

func (n *testNamespace) inside(f func() error) error { return namespace.Inside(n.path, f) }

// onKernel returns an empty namespace of this machine's own kernel with IPVS,
// or skips the test.
func onKernel(t testing.TB) *testNamespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root; run with sudo, or in the machine of test/vm")
	}
	if err := probeIPVS("", time.Second); err != nil {
		t.Skipf("%v; run it with make vm", err)
	}
	got := make(chan error, 1)
	var handle netns.NsHandle
	go func() {
		runtime.LockOSThread() // never unlocked
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			handle, err = netns.Get()
		}
		got <- err
	}()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = handle.Close() })
	n := &testNamespace{path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(handle))}
	err := n.inside(func() error {
		lo, err := rtnl.LinkByName("lo")
		if err != nil {
			return err
		}
		return rtnl.LinkSetUp(lo)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newOn(t *testing.T, h *testNamespace) *Driver {
	t.Helper()
	d, err := New(Config{NetNS: h.path, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if err := d.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// listing reads the table with moby/ipvs: another hand than the one that wrote.
func listing(t *testing.T, h *testNamespace) []string {
	t.Helper()
	m, err := mobyipvs.New(h.path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	services, err := m.GetServices()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range services {
		name := fmt.Sprintf("%d/%s:%d/%d mark %#x %s flags %#x timeout %d mask %#x",
			s.AddressFamily, s.Address, s.Port, s.Protocol, s.FWMark, s.SchedName, s.Flags&^flagHashed, s.Timeout, s.Netmask)
		all = append(all, name)
		dests, err := m.GetDestinations(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dests {
			all = append(all, fmt.Sprintf("%s -> %s:%d weight %d forward %d", name, d.Address, d.Port, d.Weight,
				d.ConnectionFlags&mobyipvs.ConnFwdMask))
		}
	}
	slices.Sort(all)
	return all
}

// What is written is what the kernel holds, by three readers (L1, L3, L6).
func TestKernelRoundTrip(t *testing.T) {
	h := onKernel(t)
	d, want := newOn(t, h), sample()
	apply(t, d, lb.Diff(lb.NewTable(), want, lb.Policy{}))
	for _, who := range []*Driver{d, newOn(t, h)} {
		got, err := who.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if found := lb.Compare(got, want); len(found) > 0 {
			t.Errorf("read back: %v", found)
		}
		if found, err := who.Check(t.Context()); who != d && (err != nil || len(found) > 0) { // d's rules were replaced
			t.Errorf("check: %v, %v", found, err)
		}
	}
	text := strings.Join(listing(t, h), "\n")
	for _, line := range []string{
		"2/10.96.0.1:80/6 mark 0x0 wlc flags 0x0 timeout 0 mask 0xffffffff -> 10.0.0.1:80 weight 5 forward 0",
		"2/10.96.0.1:80/6 mark 0x0 wlc flags 0x0 timeout 0 mask 0xffffffff -> 10.0.0.2:80 weight 0 forward 0",
		"2/10.96.0.9:80/6 mark 0x0 mh flags 0x18 timeout 0 mask 0xffffffff",
		"mark 0x6d000001 wrr flags 0x0 timeout 0 mask 0xffffffff -> 10.0.0.3:0 weight 1 forward 0",
		"10/fd96::3:443/6 mark 0x0 mh flags 0x9 timeout 60 mask 0x80 -> fd01::1:443 weight 2 forward 0",
		"-> fd01::3:0 weight 1 forward 0",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("missing %q in\n%s", line, text)
		}
	}
	if err := d.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := listing(t, h); len(left) > 0 {
		t.Errorf("after teardown: %v", left)
	}
}

// Every setting of a service changes in place: its backends stay (L1).
func TestKernelChangesInPlace(t *testing.T) {
	h := onKernel(t)
	d, want := newOn(t, h), sample()
	apply(t, d, lb.Diff(lb.NewTable(), want, lb.Policy{}))
	for _, scheduler := range []string{"rr", "wrr", "lc", "wlc", "sh", "mh", "sed", "nq"} {
		for _, affinity := range []time.Duration{0, 5 * time.Minute} {
			next := want.Clone()
			for k, s := range want.Services {
				changed := *s
				changed.Scheduler, changed.Affinity = scheduler, affinity
				next.Services[k] = &changed
			}
			apply(t, d, lb.Diff(want, next, lb.Policy{}))
			got, err := newOn(t, h).Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if found := lb.Compare(got, next); len(found) > 0 {
				t.Errorf("%s, affinity %s: %v", scheduler, affinity, found)
			}
			want = next
		}
	}
}

// The kernel's refusals are those that the driver reads (lb/ipvs relies on each).
func TestKernelErrnos(t *testing.T) {
	h := onKernel(t)
	c, err := genl.Dial(h.inside, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	four := genl.Service{
		ID:        genl.ID{Family: genl.IPv4, Proto: 6, Port: 80, Addr: netip.MustParseAddr("10.96.0.1")},
		Scheduler: "rr", Netmask: 0xffffffff,
	}
	other := four
	other.Port = 81
	unknown := other
	unknown.Scheduler = "twos"
	mark6 := genl.Service{ID: genl.ByMark(genl.IPv6, 7), Scheduler: "rr"}
	dest := func(addr string, weight uint32) genl.Destination {
		return genl.Destination{Addr: netip.MustParseAddrPort(addr), Weight: weight}
	}
	reqs := []genl.Request{
		{Command: genl.NewService, Service: four},
		{Command: genl.NewService, Service: four},
		{Command: genl.SetService, Service: other},
		{Command: genl.DelService, Service: other},
		{Command: genl.NewService, Service: unknown},
		{Command: genl.SetService, Service: genl.Service{ID: four.ID, Scheduler: "twos"}},
		{Command: genl.NewService, Service: mark6},
		{Command: genl.NewDestination, Service: four, Destination: dest("10.0.0.1:80", 70000)},
		{Command: genl.NewDestination, Service: four, Destination: dest("10.0.0.1:80", 1)},
		{Command: genl.SetDestination, Service: four, Destination: dest("10.0.0.2:80", 1)},
		{Command: genl.DelDestination, Service: four, Destination: dest("10.0.0.2:80", 1)},
		{Command: genl.NewDestination, Service: other, Destination: dest("10.0.0.2:80", 1)},
		{Command: genl.SetDestination, Service: other, Destination: dest("10.0.0.2:80", 1)},
		{Command: genl.DelDestination, Service: other, Destination: dest("10.0.0.2:80", 1)},
		{Command: genl.NewDestination, Service: four, Destination: dest("[fd01::1]:80", 1)},
		{Command: genl.NewDestination, Service: four, Destination: dest("10.0.0.3:80", 1<<31)},
	}
	want := []error{
		nil, unix.EEXIST, unix.ESRCH, unix.ESRCH, unix.ENOENT, unix.ENOENT, unix.EINVAL,
		nil, unix.EEXIST, unix.ENOENT, unix.ENOENT, unix.ESRCH, unix.ESRCH, unix.ESRCH, unix.EINVAL, unix.ERANGE,
	}
	for i, err := range c.Do(reqs) {
		if !errors.Is(err, want[i]) {
			t.Errorf("request %d (%v): %v, want %v", i, reqs[i].Command, err, want[i])
		}
	}
	if _, err := c.Service(other.ID); !errors.Is(err, unix.ESRCH) {
		t.Errorf("asked for a missing service: %v, want ESRCH", err)
	}
	got, err := c.Service(four.ID)
	if err != nil || got.ID != four.ID || got.Scheduler != "rr" || got.Flags != flagHashed {
		t.Errorf("%+v, %v", got, err)
	}
	list, err := c.Services()
	if err != nil || len(list) != 1 || list[0] != got {
		t.Errorf("list %+v, %v", list, err)
	}
	weight := uint32(0)
	err = readTable(h.inside, make([]byte, tableBuffer), func(_ procService, b []procBackend) error {
		weight = b[0].weight
		return nil
	})
	if err != nil || weight != 70000 {
		t.Errorf("weight %d, %v; want all of 70000", weight, err)
	}
}

// What others made stays, through everything that we do (L1).
func TestKernelForeign(t *testing.T) {
	h := onKernel(t)
	m, err := mobyipvs.New(h.path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, s := range []*mobyipvs.Service{
		{Address: netip.MustParseAddr("192.0.2.1").AsSlice(), Port: 80, Protocol: 6, SchedName: "rr", AddressFamily: unix.AF_INET, Netmask: 0xffffffff},
		{FWMark: 256, SchedName: "sh", AddressFamily: unix.AF_INET, Netmask: 0xffffffff},
		{FWMark: 257, SchedName: "rr", AddressFamily: unix.AF_INET6, Netmask: 128},
	} {
		if err := m.NewService(s); err != nil {
			t.Fatal(err)
		}
	}
	before := listing(t, h)
	d := newOn(t, h)
	apply(t, d, lb.Diff(lb.NewTable(), sample(), lb.Policy{}))
	got, err := newOn(t, h).Snapshot(t.Context())
	if err != nil || len(lb.Compare(got, sample())) > 0 {
		t.Errorf("%v, %v", lb.Compare(got, sample()), err)
	}
	fresh, err := New(Config{NetNS: h.path, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	left, err := fresh.Remnants(t.Context())
	services := 0
	for _, r := range left {
		if r.Area == lb.AreaService {
			services++
		}
	}
	if err != nil || services != len(sample().Services) {
		t.Errorf("remnants %v, %v", left, err)
	}
	if err := fresh.Teardown(t.Context()); err != nil {
		t.Error(err)
	}
	if after := listing(t, h); !slices.Equal(before, after) {
		t.Errorf("before %v\nafter %v", before, after)
	}
	if left, err := fresh.Remnants(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("remnants after teardown %v, %v", left, err)
	}
}

// A changed sysctl is found, and repaired by Setup.
func TestKernelSysctls(t *testing.T) {
	h := onKernel(t)
	d := newOn(t, h)
	for _, s := range sysctls(h.path) {
		err := h.inside(func() error { return os.WriteFile("/proc/sys/"+s.Key, []byte("0"), 0) })
		if err != nil {
			t.Fatal(err)
		}
	}
	found, err := d.Check(t.Context())
	if err != nil || len(found) != len(sysctls(h.path)) {
		t.Errorf("%v, %v; want %d findings", found, err, len(sysctls(h.path)))
	}
	if err := d.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found, err := d.Check(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("after setup %v, %v", found, err)
	}
}

// Where conntrack takes up no connection in the middle, IPVS does neither: it would
// not be masqueraded, and the client would wait for ever.
func TestKernelTakesUpWhatConntrackDoes(t *testing.T) {
	h := onKernel(t)
	for _, loose := range []string{"0", "1"} {
		err := h.inside(func() error {
			return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", []byte(loose),
				0)
		})
		if err != nil {
			t.Fatal(err)
		}
		d := newOn(t, h)
		err = h.inside(func() error {
			sloppy, err := os.ReadFile("/proc/sys/net/ipv4/vs/sloppy_tcp")
			if err == nil && strings.TrimSpace(string(sloppy)) != loose {
				err = fmt.Errorf("sloppy_tcp is %q where nf_conntrack_tcp_loose is %s", sloppy, loose)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if found, err := d.Check(t.Context()); err != nil || len(found) > 0 {
			t.Errorf("after setup %v, %v", found, err)
		}
	}
}
