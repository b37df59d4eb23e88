package state

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// This file makes hostile records by the grammar of bodies: known tags with
// values at their extremes, of wrong lengths, twice, of other kinds, and fields
// whose lengths lie. Random bytes hardly get past the first field.

// hostileNumbers are where counters, times, sizes and enumerations break.
var hostileNumbers = []uint64{
	0, 1, 2, 3, 16, 63, 64, 255, 256, 1<<16 - 1, 1 << 16, 1<<32 - 1, 1 << 32, firstTime + 1, maxTime - 1, maxTime,
	maxTime + 1,
	maxCounter, 1<<63 - 1, 1 << 63, 1<<64 - 1,
}

var hostileAddrs = []string{
	"0.0.0.0", "10.0.0.1", "10.9.0.1", "10.9.0.5", "127.0.0.1", "169.254.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
	"::", "::1", "fe80::1", "ff02::1", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::1",
}

var hostileNames = []string{
	"", "web", "db", "www", "localhost", "tasks", "nearest", "github.com", "tasks.web", "a..b", "WEB", "web~", "~",
	"web.1.t1",
	"\x00", "\xff\xfe", strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a.", 126) + "a", "ip_vs_evil",
	"rr", "wlc",
}

func drawValue(rt *rapid.T) []byte {
	switch rapid.IntRange(0, 6).Draw(rt, "what") {
	case 0:
		return binary.AppendUvarint(nil, oneOf(rt, hostileNumbers, "number"))
	case 1:
		return netip.MustParseAddr(oneOf(rt, hostileAddrs, "addr")).AsSlice()
	case 2:
		a := netip.MustParseAddr(oneOf(rt, hostileAddrs, "prefix"))
		bits := oneOf(rt, []int{0, 1, 7, 8, 16, 28, 29, 30, 32, 33, 64, 128, 129, 255}, "bits")
		if p := netip.PrefixFrom(a, bits); p.IsValid() {
			a = p.Masked().Addr()
		}
		return append(a.AsSlice(), byte(bits))
	case 3:
		return []byte(oneOf(rt, hostileNames, "name"))
	case 4: // a port
		port := oneOf(rt, []uint64{0, 80, 443, 65535}, "port")
		return append([]byte{byte(port >> 8), byte(port), oneOf(rt, []byte{0, 6, 17, 132, 255}, "proto")},
			oneOf(rt, hostileNames, "port name")...)
	case 5:
		return slices.Repeat([]byte{0xff}, oneOf(rt, []int{0, 1, 9, 10, 11, 17, 300}, "length")) // uvarints without end
	}
	return rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(rt, "bytes")
}

func drawBody(rt *rapid.T) string {
	var b []byte
	for range rapid.IntRange(0, 6).Draw(rt, "fields") {
		v := drawValue(rt)
		tag := oneOf(rt, []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0xf0, 255}, "tag")
		field := putField(nil, tag, v...)
		switch rapid.IntRange(0, 9).Draw(rt, "twist") {
		case 0:
			field = append(field, field...) // twice
		case 1:
			field = field[:len(field)-min(len(v), 1)] // cut off
		case 2:
			field = append(binary.AppendUvarint([]byte{tag}, oneOf(rt, hostileNumbers, "lie")), v...)
		}
		b = append(b, field...)
	}
	return string(b[:min(len(b), MaxBody)])
}

// drawRecord draws a record; two of three are sound but for one extreme, since
// those get further.
func drawRecord(rt *rapid.T) Record {
	if rapid.IntRange(0, 2).Draw(rt, "sound") > 0 {
		return drawSound(rt)
	}
	return Record{
		Kind:  Kind(oneOf(rt, []byte{1, 1, 1, 2, 2, 3, 16, 17, 18, 18, 19, 4, 200, 255}, "kind")),
		Key:   oneOf(rt, append(slices.Clone(hostileNames), "t1", "own1", "net", "other"), "key"),
		Group: oneOf(rt, hostileNames, "group"),
		Body:  drawBody(rt), Deleted: rapid.IntRange(0, 9).Draw(rt, "deleted") == 0,
	}
}

