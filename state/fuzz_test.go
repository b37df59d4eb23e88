package state

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func FuzzParseEndpoint(f *testing.F) {
	for _, e := range []Endpoint{
		{IP4: netip.MustParseAddr("10.0.0.1"), Weight: 1},
		{IP6: netip.MustParseAddr("fd00::1"), Weight: 9, Ports: []Port{{"http", 80, 0, TCP}, {"dns", 53, 5353, UDP}}, Aliases: []string{"www", "a.b"}},
		{IP4: netip.MustParseAddr("10.0.0.1"), Weight: 1, Slot: 3, Name: "c1", Hostname: "h.x", Health: HealthFailing, Draining: true},
	} {
		f.Add(string(AppendEndpoint(nil, &e)))
	}
	f.Add("\xf0\x03new\x01\x04\x0a\x00\x00\x01")
	f.Fuzz(func(t *testing.T, body string) {
		e, err := ParseEndpoint(body)
		s := newStream("a")
		entry, err2 := newEntry(s, Record{Kind: KindEndpoint, Key: "t1", Group: "web", Body: body, Version: 1})
		if (err == nil) != (err2 == nil) {
			t.Fatalf("ParseEndpoint says %v, newEntry %v", err, err2)
		}
		if err != nil {
			return
		}
		again, err := ParseEndpoint(string(AppendEndpoint(nil, &e)))
		if err != nil || !reflect.DeepEqual(e, again) {
			t.Fatalf("%+v became %+v: %v", e, again, err)
		}
		e.ID, e.Service, e.Owner = "t1", "web", "a"
		if err := e.Validate(); err != nil {
			t.Fatalf("what is read is not valid: %v", err)
		}
		if got := entry.Endpoint(); !reflect.DeepEqual(got, e) || entry.Addr4() != e.IP4 || entry.Addr6() != e.IP6 ||
			entry.Weight() != e.Weight {
			t.Fatalf("entry has %+v, want %+v", got, e)
		}
	})
}

func FuzzParseVIPClaim(f *testing.F) {
	f.Add("web", string(AppendVIPClaim(nil, VIPClaim{
		VIP4: netip.MustParseAddr("10.9.0.1"),
		VIP6: netip.MustParseAddr("fd00::1"), Pinned: true, Birth: 7, Provisional: true,
	})))
	f.Add("web~", "")
	f.Fuzz(func(t *testing.T, key, body string) {
		c, err := ParseVIPClaim(key, body)
		if err != nil {
			return
		}
		if again, err := ParseVIPClaim(key, string(AppendVIPClaim(nil, c))); err != nil || again != c {
			t.Fatalf("%+v became %+v: %v", c, again, err)
		}
	})
}

func FuzzParseSettings(f *testing.F) {
	f.Add(string(AppendSettings(nil,
		SettingsClaim{Settings: Settings{
			Mode: ModeDNSRR, Scheduler: "wlc", Affinity: time.Minute, Drain: time.Second,
			TTL: MaxTTL,
		}, Lamport: 9})))
	f.Add("")
	f.Fuzz(func(t *testing.T, body string) {
		c, err := ParseSettings(body)
		if err != nil {
			return
		}
		if again, err := ParseSettings(string(AppendSettings(nil, c))); err != nil || again != c {
			t.Fatalf("%+v became %+v: %v", c, again, err)
		}
	})
}

func FuzzParseNetwork(f *testing.F) {
	f.Add("net", string(AppendNetwork(nil, NetworkClaim{NetworkDef: pool28, Pinned: true})))
	f.Add("net", string(AppendNetwork(nil,
		NetworkClaim{
			NetworkDef: NetworkDef{Subnet6: netip.MustParsePrefix("fd00::/64"), Birth: 1}, Removed: true,
			Lamport: 4,
		})))
	f.Fuzz(func(t *testing.T, name, body string) {
		c, err := ParseNetwork(name, body)
		if err != nil {
			return
		}
		if again, err := ParseNetwork(name, string(AppendNetwork(nil, c))); err != nil || again != c {
			t.Fatalf("%+v became %+v: %v", c, again, err)
		}
		if c.Subnet4.IsValid() {
			if a, err := allocate(&c.NetworkDef, "web", func(netip.Addr) bool { return true }); err != nil || !c.Contains(a) {
				t.Fatalf("%s from %s: %v", a, c.Subnet4, err)
			}
		}
	})
}

