package state

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The replication laws as one random walk: several nodes write, exchange
// deltas in every disorder, forget, reincarnate and restart. After each step
// every replica is compared with what its owner really said at that version.

var (
	lawNodes    = []NodeID{"a", "b", "c", "d"}
	lawIDs      = []string{"t1", "t2", "t3", "0123456789abcdef", "0123456789abffff"}
	lawServices = []string{"web", "db", "www"}
	lawNames    = []string{
		"web", "db", "www", "alias1", "alias2", "c1", "c2.x", "h1", "t1", "t2", "t3", "0123456789ab", "0123456789abcdef",
		"web.t1", "db.t1", "web.3.t2", "web.0123456789ab", "web.3.0123456789ab", "web.t1.x", "tasks.web", "nothing",
	}
	lawAddrs = []netip.Addr{
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3"),
		netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), netip.MustParseAddr("10.9.0.1"),
		netip.MustParseAddr("10.9.0.2"),
	}
)

// oneOf draws an element, the zero value one time in n+1.
func oneOf[T any](rt *rapid.T, from []T, label string) T {
	return rapid.SampledFrom(from).Draw(rt, label)
}

func drawEndpoint(rt *rapid.T) Change {
	e := Endpoint{
		ID: oneOf(rt, lawIDs, "id"), Service: oneOf(rt, lawServices, "service"),
		Weight: uint16(rapid.IntRange(1, 3).Draw(rt, "weight")),
		Slot:   oneOf(rt, []uint32{0, 0, 3}, "slot"), Name: oneOf(rt, []string{"", "c1", "c2.x"}, "name"),
		Hostname: oneOf(rt, []string{"", "h1", "c1"}, "hostname"),
		Health:   oneOf(rt, []Health{0, 0, HealthStarting, HealthFailing}, "health"),
		Draining: rapid.IntRange(0, 4).Draw(rt, "draining") == 0, IP4: oneOf(rt, lawAddrs[:3], "ip4"),
		Aliases: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"alias1", "alias2", "www"}), 0, 2, rapid.ID).Draw(rt,
			"aliases"),
		Ports: rapid.SliceOfN(rapid.SampledFrom([]Port{
			{"", 80, 0, TCP}, {"http", 80, 0, TCP}, {"", 53, 0, UDP}, {"", 443, 8443, TCP},
		}), 0, 3).Draw(rt, "ports"),
	}
	if rapid.Bool().Draw(rt, "v6") {
		e.IP6 = oneOf(rt, lawAddrs[3:5], "ip6")
	}
	return Change{Kind: KindEndpoint, Key: e.ID, Group: e.Service, Body: string(AppendEndpoint(nil, &e))}
}

func drawChange(rt *rapid.T) Change {
	switch rapid.IntRange(0, 9).Draw(rt, "kind") {
	case 0, 1, 2, 3, 4:
		return drawEndpoint(rt)
	case 5, 6:
		return Change{Kind: KindEndpoint, Key: oneOf(rt, lawIDs, "id"), Delete: true}
	case 7:
		c := VIPClaim{
			VIP4: oneOf(rt, lawAddrs[5:], "vip"), Birth: uint64(rapid.IntRange(1, 5).Draw(rt, "birth")),
			Pinned: rapid.IntRange(0, 3).Draw(rt, "pinned") == 0, Provisional: rapid.Bool().Draw(rt, "provisional"),
		}
		return Change{
			Kind: KindVIP, Key: oneOf(rt, []string{"web", "web~", "db"}, "service"),
			Body: string(AppendVIPClaim(nil, c)), Delete: rapid.IntRange(0, 2).Draw(rt, "del") == 0,
		}
	case 8:
		c := SettingsClaim{Settings: Settings{
			Mode:      oneOf(rt, []Mode{ModeVIP, ModeDNSRR}, "mode"),
			Scheduler: oneOf(rt, []string{"", "wlc"}, "sched"),
		}, Lamport: uint64(rapid.IntRange(0, 3).Draw(rt, "lamport"))}
		return Change{
			Kind: KindSettings, Key: oneOf(rt, lawServices, "service"), Body: string(AppendSettings(nil, c)),
			Delete: rapid.IntRange(0, 2).Draw(rt, "del") == 0,
		}
	default: // S11: a kind of the future
		return Change{Kind: 200, Key: oneOf(rt, lawIDs, "id"), Group: "x", Body: rapid.StringN(0, 5, 20).Draw(rt, "body")}
	}
}

func liveContent(s *stream) string {
	var b strings.Builder
	for _, e := range s.sorted() {
		fmt.Fprintf(&b, "%d %q\n", e.version, e.data)
	}
	return b.String()
}

type law struct {
	stores  map[NodeID]*Store
	clocks  map[NodeID]*testClock
	said    map[NodeID]map[Head]string   // what each owner held at each of its heads
	alive   map[NodeID]map[uint64]string // inc<<32|version → live content: version decides it
	last    map[[2]NodeID]Head           // node, owner → head seen last
	flight  []flight
	highest map[NodeID]uint64 // incarnations used
	now     time.Duration
}