func drawSound(rt *rapid.T) Record {
	number := oneOf(rt, hostileNumbers, "number")
	service := oneOf(rt, []string{"web", "db", "fresh"}, "service")
	addr := netip.MustParseAddr(oneOf(rt, []string{"10.0.0.1", "10.0.0.9", "10.9.0.1", "10.9.0.5", "127.0.0.1"}, "addr"))
	switch oneOf(rt, []Kind{KindEndpoint, KindEndpoint, KindVIP, KindSettings, KindNetwork, KindMember}, "kind") {
	case KindEndpoint:
		e := Endpoint{
			IP4: addr, Weight: 1, Aliases: []string{oneOf(rt, []string{"web", "www", "db"}, "alias")},
			Draining: rapid.Bool().Draw(rt, "draining"),
		}
		return Record{
			Kind: KindEndpoint, Key: oneOf(rt, []string{"own1", "t1", "t2"}, "id"), Group: service,
			Body: string(AppendEndpoint(nil, &e)),
		}
	case KindVIP:
		c := VIPClaim{VIP4: addr, Pinned: rapid.Bool().Draw(rt, "pinned"), Birth: number}
		return Record{
			Kind: KindVIP, Key: service + oneOf(rt, []string{"", "", "~"}, "retreat"),
			Body: string(AppendVIPClaim(nil, c)),
		}
	case KindSettings:
		c := SettingsClaim{Settings: Settings{
			Mode:      Mode(number % 2),
			Scheduler: oneOf(rt, []string{"", "rr", "evil"}, "scheduler"),
		}, Lamport: number}
		return Record{Kind: KindSettings, Key: service, Body: string(AppendSettings(nil, c))}
	case KindNetwork:
		c := NetworkClaim{Removed: rapid.Bool().Draw(rt, "removed"), Lamport: number, NetworkDef: NetworkDef{
			Birth: number, Subnet4: netip.MustParsePrefix(oneOf(rt, []string{
				"10.9.0.0/24", "10.0.0.0/8", "10.0.0.0/29",
				"127.0.0.0/8",
			}, "pool")),
		}}
		return Record{
			Kind: KindNetwork, Key: oneOf(rt, []string{"net", "other", "evil"}, "name"),
			Body: string(AppendNetwork(nil, c)),
		}
	}
	return Record{Kind: KindMember, Key: oneOf(rt, []string{"net", "other", "evil"}, "name")}
}

// honestView is what a store shows that does not come from the hostile owner:
// enough of it to tell whether anything changed.
func honestView(s *Store) string {
	var b strings.Builder
	for _, name := range []string{"net", "other"} {
		t := s.Table(name)
		for _, svc := range t.View().Services() {
			fmt.Fprintf(&b, "%s %s %v %v %+v %v %v %v\n", name, svc.Name, svc.VIP4, svc.VIP6, svc.Settings, svc.Ports,
				svc.Aliases, ids(svc.Members.AppendTo(nil)))
		}
		fmt.Fprintf(&b, "%+v %v %v\n", t.View().Def(), ids([]*Entry{t.View().Task("own1")}), t.Owners())
		for _, a := range hostileAddrs {
			m := t.View().ByIP(netip.MustParseAddr(a))
			fmt.Fprintf(&b, "%v %v ", ids([]*Entry{m.Endpoint}), m.Service != nil)
		}
		fmt.Fprintf(&b, "%x %x\n", t.Hash(), t.Checksum())
	}
	fmt.Fprintf(&b, "%v %v %v %v %v", s.Definitions().Effective, s.Definitions().Disputes, s.Definitions().Overlaps,
		s.Participants("net"), s.Clock().Time())
	return b.String()
}