func FuzzParseNode(f *testing.F) {
	f.Add(string(AppendNode(nil, NodeInfo{
		Boot: 1, Addr: netip.MustParseAddrPort("[fd00::1]:7946"), Version: "v1",
		LB: "ipvs",
	})))
	f.Add(string(AppendNode(nil, NodeInfo{Addr: netip.MustParseAddrPort("10.0.0.1:7946")})))
	f.Fuzz(func(t *testing.T, body string) {
		n, err := parseNode(body)
		if err != nil {
			return
		}
		if again, err := parseNode(string(AppendNode(nil, n))); err != nil || again != n {
			t.Fatalf("%+v became %+v: %v", n, again, err)
		}
		if stamp, err := ParseBeacon(string(AppendBeacon(nil, time.Duration(n.Boot>>1)))); err != nil ||
			stamp != time.Duration(n.Boot>>1) {
			t.Fatalf("beacon %v: %v", stamp, err)
		}
	})
}

func FuzzParsePort(f *testing.F) {
	for _, s := range []string{
		"80", "http:80", "53/udp", "80:8080", "http:80:8080/tcp", "8080:8080", "80/tcp:8080", "[::1]:80:8080", "dns:53/UDP", "0", "65536", ":80", "80/sctp", "x:", "tcp/80",
		"tcp/tcp/tcp", "udp/tcp/tcp",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePort(s)
		if err != nil {
			return
		}
		if again, err := ParsePort(p.String()); err != nil || again != p {
			t.Fatalf("%q: %+v became %+v: %v", s, p, again, err)
		}
	})
}

// FuzzApply reads deltas from raw bytes: small counters, any kind and body.
// Honest deltas of the same owner are mixed in.
func FuzzApply(f *testing.F) {
	f.Add([]byte("a\x01\x00\x05\x00\x05\x00\x01\x01t1web\x06\x01\x04\x0a\x00\x00\x01"))
	f.Add([]byte{0, 1, 0, 3, 0, 3, 0, 1, 2, 200, 3, 1, 'x'})
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := pair(Limits{Entries: 20, Bytes: 4000, Owners: 3, Tombstones: 4})
		commit(t, b, endpoint(t, "t9", "web", "10.0.0.9"))
		own := content(b.own())
		next := func() (c byte) {
			if len(data) > 0 {
				c, data = data[0], data[1:]
			}
			return c
		}
		for round := 0; len(data) > 0; round++ {
			d := &Delta{Network: "net", Owner: NodeID([]string{"a", "b", "x"}[next()%3])}
			d.Inc, d.From, d.To, d.After, d.Upto, d.Floor = uint64(next()%4), uint64(next()), uint64(next()), uint64(next()),
				uint64(next()), uint64(next())
			flags := next()
			d.Snapshot, d.Sum = flags&1 > 0, uint64(flags>>4)
			version := d.After
			for range next() % 5 {
				version += uint64(next()%4) + 1
				r := Record{
					Kind: Kind(next()), Key: []string{"t1", "t2", "web", ""}[next()%4], Group: "web", Version: version,
					Deleted: next()&1 > 0,
				}
				n := min(int(next()), len(data))
				r.Body, data = string(data[:n]), data[n:]
				d.Records = append(d.Records, r)
			}
			before, _ := b.Head(d.Owner)
			_, _ = b.Apply(d)
			if after, _ := b.Head(d.Owner); after.Compare(before) < 0 {
				t.Fatalf("S2: %+v after %+v", after, before)
			}
			commit(t, a, opaque("k", string(binary.AppendUvarint(nil, uint64(round)))))
			h, _ := a.Head("a")
			if w, need := b.Want("a", h); need {
				if d := a.Delta(w, 10); d != nil {
					_, _ = b.Apply(d)
				}
			}
			for _, s := range b.streams {
				checkStream(t, s)
			}
		}
		b.Publish(1)
		checkView(t, b, []string{"web", "t1", "t9", "web.t1"}, []netip.Addr{netip.MustParseAddr("10.0.0.1")})
		if content(b.own()) != own {
			t.Fatal("S1: the own stream changed")
		}
	})
}