type flight struct {
	to NodeID
	d  *Delta
}

var lawLimits = Limits{Entries: 100, Bytes: 1 << 16, Owners: 10, Tombstones: 3}

func newLaw() *law {
	l := &law{
		stores: map[NodeID]*Store{}, clocks: map[NodeID]*testClock{}, said: map[NodeID]map[Head]string{},
		alive: map[NodeID]map[uint64]string{}, last: map[[2]NodeID]Head{}, highest: map[NodeID]uint64{},
	}
	for _, n := range lawNodes {
		l.said[n], l.alive[n] = map[Head]string{}, map[uint64]string{}
		l.start(n)
	}
	return l
}

// start begins a new life of a node, with an empty disk (S7).
func (l *law) start(n NodeID) {
	l.highest[n]++
	l.clocks[n] = new(testClock)
	s := NewStore(n, l.highest[n], lawLimits, l.clocks[n])
	l.stores[n] = s
	s.Join("net").Open()
	for _, o := range lawNodes {
		s.SetLiveness(o, Alive)
		delete(l.last, [2]NodeID{n, o})
	}
	l.remember(n)
}

func (l *law) table(n NodeID) *Table { return l.stores[n].Table("net") }

func (l *law) remember(n NodeID) {
	s := l.table(n).streams[n]
	l.said[n][s.head] = content(s)
	l.alive[n][s.head.Inc<<32|s.head.Version] = liveContent(s)
}

// check holds every replica against its owner's words: I2, I3, I5, I9, S2, S3, S10.
func (l *law) check(t rapid.TB) {
	bySums := map[uint64]string{}
	for _, n := range lawNodes {
		table := l.table(n)
		entries, all := 0, ""
		for _, o := range table.Owners() {
			s := table.streams[o]
			entries += len(s.live)
			if s.head.Inc == 0 {
				continue
			}
			if last := l.last[[2]NodeID{n, o}]; s.head.Compare(last) < 0 {
				t.Fatalf("S2: %s: head of %s went from %+v to %+v", n, o, last, s.head)
			}
			l.last[[2]NodeID{n, o}] = s.head
			want, ok := l.said[o][s.head]
			if !ok {
				t.Fatalf("I1: %s has %s at %+v, which it never was", n, o, s.head)
			}
			if got := content(s); got != want {
				t.Fatalf("S3: %s has of %s at %+v:\n%swant\n%s", n, o, s.head, got, want)
			}
			if s.resync {
				t.Fatalf("S10: %s thinks it has wrong content of %s at %+v", n, o, s.head)
			}
			checkStream(t, s)
			if len(s.live) > 0 {
				all += string(o) + "\n" + liveContent(s)
			}
		}
		if table.Len() != entries {
			t.Fatalf("%s: Len %d, want %d", n, table.Len(), entries)
		}
		if other, ok := bySums[table.Checksum()]; ok && other != all {
			t.Fatalf("S10: equal checksums, different content:\n%s\n%s", other, all)
		}
		for sum, other := range bySums {
			if other == all && sum != table.Checksum() {
				t.Fatalf("S10: equal content, different checksums")
			}
		}
		bySums[table.Checksum()] = all
		if b := table.Buckets(16); table.Hash() != sumOf(b) || table.Hash() != naiveHash(table) {
			t.Fatalf("G4: hash %x, buckets %x, naive %x", table.Hash(), sumOf(b), naiveHash(table))
		}
	}
}

func sumOf(hs []uint64) (sum uint64) {
	for _, h := range hs {
		sum += h
	}
	return sum
}

func naiveHash(t *Table) (sum uint64) {
	for _, h := range t.Heads(func(NodeID) bool { return true }) {
		if !h.Retired && !h.Kept {
			sum += h.Head.hash(ownerHash(h.Owner))
		}
	}
	return sum
}

// repair exchanges deltas until nobody wants anything, and returns the rounds.
func (l *law) repair(t rapid.TB, budget int) {
	for range 10_000 {
		busy := false
		for _, n := range lawNodes {
			for _, p := range lawNodes {
				for _, h := range l.table(p).Heads(func(NodeID) bool { return true }) {
					w, need := l.table(n).Want(h.Owner, h.Head)
					if !need || h.Kept {
						continue
					}
					busy = true
					if d := l.table(p).Delta(w, budget); d != nil {
						if r, err := l.stores[n].Apply(d); err != nil {
							t.Fatalf("repair of %s at %s from %s: %v %v", h.Owner, n, p, r, err)
						}
						l.check(t)
					}
				}
			}
		}
		if !busy {
			return
		}
	}
	t.Fatalf("S3: repair does not finish")
}

