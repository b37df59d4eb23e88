package lb_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"meshd/lb"
	"meshd/lb/lbtest"
	"meshd/state"
)

var (
	pool4 = netip.MustParsePrefix("10.96.0.0/16")
	pool6 = netip.MustParsePrefix("fd96::/64")
)

// drawTable draws a table of a few services with a few backends.
func drawTable(t *rapid.T, label string) *lb.Table {
	table := lb.NewTable()
	table.Pools[pool4] = lb.Pool{Prefix: pool4, Src: netip.MustParseAddr("192.0.2.1")}
	if rapid.Bool().Draw(t, label+" has a second pool") {
		table.Pools[pool6] = lb.Pool{Prefix: pool6}
	}
	for i := range rapid.IntRange(0, 5).Draw(t, label+" services") {
		k := lb.Key{VIP: netip.AddrFrom4([4]byte{10, 96, 0, byte(i)}), Port: 80, Proto: state.TCP}
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			k.Proto = state.UDP
		case 1:
			k.Port, k.Proto = 0, 0
		}
		s := &lb.Service{Key: k, Scheduler: rapid.SampledFrom([]string{"rr", "wlc"}).Draw(t, "scheduler")}
		for j := range 4 {
			if w := rapid.IntRange(-1, 3).Draw(t, "weight"); w >= 0 {
				addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(j)}), k.Port)
				s.Backends = append(s.Backends, lb.Backend{Addr: addr, Weight: uint32(w)})
			}
		}
		table.Services[k] = s
	}
	return table
}

func always(lb.Key, netip.AddrPort) bool { return true }

// Rules L1, L5: whatever fails on the way, the end is what is desired, and on
// the way nothing is flushed, deleted to be added again, or cut off undrained.
func TestDiffConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		actual, desired := drawTable(t, "actual"), drawTable(t, "desired")
		seed := rapid.Uint64().Draw(t, "seed")
		kernel := &lbtest.Fake{Rand: rand.New(rand.NewPCG(seed, 1)), FailProbability: 0.1}
		for kernel.Setup(t.Context()) != nil {
		}
		kernel.ChangeKernel(build(actual)...)
		shadow := kernel.Kernel()
		for round := range 100 {
			ops := lb.Diff(shadow, desired, lb.Policy{Drained: always})
			if len(ops) == 0 {
				break
			}
			checkOrder(t, ops)
			checkOps(t, shadow, desired, ops)
			shadow.Apply(ops, kernel.Apply(t.Context(), ops))
			if round == 99 {
				t.Fatalf("not settled after 100 rounds: %v", ops)
			}
		}
		equalTables(t, kernel.Kernel(), desired)
		equalTables(t, shadow, desired)
		if f := kernel.Faults(); len(f) > 0 {
			t.Fatalf("rules broken: %v", f)
		}
	})
}

// build returns the operations that make a table from nothing.
func build(table *lb.Table) []lb.Op {
	return lb.Diff(lb.NewTable(), table, lb.Policy{})
}

func checkOrder(t *rapid.T, ops []lb.Op) {
	for i := 1; i < len(ops); i++ {
		if ops[i].Kind < ops[i-1].Kind {
			t.Fatalf("%s comes after %s", ops[i], ops[i-1])
		}
	}
}

func checkOps(t *rapid.T, have, want *lb.Table, ops []lb.Op) {
	for _, op := range ops {
		switch op.Kind {
		case lb.DelService:
			if want.Services[op.Key] != nil {
				t.Fatalf("%s is wanted", op)
			}
		case lb.DelBackend:
			b, _ := have.Services[op.Key].Backend(op.Backend.Addr)
			if op.Key.Proto != state.UDP && b.Weight > 0 {
				t.Fatalf("%s without drain", op)
			}
		}
	}
}

func equalTables(t *rapid.T, got, want *lb.Table) {
	t.Helper()
	if ops := lb.Diff(got, want, lb.Policy{Drained: always}); len(ops) > 0 {
		t.Fatalf("not equal: %v", ops)
	}
	if len(got.Services) != len(want.Services) || len(got.Pools) != len(want.Pools) {
		t.Fatalf("%d services and %d pools, want %d and %d", len(got.Services), len(got.Pools), len(want.Services),
			len(want.Pools))
	}
}

func ops(list []lb.Op) string { return fmt.Sprint(list) }

// web is a service at 10.96.0.1; a weight below 0 leaves the backend out.
func web(proto state.Proto, weights ...int) *lb.Table {
	t := lb.NewTable()
	t.Pools[pool4] = lb.Pool{Prefix: pool4}
	s := &lb.Service{Key: lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: proto}, Scheduler: "wrr"}
	for i, w := range weights {
		if w >= 0 {
			s.Backends = append(s.Backends, lb.Backend{
				Addr:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80),
				Weight: uint32(w),
			})
		}
	}
	t.Services[s.Key] = s
	return t
}

func TestDiff(t *testing.T) {
	none := lb.NewTable()
	pool := lb.NewTable()
	pool.Pools[pool4] = lb.Pool{Prefix: pool4}
	drained := lb.Policy{Drained: always}
	keep := lb.Policy{MustKeep: func(netip.Addr) bool { return true }}
	for _, c := range []struct {
		name         string
		have, want   *lb.Table
		policy       lb.Policy
		wantedResult string
	}{
		{"nothing", web(6, 1), web(6, 1), drained, "[]"},
		{
			"from scratch: pool, service, backend", none, web(6, 1), drained,
			"[set-pool 10.96.0.0/16 set-service 10.96.0.1:80/tcp set-backend 10.96.0.1:80/tcp 10.0.0.0:80 weight 1]",
		},
		{"L5: no backends, but there", none, web(6), drained, "[set-pool 10.96.0.0/16 set-service 10.96.0.1:80/tcp]"},
		{
			"L5: add before drain", web(6, 1), web(6, -1, 1), drained,
			"[set-backend 10.96.0.1:80/tcp 10.0.0.1:80 weight 1 set-backend 10.96.0.1:80/tcp 10.0.0.0:80 weight 0]",
		},
		{"L5: not idle, not due", web(6, 0), web(6), lb.Policy{}, "[]"},
		{"L5: idle or due", web(6, 0), web(6), drained, "[del-backend 10.96.0.1:80/tcp 10.0.0.0:80]"},
		{"L5: UDP at once", web(17, 1), web(17), lb.Policy{}, "[del-backend 10.96.0.1:80/udp 10.0.0.0:80]"},
		{"L1: back from draining by weight alone", web(6, 0), web(6, 2), drained, "[set-backend 10.96.0.1:80/tcp 10.0.0.0:80 weight 2]"},
		{
			"service with its last drained backend", web(6, 0), pool, drained,
			"[del-backend 10.96.0.1:80/tcp 10.0.0.0:80 del-service 10.96.0.1:80/tcp]",
		},
		{"pool stays while services drain", web(6, 1), none, drained, "[set-backend 10.96.0.1:80/tcp 10.0.0.0:80 weight 0]"},
		{"nothing goes before the view is complete", web(6, 1, 1), none, keep, "[]"},
		{"but things come", web(6, 1), web(6, -1, 1), keep, "[set-backend 10.96.0.1:80/tcp 10.0.0.1:80 weight 1]"},
	} {
		if got := ops(lb.Diff(c.have, c.want, c.policy)); got != c.wantedResult {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.wantedResult)
		}
	}
}
