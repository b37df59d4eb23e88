package ipvs

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"meshd/lb"
	"meshd/state"
)

// Services whose line in the table does not tell all are asked for; wrong
// settings are seen.
func TestSettingsRead(t *testing.T) {
	k, _, d := setup(t)
	table := sample()
	apply(t, d, lb.Diff(lb.NewTable(), table, lb.Policy{}))
	sticky := lb.Key{VIP: netip.MustParseAddr("fd96::3"), Port: 443, Proto: state.TCP}
	for what, spoil := range map[string]func(*fakeService){
		"timeout":   func(s *fakeService) { s.svc.Timeout++ },
		"netmask":   func(s *fakeService) { s.svc.Netmask = 64 },
		"flags":     func(s *fakeService) { s.svc.Flags ^= flagPort },
		"scheduler": func(s *fakeService) { s.svc.Scheduler = "rr" },
		"forward": func(s *fakeService) {
			for _, d := range s.dests {
				d.Forward = 3
			}
		},
	} {
		spoil(k.services[idOf(sticky)])
		got, err := d.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ops := lb.Diff(got, table, lb.Policy{Drained: always})
		if len(ops) == 0 {
			t.Errorf("a changed %s was not seen", what)
		}
		apply(t, d, ops)
		if got, _ = d.Snapshot(t.Context()); len(lb.Compare(got, table)) > 0 {
			t.Errorf("a changed %s was not repaired: %v", what, lb.Compare(got, table))
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	_, _, d := setup(t)
	bad := &lb.Service{Key: web, Scheduler: "twos"}
	good := *bad
	good.Port, good.Scheduler = 81, "rr"
	errs := d.Apply(t.Context(), []lb.Op{
		{Kind: lb.SetService, Key: bad.Key, Service: bad},
		{Kind: lb.SetService, Key: good.Key, Service: &good},
		{Kind: lb.SetBackend, Key: good.Key, Backend: lb.Backend{Addr: netip.MustParseAddrPort("[fd01::1]:80"), Weight: 1}},
		{Kind: lb.SetBackend, Key: good.Key, Backend: lb.Backend{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1 << 31}},
		{Kind: lb.DelService, Key: bad.Key},
	})
	for i, want := range []string{"ip_vs_twos", "", "other family", "below 2147483648", "ip_vs_twos"} {
		if (errs[i] == nil) != (want == "") || errs[i] != nil && !strings.Contains(errs[i].Error(), want) {
			t.Errorf("operation %d: %v, want %q", i, errs[i], want)
		}
	}
	d.marks.count = 1
	first, second := &lb.Service{Key: lb.Key{VIP: netip.MustParseAddr("10.96.0.3"), Proto: state.TCP}, Scheduler: "rr"},
		&lb.Service{Key: lb.Key{VIP: netip.MustParseAddr("10.96.0.3"), Proto: state.UDP}, Scheduler: "rr"}
	errs = d.Apply(t.Context(), []lb.Op{
		{Kind: lb.SetService, Key: first.Key, Service: first},
		{Kind: lb.SetService, Key: second.Key, Service: second},
	})
	if errs[0] != nil || errs[1] == nil || !strings.Contains(errs[1].Error(), "declare its ports") {
		t.Errorf("out of marks: %v", errs)
	}
	if _, err := New(Config{Log: slog.New(slog.DiscardHandler), MarkCount: maxMarks + 1}); err == nil ||
		!strings.Contains(err.Error(), "MarkCount") {
		t.Errorf("marks beyond their bits: %v", err)
	}
}

func TestUsage(t *testing.T) {
	k, _, d := setup(t)
	apply(t, d, lb.Diff(lb.NewTable(), sample(), lb.Policy{}))
	for _, dest := range k.services[idOf(web)].dests {
		dest.active, dest.inactive = 2, 3
	}
	k.services[idOf(web)].svc.Stats.BytesIn = 1 << 40
	k.calls = nil
	one := netip.MustParseAddrPort("10.0.0.1:80")
	usage, err := d.Usage(t.Context(), []lb.Key{web})
	if b := usage[web].Backends[one]; err != nil || len(usage) != 1 || b.Active != 5 || b.Connections != 7 ||
		usage[web].BytesIn != 1<<40 {
		t.Errorf("%+v, %v", usage, err)
	}
	if !slices.Equal(k.calls, []string{"service", "destinations"}) {
		t.Errorf("calls %v, want what one service needs", k.calls)
	}
	for i := range 2 * countedServices {
		s := &lb.Service{Key: web, Scheduler: "rr"}
		s.Port = uint16(1000 + i)
		apply(t, d, []lb.Op{{Kind: lb.SetService, Key: s.Key, Service: s}})
	}
	k.calls = nil
	usage, err = d.Usage(t.Context(), d.known.Keys())
	if b := usage[web].Backends[one]; err != nil || b.Active != 5 || b.Connections != -1 || usage[web].BytesIn != 1<<40 {
		t.Errorf("%+v, %v", usage[web], err)
	}
	if !slices.Equal(k.calls, []string{"services", "table"}) {
		t.Errorf("calls %v, want two for all", k.calls)
	}
}

// The real probe, on whatever kernel this is: it must not claim what is not there.
func TestProbeHere(t *testing.T) {
	d, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	err = d.Probe(t.Context())
	t.Logf("probe: %v", err)
	if err != nil && !errors.Is(err, lb.ErrUnsupported) {
		t.Errorf("%v; want success or a reason", err)
	}
}

// Check tells what is beside the services and repairs nothing.
func TestCheckFindsSysctls(t *testing.T) {
	_, _, d := setup(t)
	want := lb.Finding{
		Area: lb.AreaSysctl, Kind: lb.FindingChanged, What: "sysctl net.ipv4.vs.conntrack", Found: "0",
		Want: "1",
	}
	d.sysctlDrift = func() ([]lb.Finding, error) { return []lb.Finding{want}, nil }
	found, err := d.Check(t.Context())
	if err != nil || len(found) != 1 || found[0] != want {
		t.Errorf("%v, %v", found, err)
	}
}

func TestReuseStalls(t *testing.T) {
	for _, v := range []struct {
		major, minor int
		want         bool
	}{{4, 19, true}, {5, 8, true}, {5, 9, false}, {5, 10, false}, {6, 1, false}} {
		if got := reuseStalls(v.major, v.minor); got != v.want {
			t.Errorf("%d.%d: %v", v.major, v.minor, got)
		}
	}
}