func TestLawsOfReplication(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := newLaw()
		node := rapid.SampledFrom(lawNodes)
		rt.Repeat(map[string]func(*rapid.T){
			"": func(rt *rapid.T) { l.check(rt) },
			"commit": func(rt *rapid.T) {
				n := node.Draw(rt, "node")
				changes := rapid.SliceOfN(rapid.Custom(drawChange), 1, 6).Draw(rt, "changes")
				if _, err := l.table(n).Commit(changes); err != nil {
					rt.Fatal(err)
				}
				l.remember(n)
			},
			"poison": func(rt *rapid.T) { // G8: a newer version writes what we cannot read
				n := node.Draw(rt, "node")
				table := l.table(n)
				s := table.own()
				table.touch(s, func() {
					s.head.Version++
					table.put(s, table.entry(s, Record{
						Kind: KindEndpoint, Key: oneOf(rt, lawIDs, "id"), Group: "web",
						Body: "\x01\x01\x01", Version: s.head.Version,
					}))
				})
				l.remember(n)
			},
			"send": func(rt *rapid.T) { // a peer's want is answered, but nothing has arrived yet
				from, to, o := node.Draw(rt, "from"), node.Draw(rt, "to"), node.Draw(rt, "owner")
				h, ok := l.table(from).Head(o)
				if !ok || from == to {
					return
				}
				w, _ := l.table(to).Want(o, h)
				if w.Owner == "" {
					w = l.table(to).WantNext(o) // a push: whether it is wanted or not
				}
				if d := l.table(from).Delta(w, oneOf(rt, []int{1, 60, 200, 1 << 20}, "budget")); d != nil {
					l.flight = append(l.flight, flight{to, d})
				}
			},
			"push": func(rt *rapid.T) { // G3: to whoever, from where the owner thinks they are
				o := node.Draw(rt, "owner")
				h, _ := l.table(o).Head(o)
				from := h.Version - min(h.Version, uint64(rapid.IntRange(0, 4).Draw(rt, "back")))
				d := l.table(o).Delta(Want{Owner: o, Inc: h.Inc, From: from, After: from}, 1<<20)
				for _, to := range lawNodes {
					l.flight = append(l.flight, flight{to, d})
				}
			},
			"deliver": func(rt *rapid.T) { // in any order, any number of times, or never
				if len(l.flight) == 0 {
					return
				}
				f := oneOf(rt, l.flight, "flight")
				before, _ := l.table(f.to).Head(f.to)
				if _, err := l.stores[f.to].Apply(f.d); err != nil {
					rt.Fatal(err)
				}
				if after, _ := l.table(f.to).Head(f.to); after != before {
					rt.Fatalf("S1: %s let a peer change its stream", f.to)
				}
			},
			"lose": func(*rapid.T) { l.flight = nil },
			"forget": func(rt *rapid.T) {
				n := node.Draw(rt, "node")
				h, _ := l.table(n).Head(n)
				l.table(n).Forget(h.Version - min(h.Version, uint64(rapid.IntRange(0, 3).Draw(rt, "back"))))
				l.remember(n)
			},
			"reincarnate": func(rt *rapid.T) {
				n := node.Draw(rt, "node")
				l.highest[n]++
				l.stores[n].Reincarnate(l.highest[n])
				l.remember(n)
			},
			"retire": func(rt *rapid.T) {
				n := node.Draw(rt, "node")
				if rapid.IntRange(0, 3).Draw(rt, "dice") == 0 {
					l.table(n).Leave()
					l.remember(n)
				}
			},
			"restart": func(rt *rapid.T) {
				if rapid.IntRange(0, 5).Draw(rt, "dice") == 0 {
					l.start(node.Draw(rt, "node"))
				}
			},
			"liveness": func(rt *rapid.T) {
				l.stores[node.Draw(rt, "node")].SetLiveness(node.Draw(rt, "owner"),
					oneOf(rt, []Liveness{Dead, Suspected, Alive}, "liveness"))
			},
			"define": func(rt *rapid.T) {
				d := NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix(oneOf(rt, []string{"10.9.0.0/28", "10.9.0.0/29"},
					"pool")), Birth: 1}
				l.table(node.Draw(rt, "node")).SetDef(d)
			},
			"publish": func(rt *rapid.T) {
				n := node.Draw(rt, "node")
				l.now += time.Millisecond
				l.stores[n].Publish(l.now)
				checkView(t, l.table(n), lawNames, lawAddrs)
			},
		})
		l.repair(rt, oneOf(rt, []int{1, 100, 1 << 20}, "repair budget"))
		want := l.table("a")
		for _, n := range lawNodes {
			table := l.table(n)
			if table.Hash() != want.Hash() || table.Checksum() != want.Checksum() {
				rt.Fatalf("S10: %s is not equal to a after repair", n)
			}
			for _, o := range lawNodes {
				if h, _ := table.Head(o); h != l.table(o).streams[o].head {
					rt.Fatalf("%s has %s at %+v, which is at %+v", n, o, h, l.table(o).streams[o].head)
				}
				l.stores[n].SetLiveness(o, Alive)
			}
			l.stores[n].Publish(l.now + time.Second)
			checkView(t, table, lawNames, lawAddrs)
		}
	})
}
