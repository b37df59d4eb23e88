package state

import (
	"net/netip"
	"testing"
)

type testClock uint64

func (c *testClock) Tick() uint64     { *c++; return uint64(*c) }
func (c *testClock) Time() uint64     { return uint64(*c) }
func (c *testClock) Witness(t uint64) { *c = max(*c, testClock(t)) }

func endpoint(t testing.TB, id, service, ip string) Change {
	t.Helper()
	e := Endpoint{
		ID: id, Service: service, IP4: netip.MustParseAddr(ip), Ports: []Port{{Number: 80, Proto: TCP}},
		Aliases: []string{"www"},
	}
	e.Normalize()
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	return Change{Kind: KindEndpoint, Key: e.ID, Group: e.Service, Body: string(AppendEndpoint(nil, &e))}
}

func TestTwoStoresExchangeAStream(t *testing.T) {
	a, b := NewStore("a", 1, DefaultLimits(), new(testClock)), NewStore("b", 1, DefaultLimits(), new(testClock))
	ta, tb := a.Join("net"), b.Join("net")
	if _, err := ta.Commit([]Change{
		endpoint(t, "t1", "web", "10.0.0.1"),
		endpoint(t, "t2", "web", "10.0.0.2"),
	}); err != nil {
		t.Fatal(err)
	}
	h, _ := ta.Head("a")
	w, need := tb.Want("a", h)
	if !need {
		t.Fatal("b wants nothing")
	}
	b.SetLiveness("a", Alive)
	for range 3 {
		d := ta.Delta(w, 1)
		r, err := b.Apply(d)
		if err != nil {
			t.Fatal(err)
		}
		if r == Applied {
			break
		}
		w, _ = tb.Want("a", h)
	}
	b.Publish(1)
	s := tb.View().Service("web")
	if s == nil || s.Count[Serving] != 2 || len(s.Ports) != 1 {
		t.Fatalf("view: %+v", s)
	}
	if ta.Checksum() != tb.Checksum() || ta.Hash() != tb.Hash() {
		t.Fatal("S10: checksums differ")
	}
	if m := tb.View().Lookup("www"); m.Kind != MatchAlias || m.Service != s {
		t.Fatalf("alias: %+v", m)
	}
	if m := tb.View().Lookup("web.t1"); m.Kind != MatchEndpoint || m.Endpoints[0].ID() != "t1" {
		t.Fatalf("task name: %+v", m)
	}
	b.SetLiveness("a", Dead)
	b.Publish(2)
	if s := tb.View().Service("web"); s == nil || s.Members.Len() != 0 {
		t.Fatalf("S9: hidden: %+v", s)
	}
}