// TestHostileRecords: whatever an owner states, nothing panics, the tables keep
// their laws, two nodes that hear it hold the same, those who live can go on
// stating, and nothing of it is left when the owner is buried (G8, S10, S16–S19).
func TestHostileRecords(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		mk := func(self NodeID) *Store {
			s := NewStore(self, 1, DefaultLimits(), new(testClock))
			for _, n := range []string{"net", "other"} {
				s.Join(n).Open()
			}
			return s
		}
		a, b := mk("a"), mk("b")
		own := vipChange(VIPClaim{Service: "web", VIP4: netip.MustParseAddr("10.9.0.5"), Birth: 1})
		commit(t, a.Table("net"), endpoint(t, "own1", "web", "10.0.0.9"), own)
		def := NetworkClaim{NetworkDef: NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix("10.9.0.0/24"), Birth: 1}}
		commit(t, a.Global(), Change{Kind: KindNetwork, Key: "net", Body: string(AppendNetwork(nil, def))},
			Change{Kind: KindMember, Key: "net"})
		now := time.Second
		a.Publish(now)
		before := honestView(a)
		for range rapid.IntRange(1, 4).Draw(rt, "rounds") {
			network := oneOf(rt, []string{"", "net", "other"}, "network")
			records := rapid.SliceOfNDistinct(rapid.Custom(drawRecord), 1, 5,
				func(r Record) string { return r.mapKey() }).Draw(rt, "records")
			h, _ := a.Table(network).Head("evil")
			d := forge("evil", h.Inc+1, uint64(len(records)), records...)
			d.Network, d.Sum = network, 0
			st := newStream("evil")
			for _, r := range records {
				if e, _ := newEntry(st, r); !r.Deleted {
					d.Sum += e.sum()
				}
			}
			for _, s := range []*Store{a, b} {
				s.SetLiveness("evil", oneOf(rt, []Liveness{Dead, Suspected, Alive}, "liveness"))
				r1, err := s.Apply(d)
				if r1 != Applied {
					rt.Fatalf("%v %v", r1, err)
				}
				now += time.Second
				s.Publish(now)
				checkUsage(t, s)
			}
			x, _ := a.Table(network).Head("evil")
			if y, _ := b.Table(network).Head("evil"); x != y {
				rt.Fatalf("S10: %+v here, %+v there", x, y)
			}
		}
		// Whoever lives can go on.
		if n := a.Clock().Time(); n > firstTime+1<<20 {
			rt.Fatalf("S16: the clock is at %d", n)
		}
		c := NewCarrier(time.Second, time.Second)
		c.Services["fresh"] = &Hosting{Tasks: 1, Settings: &Settings{Scheduler: "wlc"}}
		changes, _, _ := c.Carry(a.Table("net"), now)
		if _, refused := a.Table("net").CommitEach(changes); len(refused) > 0 {
			rt.Fatalf("S16: %v", refused)
		}
		if _, err := a.Table("net").Commit([]Change{endpoint(t, "own2", "fresh", "10.0.0.8")}); err != nil {
			rt.Fatal(err)
		}
		commit(t, a.Table("net"), Change{Kind: KindEndpoint, Key: "own2", Delete: true})
		for _, e := range slices.Concat(a.Table("net").Own(KindVIP), a.Table("net").Own(KindSettings)) {
			if e.Key() != "web" {
				commit(t, a.Table("net"), Change{Kind: e.Kind(), Key: e.Key(), Delete: true})
			}
		}
		for _, s := range []*Store{a, b} {
			for _, table := range s.Tables() {
				table.Retire("evil")
				table.Readmit("evil")
			}
			now += time.Second
			s.Publish(now)
			checkUsage(t, s)
			for _, table := range s.Tables() {
				if len(table.index.bars.barred)+len(table.index.bars.twins) > 0 {
					rt.Fatalf("S18: %v", slices.Collect(maps.Keys(table.index.bars.barred)))
				}
			}
		}
		if after := tail(honestView(a)); after != tail(before) {
			rt.Fatalf("what the hostile owner left:\n%s\nbefore:\n%s", after, tail(before))
		}
	})
}

// tail drops what honest statements of the test itself have moved: hashes of
// the own streams and the clock.
func tail(view string) string {
	var out []string
	for line := range strings.Lines(view) {
		if i := strings.LastIndex(line, "] "); strings.HasPrefix(line, "[") && i > 0 {
			line = line[:i]
		}
		out = append(out, line)
	}
	last := len(out) - 1
	out[last] = out[last][:strings.LastIndexByte(out[last], ' ')]
	return strings.Join(out, "")
}
