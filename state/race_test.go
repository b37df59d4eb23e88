package state

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestReadersAgainstTheWriter: readers run while the table changes; under
// -race this is the proof that they need no lock (S14). Each of them checks
// what must hold at every moment (S4, I5).
func TestReadersAgainstTheWriter(t *testing.T) {
	sa, sb := NewStore("a", 1, DefaultLimits(), new(testClock)), NewStore("b", 1, DefaultLimits(), new(testClock))
	a, b := sa.Join("net"), sb.Join("net")
	sb.SetLiveness("a", Alive)
	b.SetDef(pool28)
	const tasks = 20
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}) }
	state := func(round, i int) Change {
		e := Endpoint{
			ID: fmt.Sprintf("0123456789a%02d", i), Service: "web", IP4: addr(i), Weight: uint16(round%9 + 1),
			Aliases: []string{"www"},
			Name:    fmt.Sprint("c", i), Ports: []Port{{"", 80, 0, TCP}}, Health: Health(round / 3 % 2 * (i % 2)),
		}
		return Change{Kind: KindEndpoint, Key: e.ID, Group: e.Service, Body: string(AppendEndpoint(nil, &e))}
	}
	step := func(round int) {
		var cs []Change
		for i := range tasks {
			cs = append(cs, state(round, i))
		}
		vip := VIPClaim{VIP4: netip.AddrFrom4([4]byte{10, 9, 0, byte(round%5 + 1)}), Birth: 1}
		cs = append(cs, Change{Kind: KindVIP, Key: "web", Body: string(AppendVIPClaim(nil, vip))})
		extra := AppendEndpoint(nil, &Endpoint{IP4: netip.MustParseAddr("10.0.1.1")})
		cs = append(cs, Change{Kind: KindEndpoint, Key: "extra", Group: "other", Body: string(extra), Delete: round%2 > 0})
		commit(t, a, cs...)
		pull(t, a, b, "a", 1<<20)
		sb.SetLiveness("a", []Liveness{Alive, Suspected}[round%2])
		sb.Publish(time.Duration(round))
	}
	step(1)
	var stop atomic.Bool
	var wg sync.WaitGroup
	reader := func(f func() error) {
		wg.Go(func() {
			for !stop.Load() {
				if err := f(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	v := sb.View("net")
	sub := v.Subscribe()
	reader(func() error {
		s := v.Service("web")
		if s.Members.Len() != tasks || !slices.IsSortedFunc(s.Ports, comparePort) || !s.VIP4.IsValid() {
			return fmt.Errorf("S4: %d members, VIP %s", s.Members.Len(), s.VIP4)
		}
		for i, e := range s.Members.All() {
			if w := e.Endpoint().Weight; e.Weight() != w || w != s.Members.At(0).Weight() || s.Class(i) == Hidden {
				return fmt.Errorf("S4: members of two versions: weights %d and %d", w, s.Members.At(0).Weight())
			}
		}
		serving, _ := s.Serving()
		if serving.Len()+s.DrainingMembers().Len()+s.count(Unready)+failing(s) != tasks {
			return fmt.Errorf("classes: %v", s.Count)
		}
		return nil
	})
	reader(func() error {
		if m := v.Lookup("www"); m.Kind != MatchAlias || m.Service.Name != "web" {
			return fmt.Errorf("the alias is gone for a moment: %+v", m)
		}
		if m := v.Lookup("c7"); m.Kind != MatchEndpoint || len(m.Endpoints) != 1 {
			return fmt.Errorf("the container name is gone for a moment: %+v", m)
		}
		if m := v.Lookup("web.0123456789a05"); m.Kind != MatchEndpoint || m.Endpoints[0].ID() != "0123456789a05" {
			return fmt.Errorf("the task name is gone for a moment: %+v", m)
		}
		return nil
	})
	reader(func() error {
		if m := v.ByIP(addr(3)); m.Endpoint == nil || m.Endpoint.Addr4() != addr(3) {
			return fmt.Errorf("the address is gone for a moment: %+v", m)
		}
		v.ByIP(netip.MustParseAddr("10.9.0.1"))
		for _, s := range v.Services() {
			_ = s.Balanced()
		}
		names, _ := sb.Networks()
		_, _, _ = names, v.Def(), v.Synced()
		return nil
	})
	reader(func() error {
		select {
		case <-sub.Ready():
			for _, n := range sub.Drain() {
				v.Service(n)
			}
		default:
			s := v.Subscribe()
			s.Close()
		}
		return nil
	})
	for round := 2; round < 300 && !t.Failed(); round++ {
		step(round)
	}
	stop.Store(true)
	wg.Wait()
	sub.Drain()
	b.SetSynced()
	if got := sub.Drain(); !slices.Contains(got, "") {
		t.Errorf("the first sync was not told: %q", got)
	}
	sub.Close()
}

// TestSubscription: no change is missed, however slow the reader (S14).
func TestSubscription(t *testing.T) {
	a, _ := pair(DefaultLimits())
	sub := a.View().Subscribe()
	for i := range 3 {
		commit(t, a, endpoint(t, fmt.Sprint("t", i), "web", "10.0.0.1"), endpoint(t, fmt.Sprint("d", i), "db", "10.0.0.2"))
		a.Publish(time.Duration(i))
	}
	<-sub.Ready()
	got := sub.Drain()
	slices.Sort(got)
	if !slices.Equal(got, []string{"db", "web"}) {
		t.Fatalf("%q", got)
	}
	if a.Publish(9); len(sub.Drain()) != 0 {
		t.Fatal("told without a change")
	}
}

// TestBigServicesAreHeldBack: a service of a thousand members is published at a
// bounded rate, unless its address changes (S14, V5).
func TestBigServicesAreHeldBack(t *testing.T) {
	a, _ := pair(DefaultLimits())
	var cs []Change
	for i := range bigService {
		cs = append(cs, endpoint(t, fmt.Sprint("t", i), "web", fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)))
	}
	commit(t, a, cs...)
	a.Publish(time.Second)
	commit(t, a, endpoint(t, "new", "web", "10.1.0.1"))
	if wait := a.Publish(time.Second + bigPeriod/2); wait != bigPeriod/2 ||
		a.View().Service("web").Members.Len() != bigService {
		t.Fatalf("S14: wait %v", wait)
	}
	if a.View().Lookup("web.new").Kind != MatchNone {
		t.Fatal("S4: a name before its service")
	}
	if wait := a.Publish(time.Second + bigPeriod); wait != 0 || a.View().Lookup("web.new").Kind != MatchEndpoint {
		t.Fatalf("S14: wait %v", wait)
	}
	commit(t, a, Change{
		Kind: KindVIP, Key: "web",
		Body: string(AppendVIPClaim(nil, VIPClaim{VIP4: netip.MustParseAddr("10.9.0.1"), Birth: 1})),
	})
	a.SetDef(pool28)
	if wait := a.Publish(time.Second + bigPeriod); wait != 0 || !a.View().Service("web").VIP4.IsValid() {
		t.Fatal("V5: an address is held back")
	}
}

// failing counts the failing members that are not served.
func failing(s *Service) int {
	if s.Panicking() {
		return 0
	}
	return s.count(Failing)
}
